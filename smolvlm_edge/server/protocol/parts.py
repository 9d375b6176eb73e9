"""Pieces of a message: texts, and pictures and videos by reference, in the words of the dialects."""

from typing import Literal

import msgspec

PartDetail = Literal["low", "auto", "high", "original"]


class TextPart(msgspec.Struct, tag="text"):
    """A text."""

    text: str


class RefusalPart(msgspec.Struct, tag="refusal"):
    """What an assistant said instead of an answer."""

    refusal: str


class Reference(msgspec.Struct):
    """Where a picture or video is: a data: URL; an http(s): or file: URL where the server allows it."""

    url: str
    detail: PartDetail | None = None
    """Tiles to spend: `low` one, `auto` what the pixels fill, `high` and `original` by the model's rules."""


class ImageUrlPart(msgspec.Struct, tag="image_url"):
    """A picture."""

    image_url: Reference | str
    detail: PartDetail | None = None


class VideoUrlPart(msgspec.Struct, tag="video_url"):
    """Extension: a video."""

    video_url: Reference | str
    frames: int | None = None
    """How many frames to take."""
    start: float | None = None
    """Second to begin at."""
    end: float | None = None
    """Second to end before."""


class ImagePart(msgspec.Struct, tag="image"):
    """A picture as transformers (`url`) and LangChain (`base64`) write it."""

    url: str | None = None
    base64: str | None = None
    detail: PartDetail | None = None


class FileReference(msgspec.Struct):
    """A file of POST /v1/files, or its data: URL."""

    file_id: str | None = None
    file_data: str | None = None


class FilePart(msgspec.Struct, tag="file"):
    """A picture or video that was uploaded."""

    file: FileReference
    detail: PartDetail | None = None


class InputTextPart(msgspec.Struct, tag="input_text"):
    """A text, as /v1/responses has it."""

    text: str


class OutputTextPart(msgspec.Struct, tag="output_text"):
    """A text that the assistant wrote, as /v1/responses has it."""

    text: str


class InputImagePart(msgspec.Struct, tag="input_image"):
    """A picture, as /v1/responses has it."""

    image_url: str | None = None
    file_id: str | None = None
    detail: PartDetail | None = None


class InputFilePart(msgspec.Struct, tag="input_file"):
    """A picture or video that was uploaded, as /v1/responses has it."""

    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None


Part = (
    TextPart
    | RefusalPart
    | ImageUrlPart
    | VideoUrlPart
    | ImagePart
    | FilePart
    | InputTextPart
    | OutputTextPart
    | InputImagePart
    | InputFilePart
)
"""Every dialect's, in every dialect."""


class Message(msgspec.Struct):
    """A turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = None
