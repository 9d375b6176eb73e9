"""What OpenVINO alone has to show; that it answers as the reference does is test_parity.py's business."""

import gc
import os
import platform
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pictures import CASES
from rig import read_golden

from smolvlm_edge import EngineError, SmolVLM
from smolvlm_edge.bundle import Bundle
from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.graphs import openvino
from smolvlm_edge.graphs.openvino import OpenVinoEngine, ov
from smolvlm_edge.quantize import RECIPES

ROOT = Path(__file__).parent.parent
GOLDENS = ROOT / "tests" / "goldens" / "tiny-idefics3.npz"


@pytest.fixture(scope="module")
def bundle(tiny_bundle) -> Path:
    return tiny_bundle("tiny-idefics3", "fp32", "openvino")


def test_memory_low_and_one_thread_give_the_same_answers(bundle: Path) -> None:
    question, expected = CASES["one_picture"], read_golden(GOLDENS, "one_picture")["token_ids"].tolist()
    with SmolVLM.load(bundle, memory="low", threads=1) as model:
        for _ in range(2):
            answer = model.generate(question.pictures(), question.prompt, max_tokens=len(expected))
            assert list(answer.token_ids) == expected


def test_the_demonstration_model_says_the_same_on_both_engines(tmp_path: Path) -> None:
    folder = export_checkpoint(
        ROOT / "demo" / "checkpoint", tmp_path / "demo", RECIPES["fp32"], targets=["onnx", "openvino"]
    )
    asked = [
        (["shapes.png"], "describe"),
        (["small-text.png"], "What does the green text say?"),
        (["chart.png"], "Which bar is the tallest?"),
        (["before.png", "after.png"], "What changed?"),
    ]
    answers = []
    for engine in ("onnxruntime", "openvino"):
        with SmolVLM.load(folder, engine=engine) as model:
            pictures = ROOT / "examples"
            answers.append([model.generate([pictures / name for name in names], text).text for names, text in asked])
    assert answers[0] == answers[1]
    assert all(len(answer) > 10 for answer in answers[0])


def executed(path: Path) -> Counter[tuple[str, str]]:
    """How often each operator and type of weights is in what the plugin made of a graph."""
    model = ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).get_runtime_model()
    told = [node.get_rt_info() for node in model.get_ordered_ops()]
    return Counter((each["layerType"].value, each["runtimePrecision"].value) for each in told)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the plugin fuses otherwise elsewhere")
def test_the_plugin_recognises_the_patterns(tiny_bundle) -> None:
    """Cache and attention are one operator a layer, and matrices are multiplied as they lie in the file."""
    folder = tiny_bundle("tiny-idefics3", "int4", "openvino")
    layers, counts = Bundle.open(folder).model.text.num_hidden_layers, executed(folder / "decoder.xml")
    assert counts["ScaledDotProductAttention", "f32"] == layers
    assert counts["RoPE", "f32"] == 2 * layers
    assert counts["RMS", "f32"] == 2 * layers + 1
    assert counts["FullyConnected", "u4"] == 4 * layers + 1  # the head
    assert counts["FullyConnected", "i8"] == layers  # queries, keys and values
    assert counts["Concatenation", "f32"] == 2  # the halves of the rotary tables, and none for a cache
    assert executed(folder / "embed_tokens.xml")["Gather", "u4"] == 1
    vision = executed(folder / "vision_encoder.xml")
    assert {type_ for kind, type_ in vision if kind == "FullyConnected"} == {"i8"}


def test_bf16_is_for_what_is_rounded_anyway(tiny_bundle) -> None:
    """Where the processor multiplies it; an fp32 bundle computes in float32 everywhere, and so does a token table."""
    engine = OpenVinoEngine(threads=1)
    rounded = "bf16" if "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
    for quant, expected in (("fp32", "f32"), ("int8", rounded), ("int4", rounded)):
        folder = tiny_bundle("tiny-idefics3", quant, "openvino")
        found = {name: engine.graph(folder / f"{name}.xml") for name in ("vision_encoder", "connector", "embed_tokens")}
        arithmetic = {name: precision(graph) for name, graph in found.items()}
        assert arithmetic == {"vision_encoder": expected, "connector": expected, "embed_tokens": "f32"}
        assert precision(engine.decoder(folder / "decoder.xml")) == expected


def precision(graph: openvino.OpenVinoGraph | openvino.OpenVinoDecoder) -> str:
    compiled = graph._request.get_compiled_model()
    return compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()


