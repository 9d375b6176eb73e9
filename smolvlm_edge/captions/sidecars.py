"""A picture's description in a file beside it: photo.txt, as trainers read it, or photo.xmp, as photo managers do."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal
from unicodedata import category

from smolvlm_edge.captions import xmp
from smolvlm_edge.captions.places import Place, Source
from smolvlm_edge.captions.sources import Files
from smolvlm_edge.errors import RequestError

Kind = Literal["txt", "xmp"]


class Sidecars:
    """One kind of file beside pictures. What somebody else has written in it stays, unless it is to be replaced."""

    def __init__(self, kind: Kind | None, sources: Iterable[Source], *, force: bool) -> None:
        """Find out where they would stand; without a kind, nowhere.

        Raises:
            RequestError: Pictures are in a data set, or two of them would share a file.
            EngineError: An extra is not installed.
        """
        self._force = force
        self._paths: dict[Place, Path] = {}
        if kind is None:
            if force:
                raise RequestError("--force is about --sidecars: say txt or xmp")
            return
        if kind == "xmp":
            xmp.import_lxml()
        self._described, self._written = READ[kind], WRITTEN[kind]
        taken: dict[Path, Path] = {}
        for source in sources:
            if not isinstance(source, Files):
                raise RequestError("--sidecars stand beside pictures that are files, not beside those in a data set")
            for place, picture in source.paths.items():
                path = _beside(picture, f".{kind}")
                if path in taken:
                    raise RequestError(
                        f"{taken[path]} and {picture} would share {path}: rename one, or do each by itself"
                    )
                taken[path] = picture
                self._paths[place] = path

    def catch_up(self, texts: Mapping[Place, str]) -> None:
        """Write those that a killed run did not come to, and refuse what would replace another's description.

        Args:
            texts: What earlier runs said.

        Raises:
            RequestError: A file says something else already, cannot be read or is none of its kind.
        """
        for place, path in self._paths.items():
            there = self._described(path) if path.exists() else None
            if there and there != _clean(texts.get(place, "")) and not self._force:
                raise RequestError(f"{path} says something else already: replace what it says with --force")
        for place, text in texts.items():
            self.write(place, text)

    def write(self, place: Place, text: str) -> None:
        """Put a description beside its picture, whole or not at all; nothing is done for a picture not asked for."""
        path = self._paths.get(place)
        if path is None or (path.exists() and self._described(path) == _clean(text)):
            return
        data = self._written(path, _clean(text))
        target = path.resolve()
        partial = target.with_name(f".{target.name}.partial")
        try:
            partial.write_bytes(data)
            if target.exists():
                partial.chmod(target.stat().st_mode)
            partial.replace(target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise RequestError(
                f"{path}: {error.strerror or error}; leave --sidecars out, or make room for it"
            ) from error


def _beside(picture: Path, ending: str) -> Path:
    """Some programs write .XMP, and a second file would be one too many."""
    loud = picture.with_suffix(ending.upper())
    return loud if loud.is_file() and not picture.with_suffix(ending).is_file() else picture.with_suffix(ending)


def _clean(text: str) -> str:
    """Without what a line of text or XML cannot hold."""
    return "".join(each if _is_writable(each) else "\ufffd" for each in text).strip()


def _is_writable(character: str) -> bool:
    is_odd = category(character) in {"Cc", "Cs"} or character in "\ufffe\uffff"
    return not is_odd or character in "\n\t"


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror or error}: leave --sidecars out, or mend it") from error


# what a file says, and the file once it says something else
READ: dict[Kind, Callable[[Path], str | None]] = {"txt": _read_text, "xmp": xmp.read_description}
WRITTEN: dict[Kind, Callable[[Path, str], bytes]] = {
    "txt": lambda _, text: f"{text}\n".encode(),
    "xmp": xmp.with_description,
}
