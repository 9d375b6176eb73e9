"""What stands for a picture or video in a request -> its bytes. No path of a client's is ever opened as it stands."""

import asyncio
import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from smolvlm_edge.conversation.messages import RawMessage
from smolvlm_edge.conversation.sources import as_source
from smolvlm_edge.errors import ImageError
from smolvlm_edge.pictures.sources import MAX_FILE_BYTES, known_formats
from smolvlm_edge.pictures.video import Video
from smolvlm_edge.server.fetching import fetch
from smolvlm_edge.server.problems import HttpError
from smolvlm_edge.server.protocol.parts import (
    FilePart,
    FileReference,
    ImagePart,
    ImageUrlPart,
    InputFilePart,
    InputImagePart,
    Message,
    Part,
    Reference,
    RefusalPart,
    VideoUrlPart,
)
from smolvlm_edge.server.settings import Settings
from smolvlm_edge.server.uploads import Uploads

MEDIA = ImageUrlPart | VideoUrlPart | ImagePart | FilePart | InputImagePart | InputFilePart


class Sources:
    """Where the pictures of requests come from."""

    def __init__(self, settings: Settings, uploads: Uploads) -> None:
        self._settings, self._limits, self._uploads = settings, settings.limits, uploads
        self._media_dir = settings.media_dir.resolve() if settings.media_dir else None

    async def messages(self, messages: Sequence[Message]) -> list[RawMessage]:
        """A conversation as `SmolVLM.stream` takes it, every picture as bytes.

        Raises:
            HttpError: There is too much of it, or a picture is where this server does not look.
            ImageError: A picture is damaged, missing or too large.
        """
        self._check_amount(messages)
        room = _Room(self._limits.body_bytes)
        return [
            {"role": message.role, "content": await self._content(message.content, f"messages[{index}].content", room)}
            for index, message in enumerate(messages)
        ]

    async def pictures(self, urls: Sequence[str]) -> list[bytes]:
        """Pictures by their URLs; raises what `messages` raises."""
        self._check_pictures(len(urls))
        room = _Room(self._limits.body_bytes)
        return [await self._by_url(url, f"images[{index}]", room) for index, url in enumerate(urls)]

    def _check_amount(self, messages: Sequence[Message]) -> None:
        texts = pictures = 0
        for message in messages:
            if isinstance(message.content, str):
                texts += len(message.content)
                continue
            for part in message.content or ():
                if isinstance(part, MEDIA):
                    pictures += 1
                else:
                    texts += len(_text(part))
        self._check_pictures(pictures)
        if texts > self._limits.text_chars:
            raise HttpError(
                f"the texts have {texts:,} characters, and a request may have {self._limits.text_chars:,}",
                param="messages",
                code="context_length_exceeded",
            )

    def _check_pictures(self, count: int) -> None:
        if count > self._limits.pictures:
            raise HttpError(f"there are {count} pictures, and a request may have {self._limits.pictures}")

    async def _content(
        self, content: str | list[Part] | None, param: str, room: "_Room"
    ) -> str | list[dict[str, Any]] | None:
        if content is None or isinstance(content, str):
            return content
        return [await self._part(part, f"{param}[{index}]", room) for index, part in enumerate(content)]

    async def _part(self, part: Part, param: str, room: "_Room") -> dict[str, Any]:
        if not isinstance(part, MEDIA):
            return {"type": "text", "text": _text(part)}
        data = await self._data(part, param, room)
        if isinstance(part, VideoUrlPart):
            video = Video(data, frames=part.frames, start=part.start, end=part.end)
            return {"type": "video", "video": video}
        detail = getattr(part, "detail", None)
        if isinstance(part, ImageUrlPart) and isinstance(part.image_url, Reference):
            detail = part.image_url.detail or detail
        detail = "high" if detail == "original" else detail or self._settings.detail
        return {"type": "image", "image": data, "detail": detail}

    async def _data(self, part: MEDIA, param: str, room: "_Room") -> bytes:
        match part:
            case (
                ImageUrlPart(image_url=Reference(url=url) | str(url))
                | VideoUrlPart(video_url=Reference(url=url) | str(url))
            ):
                return await self._by_url(url, param, room)
            case ImagePart(base64=str(text)):
                return await self._by_url(f"data:image/unknown;base64,{text}", param, room)
            case ImagePart(url=str(url)) | InputImagePart(image_url=str(url)) | InputFilePart(file_url=str(url)):
                return await self._by_url(url, param, room)
            case FilePart(file=FileReference(file_id=str(id_))) | InputImagePart(file_id=str(id_)):
                return self._uploads.get(id_, param).data
            case InputFilePart(file_id=str(id_)):
                return self._uploads.get(id_, param).data
            case FilePart(file=FileReference(file_data=str(url))) | InputFilePart(file_data=str(url)):
                return await self._by_url(url, param, room)
        raise HttpError("a picture needs its source: a data: URL, or the id of an uploaded file", param=param)

    async def _by_url(self, url: str, param: str, room: "_Room") -> bytes:
        scheme = url[:10].partition(":")[0].lower()
        if scheme == "data":
            data = await asyncio.to_thread(self._inline, url)
        elif scheme == "file":
            data = await asyncio.to_thread(self._file, url, param)
        elif scheme in ("http", "https"):
            if not self._settings.fetch_pictures:
                raise HttpError(
                    "this server opens no connections: send the picture as a data: URL, "
                    "or start the server with --fetch-pictures",
                    param=param,
                )
            data = await fetch(url, param, room.left)
        elif url.startswith("file-"):
            data = self._uploads.get(url, param).data
        else:
            raise HttpError(f"{url[:40]!r} is no URL of a picture: send it as a data: URL", param=param)
        room.take(len(data))
        await asyncio.to_thread(self._check_pixels, data)
        return data

    def _inline(self, url: str) -> bytes:
        data = as_source(url)
        assert isinstance(data, bytes)
        return data

    def _file(self, url: str, param: str) -> bytes:
        """A file below the media folder; links that lead out of it are outside."""
        if self._media_dir is None:
            raise HttpError("this server opens no files: send the picture as a data: URL", param=param)
        outside = HttpError("there is no such file below the server's media folder", 404, param=param)
        try:
            path = Path(os.fspath(as_source(url))).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # missing, a NUL within, a circle of links
            raise outside from None
        if not path.is_relative_to(self._media_dir) or not path.is_file():
            raise outside
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ImageError(f"the file is larger than the {MAX_FILE_BYTES >> 20} MB that a picture may take")
        return path.read_bytes()

    def _check_pixels(self, data: bytes) -> None:
        """Refuse a picture by its head; what has none is for the one who decodes it to refuse."""
        try:
            with Image.open(BytesIO(data), formats=known_formats()) as image:
                width, height = image.size
        except Image.DecompressionBombError:
            width = height = 1 << 20
        except Exception:  # noqa: BLE001 - a video, or no picture
            return
        if width * height > self._limits.pixels:
            raise ImageError(f"a picture has more than {self._limits.pixels:,} pixels: make it smaller first")


class _Room:
    """How much the pictures of one request may take, wherever they come from: as much as a body."""

    def __init__(self, most: int) -> None:
        self._most = self.left = most

    def take(self, count: int) -> None:
        """Count a picture.

        Raises:
            HttpError: It is one too many.
        """
        self.left -= count
        if self.left < 0:
            raise HttpError(f"the pictures of a request may have {self._most >> 20} MB together", 413)


def _text(part: Part) -> str:
    return part.refusal if isinstance(part, RefusalPart) else part.text  # type: ignore[union-attr]
