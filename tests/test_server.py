"""What a client of OpenAI's protocol gets from the server."""

import base64
import json
import math
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import httpx2
import pytest
from PIL import Image
from serving import DEMO, EXAMPLES, ask, client, command, data_url, events, noise, picture

from smolvlm_edge import EngineError, SmolVLM
from smolvlm_edge.export import export_checkpoint
from smolvlm_edge.quantize import RECIPES
from smolvlm_edge.server.settings import Limits, Settings

CHAT = "/v1/chat/completions"
STAR, MIDDLE = "Where is the blue star?", "The blue star is in the middle."  # README.md


@pytest.fixture(scope="module")
def http():
    with client() as http:
        yield http


@pytest.fixture(scope="module")
def model():
    with SmolVLM.load(DEMO, threads=1) as model:
        yield model


def test_an_answer_is_that_of_the_library(http, model) -> None:
    answer = model.generate(EXAMPLES / "shapes.png", STAR)
    body = http.post(CHAT, json=ask(picture(), STAR)).json()
    (choice,) = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": answer.text, "refusal": None}
    assert choice["message"]["content"] == MIDDLE
    assert choice["finish_reason"] == "stop"
    usage, timings = body["usage"], body["timings"]
    assert usage["prompt_tokens"] == answer.timings.prompt_tokens
    assert usage["completion_tokens"] == answer.timings.generated_tokens == timings["predicted_n"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert timings["cache_n"] + timings["prompt_n"] == usage["prompt_tokens"]
    assert timings["tiles"] == answer.timings.tiles


def test_a_stream_is_the_answer_in_pieces(http) -> None:
    response = http.post(CHAT, json=ask(picture(), STAR, stream=True, stream_options={"include_usage": True}))
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, usage, done = events(response.text)
    assert done == "[DONE]"
    assert len({chunk["id"] for chunk in [*chunks, usage]}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == MIDDLE
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[-2:]] == [None, "stop"]
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == chunks[-1]["timings"]["predicted_n"]
    assert all(chunk["usage"] is None for chunk in chunks)


def test_progress_is_a_comment_until_the_first_token(http) -> None:
    with client() as fresh:
        text = fresh.post(CHAT, json=ask(picture(), STAR, stream=True)).text
    comments = [line for line in text.splitlines() if line.startswith(":")]
    assert [line for line in comments if "tiles" in line] == [f": tiles {tile}/5" for tile in range(1, 6)]
    assert text.index("data:") > text.rindex(": prompt")


def test_what_goes_wrong_in_mid_stream_is_an_event(monkeypatch) -> None:
    stream = SmolVLM.stream

    def breaking(self, *args, **options):
        for chunk in stream(self, *args, **options):
            yield chunk
            raise EngineError("the engine broke")

    monkeypatch.setattr(SmolVLM, "stream", breaking)
    with client() as http:
        *chunks, error = events(http.post(CHAT, json=ask("Hello", stream=True)).text)
        assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
        assert error == {"error": {"message": "the engine broke", "type": "server_error", "param": None, "code": None}}
        assert http.post(CHAT, json=ask("Hello")).status_code == 500


def test_a_conversation_that_ends_with_the_assistants_turn_is_continued(http, model) -> None:
    messages = [*ask(picture(), STAR)["messages"], {"role": "assistant", "content": "The blue star is in"}]
    body = http.post(CHAT, json={"messages": messages, "continue_final_message": True}).json()
    assert body["choices"][0]["message"]["content"].strip() == "the middle."


def test_no_usage_in_a_stream_that_did_not_ask_for_it(http) -> None:
    chunks = events(http.post(CHAT, json=ask("Hello", stream=True)).text)[:-1]
    assert all(chunk["choices"] and "usage" not in chunk for chunk in chunks)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_longest_answer(http, name) -> None:
    body = http.post(CHAT, json=ask(picture(), STAR, **{name: 3})).json()
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("stop", ["middle", ["nothing", "middle"]])
def test_a_stop_text_is_no_part_of_the_answer(http, stop) -> None:
    body = http.post(CHAT, json=ask(picture(), STAR, stop=stop)).json()
    assert body["choices"][0]["message"]["content"] == MIDDLE.partition("middle")[0]
    assert body["choices"][0]["finish_reason"] == "stop"


def test_the_tiles_of_each_picture_are_its_own_affair(http) -> None:
    def tiles(*details: str) -> int:
        pictures = [picture("after.png", detail=detail) for detail in details]
        return http.post(CHAT, json=ask(*pictures, "describe", max_tokens=1)).json()["timings"]["tiles"]

    assert tiles("low") == 1
    assert tiles("high") > 1
    assert tiles("low", "low") == 2


def test_a_schema_is_kept_to(http) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}, "there": {"type": "boolean"}},
        "required": ["colour", "there"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "star", "strict": True, "schema": schema}}
    body = http.post(CHAT, json=ask(picture(), STAR, response_format=form)).json()
    assert set(json.loads(body["choices"][0]["message"]["content"])) == {"colour", "there"}
    for wish in ({"json_schema": schema}, {"response_format": {"type": "json_object", "schema": schema}}):
        again = http.post(CHAT, json=ask(picture(), STAR, **wish)).json()
        assert again["choices"][0]["message"] == body["choices"][0]["message"]


