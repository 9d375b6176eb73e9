"""transformers.js 4.3.1 itself answers from the layout: on Node, in headless Chromium, and through examples/browser.

`make browser` stages it: SMOL_EDGE_TRANSFORMERS_JS names a folder in which npm installed @huggingface/transformers and
playwright-core. Chromium is /usr/bin/chromium, or what CHROMIUM names.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import CASES
from rig import assert_close, read_golden

from smolvlm_edge import SmolVLM
from smolvlm_edge.evaluation.drawn import drawn_items
from smolvlm_edge.evaluation.questions import Item
from smolvlm_edge.evaluation.scores import score
from smolvlm_edge.export.layouts import LAYOUTS, export_as
from smolvlm_edge.quantize import RECIPES

PACKAGE = "SMOL_EDGE_TRANSFORMERS_JS"
ROOT = Path(__file__).parent.parent
PROGRAMS, EXAMPLES = ROOT / "tests" / "transformersjs", ROOT / "examples"
ENGINE = "ort-wasm-simd-threaded.asyncify"
SAMPLE = 150
README = [
    (["shapes.png"], "Where is the blue star?", "The blue star is in the middle."),
    (["shapes.png"], "Is there a red circle?", "Yes, there is a red circle."),
    (["text.png"], "What does it say?", 'It says "HELLO".'),
    (["small-text.png"], "What does the green text say?", 'The green text says "K7XQ".'),
    (["chart.png"], "Which bar is the tallest?", "The blue bar is the tallest."),
    (["before.png", "after.png"], "What changed?", "The star changed from blue to orange."),
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(PACKAGE not in os.environ, reason=f"needs {PACKAGE}: make browser"),
]


def run(program: str, *arguments: str | Path, lines: list[Any], **variables: str) -> list[Any]:
    """What a program under Node answers, line by line."""
    command = ["node", PROGRAMS / program, os.environ[PACKAGE], *arguments]
    text, environment = "\n".join(map(json.dumps, lines)), os.environ | variables
    result = subprocess.run(
        list(map(str, command)), input=text, capture_output=True, text=True, check=False, env=environment
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The demonstration model for transformers.js, by the number format of its files."""
    place, layout = tmp_path_factory.mktemp("models"), LAYOUTS["transformers.js"]
    checkpoint = ROOT / "demo" / "checkpoint"
    return {
        dtype: export_as(layout, checkpoint, place / dtype, RECIPES[quant])
        for dtype, quant in {"q8": "int8", "q4": "int4"}.items()
    }


