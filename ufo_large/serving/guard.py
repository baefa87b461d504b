"""What every request passes before the application sees it: who may ask, how many at once, how much."""

import asyncio
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ufo_large.serving.limits import Limits

RETRY_S = 1
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""The page loads nothing of strangers, and nothing that is sent counts as a page by its looks."""


def is_loopback(host: str) -> bool:
    """Whether a host name or address leads to this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware. Refuses with JSON: `detail` says what and what to do.

    `local`: the server listens to this machine alone. Then a page of another site must not reach it through
    the user's browser: not under a name of its own (DNS rebinding; the Host header tells) and not by a form
    (the Origin header tells). A request with a body holds one of the `places` until it is answered or its
    client hangs up, so that memory is bounded by places times `max_bytes`.
    """

    def __init__(self, app: ASGIApp, limits: Limits, local: bool):
        self._app, self._limits, self._local = app, limits, local
        self._taken = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        send = _with_headers(send)
        if refused := self._refusal(scope):
            return await refused(scope, receive, send)
        if scope["method"] in ("GET", "HEAD"):
            return await self._app(scope, receive, send)
        self._taken += 1
        try:
            await self._app(scope, self._bounded(scope, receive), send)
        finally:
            self._taken -= 1

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._local and not is_loopback(_name_of(host)):
            told = "this server answers to this machine alone; open http://127.0.0.1 with its port, or start"
            return _told(400, f"host {host[:200]!r}: {told} it with --host to serve others")
        if self._local and origin is not None and origin.partition("://")[2] != host:
            told = "open this server's own page, or send the request from a program"
            return _told(403, f"asked by the page of another site ({origin[:200]}); {told}")
        if scope["method"] not in ("GET", "HEAD") and self._taken >= self._limits.places:
            told = f"{self._taken} requests are being answered; ask again in {RETRY_S} s"
            return _told(503, told, {"Retry-After": str(RETRY_S)})
        return None

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """Return `receive` that raises 413 or 408 where the body is too large or comes too slowly."""
        seen, whole = 0, False
        end = asyncio.get_running_loop().time() + self._limits.upload_s
        stated = Headers(scope=scope).get("content-length", "")

        async def bounded() -> Message:
            nonlocal seen, whole
            if whole:
                return await receive()
            if stated.isdecimal() and int(stated[:18]) > self._limits.max_bytes:
                raise _too_large(self._limits)
            try:
                async with asyncio.timeout_at(end):
                    message = await receive()
            except TimeoutError:
                told = f"the request did not arrive within {self._limits.upload_s:g} s; send it faster"
                raise HTTPException(408, told) from None
            seen += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if seen > self._limits.max_bytes:
                raise _too_large(self._limits)
            return message

        return bounded


def _too_large(limits: Limits) -> HTTPException:
    told = f"more than {limits.max_bytes} bytes; send a smaller file, or start the server with --max-bytes"
    return HTTPException(413, told)


def _told(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)


def _name_of(host: str) -> str:
    """Return a Host header without its port; empty where it is none."""
    try:
        return "" if "@" in host else urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await send(message)

    return sending
