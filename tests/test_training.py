"""The training of the demonstration model, in small: it is the architecture that transformers knows, and it resumes."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest

from smolvlm_edge.demo.scenes import scenes

pytest.importorskip("torch")

pytestmark = [
    pytest.mark.parity,
    # what transformers and torch warn of on import is theirs to mend
    pytest.mark.filterwarnings("ignore:::transformers"),
    pytest.mark.filterwarnings("ignore:::torch"),
]


def test_the_network_computes_what_transformers_computes(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import Idefics3ForConditionalGeneration

    from smolvlm_edge.demo.training import vocabulary
    from smolvlm_edge.demo.training.batches import Encoder
    from smolvlm_edge.demo.training.network import Idefics3, Size

    torch.manual_seed(0)
    vocabulary.write(tmp_path, Size())
    network = Idefics3(Size()).eval()
    for parameter in network.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1.0, 0.2)
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    reference = Idefics3ForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32).eval()

    encoder, random = Encoder(tmp_path), Random(0)
    scene = next(scenes(1, held_out=False, weights={"reading": 1.0}))
    tiles, _, grids = encoder.pictures(scene, random)
    ids = torch.tensor([encoder.opening(grids, random) + encoder.turn(scene.questions[0])[0]])
    pixel_values = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2) / 127.5 - 1
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    time = ids.shape[1]
    with torch.inference_mode():
        logits = network(
            network.patch_features(pixel_values),
            ids,
            ids == encoder.model.image_token_id,
            torch.arange(time)[None],
            torch.ones(1, 1, time, time, dtype=torch.bool).tril(),
            everywhere,
        )
        expected = reference(input_ids=ids, pixel_values=pixel_values[None], attention_mask=everywhere.long()).logits[0]
    assert float(expected.abs().max()) > 0.1
    assert float((logits - expected).abs().max()) < 1e-4


def test_questions_of_a_scene_do_not_see_each_other(tmp_path: Path) -> None:
    import torch

    from smolvlm_edge.demo.training.batches import Batch

    segments = torch.tensor([[0, 0, 1, 1, 2, 255]], dtype=torch.uint8)
    empty = torch.zeros(1, 6)
    allowed = Batch(empty, empty, empty, empty, empty, segments, empty).allowed()[0, 0].int().tolist()
    assert allowed[3] == [1, 1, 1, 1, 0, 0]
    assert allowed[4] == [1, 1, 0, 0, 1, 0]


def test_a_run_that_was_stopped_goes_on_where_it_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from smolvlm_edge.demo.training import train, vocabulary
    from smolvlm_edge.demo.training.network import Size

    size = Size(vision_width=24, vision_inner=32, vision_layers=1, width=32, inner=32, layers=1)
    stages = (
        train.Stage("patches", 3, 2, {"describing": 1.0}, learning_rate=1e-3, patch_loss=1.0, answer_loss=0.0),
        train.Stage("answers", 3, 2, {"reading": 1.0}, learning_rate=1e-3, patch_loss=0.1, answer_loss=1.0),
    )
    monkeypatch.setattr(train, "STAGES", stages)
    monkeypatch.setattr(train, "SAVE_SECONDS", 0)
    monkeypatch.setattr(train, "LOG_STEPS", 1)
    vocabulary.write(tmp_path, size)

    class Stopped(train.Trainer):
        def _train(self, stage: train.Stage, batch: object) -> dict[str, float]:
            if stage.name == "answers" and self.step == 1:
                raise KeyboardInterrupt
            return super()._train(stage, batch)

    with pytest.raises(KeyboardInterrupt):
        Stopped(tmp_path, size).run()
    train.Trainer(tmp_path, size).run()
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in log] == [(s.name, i) for s in stages for i in (1, 2, 3)]
    assert all(np.isfinite(value) for line in log for key, value in line.items() if key.endswith("loss"))
