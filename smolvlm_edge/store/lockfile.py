"""models.lock: the models that have a short name, each pinned to a commit and, where they are known, to hashes."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from smolvlm_edge.bundle import sha256
from smolvlm_edge.errors import IntegrityError

PLACES = (
    Path(__file__).parents[1] / "lock" / "models.lock",  # in a wheel
    Path(__file__).parents[2] / "models.lock",  # at the top of the repository
)


@dataclass(frozen=True, slots=True)
class LockedFile:
    """What a file of a pinned commit must be."""

    size: int
    """Bytes."""
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class LockedModel:
    """A model under a short name."""

    alias: str
    about: str
    repo: str
    """owner/name on the hub."""
    revision: str
    """Commit, 40 hexadecimal digits."""
    licence: str | None = None
    parameters: int | None = None
    files: Mapping[str, LockedFile] | None = None

    @property
    def hashed(self) -> bool:
        """Whether the weights are pinned by sha256, not by the commit alone."""
        return bool(self._weights) and all(file.sha256 for file in self._weights)

    @property
    def exact(self) -> bool:
        """Whether every file is pinned by sha256: then there are no others."""
        return self.hashed and all(file.sha256 for file in (self.files or {}).values())

    @property
    def weight_bytes(self) -> int | None:
        """What the weights take, if it is known."""
        return sum(file.size for file in self._weights) or None

    @property
    def _weights(self) -> list[LockedFile]:
        return [file for name, file in (self.files or {}).items() if name.endswith(".safetensors")]

    def with_files_of(self, folder: Path, wanted: Callable[[str], bool]) -> "LockedModel":
        """The same entry with the size and sha256 of every wanted file in a verified folder."""
        found = {
            path.name: LockedFile(path.stat().st_size, sha256(path)) for path in folder.iterdir() if wanted(path.name)
        }
        return replace(self, files={**(self.files or {}), **found})

    def to_toml(self) -> str:
        """The entry as models.lock spells it."""
        values = {"about": self.about, "repo": self.repo, "revision": self.revision, "licence": self.licence}
        lines = [f'["{self.alias}"]', *(f'{key} = "{value}"' for key, value in values.items() if value)]
        if self.parameters:
            lines.append(f"parameters = {self.parameters}")
        if self.files:
            lines.append(f'["{self.alias}".files]')
        for name, file in sorted((self.files or {}).items()):
            sha256 = f', sha256 = "{file.sha256}"' if file.sha256 else ""
            lines.append(f'"{name}" = {{ size = {file.size}{sha256} }}')
        return "\n".join(lines) + "\n"


@cache
def locked_models() -> Mapping[str, LockedModel]:
    """Every model of models.lock by its alias."""
    path = next((path for path in PLACES if path.is_file()), PLACES[0])
    try:
        text = path.read_text(encoding="utf-8")
        return {alias: _model(alias, entry) for alias, entry in tomllib.loads(text).items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise IntegrityError(
            f"{path} is damaged ({str(error)[:80]}): pip install --force-reinstall smol-edge"
        ) from error


def locked_at(commit: str) -> LockedModel | None:
    """The model that is pinned to a commit, under whatever name that is fetched."""
    return next((model for model in locked_models().values() if model.revision == commit), None)


def _model(alias: str, entry: dict[str, object]) -> LockedModel:
    found = entry.pop("files", None)
    locked = {name: LockedFile(**file) for name, file in found.items()} if isinstance(found, dict) else None
    return LockedModel(alias=alias, files=locked, **entry)  # type: ignore[arg-type]  # a damaged lock fails the tests
