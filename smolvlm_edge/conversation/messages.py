"""Messages with content parts, as OpenAI and transformers have them -> turns for the chat template, and pictures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from smolvlm_edge.conversation.sources import as_source, check_no_path
from smolvlm_edge.conversation.template import ContentPart, Message
from smolvlm_edge.errors import RequestError
from smolvlm_edge.pictures.images import Detail
from smolvlm_edge.pictures.sources import ImageSource
from smolvlm_edge.pictures.video import Video, as_video

Source = ImageSource | Video
"""A picture or a video."""
RawMessage = Mapping[str, Any]
"""A message as a user writes it; see `read_messages`."""

ROLES = {"system": "system", "developer": "system", "user": "user", "tool": "user", "assistant": "assistant"}
"""Roles of messages, and those that the templates of this family know: OpenAI's newer name of the system, and what a
tool gave back, which is told as the user's words."""
TEXTS = {"text": "text", "refusal": "refusal"}
"""Types of content parts that are text, and the key that it is under."""
SOURCE_KEYS = {
    "image": ("image", "path", "url"),
    "image_url": ("image_url",),
    "video": ("video", "path", "url"),
    "video_url": ("video_url",),
}
"""Types of content parts that stand for a picture or video, and the keys it may be under."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What stands in a place for a picture or video."""

    source: Source
    detail: Detail | None = None
    """Tiles to spend on it; None leaves it to the options of the answer."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns as the chat template takes them, and what stands in their places of pictures and videos, in order."""

    turns: tuple[Message, ...] = ()
    sources: tuple[Shown, ...] = ()

    def __add__(self, other: "Conversation") -> "Conversation":
        return Conversation(self.turns + other.turns, self.sources + other.sources)

    @property
    def is_continued(self) -> bool:
        """Whether it ends with the beginning of the answer."""
        return bool(self.turns) and self.turns[-1]["role"] == "assistant"


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
    if not isinstance(prompt, list | tuple):
        raise RequestError(f"the prompt must be a text or a list of parts, not {_short(prompt)}")
    return {"role": "user", "content": [*({"type": "image", "image": source} for source in sources), *prompt]}


def read_messages(messages: Sequence[RawMessage], *, allow_paths: bool = True) -> Conversation:
    """Take messages apart.

    Args:
        messages: Each a `role` (`system` or `developer`, `user` or `tool`, `assistant`) and a `content`: a text, or a
            list of parts in any order; the assistant's may be None. A part is `{"type": "text", "text": ...}`,
            `{"type": "image", "image": SOURCE}`, `{"type": "video", "video": SOURCE}` (`path` or `url` instead are
            known too), or `{"type": "image_url", "image_url": {"url": SOURCE, "detail": "low"}}`, whose `detail` counts
            for this picture. A source is what `SmolVLM.generate` takes for a picture; a text may be a path, a data: URL
            or a file: URL. Whether it is a picture or a video, the file says. Other keys, such as `name`, are left
            alone.
        allow_paths: Whether a source may be a path or a file: URL. Strangers' messages should not name files: whether
            one exists is told by the answer.

    Raises:
        RequestError: They are not of this form, a picture would have to be fetched, or is named by a path where that
            is not allowed.
        ImageError: A picture or video is missing, or a data: URL is damaged.
    """
    if not _is_list(messages):
        raise RequestError(f"messages must be a list of messages, not {_short(messages)}")
    turns, sources = [], []
    for message in messages:
        role, content = (message.get(key) if isinstance(message, Mapping) else None for key in ("role", "content"))
        if not isinstance(role, str) or role not in ROLES:
            raise RequestError(f"a message needs a role, one of {', '.join(ROLES)}, not {_short(role)}")
        parts: list[ContentPart] = []
        for part, shown in _parts("" if content is None and role == "assistant" else content, allow_paths):
            parts.append(part)
            if shown is not None:
                sources.append(shown)
        turns.append(Message(role=ROLES[role], content=parts or [ContentPart(type="text", text="")]))
    return Conversation(tuple(turns), tuple(sources))


def check_last_turn(conversation: Conversation) -> None:
    """Refuse a conversation that asks nothing.

    Raises:
        RequestError: It does not end with words or pictures of the user's, or with the beginning of an answer to them.
    """
    last = conversation.turns[-1] if conversation.turns else None
    if last is None or last["role"] == "system" or all(turn["role"] != "user" for turn in conversation.turns):
        raise RequestError(
            "the last message must be the user's, which is what is answered, or the beginning of an answer to it"
        )
    end: ContentPart = last["content"][-1]  # type: ignore[assignment] # they are parts
    if conversation.is_continued and not end.get("text"):
        raise RequestError("the last message, an answer to go on from, must end with a text: or leave it out")
    if not any(part["type"] != "text" or part["text"].strip() for part in last["content"]):  # type: ignore[index]
        raise RequestError("the last message is empty: say what to do, for example 'describe'")


def _parts(content: Any, allow_paths: bool) -> Iterator[tuple[ContentPart, Shown | None]]:
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, Sequence):
        raise RequestError(f"the content of a message must be a text or a list of parts, not {_short(content)}")
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not isinstance(kind, str):
            kind = None
        if kind in TEXTS and isinstance(text := part.get(TEXTS[kind]), str):
            yield ContentPart(type="text", text=text), None
        elif kind in SOURCE_KEYS:
            shown = _shown(part, kind, allow_paths)
            yield ContentPart(type="video" if isinstance(shown.source, Video) else "image"), shown
        else:
            raise RequestError(
                f"a content part must be a text, an image or a video with its source, not {_short(part)}"
            )


def _shown(part: Mapping[str, Any], kind: str, allow_paths: bool) -> Shown:
    given: Any = next((part[key] for key in SOURCE_KEYS[kind] if part.get(key) is not None), None)
    detail = part.get("detail")
    if isinstance(given, Mapping):  # OpenAI's image_url is an object
        given, detail = given.get("url"), given.get("detail", detail)
    if detail is not None and detail not in get_args(Detail):
        raise RequestError(f"detail must be one of {', '.join(get_args(Detail))}, not {_short(detail)}")
    is_video = kind.startswith("video")
    if given is None or isinstance(given, bool | int | float | Mapping) or (isinstance(given, list) and not is_video):
        raise RequestError(f"a part of type {kind} needs its source under {SOURCE_KEYS[kind][0]!r}")
    if not allow_paths:
        check_no_path(given)
    source: Any = [as_source(frame) for frame in given] if isinstance(given, list | tuple) else as_source(given)
    video = Video(source) if is_video and not isinstance(source, Video) else as_video(source)
    return Shown(video or source, detail)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _short(value: Any) -> str:
    """What was given instead, as far as it fits into a line."""
    text = repr(value if isinstance(value, str | int | float | bool | None) else type(value).__name__)
    if isinstance(value, Mapping) and isinstance(kind := value.get("type"), str):
        text = f"one of type {kind!r}"
    return f"{text[:60]}..." if len(text) > 63 else text
