"""`smol-edge quality`: what it measures is what was changed, and what cannot be compared is refused."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from command import assert_fails, smol_edge
from PIL import Image, ImageFont
from released_files import unpack
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, processors

from smolvlm_edge import ImageError, RequestError
from smolvlm_edge.bundle import Bundle
from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.graphs.engines import Engines
from smolvlm_edge.graphs.onnxruntime import OnnxRuntimeEngine
from smolvlm_edge.quality import Text, TextFidelity, check_fit, measure, pictures_from, plot
from smolvlm_edge.quality.pictures import Answer, Picture, PictureFidelity
from smolvlm_edge.quality.report import Quality, Sizes
from smolvlm_edge.quality.tensors import tensor_errors
from smolvlm_edge.quantize import RECIPES, Format, Recipe

DOWN = "model.text_model.layers.1.mlp.down_proj.weight"
PROJECTION = "model.connector.modality_projection.proj.weight"
HEAD = "lm_head.weight"
TABLE = "model.text_model.embed_tokens.weight"
SENTENCES = "The keeper of the lighthouse wrote one line each day. On day 27 he wrote: the fog is back.\n" * 30
PICTURE = Picture("gradient", np.indices((90, 150)).sum(axis=0).astype(np.uint8))
ENGINES = Engines(vision=OnnxRuntimeEngine(threads=1), decoder=OnnxRuntimeEngine(threads=1))
BOTH = ("onnx", "openvino")
ONNX, OPENVINO = ({"vision": target, "decoder": target} for target in BOTH)
NARROW = Recipe("narrow", (("*", Format("blocks", bits=4, block_size=32, symmetric=False)),))


def tensors_of(checkpoint: Path) -> dict[str, np.ndarray]:
    return {name: tensor.astype(np.float32) for name, tensor in load_file(checkpoint / "model.safetensors").items()}


def scaled(checkpoint: Path, out: Path, factors: dict[str, float]) -> Path:
    """A copy of a checkpoint in which some tensors are multiplied."""
    shutil.copytree(checkpoint, out)
    tensors = tensors_of(out)
    save_file(
        {name: tensor * np.float32(factors.get(name, 1)) for name, tensor in tensors.items()}, out / "model.safetensors"
    )
    return out


@pytest.fixture(scope="module")
def reference(tiny_bundle) -> Bundle:
    return Bundle.open(tiny_bundle("tiny-idefics3", "fp32"))


@pytest.fixture(scope="module")
def damaged(tiny_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Known damage: a matrix a quarter too large, image features a tenth too large, a head of zeros."""
    folder = tmp_path_factory.mktemp("damaged")
    checkpoint = scaled(
        tiny_checkpoints["tiny-idefics3"], folder / "checkpoint", {DOWN: 1.25, PROJECTION: 1.1, HEAD: 0}
    )
    return Bundle.open(export_checkpoint(checkpoint, folder / "bundle", RECIPES["fp32"]))


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    path = tmp_path / "sentences.txt"
    path.write_text(SENTENCES, encoding="utf-8")
    return path


def measured(bundle: Bundle, reference: Bundle, text: Path, pictures: Sequence[Picture] = (PICTURE,)) -> Quality:
    read = Text.from_file(text, reference)
    (quality,) = measure({"it": bundle}, reference, read, pictures, ENGINES, prompt="What is it?", max_tokens=8)
    return quality


# -- what is measured -------------------------------------------------------------------------------


def test_a_bundle_has_lost_nothing_against_itself(reference: Bundle, sentences: Path) -> None:
    quality = measured(reference, reference, sentences)
    assert (quality.text.kl, quality.text.top1, quality.text.perplexity_ratio) == (0, 1, 1)
    (picture,) = quality.pictures
    assert len(picture.tiles) == 3 * 4 + 1, (
        "tiles of 64 pixels of a picture whose longer side is 256, and the whole one"
    )
    for tile in picture.tiles:
        assert tile.relative_error == 0
        assert tile.lowest_cosine == pytest.approx(1)
    assert picture.same_text
    assert picture.same_tokens == picture.reference_tokens <= 8
    assert {(tensor.relative_error, tensor.bits_per_weight) for tensor in quality.tensors} == {(0, 32)}


