"""What rounding cost the decoder's answers: measured while the original's weights are at hand, said in the bundle."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from smolvlm_edge.bundle import Bundle
from smolvlm_edge.export.calibration import LOGITS, DecoderLayers
from smolvlm_edge.export.checkpoint import TOKEN_TABLE
from smolvlm_edge.graphs import Engine, Floats
from smolvlm_edge.quality.distributions import BundleReader, TextFidelity, compare_readers, parts_of
from smolvlm_edge.quality.text import Ids, Text

WINDOWS = 2
"""Of the text that `smol-edge quality` reads whole: enough for a first idea, in seconds."""


def measure_lost(bundle: Bundle, original: DecoderLayers, engine: Engine) -> TextFidelity:
    """Compare the decoder of a bundle with the one that it was made of, one layer of which is in memory at a time.

    Args:
        bundle: With its graphs and tokenizer files; its manifest need not be written.
        original: In float32.
        engine: Runs the bundle.
    """
    text = Text.default(bundle)
    text = replace(text, windows=text.windows[:WINDOWS])
    theirs = _OriginalReader(original, text.windows)  # done before the bundle's graphs take memory too
    with closing(BundleReader(bundle, engine)) as ours:
        return compare_readers(text, ours, theirs)


class _OriginalReader:
    """Has read windows, and tells of each of them once, in their order."""

    def __init__(self, layers: DecoderLayers, windows: Sequence[Ids]) -> None:
        text = layers.config.text
        table = layers.checkpoint.weight(TOKEN_TABLE, text.vocab_size, text.hidden_size).load()
        hidden = [table[window] for window in windows]
        for index in range(len(layers)):
            hidden = layers.advance(index, hidden, {})
        with layers.open(len(layers), (LOGITS,), {}) as run:
            self._logits = iter([run(window)[LOGITS] for window in hidden])

    def logits(self, window: Ids) -> Iterator[Floats]:
        """Logits [positions, vocab_size] of the next window, a part of it at a time."""
        logits = next(self._logits)
        return (logits[part] for part in parts_of(window))
