"""The four graphs of a model, and what they computed for earlier prompts."""

from collections.abc import Callable, Sequence
from typing import Literal

from smolvlm_edge.bundle import Bundle
from smolvlm_edge.generation.decoding import PromptCache
from smolvlm_edge.graphs import Engine, Floats, Graph
from smolvlm_edge.graphs.engines import Engines
from smolvlm_edge.pictures.images import Tiles

Memory = Literal["balanced", "low"]
Features = dict[int, Floats]
"""Image features [image_seq_len, hidden] of tiles, by `Tiles.digests`."""
FEATURE_BYTES: dict[Memory, int] = {"balanced": 64 << 20, "low": 0}
"""How much is kept besides what the prompt needs: 64 MB are 455 tiles of the 256M shape, 101 of the 2.2B shape."""


class Network:
    """Opens graphs when they are first needed; with little memory, one half of the model at a time."""

    def __init__(self, bundle: Bundle, engines: Engines, memory: Memory) -> None:
        self._bundle, self._engines, self._memory = bundle, engines, memory
        self._vision: tuple[Graph, Graph] | None = None
        self._text: tuple[Graph, PromptCache] | None = None
        self._features: Features = {}

    def open_vision(self) -> tuple[Graph, Graph]:
        """Vision encoder and connector."""
        if self._memory == "low":
            self._close_text()
        if self._vision is None:
            engine = self._engines.vision
            self._vision = self._graph(engine, "vision_encoder"), self._graph(engine, "connector")
        return self._vision

    def open_text(self) -> tuple[Graph, PromptCache]:
        """Token table, and the decoder with the prompt that is in its cache."""
        if self._memory == "low":
            self._close_vision()
        if self._text is None:
            engine = self._engines.decoder
            decoder = engine.decoder(self._bundle.graph_path("decoder", engine.target))
            self._text = self._graph(engine, "embed_tokens"), PromptCache(decoder)
        return self._text

    def recall(self, pictures: Sequence[Tiles]) -> Features:
        """Features of tiles, as far as they are known, to be added to.

        Those of these pictures stay, and of all others the ones that were asked for last.
        """
        wanted = {digest for picture in pictures for digest in picture.digests}
        others = {digest: rows for digest, rows in self._features.items() if digest not in wanted}
        excess = sum(rows.nbytes for rows in others.values()) - FEATURE_BYTES[self._memory]
        while excess > 0:
            excess -= others.pop(next(iter(others))).nbytes
        known = {digest: rows for digest, rows in self._features.items() if digest in wanted}
        self._features = others | known
        return self._features

    def close(self) -> None:
        """Close everything, and forget all prompts."""
        self._close_vision()
        self._close_text()
        self._features = {}

    def _graph(self, engine: Engine, name: str) -> Graph:
        return engine.graph(self._bundle.graph_path(name, engine.target))

    def _close_vision(self) -> None:
        if self._vision is not None:
            for graph in self._vision:
                graph.close()
            self._vision = None

    def _close_text(self) -> None:
        if self._text is not None:
            embed_tokens, cache = self._text
            embed_tokens.close()
            cache.decoder.close()
            self._text = None


def missing_tiles(pictures: Sequence[Tiles], features: Features) -> dict[int, tuple[Tiles, int]]:
    """The tiles whose features are not known, each once: digest -> its picture and its number there."""
    return {
        digest: (picture, index)
        for picture in pictures
        for index, digest in enumerate(picture.digests)
        if digest not in features
    }


def encode(
    vision_encoder: Graph,
    connector: Graph,
    tiles: dict[int, tuple[Tiles, int]],
    features: Features,
    on_tile: Callable[[int, int], None],
) -> None:
    """Add the features of the missing tiles, one tile at a time to bound memory."""
    for done, (digest, (picture, index)) in enumerate(tiles.items(), start=1):
        features[digest] = connector(vision_encoder(picture.pixel_values_of(index)))[0]
        on_tile(done, len(tiles))
