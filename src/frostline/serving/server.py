"""The server's socket: uvicorn, with patience that ends and a way out on which no accepted request is lost.

What uvicorn leaves open and is closed here: a connection that never finishes its header or trickles its body is shut after a time; a
header has a largest size; what keeps coming after an answer is not read for ever; refusals of broken HTTP are JSON too.

The way out, on SIGTERM or Ctrl-C: `/readyz` says no and every answer ends its connection while new ones are still taken (`drain` seconds,
for a balancer to notice); then the door is closed in two steps, so that whoever had come as far as the queue of the socket is let in; then
all requests that were begun are answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import socket
import struct
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from frostline.errors import ConfigError
from frostline.serving.limits import ApiError, Limits

_LEFTOVER = 64 * 1024**2  # bytes read after the answer: a browser that is cut off while it sends never reads why
_ATTACH_FILTER = 26  # SO_ATTACH_FILTER of Linux, which Python's socket module does not name
_DOOR_STEP = 0.1  # seconds for the queue of the socket to empty


class Protocol(HttpToolsProtocol):
    """A connection that may not take for ever."""

    limits = Limits()
    _timer: asyncio.TimerHandle | None = None
    _head = 0
    _left_over = 0
    _in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self._wait_for(self._header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop it."""
        self._wait_for(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what has come of a header, and start the clock for the next one."""
        if self._in_head:
            if self._timer is None:
                self._wait_for(self._header_seconds)
            self._head += len(data)
        super().data_received(data)
        if self._in_head and self._head > self.limits.header_bytes and not self.transport.is_closing():
            self._refuse(
                ApiError(431, "header_too_large", f"the header is larger than {self.limits.header_bytes:,} bytes")
            )

    def on_headers_complete(self) -> None:
        """The body has its own time, and the reader of the body its own clock, which is to ring first."""
        self._in_head, self._head, self._left_over = False, 0, 0
        self._wait_for(self.limits.seconds + 2)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Whoever goes on sending after the answer is listened to for a while, so that the answer arrives."""
        if self.cycle.response_complete:
            self._left_over += len(body)
            if self._left_over > _LEFTOVER:
                self.transport.close()
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has arrived."""
        self._in_head = True
        self._wait_for(None)
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Broken HTTP."""
        self._refuse(ApiError(400, "bad_http", msg))

    @property
    def _header_seconds(self) -> float:
        return min(self.limits.header_seconds, self.limits.seconds)

    def _wait_for(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self._in_head and self._head and (self.cycle is None or self.cycle.response_complete):
            self._refuse(ApiError(408, "too_slow", f"the header took longer than {self._header_seconds:g} s"))
        else:
            self.transport.close()

    def _refuse(self, error: ApiError) -> None:
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = json.dumps(error.to_dict()).encode()
            head = (
                f"HTTP/1.1 {error.status} Refused",
                "Content-Type: application/json",
                f"Content-Length: {len(body)}",
            )
            self.transport.write("\r\n".join([*head, "Connection: close", "\r\n"]).encode("ascii") + body)
        if self.cycle is not None:
            self.cycle.disconnected = True  # the application may still be waiting for the body: nothing it says is sent
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server with the way out described above."""

    def __init__(
        self, config: uvicorn.Config, listener: socket.socket, drain: float, leaving: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._listener, self._drain, self._leaving = listener, drain, leaving

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """The first signal begins the way out, a second one cuts it short."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self._leaving()

    async def on_tick(self, counter: int) -> bool:
        """Whether it is time to close: not before the drain is over."""
        if not await super().on_tick(counter):
            return False
        self._leaving()
        steps = round(self._drain / _DOOR_STEP)
        for _ in range(steps):
            if self.force_exit:
                return True
            await asyncio.sleep(_DOOR_STEP)
        _turn_away(self._listener)  # nobody new joins the queue of the socket; who stands in it is let in
        await asyncio.sleep(_DOOR_STEP)
        return True


def _turn_away(listener: socket.socket) -> None:
    """Let a socket take no new connections while those that wait to be accepted still can be.

    Linux: a packet filter that drops all (``BPF_RET 0``), so whoever knocks tries again, and finds the door closed. Elsewhere the
    shortest queue there is, in which one connection may still be lost.
    """
    if sys.platform == "linux":
        drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
        program = struct.pack("HP", 1, ctypes.addressof(drop_all))
        with contextlib.suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)
            return
    listener.listen(0)


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises
    ------
    ConfigError
        The port is taken, or the host is none of this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(address[:2], family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"can't listen on {host}:{port}: {reason}; choose another --host or --port") from error
    listener.setblocking(False)
    return listener


def server(app: Any, listener: socket.socket, limits: Limits, *, drain: float, leaving: Callable[[], None]) -> Server:
    """A server for an ASGI application, not yet started: `run(sockets=[listener])` starts it."""
    protocol = type("Limited", (Protocol,), {"limits": limits})
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
        timeout_graceful_shutdown=round(limits.seconds) + 30,
        backlog=1024,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # broken HTTP is answered, not written about
    return Server(config, listener, drain, leaving)
