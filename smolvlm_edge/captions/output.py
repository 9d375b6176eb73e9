"""What `--out` asks for: JSON lines, or Parquet or WebDataset, which are made of JSON lines that stand beside them."""

import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image

from smolvlm_edge.captions.parquet import SUFFIX, import_pyarrow
from smolvlm_edge.captions.places import Place, Source
from smolvlm_edge.captions.webdataset import Shard
from smolvlm_edge.errors import RequestError
from smolvlm_edge.records import Line

SHARD = re.compile(r"(?P<base>.+?)(?:-(?:\d+|%0?\d*d))?\.tar")
SAMPLES_A_SHARD = 10_000
"""As img2dataset has it."""
ROWS_AT_ONCE = 10_000
FIELDS = ("text", "finish_reason", "error")


class Output:
    """The file that a command names; this one is JSON lines, and complete as it is."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def of(path: Path) -> "Output":
        """What a file's ending asks for."""
        if path.suffix.lower() == SUFFIX:
            return ParquetOutput(path)
        return ShardOutput(path) if path.suffix.lower() == ".tar" else Output(path)

    @property
    def record(self) -> Path:
        """The JSON lines that a killed run goes on from."""
        return self.path

    def owns(self, path: Path) -> bool:
        """Whether a file is a part of the output."""
        return path.resolve() == self.path.resolve()

    def check(self) -> None:
        """Refuse to replace what no earlier run of the same command has made, before anything is computed.

        Raises:
            RequestError: There is such a file.
            EngineError: An extra is not installed.
        """

    def write(self, sources: Sequence[Source]) -> None:
        """Make of the record what is to be made, whole or not at all.

        Raises:
            RequestError: It cannot be written.
            ImageError: A data set can no longer be read.
        """


class ParquetOutput(Output):
    """A row for every picture: file, id, text, finish_reason, error."""

    @property
    def record(self) -> Path:
        """As `Output.record`: captions.jsonl beside captions.parquet."""
        return self.path.with_suffix(".jsonl")

    def check(self) -> None:
        """See `Output.check`."""
        import_pyarrow()
        _check_replaceable([self.path] if self.path.exists() else [], self.record)

    def write(self, sources: Sequence[Source]) -> None:
        """See `Output.write`. Ids are integers if all of them are, otherwise texts."""
        pa, pq = import_pyarrow()
        begin, lines = _read(self.record)
        places = [place for source in sources for place in source.places if place in lines]
        ids = [place.id for place in places if place.id is not None]
        kind = pa.int64() if ids and all(isinstance(each, int) for each in ids) else pa.string()
        fields = [("file", pa.string()), ("id", kind), *((name, pa.string()) for name in FIELDS)]
        schema = pa.schema(fields, {next(iter(begin)): json.dumps(begin)})
        with _whole(self.path) as partial, pq.ParquetWriter(partial, schema) as writer:
            for first in range(0, len(places), ROWS_AT_ONCE):
                rows = [_row(place, lines[place], kind == pa.int64()) for place in places[first : first + ROWS_AT_ONCE]]
                writer.write_table(pa.Table.from_pylist(rows, schema))


