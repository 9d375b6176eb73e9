"""An exported model folder: its manifest, its files, their integrity.

A bundle holds four graphs with their weights, for one engine's format or for two, the tokenizer and processor
files of the checkpoint, and bundle.json, which names every file with its size and sha256.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.bundle.reading import read_json
from smolvlm_edge.errors import IntegrityError, ModelNotFoundError

FORMAT_VERSION = 2  # 1 had no `targets`: its graphs are ONNX
MANIFEST = "bundle.json"
Half = Literal["vision", "decoder"]
HALVES: dict[Half, tuple[str, str]] = {
    "vision": ("vision_encoder", "connector"),
    "decoder": ("embed_tokens", "decoder"),
}
"""The graphs that take turns for every tile, and those that do for every token: each half runs on one engine."""
GRAPH_NAMES = tuple(name for names in HALVES.values() for name in names)
Target = Literal["onnx", "openvino"]
"""The formats that graphs come in."""
Targets = Mapping[Half, Target]
"""Which of a bundle's graphs are used."""
SUFFIXES: dict[Target, tuple[str, str]] = {"onnx": (".onnx", ".onnx.data"), "openvino": (".xml", ".bin")}
"""Of a graph's two files: operators and weights."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which bundle of a model to look for."""

    made_for: tuple[Target, ...] = ("onnx",)
    """What one is made for, if there is none."""
    needed: tuple[Target, ...] = ("onnx",)
    """What one that is there must hold graphs for; if empty, any will do."""

    def acceptable(self) -> list[tuple[Target, ...]]:
        """Sets of targets that will do: the larger ones first, as they leave more choice."""
        sets: list[tuple[Target, ...]] = [("onnx", "openvino"), self.made_for, ("onnx",), ("openvino",)]
        return [each for each in dict.fromkeys(sets) if {*self.needed} <= {*each}]


