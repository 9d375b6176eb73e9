"""A model hub on localhost that speaks as much of the hub's language as huggingface_hub asks for, faults included."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


@dataclass
class Fault:
    """What happens instead of an answer to requests whose path matches, so many times."""

    path: str
    times: int = 1
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    """Bytes of a body after which the connection breaks."""
    stall: float = 0.0
    """Seconds before it does."""
    body: bytes = b""
    """What comes with `status`."""
    method: str = "GET|HEAD"


@dataclass
class Hub:
    """Repositories, each a commit with files, and a record of what was asked."""

    repos: dict[str, tuple[str, Files]] = field(default_factory=dict)
    """owner/name -> (newest commit, files)"""
    older: dict[tuple[str, str], Files] = field(default_factory=dict)
    """(owner/name, commit) -> files"""
    refs: dict[tuple[str, str], str] = field(default_factory=dict)
    """(owner/name, branch) -> commit, beside main"""
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """(method, path, Range header)"""
    tokens: list[str] = field(default_factory=list)
    """The Authorization header of every request, empty if there was none."""
    watch: Callable[[str], None] = lambda path: None
    """Called with the path of every request before it is answered."""
    cdn: str = ""
    """Another server, to which downloads of weights are redirected."""
    pause: float = 0.0
    """Seconds before the weights are sent: time for two clients to meet, or for one to be interrupted."""
    url: str = ""

    def add(self, repo: str, files: Files, commit: str | None = None, *, keep: bool = False) -> str:
        """Publish files as the repository's newest commit, and its only one unless the others are kept."""
        if keep:
            newest, before = self.repos[repo]
            self.older[repo, newest] = before
        digest = hashlib.sha1(json.dumps(sorted((n, hashlib.sha256(b).hexdigest()) for n, b in files.items())).encode())
        commit = commit or digest.hexdigest()
        self.repos[repo] = (commit, files)
        return commit

    def bodies(self, name: str) -> list[str]:
        """The Range headers of all downloads of a file."""
        return [part for method, path, part in self.requests if method == "GET" and path.endswith(name)]

    def files(self, repo: str, commit: str) -> Files:
        """The files of a commit."""
        newest, files = self.repos[repo]
        return files if commit == newest else self.older[repo, commit]

    def fault(self, method: str, path: str) -> Fault | None:
        """The fault that a request meets, used up once."""
        for fault in self.faults:
            if fault.times and re.search(fault.path, path) and re.fullmatch(fault.method, method):
                fault.times -= 1
                return fault
        return None


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub, reachable at hub.url."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self, with_body: bool) -> None:
            raw = urlsplit(self.path).path
            path = unquote(raw)
            hub.watch(path)
            hub.tokens.append(self.headers.get("Authorization", ""))
            hub.requests.append((self.command, path, self.headers.get("Range", "")))
            fault = hub.fault(self.command, path)
            if fault and fault.status:
                self._send(fault.status, fault.body, fault.headers, with_body)
                return
            for pattern, answer in ROUTES.items():
                if match := re.fullmatch(pattern, raw):
                    status, body, headers = answer(hub, *map(unquote, match.groups()))
                    if hub.cdn and status == 200 and path.endswith(".safetensors"):
                        linked = {"X-Linked-Etag": headers.pop("ETag"), "X-Linked-Size": str(len(body))}
                        status, body, headers = 302, b"", {**headers, **linked, "Location": hub.cdn + self.path}
                    self._send(status, body, headers, with_body, fault)
                    return
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, with_body)

        def _send(
            self, status: int, body: bytes, headers: dict[str, str], with_body: bool, fault: Fault | None = None
        ) -> None:
            cut_after = fault.cut_after if fault else None
            whole = len(body)
            found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(found[1]) if found and status == 200 else 0
            if start:
                status, body = 206, body[start:]
                headers = {**headers, "Content-Range": f"bytes {start}-{whole - 1}/{whole}"}
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if not with_body:
                return
            time.sleep(hub.pause if self.path.endswith(".safetensors") else 0)
            self.wfile.write(body if cut_after is None else body[:cut_after])
            if cut_after is not None:
                self.wfile.flush()
                time.sleep(fault.stall if fault else 0)
                self.close_connection = True
                self.connection.close()

    return Handler


Reply = tuple[int, bytes, dict[str, str]]


def _info(hub: Hub, repo: str, revision: str | None = None) -> Reply:
    found = _commit(hub, repo, revision)
    if not isinstance(found, str):
        return found
    siblings = [{"rfilename": name} for name in hub.files(repo, found)]
    return 200, json.dumps({"id": repo, "modelId": repo, "sha": found, "siblings": siblings}).encode(), {}


def _tree(hub: Hub, repo: str, revision: str) -> Reply:
    found = _commit(hub, repo, revision)
    if not isinstance(found, str):
        return found
    files = [
        {"type": "file", "oid": hashlib.sha1(body).hexdigest(), "size": len(body), "path": name}
        for name, body in hub.files(repo, found).items()
    ]
    return 200, json.dumps(files).encode(), {}


def _file(hub: Hub, repo: str, revision: str, name: str) -> Reply:
    found = _commit(hub, repo, revision)
    if not isinstance(found, str):
        return found
    body = hub.files(repo, found).get(name)
    if body is None:
        return 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": found}
    return 200, body, {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": found}


def _commit(hub: Hub, repo: str, revision: str | None) -> str | Reply:
    if repo not in hub.repos:
        return 404, b"", {"X-Error-Code": "RepoNotFound"}
    newest = hub.repos[repo][0]
    commit = newest if revision in (None, "main") else hub.refs.get((repo, revision), revision)
    if commit != newest and (repo, commit) not in hub.older:
        return 404, b"", {"X-Error-Code": "RevisionNotFound"}
    return commit


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES: dict[str, Callable[..., Reply]] = {
    rf"/api/models/{NAME}": _info,
    rf"/api/models/{NAME}/revision/([^/]+)": _info,
    rf"/api/models/{NAME}/tree/([^/]+)": _tree,
    rf"/{NAME}/resolve/([^/]+)/(.+)": _file,
}
