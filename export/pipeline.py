"""The steps of an export, in order: check, build, copy, describe, move into place."""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

from smolvlm_edge.bundle import MANIFEST, TOKENIZER_FILES, AdapterEntry, Bundle, Target, sha256, write_manifest
from smolvlm_edge.bundle.config import ImageConfig, ModelConfig
from smolvlm_edge.bundle.formats import ADAPTER_WEIGHTS, check_format
from smolvlm_edge.bundle.reading import Section, read_bytes, read_json
from smolvlm_edge.conversation.prompt import PromptEncoder
from smolvlm_edge.errors import ExportError, IntegrityError, RequestError
from smolvlm_edge.export.adapter import Adapter
from smolvlm_edge.export.building import Progress, build_graphs
from smolvlm_edge.export.calibration import DecoderLayers, Sample, SampleMaker, bundled_samples, enough, folder_samples
from smolvlm_edge.export.checkpoint import HEAD, TOKEN_TABLE, Checkpoint
from smolvlm_edge.export.fidelity import measure_lost
from smolvlm_edge.export.output import check_free, known_as, unknown_file, written
from smolvlm_edge.export.targets import NewBuilder
from smolvlm_edge.export.targets.onnx import OnnxGraphBuilder
from smolvlm_edge.export.turn_end import turn_end
from smolvlm_edge.generation.answer import check_options
from smolvlm_edge.graphs import available_cores
from smolvlm_edge.graphs.choice import choose_engines
from smolvlm_edge.graphs.engines import open_engine
from smolvlm_edge.quantize import RECIPES, Recipe

logger = logging.getLogger(__name__)

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
CHAT_TEMPLATE = ("chat_template.jinja", "chat_template.json")