class ShardOutput(Output):
    """captions-000000.tar and on: of each sample the picture, the answer in .txt, and the record's line in .json.

    Samples of a shard keep their keys and other files; a .txt and a .json of theirs become .original.txt and
    .original.json. Every file that is read begins a shard.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        found = SHARD.fullmatch(path.name)
        self._base = found["base"] if found else path.stem

    @property
    def record(self) -> Path:
        """As `Output.record`: captions.jsonl beside captions-000000.tar."""
        return self.path.with_name(f"{self._base}.jsonl")

    def owns(self, path: Path) -> bool:
        """See `Output.owns`."""
        number = re.fullmatch(rf"{re.escape(self._base)}-\d{{6}}\.tar", path.name)
        return bool(number) and path.parent.resolve() == self.path.parent.resolve()

    def check(self) -> None:
        """See `Output.check`."""
        _check_replaceable(filter(self.owns, self.path.parent.iterdir()), self.record)

    def write(self, sources: Sequence[Source]) -> None:
        """See `Output.write`. Shards of an earlier run with more pictures are removed."""
        _, lines = _read(self.record)
        partials: list[Path] = []
        try:
            for batch in _shards(sources, lines):
                partials.append(self._shard(len(partials), partial=True))
                with tarfile.open(partials[-1], "w") as tar:
                    for name, content in batch:
                        _add(tar, name, content)
            later = [path for path in self.path.parent.iterdir() if self.owns(path)]
            for number, partial in enumerate(partials):
                partial.replace(self._shard(number))
            for path in {*later} - {self._shard(number) for number in range(len(partials))}:
                path.unlink()
        except OSError as error:
            raise _unwritable(self.path, error) from error
        finally:
            for partial in partials:
                partial.unlink(missing_ok=True)

    def _shard(self, number: int, *, partial: bool = False) -> Path:
        name = f"{self._base}-{number:06}.tar"
        return self.path.with_name(f".{name}.partial" if partial else name)


Member = tuple[str, bytes]


def _shards(sources: Sequence[Source], lines: Mapping[Place, Line]) -> Iterator[Iterator[Member]]:
    """What is in each shard; one has to be read to its end before the next."""
    for source in sources:
        if isinstance(source, Shard):
            yield _copied(source, lines)
        else:
            samples = enumerate((place, picture) for place, picture in source.read(lines))
            for _, shard in groupby(samples, lambda sample: sample[0] // SAMPLES_A_SHARD):
                yield _made(shard, lines)


def _made(samples: Iterable[tuple[int, tuple[Place, bytes | Path]]], lines: Mapping[Place, Line]) -> Iterator[Member]:
    for number, (place, picture) in samples:
        key = f"{number:09}"
        if content := _content(picture):
            yield f"{key}.{_ending(content)}", content
        yield from _said(key, lines[place])


def _copied(source: Shard, lines: Mapping[Place, Line]) -> Iterator[Member]:
    for place, members in groupby(source.members(), lambda member: member[0]):
        if place not in lines:
            continue
        for _, ending, content in members:
            is_ours = ending in {"txt", "json"}
            yield f"{place.id}.{'original.' if is_ours else ''}{ending}", content
        yield from _said(str(place.id), lines[place])


def _said(key: str, line: Line) -> Iterator[Member]:
    if "text" in line:
        yield f"{key}.txt", _unicode(line["text"]).encode()
    yield f"{key}.json", json.dumps(line).encode()


def _content(picture: bytes | Path) -> bytes:
    try:
        return picture.read_bytes() if isinstance(picture, Path) else picture
    except (OSError, ValueError):  # why is in the record, if it was not there before
        return b""


def _ending(content: bytes) -> str:
    try:
        with Image.open(io.BytesIO(content)) as image:
            form = (image.format or "bin").lower()
    except Exception:  # noqa: BLE001 - a decoder in trouble raises anything
        return "bin"
    return {"jpeg": "jpg", "mpo": "jpg", "tiff": "tif"}.get(form, form)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _row(place: Place, line: Line, ids_are_numbers: bool) -> dict[str, Any]:
    id_ = place.id if ids_are_numbers or place.id is None else _unicode(str(place.id))
    said = {name: _unicode(line[name]) for name in FIELDS if name in line}
    return {"file": _unicode(place.file), "id": id_, **said}


def _unicode(text: str) -> str:
    """Without what no file can hold: bytes of a name that is no Unicode are spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()


def _read(record: Path) -> tuple[Line, dict[Place, Line]]:
    with record.open("rb") as file:
        begin, *lines = map(json.loads, file)
    return begin, {Place.of(line): line for line in lines}


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file to write that takes another's place at the end."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        partial.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> RequestError:
    return RequestError(f"{path}: {error.strerror or error}; the same command with room for it goes on from the record")


def _check_replaceable(there: Iterable[Path], record: Path) -> None:
    first = next(iter(there), None)
    if first is not None and not record.is_file():
        raise RequestError(
            f"{first} exists, and {record.name}, which it would be made of, does not: choose another --out"
        )