@pytest.fixture(scope="module")
def site(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page as docs/browser.md says to put it together."""
    folder = tmp_path_factory.mktemp("site") / "site"
    shutil.copytree(EXAMPLES / "browser", folder)
    (folder / "lib").mkdir(exist_ok=True)
    packages = Path(os.environ[PACKAGE]) / "node_modules"
    shutil.copy(packages / "@huggingface" / "transformers" / "dist" / "transformers.min.js", folder / "lib")
    for suffix in (".mjs", ".wasm"):
        shutil.copy(packages / "onnxruntime-web" / "dist" / f"{ENGINE}{suffix}", folder / "lib")
    for dtype, model in models.items():
        shutil.copytree(model, folder / "models" / dtype)
    (folder / "models" / "models.json").write_text(json.dumps(list(models)))
    shutil.copy(PROGRAMS / "asking.mjs", folder)
    return folder


@pytest.fixture
def host(site: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A static host; its address."""
    command = [sys.executable, str(site / "serve.py"), "0", *request.param]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    yield server.stdout.readline().strip()
    server.terminate()
    server.stdout.close()
    server.wait()


@pytest.fixture
def smol_edge_host(site: Path) -> Iterator[str]:
    """`smol-edge serve --site`; the site's address."""
    command = [sys.executable, "-m", "smolvlm_edge.cli", "serve", "--port", "0", "--site", str(site)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    address = next(found[0] for line in server.stderr if (found := re.search(r"http://[\d.:]+", line)))
    yield f"{address}/site/"
    server.terminate()
    server.stderr.close()
    server.wait()


class Parity:
    """The parity cases of a tiny checkpoint as questions, and what transformers answered."""

    def __init__(self, name: str, place: Path) -> None:
        self.lines, self.goldens = [], {}
        for case, asked in CASES.items():
            golden = self.goldens[case] = read_golden(ROOT / "tests" / "goldens" / f"{name}.npz", case)
            images = [place / f"{case}-{number}.png" for number, _ in enumerate(asked.sizes)]
            for path, picture in zip(images, asked.pictures(), strict=True):
                picture.save(path)
            question = {"images": list(map(str, images)), "prompt": asked.prompt, "split": asked.split}
            self.lines.append({**question, "max_tokens": len(golden["token_ids"])})

    def check(self, answers: list[Any]) -> None:
        for (case, golden), answer in zip(self.goldens.items(), answers, strict=True):
            assert answer["input_ids"] == golden["input_ids"].tolist(), case
            assert answer["token_ids"] == golden["token_ids"].tolist(), case
            assert_close(np.array(answer["logits"]), golden["logits"])


@pytest.mark.parametrize("name", ["tiny-idefics3", "tiny-smolvlm"])
def test_on_node_answers_are_those_of_transformers(
    name: str, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folder = export_as(LAYOUTS["transformers.js"], tiny_checkpoints[name], tmp_path / "model", RECIPES["fp32"])
    parity = Parity(name, tmp_path)
    parity.check(run("ask.mjs", folder, lines=parity.lines))


@pytest.mark.parametrize(("host", "threads"), [((), 2), (("--plain",), 1)], indirect=["host"])
@pytest.mark.parametrize("name", ["tiny-idefics3", "tiny-smolvlm"])
def test_in_chromium_answers_are_those_of_transformers(
    name: str, host: str, threads: int, site: Path, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """Without our page: in a document that two headers isolate, and in one that nothing does."""
    folder, parity = site / "models" / name, Parity(name, tmp_path)
    export_as(LAYOUTS["transformers.js"], tiny_checkpoints[name], folder, RECIPES["fp32"], force=folder.exists())
    answers = run("ask_in_chromium.mjs", host, name, lines=hosted(parity.lines, site))
    assert {(answer["isolated"], answer["threads"]) for answer in answers} == {(threads > 1, threads)}
    parity.check(answers)


@pytest.mark.parametrize("host", [()], indirect=True)
def test_on_webgpu_answers_are_those_of_transformers(
    host: str, site: Path, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """SwiftShader has subgroups of four, with which onnxruntime-web's attention is wrong unless they are hidden."""
    name, folder = "tiny-smolvlm", site / "models" / "webgpu"
    parity = Parity(name, tmp_path)
    export_as(LAYOUTS["transformers.js"], tiny_checkpoints[name], folder, RECIPES["fp32"], force=folder.exists())
    parity.check(run("ask_in_chromium.mjs", host, folder.name, "webgpu", lines=hosted(parity.lines, site)))


def hosted(lines: list[dict[str, Any]], site: Path) -> list[dict[str, Any]]:
    """Questions whose pictures lie on the host."""
    moved = []
    for line in lines:
        images = [
            f"/{shutil.copy(image, site / f'{index}-{Path(image).name}').name}"
            for index, image in enumerate(line["images"])
        ]
        moved.append({**line, "images": images})
    return moved


@pytest.mark.parametrize("quant", ["int8", "int4", "fp32"])
def test_every_graph_opens_in_onnxruntime_web(quant: str, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """WebAssembly has a kernel for every operator of every width."""
    folder = tmp_path / "model"
    export_as(LAYOUTS["transformers.js"], tiny_checkpoints["tiny-smolvlm"], folder, RECIPES[quant], calibration=None)
    opened = run("load.mjs", folder, lines=[])
    assert {each["file"] for each in opened} == {path.name for path in folder.glob("onnx/*.onnx")}
    assert [each for each in opened if "error" in each] == []


@dataclass(frozen=True)
class Sample:
    """The README's questions, then some of `smol-edge eval`, and how many of these the Python runtime has right."""

    items: list[Item]
    lines: list[dict[str, Any]]
    right: float

    def check(self, answers: list[Any]) -> None:
        for (_, prompt, expected), answer in zip(README, answers, strict=False):
            assert answer["text"].strip() == expected, prompt
        of_eval = zip(self.items, answers[len(README) :], strict=True)
        right = sum(score(answer["text"], item) for item, answer in of_eval)
        print(f"{right:g} of {SAMPLE} right, the Python runtime {self.right:g}")
        assert abs(right - self.right) / SAMPLE <= 0.01


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    items, right, folder = list(islice(drawn_items(0), SAMPLE)), 0.0, tmp_path_factory.mktemp("pictures")
    lines = [
        {"images": [str(EXAMPLES / image) for image in images], "prompt": prompt, "max_tokens": 64}
        for images, prompt, _ in README
    ]
    with SmolVLM.load() as model:
        for item in items:
            pictures = list(item.images())
            right += score(model.generate(pictures, item.prompt, max_tokens=128, detail=item.detail).text, item)
            paths = [folder / f"{item.index}-{number}.png" for number, _ in enumerate(pictures)]
            for path, picture in zip(paths, pictures, strict=True):
                picture.save(path)
            asked = {"images": list(map(str, paths)), "prompt": item.prompt, "split": item.detail != "low"}
            lines.append({**asked, "max_tokens": 128})
    return Sample(items, lines, right)


@pytest.mark.parametrize("dtype", ["q8", "q4"])
def test_on_node_the_demonstration_model_is_as_often_right(dtype: str, models: dict[str, Path], sample: Sample) -> None:
    sample.check(run("ask.mjs", models[dtype], lines=sample.lines))


@pytest.mark.parametrize("host", [()], indirect=True)
@pytest.mark.parametrize("dtype", ["q8", "q4"])
def test_in_chromium_the_demonstration_model_is_as_often_right(
    dtype: str, host: str, site: Path, sample: Sample
) -> None:
    """With matrices that were widened, as the page has them."""
    sample.check(run("ask_in_chromium.mjs", host, dtype, "widened", lines=hosted(sample.lines, site)))


ASKED = [{"images": [str(EXAMPLES / image) for image in images], "prompt": prompt} for images, prompt, _ in README]


@pytest.mark.parametrize("host", [()], indirect=True)
@pytest.mark.parametrize("dtype", ["q8", "q4"])
def test_in_chromium_with_threads(dtype: str, host: str) -> None:
    for (_, prompt, expected), answer in zip(README, run("page.mjs", host, dtype, lines=ASKED), strict=True):
        assert answer["text"].strip() == expected, prompt
        assert re.search(r"tokens/s$", answer["status"])
        assert answer["isolated"]
        assert answer["errors"] == []


def test_in_chromium_from_smol_edge_serve(smol_edge_host: str) -> None:
    (answer,) = run("page.mjs", smol_edge_host, "q8", lines=ASKED[:1], WITHOUT_SERVICE_WORKER="1")
    assert answer["text"].strip() == README[0][2]
    assert answer["isolated"]


@pytest.mark.parametrize("host", [("--plain",)], indirect=True)
def test_in_chromium_from_a_plain_host_and_then_without_a_network(host: str) -> None:
    """The service worker adds the headers, and has kept what the page needs."""
    before, offline, after = run("page.mjs", host, "q8", lines=[ASKED[0], {"offline": True}, ASKED[2]])
    assert before["text"].strip() == README[0][2]
    assert before["isolated"]
    assert "Loaded" in offline["status"]
    assert after["text"].strip() == README[2][2]


@pytest.mark.parametrize("host", [("--plain",)], indirect=True)
def test_in_chromium_with_one_thread(host: str) -> None:
    (answer,) = run("page.mjs", host, "q8", lines=ASKED[:1], WITHOUT_SERVICE_WORKER="1")
    assert answer["text"].strip() == README[0][2]
    assert not answer["isolated"]


@pytest.mark.parametrize("host", [()], indirect=True)
def test_on_webgpu_where_there_is_any(host: str) -> None:
    """SwiftShader, a processor that plays a graphics processor: it has no float16, so the page takes q4 itself."""
    (answer,) = run("page.mjs", host, "q4", "webgpu", lines=ASKED[:1])
    assert answer["text"].strip() == README[0][2]


@pytest.mark.parametrize("host", [()], indirect=True)
def test_the_extension_describes_a_picture_of_another_site(host: str, site: Path, tmp_path: Path) -> None:
    """Put together as docs/browser.md says."""
    extension = shutil.copytree(EXAMPLES / "browser-extension", tmp_path / "extension")
    for name in ("worker.js", "pictures.js", "webgpu.js"):
        shutil.copy(site / name, extension)
    shutil.copytree(site / "lib", extension / "lib")
    shutil.copytree(site / "models" / "q8", extension / "models" / "my-model")
    shutil.copy(EXAMPLES / "text.png", site)
    described, missing = run("extension.mjs", extension, lines=[f"{host}text.png", f"{host}none.png"])
    assert "HELLO" in described["text"]
    assert "error" in missing