def test_known_damage_is_found(damaged: Bundle, reference: Bundle, sentences: Path) -> None:
    quality = measured(damaged, reference, sentences)
    errors = [(tensor.name, tensor.relative_error) for tensor in quality.tensors if tensor.relative_error]
    assert errors == [(HEAD, 1), (DOWN, pytest.approx(0.25)), (PROJECTION, pytest.approx(0.1))]
    for tile in quality.pictures[0].tiles:  # the projection is the last thing that happens to image features
        assert tile.relative_error == pytest.approx(0.1, rel=1e-4)
        assert tile.lowest_cosine == pytest.approx(1)
    vocabulary = reference.model.text.vocab_size
    assert quality.text.perplexity == pytest.approx(vocabulary), "with a head of zeros every token is as likely"
    assert 0 < quality.text.kl < np.log(vocabulary)
    assert quality.text.top1 < 0.1


def test_longer_texts_are_cut_into_windows_that_do_not_overlap(reference: Bundle, sentences: Path) -> None:
    text = Text.from_file(sentences, reference)
    tokenizer = Tokenizer.from_file(str(reference.folder / "tokenizer.json"))
    assert [len(window) for window in text.windows[:-1]] == [512] * (len(text.windows) - 1)
    assert len(text.windows) > 1
    assert tokenizer.decode(np.concatenate(text.windows).tolist()) == SENTENCES
    assert text.tokens == len(tokenizer.encode(SENTENCES))


