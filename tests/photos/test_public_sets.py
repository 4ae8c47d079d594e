"""Public photos, fetched from a server on this machine: checked, resumed, unpacked in one step, licence shown."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache as cache_
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from frostline.cache import contents
from frostline.photos import public_sets
from frostline.photos.scan import scan
from frostline.progress import Progress
from support import photos
from support.commands import call, must
from support.servers import LocalServer

LICENCE = (
    "All images are licensed under CC-BY.\n\nPlease credit the photographers:\n\nrose/1.jpg by A\ntulip/1.jpg by B\n"
)


class Server(LocalServer):
    """Serves one file, with ranges; `cut_at` breaks the line once before that byte of the file."""

    def __init__(self, content: bytes) -> None:
        self.content, self.cut_at, self.starts = content, 0, list[int]()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
                start = int(asked[1]) if asked else 0
                server.starts.append(start)
                self.send_response(206 if asked else 200)
                if asked:
                    self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
                self.send_header("Content-Length", str(len(server.content) - start))
                self.end_headers()
                cut, server.cut_at = server.cut_at, 0
                self.wfile.write(server.content[start : cut or None])
                self.close_connection = True

            def log_message(self, *args: object) -> None:
                pass

        super().__init__(Handler)


@cache_
def archive() -> bytes:
    """A small stand-in for the real archive, with the same build."""
    members = {
        f"flower_photos/{c}/{i}.jpg": photos.photo(10 * len(c) + i, width=200)
        for c in ("rose", "tulip")
        for i in (1, 2)
    }
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, data in {**members, "flower_photos/LICENSE.txt": LICENCE.encode()}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / "cache"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def serve(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], Server]]:
    """Start a server of some bytes; the set that it publishes has those of `archive`."""
    servers = []

    def start(content: bytes) -> Server:
        servers.append(Server(content))
        whole = archive()
        url = f"{servers[-1].url}/flower_photos.tgz"
        known = replace(
            public_sets.KNOWN["flowers"], urls=(url,), sha256=hashlib.sha256(whole).hexdigest(), size=len(whole)
        )
        monkeypatch.setitem(public_sets.KNOWN, "flowers", known)
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_the_published_set_is_the_known_one() -> None:
    flowers = public_sets.KNOWN["flowers"]
    assert (flowers.size, flowers.sha256[:8], len(flowers.sha256)) == (228_813_984, "4c54ace7", 64)
    assert flowers.urls == ("https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz",)


def test_flowers_are_fetched_unpacked_and_licensed(
    serve: Callable[[bytes], Server], cache: Path, tmp_path: Path
) -> None:
    serve(archive())
    result = must("data", "flowers", tmp_path / "flowers")
    assert "4 photos (rose 2, tulip 2)" in result.out
    assert "Licence: All images are licensed under CC-BY. Please credit the photographers:" in result.out
    assert str(tmp_path / "flowers" / "LICENSE.txt") in result.out
    assert "Licence: Creative Commons Attribution" in result.err
    assert "SHA-256 verified" in result.err
    assert {p.name for p in (tmp_path / "flowers").iterdir()} == {"rose", "tulip", "LICENSE.txt"}
    assert {p.name for p in tmp_path.iterdir()} == {"cache", "flowers"}
    assert scan(tmp_path / "flowers").counts() == {"rose": 2, "tulip": 2}
    assert contents.entries() == []  # the archive is not kept
    assert call("data", "flowers", tmp_path / "flowers").error.endswith("give a new or an empty folder")
    assert "did you mean 'flowers'?" in call("data", "flower", tmp_path / "x").error


def test_a_broken_fetch_goes_on_where_it_stopped(serve: Callable[[bytes], Server], cache: Path, tmp_path: Path) -> None:
    whole = archive()
    server = serve(whole)
    server.cut_at = 4000
    must("data", "flowers", tmp_path / "one", "--quiet")
    assert server.starts == [0, 4000]
    server.starts.clear()
    (cache / "downloads" / ".flower_photos.tgz.part").write_bytes(whole[:5000])  # what a killed process left
    (entry,) = contents.entries()
    assert (entry.kind, entry.what) == ("downloads", "unfinished: archive flower_photos.tgz")
    fetched = json.loads(must("data", "flowers", tmp_path / "two", "--json").out)
    assert server.starts == [5000]
    assert (fetched["photos"], fetched["classes"], fetched["left_out"]) == (4, {"rose": 2, "tulip": 2}, [])


def test_other_bytes_are_refused_and_a_mirror_is_asked_first(
    serve: Callable[[bytes], Server], cache: Path, tmp_path: Path
) -> None:
    whole = archive()
    wrong = serve(whole[:-9] + b"something")
    error = call("data", "flowers", tmp_path / "flowers").error
    assert "another file: SHA-256" in error
    assert "--url" in error
    assert not (tmp_path / "flowers").exists()
    mirror = Server(whole)
    try:
        asked = len(wrong.starts)
        must("data", "flowers", tmp_path / "flowers", "--url", f"{mirror.url}/a/flowers.tgz", "--quiet")
        assert (len(wrong.starts), mirror.starts) == (asked, [0])
    finally:
        mirror.close()


def test_nothing_is_left_of_an_archive_that_can_not_be_unpacked(
    serve: Callable[[bytes], Server], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(b"\x1f\x8b no archive at all")
    known = public_sets.KNOWN["flowers"]
    wrong = replace(known, sha256=hashlib.sha256(server.content).hexdigest(), size=len(server.content))
    monkeypatch.setitem(public_sets.KNOWN, "flowers", wrong)
    (tmp_path / "empty").mkdir()
    assert "can't be opened as an archive" in call("data", "flowers", tmp_path / "empty").error
    assert list((tmp_path / "empty").iterdir()) == []
    assert {p.name for p in tmp_path.iterdir()} == {"cache", "empty"}


def test_how_far_it_is_and_what_is_left_is_shown(serve: Callable[[bytes], Server], cache: Path, tmp_path: Path) -> None:
    serve(archive())
    log = io.StringIO()
    with Progress(stream=log) as progress:
        public_sets.fetch(public_sets.KNOWN["flowers"], tmp_path / "flowers", progress=progress)
    assert re.search(r"Fetching flower_photos.tgz: [\d.]+ kB in", log.getvalue())
    assert re.search(r"Unpacking flower_photos.tgz: [\d.]+ kB in", log.getvalue())
