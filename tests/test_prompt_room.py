"""Two hundred photographs that cannot fit are refused before one of them is decoded."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smolvlm_edge import RequestError, SmolVLM
from smolvlm_edge.pictures import images


def test_tokens_are_counted_before_pictures_are_decoded(
    tiny_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(tmp_path / "photo.png")
    with SmolVLM.load(tiny_bundle()) as model:
        few = [tmp_path / "photo.png"] * 2
        timings = model.generate(few, "describe", max_tokens=1).timings
        image_tokens = timings.tiles // 2 * model.bundle.model.image_seq_len
        many = [tmp_path / "photo.png"] * (2 * model.bundle.model.text.max_position_embeddings)

        def decoded(*_: object, **__: object) -> None:
            raise AssertionError("a picture was decoded")

        monkeypatch.setattr(images, "upright_rgb", decoded)
        with pytest.raises(RequestError, match=r"the prompt takes \d+ tokens") as raised:
            model.generate(many, "describe", max_tokens=1)
        (refused,) = model.generate_many([{"images": many, "prompt": "describe"}], max_tokens=1)
    assert str(refused) == str(raised.value)
    count = int(str(raised.value).split("takes ")[1].split()[0])
    assert count >= len(many) * image_tokens
