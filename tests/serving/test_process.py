"""The server as a process: it ends and reloads without losing a request, and nobody who is slow or rude holds it up."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from frostline.serving.limits import Limits
from support.commands import SOURCES
from support.photos import BROKEN, photo
from support.runs import Run
from support.serving import JPEG, Live, large_jpeg, listening, running

posix = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals of POSIX")


@pytest.fixture(scope="module")
def bundle(run: Run) -> Path:
    return run.out / "frozen" / "bundle"


@pytest.fixture(scope="module")
def live(bundle: Path) -> Iterator[Live]:
    with running(bundle, "--timeout", 1.5, "--max-bytes", 2_000_000) as server:
        yield server


class Crowd:
    """Clients that send one request after the other, until they are stopped or the server says that it is leaving."""

    def __init__(self, url: str, clients: int = 8, *, keep_alive: bool = True) -> None:
        self.seen: Counter[str] = Counter()
        self.models: list[str] = []
        self._url, self._keep = url, keep_alive
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(clients)]

    def _run(self, number: int) -> None:
        body = photo(number)
        with httpx.Client(timeout=30) as client:
            while not self._stop.is_set():
                try:
                    if self._keep:
                        response = client.post(f"{self._url}v1/predict", content=body, headers=JPEG)
                    else:
                        response = httpx.post(f"{self._url}v1/predict", content=body, headers=JPEG, timeout=30)
                except httpx.HTTPError as error:
                    self.seen[f"lost: {error!r}"] += 1
                    return
                self.seen[str(response.status_code)] += 1
                self.models.append(response.json()["model"]["id"] if response.status_code == 200 else "")
                if response.headers.get("connection") == "close":
                    self.seen["sent elsewhere"] += 1
                    return

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def wait_for(self, answers: int) -> None:
        """Until so many more were answered."""
        until = sum(self.seen.values()) + answers
        for _ in range(3000):
            if sum(self.seen.values()) >= until:
                return
            time.sleep(0.01)
        raise AssertionError(self.seen)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


# ---- the stop --------------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_the_stop_loses_no_request_of_clients_that_heed_it(bundle: Path, sign: int) -> None:
    with running(bundle, "--drain", 2) as server:
        with Crowd(server.url) as kept, Crowd(server.url, 4, keep_alive=False) as new:
            kept.wait_for(40)
            new.wait_for(4)
            server.process.send_signal(sign)
            code, err = server.ended()
        assert code == 0, err
        assert "Traceback" not in err
    for crowd, clients in ((kept, 8), (new, 4)):
        assert set(crowd.seen) == {"200", "sent elsewhere"}, crowd.seen
        assert crowd.seen["sent elsewhere"] == clients


@posix
def test_requests_under_way_are_answered_after_the_server_stops_listening(bundle: Path) -> None:
    with running(bundle, "--drain", 0, "--timeout", 6) as server:
        finished, stalled = (_begun(server, len(photo())) for _ in range(2))
        server.process.send_signal(signal.SIGTERM)
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", server.port)).close()
            except OSError:
                break
            time.sleep(0.01)
        else:
            raise AssertionError("it still listens")
        finished.sendall(photo())
        answer = _received(finished)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer.lower()
        assert _received(stalled).startswith(b"HTTP/1.1 408")  # and the server does not wait for it for ever
        code, err = server.ended()
        assert code == 0, err


def _begun(server: Live, length: int) -> socket.socket:
    """A connection whose request the application has begun to read."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    connection.sendall(_header(length, "Expect: 100-continue\r\n"))
    assert connection.recv(1000).startswith(b"HTTP/1.1 100")
    return connection


@posix
def test_it_says_that_it_is_leaving_before_it_does(bundle: Path) -> None:
    with running(bundle, "--drain", 20) as server:
        server.process.send_signal(signal.SIGTERM)
        for _ in range(500):
            answer = httpx.get(f"{server.url}readyz")
            if answer.status_code == 503:
                break
            time.sleep(0.01)
        assert answer.json()["error"]["code"] == "leaving"
        assert answer.headers["connection"] == "close"
        assert httpx.get(f"{server.url}healthz").status_code == 200
        assert httpx.post(f"{server.url}v1/predict", content=photo(), headers=JPEG).status_code == 200
        server.process.send_signal(signal.SIGTERM)  # once more: at once
        assert server.ended()[0] == 0