def test_an_answer_that_is_cut_off_before_it_has_its_form_says_so(http) -> None:
    wish = {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "string", "minLength": 40}}}}
    body = http.post(CHAT, json=ask(picture(), STAR, max_tokens=4, **wish)).json()
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize(
    ("wish", "answers"), [({"choices": ["yes", "no"]}, {"yes", "no"}), ({"regex": "[ab]"}, {"a", "b"})]
)
def test_choices_and_regex(http, wish, answers) -> None:
    body = http.post(CHAT, json=ask(picture(), "Is there a red circle?", **wish)).json()
    assert body["choices"][0]["message"]["content"] in answers


def test_logprobs_spell_the_answer(http) -> None:
    body = http.post(CHAT, json=ask(picture(), STAR, logprobs=True, top_logprobs=2)).json()
    content = body["choices"][0]["logprobs"]["content"]
    assert b"".join(bytes(each["bytes"]) for each in content).decode().strip() == MIDDLE
    for each in content:
        first, second = each["top_logprobs"]
        assert first["token"] == each["token"], "the answer is greedy"
        assert 0 >= each["logprob"] == first["logprob"] >= second["logprob"]
        assert math.exp(first["logprob"]) + math.exp(second["logprob"]) <= 1 + 1e-9


def test_special_tokens_are_text_for_who_wants_them(http, model) -> None:
    token = model.prompt_encoder.tokenizer.token_to_id("<fake_token_around_image>")
    wish = ask("Hello", max_tokens=2, logit_bias={str(token): 100})
    said = http.post(CHAT, json=wish).json()["choices"][0]["message"]["content"]
    assert said == ""
    said = http.post(CHAT, json={**wish, "skip_special_tokens": False}).json()["choices"][0]["message"]["content"]
    assert said == 2 * "<fake_token_around_image>"


def test_fields_that_nobody_knows_are_ignored(http) -> None:
    body = http.post(
        CHAT, json=ask("Hello", user="me", parallel_tool_calls=True, truncate_prompt=False, foo={"a": [1]})
    )
    assert body.status_code == 200


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"grammar": 'root ::= "a"'}, "grammar"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"temperature": "warm"}, "temperature"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
    ],
)
def test_what_cannot_be_is_refused_with_its_name(http, wish, param) -> None:
    response = http.post(CHAT, json=ask("Hello", **wish))
    error = response.json()["error"]
    assert response.status_code == 400
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"]
    assert "\n" not in error["message"]


