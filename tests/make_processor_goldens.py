"""Makes goldens/images.json, prompts.json and sampling.json with transformers; run it without arguments.

Its functions are the reference that tests/test_images_live.py compares with.
"""

import json
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from io import BytesIO
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import PIL
import torch
import transformers
from PIL import Image, ImageOps, features
from released_files import unpack
from sample_pictures import LOSSY, PICTURES, SETTINGS, Picture, golden_cases, resize_fingerprint, rgb
from sample_prompts import PROMPTS, Conversation
from transformers import Idefics3ImageProcessorPil, Idefics3Processor, SmolVLMImageProcessorPil
from transformers.generation import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

GOLDENS = Path(__file__).parent / "goldens"


class Reference(NamedTuple):
    pixel_values: np.ndarray
    """Float32 [tiles, 3, tile_size, tile_size]."""
    rows: int
    columns: int


@cache
def processor() -> Idefics3Processor:
    with TemporaryDirectory() as folder:
        made = Idefics3Processor.from_pretrained(unpack(Path(folder)))
    assert type(made.image_processor) is Idefics3ImageProcessorPil, "torchvision's processor rounds differently"
    return made


def upright(picture: Picture) -> Image.Image:
    """What the reference is given: it does not look at EXIF itself."""
    image = picture if isinstance(picture, Image.Image) else Image.open(BytesIO(picture))
    return ImageOps.exif_transpose(image)


def reference_tiles(picture: Picture, setting: str, smolvlm: bool = False) -> Reference:
    wishes = {"longest_edge": 2048, "tile_size": 512, "split": True, **SETTINGS[setting]}
    options = {name: wishes[name] for name in ("resample", "image_mean", "image_std") if name in wishes}
    run = SmolVLMImageProcessorPil(**processor().image_processor.to_dict()) if smolvlm else processor().image_processor
    output = run(
        upright(picture),
        size={"longest_edge": wishes["longest_edge"]},
        max_image_size={"longest_edge": wishes["tile_size"]},
        do_image_splitting=wishes["split"],
        return_row_col_info=True,
        **options,
    )
    return Reference(output["pixel_values"][0], output["rows"][0][0], output["cols"][0][0])


def reference_ids(conversation: Conversation) -> list[int]:
    """Token ids of a conversation, with tiny pictures that give the wished grids."""
    messages, grids = conversation
    continued = messages[-1]["role"] == "assistant"
    text = processor().apply_chat_template(
        messages, add_generation_prompt=not continued, continue_final_message=continued
    )
    if not grids:
        return processor()(text=text)["input_ids"][0]
    if len({max(grid) for grid in grids}) > 1:  # one call can only split all pictures alike
        grid_info = {"rows": [[rows for rows, _ in grids]], "cols": [[columns for _, columns in grids]]}
        for index in range(len(grids)):
            block = processor().replace_image_token(grid_info, index).replace("<image>", "<picture>")
            text = text.replace("<image>", block, 1)
        return processor().tokenizer(text.replace("<picture>", "<image>"))["input_ids"]
    pictures = [rgb(16 * max(columns, 1), 16 * max(rows, 1)) for rows, columns in grids]
    longest_edge = 16 * max(*grids[0], 1)
    output = processor()(
        text=text, images=[pictures], size={"longest_edge": longest_edge}, max_image_size={"longest_edge": 16}
    )
    tiles = sum(rows * columns + 1 for rows, columns in grids)
    assert output["pixel_values"].shape[1] == tiles, "the pictures did not give the wished grids"
    return output["input_ids"][0]


