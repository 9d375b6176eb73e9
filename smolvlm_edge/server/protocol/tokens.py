"""Tokens: of a text, and how many a conversation with its pictures takes."""

from collections.abc import Sequence

import msgspec


class TokenizeRequest(msgspec.Struct):
    """A text, as llama-server's /tokenize takes it."""

    content: str
    add_special: bool = False
    with_pieces: bool = False
    model: str | None = None


class PieceOfText(msgspec.Struct):
    """A token and what it stands for: a text, or bytes where that is none."""

    id: int
    piece: str | list[int]


class Tokens(msgspec.Struct):
    """Token ids, or tokens with their texts."""

    tokens: Sequence[int | PieceOfText]


class DetokenizeRequest(msgspec.Struct):
    """Token ids, as llama-server's /detokenize takes them."""

    tokens: list[int]
    model: str | None = None


class Text(msgspec.Struct):
    """What they stand for."""

    content: str


class Grid(msgspec.Struct):
    """How a picture is cut; the whole of it, as one tile, comes last."""

    rows: int
    """0 for a picture that is not cut."""
    columns: int
    tiles: int


class TokenCount(msgspec.Struct, kw_only=True):
    """What a conversation would take."""

    object: str = "response.input_tokens"
    input_tokens: int
    image_tokens: int
    context: int
    """So many the model holds, the answer included."""
    pictures: list[Grid]
    """Of every picture, and every frame of a video."""
