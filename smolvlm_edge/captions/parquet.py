"""Pictures in a Parquet file: a column of bytes or paths, or Hugging Face's `{"bytes", "path"}`. Needs [tables]."""

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smolvlm_edge.captions.places import PictureOf, Place
from smolvlm_edge.errors import EngineError, ImageError, RequestError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

SUFFIX = ".parquet"
PREFERRED = ("image", "bytes")
"""Columns that are taken before others of their type."""
PATHS = ("image", "path", "file", "image_path", "file_name")
"""Columns of texts that are taken for paths without being told."""
BUFFER_BYTES = 1 << 20
ROWS_AT_ONCE = 8
"""Whose pictures are in memory together."""


class Table:
    """The rows of a file, whose pictures are read a few at a time."""

    def __init__(self, path: Path, name: str, column: str | None, id_column: str | None) -> None:
        """Read the ids, and no picture.

        Raises:
            ImageError: It is damaged, or no Parquet.
            RequestError: It has no such columns, or ids that do not tell rows apart.
            EngineError: pyarrow is not installed.
        """
        self._path = path
        with _opened(path) as file:
            schema = file.schema_arrow
            self._column = _picture_column(path, schema, column)
            ids = range(file.metadata.num_rows) if id_column is None else _read_ids(path, file, id_column)
        self.places: Sequence[Place] = [Place(name, each) for each in ids]

    def read(self, wanted: Container[Place]) -> Iterator[tuple[Place, PictureOf]]:
        """See `Source.read`; groups of rows of which none is wanted are not touched."""
        begin = 0
        with _opened(self._path) as file:
            for group in range(file.metadata.num_row_groups):
                places = self.places[begin : begin + file.metadata.row_group(group).num_rows]
                begin += len(places)
                if not any(place in wanted for place in places):
                    continue
                batches = file.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=[self._column])
                values = (value for batch in batches for value in batch.column(0))
                for place, value in zip(places, values, strict=True):
                    if place in wanted:
                        yield place, self._picture(value.as_py())

    def shown(self, place: Place) -> str:
        """See `Source.shown`."""
        return f"{self._path}, {place.id}"

    def _picture(self, value: Any) -> PictureOf:
        if isinstance(value, dict):
            value = value["bytes"] if value.get("bytes") is not None else value.get("path")
        if isinstance(value, str):
            return self._path.parent / value
        return value or b""  # which is told to be empty, in its own line


@contextmanager
def _opened(path: Path) -> Iterator["ParquetFile"]:
    pyarrow, parquet = import_pyarrow()
    try:
        # else it reads a whole group of rows ahead
        with parquet.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False) as file:
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise ImageError.of_file(path, error) from error
        raise ImageError(f"{path} is no Parquet file, or a damaged one: {str(error).partition(chr(10))[0]}") from error


def import_pyarrow() -> tuple[Any, Any]:
    """Pyarrow and its Parquet.

    Raises:
        EngineError: They are not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise EngineError.of_missing("Parquet needs", "pyarrow", "tables") from error
    return pa, pq


def _picture_column(path: Path, schema: "pa.Schema", wanted: str | None) -> str:
    """The column that pictures are in: the one that is named, or the one that can be nothing else."""
    kinds = {field.name: _kind(field.type) for field in schema}
    if wanted is not None:
        if wanted not in kinds:
            raise RequestError(f"{path} has no column {wanted!r}, but {_listed(kinds)}: say another --column")
        if kinds[wanted] is None:
            raise RequestError(f"{path}: the column {wanted!r} holds neither bytes nor paths: say another --column")
        return wanted
    held = [name for name, kind in kinds.items() if kind == "bytes"]
    named = [name for name in PATHS if kinds.get(name) == "path"]
    preferred = [name for name in PREFERRED if name in held]
    found = preferred[:1] or held or named[:1]
    if len(found) != 1:
        why = f"several columns of bytes: {_listed(held)}" if found else f"no column of pictures, but {_listed(kinds)}"
        raise RequestError(f"{path} has {why}; say which one with --column")
    return found[0]


def _kind(type_: "pa.DataType") -> str | None:
    import pyarrow.types as types  # noqa: PLC0415, PLR0402 - an extra

    if types.is_struct(type_):
        inner = {type_.field(index).name: _kind(type_.field(index).type) for index in range(type_.num_fields)}
        return "bytes" if inner.get("bytes") == "bytes" else None
    if types.is_binary(type_) or types.is_large_binary(type_) or types.is_binary_view(type_):
        return "bytes"
    return "path" if types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_) else None


def _read_ids(path: Path, file: "ParquetFile", column: str) -> list[int | str]:
    names = file.schema_arrow.names
    if column not in names:
        raise RequestError(f"{path} has no column {column!r}, but {_listed(names)}: say another --id")
    ids = [each for batch in file.iter_batches(columns=[column]) for each in batch.column(0).to_pylist()]
    if not all(isinstance(each, int | str) and not isinstance(each, bool) for each in ids):
        raise RequestError(f"{path}: not every row has a number or a text in the column {column!r}: say another --id")
    if len(set(ids)) < len(ids):
        raise RequestError(f"{path}: the column {column!r} has the same value in several rows: say another --id")
    return ids


def _listed(names: Any) -> str:
    return ", ".join(list(names)[:20]) or "none"