def export_checkpoint(
    checkpoint: Path,
    out: Path,
    recipe: Recipe = RECIPES["int4"],
    *,
    targets: Sequence[Target] = ("onnx",),
    adapter: Path | None = None,
    calibration: Path | Literal["bundled"] | None = "bundled",
    target_bytes: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Turn a Hugging Face folder into a bundle.

    The same checkpoint and recipe give the same bytes. Memory stays within a few copies of the largest
    matrix; for OpenVINO, the rounded weights of a graph come on top.

    Args:
        checkpoint: Folder with config.json, safetensors weights, tokenizer and processor files.
        out: Folder to make.
        recipe: Which matrix gets which number format.
        targets: What to make graphs for.
        adapter: Folder of a PEFT LoRA adapter to merge into the checkpoint. If it holds a tokenizer, that is taken.
        calibration: What runs through the model so that rounding keeps its answers: the bundled set, or a folder of
            pictures and texts (see `folder_samples`); None rounds every value to the nearest, within seconds.
        target_bytes: What the whole bundle may take: matrices that `recipe` rounds to less get eight bits where they
            gain most by them. For one target, ONNX, and with a calibration set.
        force: Replace `out` if it exists.
        progress: Called after every layer.

    Returns:
        `out`.

    Raises:
        RequestError: `out` exists and `force` is not set, or it is no bundle; or there is no such target.
        ModelNotFoundError: No checkpoint or adapter in that folder.
        UnsupportedModelError: A checkpoint or adapter of another kind.
        IntegrityError: The checkpoint is damaged, incomplete or contradicts itself, or the adapter does not fit it.
        ExportError: The bundle could not be written, or what a target needs is not installed.
    """
    check_targets(targets)
    if target_bytes is not None and (tuple(targets) != ("onnx",) or calibration is None or not recipe.is_fitted):
        raise RequestError("a target size is for int4, for the target onnx alone, and measured with a calibration set")
    check_output(out.resolve(), force=force)
    check_format(checkpoint)
    model, weights = ModelConfig.from_folder(checkpoint), Checkpoint(checkpoint)
    _check_image_size(checkpoint, model)
    _check_generation(model)
    if model.tie_word_embeddings:
        weights.tie_head()
    _check_vocabulary(weights, model)
    if adapter is not None:
        model = Adapter.open(adapter).merge_into(weights, model)
    with written(out, force=force) as folder:
        origins = _copy_tokenizer_files(checkpoint, adapter, folder)
        with known_as(origins):
            model = _with_turn_end(checkpoint, PromptEncoder(folder, model), model)
        builders = [_new_builder(target) for target in targets]
        samples = _samples(folder, model, calibration) if recipe.rules else []
        progress = progress or (lambda *_: None)
        outcome = build_graphs(folder, weights, model, recipe, builders, samples, target_bytes, progress)
        weights.check_all_used()
        source, revision = _source(checkpoint)
        bundle = Bundle(
            folder,
            source,
            revision,
            None if adapter is None else _adapter_entry(adapter),
            recipe={
                **outcome.recipe.to_dict(),
                "calibration": _label(calibration if recipe.rules else None),
                "rescaled": outcome.rescaled,
                "bits": outcome.bits,
            },
            model=model,
            targets=tuple(targets),
            files={},
            producer=f"smol-edge {version('smol-edge')}",
        )
        write_manifest(bundle if not recipe.rules else replace(bundle, lost=_lost(bundle, weights, progress)))
    return out


def check_output(out: Path, *, force: bool) -> None:
    """Refuse an output that is in the way; for who wants to know before the checkpoint is fetched.

    Raises:
        RequestError: `out` exists and `force` is not set, or it is no bundle.
    """
    check_free(out, "bundle", _foreign_file, force=force)


def _foreign_file(out: Path) -> str | None:
    try:
        files = read_json(out / MANIFEST).get("files") if (out / MANIFEST).is_file() else {}
    except IntegrityError:
        files = {}
    return unknown_file(out, {MANIFEST, *files} if isinstance(files, dict) else {MANIFEST})


def _check_image_size(checkpoint: Path, model: ModelConfig) -> None:
    tile_size = ImageConfig.from_folder(checkpoint).tile_size
    if tile_size != model.vision.image_size:
        raise IntegrityError(
            f"the image processor makes tiles of {tile_size} pixels, config.json expects {model.vision.image_size}"
        )


def _check_vocabulary(weights: Checkpoint, model: ModelConfig) -> None:
    """A resized vocabulary that config.json does not know of; transformers refuses it too."""
    for name in (TOKEN_TABLE, HEAD):
        rows = weights.weights[name].shape[:1] if name in weights.weights else None
        if rows and rows != (model.text.vocab_size,):
            raise IntegrityError(
                f"{weights.folder}: tensor {name} has {rows[0]} rows, but vocab_size in config.json (text_config) is "
                f"{model.text.vocab_size}: correct it if the tokenizer was extended"
            )


def _samples(folder: Path, model: ModelConfig, calibration: Path | Literal["bundled"] | None) -> list[Sample]:
    if calibration is None:
        return []
    maker = SampleMaker(PromptEncoder(folder, model), ImageConfig.from_folder(folder), model)
    return enough(bundled_samples(maker) if calibration == "bundled" else folder_samples(calibration, maker), model)


def _lost(bundle: Bundle, weights: Checkpoint, progress: Progress) -> dict[str, Any]:
    progress("quality", 0, 1)
    threads = available_cores()
    engine = open_engine(choose_engines(bundle, threads=threads).decoder.engine, threads)
    lost = measure_lost(bundle, DecoderLayers(weights, bundle.model, bundle.folder, threads), engine)
    progress("quality", 1, 1)
    return lost.to_dict()


def check_targets(targets: Sequence[Target]) -> None:
    """Refuse what graphs cannot be made for; for who wants to know before the checkpoint is fetched.

    Raises:
        RequestError: There is none, or no such target.
        ExportError: What a target needs is not installed.
    """
    if not targets or not {*targets} <= {*get_args(Target)}:
        raise RequestError(f"targets must be some of {', '.join(get_args(Target))}, not {list(targets)}")
    for target in targets:
        _new_builder(target)


def _label(calibration: Path | Literal["bundled"] | None) -> str:
    match calibration:
        case None:
            return "none"
        case Path():
            return calibration.resolve().name
        case _:
            return calibration


def _new_builder(target: Target) -> NewBuilder:
    if target == "onnx":
        return partial(OnnxGraphBuilder, stored={})
    try:
        from smolvlm_edge.export.targets.openvino import OpenVinoGraphBuilder  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ExportError.of_missing("this export needs", error.name, "openvino") from error
    return OpenVinoGraphBuilder


def _copy_tokenizer_files(checkpoint: Path, adapter: Path | None, folder: Path) -> dict[Path, Path]:
    """Fill the bundle's folder; where each file comes from, and where it would if it were there."""
    origins = {}
    for name in TOKENIZER_FILES:
        source = checkpoint if adapter is None or not _is_of_adapter(adapter, name) else adapter
        origins[folder / name] = source / name
        if os.path.isfile(source / name):
            (folder / name).write_bytes(read_bytes(source / name))
    if not (folder / "tokenizer.json").is_file():
        raise IntegrityError(f"{checkpoint} has no tokenizer.json: save the tokenizer of the model there")
    return {**origins, folder: checkpoint}


def _with_turn_end(checkpoint: Path, encoder: PromptEncoder, model: ModelConfig) -> ModelConfig:
    """The model with the end of a turn among its end tokens, if no generation_config.json names any.

    Without it an answer would run on: config.json names the end of a text alone. What the runtime would refuse of
    tokenizer and template is refused here.
    """
    if encoder.is_base:
        logger.warning("%s has no chat template, as a base model: it will complete prompts as they stand", checkpoint)
        return model
    if Section.of_file_if_there(checkpoint / "generation_config.json").integers("eos_token_id"):
        return model
    end = turn_end(encoder, model.text.vocab_size)
    return model if end is None else replace(model, eos_token_ids=tuple(sorted({*model.eos_token_ids, end})))


def _check_generation(model: ModelConfig) -> None:
    """Refuse defaults that make no sense, and say which ones are not done."""
    try:
        check_options({}, model.generation.options())[0].check_vocabulary(model.text.vocab_size)
    except RequestError as error:
        raise IntegrityError(f"generation_config.json: {error}") from error
    if model.generation.ignored:
        logger.warning(
            "generation_config.json asks for %s, which smol-edge does not do", ", ".join(model.generation.ignored)
        )


def _is_of_adapter(adapter: Path, name: str) -> bool:
    """Whether a file comes from the adapter: trainers save the tokenizer that they trained with, and its template."""
    if name in TOKENIZER:
        return os.path.isfile(adapter / TOKENIZER[0])
    return name in CHAT_TEMPLATE and any(os.path.isfile(adapter / template) for template in CHAT_TEMPLATE)


def _adapter_entry(adapter: Path) -> AdapterEntry:
    return AdapterEntry(_source(adapter)[0], sha256(adapter / ADAPTER_WEIGHTS))


def _source(checkpoint: Path) -> tuple[str, str | None]:
    """Repository and revision, if the folder is a snapshot in the Hugging Face cache, else the folder's name."""
    match checkpoint.absolute().parts:
        case [*_, repository, "snapshots", revision] if repository.startswith("models--"):
            return repository.removeprefix("models--").replace("--", "/", 1), revision
        case _:
            return checkpoint.resolve().name, None
