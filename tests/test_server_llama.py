"""llama.cpp's own server tests, as far as they do not hang on one model's words, asked of this server.

Each names the test that it was rewritten after, in tools/server/tests/unit of llama.cpp (MIT), as of October 2026.
Where this server decides otherwise on purpose, the test says so.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import ask, client, data_url, events, picture

from smolvlm_edge.server.settings import Settings

CHAT = "/v1/chat/completions"
BOOK = [
    {"role": "system", "content": "Book"},
    {"role": "user", "content": "What is the best book"},
]


@pytest.fixture(scope="module")
def http():
    with client() as http:
        yield http


@pytest.fixture(scope="module")
def locked():
    with client(Settings(api_keys=("sk-this-is-the-secret-key",))) as http:
        yield http


def test_server_start_simple(http) -> None:
    """test_basic.py::test_server_start_simple"""
    assert http.get("/health").status_code == 200


def test_server_models(http) -> None:
    """test_basic.py::test_server_models"""
    response = http.get("/models")
    assert response.status_code == 200
    assert len(response.json()["data"]) == 1
    assert response.json()["data"][0]["id"] == "demo"


def test_no_page_without_get(http) -> None:
    """test_basic.py::test_no_webui, the other way round: the page is there, and is HTML"""
    response = http.get("/")
    assert response.headers["content-type"].startswith("text/html")
    assert "<!doctype html>" in response.text


def test_chat_completion(http) -> None:
    """test_chat_completion.py::test_chat_completion"""
    body = http.post(CHAT, json={"messages": BOOK, "max_tokens": 8}).json()
    assert body["id"].startswith("chatcmpl-")
    assert body["system_fingerprint"]
    assert body["model"] == "demo"
    assert body["usage"]["completion_tokens"] <= 8
    choice = body["choices"][0]
    assert choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] in ("stop", "length")


def test_chat_completion_cached_tokens(http) -> None:
    """test_completion.py::test_cache_vs_nocache_prompt: what is told of the cache"""
    questions = [*BOOK, {"role": "assistant", "content": "a b c d e f g h " * 20}, {"role": "user", "content": "Why?"}]
    for cached in (False, True):
        body = http.post(CHAT, json={"messages": questions, "max_tokens": 2}).json()
        assert bool(body["usage"]["prompt_tokens_details"]["cached_tokens"]) == cached
        assert bool(body["timings"]["cache_n"]) == cached


def test_chat_completion_stream(http) -> None:
    """test_chat_completion.py::test_chat_completion_stream"""
    wish = {"messages": BOOK, "max_tokens": 8, "stream": True, "stream_options": {"include_usage": True}}
    *chunks, done = events(http.post(CHAT, json=wish).text)
    assert done == "[DONE]"
    ids = set()
    for number, chunk in enumerate(chunks):
        ids.add(chunk["id"])
        assert chunk["system_fingerprint"]
        assert chunk["model"] == "demo"
        if not chunk["choices"]:
            assert number == len(chunks) - 1
            assert chunk["usage"]["completion_tokens"] <= 8
            continue
        choice = chunk["choices"][0]
        if number == 0:
            assert choice["delta"]["role"] == "assistant"
        if choice["finish_reason"]:
            assert choice["finish_reason"] in ("stop", "length")
            assert choice["delta"] == {}
    assert len(ids) == 1


def test_chat_completion_with_timings_per_chunk(http) -> None:
    """test_chat_completion.py::test_chat_completion_with_timings_per_token: here with the last chunk"""
    chunks = events(http.post(CHAT, json={"messages": BOOK, "max_tokens": 8, "stream": True}).text)[:-1]
    timed = [chunk for chunk in chunks if "timings" in chunk]
    assert timed == [chunks[-1]]
    assert timed[0]["timings"]["predicted_per_second"] > 0
    assert timed[0]["timings"]["predicted_n"] <= 8


@pytest.mark.parametrize(
    ("wish", "pattern"),
    [
        ({"response_format": {"type": "json_object", "schema": {"const": "42"}}}, '"42"'),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"const": "foooooo"}}}}, '"foooooo"'),
        ({"json_schema": {"const": "42"}}, '"42"'),
    ],
)
def test_completion_with_response_format(http, wish, pattern) -> None:
    """test_chat_completion.py::test_completion_with_response_format, ::test_completion_with_json_schema"""
    body = http.post(CHAT, json={"messages": BOOK, "max_tokens": 20, **wish}).json()
    assert body["choices"][0]["message"]["content"] == pattern


@pytest.mark.parametrize("format_", [{"type": "sound"}, {"type": 123}, {"type": ["hello"]}, 3])
def test_completion_with_invalid_response_format(http, format_) -> None:
    """test_chat_completion.py::test_completion_with_response_format, the refusals"""
    response = http.post(CHAT, json={"messages": BOOK, "response_format": format_})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_a_schema_that_nothing_fulfils_is_refused(http) -> None:
    """test_chat_completion.py::test_completion_with_json_schema, the refusals"""
    for schema in ({"type": "number", "minimum": 3, "maximum": 1}, {"type": "nonsense"}):
        response = http.post(CHAT, json={"messages": BOOK, "json_schema": schema})
        assert response.status_code == 400


def test_completion_with_grammar_is_refused(http) -> None:
    """test_chat_completion.py::test_completion_with_grammar: this server has regex instead, and says so"""
    response = http.post(CHAT, json={"messages": BOOK, "grammar": 'root ::= "a"{5,5}'})
    assert response.status_code == 400
    assert "regex" in response.json()["error"]["message"]
    body = http.post(CHAT, json={"messages": BOOK, "regex": "a{5}"}).json()
    assert body["choices"][0]["message"]["content"] == "aaaaa"


@pytest.mark.parametrize(
    "messages",
    [
        None,
        "string",
        [123],
        [{}],
        [{"role": 123}],
        [{"role": "system", "content": 123}],
        [{"role": "system", "content": [{"type": "text"}]}],
        [{"role": "user", "content": [{"type": "image_url"}]}],
        [{"role": "user", "content": [{"type": "sound", "sound": "x"}]}],
        [],
    ],
)
def test_invalid_chat_completion_req(http, messages) -> None:
    """test_chat_completion.py::test_invalid_chat_completion_req"""
    response = http.post(CHAT, json={"messages": messages})
    assert response.status_code == 400
    assert "error" in response.json()


def test_a_user_turn_without_content_is_refused(http) -> None:
    """test_chat_completion.py::test_invalid_chat_completion_req, of null content"""
    assert http.post(CHAT, json={"messages": [{"role": "user", "content": None}]}).status_code == 400


def test_chat_completions_multiple_choices(http) -> None:
    """test_chat_completion.py::test_chat_completions_multiple_choices: refused here"""
    response = http.post(CHAT, json={"messages": BOOK, "n": 2})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "n"


def test_chat_completions_token_count(http) -> None:
    """test_chat_completion.py::test_chat_completions_token_count"""
    count = http.post(f"{CHAT}/input_tokens", json={"messages": BOOK}).json()
    assert count["input_tokens"] > 5
    assert count["input_tokens"] == http.post(CHAT, json={"messages": BOOK}).json()["usage"]["prompt_tokens"]


def test_logprobs(http) -> None:
    """test_chat_completion.py::test_logprobs"""
    body = http.post(CHAT, json={"messages": BOOK, "max_tokens": 5, "logprobs": True, "top_logprobs": 10}).json()
    assert body["choices"][0]["logprobs"]["content"]
    text = ""
    for token in body["choices"][0]["logprobs"]["content"]:
        text += token["token"]
        assert token["logprob"] <= 0
        assert token["bytes"]
        assert len(token["top_logprobs"]) == 10
    assert text.strip() == body["choices"][0]["message"]["content"].strip()


def test_logprobs_stream(http) -> None:
    """test_chat_completion.py::test_logprobs_stream"""
    wish = {"messages": BOOK, "max_tokens": 5, "logprobs": True, "top_logprobs": 10, "stream": True}
    chunks = events(http.post(CHAT, json=wish).text)[:-1]
    said, spelled = "", ""
    for chunk in chunks:
        choice = chunk["choices"][0]
        said += choice["delta"].get("content", "")
        for token in (choice["logprobs"] or {"content": []})["content"]:
            spelled += token["token"]
            assert len(token["top_logprobs"]) == 10
    assert said.strip() == spelled.strip()


def test_logit_bias(http) -> None:
    """test_chat_completion.py::test_logit_bias, and test_completion.py::test_logit_bias"""
    before = http.post(CHAT, json={"messages": BOOK, "max_tokens": 8, "logprobs": True}).json()["choices"][0]
    first = before["logprobs"]["content"][0]["token"]
    (id_,) = http.post("/tokenize", json={"content": first}).json()["tokens"]
    wish = {"messages": BOOK, "max_tokens": 8, "logprobs": True, "logit_bias": {str(id_): -100}}
    after = http.post(CHAT, json=wish).json()["choices"][0]
    assert first not in [token["token"] for token in after["logprobs"]["content"]]


def test_n_probs_too_many(http) -> None:
    """test_completion.py::test_n_probs: more than OpenAI's 20 are refused"""
    assert http.post(CHAT, json={"messages": BOOK, "logprobs": True, "top_logprobs": 21}).status_code == 400


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_consistent_result_same_seed(http, temperature) -> None:
    """test_completion.py::test_consistent_result_same_seed"""
    wish = {"messages": BOOK, "temperature": temperature, "seed": 42, "max_tokens": 32}
    answers = {http.post(CHAT, json=wish).json()["choices"][0]["message"]["content"] for _ in range(4)}
    assert len(answers) == 1