def test_tools_that_may_not_be_called_are_no_reason_to_refuse(http) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert http.post(CHAT, json=ask("Hello", tools=tools, tool_choice="none")).status_code == 200


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"messages": 3}', b"\xff", b'{"messages": [], "messages": []}', b"[" * 10**5]
)
def test_a_body_of_another_form_is_refused(http, body) -> None:
    response = http.post(CHAT, content=body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_a_model_that_is_not_here(http) -> None:
    response = http.post(CHAT, json=ask("Hello", model="gpt-4o"))
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
    assert "demo" in response.json()["error"]["message"]
    assert http.get("/v1/models/gpt-4o").status_code == 404


def test_models(http) -> None:
    listed = http.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == ["demo"]
    assert http.get("/v1/models/demo").json() == listed["data"][0]


@pytest.mark.parametrize(("path", "status"), [("/nothing", 404), ("/v1/chat/completions", 405)])
def test_another_path_or_method(http, path, status) -> None:
    response = http.get(path)
    assert response.status_code == status
    assert response.json()["error"]["message"]


def test_pictures_in_every_dialect(http) -> None:
    url = data_url()
    uploaded = http.post("/v1/files", files={"file": ("shapes.png", (EXAMPLES / "shapes.png").read_bytes())}).json()
    for part in (
        {"type": "image_url", "image_url": url},
        {"type": "image", "base64": url.partition(",")[2], "mime_type": "image/png"},
        {"type": "input_image", "image_url": url},
        {"type": "input_image", "file_id": uploaded["id"]},
        {"type": "file", "file": {"file_data": url}},
        {"type": "file", "file": {"file_id": uploaded["id"]}},
    ):
        body = http.post(CHAT, json=ask(part, STAR)).json()
        assert body["choices"][0]["message"]["content"] == MIDDLE, part["type"]
    assert http.delete(f"/v1/files/{uploaded['id']}").json()["deleted"]
    assert http.get(f"/v1/files/{uploaded['id']}").status_code == 404


def test_what_home_assistant_sends(http) -> None:
    """As LLM Vision puts it (ha-llmvision, providers.py): a key of no characters, and names before the pictures."""
    parts = [{"type": "text", "text": "Image 1:"}, picture(detail="high"), {"type": "text", "text": STAR}]
    wish = {"model": "demo", "messages": [{"role": "user", "content": parts}], "max_tokens": 100, "temperature": 0.2}
    answer = http.post(CHAT, json=wish, headers={"Authorization": "Bearer "})
    assert answer.status_code == 200
    assert "star" in answer.json()["choices"][0]["message"]["content"]


def test_several_pictures_in_their_order(http) -> None:
    frames = [picture(f"clip-{number}.png", detail="low") for number in range(1, 5)]
    body = http.post(CHAT, json=ask(*frames, "What happens?")).json()
    assert body["choices"][0]["message"]["content"] == "The red circle moves to the right."  # README.md


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("data:image/png;base64,!!!", "damaged"),
        ("data:image/png;base64,AAAA", "no picture"),
        ("data:image/png;base64,", "empty"),
        ("https://example.com/cat.png", "--fetch-pictures"),
        ("file:///etc/passwd", "no files"),
        ("/etc/passwd", "no URL"),
        ("../shapes.png", "no URL"),
        ("ftp://example.com/cat.png", "no URL"),
        ("", "no URL"),
    ],
)
def test_a_picture_that_is_none(http, url, words) -> None:
    response = http.post(CHAT, json=ask({"type": "image_url", "image_url": {"url": url}}, "describe"))
    assert response.status_code == 400
    assert words in response.json()["error"]["message"]
    stream = http.post(CHAT, json=ask({"type": "image_url", "image_url": {"url": url}}, "describe", stream=True))
    assert stream.status_code == 400, "what is known before the first token has a status of its own"


