"""A loaded bundle taken apart into the steps of an answer, to compare each with a golden."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pictures import Case

from smolvlm_edge import SmolVLM
from smolvlm_edge.generation.decoding import prefill
from smolvlm_edge.graphs import Decoder, Floats
from smolvlm_edge.graphs.engines import EngineName, open_engine
from smolvlm_edge.pictures.images import Tiles, cut, open_image

TOLERANCE = 1e-4  # float32 sums in another order; the values themselves reach about 10

Golden = dict[str, np.ndarray]


@dataclass
class Rig:
    """A loaded bundle taken apart into the steps of an answer."""

    folder: Path
    engine: EngineName = "onnxruntime"
    model: SmolVLM = field(init=False)

    def __post_init__(self) -> None:
        self.model = SmolVLM.load(self.folder, engine=self.engine)
        self._engine = open_engine(self.engine, threads=2)
        self.vision_encoder, self.connector, self.embed_tokens = (
            self._engine.graph(self._path(name)) for name in ("vision_encoder", "connector", "embed_tokens")
        )
        self.decoder = self.new_decoder()

    def new_decoder(self) -> Decoder:
        """A decoder with an empty cache of its own."""
        return self._engine.decoder(self._path("decoder"))

    def _path(self, name: str) -> Path:
        return self.model.bundle.graph_path(name, self._engine.target)

    def close(self) -> None:
        for part in (self.model, self.vision_encoder, self.connector, self.embed_tokens, self.decoder):
            part.close()

    def cut(self, case: Case) -> list[Tiles]:
        return [
            cut(open_image(picture), self.model.image_config, detail="high" if case.split else "low")
            for picture in case.pictures()
        ]

    def input_ids(self, case: Case) -> npt.NDArray[np.int64]:
        parts: list[Any] = [*({"type": "image"} for _ in case.sizes), {"type": "text", "text": case.prompt}]
        grids = [(tiles.rows, tiles.columns) for tiles in self.cut(case)]
        return self.model.prompt_encoder.encode([{"role": "user", "content": parts}], grids)

    def image_features(self, case: Case) -> Floats:
        """[tiles, image_seq_len, hidden]"""
        tiles = (pixel_values for picture in self.cut(case) for pixel_values in picture.pixel_values())
        return np.concatenate([self.connector(self.vision_encoder(pixel_values)) for pixel_values in tiles])

    def embed(self, input_ids: npt.NDArray[np.int64], golden: Golden) -> Floats:
        """Prompt embeddings [positions, hidden] with the reference's image features in them."""
        embeds = self.embed_tokens(input_ids[None])[0].copy()
        if "image_features" in golden:
            features = golden["image_features"]
            embeds[input_ids == self.model.bundle.model.image_token_id] = features.reshape(-1, features.shape[-1])
        return embeds

    def start(self, golden: Golden) -> Floats:
        """Prefill an empty cache with the reference's prompt; logits [vocab_size] of its last position."""
        self.decoder.truncate(0)
        return prefill(self.decoder, self.embed(golden["input_ids"], golden)).copy()


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    """Within the bound that the README states."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE)


def read_golden(path: Path, case: str) -> Golden:
    """The goldens of one case, by quantity."""
    with np.load(path) as arrays:
        return {key.removeprefix(f"{case}/"): arrays[key] for key in arrays.files if key.startswith(f"{case}/")}
