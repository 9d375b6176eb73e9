"""The shortest way to bring a text that has begun to a valid end.

A grammar tells what may come next, not how far the end is. So the end is searched for, byte by byte, over a vocabulary
of the 256 bytes. A dash – close what is open, else take the first byte that may come – finds an ending of nearly the
best length almost always. A search that dashes on from everywhere along the way, nearest end first, finds the shorter
ones that a dash misses: another branch, a shorter name. It looks at most `MOST_STEPS` steps far in all, so of a large
grammar the ending may not be the very shortest; it is always a valid one. Where nothing tells the way out from the way
round, as in `([a-z]{3} )+end`, no ending may be found.

llguidance's masks can be out of date after a rollback (seen in 1.9.1: the one of another place with as many symbols
before it). Here a mask only proposes; every step is tried, and counts if the matcher takes it.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from heapq import heappop, heappush

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

END = 256
ORDER = bytes(dict.fromkeys((*b"\"}]'),0:-. ", *range(0x21, 0x7F), *range(0x100))))
"""What a dash tries first: what closes, digits, other ASCII."""
PATIENCE = 64
"""So often a dash takes the same byte where the same may come; after that it takes turns, which leaves every loop."""
LONGEST = 3_000
"""Choices of a dash."""
MOST_STEPS = 8_000
"""Choices of a search, all its dashes together."""
LONGEST_SECONDS = 2.0
"""Of a search, where a grammar makes a single choice slow."""


class Endings:
    """Reads a text piece by piece, and knows an ending for it all the time."""

    def __init__(self, grammar: str) -> None:
        """Begin with the empty text; `ending` is None if there seems to be no text of that grammar at all."""
        self._matcher = byte_matcher(grammar)
        self._steps = 0
        self._deadline = time.monotonic() + LONGEST_SECONDS
        self.ending = self._dash()
        """What completes the text so far."""

    def shorten(self, fits: Callable[[bytes], bool] = lambda _: False) -> None:
        """Search for the shortest ending; be content with one that fits."""
        self.ending = self._search(self.ending, fits)

    def follow(self, piece: bytes, fits: Callable[[bytes], bool]) -> bool:
        """Read on, if there is an ending that fits after that; otherwise nothing changes.

        Args:
            piece: What the grammar allows to come next.
            fits: Whether there is room for an ending.
        """
        self._deadline = time.monotonic() + LONGEST_SECONDS
        if not self._take(piece):
            return False
        known = self.ending or b""
        known = known.removeprefix(piece) if known.startswith(piece) else known
        ending: bytes | None = known if completes(self._matcher, known) else self._dash()
        if ending is None or not fits(ending):
            ending = self._search(ending, fits)
        if ending is None or not fits(ending):
            self._matcher.rollback(len(piece))
            return False
        self.ending = ending
        return True

    def _search(self, best: bytes | None, fits: Callable[[bytes], bool]) -> bytes | None:
        """Best-first: from the place that is known to be nearest to an end, try every byte, and dash on."""
        self._steps, self._deadline = MOST_STEPS, time.monotonic() + LONGEST_SECONDS
        seen = set[tuple[bytes, bytes | None]]()
        places = [(0, b"")]
        while (
            places and self._steps > 0 and time.monotonic() < self._deadline and not (best is not None and fits(best))
        ):
            _, path = heappop(places)
            if not self._take(path):
                continue
            for step in self._next_steps():
                if time.monotonic() > self._deadline:
                    break
                if not self._take(step):
                    continue
                ending, reached = self._dash(), path + step
                if ending is not None and (best is None or len(reached + ending) < len(best)):
                    best = reached + ending
                # two places where the same may come next, and that a dash ends alike, are as good as one
                place = self._matcher.compute_bitmask(), ending
                if ending != b"" and place not in seen:
                    seen.add(place)
                    heappush(places, (len(reached) + (LONGEST if ending is None else len(ending)), reached))
                self._matcher.rollback(len(step))
            self._matcher.rollback(len(path))
        return best

    def _next_steps(self) -> Iterator[bytes]:
        """Bytes that must come; or else one of every kind of byte, where a kind is what may come after it."""
        if forced := self._matcher.compute_ff_bytes():
            yield forced
            return
        kinds = set[tuple[bytes, bytes]]()
        for byte in _bytes(self._allowed()):
            if self._take(bytes([byte])):
                kind = self._matcher.compute_ff_bytes(), self._matcher.compute_bitmask()
                self._matcher.rollback(1)
                if kind not in kinds:
                    kinds.add(kind)
                    yield bytes([byte])

    def _dash(self) -> bytes | None:
        """An ending that is found without ever looking back, or None."""
        path = bytearray()
        visits, taken = Counter[int](), Counter[tuple[int, int]]()
        for _ in range(LONGEST):
            if self._matcher.is_accepting() or time.monotonic() > self._deadline:
                break
            self._steps -= 1
            step = self._matcher.compute_ff_bytes()
            if not step:
                allowed = self._allowed()
                if not allowed:
                    break
                byte = next(_bytes(allowed))
                if visits[allowed] >= PATIENCE:
                    byte = min(_bytes(allowed), key=lambda byte: taken[allowed, byte])
                visits[allowed] += 1
                taken[allowed, byte] += 1
                step = bytes([byte])
            if not self._take(step):
                break
            path += step
        complete = self._matcher.is_accepting()
        self._matcher.rollback(len(path))
        return bytes(path) if complete else None

    def _allowed(self) -> int:
        """Bit n tells whether byte n may come next."""
        return int.from_bytes(self._matcher.compute_bitmask(), "little") & ((1 << END) - 1)

    def _take(self, text: bytes) -> bool:
        """Read on, all of it or nothing."""
        return _accepts(self._matcher, text) and self._matcher.consume_tokens(list(text))


def byte_matcher(grammar: str) -> LLMatcher:
    """Follows a text byte by byte; a byte's token id is its value."""
    return LLMatcher(_byte_tokenizer(), grammar, log_level=0, limits=limits())


@cache
def limits() -> LLParserLimits:
    """What llguidance may spend on a grammar: some 100 MB of states, and 20 ms on what may come next."""
    return LLParserLimits(max_lexer_states=50_000, verbose_errors=False)


def completes(matcher: LLMatcher, text: bytes) -> bool:
    """Whether a matcher of bytes would be at an end after this; it is left as it was."""
    if not _accepts(matcher, text):
        return False
    matcher.consume_tokens(list(text))
    complete = matcher.is_accepting()
    matcher.rollback(len(text))
    return complete


def _accepts(matcher: LLMatcher, text: bytes) -> bool:
    """Whether this may come next; a matcher that was made to take anything else would be of no use any more."""
    return matcher.validate_tokens(list(text)) == len(text)


def _bytes(allowed: int) -> Iterator[int]:
    return (byte for byte in ORDER if allowed >> byte & 1)


class _Bytes:
    """The vocabulary of bytes, as llguidance wants to be told of one."""

    eos_token_id, bos_token_id = END, None
    tokens = (*(bytes([byte]) for byte in range(END)), b"<end>")
    special_token_ids = (END,)

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


@cache
def _byte_tokenizer() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_Bytes()), slices=[])