def test_windows_begin_as_the_tokenizer_begins_a_text(reference: Bundle, sentences: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(reference.folder, tmp_path / "bundle"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    windows = Text.from_file(sentences, replace(reference, folder=folder)).windows
    assert [window[0] for window in windows] == [1] * len(windows)
    assert max(map(len, windows)) == 512
    assert tokenizer.decode(np.concatenate(windows).tolist()) == SENTENCES


def test_the_windows_of_a_text_do_not_see_each_other(damaged: Bundle, reference: Bundle, tmp_path: Path) -> None:
    """Read once or twice, in windows of their own, the same tokens give the same means."""
    once, twice = tmp_path / "once.txt", tmp_path / "twice.txt"
    once.write_text("a" * 512)
    twice.write_text("a" * 1024)
    tokens = [Text.from_file(path, reference).tokens for path in (once, twice)]
    assert tokens == [512, 1024]
    found = [measured(damaged, reference, path, ()).text for path in (once, twice)]
    assert found[0].kl == pytest.approx(found[1].kl)
    assert found[0].reference_perplexity == pytest.approx(found[1].reference_perplexity)


@pytest.mark.parametrize("recipe", [RECIPES["int8"], NARROW], ids=["int8", "int4"])
def test_matrices_are_read_as_the_engine_reads_them(
    tiny_checkpoints: dict[str, Path], reference: Bundle, tmp_path: Path, recipe: Recipe
) -> None:
    bundle = Bundle.open(export_checkpoint(tiny_checkpoints["tiny-idefics3"], tmp_path / "bundle", recipe))
    found = {tensor.name: tensor for tensor in tensor_errors(bundle, reference, ONNX)}
    weights = tensors_of(tiny_checkpoints["tiny-idefics3"])
    token_ids = np.arange(len(weights[TABLE]))[None]
    table = ENGINES.vision.graph(bundle.graph_path("embed_tokens", "onnx"))(token_ids)[0]
    # a tile for every input of the projection: 1 there, 0 elsewhere, among the 4 × 4 patches of the first token
    tiles = np.zeros((512, 8, 8, 32), np.float32)
    tiles[:, :4, :4] = np.eye(512, dtype=np.float32).reshape(512, 4, 4, 32)
    projection = ENGINES.vision.graph(bundle.graph_path("connector", "onnx"))(tiles.reshape(512, 64, 32))[:, 0].T
    for name, computed in ((TABLE, table), (PROJECTION, projection)):
        expected = np.linalg.norm(computed - weights[name]) / np.linalg.norm(weights[name])
        assert found[name].shape == weights[name].shape
        assert found[name].relative_error == pytest.approx(expected, rel=1e-3)
        code_bits = recipe.format_of(name).bits
        assert code_bits < found[name].bits_per_weight < code_bits + 1.3, "scales and zero points are counted"
    errors = [tensor.relative_error for tensor in found.values()]
    assert errors == sorted(errors, reverse=True)
    attention = "model.text_model.layers.0.self_attn"
    assert found[f"{attention}.qkv_proj.weight"].shape == (64 + 32 + 32, 64), "queries, keys and values are one matrix"


def test_int8_rows_are_read(tiny_bundle, tiny_checkpoints: dict[str, Path], reference: Bundle) -> None:
    name = "model.vision_model.encoder.layers.0.mlp.fc1.weight"
    weight = tensors_of(tiny_checkpoints["tiny-idefics3"])[name]
    step = np.abs(weight).max(axis=1, keepdims=True) / 127
    expected = np.linalg.norm(np.rint(weight / step) * step - weight) / np.linalg.norm(weight)
    tensors = tensor_errors(Bundle.open(tiny_bundle("tiny-idefics3", "int8")), reference, ONNX)
    (found,) = (tensor for tensor in tensors if tensor.name == name)
    assert found.relative_error == pytest.approx(expected, rel=1e-4)
    assert found.bits_per_weight == 8 + 32 / weight.shape[1], "a float32 scale for every row"


@pytest.mark.parametrize("recipe", [*RECIPES.values(), NARROW], ids=[*RECIPES, "narrow"])
def test_matrices_are_the_same_in_the_graphs_of_both_engines(
    tiny_bundle, tiny_checkpoints: dict[str, Path], tmp_path: Path, recipe: Recipe
) -> None:
    checkpoint = tiny_checkpoints["tiny-idefics3"]
    bundle = Bundle.open(export_checkpoint(checkpoint, tmp_path / "bundle", recipe, targets=BOTH))
    reference = Bundle.open(tiny_bundle("tiny-idefics3", "fp32", *BOTH))
    onnx, openvino = (
        {tensor.name: tensor for tensor in tensor_errors(bundle, reference, targets)} for targets in (ONNX, OPENVINO)
    )
    assert openvino.keys() == onnx.keys()
    for name, tensor in openvino.items():
        assert tensor.shape == onnx[name].shape
        assert tensor.relative_error == pytest.approx(onnx[name].relative_error, rel=1e-6)
        assert tensor.bits_per_weight == pytest.approx(onnx[name].bits_per_weight, rel=0.12), (
            "float32 scales for OpenVINO"
        )


def test_answers_agree_up_to_the_first_difference() -> None:
    features = (np.ones((4, 8), np.float32),)
    first = Answer(features, (5, 6, 7, 8, 2), "It is red.")
    for other, same in [((5, 6, 9, 8, 2), 2), ((5, 6, 7), 3), ((1,), 0), ((5, 6, 7, 8, 2, 4), 5)]:
        assert PictureFidelity.of(PICTURE, Answer(features, other, "It is blue."), first).same_tokens == same


def test_a_turned_token_shows_in_the_lowest_cosine() -> None:
    features = np.zeros((3, 4), np.float32)
    features[:, 0] = 2
    turned = features.copy()
    turned[1] = [1.2, 1.6, 0, 0]  # by an angle whose cosine is 0.6
    found = PictureFidelity.of(PICTURE, Answer((turned,), (), ""), Answer((features,), (), ""))
    assert found.tiles[0].lowest_cosine == pytest.approx(0.6)
    assert found.tiles[0].relative_error == pytest.approx(np.sqrt((0.8**2 + 1.6**2) / 12))


def test_sizes_are_those_of_the_files(tiny_bundle) -> None:
    bundle = Bundle.open(tiny_bundle("tiny-idefics3", "int4"))
    sizes, on_disk = Sizes.of(bundle, ONNX), {path.name: path.stat().st_size for path in bundle.folder.iterdir()}
    assert sizes.graphs["decoder"] == on_disk["decoder.onnx"] + on_disk["decoder.onnx.data"]
    assert sizes.text == sizes.graphs["decoder"] + on_disk["embed_tokens.onnx"] + on_disk["embed_tokens.onnx.data"]
    assert sizes.all_files == sum(on_disk.values()) - on_disk["bundle.json"]
    both = Bundle.open(tiny_bundle("tiny-idefics3", "int4", "onnx", "openvino"))
    assert Sizes.of(both, ONNX) == sizes, "graphs for the other engine do not count"
    decoder = sum((both.folder / name).stat().st_size for name in ("decoder.xml", "decoder.bin"))
    assert Sizes.of(both, OPENVINO).graphs["decoder"] == decoder


# -- what is read and shown by default --------------------------------------------------------------


def test_prose_is_read_by_a_tokenizer_that_knows_words(reference: Bundle, tmp_path: Path) -> None:
    text = replace(reference.model.text, vocab_size=49280, max_position_embeddings=8192)
    model = replace(reference.model, text=text, image_token_id=49190)
    read = Text.default(replace(reference, folder=unpack(tmp_path), model=model))
    assert read.name == "the package's English prose"
    assert 2000 < read.tokens < 2500


def test_talk_about_scenes_is_read_by_one_that_spells(reference: Bundle) -> None:
    read = Text.default(reference)
    assert read.name == "talk about drawn scenes"
    assert 1000 < read.tokens < 40000


def test_a_folder_stands_for_the_pictures_in_it(tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        Image.new("RGB", (8, 8), "red").save(tmp_path / name)
    assert [picture.name for picture in pictures_from([tmp_path, tmp_path / "b.png"])] == ["a.png", "b.png", "b.png"]
    (tmp_path / "c.png").write_text("no picture")
    with pytest.raises(ImageError, match=r"c\.png"):
        pictures_from([tmp_path])


# -- what cannot be compared ------------------------------------------------------------------------


def test_other_models_are_refused(tiny_bundle, reference: Bundle, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="not one model: model_type is smolvlm and idefics3"):
        check_fit(Bundle.open(tiny_bundle("tiny-smolvlm", "int4")), reference)
    with pytest.raises(RequestError, match=r"quantised itself.*--quant fp32"):
        check_fit(reference, Bundle.open(tiny_bundle("tiny-idefics3", "int8")))


def test_another_tokenizer_is_refused(tiny_checkpoints: dict[str, Path], reference: Bundle, tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(tiny_checkpoints["tiny-idefics3"], tmp_path / "checkpoint"))
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["model"]["merges"].pop()
    (checkpoint / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(RequestError, match=r"differ in tokenizer\.json"):
        check_fit(Bundle.open(export_checkpoint(checkpoint, tmp_path / "bundle")), reference)


def test_mistakes_are_one_line(tiny_bundle, reference: Bundle, tmp_path: Path) -> None:
    bundle, binary, short = tiny_bundle("tiny-idefics3", "int4"), tmp_path / "binary", tmp_path / "short"
    binary.write_bytes(b"\xff\xfe\x00")
    short.write_text("")
    against = ("--against", reference.folder)
    no_extra = "import sys; sys.modules['onnx_ir'] = None"
    for arguments, exit_code, words in [
        ((bundle, *against, "--text", tmp_path / "none.txt"), 2, ["none.txt", "cannot be read"]),
        ((bundle, *against, "--text", binary), 2, ["binary", "UTF-8"]),
        ((bundle, *against, "--text", short), 2, ["less than two tokens", "--text"]),
        ((bundle, *against, "--plot", "plot.png"), 2, ["plot.png", ".svg"]),
        ((bundle, *against, "--images", tmp_path / "none.png"), 5, ["none.png"]),
        ((bundle, *against, "--images", tmp_path, "--text-only"), 2, ["--text-only", "--images"]),
        ((tmp_path / "nowhere", *against), 3, ["nowhere"]),
        ((bundle, "--against", tmp_path / "nowhere", "--text-only"), 3, ["nowhere"]),
        ((bundle, "--against", bundle, "--text-only"), 2, ["quantised itself"]),
    ]:
        assert_fails(smol_edge("quality", *arguments), exit_code, *words)
    assert_fails(
        smol_edge("quality", bundle, *against, patch=no_extra), 1, "onnx_ir", "pip install 'smol-edge[export]'"
    )


# -- the command ------------------------------------------------------------------------------------


def test_against_a_checkpoint(tiny_bundle, tiny_checkpoints: dict[str, Path], sentences: Path, tmp_path: Path) -> None:
    """The same as against its fp32 bundle, of which nothing stays."""
    (tmp_path / "temporary").mkdir()
    arguments = (
        "quality",
        tiny_bundle("tiny-idefics3", "int8"),
        "--text",
        sentences,
        "--text-only",
        "--json",
        "--against",
    )
    found = smol_edge(*arguments, tiny_checkpoints["tiny-idefics3"], env={"TMPDIR": str(tmp_path / "temporary")})
    assert found.returncode == 0, found.stderr
    assert found.stderr.startswith("note: ")
    assert "removed afterwards" in found.stderr
    assert not list((tmp_path / "temporary").iterdir())
    at_once = smol_edge(*arguments, tiny_bundle("tiny-idefics3", "fp32"))
    assert at_once.stderr == ""
    (ours,), (theirs,) = (json.loads(result.stdout)["bundles"] for result in (found, at_once))
    assert ours == theirs
    assert ours["pictures"] == []
    assert 0 < ours["text"]["kl"] < 0.1


def test_on_openvino(tiny_bundle, tiny_checkpoints: dict[str, Path], sentences: Path) -> None:
    """Of a bundle for it alone, or because it was asked for; either way ONNX Runtime need not be there."""
    no_other, checkpoint = "sys.modules['onnxruntime'] = None", tiny_checkpoints["tiny-idefics3"]
    alone, both = (tiny_bundle("tiny-idefics3", "int8", *targets) for targets in (["openvino"], BOTH))
    rest = ("--against", checkpoint, "--text", sentences, "--max-tokens", "4", "--json")
    found = [
        smol_edge("quality", *arguments, *rest, patch=no_other)
        for arguments in ((alone,), (both, "--engine", "openvino", "--text-only"))
    ]
    assert [result.returncode for result in found] == [0, 0], found[0].stderr + found[1].stderr
    reports = [json.loads(result.stdout) for result in found]
    assert [report["engine"] for report in reports] == ["openvino", "openvino"]
    (first,), (second,) = (report["bundles"] for report in reports)
    assert first["size_bytes"] == second["size_bytes"]
    assert first["text"] == second["text"]
    assert 0 < first["text"]["kl"] < 0.1
    assert {tile["relative_error"] < 0.1 for picture in first["pictures"] for tile in picture["tiles"]} == {True}


def test_every_bundle_must_have_graphs_for_the_engine(tiny_bundle, tmp_path: Path) -> None:
    onnx, openvino = (tiny_bundle("tiny-idefics3", "int8", target) for target in BOTH)
    against = ("--against", tiny_bundle("tiny-idefics3", "fp32"), "--text-only")
    for arguments, words in [
        ((onnx, "--engine", "openvino", *against), ["none for openvino", "--target openvino"]),
        ((onnx, openvino, *against), ["none for onnxruntime", "--target onnx"]),
        ((openvino, *against), ["fp32", "none for openvino"]),
    ]:
        assert_fails(smol_edge("quality", *arguments), 2, *words)


def test_an_interrupt_leaves_no_reference_behind(
    tiny_bundle, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    interrupt = "import smolvlm_edge.quality\ndef measure(*_, **__): raise KeyboardInterrupt\n"
    arguments = ("quality", tiny_bundle("tiny-idefics3", "int8"), "--against", tiny_checkpoints["tiny-idefics3"])
    environment = {"TMPDIR": str(tmp_path)}
    patch = f"{interrupt}smolvlm_edge.quality.measure = measure"
    assert_fails(smol_edge(*arguments, "--text-only", env=environment, patch=patch), 130, "interrupted")
    assert not list(tmp_path.iterdir())


def test_two_bundles_side_by_side(tiny_bundle, sentences: Path, tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), "red").save(tmp_path / "red.png")
    bundles = [tiny_bundle("tiny-idefics3", quant) for quant in ("int8", "int4")]
    arguments = ["quality", *bundles, "--against", tiny_bundle("tiny-idefics3", "fp32"), "--text", sentences]
    arguments += ["--images", tmp_path / "red.png", "--max-tokens", "4", "--plot", tmp_path / "plot.svg"]
    result = smol_edge(*arguments)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    header = next(line for line in lines if "tiny-idefics3-int8" in line)
    assert header.split() == ["tiny-idefics3-int8", "tiny-idefics3-int4"]
    found = json.loads(smol_edge(*arguments, "--json").stdout)["bundles"]
    (kl,) = (line.split()[-2:] for line in lines if line.startswith("KL("))
    assert kl == [f"{bundle['text']['kl']:.4f}" for bundle in found]
    assert found[0]["text"]["kl"] < found[1]["text"]["kl"], "fewer bits lose more"
    assert "sentences.txt" in result.stdout
    assert "red.png" in result.stdout
    assert sum(line.startswith(("model.", HEAD)) for line in lines) == 10
    everything = smol_edge(*arguments, "--tensors").stdout
    for bundle in found:
        assert all(tensor["name"] in everything for tensor in bundle["tensors"])
    ElementTree.parse(tmp_path / "plot.svg")


def test_the_short_form_is_one_line() -> None:
    short = str(TextFidelity(tokens=2162, kl=0.0461, top1=0.864, perplexity=15.0, reference_perplexity=14.0))
    assert short == "KL 0.0461 nats to fp32, 86.4 % of top tokens kept, perplexity × 1.071 (2,162 tokens of text)"
    kept = {"tokens": 1024.0, "kl": 0.5, "top1": 0.5, "perplexity": 2.0, "reference_perplexity": 1.0}
    assert str(TextFidelity.from_dict(kept)).endswith("(1,024 tokens of text)"), "a bundle's manifest has numbers alone"


# -- the plot ---------------------------------------------------------------------------------------

SVG = "{http://www.w3.org/2000/svg}"
FRONTIER = {
    "int8": (186.0, 0.0049),
    "int4-rtn": (135.2, 0.325),
    "int4-gptq": (135.2, 0.121),
    "int4-gptq-b64": (128.0, 0.159),
    "int4-gptq-qkv8": (137.0, 0.047),
    "int4-gptq-qkv8-down8": (138.5, 0.046),
    "int4 <b> & more": (136.0, 0.05),
    "int2": (97.0, 3.2),
}


@pytest.fixture
def drawn(reference: Bundle) -> ElementTree.Element:
    text = TextFidelity(100, 0, 1, 10, 10)
    found = [
        Quality(name, "int4", Sizes({"embed_tokens": 0, "decoder": round(1e6 * size)}, 0), replace(text, kl=kl), (), ())
        for name, (size, kl) in FRONTIER.items()
    ]
    return ElementTree.fromstring(plot(found))


def test_smaller_is_left_and_worse_is_higher(drawn: ElementTree.Element) -> None:
    circles = list(drawn.iter(f"{SVG}circle"))
    by_size = sorted(range(len(circles)), key=lambda i: list(FRONTIER.values())[i][0])
    by_kl = sorted(range(len(circles)), key=lambda i: list(FRONTIER.values())[i][1])
    lefts, tops = ([float(circle.get(key)) for circle in circles] for key in ("cx", "cy"))
    assert [lefts[i] for i in by_size] == sorted(lefts)
    assert [tops[i] for i in by_kl] == sorted(tops, reverse=True)
    _, _, width, height = map(float, drawn.get("viewBox").split())
    assert all(0 < left < width for left in lefts)
    assert all(0 < top < height for top in tops)


def test_labels_do_not_overlap(drawn: ElementTree.Element) -> None:
    """Set in the sans-serif font that Pillow brings."""
    font = ImageFont.load_default(13)
    boxes = []
    for text in drawn.iter(f"{SVG}text"):
        width, x, y = font.getlength(text.text), float(text.get("x")), float(text.get("y"))
        left = x - {"start": 0, "middle": width / 2, "end": width}[text.get("text-anchor")]
        boxes.append((left, y - 10, left + width, y + 3, text.text))
    assert set(FRONTIER) < {box[4] for box in boxes}
    for (left, top, right, bottom, one), (left2, top2, right2, bottom2, other) in combinations(boxes, 2):
        assert right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top, (one, other)


def test_one_bundle_that_lost_nothing_can_be_drawn() -> None:
    quality = Quality(
        "fp32", "fp32", Sizes({"embed_tokens": 0, "decoder": 10**8}, 0), TextFidelity(9, 0, 1, 9, 9), (), ()
    )
    assert len(list(ElementTree.fromstring(plot([quality])).iter(f"{SVG}circle"))) == 1


def test_the_plot_can_be_read_on_a_dark_page(drawn: ElementTree.Element) -> None:
    assert "prefers-color-scheme: dark" in "".join(drawn.itertext())
