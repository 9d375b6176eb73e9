"""The class that clusters use, without a cluster: tests/integrations/test_ray.py has those."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smolvlm_edge import SmolVLM
from smolvlm_edge.integrations.ray import Captioner, reserved_processors

EXAMPLES = Path(__file__).parent.parent / "examples"
SHAPES = EXAMPLES / "shapes.png"


@pytest.fixture(scope="module")
def described() -> str:
    with SmolVLM.load("demo") as model:
        return model.generate(SHAPES, "describe", max_tokens=12).text


def captioner(**keywords: object) -> Captioner:
    return Captioner("demo", "describe", max_tokens=12, **keywords)


def test_a_batch_comes_back_with_captions_and_its_own_columns(described: str) -> None:
    pixels = np.asarray(Image.open(SHAPES).convert("RGB"))
    pictures = np.empty(3, object)
    pictures[:] = [str(SHAPES), SHAPES.read_bytes(), pixels]
    batch = captioner()({"image": pictures, "id": np.arange(3)})
    assert batch["caption"].tolist() == [described] * 3
    assert batch["id"].tolist() == [0, 1, 2]
    assert batch["finish_reason"].tolist() == ["length"] * 3
    assert batch["generated_tokens"].tolist() == [12] * 3
    assert (batch["prompt_tokens"] > 12).all()
    assert batch["error"].tolist() == [""] * 3


def test_pictures_of_one_size_may_be_one_array(described: str) -> None:
    pixels = np.asarray(Image.open(SHAPES).convert("RGB"))
    batch = captioner(column="picture")({"picture": np.stack([pixels, pixels])})
    assert batch["caption"].tolist() == [described] * 2


def test_what_is_wrong_with_a_picture_stands_in_its_row(described: str) -> None:
    batch = captioner()({"image": ["missing.png", str(SHAPES), b"no picture"]})
    assert batch["caption"].tolist() == ["", described, ""]
    assert "missing.png" in batch["error"][0]
    assert batch["error"][1] == ""
    assert batch["error"][2]


def test_goes_to_another_process_without_its_model(described: str) -> None:
    first = captioner()
    first({"image": [str(SHAPES)]})
    pickled = pickle.dumps(first)
    assert len(pickled) < 2000
    assert pickle.loads(pickled)({"image": [str(SHAPES)]})["caption"].tolist() == [described]


@pytest.mark.parametrize(("named", "processors"), [("3", 3), ("0", 1), ("", None), ("many", None)])
def test_threads_come_from_the_reservation(monkeypatch: pytest.MonkeyPatch, named: str, processors: int | None) -> None:
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", named)
    assert reserved_processors() == processors
