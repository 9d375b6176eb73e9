"""What the one who starts a server decides."""

from dataclasses import dataclass, field
from pathlib import Path

from smolvlm_edge.errors import RequestError
from smolvlm_edge.pictures.images import Detail

MB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one request, and all of them together, may take."""

    body_bytes: int = 64 * MB
    """Of one request, pictures as data: URLs included."""
    bodies_bytes: int = 512 * MB
    """Of all requests that are under way; above, the next one is told to come again."""
    uploads_bytes: int = 256 * MB
    """Of all files that were uploaded; above, the oldest ones go."""
    pictures: int = 64
    """In one request, videos included."""
    pixels: int = 50_000_000
    """Of one picture."""
    text_chars: int = 500_000
    """Of all texts of one request; the model's context holds fewer."""
    waiting: int = 32
    """Requests that wait for their turn."""
    answer_seconds: float = 600.0
    """From the request to the end of its answer."""
    body_seconds: float = 60.0
    """For a request to arrive."""
    connections: int = 256
    drain_seconds: int = 30
    """For answers under way, once the server is told to stop."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Who may ask, and for what."""

    api_keys: tuple[str, ...] = ()
    """One of them must come with a request; none, and everybody who reaches the server may ask."""
    origins: tuple[str, ...] = ()
    """Origins of pages elsewhere whose scripts may ask; `null` is a page opened from disk, `*` any."""
    hosts: tuple[str, ...] = ()
    """Names of this server, besides localhost, its own and addresses."""
    fetch_pictures: bool = False
    """Whether http: and https: URLs of pictures are fetched."""
    media_dir: Path | None = None
    """The folder below which file: URLs may point."""
    site: Path | None = None
    """A folder of plain files that are shown to everybody."""
    detail: Detail = "high"
    """Tiles for pictures of which a request does not say."""
    limits: Limits = field(default_factory=Limits)


def read_api_keys(file: Path) -> tuple[str, ...]:
    """The keys in a file, one a line; empty lines and those that begin with # are left out.

    Raises:
        RequestError: It cannot be read, or holds none.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise RequestError.of_file(file, error) from error
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise RequestError(f"{file} holds no key: write one on a line of its own")
    if not all(key.isascii() for key in keys):
        raise RequestError(f"{file}: a key has other characters than ASCII, which no header can carry")
    return keys
