"""Serve the page of a watched run to a browser on this machine: three addresses, only GET, nothing else."""

import contextlib
import http.server
import ipaddress
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ufo_large.tracking.watching import WatchedRun

SHELL = Path(__file__).parent / "live.html"
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class LiveServer(http.server.ThreadingHTTPServer):
    """Answers for one run. Nothing of a request reaches the file system: its path only chooses an answer.

    A request must name this machine: an address, `localhost` or `host`. A page elsewhere whose name is made
    to point here (DNS rebinding) is refused by that.
    """

    daemon_threads = True
    request_queue_size = 64  # with five, as it is, some of twenty clients wait a second or more

    def __init__(self, run: WatchedRun, host: str = "127.0.0.1", port: int = 0):
        self.run = run
        self.names = {"localhost", host.lower()}
        self.shell = SHELL.read_bytes()
        self.answers: dict[str, tuple[str, Callable[[], bytes]]] = {
            "/": ("text/html; charset=utf-8", lambda: self.shell),
            "/report": ("text/html; charset=utf-8", self.run.report),
            "/status": ("application/json", lambda: json.dumps(asdict(self.run.status())).encode()),
        }
        super().__init__((host, port), _Handler)

    @property
    def address(self) -> str:
        return f"http://{self.server_address[0]}:{self.server_port}/"

    def is_meant(self, host: str) -> bool:
        """Whether a Host header names this machine."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self.names or bool(ipaddress.ip_address(name))
        except ValueError:
            return False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that has hung up is no error of ours."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def serve(workdir: Path, host: str, port: int) -> None:
    """Serve the page of a run until somebody presses ctrl-c. Raises OSError where the port is taken."""
    with LiveServer(WatchedRun(workdir), host, port) as server, contextlib.suppress(KeyboardInterrupt):
        print(f"{workdir}: {server.address} (ctrl-c ends)", flush=True)
        server.serve_forever()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: LiveServer
    server_version, sys_version = "ufo-large", ""
    timeout = 10

    def do_GET(self) -> None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not self.server.is_meant(hosts[0]):
            self._send(HTTPStatus.MISDIRECTED_REQUEST, "text/plain", b"this machine has another name\n")
        elif self.path not in self.server.answers:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"there is nothing here\n")
        else:
            kind, make = self.server.answers[self.path]
            self._send(HTTPStatus.OK, kind, make())

    def _refuse(self) -> None:
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"only GET\n")

    do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = do_TRACE = do_CONNECT = _refuse

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        allow = {"Allow": "GET"} if status == HTTPStatus.METHOD_NOT_ALLOWED else {}
        length = {"Content-Type": kind, "Content-Length": str(len(content))}
        for name, value in {**HEADERS, **allow, **length}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Requests are not worth a line each."""
