"""Makes goldens/video.json and video.npz: what SmolVLM's processor takes of videos, says of them and makes of frames.

    pip install -e '.[parity]'
    pip install --no-deps --target TORCHVISION torchvision==0.28.0
    PYTHONPATH=TORCHVISION python tests/make_video_goldens.py

The video processor needs torchvision, which must not be installed beside the other parity tests: with it, transformers
prepares pictures by torchvision too, which rounds differently. What tests/test_video_live.py uses of this script does
without it.
"""

import json
import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch

# torchvision's own operators are built for another torch than a CPU's; declared, it can be imported. Nothing uses them.
OPERATORS = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    OPERATORS.define(f"{operator}(Tensor boxes, Tensor scores, float threshold) -> Tensor")

import transformers
from make_processor_goldens import GOLDENS, run_lengths
from pictures import draw
from released_files import RELEASED, unpack
from sample_prompts import PICTURE, say, turn
from transformers import AutoProcessor, AutoTokenizer
from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE, SmolVLMProcessor
from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor
from transformers.video_utils import VideoMetadata

SMOLVLM2 = RELEASED.parent / "smolvlm2-256m-video-instruct"
VIDEO = {"type": "video"}


class Footage(NamedTuple):
    """What is known of a video: frames, frames per second, and the numbers of those that are taken."""

    count: int
    frame_rate: float
    numbers: list[int]


class Conversation(NamedTuple):
    messages: list[dict[str, Any]]
    footage: list[Footage]


MINUTE = Footage(1500, 25.0, list(range(0, 1500, 75)))
FILM = Footage(172_800, 24.0, np.linspace(24, 172_776, 64, dtype=int).tolist())
CONVERSATIONS = {
    "one_frame": Conversation([turn("user", VIDEO, say("What is this?"))], [Footage(1, 25.0, [0])]),
    "minute": Conversation([turn("user", VIDEO, say("What happens?"))], [MINUTE]),
    "ntsc": Conversation([turn("user", VIDEO, say("?"))], [Footage(301, 30000 / 1001, [0, 29, 30, 59, 60, 299, 300])]),
    "film": Conversation([turn("user", VIDEO, say("What happens?"))], [FILM]),
    "text_before": Conversation(
        [turn("user", say("Watch this: "), VIDEO, say(" Well?"))], [Footage(60, 10.0, [0, 59])]
    ),
    "system": Conversation([turn("system", say("Be brief.")), turn("user", VIDEO, say("What happens?"))], [MINUTE]),
    "two_videos": Conversation(
        [turn("user", VIDEO, say("and"), VIDEO, say("?"))], [Footage(60, 10.0, [0, 59]), Footage(90, 30.0, [3, 80])]
    ),
    "earlier_turn": Conversation(
        [turn("user", VIDEO, say("What?")), turn("assistant", say("A fox.")), turn("user", say("Its colour?"))],
        [Footage(60, 10.0, [0, 30, 59])],
    ),
}
PICTURE_FIRST = Conversation([turn("user", PICTURE, VIDEO, say("Is it in the video?"))], [Footage(60, 10.0, [0, 59])])


@cache
def tokenizer() -> Any:
    with TemporaryDirectory() as folder:
        return AutoTokenizer.from_pretrained(unpack_smolvlm2(Path(folder)))


def unpack_smolvlm2(folder: Path) -> Path:
    """SmolVLM2-256M-Video-Instruct as far as its processor goes; its tokenizer is SmolVLM's."""
    unpack(folder)
    for file in SMOLVLM2.glob("*.json"):
        shutil.copy(file, folder)
    return folder


def reference_sample(count: int, frame_rate: float, fps: float, max_frames: int) -> list[int]:
    metadata = VideoMetadata(total_num_frames=count, fps=frame_rate, duration=count / frame_rate)
    processor = SimpleNamespace(num_frames=max_frames, fps=fps)
    return SmolVLMVideoProcessor.sample_frames(processor, metadata).tolist()


