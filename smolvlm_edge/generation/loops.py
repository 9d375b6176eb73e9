"""Whether an answer has begun to repeat itself.

Small models that write long answers sometimes fall into a circle and stay there until the longest answer is reached:
8,192 tokens, minutes, for nothing (docling#1515, llama.cpp#16678). The rule is about tokens, not about texts: an answer
loops once its last `LOOP_TOKENS` tokens are one sequence of at most `LONGEST_PERIOD` tokens, said again and again. So
at least four rounds have been seen, and a single token 256 times. A table's empty cells are shorter than that.
"""

LOOP_TOKENS = 256
LONGEST_PERIOD = 64


class LoopDetector:
    """Is told of every token of an answer, one after the other."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._alike = [0] * (LONGEST_PERIOD + 1)
        """For every period, how many of the last tokens equal those one period before them."""

    def push(self, token: int) -> bool:
        """Add a token; whether the answer loops."""
        tokens, alike = self._tokens, self._alike
        tokens.append(token)
        for period in range(1, min(LONGEST_PERIOD, len(tokens) - 1) + 1):
            alike[period] = alike[period] + 1 if tokens[-1 - period] == token else 0
        return any(count + period >= LOOP_TOKENS for period, count in enumerate(alike) if count)
