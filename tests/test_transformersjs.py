"""The layout for transformers.js: names, configuration and numbers, in ONNX Runtime's Python.

What transformers.js itself makes of it is in test_transformersjs_browser.py. The names asked for here are those that
transformers.js 4.3.1 looks for (src/models/session_config.js, modeling_utils.js, utils/dtypes.js).
"""

import base64
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import PIL
import pytest
from command import assert_fails, smol_edge
from pictures import CASES, draw
from PIL import Image
from released_files import RELEASED
from rig import Rig, assert_close, read_golden
from sample_pictures import PICTURES, SETTINGS, SHAPES, resize_fingerprint

from smolvlm_edge.bundle.config import ImageConfig
from smolvlm_edge.bundle.reading import read_json
from smolvlm_edge.export.layouts import LAYOUTS, export_as
from smolvlm_edge.pictures.images import cut
from smolvlm_edge.quantize import RECIPES

GOLDENS = Path(__file__).parent / "goldens"
IMAGES = read_json(GOLDENS / "images.json")
SUFFIXES = {"fp32": "", "fp16": "_fp16", "q8": "_quantized", "q4": "_q4", "q4f16": "_q4f16"}
QUANTS = {"fp32": "fp32", "fp16": "fp32", "q8": "int8", "q4": "int4", "q4f16": "int4"}
SESSIONS = ("vision_encoder", "embed_tokens", "decoder_model_merged")


