"""What every request passes before it reaches the application, and every answer on its way out.

Plain ASGI: a layer of middleware that wraps requests into objects would cost a tenth of the throughput.
"""

from __future__ import annotations

import hmac
import json
import logging
import time
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from frostline.serving.limits import ApiError, busy
from frostline.serving.metrics import Metrics

Scope = MutableMapping[str, Any]
Receive = Callable[[], Any]
Send = Callable[[MutableMapping[str, Any]], Any]
App = Callable[[Scope, Receive, Send], Any]

OPEN = frozenset({"/", "/serve.js", "/serve.css", "/healthz", "/readyz", "/openapi.json", "/favicon.ico"})
"""Paths that need no token: they tell nothing of the model."""

_ALWAYS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; "
        b"form-action 'none'; frame-ancestors 'none'",
    ),
]
_CLOSE = (b"connection", b"close")

MISTAKE = ApiError(500, "internal", "the server made a mistake; its log has the reason")
_log = logging.getLogger("frostline.serving.app")


@dataclass
class Door:
    """Who is let in."""

    token: str = ""
    """Empty: everybody."""
    hosts: frozenset[str] = frozenset()
    """Names under which it may be addressed; empty: any. A loopback server answers to its own names alone: else a page on the web could
    point a name of its own at 127.0.0.1 and read what it says."""
    connections: Callable[[], int] = field(default=lambda: 0)
    most_connections: int = 512
    leaving: bool = False
    """Set once the server is on its way out."""


class Guard:
    """Checks, security headers and counts around an application."""

    def __init__(self, app: App, door: Door, metrics: Metrics, paths: Iterable[str]) -> None:
        self._app, self._door, self._metrics = app, door, metrics
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def out(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_ALWAYS, *([_CLOSE] if self._door.leaving else [])]
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is None:
                await self._app(scope, receive, out)
            else:
                await answer(refusal, out)
        except Exception:
            _log.exception("a request failed")
            if not status:
                await answer(MISTAKE, out)
            status = 500
        path = scope["path"] if scope["path"] in self._paths else "other"
        self._metrics.request(path, status, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> ApiError | None:
        door, path = self._door, scope["path"]
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if door.hosts and _host(headers.get(b"host", "")) not in door.hosts:
            return ApiError(421, "wrong_host", "this server does not answer to that name: use the address it printed")
        origin = headers.get(b"origin")
        if (
            origin is not None
            and scope["method"] not in ("GET", "HEAD")
            and urlsplit(origin).netloc != headers.get(b"host")
        ):
            return ApiError(403, "wrong_origin", "pages of other sites may not use this server")
        if door.connections() > door.most_connections and path not in ("/healthz", "/readyz"):
            return busy("too many connections are open: try again in a second")
        if door.token and path not in OPEN and not self._may(headers.get(b"authorization", "")):
            return ApiError(
                401, "no_token", "send the server's token: 'Authorization: Bearer ...'", {"WWW-Authenticate": "Bearer"}
            )
        return None

    def _may(self, credentials: str) -> bool:
        kind, _, token = credentials.partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._door.token.encode())


def _host(header: str) -> str:
    """The name in a Host header, without its port."""
    name, _, port = header.rpartition(":")
    return (name if name and port.isdigit() else header).lower()


async def answer(error: ApiError, send: Send) -> None:
    """Send a refusal."""
    body = json.dumps(error.to_dict()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
