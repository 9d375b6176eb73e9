"""The steps of an export, in order: check, build, copy, describe, move into place.

Everything is written to a hidden folder beside the output, which takes the output's name only when it is
complete: whatever stops an export, no half-written bundle is left behind.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from smolvlm_edge.bundle import MANIFEST, TOKENIZER_FILES, write_manifest
from smolvlm_edge.config import ImageConfig, ModelConfig
from smolvlm_edge.errors import ExportError, IntegrityError, ModelNotFoundError, RequestError
from smolvlm_edge.export.architecture import GRAPHS
from smolvlm_edge.export.checkpoint import Checkpoint
from smolvlm_edge.export.targets.onnx import OnnxGraphBuilder
from smolvlm_edge.quantize import RECIPES, Recipe

Progress = Callable[[str, int, int], None]
"""Called with a graph's name, the pieces of the whole export that are written, and how many there are."""


def export_checkpoint(
    checkpoint: Path,
    out: Path,
    recipe: Recipe = RECIPES["int4"],
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Turn a Hugging Face folder into a bundle for ONNX Runtime.

    The same checkpoint and recipe give the same bytes. Memory stays within a few copies of the largest
    matrix.

    Args:
        checkpoint: Folder with config.json, safetensors weights, tokenizer and processor files.
        out: Folder to make.
        recipe: Which matrix gets which number format.
        force: Replace `out` if it exists.
        progress: Called after every layer.

    Returns:
        `out`.

    Raises:
        RequestError: `out` exists and `force` is not set, or it is no bundle.
        ModelNotFoundError: No checkpoint in that folder.
        UnsupportedModelError: A checkpoint of another architecture.
        IntegrityError: The checkpoint is damaged, incomplete or contradicts itself.
        ExportError: The bundle could not be written.
    """
    _check_output(out, force=force)
    if not (checkpoint / "config.json").is_file():
        raise ModelNotFoundError(f"{checkpoint} has no config.json: name the folder of a safetensors checkpoint")
    model, weights = ModelConfig.from_folder(checkpoint), Checkpoint(checkpoint)
    _check_image_size(checkpoint, model)
    try:
        with _staged(out) as folder:
            _build_graphs(folder, weights, model, recipe, progress)
            _copy_tokenizer_files(checkpoint, folder)
            source, revision = _source(checkpoint)
            producer = f"smol-edge {version('smol-edge')}"
            write_manifest(
                folder,
                source=source,
                revision=revision,
                recipe=recipe.to_dict(),
                model=model,
                producer=producer,
            )
    except OSError as error:
        raise ExportError(f"cannot write {out}: {error.strerror or error} (nothing was left behind)") from error
    return out


def _check_output(out: Path, *, force: bool) -> None:
    if not out.exists():
        return
    if not force:
        raise RequestError(f"{out} exists: choose another --out, or replace it with --force")
    if not (out / MANIFEST).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise RequestError(f"{out} is no bundle, so --force does not replace it: choose another --out")


def _check_image_size(checkpoint: Path, model: ModelConfig) -> None:
    tile_size = ImageConfig.from_folder(checkpoint).tile_size
    if tile_size != model.vision.image_size:
        raise IntegrityError(
            f"preprocessor_config.json makes tiles of {tile_size} pixels, config.json expects {model.vision.image_size}"
        )


def _build_graphs(
    folder: Path, checkpoint: Checkpoint, model: ModelConfig, recipe: Recipe, progress: Progress | None
) -> None:
    # a piece per layer, one for the connector, the token table and the head each
    total, done = model.vision.num_hidden_layers + model.text.num_hidden_layers + 3, 0
    for name, describe in GRAPHS.items():

        def on_layer(name: str = name) -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(name, done, total)

        builder = OnnxGraphBuilder(folder, name, recipe, on_layer)
        try:
            describe(builder, checkpoint, model)
            builder.save(version("smol-edge"))
        finally:
            builder.close()


def _copy_tokenizer_files(checkpoint: Path, folder: Path) -> None:
    for name in TOKENIZER_FILES:
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, folder / name)
    if not (folder / "tokenizer.json").is_file():
        raise IntegrityError(f"{checkpoint} has no tokenizer.json: save the tokenizer of the model there")


def _source(checkpoint: Path) -> tuple[str, str | None]:
    """Repository and revision, if the folder is a snapshot in the Hugging Face cache, else the folder's name."""
    match checkpoint.absolute().parts:
        case [*_, repository, "snapshots", revision] if repository.startswith("models--"):
            return repository.removeprefix("models--").replace("--", "/", 1), revision
        case _:
            return checkpoint.resolve().name, None


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out` that becomes `out` on success and vanishes on any failure."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        yield folder
        folder.chmod(0o755)  # mkdtemp makes it private
        _move_into_place(folder, out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _move_into_place(folder: Path, out: Path) -> None:
    if not out.exists():
        folder.rename(out)
        return
    replaced = folder.with_suffix(".replaced")
    out.rename(replaced)
    try:
        folder.rename(out)
    except OSError:
        replaced.rename(out)
        raise
    shutil.rmtree(replaced)