@pytest.fixture(scope="module")
def layouts(tiny_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The first tiny checkpoint as a folder for transformers.js, by --quant."""
    place, checkpoint = tmp_path_factory.mktemp("transformersjs"), tiny_checkpoints["tiny-idefics3"]
    layout = LAYOUTS["transformers.js"]
    return {
        quant: export_as(layout, checkpoint, place / quant, RECIPES[quant], calibration=None)
        for quant in ("fp32", "int8", "int4")
    }


class Graphs:
    """The three graphs of one number format, called as transformers.js calls them."""

    def __init__(self, folder: Path, dtype: str, **session_config: str) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        for key, value in session_config.items():
            options.add_session_config_entry(f"session.{key}", value)
        self.sessions = {
            name: ort.InferenceSession(folder / "onnx" / f"{name}{SUFFIXES[dtype]}.onnx", options) for name in SESSIONS
        }

    def image_features(self, tiles: np.ndarray) -> np.ndarray:
        (features,) = self.sessions["vision_encoder"].run(["image_features"], {"pixel_values": tiles[None]})
        return features

    def logits(self, embeds: np.ndarray, kept: int = 1, steps: tuple[int, ...] = ()) -> np.ndarray:
        """Logits of the last call; the prompt is given in pieces that end at `steps`."""
        decoder = self.sessions["decoder_model_merged"]
        cache = {}
        for value in decoder.get_inputs():
            if value.name.startswith("past_key_values."):
                shape = [1 if size == "batch_size" else 0 if isinstance(size, str) else size for size in value.shape]
                cache[value.name] = np.zeros(shape, np.float16 if "float16" in value.type else np.float32)
        names = [value.name for value in decoder.get_outputs()]
        ends, logits = [*steps, embeds.shape[1]], None
        for begin, end in zip([0, *steps], ends, strict=True):
            inputs = {"inputs_embeds": embeds[:, begin:end], "attention_mask": np.ones((1, end), np.int64), **cache}
            outputs = dict(zip(names, decoder.run(None, {**inputs, "num_logits_to_keep": np.array(kept)}), strict=True))
            logits = outputs.pop("logits")
            cache = {name.replace("present", "past_key_values"): value for name, value in outputs.items()}
        return logits


@pytest.mark.parametrize("quant", ["fp32", "int8", "int4"])
def test_files_are_named_as_transformers_js_looks_for_them(quant: str, layouts: dict[str, Path]) -> None:
    folder = layouts[quant]
    dtypes = [dtype for dtype in SUFFIXES if QUANTS[dtype] == quant]
    graphs = {f"{name}{SUFFIXES[dtype]}.onnx" for name in SESSIONS for dtype in dtypes}
    data = {f"{name}_data" for name in graphs}
    assert {path.name for path in (folder / "onnx").iterdir()} == graphs | data
    config = read_json(folder / "config.json")["transformers.js_config"]
    assert config["use_external_data_format"] == dict.fromkeys(graphs, 1)
    assert config["dtype"] == dtypes[0]
    assert config["device_config"]["webgpu"]["dtype"] == dtypes[-1]
    assert not (folder / "bundle.json").exists()


def test_what_is_read_from_the_configuration(layouts: dict[str, Path], tiny_checkpoints: dict[str, Path]) -> None:
    folder, checkpoint = layouts["int4"], tiny_checkpoints["tiny-idefics3"]
    text = read_json(folder / "config.json")["text_config"]
    wanted = {"num_key_value_heads", "num_hidden_layers", "hidden_size", "num_attention_heads", "head_dim"}
    assert wanted <= text.keys()
    assert text["model_type"] == "llama"
    template = read_json(checkpoint / "chat_template.json")["chat_template"]
    assert read_json(folder / "tokenizer_config.json")["chat_template"] == template, "a file alone is not seen"
    preprocessor = read_json(folder / "preprocessor_config.json")
    assert preprocessor["processor_class"] == "Idefics3Processor"
    assert preprocessor["image_processor_type"] == "Idefics3ImageProcessor"
    assert ImageConfig.from_folder(folder) == ImageConfig.from_folder(checkpoint)
    assert read_json(folder / "processor_config.json")["image_seq_len"] == 4


def test_an_image_processor_within_the_processor_is_brought_to_the_top(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """As transformers 5 saves it, where transformers.js does not look."""
    checkpoint = shutil.copytree(tiny_checkpoints["tiny-idefics3"], tmp_path / "checkpoint")
    image = read_json(checkpoint / "preprocessor_config.json")
    (checkpoint / "preprocessor_config.json").unlink()
    processor = read_json(checkpoint / "processor_config.json")
    (checkpoint / "processor_config.json").write_text(json.dumps({**processor, "image_processor": image}))
    out = export_as(LAYOUTS["transformers.js"], checkpoint, tmp_path / "out", RECIPES["fp32"])
    found = read_json(out / "preprocessor_config.json")
    assert {key: found[key] for key in ("size", "max_image_size", "image_mean")} == {
        key: image[key] for key in ("size", "max_image_size", "image_mean")
    }
    assert read_json(out / "processor_config.json")["image_seq_len"] == 4


@pytest.mark.parametrize("dtype", SUFFIXES)
def test_inputs_and_outputs(dtype: str, layouts: dict[str, Path]) -> None:
    graphs = Graphs(layouts[QUANTS[dtype]], dtype)
    vision, table, decoder = (graphs.sessions[name] for name in SESSIONS)
    (pixels,), (features,) = vision.get_inputs(), vision.get_outputs()
    assert (pixels.name, pixels.type, pixels.shape[2:]) == ("pixel_values", "tensor(float)", [3, 64, 64])
    assert (features.name, features.type, features.shape[1:]) == ("image_features", "tensor(float)", [4, 64])
    assert [value.name for value in table.get_inputs()] == ["input_ids"]
    assert [(value.name, value.type) for value in table.get_outputs()] == [("inputs_embeds", "tensor(float)")]
    half = "tensor(float16)" if dtype.endswith("16") else "tensor(float)"
    inputs = {value.name: (value.type, value.shape) for value in decoder.get_inputs()}
    cache = [f"{layer}.{part}" for layer in range(3) for part in ("key", "value")]
    past = {f"past_key_values.{name}" for name in cache}
    assert inputs.keys() == {"inputs_embeds", "attention_mask", "num_logits_to_keep"} | past
    assert inputs["num_logits_to_keep"] == ("tensor(int64)", [])
    for name in past:
        type_, (batch, heads, length, width) = inputs[name]
        assert (type_, batch, heads, width) == (half, "batch_size", 2, 16)
        assert isinstance(length, str), "transformers.js takes 0 for a name that it does not know"
        assert length != "batch_size"
    outputs = {value.name: value.type for value in decoder.get_outputs()}
    assert outputs == {"logits": "tensor(float)"} | {f"present.{name}": half for name in cache}


def test_fp32_gives_the_logits_of_transformers(layouts: dict[str, Path], tiny_bundle: Callable[..., Path]) -> None:
    graphs, rig = Graphs(layouts["fp32"], "fp32"), Rig(tiny_bundle())
    golden = read_golden(GOLDENS / "tiny-idefics3.npz", "two_pictures")
    pixels = np.concatenate([p for picture in rig.cut(CASES["two_pictures"]) for p in picture.pixel_values()])
    features = graphs.image_features(pixels)
    assert_close(features, golden["image_features"])
    (embeds,) = graphs.sessions["embed_tokens"].run(None, {"input_ids": golden["input_ids"][None]})
    embeds[0][golden["input_ids"] == rig.model.bundle.model.image_token_id] = features.reshape(-1, 64)
    assert_close(graphs.logits(embeds)[0, -1], golden["logits"])
    assert_close(graphs.logits(embeds, steps=(40, 41, 100))[0, -1], golden["logits"])
    rig.close()


def test_all_logits_are_given_where_none_are_counted(layouts: dict[str, Path]) -> None:
    graphs, golden = Graphs(layouts["fp32"], "fp32"), read_golden(GOLDENS / "tiny-idefics3.npz", "text")
    (embeds,) = graphs.sessions["embed_tokens"].run(None, {"input_ids": golden["input_ids"][None]})
    assert_close(graphs.logits(embeds, kept=0)[0], golden["all_logits"])
    assert_close(graphs.logits(embeds, kept=3)[0], golden["all_logits"][-3:])


@pytest.mark.parametrize(("dtype", "bound"), [("q8", 1e-5), ("q4", 1e-5), ("q4f16", 0.1), ("fp16", 1e-2)])
def test_every_width_computes_what_the_bundle_computes(
    dtype: str, bound: float, layouts: dict[str, Path], tiny_bundle: Callable[..., Path]
) -> None:
    """In q8 and q4 the same kernels run; in float16 activations are rounded otherwise."""
    quant = QUANTS[dtype]
    graphs, rig = Graphs(layouts[quant], dtype), Rig(tiny_bundle("tiny-idefics3", quant))
    golden = read_golden(GOLDENS / "tiny-idefics3.npz", "one_picture")
    pixels = np.concatenate([p for picture in rig.cut(CASES["one_picture"]) for p in picture.pixel_values()])
    alone = np.concatenate([graphs.image_features(tile[None]) for tile in pixels])
    assert apart(alone, rig.image_features(CASES["one_picture"])) <= bound
    assert apart(graphs.image_features(pixels), alone) <= 0.02, "of tiles together activations have other scales"
    ids = golden["input_ids"]
    (embeds,) = graphs.sessions["embed_tokens"].run(None, {"input_ids": ids[None]})
    table = rig.embed_tokens(ids[None])
    np.testing.assert_array_equal(embeds, table.astype(np.float16) if dtype == "fp16" else table)
    assert apart(graphs.logits(embeds)[0, -1], rig.decoder(table[0])[-1]) <= bound
    rig.close()


def test_matrices_widened_when_a_graph_is_opened_are_the_same(layouts: dict[str, Path]) -> None:
    """The session option by which a page multiplies in float32; activations are not rounded to int8 then."""
    for quant, dtype, bound in (("int8", "q8", 0.05), ("int4", "q4", 0.1)):
        plain, widened = Graphs(layouts[quant], dtype), Graphs(layouts[quant], dtype, disable_quant_qdq="1")
        embeds = np.random.default_rng(0).normal(size=(1, 20, 64)).astype(np.float32)
        assert apart(widened.logits(embeds), plain.logits(embeds)) < bound


def test_no_operator_that_webassembly_has_no_kernel_for(layouts: dict[str, Path]) -> None:
    for path in sorted(layouts["int4"].glob("onnx/*.onnx")):
        operators = {node.op_type for node in ir.load(path).graph}
        assert "GatherBlockQuantized" not in operators, path
        slow = {"DynamicQuantizeMatMul"} if path.stem.endswith("16") else {"MatMulNBits"}
        assert not operators & slow, path


def test_the_record_names_every_file(layouts: dict[str, Path]) -> None:
    """The page keeps files by these, and the quality is told in the words of a bundle."""
    folder = layouts["int4"]
    record = read_json(folder / "smol-edge.json")
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    paths.pop("smol-edge.json")
    assert {name: entry["sha256"] for name, entry in record["files"].items()} == {
        name: sha256(path.read_bytes()).hexdigest() for name, path in paths.items()
    }
    assert record["recipe"]["name"] == "int4"
    assert {"kl", "top1"} <= record["lost"].keys()


def test_what_does_not_go_with_the_layout(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    export = ("export", tiny_checkpoints["tiny-idefics3"], "--out", out)
    unknown = smol_edge(*export, "--layout", "tensorflow.js")
    assert unknown.returncode == 2
    assert "transformers.js" in unknown.stderr
    assert smol_edge(*export, "--layout", "transformers.js", "--quant", "q2").returncode == 2
    result = smol_edge(*export, "--layout", "transformers.js", "--target", "openvino")
    assert_fails(result, 2, "--layout transformers.js", "--target openvino")
    result = smol_edge(*export, "--layout", "transformers.js", "--vision", "int8-static")
    assert_fails(result, 2, "transformers.js", "--vision int8-static")
    assert not out.exists()


def test_a_folder_in_the_way(layouts: dict[str, Path], tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    export = ("export", tiny_checkpoints["tiny-idefics3"], "--layout", "transformers.js", "--quant", "fp32", "--out")
    ours, theirs = shutil.copytree(layouts["int4"], tmp_path / "ours"), tmp_path / "theirs"
    assert_fails(smol_edge(*export, ours), 2, "exists", "--force")
    shutil.copytree(ours, theirs)
    (theirs / "onnx" / "notes.txt").write_text("mine")
    assert_fails(smol_edge(*export, theirs, "--force"), 2, "notes.txt", "--force does not replace it")
    assert smol_edge(*export, ours, "--force").returncode == 0
    assert {path.name for path in (ours / "onnx").iterdir()} == {
        path.name for path in (layouts["fp32"] / "onnx").iterdir()
    }
    assert {path.name for path in tmp_path.iterdir()} == {"ours", "theirs"}


needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")


@needs_node
@pytest.mark.skipif(int(PIL.__version__.partition(".")[0]) < 13, reason="Pillow 13 has another order of passes")
def test_the_page_cuts_pictures_to_the_last_bit_as_pillow_does() -> None:
    config = {
        "resample": 1,
        "rescale_factor": 1 / 255,
        "image_mean": [0.5, 0.48, 0.4],
        "image_std": [0.5, 0.26, 0.3],
        "do_image_splitting": True,
    }
    edges = ({"size": {"longest_edge": 256}, "max_image_size": {"longest_edge": 64}},)
    released = ({"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}},)
    sizes = ((300, 200), (97, 143), (64, 64), (40, 30), (1, 300), (513, 77), (200, 1000), (3, 3))
    cases: list[dict[str, Any]] = [
        {"size": size, "detail": detail, "config": {**config, **rules, "resample": resample}}
        for rules in edges
        for size in sizes
        for detail, resample in (("high", 1), ("low", 1), ("auto", 1), ("high", 2), ("high", 3))
    ]
    cases += [{"size": (640, 427), "detail": "high", "config": {**config, **rules}} for rules in released]
    lines, expected = [], []
    for number, case in enumerate(cases):
        drawn = draw(max(case["size"][0], 24), case["size"][1], seed=number % 7 + 1)
        picture = drawn.crop((0, 0, *case["size"]))
        lines.append(page_line(picture, case["config"], case["detail"]))
        rules = ImageConfig(
            longest_edge=case["config"]["size"]["longest_edge"],
            tile_size=case["config"]["max_image_size"]["longest_edge"],
            split=True,
            resample=case["config"]["resample"],
            rescale_factor=config["rescale_factor"],
            image_mean=tuple(config["image_mean"]),
            image_std=tuple(config["image_std"]),
        )
        tiles = cut(picture, rules, detail=case["detail"])
        squares = b"".join(np.ascontiguousarray(square).tobytes() for square in tiles.squares)
        values = b"".join(value.tobytes() for value in tiles.pixel_values())
        expected.append(
            {
                "rows": tiles.rows,
                "columns": tiles.columns,
                "squares": sha256(squares).hexdigest(),
                "pixel_values": sha256(values).hexdigest(),
            }
        )
    for case, found, tiles in zip(cases, cut_by_the_page(lines), expected, strict=True):
        assert found == tiles, case


@needs_node
@pytest.mark.skipif(IMAGES["resize_fingerprint"] != resize_fingerprint(), reason="made with another Pillow")
def test_the_page_cuts_pictures_to_the_last_bit_as_transformers_does() -> None:
    released = ImageConfig.from_folder(RELEASED)
    small = [name for name in SHAPES if name != "page_2480x3508"]
    cases = [(name, setting) for name in small for setting in ("unsplit", "edge_1024", "tile_364", "uneven_levels")]
    cases += [("landscape", "released"), ("page_2480x3508", "unsplit")]
    lines = []
    for name, setting in cases:
        rules = replace(released, **SETTINGS[setting])
        config = {
            "resample": rules.resample,
            "rescale_factor": rules.rescale_factor,
            "image_mean": rules.image_mean,
            "image_std": rules.image_std,
            "do_image_splitting": rules.split,
            "size": {"longest_edge": rules.longest_edge},
            "max_image_size": {"longest_edge": rules.tile_size},
        }
        lines.append(page_line(PICTURES[name](), config, "high"))
    for (name, setting), found in zip(cases, cut_by_the_page(lines), strict=True):
        golden = IMAGES["cases"][name][setting]
        assert {key: golden[key] for key in ("rows", "columns")} == {key: found[key] for key in ("rows", "columns")}
        assert found["pixel_values"] == golden["sha256"], (name, setting)


def page_line(picture: Image.Image, config: dict[str, Any], detail: str) -> str:
    """A picture for pixels.mjs."""
    rgb = base64.b64encode(picture.tobytes()).decode()
    line = {"width": picture.width, "height": picture.height, "rgb": rgb, "config": config, "detail": detail}
    return json.dumps(line)


def cut_by_the_page(lines: list[str]) -> list[Any]:
    """What examples/browser/pictures.js makes of pictures."""
    command = ["node", str(Path(__file__).parent / "transformersjs" / "pixels.mjs")]
    result = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def apart(actual: np.ndarray, expected: np.ndarray) -> float:
    """How far apart, as a part of the norm."""
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
