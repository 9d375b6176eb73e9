"""Messages with content parts, as OpenAI and transformers have them -> turns for the chat template, and pictures."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from smolvlm_edge.conversation.prompt import ContentPart, Message
from smolvlm_edge.errors import ImageError, RequestError
from smolvlm_edge.pictures.sources import ImageSource, held
from smolvlm_edge.pictures.video import Video, as_video

Source = ImageSource | Video
"""A picture or a video."""
RawMessage = Mapping[str, Any]
"""A message as a user writes it; see `read_messages`."""

ROLES = ("system", "user", "assistant")
SOURCE_KEYS = {
    "image": ("image", "path", "url"),
    "image_url": ("image_url",),
    "video": ("video", "path", "url"),
    "video_url": ("video_url",),
}
"""Types of content parts that stand for a picture or video, and the keys it may be under."""
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # two letters or more: C: is a drive


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns as the chat template takes them, and what stands in their places of pictures and videos, in order."""

    turns: tuple[Message, ...] = ()
    sources: tuple[Source, ...] = ()

    def __add__(self, other: "Conversation") -> "Conversation":
        return Conversation(self.turns + other.turns, self.sources + other.sources)


def ask(images: Source | Sequence[Source], prompt: str | Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The user's message about pictures and videos, which come before the prompt: a text or content parts.

    Raises:
        RequestError: It is empty.
    """
    sources: Sequence[Any] = images if isinstance(images, list | tuple) else [images]
    if isinstance(prompt, str):
        if not prompt.strip():
            raise RequestError("the prompt is empty: say what to do, for example 'describe'")
        prompt = [{"type": "text", "text": prompt}]
    return {"role": "user", "content": [*({"type": "image", "image": source} for source in sources), *prompt]}


def read_messages(messages: Sequence[RawMessage]) -> Conversation:
    """Take messages apart.

    Args:
        messages: Each a `role` (`system`, `user` or `assistant`) and a `content`: a text, or a list of parts in any
            order. A part is `{"type": "text", "text": ...}`, `{"type": "image", "image": SOURCE}`,
            `{"type": "video", "video": SOURCE}` (`path` or `url` instead are known too), or
            `{"type": "image_url", "image_url": {"url": SOURCE}}`. A source is what `SmolVLM.generate` takes for a
            picture; a text may be a path, a data: URL or a file: URL. Whether it is a picture or a video, the file
            says.

    Raises:
        RequestError: They are not of this form, or a picture would have to be fetched.
        ImageError: A picture or video is missing, or a data: URL is damaged.
    """
    turns, sources = [], []
    for message in messages:
        role, content = (message.get(key) if isinstance(message, Mapping) else None for key in ("role", "content"))
        if role not in ROLES:
            raise RequestError(f"a message needs a role, one of {', '.join(ROLES)}, not {role!r}")
        parts: list[ContentPart] = []
        for part, source in _parts(content):
            parts.append(part)
            if source is not None:
                sources.append(source)
        turns.append(Message(role=role, content=parts))
    return Conversation(tuple(turns), tuple(sources))


def check_last_turn(conversation: Conversation) -> None:
    """Refuse a conversation that asks nothing.

    Raises:
        RequestError: It does not end with words or pictures of the user's.
    """
    last = conversation.turns[-1] if conversation.turns else None
    if last is None or last["role"] != "user":
        raise RequestError("the last message must be the user's: it is what is answered")
    if not any(part["type"] != "text" or part["text"].strip() for part in last["content"]):  # type: ignore[index]
        raise RequestError("the last message is empty: say what to do, for example 'describe'")


def as_source(source: Any) -> Source:
    """A picture or video as given in a message: URLs become bytes and paths, all else stays as it is.

    Raises:
        RequestError: It would have to be fetched, or is a URL of another kind.
        ImageError: A data: URL is damaged.
    """
    if not isinstance(source, str) or not SCHEME.match(source):
        return held(source)
    scheme = source.partition(":")[0].lower()
    if scheme == "data":
        return _data(source)
    if scheme == "file":
        return _path(source)
    if scheme in ("http", "https"):
        raise RequestError(
            f"{source[:80]}: pictures are not fetched from the network: pass a file, bytes or a data: URL"
        )
    return source


def _parts(content: Any) -> Iterator[tuple[ContentPart, Source | None]]:
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, Sequence):
        raise RequestError(f"the content of a message must be a text or a list of parts, not {content!r:.60}")
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            yield ContentPart(type="text", text=part["text"]), None
        elif kind in SOURCE_KEYS:
            source = _source(part, kind)
            yield ContentPart(type="video" if isinstance(source, Video) else "image"), source
        else:
            raise RequestError(f"a content part must be a text, an image or a video with its source, not {part!r:.60}")


def _source(part: Mapping[str, Any], kind: str) -> Source:
    given = next((part[key] for key in SOURCE_KEYS[kind] if part.get(key) is not None), None)
    if isinstance(given, Mapping):  # OpenAI's image_url is an object
        given = given.get("url")
    if given is None:
        raise RequestError(f"a part of type {kind} needs its source under {SOURCE_KEYS[kind][0]!r}")
    source = as_source(given)
    if kind.startswith("video"):
        return source if isinstance(source, Video) else Video(source)  # type: ignore[arg-type]  # it says so itself
    return as_video(source) or source


def _data(url: str) -> bytes:
    head, comma, body = url.partition(",")
    try:
        data = unquote_to_bytes(body)
        return base64.b64decode(data, validate=True) if head.lower().endswith(";base64") and comma else data
    except binascii.Error as error:
        raise ImageError(f"the data: URL {url[:40]}... is damaged: {error}") from None


def _path(url: str) -> Path:
    from urllib.request import url2pathname  # noqa: PLC0415 - it brings an HTTP client that is not wanted here

    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise RequestError(f"{url[:80]} is on another machine: pass a file of this one")
    return Path(url2pathname(parts.path))