def test_what_was_compiled_for_a_model_by_name_is_kept(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside its bundle in smol-edge's own folder; whatever becomes of it there, the answer stays."""

    def answer(folder: Path) -> tuple[int, ...]:
        with SmolVLM.load(folder) as model:
            return model.generate([], "Tell me a story.", max_tokens=8).token_ids

    expected, home = answer(bundle), tmp_path / "home"
    monkeypatch.setenv("SMOL_EDGE_HOME", str(home))
    named = shutil.copytree(bundle, home / "bundles" / "named@0-fp32")
    kept = named.with_name(f".{named.name}.openvino-{openvino.VERSION}")
    outdated = named.with_name(f".{named.name}.openvino-2020.1.0")
    outdated.mkdir()
    assert answer(named) == expected
    blobs = {blob: blob.stat().st_mtime_ns for blob in kept.rglob("*.blob")}
    assert len(blobs) == 2, "of the token table and the decoder"
    assert not [*kept.glob(".*")], "nothing private is left"
    assert not outdated.exists()
    assert answer(named) == expected
    assert {blob: blob.stat().st_mtime_ns for blob in kept.rglob("*.blob")} == blobs, (
        "the second time nothing is compiled"
    )
    for spoil in (lambda blob: blob.write_bytes(b"?" * 5000), lambda blob: os.truncate(blob, 700)):
        for blob in kept.rglob("*.blob"):
            blob.chmod(0o600)
            spoil(blob)
        openvino.compiled_decoders = openvino._CompiledDecoders()  # as in a new process
        assert answer(named) == expected
    monkeypatch.setenv("SMOL_EDGE_HOME", str(home.rename(tmp_path / "moved")))
    assert answer(tmp_path / "moved" / "bundles" / named.name) == expected
    assert sorted(path.name for path in bundle.parent.iterdir() if path.name.startswith(".")) == []


def test_a_model_closed_during_an_answer_says_so(bundle: Path) -> None:
    model = SmolVLM.load(bundle)
    stream = model.stream([], "Tell me a story.", max_tokens=4)
    next(stream)
    model.close()
    with pytest.raises(EngineError, match="closed"):
        next(stream)
    assert model.generate([], "Tell me a story.", max_tokens=2).timings.generated_tokens == 2


def test_an_answer_after_an_interrupt_begins_with_an_empty_cache(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    infer = openvino._infer

    def interrupted(*arguments: object) -> None:
        infer(*arguments)
        raise KeyboardInterrupt  # Python sees to it only when the engine is done

    decoder = OpenVinoEngine(threads=1).decoder(bundle / "decoder.xml")
    inputs_embeds = np.random.default_rng(0).standard_normal((5, 64), np.float32)
    expected = decoder(inputs_embeds)
    decoder.truncate(0)
    with monkeypatch.context() as patch:
        patch.setattr(openvino, "_infer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            decoder(inputs_embeds[:3])
    decoder.truncate(0)
    np.testing.assert_array_equal(decoder(inputs_embeds), expected)


def test_an_input_that_the_graph_does_not_take(bundle: Path) -> None:
    graph = OpenVinoEngine(threads=1).graph(bundle / "connector.xml")
    with pytest.raises(EngineError, match=r"openvino .* failed: ") as caught:
        graph(np.zeros((1, 2, 3), np.float32))
    assert "\n" not in str(caught.value)


def test_a_decoder_that_is_opened_again_is_not_compiled_again(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO never frees all of one; its cache is a new one, so that nothing of the last prompt is known."""
    inputs_embeds = np.random.default_rng(0).standard_normal((5, 64), np.float32)
    monkeypatch.setattr(openvino, "compiled_decoders", openvino._CompiledDecoders())
    decoder = OpenVinoEngine(threads=1).decoder(bundle / "decoder.xml")
    expected = decoder(inputs_embeds)
    decoder(inputs_embeds)
    decoder.close()
    compiled = []
    monkeypatch.setattr(OpenVinoEngine, "_compile", lambda *arguments: compiled.append(arguments))
    again = OpenVinoEngine(threads=1).decoder(bundle / "decoder.xml")
    assert (again.length, compiled) == (0, [])
    np.testing.assert_array_equal(again(inputs_embeds), expected)
    with pytest.raises(AttributeError):  # the only one is in use
        OpenVinoEngine(threads=1).decoder(bundle / "decoder.xml")
    with pytest.raises(AttributeError):  # another way to compile it
        OpenVinoEngine(threads=2).decoder(bundle / "decoder.xml")
    assert len(compiled) == 2


def test_no_more_than_two_decoders_are_kept_and_one_that_was_forgotten_is(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = openvino._CompiledDecoders()
    decoders = [openvino.CompiledDecoder(object(), "f32", key) for key in "abc"]
    for each in decoders:
        kept.keep(each)
    assert kept.take("a") is None
    assert kept.take("b") is decoders[1]
    assert kept.take("b") is None
    kept.keep(openvino.CompiledDecoder(object(), "f32", "of the parent", process=os.getpid() + 1))
    assert kept.take("of the parent") is None


def test_a_decoder_that_nobody_closed_is_kept_too(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "compiled_decoders", kept := openvino._CompiledDecoders())
    decoder = OpenVinoEngine(threads=1).decoder(bundle / "decoder.xml")
    del decoder
    gc.collect()
    assert len(kept._idle) == 1