def test_a_video_is_frames_of_one_tile_each(http) -> None:
    frames = [Image.open(EXAMPLES / f"clip-{number}.png").convert("RGB") for number in range(1, 5)]
    file = BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=1000)
    url = "data:image/gif;base64," + base64.b64encode(file.getvalue()).decode()
    for wish, tiles in (({}, 4), ({"frames": 2}, 2)):
        part = {"type": "video_url", "video_url": {"url": url}, **wish}
        body = http.post(CHAT, json=ask(part, "What happens?", max_tokens=1)).json()
        assert body["timings"]["tiles"] == tiles, body


def test_responses(http) -> None:
    content = [{"type": "input_image", "image_url": data_url()}, {"type": "input_text", "text": STAR}]
    wish = {"input": [{"role": "user", "content": content}], "instructions": None}
    body = http.post("/v1/responses", json=wish).json()
    assert body["output"][0]["content"][0]["text"] == MIDDLE
    assert body["status"] == "completed"
    assert body["usage"]["total_tokens"] == body["usage"]["input_tokens"] + body["usage"]["output_tokens"]
    *stream, done = events(http.post("/v1/responses", json={**wish, "stream": True}).text)
    assert done == "[DONE]"
    assert [event["sequence_number"] for event in stream] == list(range(len(stream)))
    assert "".join(event["delta"] for event in stream if event["type"] == "response.output_text.delta") == MIDDLE
    assert stream[-1]["response"]["output"][0]["content"] == body["output"][0]["content"]


@pytest.mark.parametrize("wish", [{"previous_response_id": "resp_1"}, {"conversation": "c"}, {"background": True}])
def test_responses_remember_nothing(http, wish) -> None:
    response = http.post("/v1/responses", json={"input": "Hello", **wish})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == next(iter(wish))


def test_completions_are_for_base_models(http) -> None:
    response = http.post("/v1/completions", json={"prompt": "Once"})
    assert response.status_code == 400
    assert CHAT in response.json()["error"]["message"]


def test_tokens_and_back(http, model) -> None:
    text = "Ünïcode, 😀"
    ids = http.post("/tokenize", json={"content": text}).json()["tokens"]
    assert ids == model.prompt_encoder.tokenizer.encode(text, add_special_tokens=False).ids
    assert http.post("/detokenize", json={"tokens": ids}).json() == {"content": text}
    pieces = http.post("/tokenize", json={"content": text, "with_pieces": True}).json()["tokens"]
    spelled = b"".join(
        bytes(each["piece"]) if isinstance(each["piece"], list) else each["piece"].encode() for each in pieces
    )
    assert spelled.decode() == text


def test_tokens_of_a_conversation_are_those_that_its_answer_counts(http) -> None:
    wish = ask(picture(), picture("after.png", detail="low"), STAR)
    count = http.post(f"{CHAT}/input_tokens", json=wish).json()
    usage = http.post(CHAT, json={**wish, "max_tokens": 1}).json()["usage"]
    assert count["input_tokens"] == usage["prompt_tokens"]
    assert count["image_tokens"] == usage["prompt_tokens_details"]["image_tokens"]
    assert count["pictures"][0] == {"rows": 2, "columns": 2, "tiles": 5}