# ---- another model ---------------------------------------------------------------------------------------------------


@posix
def test_another_model_takes_over_without_a_request_lost(run: Run, bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "served"
    shutil.copytree(bundle, folder)
    ids = {}
    for name in ("frozen", "fine-tuned"):
        document = json.loads((run.out / name / "bundle" / "bundle.json").read_text(encoding="utf-8"))
        ids[name] = document["sha256"][:12]
    with running(folder, "--watch", "--token", "t0ken") as server, _tokened(server) as client:
        assert server.model == ids["frozen"]
        with Crowd(server.url) as crowd:  # without a token: every one is answered too, with 401
            _put(run.out / "fine-tuned" / "bundle", folder)
            _until(client, ids["fine-tuned"])  # by itself: it watches

            (folder / "model.safetensors").write_bytes(b"no model")
            bad = client.post("/v1/reload")
            assert bad.status_code == 409
            assert "the model in use stays" in bad.json()["error"]["message"]
            server.process.send_signal(signal.SIGHUP)
            _until_counted(client, "frostline_reloads_failed 2.0")
            assert client.get("/v1/model").json()["id"] == ids["fine-tuned"]
            assert client.post("/v1/predict", content=photo(), headers=JPEG).status_code == 200

            _put(bundle, folder)
            assert client.post("/v1/reload").json()["model"]["id"] == ids["frozen"]
            crowd.wait_for(10)
        assert set(crowd.seen) == {"401"}


@posix
def test_answers_under_way_keep_the_model_they_began_with(run: Run, bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "served"
    shutil.copytree(bundle, folder)
    with running(folder) as server, Crowd(server.url) as crowd:
        crowd.wait_for(20)
        for source in ("fine-tuned", "frozen", "fine-tuned"):
            _put(run.out / source / "bundle", folder)
            before = crowd.models[-1]
            server.process.send_signal(signal.SIGHUP)
            for _ in range(1500):
                if crowd.models[-1] != before:
                    break
                time.sleep(0.01)
            crowd.wait_for(10)
    assert set(crowd.seen) == {"200"}
    assert len(set(crowd.models)) == 2


@contextlib.contextmanager
def _tokened(server: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers={"Authorization": "Bearer t0ken"}, timeout=30) as client:
        yield client


def _put(source: Path, folder: Path) -> None:
    """Replace a bundle as `bundle.save` does."""
    shutil.copytree(source, folder.with_name("next"))
    shutil.rmtree(folder)
    folder.with_name("next").rename(folder)


def _until(client: httpx.Client, model: str) -> None:
    for _ in range(1500):
        if client.get("/v1/model").json()["id"] == model:
            return
        time.sleep(0.02)
    raise AssertionError(model)


def _until_counted(client: httpx.Client, line: str) -> None:
    for _ in range(1500):
        if line in client.get("/metrics").text:
            return
        time.sleep(0.02)
    raise AssertionError(line)


# ---- the slow and the rude -------------------------------------------------------------------------------------------


def _received(connection: socket.socket) -> bytes:
    """All bytes until the server ends the connection."""
    connection.settimeout(20)
    received = b""
    with contextlib.suppress(ConnectionResetError), connection:
        while piece := connection.recv(65536):
            received += piece
    return received


def _header(length: int, more: str = "") -> bytes:
    head = "POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\n"
    return f"{head}Content-Length: {length}\r\n{more}\r\n".encode()


def test_slow_and_rude_clients_get_a_reason_and_hold_nobody_up(live: Live) -> None:
    def connect(message: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", live.port))
        connection.sendall(message)
        return connection

    slow_body = connect(_header(len(photo())) + photo()[:100])
    stalled = [connect(_header(1000)) for _ in range(40)]
    half_header = connect(b"POST /v1/predict HTTP/1.1\r\nHost: 127")
    silent = socket.create_connection(("127.0.0.1", live.port))
    vanished = connect(_header(5000) + b"x" * 100)
    vanished.close()
    for kind in BROKEN:
        assert httpx.post(f"{live.url}v1/predict", content=BROKEN[kind][0], headers=JPEG).status_code in (413, 415, 422)
    for _ in range(20):
        response = httpx.post(f"{live.url}v1/predict", content=photo(), headers=JPEG, timeout=10)
        assert response.status_code == 200
    assert b"408" in (received := _received(slow_body))
    assert b'"too_slow"' in received
    for connection in stalled:
        assert b"408" in _received(connection)
    assert b"408" in _received(half_header)
    assert _received(silent) == b""  # it never asked for anything


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"no HTTP at all\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nLong: " + b"y" * 200_000, b"431"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000, b"431"),
        (b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
    ],
)
def test_broken_http_gets_a_reason(live: Live, message: bytes, status: bytes) -> None:
    with socket.create_connection(("127.0.0.1", live.port)) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(message)
        head, _, body = _received(connection).partition(b"\r\n\r\n")
    assert status in head.partition(b"\r\n")[0]
    assert list(json.loads(body)["error"]) == ["code", "message"]
    assert httpx.get(f"{live.url}healthz").status_code == 200


def test_a_huge_upload_is_refused_at_once_and_cut_off(live: Live) -> None:
    with socket.create_connection(("127.0.0.1", live.port)) as connection:
        connection.sendall(_header(10**12))
        connection.settimeout(20)
        assert b"413" in connection.recv(65536)
        with pytest.raises(OSError, match=r"(?i)broken pipe|reset"):
            for _ in range(4000):
                connection.sendall(bytes(65536))


def test_more_connections_than_allowed_are_refused_and_health_is_still_answered(bundle: Path) -> None:
    limits = Limits(connections=3)
    with listening(bundle, limits=limits) as url:
        idle = [httpx.Client(base_url=url) for _ in range(3)]
        for client in idle:
            assert client.get("v1/model").status_code == 200
        refused = httpx.get(f"{url}v1/model")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "busy"
        assert refused.headers["retry-after"] == "1"
        assert httpx.get(f"{url}healthz").status_code == 200
        for client in idle:
            client.close()
        for _ in range(500):
            if httpx.get(f"{url}v1/model").status_code == 200:
                return
            time.sleep(0.01)
        raise AssertionError("closed connections still count")


def test_one_connection_takes_many_photos_and_a_large_one(live: Live) -> None:
    with httpx.Client(base_url=live.url) as client:
        for number in range(5):
            assert client.post("/v1/predict", content=photo(number), headers=JPEG).status_code == 200
            assert client.post("/v1/predict", content=b"none", headers=JPEG).status_code == 415
        assert client.post("/v1/predict", content=large_jpeg(), headers=JPEG).status_code == 200


# ---- without PyTorch -------------------------------------------------------------------------------------------------


WITHOUT = """
import sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = name.partition(".")[0] in ABSENT
        return None if absent else super().find_spec(name, path, target)

sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
"""


def test_it_serves_where_pytorch_is_not_installed(bundle: Path, tmp_path: Path) -> None:
    """As in the Dockerfile's image: the compiled bundle, and none of the packages that the Dockerfile removes."""
    recipe = (Path(__file__).parents[2] / "Dockerfile").read_text(encoding="utf-8")
    removed = recipe.partition(" && rm -rf ")[2].partition("&&")[0].replace("\\", " ").split()
    assert {"torch", "scipy", "timm"} <= set(removed)
    (tmp_path / "sitecustomize.py").write_text(f"ABSENT = {set(removed)!r}\n{WITHOUT}", encoding="utf-8")
    with running(bundle, PYTHONPATH=f"{tmp_path}:{SOURCES}") as server:
        assert httpx.post(f"{server.url}v1/predict", content=photo(), headers=JPEG).status_code == 200
        assert httpx.get(f"{server.url}v1/model").json()["explanations"] is False
        answer = httpx.post(f"{server.url}v1/explain", content=photo(), headers=JPEG)
        assert answer.status_code == 501
        assert "PyTorch" in answer.json()["error"]["message"]
