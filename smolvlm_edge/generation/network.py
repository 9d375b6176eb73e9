"""The four graphs of a model, and what they computed for earlier prompts."""

from collections.abc import Sequence
from typing import Literal

from smolvlm_edge.bundle import Bundle
from smolvlm_edge.generation.slots import Slots
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

    def __init__(
        self, bundle: Bundle, engines: Engines, memory: Memory, slots: int = 1, budget: int | None = None
    ) -> None:
        """Open nothing yet.

        Args:
            bundle: Holds the graphs.
            engines: Run them.
            memory: See `SmolVLM.load`.
            slots: Sequences that the decoder is to hold.
            budget: Positions that they may take together; None for any number.
        """
        self._bundle, self._engines, self._memory = bundle, engines, memory
        self._slots, self._budget = slots, budget
        self._vision: tuple[Graph, Graph] | None = None
        self._text: Slots | None = None
        self._features: Features = {}

    def open_vision(self) -> tuple[Graph, Graph]:
        """Vision encoder and connector."""
        if self._memory == "low":
            self._close_text()
        if self._vision is None:
            engine = self._engines.vision
            self._vision = self._graph(engine, "vision_encoder"), self._graph(engine, "connector")
        return self._vision

    def open_text(self) -> Slots:
        """Decoder and token table, with the prompts that are in its cache."""
        if self._memory == "low":
            self._close_vision()
        if self._text is None:
            engine = self._engines.decoder
            decoder = engine.decoder(self._bundle.graph_path("decoder", engine.target), self._slots)
            self._text = Slots(decoder, self._graph(engine, "embed_tokens"), self._budget)
        return self._text

    def recall(self, pictures: Sequence[Tiles]) -> Features:
        """Features of these pictures' tiles, as far as they are known.

        They stay, and of all others the ones that were asked for last.
        """
        wanted = {digest for picture in pictures for digest in picture.digests}
        others = {digest: rows for digest, rows in self._features.items() if digest not in wanted}
        excess = sum(rows.nbytes for rows in others.values()) - FEATURE_BYTES[self._memory]
        while excess > 0:
            excess -= others.pop(next(iter(others))).nbytes
        known = {digest: rows for digest, rows in self._features.items() if digest in wanted}
        self._features = others | known
        return known

    def encode(self, picture: Tiles, index: int) -> Floats:
        """The features [image_seq_len, hidden] of a tile, after `open_vision`; one tile at a time to bound memory."""
        vision_encoder, connector = self.open_vision()
        features = connector(vision_encoder(picture.pixel_values_of(index)))[0]
        self._features[picture.digests[index]] = features
        return features

    def known(self, picture: Tiles, index: int) -> Floats | None:
        """The features of a tile, if somebody encoded it."""
        return self._features.get(picture.digests[index])

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
            self._text.embed_tokens.close()
            self._text.decoder.close()
            self._text = None
