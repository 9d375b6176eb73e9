"""Sound bytes -> damaged bytes, the same for the same random numbers."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

VALUES: list[Any] = [None, True, False, 0, -1, 1, 2, 1 << 20, 1 << 31, 1 << 63, 10**400, 0.5, -0.0, 1e308, float("nan")]
VALUES += [float("inf"), "", "x", "\0", "\ud800", "../../x", "a" * 5000, "file://[x", "<image>", [], {}, [[]], [None]]
VALUES += [{"a": 1}, [1, 2, 3], [0.5] * 3, ["x"], "{{ 7 ** 9999999 }}", "(" * 500]
PIECES = [b"\0", b"\xff", b"\xff\xfe", b'"', b"{", b"}", b"[", b"]", b",", b"\n", b"\\", b"0", b"-1", b"9" * 400, b"%"]
PIECES += [b"\x1b[2J", "\u202e".encode(), b"{{", b"}}", b"{% for i in range(99999) %}", b"{% break %}", b"*" * 9]


def damage(random: Random, seeds: list[bytes]) -> bytes:
    """One of the seeds, with one to four things wrong in it."""
    data = random.choice(seeds)
    for _ in range(random.choice((0, 1, 1, 1, 2, 4))):
        data = random.choice(WAYS)(random, data, seeds)
    return data


def _json(random: Random, data: bytes, seeds: list[bytes]) -> bytes:
    """Another value somewhere in it, if it is JSON."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return _replace(random, data, seeds)
    return json.dumps(_other(random, value)).encode()


def _other(random: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and random.random() < 0.9:
        key, changed = random.choice(list(value)), dict(value)
        match random.randrange(12):
            case 0:
                del changed[key]
            case 1:
                changed[random.choice(["", "x", "\ud800", key * 2])] = changed[key]
            case _:
                changed[key] = _other(random, value[key])
        return changed
    if isinstance(value, list) and value and random.random() < 0.8:
        index, changed = random.randrange(len(value)), list(value)
        if random.random() < 0.1:
            return changed * random.choice((0, 2, 50))
        changed[index] = _other(random, value[index])
        return changed
    return random.choice(VALUES)


def _replace(random: Random, data: bytes, _: list[bytes]) -> bytes:
    start = random.randrange(len(data) + 1)
    end = min(len(data), start + random.choice((0, 1, 2, 8, 64)))
    piece = random.choice(PIECES) if random.random() < 0.6 else random.randbytes(random.choice((1, 2, 4)))
    return data[:start] + piece + data[end:]


def _cut(random: Random, data: bytes, _: list[bytes]) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _flip(random: Random, data: bytes, _: list[bytes]) -> bytes:
    damaged = bytearray(data)
    for _ in range(random.choice((1, 1, 4))):
        if damaged:
            damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
    return bytes(damaged)


def _repeat(random: Random, data: bytes, _: list[bytes]) -> bytes:
    start, end = sorted(random.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[start:end] * random.choice((1, 3, 30)) + data[end:] if end - start < 10_000 else data


def _splice(random: Random, data: bytes, seeds: list[bytes]) -> bytes:
    other = random.choice(seeds)
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


WAYS: list[Callable[[Random, bytes, list[bytes]], bytes]] = [
    _json,
    _json,
    _json,
    _replace,
    _cut,
    _flip,
    _repeat,
    _splice,
]
