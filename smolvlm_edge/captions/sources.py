"""Arguments of the command line -> the pictures they mean, in files and data sets."""

import os
from collections.abc import Callable, Container, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from smolvlm_edge.captions.files import find_pictures, is_data_set, picture_suffixes
from smolvlm_edge.captions.parquet import SUFFIX, Table
from smolvlm_edge.captions.places import PictureOf, Place, Source
from smolvlm_edge.captions.webdataset import Shard
from smolvlm_edge.errors import ImageError, RequestError
from smolvlm_edge.pictures.sources import shown


class Files:
    """Pictures that are files of their own."""

    def __init__(self, paths: Sequence[Path], folder: Path) -> None:
        """Name them as seen from a folder."""
        self.paths = {Place(name_from(folder, path)): path for path in paths}
        self.places: Sequence[Place] = list(self.paths)

    def read(self, wanted: Container[Place]) -> Iterator[tuple[Place, PictureOf]]:
        """See `Source.read`."""
        return ((place, path) for place, path in self.paths.items() if place in wanted)

    def shown(self, place: Place) -> str:
        """See `Source.shown`."""
        return str(self.paths[place])


def find_sources(
    arguments: Sequence[str], folder: Path, column: str | None, id_column: str | None, is_output: Callable[[Path], bool]
) -> list[Source]:
    """What pictures, folders, patterns, .parquet files and .tar shards mean, in their order; see `find_pictures`.

    Args:
        arguments: Of the command line.
        folder: Where the output stands, from which files are named.
        column: Of a Parquet file, or the ending of a shard's members, that holds pictures; None looks for it.
        id_column: Of a Parquet file; None numbers the rows from 0.
        is_output: Whether a file was written by this command, and so is nothing to read.

    Raises:
        ImageError: There is no picture, or a data set is damaged.
        RequestError: A data set has no such columns, or there is none to have them.
        EngineError: An extra is not installed.
    """
    found = [path for path in find_pictures(arguments) if not (is_data_set(path) and is_output(path))]
    if (column or id_column) and not any(map(is_data_set, found)):
        raise RequestError("--column and --id are of data sets, and there is none among the pictures")
    sources: list[Source] = []
    for are_data_sets, paths in groupby(found, is_data_set):
        if are_data_sets:
            sources += [_data_set(path, name_from(folder, path), column, id_column) for path in paths]
        else:
            sources.append(Files(list(paths), folder))
    if not any(source.places for source in sources):
        raise ImageError(f"{', '.join(map(shown, arguments))}: no picture there")
    return sources


def name_from(folder: Path, path: Path) -> str:
    """What a file is called from a folder, wherever that is looked at from."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # on another drive
        return path.absolute().as_posix()


def _data_set(path: Path, name: str, column: str | None, id_column: str | None) -> Source:
    if path.suffix.lower() == SUFFIX:
        return Table(path, name, column, id_column)
    if id_column is not None:
        raise RequestError(f"--id is a column of a Parquet file; in {path} the keys of the samples are the ids")
    return Shard(path, name, column, picture_suffixes())
