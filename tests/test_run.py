"""`smol-edge run` and `SmolVLM`: answers, options, limits and mistakes, as a user meets them."""

import ast
import io
import json
import logging
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from command import assert_fails, smol_edge
from PIL import Image

from smolvlm_edge import EngineError, ImageError, RequestError, SmolVLM
from smolvlm_edge.generation.timings import peak_rss_bytes

QUESTION, STORY = "What is this?", "Tell me a story."


@pytest.fixture(scope="module")
def bundle(tiny_bundle) -> Path:
    return tiny_bundle("tiny-idefics3", "fp32")


@pytest.fixture(scope="module")
def model(bundle: Path) -> SmolVLM:
    return SmolVLM.load(bundle)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


# -- the command ------------------------------------------------------------------------------------


def test_the_answer_is_on_stdout_and_nothing_else(bundle: Path, picture: Path, model: SmolVLM) -> None:
    result = smol_edge("run", picture, QUESTION, "--model", bundle, "--max-tokens", "12")
    assert result.returncode == 0
    assert result.stderr == "note: the answer was cut off after 12 tokens: --max-tokens N allows more\n"
    text = model.generate(picture, QUESTION, max_tokens=12).text
    assert result.stdout == text + "\n"
    result = smol_edge("run", picture, QUESTION, "--model", bundle, "--stop", text[5], "--max-tokens", "12")
    assert (result.stdout, result.stderr) == (text[: text.index(text[5])] + "\n", "")


def test_json_has_text_counts_and_timings(bundle: Path, picture: Path) -> None:
    result = smol_edge("run", picture, picture, QUESTION, "--model", bundle, "--max-tokens", "5", "--json")
    report = json.loads(result.stdout)
    assert report["finish_reason"] == "length"
    assert report["generated_tokens"] == 5
    assert report["tiles"] == 2 * report["encoded_tiles"], "the same picture twice"
    assert report["prompt_tokens"] > 4 * report["tiles"]
    for key in ("load_ms", "preprocess_ms", "vision_ms", "prefill_ms", "decode_tokens_per_s"):
        assert report[key] > 0
    assert report["ttft_ms"] > report["vision_ms"] + report["prefill_ms"]
    assert 1e7 < report["peak_rss_bytes"] < 1e10


def test_a_picture_from_stdin(bundle: Path, picture: Path) -> None:
    options = ("--model", bundle, "--max-tokens", "6")
    patch = f"import io; sys.stdin = io.TextIOWrapper(open({str(picture)!r}, 'rb'))"
    assert (
        smol_edge("run", "-", QUESTION, *options, patch=patch).stdout
        == smol_edge("run", picture, QUESTION, *options).stdout
    )


def test_the_model_may_come_from_the_environment(bundle: Path) -> None:
    result = smol_edge("run", STORY, "--max-tokens", "2", env={"SMOL_EDGE_MODEL": str(bundle)})
    assert result.returncode == 0


def test_less_detail_makes_fewer_tiles(bundle: Path, picture: Path) -> None:
    options = ("--model", bundle, "--max-tokens", "1", "--json")
    assert json.loads(smol_edge("run", picture, QUESTION, "--detail", "low", *options).stdout)["tiles"] == 1
    small = picture.parent / "small.png"
    Image.new("RGB", (20, 10)).save(small)
    assert json.loads(smol_edge("run", small, QUESTION, "--detail", "auto", *options).stdout)["tiles"] == 1
    assert json.loads(smol_edge("run", small, QUESTION, *options).stdout)["tiles"] > 1
    assert json.loads(smol_edge("run", picture, QUESTION, "--longest-edge", "64", *options).stdout)["tiles"] == 1
    assert json.loads(smol_edge("run", picture, QUESTION, *options).stdout)["tiles"] > 1


