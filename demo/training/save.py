"""A training run -> the checkpoint in the repository and the bundle in the wheel.

python -m smolvlm_edge.demo.training.save RUN demo
"""

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.quantize import RECIPES


def write_checkpoint(run: Path, folder: Path) -> None:
    """Write an `idefics3` checkpoint in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in run.glob("*.json"):
        shutil.copyfile(file, folder / file.name)
    parameters = torch.load(run / "state.pt")["model"]
    tensors = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in parameters.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    """Write OUT/checkpoint and OUT/bundle, and the run's log beside them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the training run")
    parser.add_argument("out", type=Path, help="the repository's demo/")
    arguments = parser.parse_args()
    write_checkpoint(arguments.run, arguments.out / "checkpoint")
    export_checkpoint(arguments.out / "checkpoint", arguments.out / "bundle", RECIPES["int8"], force=True)
    shutil.copyfile(arguments.run / "log.jsonl", arguments.out / "training" / "log.jsonl")


if __name__ == "__main__":
    main()
