"""Train the demonstration model from nothing: `python -m smolvlm_edge.demo.training.train FOLDER`.

First the vision encoder alone learns what lies under every patch, then the whole model learns to answer. The run
may be stopped at any time and goes on where it last saved. See demo/README.md for the recipe.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smolvlm_edge.demo.training import vocabulary
from smolvlm_edge.demo.training.batches import IGNORED, Batch, Batches
from smolvlm_edge.demo.training.labels import TARGETS, UNKNOWN
from smolvlm_edge.demo.training.network import Idefics3, Size

SAVE_SECONDS = 120
LOG_STEPS = 50
WARM_UP = 200  # steps
DECAY = 0.3  # share of a stage during which the learning rate falls to nothing


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the training with scenes and losses of its own."""

    name: str
    steps: int
    scenes_per_batch: int
    weights: dict[str, float]
    """Of the makers of scenes."""
    learning_rate: float
    patch_loss: float
    """Weight of the loss on what lies under the patches; without it the vision encoder rests."""
    answer_loss: float
    """Weight of the loss on the answers; without it the decoder rests."""


SCENES = {
    "describing": 0.2,
    "counting": 0.15,
    "reading": 0.3,
    "bars": 0.07,
    "curve": 0.02,
    "clock": 0.03,
    "pair": 0.25,
    "clip": 0.05,
    "clutter": 0.02,
    "talk": 0.01,
    "page": 0.08,
}
PAGES = {
    "page": 0.6,
    "describing": 0.15,
    "counting": 0.05,
    "reading": 0.1,
    "bars": 0.05,
    "curve": 0.025,
    "clock": 0.025,
}
STAGES = (
    Stage("patches", 2700, 16, PAGES, learning_rate=2e-3, patch_loss=1.0, answer_loss=0.0),
    Stage("answers, encoder at rest", 1500, 16, SCENES, learning_rate=2e-3, patch_loss=0.0, answer_loss=1.0),
    Stage("answers", 8000, 16, SCENES, learning_rate=5e-4, patch_loss=0.5, answer_loss=1.0),
)


class Trainer:
    """The model, what is thrown away after training, the optimisers, and how far they have come."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder = folder
        self.model = Idefics3(size)
        self.heads = nn.ModuleDict({name: nn.Linear(size.vision_width, n) for name, n in TARGETS.items()})
        self.stage, self.step, self.seconds = 0, 0, 0.0
        self._new_optimisers()

    def run(self) -> None:
        """Go through what is left of the stages."""
        self._resume()
        while self.stage < len(STAGES):
            self._run_stage(STAGES[self.stage])
            self.stage, self.step = self.stage + 1, 0
            self._new_optimisers()
            self._save()

    def _run_stage(self, stage: Stage) -> None:
        recent: list[dict[str, float]] = []
        saved = started = time.monotonic()
        seed = self.stage * 1_000_000 + self.step  # a resumed run draws new scenes
        with Batches(self.folder, stage.weights, stage.scenes_per_batch, seed) as batches:
            while self.step < stage.steps:
                recent.append(self._train(stage, next(batches)))
                self.step += 1
                now = time.monotonic()
                if self.step % LOG_STEPS == 0:
                    self._log(stage, self.seconds + now - started, recent)
                    recent.clear()
                if now - saved > SAVE_SECONDS:
                    self.seconds += now - started
                    saved = started = now
                    self._save()
        self.seconds += time.monotonic() - started

    def _train(self, stage: Stage, batch: Batch) -> dict[str, float]:
        """One step; what it measured."""
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = stage.learning_rate * _schedule(self.step, stage.steps)
        measured: dict[str, Tensor] = {}
        loss = torch.zeros(())
        with torch.autocast("cpu", torch.bfloat16):
            with torch.set_grad_enabled(stage.patch_loss > 0):
                features = self.model.patch_features(batch.tiles.permute(0, 3, 1, 2) / 127.5 - 1)
            if stage.patch_loss:
                measured |= self._patch_losses(features, batch.labels)
                loss = loss + stage.patch_loss * sum(measured[f"{name} loss"] for name in TARGETS)
            if stage.answer_loss:
                measured |= self._answer_loss(features, batch)
                loss = loss + stage.answer_loss * measured["answer loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        return {name: value.item() for name, value in measured.items()}

    def _patch_losses(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        measured = {}
        for i, (name, head) in enumerate(self.heads.items()):
            wanted = labels[:, i].flatten().long()
            there = wanted != UNKNOWN if name == "kind" else (wanted != UNKNOWN) & (wanted != 0)
            logits = head(features.flatten(0, 1)[there]).float()
            count = max(1, len(logits))  # a batch may have no text at all
            measured[f"{name} loss"] = F.cross_entropy(logits, wanted[there], reduction="sum") / count
            measured[f"{name} right"] = (logits.argmax(-1) == wanted[there]).sum() / count
        return measured

    def _answer_loss(self, features: Tensor, batch: Batch) -> dict[str, Tensor]:
        asked = batch.targets != IGNORED
        logits = self.model(features, batch.input_ids, batch.is_image, batch.positions, batch.allowed(), asked).float()
        wanted = batch.targets[asked]
        right = logits.argmax(-1) == wanted
        count = max(1, len(wanted))
        return {
            "answer loss": F.cross_entropy(logits, wanted, reduction="sum") / count,
            "answer right": right.sum() / count,
        }

    def _new_optimisers(self) -> None:
        """Muon for the matrices (Jordan et al. 2024), AdamW for the rest."""
        named = [*self.model.named_parameters(), *self.heads.named_parameters()]
        embeddings = ("embed", *TARGETS)
        matrices = [p for name, p in named if p.ndim == 2 and not any(word in name for word in embeddings)]
        others = [p for name, p in named if not any(p is matrix for matrix in matrices)]
        self.optimisers = [
            torch.optim.Muon(matrices, lr=1e-3, momentum=0.95, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0),
        ]

    def _log(self, stage: Stage, seconds: float, recent: list[dict[str, float]]) -> None:
        line = {"stage": stage.name, "step": self.step, "seconds": round(seconds)}
        line |= {name: round(fmean(measured[name] for measured in recent), 4) for name in recent[0]}
        print(json.dumps(line), flush=True)
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "at": (self.stage, self.step, self.seconds),
        }
        torch.save(state, self.folder / "state.partial")
        (self.folder / "state.partial").replace(self.folder / "state.pt")

    def _resume(self) -> None:
        if not (self.folder / "state.pt").exists():
            return
        state = torch.load(self.folder / "state.pt")
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.stage, self.step, self.seconds = state["at"]


def _schedule(step: int, steps: int) -> float:
    """Up, level, down: the share of a stage's learning rate."""
    return min(1.0, (step + 1) / WARM_UP, (steps - step) / (DECAY * steps))


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the run keeps its state and its log")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    size = Size()
    if not (arguments.folder / "config.json").exists():
        vocabulary.write(arguments.folder, size)
    Trainer(arguments.folder, size).run()


if __name__ == "__main__":
    main()
