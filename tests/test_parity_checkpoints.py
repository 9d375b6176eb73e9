"""What transformers loads from checkpoints that hold a tied matrix once or twice, or leave out the prefix of names."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.export.checkpoint import Checkpoint

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:::transformers"),
    pytest.mark.filterwarnings("ignore:::torch"),
]

TABLE, HEAD = "model.text_model.embed_tokens.weight", "lm_head.weight"
Tensors = dict[str, np.ndarray]


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("tied", "edit"),
    [
        (True, without(HEAD)),
        (True, without(TABLE)),
        (True, dict),
        (True, lambda tensors: tensors | {HEAD: tensors[TABLE]}),
        (False, dict),
        (False, lambda tensors: {name.removeprefix("model."): tensor for name, tensor in tensors.items()}),
    ],
    ids=["no head", "no table", "two that differ", "two alike", "untied", "no prefix"],
)
def test_every_tensor(
    tiny_checkpoints: dict[str, Path], tmp_path: Path, tied: bool, edit: Callable[[Tensors], Tensors]
) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = Path(shutil.copytree(tiny_checkpoints["tiny-idefics3"], tmp_path / "checkpoint"))
    save_file(edit(load_file(folder / "model.safetensors")), folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": tied}
    (folder / "config.json").write_text(json.dumps(config))
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    weights = Checkpoint(folder)
    if ModelConfig.from_folder(folder).tie_word_embeddings:
        weights.tie_head()
    expected = model.state_dict()
    assert weights.weights.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(weights.weights[name].load(), tensor.numpy(), err_msg=name)