def test_different_result_different_seed(http) -> None:
    """test_completion.py::test_different_result_different_seed"""
    wish = {"messages": BOOK, "temperature": 3.0, "max_tokens": 32}
    answers = [http.post(CHAT, json={**wish, "seed": seed}).json() for seed in range(4)]
    assert len({answer["choices"][0]["message"]["content"] for answer in answers}) > 1


def test_consistent_result_different_batch(http) -> None:
    """test_completion.py::test_consistent_result_different_batch_size: beside others the answer is the same"""
    alone = http.post(CHAT, json=ask(picture(), "describe")).json()["choices"]
    with ThreadPoolExecutor(6) as pool:
        beside = list(pool.map(lambda _: http.post(CHAT, json=ask(picture(), "describe")).json()["choices"], range(6)))
    assert beside == [alone] * 6


@pytest.mark.parametrize(("content", "special"), [("What is the capital of France ?", False), ("ä", True), ("", False)])
def test_tokenize_detokenize(http, content, special) -> None:
    """test_tokenize.py::test_tokenize_detokenize"""
    tokens = http.post("/tokenize", json={"content": content, "add_special": special}).json()["tokens"]
    assert http.post("/detokenize", json={"tokens": tokens}).json()["content"].endswith(content)


def test_tokenize_with_pieces(http) -> None:
    """test_tokenize.py::test_tokenize_with_pieces"""
    body = http.post(
        "/tokenize", json={"content": "This is a test string with unicode 媽 emoji 🤗", "with_pieces": True}
    )
    for token in body.json()["tokens"]:
        assert token["id"] >= 0
        assert token["piece"]


