"""An exported model folder: its manifest, its files, their integrity.

A bundle holds four graphs with their weights, for one engine's format or for two, the tokenizer and processor
files of the checkpoint, and bundle.json, which names every file with its size and sha256.
"""

import hashlib
import json
import os
import reprlib
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from smolvlm_edge.bundle.config import ModelConfig
from smolvlm_edge.bundle.reading import Section
from smolvlm_edge.errors import IntegrityError, ModelNotFoundError

FORMAT_VERSION = 2  # 1 had no `targets`: its graphs are ONNX
MANIFEST = "bundle.json"
MOST_FILES = 1000
LARGEST_BYTES = 1 << 53
"""Of a file; the largest whole number that every JSON reader keeps."""
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
        manifest = Section.of_file(folder / MANIFEST)
        version = manifest.integer("format_version", most=LARGEST_BYTES)
        if version > FORMAT_VERSION:
            raise IntegrityError(
                f"{folder} has bundle format {version}, this smol-edge reads up to {FORMAT_VERSION}: "
                "pip install --upgrade smol-edge"
            )
        adapter = manifest.optional(manifest.section, "adapter")
        bundle = cls(
            folder=folder,
            source=manifest.text("source"),
            revision=manifest.optional(manifest.text, "revision"),
            adapter=adapter.fill(AdapterEntry) if adapter else None,
            recipe=_recipe(manifest.section("recipe")),
            model=ModelConfig.from_dict(manifest.section("model").values),
            targets=_targets(manifest) if version > 1 else ("onnx",),
            files=_files(manifest.section("files")),
            producer=manifest.text("producer"),
            lost=_lost(manifest),
        )
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
            raise IntegrityError.of_file(self.folder / name, error) from error

    def _check_sizes(self) -> None:
        for name, entry in self.files.items():
            path = self.folder / name
            try:
                status = path.stat()
            except OSError:
                raise IntegrityError(f"{path} is missing: export the model again") from None
            if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device might never end
                raise IntegrityError(f"{path} is no regular file: export the model again")
            if status.st_size != entry.size:
                raise IntegrityError(f"{path} has {status.st_size} bytes, not {entry.size}: export the model again")

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


def _targets(manifest: Section) -> tuple[Target, ...]:
    names = manifest.texts("targets")
    known = tuple(target for name in names for target in get_args(Target) if name == target)
    if not known or len(known) != len(names):
        raise IntegrityError(f"{manifest.place}: targets must be some of {', '.join(get_args(Target))}")
    return known


def _files(section: Section) -> dict[str, FileEntry]:
    if len(section.values) > MOST_FILES:
        raise IntegrityError(f"{section.place} has more than {MOST_FILES} entries")
    for name in section.values:
        # what cannot be printed is no name that the exporter writes, and may be none that a system takes
        if not name.isprintable() or Path(name).name != name or name in {"", ".", ".."}:
            raise IntegrityError(f"{section.place}: {reprlib.repr(name)} lies outside the bundle, or is no file's name")
    return {name: section.section(name).fill(FileEntry, most=LARGEST_BYTES) for name in section.values}


def _recipe(section: Section) -> dict[str, Any]:
    """As it is; what is shown of it and told apart by it has to be there."""
    section.text("name")
    match section.values.get("rules"):
        case list() as rules if all(
            isinstance(rule, list) and len(rule) == 2 and isinstance(rule[0], str) and isinstance(rule[1], dict)
            for rule in rules
        ):
            return dict(section.values)
    raise IntegrityError(f"{section.place}: rules must be pairs of a pattern and a format")


def _lost(manifest: Section) -> dict[str, Any] | None:
    lost = manifest.optional(manifest.section, "lost")
    return {name: lost.number(name) for name in lost.values} if lost else None


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
