"""A hub on loopback that serves a folder `org/name/…` as the Hugging Face hub serves repositories.

The answers are those of the hub's own endpoints: repository information, and files with ETag, commit and ranges.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """What is served, and what was asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fetched: list[str] = []
        """Files that were asked for by GET, `org/name/path`."""
        self.gated: set[str] = set()
        self.url = ""


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub does; `hub` is set by who makes a server of it."""

    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        parts = unquote(urlparse(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self.information("/".join(parts[2:4]), parts[4:], body)
        elif len(parts) > 4 and parts[2] == "resolve":
            self.file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), body)
        else:
            self.send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)

    def information(self, repo: str, rest: list[str], body: bool) -> None:
        folder = self.hub.root / repo
        if not folder.is_dir():
            return self.send(401, b"", {"X-Error-Code": "RepoNotFound"}, body)
        if repo in self.hub.gated:
            return self.send(403, b"", {"X-Error-Code": "GatedRepo"}, body)
        if rest and rest != ["revision", "main"] and rest != ["revision", COMMIT]:
            return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"}, body)
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        siblings = [{"rfilename": name} for name in files]
        said = {"_id": "0", "id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "tags": []}
        said |= {"private": False, "downloads": 0, "likes": 0}
        return self.send(200, json.dumps(said).encode(), {"Content-Type": "application/json"}, body)

    def file(self, repo: str, revision: str, name: str, body: bool) -> None:
        path = self.hub.root / repo / name
        if revision not in ("main", COMMIT):
            return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"}, body)
        if not path.is_file():
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, body)
        content = path.read_bytes()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        if body:
            self.hub.fetched.append(f"{repo}/{name}")
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            stop = int(last) + 1 if last else len(content)
            headers["Content-Range"] = f"bytes {first}-{stop - 1}/{len(content)}"
            return self.send(206, content[int(first) : stop], headers, body)
        return self.send(200, content, headers, body)

    def send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


@contextmanager
def fake_hub(root: Path) -> Iterator[FakeHub]:
    """Serve until the block ends."""
    hub = FakeHub(root)

    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Served", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