def reference_ids(conversation: Conversation) -> list[int]:
    """Token ids by the methods of SmolVLMProcessor, which cannot be made without torchvision."""
    processor = SimpleNamespace(
        image_seq_len=64,
        image_token="<image>",
        fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
    )
    text = tokenizer().apply_chat_template(
        conversation.messages, chat_template=DEFAULT_CHAT_TEMPLATE, tokenize=False, add_generation_prompt=True
    )
    for footage in conversation.footage:
        inputs = {"pixel_values": np.empty((1, len(footage.numbers))), "video_metadata": [metadata_of(footage)]}
        text = text.replace("<video>", SmolVLMProcessor.replace_video_token(processor, inputs, 0), 1)
    return tokenizer()(text)["input_ids"]


def metadata_of(footage: Footage) -> VideoMetadata:
    count, frame_rate, numbers = footage
    return VideoMetadata(count, fps=frame_rate, duration=count / frame_rate, frames_indices=numbers)


def sampling_cases() -> list[dict[str, Any]]:
    rates = (0.5, 10.0, 24000 / 1001, 25.0, 60.0)
    lengths = (0.04, 0.4, 1.5, 2.0, 12.4, 63.6, 66.1, 7200.0)
    rules = ((1.0, 64), (1.0, 8), (2.5, 16), (0.2, 3))
    cases = []
    for index, (rate, length) in enumerate((rate, length) for rate in rates for length in lengths):
        fps, max_frames = rules[index % len(rules)]
        count = max(1, round(rate * length))
        numbers = reference_sample(count, rate, fps, max_frames)
        cases.append({"count": count, "frame_rate": rate, "fps": fps, "max_frames": max_frames, "numbers": numbers})
    return cases


def whole_processor() -> Any:
    """SmolVLMProcessor itself, with small frames."""
    with TemporaryDirectory() as folder:
        processor = AutoProcessor.from_pretrained(unpack_smolvlm2(Path(folder)))
    assert type(processor) is SmolVLMProcessor
    assert processor.video_processor.size["longest_edge"] == 2048, "`size` comes before `video_sampling.video_size`"
    assert (processor.video_processor.fps, processor.video_processor.num_frames) == (1, 64)
    for part in (processor.video_processor, processor.image_processor):
        part.size, part.max_image_size = {"longest_edge": 64}, {"longest_edge": 32}
    return processor


def whole_ids(processor: Any, conversation: Conversation) -> list[int]:
    text = processor.apply_chat_template(conversation.messages, add_generation_prompt=True)
    frames = [np.zeros((len(footage.numbers), 8, 8, 3), np.uint8) for footage in conversation.footage]
    pictures = text.count("<image>")
    output = processor(
        text=text,
        videos=frames,
        images=[[draw(32, 32, 1)] * pictures] if pictures else None,
        video_metadata=[metadata_of(footage) for footage in conversation.footage],
        do_sample_frames=False,
        do_image_splitting=False,
        return_tensors="pt",
    )
    return output["input_ids"][0].tolist()


def frame_levels(processor: Any) -> dict[str, np.ndarray]:
    """Grey levels uint8 [frames, 3, 32, 32] of frames brought to 64 pixels and squashed to a tile."""
    levels = {}
    for width, height in ((48, 36), (90, 160), (320, 180)):
        frames = np.stack([np.asarray(draw(width, height, seed)) for seed in (1, 2)])
        output = processor.video_processor([frames], do_sample_frames=False, return_tensors="np")
        pixel_values = np.asarray(output["pixel_values"])[0]
        levels[f"{width}x{height}"] = np.round((pixel_values * 0.5 + 0.5) * 255).astype(np.uint8)
    return levels


def main() -> None:
    processor = whole_processor()
    prompts = {}
    for name, conversation in {**CONVERSATIONS, "picture_first": PICTURE_FIRST}.items():
        ids = whole_ids(processor, conversation)
        if conversation is not PICTURE_FIRST:
            assert ids == reference_ids(conversation), name
        prompts[name] = {**conversation._asdict(), "input_ids": run_lengths(ids)}
    made_with = f"transformers {transformers.__version__}, SmolVLMProcessor"
    lines = [
        f'"made_with": {json.dumps(made_with)}',
        '"prompts": {\n'
        + ",\n".join(f"{json.dumps(key)}: {json.dumps(case)}" for key, case in prompts.items())
        + "\n}",
        '"sampling": [\n' + ",\n".join(map(json.dumps, sampling_cases())) + "\n]",
    ]
    (GOLDENS / "video.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    np.savez_compressed(GOLDENS / "video.npz", **frame_levels(processor))


if __name__ == "__main__":
    main()
