"""Which matrices get eight bits when a bundle may take so many bytes, and recipes from files."""

import json
from pathlib import Path

import numpy as np
import pytest
from command import assert_fails, smol_edge
from hypothesis import given
from hypothesis import strategies as st

from smolvlm_edge import RequestError
from smolvlm_edge.bundle import Bundle
from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.export.budget import fit_recipe
from smolvlm_edge.export.checkpoint import Weight
from smolvlm_edge.quality.matrices.onnx import onnx_matrices
from smolvlm_edge.quantize import EXACT_BITS, Format, Recipe, round_blocks
from smolvlm_edge.quantize.packing import pack_matmul_nbits

CHECKPOINT = Path(__file__).parent / "checkpoints" / "tiny-smolvlm"
PAGES = 3 * 4096


def weight(name: str, rows: int, columns: int) -> Weight:
    return Weight(name, (rows, columns), lambda: pytest.fail("sizes are known without reading"))


def nbytes(recipe: Recipe, matrices: list[Weight]) -> int:
    return sum(recipe.format_of(each.name).nbytes(*each.shape) + PAGES for each in matrices)


def test_a_byte_goes_where_it_helps_most() -> None:
    matrices = [weight("small", 64, 64), weight("large", 640, 640), weight("dull", 64, 64)]
    costs = {"small": 0.1, "large": 0.2, "dull": 0.001}
    recipe = Recipe("int4", (("*", Format("blocks", 4, 32, symmetric=False)),))
    least = nbytes(recipe, matrices)
    fitted = fit_recipe(recipe, matrices, costs, least + 64 * 40)
    assert {each.name: fitted.format_of(each.name).bits for each in matrices} == {"small": 8, "large": 4, "dull": 4}
    with pytest.raises(RequestError, match="too large"):
        fit_recipe(recipe, matrices, costs, least - 1)


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300), st.floats(0, 10)), min_size=1, max_size=8),
    st.integers(0, 400_000),
)
def test_more_room_is_used_and_never_exceeded(matrices: list[tuple[int, int, float]], spare: int) -> None:
    weights = [weight(str(i), rows, columns) for i, (rows, columns, _) in enumerate(matrices)]
    costs = {str(i): cost for i, (_, _, cost) in enumerate(matrices)}
    recipe = Recipe("int4", (("*", Format("blocks", 4, 32, symmetric=False)),))
    room = nbytes(recipe, weights) + spare
    fitted = fit_recipe(recipe, weights, costs, room)
    assert nbytes(fitted, weights) <= room
    for each in weights:  # none that is left narrow would have found room
        if fitted.format_of(each.name).bits < EXACT_BITS:
            wider = Recipe("wider", ((each.name, Format("blocks", 8, 32)), *fitted.rules))
            assert nbytes(wider, weights) > room


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@given(rows=st.integers(1, 20), columns=st.integers(1, 100), block_size=st.sampled_from([16, 32, 64]))
def test_sizes_are_those_of_the_packed_arrays(
    bits: int, symmetric: bool, rows: int, columns: int, block_size: int
) -> None:
    values = np.ones((rows, columns), np.float32)
    packed = pack_matmul_nbits(round_blocks(values, bits, block_size, symmetric=symmetric))
    expected = sum(each.nbytes for each in packed if each is not None)
    assert Format("blocks", bits, block_size, symmetric).nbytes(rows, columns) == expected


@pytest.fixture(scope="module")
def own_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "a.txt").write_text("The quick brown fox jumps over the lazy dog. " * 60)
    return folder


def test_a_bundle_fits_into_its_bytes_and_its_recipe_makes_it_again(own_set: Path, tmp_path: Path) -> None:
    smallest = export_checkpoint(CHECKPOINT, tmp_path / "smallest", calibration=own_set)
    size = sum(file.stat().st_size for file in smallest.iterdir())
    target = size / 1e6 + 0.3
    out = tmp_path / "fitted"
    result = smol_edge("export", CHECKPOINT, "--out", out, "--calibrate", own_set, "--target-mb", f"{target:.6f}")
    assert result.returncode == 0, result.stderr
    assert size < sum(file.stat().st_size for file in out.iterdir()) <= target * 1e6
    manifest = json.loads((out / "bundle.json").read_text())
    bits = manifest["recipe"]["bits"]
    assert {4, 8} <= {bits[name] for name in bits if ".layers." in name and "text_model" in name}
    assert Bundle.open(out).recipe["name"] == "int4-fitted"
    again = tmp_path / "again"
    refused = smol_edge("export", CHECKPOINT, "--out", again, "--recipe", out / "bundle.json")
    assert_fails(refused, RequestError.exit_code, own_set.name, "--calibrate")
    result = smol_edge("export", CHECKPOINT, "--out", again, "--recipe", out / "bundle.json", "--calibrate", own_set)
    assert result.returncode == 0, result.stderr
    for file in out.iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name


def test_rules_of_ones_own(own_set: Path, tmp_path: Path) -> None:
    rules = Path(__file__).parent.parent / "examples" / "int4-large-blocks.json"
    out = tmp_path / "out"
    result = smol_edge("export", CHECKPOINT, "--out", out, "--recipe", rules, "--calibrate", own_set)
    assert result.returncode == 0, result.stderr
    with onnx_matrices(out / "decoder.onnx") as matrices:
        for matrix in matrices.values():
            assert matrix.nbytes == Format("blocks", 4, 128, symmetric=False).nbytes(*matrix.shape)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--target-mb", "0.01"], "too large"),
        (["--target-mb", "100", "--calibrate", "none"], "calibration"),
        (["--target-mb", "100", "--quant", "int8"], "int4"),
        (["--target-mb", "100", "--target", "openvino"], "onnx"),
        (["--recipe", "missing.json"], "missing.json"),
        (["--recipe", CHECKPOINT / "config.json"], "config.json"),
        (["--recipe", CHECKPOINT / "config.json", "--quant", "int8"], "--quant"),
    ],
)
def test_what_makes_no_sense_is_refused(options: list[object], named: str, own_set: Path, tmp_path: Path) -> None:
    calibrate = [] if "--calibrate" in options else ["--calibrate", own_set]
    result = smol_edge("export", CHECKPOINT, "--out", tmp_path / "out", *calibrate, *options)
    assert result.returncode not in (0, 1)
    assert_fails(result, result.returncode, named)
    assert not list(tmp_path.iterdir())
