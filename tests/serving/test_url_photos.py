"""Photos from addresses: only from the public internet, whatever a name, a number or a redirect pretends."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from frostline.serving.limits import ApiError, Limits
from frostline.serving.uploads import UploadMemory
from frostline.serving.url_photos import fetch, public
from support.photos import photo

LIMITS = Limits(bytes=100_000, seconds=2)


def fetched(url: str, **options: Any) -> bytes:
    with UploadMemory(10**6).reserved() as reservation:
        return asyncio.run(fetch(url, LIMITS, reservation, **options))


def refused(url: str, **options: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        fetched(url, **options)
    return caught.value


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    """A server that stands for one on the web."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/to/"):
                self.send_response(302)
                self.send_header("Location", self.path[4:])
                self.end_headers()
                return
            body = {"/photo": photo(), "/large": bytes(100_001), "/endless": b""}.get(self.path)
            self.send_response(404 if body is None else 200)
            self.end_headers()
            with contextlib.suppress(OSError):
                if self.path == "/endless":
                    while True:
                        self.wfile.write(bytes(1000))
                self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def anywhere(_: object) -> bool:
    return True


def test_a_photo_is_fetched_through_redirects(web: str) -> None:
    assert fetched(f"{web}/photo", allowed=anywhere) == photo()
    assert fetched(f"{web}/to/{web}/photo", allowed=anywhere) == photo()
    assert fetched(f"{web}/to//photo", allowed=anywhere) == photo()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost/",
        "http://[::1]/",
        "http://0.0.0.0/",
        "http://10.1.2.3/",
        "http://172.16.0.1/",
        "http://192.168.0.1:8080/x",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.64.0.1/",
        "http://224.0.0.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://127.1/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://[fe80::1]/",
        "http://[fc00::1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "https://127.0.0.1/",
    ],
)
def test_what_is_not_on_the_public_internet_is_not_reached(url: str) -> None:
    error = refused(url)
    assert (error.status, error.code) in ((422, "url_refused"), (422, "url_failed"))
    assert "not on the public internet" in error.message or "can't be fetched: [Errno" in error.message


def test_a_redirect_is_checked_like_a_first_address(web: str) -> None:
    def this_server(address: object) -> bool:
        return str(address) == "127.0.0.1"

    port = web.rpartition(":")[2]
    assert fetched(f"{web}/photo", allowed=this_server) == photo()
    assert refused(f"{web}/to/http://[::1]:{port}/photo", allowed=this_server).code == "url_refused"
    assert refused(f"{web}/to/file:///etc/passwd", allowed=this_server).code == "url_refused"
    assert "redirects" in refused(f"{web}/to/{web}/to/{web}/to/{web}/to/{web}/photo", allowed=this_server).message


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "file:///etc/passwd",
        "ftp://example.org/x",
        "gopher://x/",
        "http://",
        "http://a:b@example.org/",
        "http://x:y/",
        "http://[::1/",
        "//example.org",
        "data:image/png;base64,xx",
        "http://\x00/",
        "http://exa mple.org/",
    ],
)
def test_what_is_no_address(url: str) -> None:
    assert refused(url).status == 422


def test_large_endless_and_missing_ones(web: str) -> None:
    assert refused(f"{web}/large", allowed=anywhere).code == "too_large"
    assert refused(f"{web}/endless", allowed=anywhere).code in ("too_large", "url_failed")
    assert "it answered 404" in refused(f"{web}/nothing", allowed=anywhere).message
    assert refused("http://127.0.0.1:9/", allowed=anywhere).code == "url_failed"


def test_public_addresses() -> None:
    for text in ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"):
        assert public(ipaddress.ip_address(text))
