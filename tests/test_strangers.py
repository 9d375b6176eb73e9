"""Graphs that were made to harm: refused before an engine sees them, in one line, and never read to their end."""

import json
import random
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from command import assert_fails, smol_edge

from smolvlm_edge import IntegrityError, SmolVLM
from smolvlm_edge.bundle import Bundle
from smolvlm_edge.graphs.checks import check_graphs
from smolvlm_edge.graphs.checks.onnx import check_onnx
from smolvlm_edge.graphs.checks.openvino import check_openvino
from smolvlm_edge.graphs.checks.refusal import Refusal


@pytest.fixture
def bundle(tiny_bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle("tiny-idefics3", "int4", "onnx", "openvino"), tmp_path / "bundle"))


@pytest.mark.parametrize("quant", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("checkpoint", ["tiny-idefics3", "tiny-smolvlm"])
def test_what_the_exporter_writes_passes(tiny_bundle, checkpoint: str, quant: str) -> None:
    opened = Bundle.open(tiny_bundle(checkpoint, quant, "onnx", "openvino"))
    for target in opened.targets:
        check_graphs(opened, {"vision": target, "decoder": target})


def seal(bundle: Path) -> None:
    """The manifest of whoever changed the files: a checksum does not tell a stranger."""
    manifest = json.loads((bundle / "bundle.json").read_text())
    for name, entry in manifest["files"].items():
        data = (bundle / name).read_bytes()
        entry.update(size=len(data), sha256=sha256(data).hexdigest())
    (bundle / "bundle.json").write_text(json.dumps(manifest))


# -- ONNX -------------------------------------------------------------------------------------------


def add(model: ir.Model, operator: str, inputs: list[ir.Value], **attributes: object) -> None:
    """One more operator at the beginning of a graph."""
    model.graph.insert_before(model.graph[0], ir.node(operator, inputs, attributes, domain=""))


def constant(model: ir.Model, array: np.ndarray) -> ir.Value:
    value = ir.Value(name="stranger", const_value=ir.tensor(array, name="stranger"))
    model.graph.initializers["stranger"] = value
    return value


def body(operator: str) -> ir.Graph:
    end = ir.node(operator, [])
    end.outputs[0].name = "end"
    return ir.Graph([], [end.outputs[0]], nodes=[end], name="body")


def external(model: ir.Model) -> ir.ExternalTensor:
    tensors = [value.const_value for value in model.graph.initializers.values()]
    return next(tensor for tensor in tensors if isinstance(tensor, ir.ExternalTensor))


def moved(model: ir.Model, **place: object) -> None:
    """A tensor that lies elsewhere."""
    before = external(model)
    values = {
        "location": before.location,
        "offset": before.offset,
        "length": before.length,
        "dtype": before.dtype,
        "shape": before.shape,
        **place,
    }
    tensor = ir.ExternalTensor(**values, name=before.name, base_dir=before.base_dir)
    model.graph.initializers[before.name].const_value = tensor


ONNX: dict[str, tuple[Callable[[ir.Model], object], str]] = {
    "a loop without end": (lambda m: add(m, "Loop", [None, None], body=body("Constant")), "Loop"),
    "a branch": (lambda m: add(m, "If", [m.graph.inputs[0]], then_branch=body("Constant")), "If"),
    "8 GB of zeros": (lambda m: add(m, "ConstantOfShape", [constant(m, np.array([2**31]))]), "ConstantOfShape"),
    "a matrix made large": (lambda m: add(m, "Expand", [m.graph.inputs[0], constant(m, np.array([2**31]))]), "Expand"),
    "a range": (lambda m: add(m, "Range", [constant(m, np.array(2**30))] * 3), "Range"),
    "a product of two computed": (lambda m: add(m, "MatMul", [m.graph.inputs[0]] * 2), "MatMul of two computed"),
    "one input too few": (lambda m: add(m, "Add", [m.graph.inputs[0]]), "Add with 1 inputs"),
    "a shape of 2^60": (lambda m: add(m, "Reshape", [m.graph.inputs[0], constant(m, np.array([2**60]))]), "shape"),
    "an unknown attribute": (lambda m: add(m, "Neg", [m.graph.inputs[0]], speed=1), "attribute speed"),
    "a text as attribute": (lambda m: add(m, "Neg", [m.graph.inputs[0]], speed="fast"), "field"),
    "no outputs": (lambda m: m.graph.outputs.clear(), "inputs or outputs"),
    "a file elsewhere": (lambda m: moved(m, location="../../../etc/passwd"), "outside of the bundle"),
    "a device": (lambda m: moved(m, location="/dev/zero"), "outside of the bundle"),
    "beyond the end": (lambda m: moved(m, offset=1 << 40), "beyond the end"),
    "longer than its file": (lambda m: moved(m, shape=ir.Shape([1 << 30, 1 << 10]), length=None), "beyond the end"),
    "a shape of another length": (lambda m: moved(m, shape=ir.Shape([1, 3])), "beyond the end"),
}


@pytest.mark.parametrize("case", ONNX)
def test_onnx(bundle: Path, case: str) -> None:
    change, words = ONNX[case]
    path = bundle / "vision_encoder.onnx"
    model = ir.load(path)
    change(model)
    ir.save(model, path)
    with pytest.raises(Refusal, match=words) as caught:
        check_onnx(path)
    assert len(str(caught.value)) < 200


def test_a_matrix_whose_blocks_do_not_fit(bundle: Path) -> None:
    """The kernel would read beyond them."""
    path = bundle / "connector.onnx"
    model = ir.load(path)
    node = next(node for node in model.graph if node.op_type == "MatMulNBits")
    node.attributes["N"] = ir.AttrInt64("N", 1 << 20)
    ir.save(model, path)
    with pytest.raises(Refusal, match="MatMulNBits"):
        check_onnx(path)


@pytest.mark.parametrize("data", [b"", b"\x0a", b"\x00" * 100, b"\xff" * 100, b"\x3a\x7f", b"PK\x03\x04"])
def test_no_onnx_at_all(bundle: Path, data: bytes) -> None:
    (bundle / "decoder.onnx").write_bytes(data)
    with pytest.raises(Refusal):
        check_onnx(bundle / "decoder.onnx")


# -- OpenVINO ---------------------------------------------------------------------------------------

CONST = '<layer id="4" name="/cache/empty/Constant_3" type="Const" version="opset1">'
OPENVINO: dict[str, tuple[Callable[[str], str], str]] = {
    "a constant made a broadcast": (
        lambda x: x.replace('type="Const" version="opset1"', 'type="Broadcast" version="opset3"', 1),
        "Broadcast-opset3 with",
    ),
    "a loop": (lambda x: x.replace('type="Add" version="opset1"', 'type="Loop" version="opset5"', 1), "Loop-opset5"),
    "another opset": (lambda x: x.replace('type="Gather" version="opset8"', 'type="Gather" version="opset1"', 1), "Ga"),
    "a custom library": (lambda x: x.replace('version="opset13"', 'version="extension"', 1), "extension"),
    "weights beyond the file": (lambda x: x.replace('offset="0"', 'offset="99999999999"', 1), "does not fit"),
    "a negative place": (lambda x: x.replace('offset="0"', 'offset="-8"', 1), "size -8"),
    "a huge constant": (lambda x: x.replace('shape="3"', 'shape="2000000000,2000000000"', 1), "does not fit"),
    "an unknown type": (
        lambda x: x.replace('element_type="i64" shape="3"', 'element_type="string" shape="3"', 1),
        "type string",
    ),
    "an edge to nowhere": (lambda x: x.replace('to-layer="10"', 'to-layer="9999"', 1), "nowhere"),
    "a circle": (lambda x: x.replace('from-layer="5"', 'from-layer="60"', 1), "circle"),
    "an edge too few": (lambda x: x.replace("<edge ", "<edge_ ", 1), "element edge_"),
    "a bomb of entities": (
        lambda x: x.replace("<net", '<!DOCTYPE n [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><net', 1),
        "document type",
    ),
    "no outputs": (lambda x: x.replace('type="Result"', 'type="Sqrt"'), "inputs or outputs"),
    "cut off": (lambda x: x[: len(x) // 2], "no XML"),
    "no XML": (lambda _: "\0\1\2", "no XML"),
    "something unknown": (lambda x: x.replace("<edges>", "<script/><edges>"), "element script"),
    "an unknown attribute": (lambda x: x.replace("<data axis=", '<data speed="1" axis=', 1), "attribute speed"),
    "a size of 2^40": (lambda x: x.replace("<dim>64</dim>", f"<dim>{2**40}</dim>", 1), f"size {2**40}"),
}


@pytest.mark.parametrize("case", OPENVINO)
def test_openvino(bundle: Path, case: str) -> None:
    change, words = OPENVINO[case]
    path = bundle / "decoder.xml"
    text = path.read_text()
    path.write_text(changed := change(text))
    assert changed != text, "the case no longer fits what the exporter writes"
    with pytest.raises(Refusal, match=words) as caught:
        check_openvino(path)
    assert len(str(caught.value)) < 200


def test_a_constant_that_asks_for_eight_gigabytes(bundle: Path) -> None:
    """The numbers that a Broadcast takes for a shape lie among the weights."""
    weights = bytearray((bundle / "decoder.bin").read_bytes())
    weights[12:36] = np.array([1 << 15, 1 << 15, 2], np.int64).tobytes()
    (bundle / "decoder.bin").write_bytes(weights)
    with pytest.raises(Refusal, match="Concat"):
        check_openvino(bundle / "decoder.xml")


# -- both -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "check"), [("decoder.onnx", check_onnx), ("decoder.xml", check_openvino)])
def test_any_damage_is_passed_or_refused(bundle: Path, name: str, check: Callable[[Path], None]) -> None:
    """Nothing foreign is raised, whatever is flipped, cut or repeated."""
    chance, data = random.Random(7), (bundle / name).read_bytes()
    refused = 0
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(damaged))
            damaged[at : at + chance.randint(0, 40)] = chance.randbytes(chance.randint(0, 40))
        (bundle / name).write_bytes(damaged)
        try:
            check(bundle / name)
        except Refusal:
            refused += 1
    assert refused > 75


def test_a_strangers_bundle_is_opened_by_who_trusts_it(bundle: Path) -> None:
    path = bundle / "embed_tokens.onnx"
    model = ir.load(path)
    model.graph.insert_after(model.graph[0], ir.node("Sign", [model.graph.inputs[0]]))
    ir.save(model, path)
    seal(bundle)
    run = ("run", "Tell me a story.", "--model", bundle, "--engine", "onnxruntime", "--max-tokens", "1")
    assert_fails(smol_edge(*run), 4, "embed_tokens.onnx", "operator Sign", "--trust", "export the model again")
    assert smol_edge(*run, "--trust").returncode == 0
    with pytest.raises(IntegrityError, match="trust=True"):
        SmolVLM.load(bundle, engine="onnxruntime")
    with SmolVLM.load(bundle, engine="onnxruntime", trust=True) as vlm:
        assert vlm.generate([], "Tell me a story.", max_tokens=1).timings.generated_tokens == 1
