"""Integer codes -> the byte layouts of ONNX Runtime's operators and of OpenVINO's constants.

Layouts: ONNX Runtime, docs/ContribOperators.md, com.microsoft.MatMulNBits and GatherBlockQuantized; OpenVINO,
element types u4, i4, u8 and i8.
"""

import numpy as np
import numpy.typing as npt

from smolvlm_edge.quantize.rounding import BlockQuantized

PackedBlocks = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.uint8] | None]
"""Codes, scales and zero points; no zero points means the middle of the range everywhere."""


def pack_codes(codes: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Pack codes below 2**bits along the last axis, the earlier code in the lower bits; odd ends are filled with 0."""
    per_byte = 8 // bits
    if per_byte == 1:
        return codes
    short = -codes.shape[-1] % per_byte
    padded = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, short)])
    grouped = padded.reshape(*padded.shape[:-1], -1, per_byte)
    packed = np.zeros(grouped.shape[:-1], np.uint8)
    for i in range(per_byte):
        packed |= grouped[..., i] << np.uint8(bits * i)
    return packed


def pack_matmul_nbits(weight: BlockQuantized) -> PackedBlocks:
    """B [rows, blocks, bytes], scales [rows, blocks] and zero points [rows, bytes] or None for MatMulNBits."""
    zero_points = None if weight.zero_points is None else pack_codes(weight.zero_points, weight.bits)
    return pack_codes(weight.codes, weight.bits), weight.scales, zero_points


def pack_gather_block_quantized(weight: BlockQuantized) -> PackedBlocks:
    """Data [rows, bytes], scales [rows, blocks] and zero points or None for GatherBlockQuantized (axis 1 quantised)."""
    codes, scales, zero_points = pack_matmul_nbits(weight)
    used = -(-weight.columns * weight.bits // 8)  # the operator's table has no filling at the end of a row
    return np.ascontiguousarray(codes.reshape(len(codes), -1)[:, :used]), scales, zero_points


def pack_openvino(weight: BlockQuantized) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
    """Codes [bytes] and zero points [bytes] of unsigned constants, or codes of a signed one and no zero points.

    The numbers of a constant follow each other without gaps, whatever its shape.
    """
    if weight.zero_points is None:
        middle = np.uint8(2 ** (weight.bits - 1))
        # with the top bit flipped, a code whose zero is in the middle of the range is a number in two's complement
        return pack_codes((weight.codes ^ middle).reshape(-1), weight.bits), None
    return pack_codes(weight.codes.reshape(-1), weight.bits), pack_codes(weight.zero_points.reshape(-1), weight.bits)
