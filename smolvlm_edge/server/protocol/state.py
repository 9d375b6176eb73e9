"""GET /health, /v1/models and the files of /v1/files."""

from typing import Literal

import msgspec


class Health(msgspec.Struct):
    """The server answers."""

    status: Literal["ok"] = "ok"


class Model(msgspec.Struct, kw_only=True):
    """A model of this server."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "smol-edge"
    capabilities: tuple[str, ...] = ("completion", "multimodal")
    loaded: bool = False


class Models(msgspec.Struct, kw_only=True):
    """All of them, the default first."""

    object: Literal["list"] = "list"
    data: list[Model]


class FileObject(msgspec.Struct, kw_only=True):
    """A file that was uploaded."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str = "vision"
    status: Literal["processed"] = "processed"


class Files(msgspec.Struct, kw_only=True):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    has_more: bool = False


class Deleted(msgspec.Struct, kw_only=True):
    """A file is forgotten."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True
