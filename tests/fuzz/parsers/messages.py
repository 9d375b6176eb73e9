"""`messages=`, as JSON from a stranger."""

import json
from pathlib import Path

from smolvlm_edge.conversation.messages import check_last_turn, read_messages
from smolvlm_edge.errors import RequestError
from tests.fuzz.parsers import EXAMPLES, as_json


def seeds(_: Path) -> list[bytes]:
    url = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8=", "detail": "low"}}
    file = {"type": "image", "url": (EXAMPLES / "shapes.png").resolve().as_uri()}
    video = {"type": "video", "video": [str(EXAMPLES / "clip-1.png"), str(EXAMPLES / "clip-2.png")]}
    text = {"type": "text", "text": "What is this?"}
    long = [{"role": "developer", "content": "Hi"}, {"role": "user", "name": "a", "content": [url, text]}]
    return as_json(
        [{"role": "user", "content": [file, text]}],
        [{"role": "system", "content": "x"}, {"role": "user", "content": [video, text]}],
        [*long, {"role": "assistant", "content": None}, {"role": "tool", "content": "x"}],
    )


def parse(data: bytes, _: Path) -> None:
    try:
        messages = json.loads(data)
    except (ValueError, RecursionError):
        raise RequestError("no JSON") from None
    for allow_paths in (False, True):
        check_last_turn(read_messages(messages, allow_paths=allow_paths))