TOKENIZER_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.json",
    "chat_template.jinja",
)
"""Files that a bundle takes over from the checkpoint, as far as the checkpoint has them."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What the manifest says of one file."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class AdapterEntry:
    """The adapter that was merged into the checkpoint."""

    name: str
    """Repository id or folder name."""
    sha256: str
    """Of its adapter_model.safetensors."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle's folder and manifest."""

    folder: Path
    source: str
    """Repository id or folder name of the checkpoint."""
    revision: str | None
    """Commit of the repository, if known."""
    adapter: AdapterEntry | None
    recipe: dict[str, Any]
    """The quantisation recipe: name and rules; calibration set, rescaled weights and the bits of every matrix, if the
    export was that new."""
    model: ModelConfig
    targets: tuple[Target, ...]
    """What it holds graphs for."""
    files: dict[str, FileEntry]
    producer: str
    lost: dict[str, Any] | None = None
    """What its decoder lost by quantisation, as measured when it was exported: kl, top1, ..., tokens."""

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the manifest and check that every file is there in its full size.

        Raises:
            ModelNotFoundError: No bundle in that folder.
            IntegrityError: The manifest is damaged or of a newer format, or a file is missing or cut off.
        """
        if not os.path.isfile(folder / MANIFEST):
            hint = (
                "it is a checkpoint: export it first" if os.path.isfile(folder / "config.json") else "no bundle there"
            )
            raise ModelNotFoundError(f"{folder} has no {MANIFEST} ({hint}); make one with: smol-edge export CHECKPOINT")
        manifest = read_json(folder / MANIFEST)
        version = manifest.get("format_version")
        if not isinstance(version, int):
            raise IntegrityError(f"{folder / MANIFEST} names no format_version")
        if version > FORMAT_VERSION:
            raise IntegrityError(
                f"{folder} has bundle format {version}, this smol-edge reads up to {FORMAT_VERSION}: "
                "pip install --upgrade smol-edge"
            )
        try:
            bundle = cls(
                folder=folder,
                source=manifest["source"],
                revision=manifest["revision"],
                adapter=AdapterEntry(**manifest["adapter"]) if manifest.get("adapter") else None,
                recipe={"name": manifest["recipe"]["name"], "rules": manifest["recipe"]["rules"], **manifest["recipe"]},
                model=ModelConfig.from_dict(manifest["model"]),
                targets=_targets(manifest["targets"] if version > 1 else ["onnx"]),
                files={name: FileEntry(**entry) for name, entry in manifest["files"].items()},
                producer=manifest["producer"],
                lost=manifest.get("lost"),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(f"{folder / MANIFEST} is incomplete ({error}): export the model again") from error
        bundle._check_sizes()
        bundle._check_graphs()
        return bundle

    def verify(self, targets: Targets) -> None:
        """Compare the sha256 of every file with the manifest, but for graphs that are not used.

        Raises:
            IntegrityError: A file has changed or cannot be read.
        """
        files = self.files_for(targets)
        with ThreadPoolExecutor() as pool:
            for name, found in zip(files, pool.map(self._sha256, files), strict=True):
                if found != files[name].sha256:
                    raise IntegrityError(
                        f"{self.folder / name} has changed since it was exported: export the model again"
                    )

    def files_for(self, targets: Targets) -> dict[str, FileEntry]:
        """Everything but graphs that are not used."""
        used = {name for half, target in targets.items() for name in graph_files(target, HALVES[half])}
        others = {name for target in self.targets for name in graph_files(target)} - used
        return {name: entry for name, entry in self.files.items() if name not in others}

    def graph_path(self, name: str, target: Target) -> Path:
        """The file of a graph's operators."""
        return self.folder / f"{name}{SUFFIXES[target][0]}"

    def _sha256(self, name: str) -> str:
        try:
            return sha256(self.folder / name)
        except OSError as error:
            raise IntegrityError(f"{self.folder / name} cannot be read: {error.strerror}") from error

    def _check_sizes(self) -> None:
        for name, entry in self.files.items():
            if Path(name).name != name:
                raise IntegrityError(f"{self.folder / MANIFEST} names {name}, which lies outside the bundle")
            try:
                size = (self.folder / name).stat().st_size
            except OSError:
                raise IntegrityError(f"{self.folder / name} is missing: export the model again") from None
            if size != entry.size:
                raise IntegrityError(f"{self.folder / name} has {size} bytes, not {entry.size}: export the model again")

    def _check_graphs(self) -> None:
        graphs = {name for target in self.targets for name in graph_files(target)}
        for name in sorted({*TOKENIZER_FILES, *graphs} - self.files.keys()):
            if os.path.lexists(self.folder / name):
                raise IntegrityError(f"{self.folder / name} is no part of the exported bundle: export the model again")
            if name in graphs:
                raise IntegrityError(f"{self.folder / MANIFEST} names no {name}: export the model again")


def graph_files(target: Target, names: Sequence[str] = GRAPH_NAMES) -> list[str]:
    """The files of a target's graphs."""
    return [f"{name}{suffix}" for name in names for suffix in SUFFIXES[target]]


def _targets(names: Any) -> tuple[Target, ...]:
    if not isinstance(names, list) or not names or not all(name in get_args(Target) for name in names):
        raise TypeError(f"targets {names!r}")
    return tuple(names)


def write_manifest(bundle: Bundle) -> None:
    """Write bundle.json, with an entry for everything that lies in the folder."""
    folder = bundle.folder
    files = {path.name: {"size": path.stat().st_size, "sha256": sha256(path)} for path in sorted(folder.iterdir())}
    manifest = {
        "format_version": FORMAT_VERSION,
        "producer": bundle.producer,
        "source": bundle.source,
        "revision": bundle.revision,
        "adapter": None if bundle.adapter is None else asdict(bundle.adapter),
        "recipe": bundle.recipe,
        "lost": bundle.lost,
        "model": bundle.model.to_dict(),
        "targets": list(bundle.targets),
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