def sampling_cases() -> list[dict[str, Any]]:
    random = np.random.default_rng(7)
    seen = [3, 5, 5, 11, 40, 63]
    steps = {
        "repetition_penalty": RepetitionPenaltyLogitsProcessor,
        "temperature": TemperatureLogitsWarper,
        "top_k": TopKLogitsWarper,
        "top_p": TopPLogitsWarper,
        "min_p": MinPLogitsWarper,
        "typical_p": TypicalLogitsWarper,
        "epsilon_cutoff": EpsilonLogitsWarper,
        "eta_cutoff": EtaLogitsWarper,
    }
    chains: list[dict[str, float]] = [
        *({"repetition_penalty": value} for value in (1.2, 1.9, 0.7)),
        *({"temperature": value} for value in (0.2, 0.7, 1.8)),
        *({"top_k": value} for value in (1, 7, 63, 500)),
        *({"top_p": value} for value in (0.05, 0.5, 0.9, 0.99)),
        *({"min_p": value} for value in (0.02, 0.1, 1.0)),
        {"repetition_penalty": 1.1, "temperature": 0.8, "top_k": 30, "top_p": 0.95, "min_p": 0.05},
        {"repetition_penalty": 1.5, "temperature": 1.4, "top_k": 12, "top_p": 0.6},
        {"temperature": 0.5, "top_p": 0.7, "min_p": 0.2},
        *({"typical_p": value} for value in (0.01, 0.3, 0.7, 0.95)),
        *({"epsilon_cutoff": value} for value in (0.001, 0.02, 0.2, 0.9)),
        *({"eta_cutoff": value} for value in (0.001, 0.02, 0.2, 0.9)),
        {"temperature": 1.4, "top_k": 40, "typical_p": 0.8, "epsilon_cutoff": 0.01, "eta_cutoff": 0.05},
    ]
    cases = []
    for chain in chains:
        logits = np.round(random.normal(0, 3, 64), 2).astype(np.float32)
        run = LogitsProcessorList([steps[step](value) for step, value in chain.items()])
        expected = run(torch.tensor([seen]), torch.from_numpy(logits[None].copy()))[0].tolist()
        cases.append(
            {
                "steps": chain,
                "seen": seen,
                "logits": [round(float(value), 2) for value in logits],
                "expected": [None if value == -np.inf else value for value in expected],
            }
        )
    return cases


def run_lengths(ids: Sequence[int]) -> list[Any]:
    """Ids with runs as [id, count]: a picture is 64 times the same token per tile."""
    runs = ((token, len(list(run))) for token, run in groupby(ids))
    return [[token, count] if count > 1 else token for token, count in runs]


def image_goldens() -> dict[str, Any]:
    cases: dict[str, Any] = {}
    pictures = {name: make() for name, make in PICTURES.items()}
    for picture, setting in golden_cases():
        tiles = reference_tiles(pictures[picture], setting)
        cases.setdefault(picture, {})[setting] = {
            "tiles": len(tiles.pixel_values),
            "rows": tiles.rows,
            "columns": tiles.columns,
            "sha256": sha256(tiles.pixel_values.astype("<f4").tobytes()).hexdigest(),
        }
    codecs = {name: features.version(name) for name in ("libjpeg_turbo", "webp")}
    return {
        "made_with": f"transformers {transformers.__version__}, Idefics3ImageProcessorPil",
        "resize_fingerprint": resize_fingerprint(),
        "codecs": {"pillow": PIL.__version__, **codecs},
        "lossy": sorted(LOSSY),
        "cases": cases,
    }


def prompt_goldens() -> dict[str, Any]:
    cases = {
        name: {**conversation._asdict(), "input_ids": run_lengths(reference_ids(conversation))}
        for name, conversation in PROMPTS.items()
    }
    return {"made_with": f"transformers {transformers.__version__}, Idefics3Processor", "cases": cases}


def main() -> None:
    GOLDENS.mkdir(exist_ok=True)
    sampling = {"made_with": f"transformers {transformers.__version__}, logits processors", "cases": sampling_cases()}
    for name, goldens in {"images": image_goldens(), "prompts": prompt_goldens(), "sampling": sampling}.items():
        lines = ",\n".join(f"{json.dumps(key)}: {_lines(value)}" for key, value in goldens.items())
        (GOLDENS / f"{name}.json").write_text("{\n" + lines + "\n}\n", encoding="utf-8")


def _lines(value: Any) -> str:
    """JSON with one case per line, so that a changed case is one changed line in a diff."""
    match value:
        case dict():
            items = [f"{json.dumps(key)}: {json.dumps(entry, ensure_ascii=False)}" for key, entry in value.items()]
            return "{\n" + ",\n".join(items) + "\n}"
        case list():
            return "[\n" + ",\n".join(json.dumps(entry) for entry in value) + "\n]"
    return json.dumps(value)


if __name__ == "__main__":
    main()
