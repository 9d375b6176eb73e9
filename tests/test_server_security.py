"""Who may ask the server, what it opens on behalf of whom, and how much it takes."""

import asyncio
import base64
import ipaddress
import re
import socket
import threading
from collections.abc import AsyncGenerator
from io import BytesIO
from pathlib import Path

import httpx2
import pytest
from command import assert_fails, smol_edge
from PIL import Image
from serving import EXAMPLES, ask, client, command, noise, picture

from smolvlm_edge.errors import ImageError
from smolvlm_edge.server import fetching
from smolvlm_edge.server.problems import HttpError
from smolvlm_edge.server.settings import Limits, Settings

CHAT = "/v1/chat/completions"
HELLO = ask("Hello", max_tokens=1)


@pytest.fixture(scope="module")
def http():
    with client() as http:
        yield http


@pytest.fixture(scope="module")
def locked():
    with client(Settings(api_keys=("first-key", "second-key"))) as http:
        yield http


# --- names and origins


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8080", "localhost", "localhost:99", "[::1]:8080", "192.168.1.7", "a.localhost"]
)
def test_names_of_this_machine(http, host) -> None:
    assert http.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8080", "", "2130706433"]
)
def test_a_website_that_points_its_name_here_is_not_answered(http, host) -> None:
    response = http.post(CHAT, json=HELLO, headers={"Host": host})
    assert response.status_code == 403
    assert "--allow-host" in response.json()["error"]["message"]


def test_a_name_that_was_given_is_answered() -> None:
    with client(Settings(hosts=("box.example",))) as http:
        assert http.get("/health", headers={"Host": "BOX.example:80"}).status_code == 200
        assert http.get("/health", headers={"Host": "fox.example:80"}).status_code == 403


@pytest.mark.parametrize(
    "origin", ["http://127.0.0.1:8080", "http://localhost:3000", "https://localhost", "http://[::1]:5173"]
)
def test_pages_of_this_machine_may_ask(http, origin) -> None:
    response = http.post(CHAT, json=HELLO, headers={"Origin": origin})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://evil.example:127.0.0.1",
        "http://localhost@evil.example",
        "http://evil.example#localhost",
        "http://127.0.0.1evil.example",
        "file://",
        "null",
        "*",
    ],
)
def test_websites_may_not_ask(http, origin) -> None:
    response = http.post(CHAT, json=HELLO, headers={"Origin": origin})
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers
    assert "--cors" in response.json()["error"]["message"]
    preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in http.options(CHAT, headers=preflight).headers


def test_a_website_that_was_allowed_may_ask() -> None:
    with client(Settings(origins=("https://app.example", "null"))) as http:
        for origin in ("https://app.example", "null"):
            wanted = {
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "content-type",
            }
            preflight = http.options(CHAT, headers=wanted)
            assert preflight.status_code == 204
            assert preflight.headers["access-control-allow-origin"] == origin
            assert "content-type" in preflight.headers["access-control-allow-headers"]
            assert "POST" in preflight.headers["access-control-allow-methods"]
            answer = http.post(CHAT, json=HELLO, headers={"Origin": origin})
            assert answer.headers["access-control-allow-origin"] == origin
        assert http.post(CHAT, json=HELLO, headers={"Origin": "https://app.example.evil.example"}).status_code == 403


# --- keys


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": "Bearer second-key"}, {"Authorization": "bearer first-key"}, {"X-Api-Key": "first-key"}],
)
def test_a_key_opens(locked, headers) -> None:
    assert locked.post(CHAT, json=HELLO, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer first"},
        {"Authorization": "Bearer first-key-and-more"},
        {"Authorization": "first-key"},
        {"Authorization": "Basic first-key"},
        {"Authorization": b"Bearer \xff"},
        {"X-Api-Key": ""},
    ],
)
def test_without_a_key_nothing_is_told(locked, headers) -> None:
    for path in (CHAT, "/v1/models", "/metrics", "/openapi.json", "/v1/files"):
        response = locked.get(path, headers=headers)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"


