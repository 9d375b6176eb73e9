"""Where a picture is, as a message says it: URLs become bytes and paths."""

import base64
import binascii
import re
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from smolvlm_edge.errors import ImageError, RequestError
from smolvlm_edge.pictures.sources import MAX_FILE_BYTES, held

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # two letters or more: C: is a drive
BASE64 = re.compile(r"; *base64$", re.IGNORECASE)
WHITE_SPACE = re.compile(rb"[ \t\n\f\r]+")


def as_source(source: Any) -> Any:
    """A picture or video as given in a message: URLs become bytes and paths, all else stays as it is.

    Raises:
        RequestError: It would have to be fetched, or is a URL of another kind.
        ImageError: A data: URL is damaged or too long.
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


def check_no_path(source: Any) -> None:
    """Refuse what names a file.

    Raises:
        RequestError: It is a path, a file: URL, or a list with one in it.
    """
    for each in source if isinstance(source, list | tuple) else [source]:
        if isinstance(each, PathLike) or (isinstance(each, str) and each[:5].lower() != "data:"):
            raise RequestError("pictures are not read from paths or other URLs here: pass a data: URL")


def _data(url: str) -> bytes:
    """What a data: URL holds; base64 as browsers read it, with white space and without padding (WHATWG, Infra)."""
    head, comma, body = url.partition(",")
    if len(body) > 2 * MAX_FILE_BYTES:
        raise ImageError(f"the data: URL holds more than the {MAX_FILE_BYTES >> 20} MB that a picture may take")
    try:
        data = unquote_to_bytes(body)
        if not comma or not BASE64.search(head):
            return data
        data = WHITE_SPACE.sub(b"", data)
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ImageError(f"the data: URL {url[:40]}... is damaged: {error}") from None


def _path(url: str) -> Path:
    from urllib.request import url2pathname  # noqa: PLC0415 - it brings an HTTP client that is not wanted here

    try:
        parts = urlsplit(url)
        path = Path(url2pathname(parts.path))
    except (ValueError, OSError) as error:
        raise RequestError(f"{url[:80]} is no file: URL: {error}") from None
    if parts.netloc not in ("", "localhost"):
        raise RequestError(f"{url[:80]} is on another machine: pass a file of this one")
    return path
