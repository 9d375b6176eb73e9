"""Protocol buffers' wire format, as far as ONNX uses it (protobuf.dev/programming-guides/encoding)."""

from collections.abc import Iterator

from smolvlm_edge.graphs.checks.refusal import Refusal

Field = tuple[int, int | memoryview]
"""Its number, and its value: an integer, or the bytes of a text, a message, packed numbers or a float."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FIXED = {FIXED64: 8, FIXED32: 4}
LONGEST_VARINT = 10


def fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message, in their order."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, place = _varint(message, place)
            yield number, value
            continue
        if kind == BYTES:
            size, place = _varint(message, place)
        elif kind in FIXED:
            size = FIXED[kind]
        else:
            raise Refusal(f"it holds a field of type {kind}")
        if size > len(message) - place:
            raise Refusal("it ends in the middle of a field")
        yield number, message[place : place + size]
        place += size


def integers(value: int | memoryview) -> list[int]:
    """Signed numbers, one or packed."""
    if isinstance(value, int):
        return [_signed(value)]
    found, place = [], 0
    while place < len(value):
        number, place = _varint(value, place)
        found.append(_signed(number))
    return found


def text(value: int | memoryview) -> str:
    """A text field."""
    return nested(value).tobytes().decode("utf-8", "replace")


def nested(value: int | memoryview) -> memoryview:
    """The bytes of a field that must not be a number."""
    if isinstance(value, int):
        raise Refusal("it holds a number in place of a message")
    return value


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for count in range(LONGEST_VARINT):
        if place + count >= len(message):
            raise Refusal("it ends in the middle of a number")
        byte = message[place + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value & (2**64 - 1), place + count + 1
    raise Refusal("it holds a number without end")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
