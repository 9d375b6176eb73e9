"""What every layout has in common: a bundle is made, its graphs are arranged, tokenizer and processor files copied."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from smolvlm_edge.bundle import TOKENIZER_FILES, Bundle, Target
from smolvlm_edge.errors import RequestError
from smolvlm_edge.export.building import Progress
from smolvlm_edge.export.output import check_free, unknown_file, written
from smolvlm_edge.export.pipeline import check_targets, export_checkpoint
from smolvlm_edge.quantize import RECIPES, Kind, Recipe


@dataclass(frozen=True)
class Layout:
    """A folder that another program reads."""

    reader: str
    """Which program, for messages."""
    target: Target
    """Whose graphs are arranged."""
    files: tuple[str, ...]
    """What `arrange` may write: paths within the folder, with slashes."""
    arrange: Callable[[Bundle, Path], None]
    """Writes them into a folder, from a bundle with graphs for the target; raises ExportError. The bundle's tokenizer
    and processor files lie there already and may be changed."""
    refused: frozenset[Kind] = frozenset()
    """Kinds of number formats that it has no operators for."""

    def check_recipe(self, recipe: Recipe) -> None:
        """Refuse a width that this layout has not.

        Raises:
            RequestError: The recipe has a format of a refused kind.
        """
        if found := self.refused & recipe.kinds:
            raise RequestError(
                f"recipe {recipe.name}: {self.reader} has no operators for the kind {', '.join(sorted(found))} "
                "(static comes from --vision int8-static): choose another width"
            )


def export_as(
    layout: Layout,
    checkpoint: Path,
    out: Path,
    recipe: Recipe = RECIPES["int4"],
    *,
    adapter: Path | None = None,
    calibration: Path | Literal["bundled"] | None = "bundled",
    target_bytes: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Turn a Hugging Face folder into one that another program answers from.

    A bundle is made on the way, in a hidden folder beside the output. Arguments and errors as in `export_checkpoint`,
    but that `force` replaces a folder of this layout.

    Returns:
        `out`.
    """
    check_targets([layout.target])
    layout.check_recipe(recipe)
    check_layout_output(layout, out.resolve(), force=force)
    with written(out, force=force) as folder, TemporaryDirectory(dir=folder) as scratch:
        made = export_checkpoint(
            checkpoint,
            Path(scratch) / "bundle",
            recipe,
            targets=[layout.target],
            adapter=adapter,
            calibration=calibration,
            target_bytes=target_bytes,
            progress=progress,
        )
        bundle = Bundle.open(made)
        for name in TOKENIZER_FILES:
            if (bundle.folder / name).is_file():
                shutil.copyfile(bundle.folder / name, folder / name)
        layout.arrange(bundle, folder)
    return out


def check_layout_output(layout: Layout, out: Path, *, force: bool) -> None:
    """As `check_output`, for a folder of a layout.

    Raises:
        RequestError: `out` exists and `force` is not set, or it is no such folder.
    """

    def foreign(folder: Path) -> str | None:
        if not any((folder / name).is_file() for name in layout.files):
            return f"it has no {layout.files[0]}"
        return unknown_file(folder, {*layout.files, *TOKENIZER_FILES})

    check_free(out, f"folder for {layout.reader}", foreign, force=force)
