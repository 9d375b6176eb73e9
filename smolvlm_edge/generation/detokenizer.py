"""Token ids -> text, whole characters only, up to a stop string."""

from collections.abc import Collection, Sequence

from tokenizers import Tokenizer

from smolvlm_edge.bundle.tokenizer import tokenizing


class Detokenizer:
    """Collects the tokens of one answer and hands out text that will not change any more.

    A token may hold half a character, and text may be the beginning of a stop string: both are kept back
    until it is clear what they are.
    """

    def __init__(
        self, tokenizer: Tokenizer, stop: Sequence[str] = (), hidden: Collection[int] = (), prefix: str = ""
    ) -> None:
        """Begin an answer.

        Args:
            tokenizer: The model's.
            stop: Texts that end it.
            hidden: Tokens that are left out of the text; see `PromptEncoder.hidden_token_ids`.
            prefix: A character that is left out where the answer begins with it, and is in no stop string then.
        """
        self._tokenizer = tokenizer
        self._hidden = hidden
        self._stop = [text for text in stop if text]
        self._known: list[int] = []
        """Tokens whose text is out; decoding the next ones after them shows what these add."""
        self._new: list[int] = []
        """Tokens that still may end in half a character."""
        self._pending = ""
        self._prefix = prefix
        self.stopped = False
        """Whether a stop string was met; nothing comes out after that."""

    def push(self, token: int) -> str:
        """Add a token; return the text that is certain now."""
        if token not in self._hidden:
            self._new.append(token)
        self._read(keep_unfinished=True)
        return self._released(len(self._pending) - self._undecided())

    def flush(self) -> str:
        """The rest of the text, once the last token was added."""
        if self.stopped:
            return ""
        self._read(keep_unfinished=False)
        return self._released(len(self._pending))

    def _released(self, certain: int) -> str:
        """The first `certain` characters that wait, or those before a stop string."""
        places = [self._pending.find(text) for text in self._stop]
        if found := [place for place in places if place >= 0]:
            self.stopped, certain = True, min(found)
        text, self._pending = self._pending[:certain], self._pending[certain:]
        return text

    def _read(self, *, keep_unfinished: bool) -> None:
        self._pending += self._added(keep_unfinished=keep_unfinished)
        if self._pending:
            self._pending, self._prefix = self._pending.removeprefix(self._prefix), ""

    def _added(self, *, keep_unfinished: bool) -> str:
        """What the new tokens add to the text; nothing as long as it ends in half a character."""
        with tokenizing():
            before = self._tokenizer.decode(self._known, skip_special_tokens=False)
            text = self._tokenizer.decode(self._known + self._new, skip_special_tokens=False)
        if keep_unfinished and text.endswith("\ufffd"):
            return ""
        self._known, self._new = self._new, []
        return text[len(before) :]

    def _undecided(self) -> int:
        """Length of the longest end of the text that begins a stop string."""
        longest = max(map(len, self._stop), default=1) - 1
        for length in range(min(longest, len(self._pending)), 0, -1):
            if any(text.startswith(self._pending[-length:]) for text in self._stop):
                return length
        return 0