def test_a_terminal_that_cannot_show_a_character_shows_another(bundle: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    arguments = ("run", STORY, "--model", bundle, "--max-tokens", "40")
    result = smol_edge(*arguments, env=environment, patch="sys.stdout.isatty = lambda: True")
    assert result.returncode == 0
    assert "?" in result.stdout


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-16"])
def test_a_program_gets_unicode_whatever_the_locale(encoding: str, bundle: Path) -> None:
    said = "日本 – naïve 🙂"
    arguments = ("run", STORY, "--model", bundle, "--choices", said)
    options = {"env": os.environ | {"PYTHONIOENCODING": encoding}, "encoding": "utf-8"}
    assert smol_edge(*arguments, **options).stdout == said + "\n"
    assert json.loads(smol_edge(*arguments, "--json", **options).stdout)["text"] == said
    if encoding != "utf-16":
        terminal = smol_edge(*arguments, "--json", **options, patch="sys.stdout.isatty = lambda: True")
        assert json.loads(terminal.stdout)["text"] == said


def test_the_sampling_options_are_those_of_the_object(bundle: Path, model: SmolVLM) -> None:
    wishes = {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.3, "seed": 7}
    options = [text for name, value in wishes.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    result = smol_edge("run", STORY, "--model", bundle, "--max-tokens", "12", *options, encoding="utf-8")
    assert result.stdout == model.generate([], STORY, max_tokens=12, **wishes).text + "\n"


def test_an_answer_that_was_completed_says_so(bundle: Path) -> None:
    arguments = ("run", STORY, "--model", bundle, "--regex", "[a-z]{9,}", "--max-tokens", "10", "--complete")
    result = smol_edge(*arguments)
    assert result.stderr == "note: the answer was brought to an end after 10 tokens: --max-tokens N allows more\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--schema", "deep.json"], ["deep.json", "deep"]),
        (["--schema", "/dev/zero"], ["/dev/zero", "1 MB"]),
        (["--schema", "latin.json"], ["latin.json", "JSON"]),
        (["--schema", "."], ["cannot be read"]),
        (["--regex", "(" * 90_000], ["regex"]),
    ],
)
def test_forms_that_cannot_be_read(bundle: Path, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    (tmp_path / "deep.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xfc"}')
    result = smol_edge("run", STORY, "--model", bundle, *arguments, cwd=tmp_path)
    assert_fails(result, 2, *words)
    assert len(result.stderr) < 1200


def test_choices_may_stand_in_lines(bundle: Path) -> None:
    result = smol_edge("run", STORY, "--model", bundle, "--choices", 'one,"two, or\nthree"\nfour')
    assert result.stdout in ("one\n", "two, or\nthree\n", "four\n"), result.stderr


def test_a_name_cannot_steer_the_terminal(bundle: Path, tmp_path: Path) -> None:
    result = smol_edge("run", "a\x1b]0;owned\x07\u202e.png", QUESTION, "--model", bundle, cwd=tmp_path)
    assert_fails(result, 5, "\\x1b]0;owned\\x07\\u202e.png")
    assert "\x1b" not in result.stderr


def test_a_signal_while_the_engine_is_imported(bundle: Path) -> None:
    """Imports make an ImportError of it, which is no reason to install anything again."""
    for name, code in (("SIGINT", 130), ("SIGTERM", 143)):
        patch = f"""
import signal, os
import smolvlm_edge.graphs.engines as engines
def interrupted(*arguments):
    try:
        os.kill(os.getpid(), signal.{name})
        import time; time.sleep(5)
    except BaseException as error:
        raise engines.EngineError("onnxruntime cannot be loaded: pip install --force-reinstall") from error
engines.open_engine = interrupted
"""
        result = smol_edge("run", STORY, "--model", bundle, patch=patch)
        assert result.returncode == code, result.stderr
        assert "reinstall" not in result.stderr


def test_no_stdout(bundle: Path) -> None:
    assert_fails(smol_edge("run", STORY, "--model", bundle, preexec_fn=lambda: os.close(1)), 1, "stdout is closed")


@pytest.mark.parametrize(
    ("raised", "words"),
    [("MemoryError", "out of memory"), ('RuntimeError("can\'t start new thread")', "no more threads")],
)
def test_a_machine_that_gives_no_more(bundle: Path, raised: str, words: str) -> None:
    patch = f"""
from smolvlm_edge import SmolVLM
def refused(*arguments, **options):
    raise {raised}
SmolVLM.stream = refused
"""
    assert_fails(smol_edge("run", STORY, "--model", bundle, patch=patch), 1, words)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written(bundle: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "smolvlm_edge.cli", "run", STORY, "--model", str(bundle)]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "No space left" in result.stderr


@pytest.mark.parametrize("place", ["loop", "loop/x"])
@pytest.mark.parametrize("command", ["describe", "export"])
def test_output_that_is_a_link_to_itself(bundle: Path, picture: Path, tmp_path: Path, place: str, command: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    arguments: dict[str, tuple[str | Path, ...]] = {
        "describe": ("describe", picture, "--model", bundle),
        "export": ("export", Path(__file__).parent / "checkpoints" / "tiny-idefics3"),
    }
    result = smol_edge(*arguments[command], "--out", tmp_path / place)
    assert_fails(result, result.returncode, "loop")
    assert result.returncode in (1, 2)
    assert "Traceback" not in result.stderr


def test_stdin_that_holds_no_picture(bundle: Path) -> None:
    options = ("run", "-", QUESTION, "--model", bundle)
    assert_fails(smol_edge(*options, stdin=subprocess.DEVNULL), 5, "empty")
    assert_fails(smol_edge(*options, preexec_fn=lambda: os.close(0)), 5, "stdin is closed")
    assert_fails(smol_edge("run", "-", "-", QUESTION, "--model", bundle), 2, "more than once")
    patch = "import smolvlm_edge.pictures.sources; smolvlm_edge.pictures.sources.MAX_FILE_BYTES = 1 << 20"
    with Path("/dev/zero").open() as endless:
        assert_fails(smol_edge(*options, patch=patch, stdin=endless), 5, "more than")


def test_help_names_an_example_and_the_exit_codes() -> None:
    assert "Example" in smol_edge("run", "--help").stdout
    assert "130 interrupt" in smol_edge("--help").stdout


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["missing.jpg", QUESTION], 5, ["missing.jpg", "does not exist"]),
        ([".", QUESTION], 5, ["folder"]),
        (["empty.png", QUESTION], 5, ["empty.png", "empty"]),
        (["text.jpg", QUESTION], 5, ["text.jpg", "no picture"]),
        (["cut.jpg", QUESTION], 5, ["cut.jpg", "truncated"]),
        (["bomb.png", QUESTION], 5, ["bomb.png", "pixels"]),
        ([""], 2, ["prompt is empty"]),
        (["picture.png", "  "], 2, ["prompt is empty"]),
        (["picture.png"], 2, ["picture.png", "prompt"]),
        (["picture.png", QUESTION, "--max-tokens", "0"], 2, ["max_tokens"]),
        (["picture.png", QUESTION, "--temperature", "-1"], 2, ["temperature"]),
        (["picture.png", QUESTION, "--longest-edge", "0"], 2, ["longest_edge"]),
        (["picture.png", "<image> twice"], 2, ["<image>"]),
        (["word " * 3000], 2, ["context"]),
    ],
)
def test_mistakes(bundle: Path, picture: Path, arguments: list[str], exit_code: int, words: list[str]) -> None:
    folder = picture.parent
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("a letter, not a picture")
    jpeg = io.BytesIO()
    Image.open(picture).save(jpeg, "JPEG")
    (folder / "cut.jpg").write_bytes(jpeg.getvalue()[:-200])
    png = bytearray(picture.read_bytes())
    png[16:24] = (50_000).to_bytes(4) * 2  # width and height of the header
    png[29:33] = __import__("zlib").crc32(png[12:29]).to_bytes(4)
    (folder / "bomb.png").write_bytes(png)
    assert_fails(smol_edge("run", *arguments, "--model", bundle, cwd=folder), exit_code, *words)


