"""Calibrated int4: what the matrices are multiplied with, what it gains, and a user's own calibration set."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from command import assert_fails, smol_edge
from PIL import Image

from smolvlm_edge import RequestError
from smolvlm_edge.bundle import Bundle
from smolvlm_edge.bundle.config import ImageConfig, ModelConfig
from smolvlm_edge.conversation.prompt import PromptEncoder
from smolvlm_edge.demo.scenes import MAKERS, scenes
from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.export.calibration import DecoderLayers, SampleMaker, bundled_samples, enough, folder_samples
from smolvlm_edge.export.checkpoint import TOKEN_TABLE, Checkpoint
from smolvlm_edge.graphs.onnxruntime import OnnxRuntimeEngine
from smolvlm_edge.quality import Text, compare_text
from smolvlm_edge.quality.matrices.onnx import onnx_matrices
from smolvlm_edge.quantize import RECIPES

CHECKPOINT = Path(__file__).parent / "checkpoints" / "tiny-idefics3"
DEMO = Path(__file__).parent.parent / "demo" / "checkpoint"


@pytest.fixture(scope="module")
def maker() -> SampleMaker:
    model = ModelConfig.from_folder(CHECKPOINT)
    return SampleMaker(PromptEncoder(CHECKPOINT, model), ImageConfig.from_folder(CHECKPOINT), model)


@pytest.fixture
def own_set(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    Image.new("RGB", (70, 40), "red").save(folder / "a.png")
    (folder / "a.txt").write_text("What colour is it?\n\nIt is red.\n")
    Image.new("RGB", (30, 60), "blue").save(folder / "b.jpg")
    (folder / "prose.txt").write_text("All work and no play makes Jack a dull boy. " * 200)
    return folder


def table_of(maker: SampleMaker) -> np.ndarray:
    text = maker.model.text
    return Checkpoint(CHECKPOINT).weight(TOKEN_TABLE, text.vocab_size, text.hidden_size).load()


# -- the samples ------------------------------------------------------------------------------------------------


def test_the_bundled_set_holds_text_and_pictures(maker: SampleMaker) -> None:
    samples = list(bundled_samples(maker))
    with_pictures = [sample for sample in samples if sample.tiles]
    assert 0 < len(with_pictures) < len(samples)
    for sample in samples:
        places = int((sample.input_ids == maker.model.image_token_id).sum())
        assert places <= sum(map(len, sample.tiles)) * maker.model.image_seq_len
        assert len(sample.input_ids) <= 1024
    ends = [each.input_ids[-1] in maker.model.eos_token_ids for each in with_pictures if len(each.input_ids) < 1024]
    assert all(ends), "an answer is there to its end"


def test_a_folder_of_ones_own(maker: SampleMaker, own_set: Path) -> None:
    samples = list(folder_samples(own_set, maker))
    decode = maker.encoder.tokenizer.decode
    asked = [decode(each.input_ids.tolist(), skip_special_tokens=True) for each in samples if each.tiles]
    described, answered = sorted(asked, key=lambda each: "What colour is it?" in each)
    assert "Describe this image." in described
    assert "What colour is it?" in answered
    assert answered.endswith(" It is red.")
    texts = [decode(each.input_ids.tolist()) for each in samples if not each.tiles]
    assert "".join(texts) == (own_set / "prose.txt").read_text()


def test_pictures_and_texts_take_turns_and_enough_is_enough(maker: SampleMaker, own_set: Path) -> None:
    for i in range(40):
        Image.new("RGB", (20, 20), (i, 0, 0)).save(own_set / f"more-{i}.png")
    taken = enough(folder_samples(own_set, maker), maker.model)
    positions = [len(each.input_ids) for each in taken]
    widest = max(maker.model.text.intermediate_size, maker.model.text.hidden_size)
    assert sum(positions[:-1]) < 40 * widest <= sum(positions)
    assert [bool(each.tiles) for each in taken[:4]] == [True, False, True, False]
    again = enough(folder_samples(own_set, maker), maker.model)
    assert [each.input_ids.tolist() for each in again] == [each.input_ids.tolist() for each in taken]


@pytest.mark.parametrize("prepare", [lambda folder: None, lambda folder: folder.mkdir()])
def test_a_folder_with_nothing_in_it_is_refused(prepare: Callable[[Path], None], tmp_path: Path) -> None:
    prepare(tmp_path / "set")
    result = smol_edge("export", CHECKPOINT, "--out", tmp_path / "out", "--calibrate", tmp_path / "set")
    assert_fails(result, RequestError.exit_code, str(tmp_path / "set"))
    assert not (tmp_path / "out").exists()


def test_a_damaged_picture_is_refused_by_name(own_set: Path, tmp_path: Path) -> None:
    (own_set / "b.jpg").write_bytes(b"no picture")
    result = smol_edge("export", CHECKPOINT, "--out", tmp_path / "out", "--calibrate", own_set)
    assert_fails(result, 5, "b.jpg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own"]


# -- the layers -------------------------------------------------------------------------------------------------


def test_layer_by_layer_is_the_whole_decoder(maker: SampleMaker, tiny_bundle, tmp_path: Path) -> None:
    layers = DecoderLayers(Checkpoint(CHECKPOINT), maker.model, tmp_path, threads=2)
    ids = np.arange(50) % maker.model.text.vocab_size
    hidden = [table_of(maker)[ids]]
    decoder = OnnxRuntimeEngine(2).decoder(tiny_bundle("tiny-idefics3", "fp32") / "decoder.onnx")
    expected = decoder(hidden[0], len(ids)).copy()
    for index in range(len(layers)):
        hidden = layers.advance(index, hidden, {})
    with layers.open(len(layers), ("logits",), {}) as run:
        np.testing.assert_allclose(run(hidden[0])["logits"], expected, atol=1e-4)
    assert not list(tmp_path.iterdir())


@pytest.mark.parity
def test_what_matrices_are_multiplied_with_is_what_transformers_multiplies_them_with(
    maker: SampleMaker, tmp_path: Path
) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.Idefics3ForConditionalGeneration.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()
    given = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda _, x, __, name=name: given.update({f"{name}.weight": x[0][0].numpy()}))
    ids = np.arange(40) % maker.model.text.vocab_size
    with torch.no_grad():
        model(input_ids=torch.from_numpy(ids[None]))
    given |= {name.replace("q_proj", "qkv_proj"): x for name, x in given.items()}
    layers = DecoderLayers(Checkpoint(CHECKPOINT), maker.model, tmp_path, threads=2)
    hidden, seen = [table_of(maker)[ids]], 0
    for index in range(len(layers) + 1):
        with layers.open(index, None, {}) as run:
            for name, x in run(hidden[0]).items():
                if name in given:
                    np.testing.assert_allclose(x, given[name], atol=1e-4)
                    seen += 1
        if index < len(layers):
            hidden = layers.advance(index, hidden, {})
    assert seen == 5 * len(layers) + 1  # qkv, o, gate, up and down; the head


# -- the export -------------------------------------------------------------------------------------------------


def test_calibrated_int4_stays_nearer_to_fp32(tmp_path: Path) -> None:
    """Of the demonstration model: random weights have no habits that rounding could be fitted to."""
    own = tmp_path / "own"
    own.mkdir()
    drawn = islice(scenes(3, held_out=False, weights=dict.fromkeys(MAKERS, 1.0)), 60)
    talk = (f"{question.text} {question.answer}" for scene in drawn for question in scene.questions)
    (own / "talk.txt").write_text("\n".join(talk))

    def export(quant: str, calibration: Path | None) -> Bundle:
        out = tmp_path / f"{quant}-{calibration is None}"
        return Bundle.open(export_checkpoint(DEMO, out, RECIPES[quant], calibration=calibration))

    reference, calibrated, nearest = export("fp32", None), export("int4", own), export("int4", None)
    text, engine = Text.default(reference), OnnxRuntimeEngine(2)
    lost = [compare_text(text, bundle, reference, engine).kl for bundle in (calibrated, nearest)]
    assert lost[0] < 0.75 * lost[1]


def test_two_targets_get_the_same_weights(own_set: Path, tmp_path: Path) -> None:
    openvino_matrices = pytest.importorskip("smolvlm_edge.quality.matrices.openvino").openvino_matrices
    both = export_checkpoint(CHECKPOINT, tmp_path / "both", targets=("onnx", "openvino"), calibration=own_set)
    alone = export_checkpoint(CHECKPOINT, tmp_path / "alone", targets=("openvino",), calibration=own_set)
    assert (both / "decoder.bin").read_bytes() == (alone / "decoder.bin").read_bytes()
    graphs = [(both / f"decoder{suffix}") for suffix in (".onnx", ".xml")]
    with onnx_matrices(graphs[0]) as ours, openvino_matrices(graphs[1]) as theirs:
        assert ours.keys() == theirs.keys()
        for name, matrix in ours.items():
            rows, columns = matrix.shape
            np.testing.assert_array_equal(matrix.rows(slice(rows)), theirs[name].rows(slice(rows))[:, :columns], name)


def test_without_a_set_every_value_is_rounded_by_itself(tmp_path: Path) -> None:
    bundle = tmp_path / "out"
    result = smol_edge("export", CHECKPOINT, "--out", bundle, "--calibrate", "none")
    assert result.returncode == 0, result.stderr
    same = export_checkpoint(CHECKPOINT, tmp_path / "same", RECIPES["int4"], calibration=None)
    assert (bundle / "decoder.onnx.data").read_bytes() == (same / "decoder.onnx.data").read_bytes()
