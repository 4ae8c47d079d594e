"""What every request passes before it reaches the application, and every answer on its way out.

Plain ASGI: middleware that wraps each request into objects would cost a tenth of the throughput.
"""

from __future__ import annotations

import hmac
import json
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from frostline.serving.limits import INTERNAL_ERROR, ApiError, busy
from frostline.serving.metrics import Metrics

HEALTH_PATHS = frozenset({"/healthz", "/readyz"})
"""Answered whatever the load, and without a token."""
OPEN_PATHS = HEALTH_PATHS | {"/", "/serve.js", "/serve.css", "/openapi.json", "/favicon.ico"}
"""Paths that need no token: they say nothing about the model."""

_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", _CONTENT_SECURITY_POLICY.encode()),
]
_CLOSE = (b"connection", b"close")

_log = logging.getLogger("frostline.serving.app")


@dataclass
class ServerStatus:
    """What the server's sockets tell the application."""

    connections: int = 0
    """Open now."""
    leaving: bool = False
    """Whether the server was told to stop."""


@dataclass(frozen=True)
class AccessRules:
    """Which requests are accepted."""

    token: str = ""
    """Empty: none is needed."""
    hosts: frozenset[str] = frozenset()
    """Values of the Host header, without port, that are answered; empty: any.

    A loopback server answers to its own names alone: otherwise a page on the web could point a name of its own at
    127.0.0.1 and read the answers (DNS rebinding).
    """
    most_connections: int = 512


class ServerMiddleware:
    """Access checks, security headers, metrics and a last handler of exceptions around an application."""

    def __init__(
        self, app: ASGIApp, rules: AccessRules, status: ServerStatus, metrics: Metrics, paths: Iterable[str]
    ) -> None:
        self._app, self._rules, self._status, self._metrics = app, rules, status, metrics
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                close = [_CLOSE] if self._status.leaving else []
                message["headers"] = [*message.get("headers", ()), *_SECURITY_HEADERS, *close]
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is None:
                await self._app(scope, receive, send_guarded)
            else:
                await _answer(refusal, send_guarded)
        except Exception:
            _log.exception("a request failed")
            if not status:
                await _answer(INTERNAL_ERROR, send_guarded)
            status = 500
        path = scope["path"] if scope["path"] in self._paths else "other"
        self._metrics.request(path, status, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> ApiError | None:
        rules, path = self._rules, scope["path"]
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if rules.hosts and _without_port(host) not in rules.hosts:
            return ApiError(421, "wrong_host", "this server does not answer to that name: use the address it printed")
        if origin is not None and scope["method"] not in ("GET", "HEAD") and urlsplit(origin).netloc != host:
            return ApiError(403, "wrong_origin", "pages of other sites may not use this server")
        if self._status.connections > rules.most_connections and path not in HEALTH_PATHS:
            return busy("too many connections are open: try again in a second")
        if rules.token and path not in OPEN_PATHS and not self._has_token(headers.get(b"authorization", "")):
            message = "send the server's token: 'Authorization: Bearer ...'"
            return ApiError(401, "no_token", message, {"WWW-Authenticate": "Bearer"})
        return None

    def _has_token(self, credentials: str) -> bool:
        kind, _, token = credentials.partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._rules.token.encode())


def _without_port(host: str) -> str:
    name, _, port = host.rpartition(":")
    return (name if name and port.isdigit() else host).lower()


async def _answer(error: ApiError, send: Send) -> None:
    body = json.dumps(error.to_dict()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