def test_health_and_the_page_need_no_key(locked) -> None:
    for path in ("/health", "/v1/health", "/", "/page/main.js"):
        assert locked.get(path).status_code == 200
    for path in ("/page/../v1/models", "/page/%2e%2e/app.py", "/page/..%2f..%2fapp.py", "/page//etc/passwd"):
        assert locked.get(path).status_code in (401, 404)


def test_no_other_address_without_a_key(tmp_path) -> None:
    assert_fails(smol_edge("serve", "--host", "0.0.0.0"), 2, "--api-key-file", "--insecure")
    empty = tmp_path / "keys"
    empty.write_text("# none\n\n")
    assert_fails(smol_edge("serve", "--api-key-file", empty), 2, "holds no key")
    assert_fails(smol_edge("serve", "--api-key-file", tmp_path / "nothing"), 2, "cannot be read")


# --- files


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    (folder / "shapes.png").write_bytes((EXAMPLES / "shapes.png").read_bytes())
    (tmp_path / "secret.png").write_bytes((EXAMPLES / "text.png").read_bytes())
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "media-too").mkdir()
    (tmp_path / "media-too" / "secret.png").write_bytes((EXAMPLES / "text.png").read_bytes())
    return folder


def test_files_of_the_media_folder_and_no_others(media) -> None:
    def status(url: str) -> int:
        return http.post(CHAT, json=ask({"type": "image_url", "image_url": url}, "describe", max_tokens=1)).status_code

    with client(Settings(media_dir=media)) as http:
        assert status(f"file://{media}/shapes.png") == 200
        assert status(f"file://{media}/../media/shapes.png") == 200, "it is below"
        for url in (
            f"file://{media}/../secret.png",
            f"file://{media}/%2e%2e/secret.png",
            f"file://{media}/link.png",
            f"file://{media}/../media-too/secret.png",
            f"file://{media}",
            f"file://{media}/nothing.png",
            f"file://{media}/shapes.png%00.txt",
            "file:///etc/passwd",
        ):
            assert status(url) == 404, url
        assert status(f"{media}/shapes.png") == 400, "no URL"
        assert status(f"file://elsewhere{media}/shapes.png") in (400, 404)


def test_a_site_of_plain_files_is_isolated_and_needs_no_key(tmp_path) -> None:
    site = tmp_path / "site"
    (site / "lib").mkdir(parents=True)
    (site / "index.html").write_text("<title>Mine</title>")
    (site / "lib" / "engine.wasm").write_bytes(b"\0asm")
    (tmp_path / "secret.txt").write_text("secret")
    (site / "link.txt").symlink_to(tmp_path / "secret.txt")
    with client(Settings(api_keys=("first-key",), site=site)) as http:
        page, engine = http.get("/site/"), http.get("/site/lib/engine.wasm")
        assert "Mine" in page.text
        assert engine.headers["content-type"] == "application/wasm"
        for response in (page, engine):
            assert response.headers["cross-origin-opener-policy"] == "same-origin"
            assert response.headers["cross-origin-embedder-policy"] == "require-corp"
        for path in ("/site/none.txt", "/site/link.txt", "/site/%2e%2e/secret.txt", "/site/..%2fsecret.txt"):
            assert http.get(path).status_code == 404, path
        assert http.get("/site/../v1/models").status_code in (401, 404)
    with client(Settings()) as http:
        assert http.get("/site/").status_code == 404


def test_files_of_a_request_take_no_more_than_a_body_may(media) -> None:
    size = (media / "shapes.png").stat().st_size
    part = {"type": "image_url", "image_url": f"file://{media}/shapes.png"}
    with client(Settings(media_dir=media, limits=Limits(body_bytes=2 * size + 1000))) as http:
        assert http.post(CHAT, json=ask(part, part, "describe", max_tokens=1)).status_code == 200
        assert http.post(CHAT, json=ask(part, part, part, "describe", max_tokens=1)).status_code == 413


# --- the network


