"""Both targets hold the same weights, whatever the recipe: each is read as its own engine reads it."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from rig import Rig, read_golden

from smolvlm_edge import ExportError
from smolvlm_edge.bundle import GRAPH_NAMES
from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.graphs.openvino import ov
from smolvlm_edge.quantize import Format, Recipe

BOTH = ("onnx", "openvino")
HIGHEST_LOGIT_ERROR = 0.1  # either engine rounds activations in a way of its own


def onnx_matrices(folder: Path) -> dict[str, np.ndarray]:
    """Every quantised matrix [rows, columns] of the ONNX graphs as float32, by ONNX Runtime's documentation."""
    matrices: dict[str, np.ndarray] = {}
    for graph in GRAPH_NAMES:
        for node in ir.load(folder / f"{graph}.onnx").graph:
            stored = (_behind_casts(value) for value in node.inputs if value is not None)
            weights = {
                name.rpartition(".")[2]: value.const_value.numpy()
                for value in stored
                if value.const_value and (name := value.name)
            }
            if "codes" not in weights:
                continue
            name = next(value.name for value in node.inputs if value and value.name.endswith(".codes"))
            if node.op_type in {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"}:
                matrix = (weights["codes"] * weights["scales"]).T
            else:
                bits = node.attributes["bits"].as_int()
                block_size = node.attributes["block_size"].as_int()
                matrix = dequantised(weights["codes"], weights["scales"], weights.get("zero_points"), bits, block_size)
            matrices[name.removesuffix(".codes")] = matrix
    return matrices


def _behind_casts(value: ir.Value) -> ir.Value:
    """Scales are stored in float16 and cast when a session is opened."""
    node = value.producer()
    return node.inputs[0] if node is not None and node.op_type == "Cast" else value


def dequantised(
    codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray | None, bits: int, block_size: int
) -> np.ndarray:
    """Codes [rows, bytes of all blocks] -> float32 [rows, columns]."""
    values = unpacked(codes.reshape(len(codes), -1), bits).astype(np.float32)
    columns = values.shape[1]
    middle = np.float32(2 ** (bits - 1))
    if zeros is not None:
        middle = np.repeat(unpacked(zeros, bits)[:, : scales.shape[1]], block_size, axis=1)[:, :columns].astype(
            np.float32
        )
    return (values - middle) * np.repeat(scales.astype(np.float32), block_size, axis=1)[:, :columns]


def unpacked(codes: np.ndarray, bits: int) -> np.ndarray:
    """Two numbers of 4 bits a byte, the lower bits first."""
    return codes if bits == 8 else np.stack([codes & 15, codes >> 4], axis=-1).reshape(len(codes), -1)


def openvino_matrices(folder: Path) -> dict[str, np.ndarray]:
    """Every matrix that OpenVINO decompresses, as OpenVINO itself computes it from the files."""
    matrices: dict[str, np.ndarray] = {}
    for graph in GRAPH_NAMES:
        for node in ov.Core().read_model(folder / f"{graph}.xml").get_ordered_ops():
            port = {"MatMul": 1, "Gather": 0}.get(node.get_type_name())
            if port is None:
                continue
            value = below = node.input_value(port)
            while below.get_node().get_type_name() != "Constant" and below.get_node().input_values():
                below = below.get_node().input_value(0)
            name = below.get_node().get_friendly_name()
            if name.endswith(".codes"):
                result = ov.Tensor(ov.Type.f32, value.get_shape())
                assert ov.Model([value], []).evaluate([result], [])
                matrices[name.removesuffix(".codes")] = result.data
    return matrices


@pytest.mark.parametrize("name", ["tiny-idefics3", "tiny-smolvlm"])
@pytest.mark.parametrize("quant", ["int8", "int4"])
def test_both_targets_hold_the_same_weights(tiny_bundle, name: str, quant: str) -> None:
    """Tensor by tensor and bit by bit."""
    folder = tiny_bundle(name, quant, *BOTH)
    expected, found = onnx_matrices(folder), openvino_matrices(folder)
    assert found.keys() == expected.keys()
    assert len(found) > 20
    for key, matrix in expected.items():
        shared = min(matrix.shape[1], found[key].shape[1])  # either may fill the last block of a row up, or not
        np.testing.assert_array_equal(found[key][:, :shared], matrix[:, :shared], err_msg=key)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_every_format_of_blocks(tiny_checkpoints: dict[str, Path], tmp_path: Path, bits: int, symmetric: bool) -> None:
    """Formats that a recipe may name besides those that `--quant` offers; few rows fill whole blocks of 64."""
    recipe = Recipe("test", (("*", Format("blocks", bits=bits, block_size=64, symmetric=symmetric)),))
    folder = export_checkpoint(tiny_checkpoints["tiny-smolvlm"], tmp_path / "out", recipe, targets=BOTH)
    expected, found = onnx_matrices(folder), openvino_matrices(folder)
    assert found.keys() == expected.keys()
    for key, matrix in expected.items():
        shared = min(matrix.shape[1], found[key].shape[1])
        np.testing.assert_array_equal(found[key][:, :shared], matrix[:, :shared], err_msg=key)
    logits = []
    for engine in ("onnxruntime", "openvino"):
        parts = Rig(folder, engine)
        logits.append(parts.start(read_golden(Path(__file__).parent / "goldens" / "tiny-smolvlm.npz", "text")))
        parts.close()
    assert np.linalg.norm(logits[1] - logits[0]) < HIGHEST_LOGIT_ERROR * np.linalg.norm(logits[0])


def test_a_width_that_openvino_does_not_have(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    recipe = Recipe("narrow", (("*", Format("blocks", bits=2, block_size=32)),))
    with pytest.raises(ExportError, match="narrow: openvino takes blocks of 4 or 8 bits, not 2"):
        export_checkpoint(tiny_checkpoints["tiny-idefics3"], tmp_path / "out", recipe, targets=["openvino"])
    assert not list(tmp_path.iterdir())
