"""KL divergence, top tokens and perplexity against transformers and torch."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from smolvlm_edge.bundle import Bundle
from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.graphs.onnxruntime import OnnxRuntimeEngine
from smolvlm_edge.quality import Text, compare_text
from smolvlm_edge.quantize import RECIPES

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:::transformers"),
    pytest.mark.filterwarnings("ignore:::torch"),
]

WINDOW = 512
TEXT = "On day 27 he wrote: the fog is back, the sea is quiet, the lamp burns. Nobody came.\n" * 30


def test_text_measures(tiny_checkpoints: dict[str, Path], tiny_bundle, tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    original = tiny_checkpoints["tiny-idefics3"]
    changed = Path(shutil.copytree(original, tmp_path / "changed"))
    noise = np.random.default_rng(0)
    tensors = {
        name: tensor.astype(np.float32) * noise.uniform(0.9, 1.1, tensor.shape).astype(np.float32)
        for name, tensor in load_file(changed / "model.safetensors").items()
    }
    save_file(tensors, changed / "model.safetensors", metadata={"format": "pt"})

    ids = transformers.AutoTokenizer.from_pretrained(original)(TEXT, return_tensors="pt")["input_ids"][0]
    divergences, same, surprise = [], [], {original: [], changed: []}
    models = {
        folder: transformers.AutoModelForImageTextToText.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
        for folder in (original, changed)
    }
    for window in ids.split(WINDOW):
        with torch.no_grad():
            logits = {folder: model(input_ids=window[None]).logits[0].double() for folder, model in models.items()}
        p, q = (torch.log_softmax(logits[folder], -1) for folder in (original, changed))
        divergences.append(torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(-1))
        same.append(p.argmax(-1) == q.argmax(-1))
        for folder in models:
            surprise[folder].append(
                torch.nn.functional.cross_entropy(logits[folder][:-1], window[1:], reduction="none")
            )

    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    reference = Bundle.open(tiny_bundle("tiny-idefics3", "fp32"))
    bundle = Bundle.open(export_checkpoint(changed, tmp_path / "bundle", RECIPES["fp32"]))
    found = compare_text(Text.from_file(tmp_path / "text.txt", reference), bundle, reference, OnnxRuntimeEngine(2))
    assert len(ids) > 2 * WINDOW
    assert found.tokens == len(ids)
    assert found.kl == pytest.approx(torch.cat(divergences).mean().item(), rel=1e-3)
    assert found.kl > 0.01
    assert found.top1 == pytest.approx(torch.cat(same).double().mean().item(), abs=2 / len(ids))
    assert found.reference_perplexity == pytest.approx(torch.cat(surprise[original]).mean().exp().item(), rel=1e-4)
    assert found.perplexity == pytest.approx(torch.cat(surprise[changed]).mean().exp().item(), rel=1e-4)