def test_without_the_flag_no_socket_is_opened(http, monkeypatch) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    response = http.post(CHAT, json=ask({"type": "image_url", "image_url": "http://192.0.2.1/cat.png"}, "describe"))
    assert response.status_code == 400


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.png",
        "http://127.1/a.png",
        "http://2130706433/a.png",
        "http://0177.0.0.1/a.png",
        "http://0x7f.0.0.1/a.png",
        "http://0/a.png",
        "http://localhost/a.png",
        "http://[::1]/a.png",
        "http://[::ffff:127.0.0.1]/a.png",
        "http://[64:ff9b::7f00:1]/a.png",
        "http://[2002:7f00:1::]/a.png",
        "http://[fe80::1]/a.png",
        "http://[fd00::1]/a.png",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.100.100.200/latest/meta-data/",
        "http://10.0.0.1/a.png",
        "http://172.16.0.1/a.png",
        "http://192.168.0.1/a.png",
        "http://224.0.0.1/a.png",
        "http://255.255.255.255/a.png",
        "http://me:word@1.1.1.1/a.png",
        "http:///a.png",
    ],
)
def test_nothing_is_fetched_from_a_private_address(url, monkeypatch) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises((HttpError, ImageError)):
        fetch(url, lambda request: httpx2.Response(200))


def test_addresses_are_judged_as_the_registry_does() -> None:
    for private in ("127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fe80::1%eth0", "::ffff:10.0.0.1", "0.0.0.0"):
        assert not fetching.is_public(private), private
    for public in ("1.1.1.1", "93.184.216.34", "2606:4700::1111"):
        assert fetching.is_public(public), public
        assert ipaddress.ip_address(public).is_global


def fetch(url: str, answer) -> bytes:
    return asyncio.run(fetching.fetch(url, "image", 1 << 20, httpx2.MockTransport(answer)))


async def arriving(data: bytes) -> AsyncGenerator[bytes, None]:
    yield data


@pytest.fixture
def names(monkeypatch):
    """What names mean, one address after the other."""
    known: dict[str, list[str]] = {"cats.example": ["93.184.216.34"], "inside.example": ["10.0.0.1"]}

    async def getaddrinfo(_: object, host: str, port: int, **__: object) -> list:
        addresses = known.get(host)
        if addresses is None:
            ipaddress.ip_address(host)
            addresses = [host]
        address = addresses.pop(0) if len(addresses) > 1 else addresses[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return known


def test_a_picture_is_fetched_from_the_address_that_was_looked_at(names) -> None:
    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append((request.url.host, request.headers["host"], request.extensions["sni_hostname"]))
        return httpx2.Response(200, headers={"Content-Type": "image/png"}, content=arriving(b"picture"))

    names["cats.example"] = ["93.184.216.34", "127.0.0.1"]  # the second time it would mean this machine
    assert fetch("https://cats.example/cat.png", answer) == b"picture"
    assert seen == [("93.184.216.34", "cats.example", "cats.example")]


def test_a_redirect_is_looked_at_like_the_first_address(names) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        place = {"/in": "http://inside.example/", "/meta": "http://169.254.169.254/", "/file": "file:///etc/passwd"}
        return httpx2.Response(302, headers={"Location": place.get(request.url.path, "/again")})

    inside = ("in", "public internet"), ("meta", "public internet"), ("file", "must be http"), ("loop", "redirects")
    for path, words in inside:
        with pytest.raises((HttpError, ImageError), match=words):
            fetch(f"http://cats.example/{path}", answer)


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (httpx2.Response(404), "404"),
        (httpx2.Response(200, headers={"Content-Type": "text/html"}, content=b"<html>"), "no picture"),
        (httpx2.Response(200, headers={"Content-Type": "image/png"}, content=arriving(b"a" * (2 << 20))), "larger"),
        (httpx2.Response(200, headers={"Content-Type": "image/png", "Content-Encoding": "x-odd"}), "compresses"),
    ],
)
def test_what_is_no_picture_is_refused(names, response, words) -> None:
    with pytest.raises(ImageError, match=words):
        fetch("http://cats.example/cat.png", lambda _: response)


# --- limits


