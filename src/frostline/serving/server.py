"""The HTTP server: uvicorn with deadlines for slow clients, and an orderly stop.

Deadlines: uvicorn itself waits for ever for a header, or for a body that trickles in. Here both have a deadline, and a
header has a largest size. Refusals of broken HTTP are JSON like all others.

The stop, on SIGTERM or Ctrl-C: `/readyz` answers 503 and every answer closes its connection, while requests are still
accepted for `drain` seconds, in which a load balancer sees that and sends its requests elsewhere. Then the server stops
listening, answers all requests that were begun, and ends. A client that pays no attention and opens a connection in the
very moment in which the server stops listening may find it reset.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from frostline.errors import ConfigError
from frostline.serving.limits import MIB, ApiError, Limits
from frostline.serving.middleware import ServerStatus

_UNREAD_BYTES = 64 * MIB
"""Read beyond the largest request, and thrown away: a browser cut off while it sends never shows the refusal."""
_ANSWER_SECONDS = 30
"""Time for requests to be answered after the last of them has arrived, when the server stops."""
_STATUS_LINES = {
    400: "400 Bad Request",
    408: "408 Request Timeout",
    431: "431 Request Header Fields Too Large",
}


class LimitedConnection(HttpToolsProtocol):
    """uvicorn's connection with deadlines and a largest header.

    All overridden methods but `send_400_response` are callbacks of `asyncio.Protocol` and
    `httptools.HttpRequestParser`, so nothing here depends on how uvicorn keeps its state.
    """

    limits = Limits()
    status = ServerStatus()
    _deadline: asyncio.TimerHandle | None = None
    _requests = 0
    _in_header = True
    _header_bytes = 0
    _body_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The deadline for the first header begins."""
        super().connection_made(transport)
        self._connection = transport
        self.status.connections += 1
        self._set_deadline(self._header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self.status.connections -= 1
        self._set_deadline(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of a header; the first of them on an idle connection begins the deadline."""
        if self._in_header:
            if self._deadline is None:
                self._set_deadline(self._header_seconds)
            self._header_bytes += len(data)
        super().data_received(data)
        if self._in_header and self._header_bytes > self.limits.header_bytes and not self._connection.is_closing():
            size = f"{self.limits.header_bytes:,} bytes"
            self._end(ApiError(431, "header_too_large", f"the header is larger than {size}"))

    def on_headers_complete(self) -> None:
        """The deadline for the body begins; the application's own, which answers 408, comes before it."""
        self._requests += 1
        self._in_header, self._header_bytes, self._body_bytes = False, 0, 0
        self._set_deadline(self.limits.seconds + 2)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Cut a client off that goes on sending long after its request was refused for its size."""
        self._body_bytes += len(body)
        if self._body_bytes > self.limits.request_bytes + _UNREAD_BYTES:
            self._connection.close()
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has arrived."""
        self._in_header = True
        self._set_deadline(None)
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer broken HTTP as JSON; uvicorn's own answer is plain text."""
        self._answer(ApiError(400, "bad_http", msg))

    @property
    def _header_seconds(self) -> float:
        return min(self.limits.header_seconds, self.limits.seconds)

    def _set_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None
        if seconds is not None:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._deadline = None
        if self._connection.is_closing():
            return
        if self._in_header and self._header_bytes:
            self._end(ApiError(408, "too_slow", f"the header took longer than {self._header_seconds:g} s"))
        else:
            self._connection.close()

    def _end(self, error: ApiError) -> None:
        """Close the connection, with a reason where no answer to an earlier request can be mistaken for it."""
        if self._requests == 0:
            self._answer(error)
        else:
            self._connection.close()

    def _answer(self, error: ApiError) -> None:
        body = json.dumps(error.to_dict()).encode()
        head = [
            f"HTTP/1.1 {_STATUS_LINES[error.status]}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        self._connection.write("\r\n".join([*head, "", ""]).encode("ascii") + body)
        self._connection.close()


class Server(uvicorn.Server):
    """uvicorn's server, which accepts requests for `drain` seconds after the signal to stop."""

    def __init__(self, config: uvicorn.Config, status: ServerStatus, drain: float) -> None:
        super().__init__(config)
        self._status, self._drain = status, drain
        self._closes_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """The first signal begins the stop, a second one ends the server at once."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; whether to stop listening now."""
        if not await super().on_tick(counter):
            return False
        if self._closes_at is None:
            self._status.leaving = True
            self._closes_at = time.monotonic() + self._drain
        return self.force_exit or time.monotonic() >= self._closes_at


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens at `host` and `port`.

    Raises
    ------
    ConfigError
        The port is taken, or this machine has no such host.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(address[:2], family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"can't listen on {host}:{port}: {reason}; choose another --host or --port") from error
    listener.setblocking(False)
    return listener


def server(app: ASGIApp, limits: Limits, status: ServerStatus, *, drain: float) -> Server:
    """A server for an ASGI application, not yet started: ``run(sockets=[listener])`` starts it."""
    protocol = type("Connection", (LimitedConnection,), {"limits": limits, "status": status})
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=round(limits.seconds) + _ANSWER_SECONDS,
        backlog=1024,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # broken HTTP is answered, not logged
    return Server(config, status, drain)
