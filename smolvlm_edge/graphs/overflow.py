"""Whether products of bytes overflow here, so that an engine has to take slower ones."""

import platform
import sys
from collections.abc import Collection
from functools import cache

import numpy as np

from smolvlm_edge.machine import processor_flags

PRODUCT = (
    b'\x08\n:T\n.\n\x01a\n\x01b\x12\x01y\x1a\x14node_MatMulInteger_0"\rMatMulInteger\x12\x01g'
    b"Z\t\n\x01a\x12\x04\n\x02\x08\x02Z\t\n\x01b\x12\x04\n\x02\x08\x03b\t\n\x01y\x12\x04\n\x02\x08\x06"
    b"B\x04\n\x00\x10\x15"
)
"""An ONNX graph, as onnx_ir writes it: y int32 = MatMulInteger(a uint8, b int8)."""


@cache
def byte_products_overflow() -> bool:
    """Whether this processor adds products of unsigned and signed bytes in 16 bits, which overflow.

    x86 without VNNI does, and both engines use that instruction unless they are told not to: ONNX Runtime's vision
    encoder in int8 was off by 20 % (seen on an emulated Haswell; 1.7 % when it is precise, as elsewhere), OpenVINO's
    in int8-static by 20 % (seen on a Zen 2; 2.2 % without it). With VNNI being precise only costs time. Windows does
    not tell of VNNI, so there the largest products are computed.
    """
    overflows = overflow_told(platform.machine(), processor_flags(), sys.platform)
    return largest_products_overflow() if overflows is None else overflows


def overflow_told(machine: str, flags: Collection[str], system: str) -> bool | None:
    """What a system says of it; None if it says nothing."""
    if machine not in {"x86_64", "AMD64"} or {"avx512_vnni", "avx_vnni"} & set(flags):
        return False
    return None if system == "win32" or not flags else True


def largest_products_overflow() -> bool:
    """Whether ONNX Runtime's sum of the largest products of bytes is wrong."""
    from smolvlm_edge.graphs.onnxruntime import run_bytes  # noqa: PLC0415 - the other engine may not need this one

    a, b = np.full((16, 64), 255, np.uint8), np.full((64, 16), 127, np.int8)
    return not np.array_equal(run_bytes(PRODUCT, {"a": a, "b": b}), a.astype(np.int32) @ b.astype(np.int32))