def test_limits_of_a_request() -> None:
    small = Limits(body_bytes=100_000, pictures=2, pixels=10_000, text_chars=1000)
    with client(Settings(limits=small)) as http:

        def error(body: object = None, **options: object) -> tuple[int, str]:
            response = http.post(CHAT, **({"json": body} if body else options))
            return response.status_code, response.json()["error"]["message"]

        assert error(content=b"a" * 100_001)[0] == 413
        assert error(content=(b"a" * 1000 for _ in range(200)))[0] == 413, "of unknown length"
        assert error(content=b"a", headers={"Content-Encoding": "gzip"})[0] == 415
        status, message = error(ask(*[picture("before.png", detail="low")] * 3, "describe"))
        assert (status, "2" in message) == (400, True)
        status, message = error(ask("a" * 1001))
        assert (status, "1,000" in message) == (400, True)
        file = BytesIO()
        Image.new("L", (101, 100)).save(file, "PNG")
        url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        status, message = error(ask({"type": "image_url", "image_url": url}, "describe"))
        assert (status, "10,000 pixels" in message) == (400, True)


def test_a_prompt_longer_than_the_context(http) -> None:
    response = http.post(CHAT, json=ask("Why? " * 5000))
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


def test_all_bodies_together_are_bounded() -> None:
    limits = Limits(body_bytes=100_000, bodies_bytes=50_000)
    with client(Settings(limits=limits)) as http:
        response = http.post(CHAT, content=b"a" * 60_000)
        assert response.status_code == 503
        assert response.headers["retry-after"]
        assert http.post(CHAT, json=HELLO).status_code == 200, "what was held is let go"


def test_uploads_are_kept_as_long_as_there_is_room() -> None:
    with client(Settings(limits=Limits(uploads_bytes=1000))) as http:
        first, second = (http.post("/v1/files", files={"file": (name, b"a" * 600)}).json()["id"] for name in "ab")
        assert [each["id"] for each in http.get("/v1/files").json()["data"]] == [second]
        assert http.get(f"/v1/files/{first}").status_code == 404
        assert http.post("/v1/files", files={"file": ("c", b"a" * 1001)}).status_code == 413
        assert http.post("/v1/files", files={"wrong": ("c", b"a")}).status_code == 400
        assert http.post("/v1/files", content=b"a").status_code == 415


def test_an_answer_that_takes_too_long_ends() -> None:
    with client(Settings(limits=Limits(answer_seconds=0.01))) as http:
        response = http.post(CHAT, json=ask(*(noise(seed) for seed in range(9)), "describe"))
        assert response.status_code == 499
        assert response.json()["error"]["message"].endswith("0.01 s")


def test_connections_that_dawdle_are_closed() -> None:
    """A head that does not end: the server closes, and answers others meanwhile."""
    with command(patch="import smolvlm_edge.server.run as run; run.HEAD_SECONDS = 0.5") as (url, _):
        host, port = re.match(r"http://(.+):(\d+)", url).groups()
        idle = [socket.create_connection((host, int(port))) for _ in range(50)]
        idle[0].sendall(b"GET /health HTT")
        assert httpx2.get(f"{url}/health").status_code == 200
        idle[1].settimeout(30)
        assert idle[1].recv(1) == b"", "closed by the server"
        for each in idle:
            each.close()
        assert httpx2.post(url + CHAT, json=HELLO).status_code == 200


def test_a_broken_client_leaves_the_server_alive() -> None:
    with command("--max-body", "1") as (url, _):
        host, port = re.match(r"http://(.+):(\d+)", url).groups()
        for data in (
            b"\x16\x03\x01\x02\x00",
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1073741824\r\n\r\n",
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n{",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000,
        ):
            with socket.create_connection((host, int(port))) as raw:
                raw.sendall(data)
                raw.shutdown(socket.SHUT_WR)
                raw.settimeout(30)
                while raw.recv(65536):
                    pass
        threads = [threading.Thread(target=httpx2.get, args=(f"{url}/health",)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert httpx2.post(url + CHAT, json=HELLO).status_code == 200