def test_metrics_count(http) -> None:
    def tokens() -> float:
        lines = http.get("/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("smol_edge_generated_tokens_total "))

    before = tokens()
    http.post(CHAT, json=ask("Hello", max_tokens=3))
    assert tokens() == before + 3


def test_the_description_names_what_requests_hold(http) -> None:
    document = http.get("/openapi.json").json()
    body = document["paths"][CHAT]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "/v1/models/{id}" in document["paths"]
    fields = document["components"]["schemas"][body["$ref"].rpartition("/")[2]]
    assert {"messages", "temperature", "response_format", "regex"} <= set(fields["properties"])
    assert fields["required"] == ["messages"]


def test_the_page_needs_nothing_from_elsewhere(http) -> None:
    page = http.get("/")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace("http://www.w3.org/2000/svg", "")


def test_more_than_may_wait_are_told_to_come_again() -> None:
    with client(Settings(limits=Limits(waiting=0))) as http, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: http.post(CHAT, json=ask(picture(), "describe")), range(8)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert {answer.status_code for answer in answers} == {200, 429}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    assert refused[0].json()["error"]["code"] == "queue_full"


def test_a_model_makes_room_for_another(tiny_bundle) -> None:
    folders = {"demo": DEMO, "tiny": tiny_bundle()}
    most = sum(file.stat().st_size for file in DEMO.iterdir())
    with client(folders=folders, most_bytes=most) as http:

        def loaded() -> dict[str, bool]:
            return {model["id"]: model["loaded"] for model in http.get("/v1/models").json()["data"]}

        assert loaded() == {"demo": True, "tiny": False}
        assert http.post(CHAT, json=ask("Hello", model="tiny", max_tokens=2)).json()["model"] == "tiny"
        assert loaded() == {"demo": False, "tiny": True}
        assert http.post(CHAT, json=ask(picture(), STAR)).json()["choices"][0]["message"]["content"] == MIDDLE


def test_a_model_that_nobody_asks_is_unloaded_and_comes_back() -> None:
    with client(idle_seconds=0.2) as http:
        while http.get("/v1/models/demo").json()["loaded"]:
            time.sleep(0.05)
        assert http.get("/health").status_code == 200
        assert http.post(CHAT, json=ask(picture(), STAR)).json()["choices"][0]["message"]["content"] == MIDDLE


def test_a_base_model_completes_a_text(tiny_bundle, tiny_checkpoints, tmp_path) -> None:
    checkpoint = shutil.copytree(tiny_checkpoints["tiny-idefics3"], tmp_path / "base")
    for file in checkpoint.glob("chat_template*"):
        file.unlink()
    settings = json.loads((checkpoint / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(settings))
    bundle = export_checkpoint(checkpoint, tmp_path / "bundle", RECIPES["fp32"], calibration=None)
    with SmolVLM.load(bundle, threads=1) as model:
        expected = model.generate([], "Once upon", max_tokens=5).text
    with client(folders={"base": bundle}) as http:
        wish = {"prompt": "Once upon", "max_tokens": 5}
        body = http.post("/v1/completions", json=wish).json()
        assert body["choices"][0]["text"] == expected
        assert body["usage"]["completion_tokens"] == 5
        *pieces, done = events(http.post("/v1/completions", json={**wish, "stream": True}).text)
        assert done == "[DONE]"
        assert "".join(piece["choices"][0]["text"] for piece in pieces) == expected
        for refused in ({"echo": True}, {"suffix": "x"}, {"prompt": ["a", "b"]}, {"best_of": 2}):
            assert http.post("/v1/completions", json={**wish, **refused}).status_code == 400
        seen = http.post("/v1/completions", json={**wish, "images": [data_url("before.png")]}).json()
        assert seen["usage"]["prompt_tokens_details"]["image_tokens"] > 0


def test_a_client_that_leaves_frees_its_place() -> None:
    long = ask(*(noise(seed) for seed in range(9)), "describe", stream=True)
    with command("--queue", "0") as (url, _):
        with httpx2.stream("POST", url + CHAT, json=long, timeout=60) as stream:
            lines = stream.iter_lines()  # closes the connection when nothing refers to it any more
            assert next(lines) == ": tiles 1/45"
            assert httpx2.post(url + CHAT, json=ask("Hello")).status_code == 429
        while (answer := httpx2.post(url + CHAT, json=ask("Hello", max_tokens=2), timeout=60)).status_code == 429:
            time.sleep(0.05)
        assert answer.status_code == 200
        counted = httpx2.get(f"{url}/metrics").text
    assert "smol_edge_generated_tokens_total 2.0" in counted, "the other answer never came so far"


def test_sigterm_lets_an_answer_end() -> None:
    with command() as (url, process):
        with httpx2.stream("POST", url + CHAT, json=ask(picture(), "describe", stream=True), timeout=60) as stream:
            lines = stream.iter_lines()
            next(line for line in lines if line.startswith("data:"))
            process.terminate()
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert process.wait(timeout=60) == 143