@pytest.mark.parametrize("endpoint", ["/health", "/v1/health"])
def test_access_public_endpoint(locked, endpoint) -> None:
    """test_security.py::test_access_public_endpoint; the list of models is no public matter here"""
    assert locked.get(endpoint).status_code == 200


def test_access_static_assets_without_api_key(locked) -> None:
    """test_security.py::test_access_static_assets_without_api_key"""
    assert locked.get("/").status_code == 200
    assert locked.get("/page/main.js").headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize("key", [None, "invalid-key"])
def test_incorrect_api_key(locked, key) -> None:
    """test_security.py::test_incorrect_api_key"""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    response = locked.post(CHAT, json={"messages": BOOK}, headers=headers)
    assert response.status_code == 401
    assert response.json()["error"]["type"] == "authentication_error"


def test_correct_api_key(locked) -> None:
    """test_security.py::test_correct_api_key, ::test_correct_api_key_anthropic_header"""
    for headers in (
        {"Authorization": "Bearer sk-this-is-the-secret-key"},
        {"X-Api-Key": "sk-this-is-the-secret-key"},
    ):
        assert locked.post(CHAT, json={"messages": BOOK, "max_tokens": 1}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("origin", "header", "value"),
    [
        ("http://localhost", "Access-Control-Allow-Origin", "http://localhost"),
        ("http://localhost:8080", "Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS"),
        ("http://127.0.0.1", "Access-Control-Allow-Headers", "Authorization"),
    ],
)
def test_cors_options(locked, origin, header, value) -> None:
    """test_security.py::test_cors_options: without a key; of this machine's origins only"""
    wanted = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "Authorization",
    }
    response = locked.options(CHAT, headers=wanted)
    assert response.status_code == 204
    assert response.headers[header] == value


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("IMG", True),
        ("data:image/png;base64,malformed", False),
        ("data:image/png;base64,", False),
        ("malformed", False),
        ("https://localhost:1/404", False),
        ("https://localhost:1/nothing.png", False),
        (None, False),
        (123, False),
    ],
)
def test_vision_chat_completion(http, url, good) -> None:
    """test_vision_api.py::test_vision_chat_completion"""
    url = data_url() if url == "IMG" else url
    part = {"type": "image_url", "image_url": {"url": url}}
    response = http.post(CHAT, json=ask("What is this:\n", part, max_tokens=4, temperature=0.0))
    assert response.status_code == (200 if good else 400)


def test_responses_with_openai_shapes(http) -> None:
    """test_compat_oai_responses.py::test_responses_with_openai_library"""
    wish = {"input": [{"role": "user", "content": "What is the best book"}], "max_output_tokens": 8, "temperature": 0.8}
    body = http.post("/v1/responses", json=wish).json()
    assert body["id"].startswith("resp_")
    assert body["output"][0]["id"].startswith("msg_")
    assert body["output"][0]["content"][0]["type"] == "output_text"


def test_responses_stream(http) -> None:
    """test_compat_oai_responses.py::test_responses_stream_with_openai_library"""
    stream = events(http.post("/v1/responses", json={"input": "Hello", "max_output_tokens": 8, "stream": True}).text)[
        :-1
    ]
    assert stream[0]["type"] == "response.created"
    gathered = "".join(event["delta"] for event in stream if event["type"] == "response.output_text.delta")
    assert stream[-1]["type"] in ("response.completed", "response.incomplete")
    assert stream[-1]["response"]["output"][0]["content"][0]["text"] == gathered
    assert stream[0]["response"]["id"] == stream[-1]["response"]["id"]