def test_unknown_options_and_missing_arguments_are_usage_errors(bundle: Path) -> None:
    assert smol_edge("run", "--model", bundle).returncode == 2
    assert smol_edge("run", STORY, "--bogus").returncode == 2


def test_a_file_of_several_pages_is_said_to_be_one(bundle: Path, tmp_path: Path) -> None:
    pages = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    pages[0].save(tmp_path / "pages.tiff", save_all=True, append_images=pages[1:])
    result = smol_edge("run", tmp_path / "pages.tiff", QUESTION, "--model", bundle, "--max-tokens", "1")
    assert result.returncode == 0
    assert result.stderr.startswith("note: ")
    assert "only the first is used" in result.stderr


def test_ctrl_c_in_the_middle_of_an_answer(bundle: Path) -> None:
    patch = """
import os, signal
from smolvlm_edge import SmolVLM
stream = SmolVLM.stream
def interrupted(*arguments, **options):
    for count, chunk in enumerate(stream(*arguments, **options)):
        yield chunk
        if count == 2:
            os.kill(os.getpid(), signal.SIGINT)
SmolVLM.stream = interrupted
"""
    result = smol_edge("run", STORY, "--model", bundle, patch=patch)
    assert_fails(result, 130, "interrupted")


def test_without_the_export_extra_the_command_says_what_to_install(tmp_path: Path) -> None:
    patch = "sys.modules['safetensors'] = None"
    assert_fails(smol_edge("export", tmp_path, patch=patch), 1, "pip install 'smol-edge[export]'")


