"""transformers.js 4.3.1 itself answers from the layout: on Node, and in headless Chromium through examples/browser.

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


@pytest.mark.parametrize("name", ["tiny-idefics3", "tiny-smolvlm"])
def test_on_node_answers_are_those_of_transformers(
    name: str, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folder = export_as(LAYOUTS["transformers.js"], tiny_checkpoints[name], tmp_path / "model", RECIPES["fp32"])
    goldens = {case: read_golden(ROOT / "tests" / "goldens" / f"{name}.npz", case) for case in CASES}
    questions = []
    for case, golden in goldens.items():
        paths = [tmp_path / f"{case}-{number}.png" for number, _ in enumerate(CASES[case].sizes)]
        for path, picture in zip(paths, CASES[case].pictures(), strict=True):
            picture.save(path)
        asked = {"images": list(map(str, paths)), "prompt": CASES[case].prompt, "split": CASES[case].split}
        questions.append({**asked, "max_tokens": len(golden["token_ids"])})
    for (case, golden), answer in zip(goldens.items(), run("ask.mjs", folder, lines=questions), strict=True):
        assert answer["input_ids"] == golden["input_ids"].tolist(), case
        assert answer["token_ids"] == golden["token_ids"].tolist(), case
        assert_close(np.array(answer["logits"]), golden["logits"])


@dataclass(frozen=True)
class Sample:
    """Questions of `smol-edge eval`, and how many the Python runtime has right."""

    items: list[Item]
    lines: list[dict[str, Any]]
    right: float


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    items, lines, right, folder = list(islice(drawn_items(0), SAMPLE)), [], 0.0, tmp_path_factory.mktemp("pictures")
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
    readme = [
        {"images": [str(EXAMPLES / image) for image in images], "prompt": prompt, "max_tokens": 64}
        for images, prompt, _ in README
    ]
    answers = run("ask.mjs", models[dtype], lines=[*readme, *sample.lines])
    for (_, prompt, expected), answer in zip(README, answers, strict=False):
        assert answer["text"].strip() == expected, prompt
    right = sum(score(answer["text"], item) for item, answer in zip(sample.items, answers[len(README) :], strict=True))
    print(f"{dtype}: {right:.0f} of {SAMPLE} right, the Python runtime {sample.right:.0f}")
    assert abs(right - sample.right) / SAMPLE <= 0.01


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


ASKED = [{"images": [str(EXAMPLES / image) for image in images], "prompt": prompt} for images, prompt, _ in README]


@pytest.mark.parametrize("host", [()], indirect=True)
@pytest.mark.parametrize("dtype", ["q8", "q4"])
def test_in_chromium_with_threads(dtype: str, host: str) -> None:
    for (_, prompt, expected), answer in zip(README, run("page.mjs", host, dtype, lines=ASKED), strict=True):
        assert answer["text"].strip() == expected, prompt
        assert re.search(r"tokens/s$", answer["status"])
        assert answer["isolated"]
        assert answer["errors"] == []


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
    for name in ("worker.js", "pictures.js"):
        shutil.copy(site / name, extension)
    shutil.copytree(site / "lib", extension / "lib")
    shutil.copytree(site / "models" / "q8", extension / "models" / "my-model")
    shutil.copy(EXAMPLES / "text.png", site)
    described, missing = run("extension.mjs", extension, lines=[f"{host}text.png", f"{host}none.png"])
    assert "HELLO" in described["text"]
    assert "error" in missing
