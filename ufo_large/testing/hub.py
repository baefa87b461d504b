"""A server on this machine that speaks the hub's protocol for a few files, and how to point clients at it."""

import contextlib
import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

from huggingface_hub import constants

COMMIT = "c0ffee" * 6 + "abcd"


class ServedHub(BaseHTTPRequestHandler):
    """Repositories of one revision each: `files["OWNER/NAME/FILE"]`; files in `short` are cut in half,
    `downloads` counts what was sent. Repositories of the owner `gated` are closed.
    """

    address: str
    files: dict[str, bytes]
    short: set[str]
    downloads: Counter

    def do_HEAD(self):
        self._answer(with_body=False)

    def do_GET(self):
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        repo, _, rest = self.path.strip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        if not any(known.startswith(f"{repo}/") for known in self.files):
            self._refuse(401, "RepoNotFound")
        elif repo.startswith("gated/"):
            self._refuse(403, "GatedRepo")
        elif revision not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound")
        elif f"{repo}/{file}" not in self.files:
            self._refuse(404, "EntryNotFound")
        else:
            self._send(f"{repo}/{file}", with_body)

    def _send(self, path: str, with_body: bool) -> None:
        body = self.files[path]
        sent = body[: len(body) // 2] if path in self.short else body
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-Etag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Linked-Size", str(len(body)))
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        if with_body:
            self.downloads[path] += 1
            self.wfile.write(sent)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served_hub() -> Iterator[type[ServedHub]]:
    """Serve an empty hub, to be filled through `files`."""
    hub = type("Hub", (ServedHub,), {"files": {}, "short": set(), "downloads": Counter()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()


def pointed_at(address: str, cache: Path, offline: bool = False) -> contextlib.AbstractContextManager:
    """Point huggingface_hub to a server and a cache; it reads HF_ENDPOINT and the like at its import."""
    return mock.patch.multiple(
        constants,
        ENDPOINT=address,
        HUGGINGFACE_CO_URL_TEMPLATE=address + "/{repo_id}/resolve/{revision}/{filename}",
        HF_HUB_CACHE=str(cache),
        HF_HUB_OFFLINE=offline,
    )
