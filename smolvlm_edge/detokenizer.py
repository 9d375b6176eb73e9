"""Token ids -> text, whole characters only, up to a stop string."""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class Detokenizer:
    """Collects the tokens of one answer and hands out text that will not change any more.

    A token may hold half a character, and text may be the beginning of a stop string: both are kept back
    until it is clear what they are.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._stop = [text for text in stop if text]
        self._pending = ""
        self.stopped = False
        """Whether a stop string was met; nothing comes out after that."""

    def push(self, token: int) -> str:
        """Add a token; return the text that is certain now."""
        self._pending += self._stream.step(self._tokenizer, token) or ""
        places = [self._pending.find(text) for text in self._stop]
        if found := [place for place in places if place >= 0]:
            self.stopped = True
            return self._take(min(found))
        return self._take(len(self._pending) - self._undecided())

    def flush(self) -> str:
        """The rest of the text, once the last token was added."""
        return "" if self.stopped else self._take(len(self._pending))

    def _take(self, length: int) -> str:
        text, self._pending = self._pending[:length], self._pending[length:]
        return text

    def _undecided(self) -> int:
        """Length of the longest end of the text that begins a stop string."""
        longest = max(map(len, self._stop), default=1) - 1
        for length in range(min(longest, len(self._pending)), 0, -1):
            if any(text.startswith(self._pending[-length:]) for text in self._stop):
                return length
        return 0