# -- the object -------------------------------------------------------------------------------------


def test_generate_is_the_join_of_stream(model: SmolVLM, picture: Path) -> None:
    chunks = list(model.stream(picture, QUESTION, max_tokens=20))
    answer = model.generate(picture, QUESTION, max_tokens=20)
    assert answer.text == str(answer) == "".join(chunk.text for chunk in chunks)
    assert answer.token_ids == tuple(chunk.token_id for chunk in chunks)
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert [chunk.timings.generated_tokens for chunk in chunks] == list(range(1, len(chunks) + 1))


def test_an_end_token_ends_the_answer_and_is_not_shown(model: SmolVLM, monkeypatch) -> None:
    free = model.generate([], STORY, max_tokens=10)
    end = free.token_ids[4]
    first = free.token_ids.index(end)
    monkeypatch.setattr(type(model.bundle.model), "eos_token_ids", (end,))
    stopped = model.generate([], STORY, max_tokens=10)
    assert stopped.finish_reason == "stop"
    assert stopped.token_ids == free.token_ids[: first + 1]


def test_a_stop_string_ends_the_answer_before_itself(model: SmolVLM) -> None:
    text = model.generate([], STORY, max_tokens=30).text
    stop = text[len(text) // 2 :][:3]
    answer = model.generate([], STORY, max_tokens=30, stop=[stop])
    assert answer.finish_reason == "stop"
    assert answer.text == text[: text.index(stop)]
    assert model.generate([], STORY, max_tokens=30, stop=stop).text == answer.text, "one text need not be a list"


def test_a_seed_repeats_a_sampled_answer(model: SmolVLM) -> None:
    options = {"temperature": 1.5, "max_tokens": 16}
    first, again, other = (model.generate([], STORY, seed=seed, **options).token_ids for seed in (1, 1, 2))
    assert first == again != other


def test_memory_low_gives_the_same_answers(bundle: Path, model: SmolVLM, picture: Path) -> None:
    with SmolVLM.load(bundle, memory="low") as frugal:
        for images in (picture, [], [picture, picture]):
            expected = model.generate(images, QUESTION, max_tokens=8).token_ids
            assert frugal.generate(images, QUESTION, max_tokens=8).token_ids == expected


def test_threads_do_not_change_the_answer(bundle: Path, model: SmolVLM, picture: Path) -> None:
    expected = model.generate(picture, QUESTION, max_tokens=16).token_ids
    assert SmolVLM.load(bundle, threads=1).generate(picture, QUESTION, max_tokens=16).token_ids == expected


def test_a_thread_that_reads_an_answer_would_wait_for_itself(model: SmolVLM) -> None:
    stream = model.stream([], STORY, max_tokens=4)
    next(stream)
    with pytest.raises(RequestError, match="still reading"):
        model.generate([], STORY)
    stream.close()
    assert model.generate([], STORY, max_tokens=2).timings.generated_tokens == 2


def test_a_model_closed_during_an_answer_says_so(bundle: Path) -> None:
    model = SmolVLM.load(bundle)
    stream = model.stream([], STORY, max_tokens=4)
    next(stream)
    model.close()
    with pytest.raises(EngineError, match="closed"):
        next(stream)
    assert model.generate([], STORY, max_tokens=2).timings.generated_tokens == 2


@pytest.mark.parametrize("refusal", [OSError, AttributeError, TypeError])
def test_a_system_whose_memory_cannot_be_trimmed_still_closes(bundle: Path, monkeypatch, refusal: type) -> None:
    """Windows raises TypeError for a library without a name, other C libraries lack the function."""

    def refuse(_name: None) -> None:
        raise refusal

    monkeypatch.setattr("ctypes.CDLL", refuse)
    model = SmolVLM.load(bundle, memory="low")
    expected = model.generate([], STORY, max_tokens=2).token_ids
    model.close()
    assert model.generate([], STORY, max_tokens=2).token_ids == expected


def test_arguments_that_make_no_sense(bundle: Path, model: SmolVLM) -> None:
    with pytest.raises(TypeError, match="max_new_tokens"):
        model.generate([], STORY, max_new_tokens=3)
    with pytest.raises(RequestError, match="max_tokens"):
        model.generate([], STORY, max_tokens=2.5)
    with pytest.raises(RequestError, match="balanced"):
        SmolVLM.load(bundle, memory="lo")
    with pytest.raises(RequestError, match="threads"):
        SmolVLM.load(bundle, threads=0)


def test_peak_memory_is_told_where_proc_does_not_tell_it(monkeypatch) -> None:
    """Some sandboxes have a /proc without VmHWM."""
    told = peak_rss_bytes()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "Name: python\n")
    assert told is not None
    assert 0.5 < peak_rss_bytes() / told < 2


def test_an_error_leaves_the_object_usable(model: SmolVLM, picture: Path) -> None:
    with pytest.raises(ImageError):
        model.generate([picture, "missing.png"], QUESTION)
    assert model.generate(picture, QUESTION, max_tokens=2).timings.generated_tokens == 2


def test_a_closed_model_opens_again(bundle: Path) -> None:
    model = SmolVLM.load(bundle)
    expected = model.generate([], STORY, max_tokens=4).token_ids
    model.close()
    assert model.generate([], STORY, max_tokens=4).token_ids == expected


def test_the_answer_ends_where_the_context_does(model: SmolVLM) -> None:
    context = model.bundle.model.text.max_position_embeddings
    answer = model.generate([], "a " * (context // 2 - 20), max_tokens=10_000)
    assert answer.timings.prompt_tokens + answer.timings.generated_tokens <= context


def test_tiles_are_counted_one_by_one(model: SmolVLM, picture: Path) -> None:
    seen: list[tuple[int, int]] = []
    model.close()  # and with it all features
    answer = model.generate(picture, QUESTION, max_tokens=1, on_tile=lambda done, total: seen.append((done, total)))
    assert seen == [(i, answer.timings.tiles) for i in range(1, answer.timings.tiles + 1)]


def test_library_code_logs_and_never_prints(model: SmolVLM, tmp_path: Path, capfd, caplog) -> None:
    pages = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    pages[0].save(tmp_path / "pages.tiff", save_all=True, append_images=pages[1:])
    with caplog.at_level(logging.WARNING):
        model.generate(tmp_path / "pages.tiff", QUESTION, max_tokens=1)
    assert capfd.readouterr() == ("", "")
    assert "only the first is used" in caplog.text


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_only_one_module_imports_an_engine(engine: str) -> None:
    root = Path(__file__).parent.parent
    importers = {
        str(path.relative_to(root))
        for folder in ("smolvlm_edge", "export", "quantize")
        for path in (root / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if imports(node, engine)
    }
    assert importers == {f"smolvlm_edge/graphs/{engine}.py"}


def imports(node: ast.AST, module: str) -> bool:
    match node:
        case ast.Import(names=names):
            return any(name.name.partition(".")[0] == module for name in names)
        case ast.ImportFrom(module=str(name), level=0):
            return name.partition(".")[0] == module
        case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=name)]):
            return name == module
    return False


def test_the_version_is_that_of_the_package() -> None:
    result = smol_edge("--version")
    assert (result.returncode, result.stdout) == (0, f"smol-edge {version('smol-edge')}\n")
    assert smol_edge("--version", "run").stdout == result.stdout
