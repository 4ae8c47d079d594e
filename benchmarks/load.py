"""The server under load: throughput beside `predict`, latency at half load, memory over time, the cost of bad uploads.

    python benchmarks/load.py BUNDLE [DATA] [--clients 64] [--seconds 20] [--minutes 1]
        [--parts throughput,latency,mixed] [--out load.json]

DATA is a folder of class folders; without it the built-in sample is used. Only its JPEGs are sent, as they are.

**Throughput.** `frostline predict BUNDLE` over all the photos, repeated to fill the time, whole process less its start
(a run over one photo); then `frostline serve` with so many clients that each send the next photo as soon as the last is
answered, as ``image/jpeg`` and as a form. Clients are plain sockets in a process of their own. They share the processor
with the server, where `predict` has it to itself: the ratio is a lower bound for a server whose clients are elsewhere,
and the processor time of both sides is reported.

**Latency.** Requests at half of the measured throughput, at random times (Poisson), on keep-alive connections; seconds
from the time a request was due, so that waiting for a connection counts.

**Mixed.** For `--minutes`: good photos at half load, forms of four, bad uploads of many kinds, slow and broken ones,
one explanation a second. Memory of the server's process every second, the median of the second half beside that of the
first; every status that came; latency of the good ones.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from frostline.files import write_json
from frostline.photos import sample
from frostline.photos.scan import scan

Figures = dict[str, Any]
HEAD = "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"


# ---- a client --------------------------------------------------------------------------------------------------------


class Client:
    """One keep-alive connection; plain sockets, since a library would cost as much as the server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)

    def send(self, message: bytes) -> int:
        """Send a whole request, read the whole answer, return its status; a connection that the server ended is opened
        again."""
        with suppress(BrokenPipeError, ConnectionResetError):  # an early refusal may still be there to be read
            self.socket.sendall(message)
        answer = bytearray()
        while b"\r\n\r\n" not in answer:
            if not (piece := self.socket.recv(65536)):
                raise ConnectionError("no answer")
            answer += piece
        head, _, body = bytes(answer).partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        left = next(int(line[15:]) for line in lines if line.startswith(b"content-length:")) - len(body)
        while left > 0:
            left -= len(self.socket.recv(65536))
        if b"connection: close" in lines:
            self.close()
            self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        return int(head[9:12])

    def close(self) -> None:
        self.socket.close()


def raw(port: int, data: bytes, kind: str = "image/jpeg", path: str = "/v1/predict") -> bytes:
    return HEAD.format(path=path, port=port, kind=kind, length=len(data)).encode() + data


def form(port: int, photos: Sequence[bytes]) -> bytes:
    parts = [
        b"--b0undary\r\n"
        b'Content-Disposition: form-data; name="file"; filename="a.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n" + data + b"\r\n"
        for data in photos
    ]
    return raw(port, b"".join(parts) + b"--b0undary--\r\n", "multipart/form-data; boundary=b0undary")


def _closed_loop(port: int, messages: Sequence[bytes], clients: int, seconds: float, out: Any) -> None:
    """In a process: so many clients, each sending as soon as it was answered."""
    until = time.monotonic() + seconds
    times: list[float] = []
    statuses: Counter[int] = Counter()

    def run(seed: int) -> None:
        rng, client = random.Random(seed), Client(port)  # noqa: S311
        while (start := time.monotonic()) < until:
            status = client.send(rng.choice(messages))
            statuses[status] += 1
            times.append(time.monotonic() - start)
        client.close()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    used = resource.getrusage(resource.RUSAGE_SELF)
    out.put((times, dict(statuses), used.ru_utime + used.ru_stime))


def _open_loop(port: int, messages: Sequence[bytes], rate: float, clients: int, seconds: float, out: Any) -> None:
    """In a process: requests at random times, `rate` a second, whatever the answers do."""
    rng = random.Random(0)  # noqa: S311
    due, moment = [], time.monotonic() + 0.5
    until = moment + seconds
    while moment < until:
        due.append(moment)
        moment += rng.expovariate(rate)
    waiting: Iterator[float] = iter(due)
    lock = threading.Lock()
    times: list[float] = []
    statuses: Counter[int] = Counter()

    def run(seed: int) -> None:
        rng, client = random.Random(seed), Client(port)  # noqa: S311
        while True:
            with lock:
                when = next(waiting, None)
            if when is None:
                break
            time.sleep(max(0.0, when - time.monotonic()))
            statuses[client.send(rng.choice(messages))] += 1
            times.append(time.monotonic() - when)
        client.close()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    used = resource.getrusage(resource.RUSAGE_SELF)
    out.put((times, dict(statuses), used.ru_utime + used.ru_stime))


def driven(target: Any, *arguments: Any) -> tuple[list[float], dict[int, int], float]:
    """Run a client process to its end."""
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    process = context.Process(target=target, args=(*arguments, out))
    process.start()
    result: tuple[list[float], dict[int, int], float] = out.get(timeout=7200)
    process.join()
    return result


# ---- a server --------------------------------------------------------------------------------------------------------


class Live:
    """`frostline serve` as a process."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    def memory(self) -> float:
        """Resident, MB of 10^6 bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def processor(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(bundle: str, *options: str) -> Iterator[Live]:
    command = [sys.executable, "-m", "frostline", "serve", bundle, "--port", "0", "--json", "--quiet", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout is None:
            raise RuntimeError
        url = json.loads(process.stdout.readline())["url"]
        yield Live(process, int(url.rstrip("/").rpartition(":")[2]))
    finally:
        process.send_signal(signal.SIGTERM)
        if code := process.wait():
            print(f"the server ended with {code}")


def seconds_of(bundle: str, paths: Sequence[str]) -> float:
    started = time.perf_counter()
    command = [sys.executable, "-m", "frostline", "predict", bundle, "-", "--quiet", "--out", os.devnull + ".csv"]
    with tempfile.TemporaryDirectory() as folder:
        command[-1] = f"{folder}/x.csv"
        subprocess.run(command, input="\n".join(paths), text=True, check=True)
    return time.perf_counter() - started


# ---- the parts -------------------------------------------------------------------------------------------------------


def throughput(bundle: str, paths: Sequence[str], photos: Sequence[bytes], clients: int, seconds: float) -> Figures:
    start = min(seconds_of(bundle, paths[:1]) for _ in range(2))
    trial = len(paths) / max(0.1, seconds_of(bundle, paths) - start)
    many = list(paths) * max(1, round(trial * seconds / len(paths)))
    before = _children()
    row: Figures = {"predict": len(many) / (seconds_of(bundle, many) - start)}
    row["predict_processor_ms_per_photo"] = 1000 * (_children() - before) / len(many)  # its start included
    with served(bundle) as live:
        for name, messages in (
            ("raw", [raw(live.port, p) for p in photos]),
            ("form", [form(live.port, [p]) for p in photos]),
        ):
            driven(_closed_loop, live.port, messages, clients, 2.0)  # threads and connections warm
            before = live.processor()
            times, statuses, used = driven(_closed_loop, live.port, messages, clients, seconds)
            row[name] = {
                "photos_per_second": len(times) / seconds,
                "ratio": len(times) / seconds / row["predict"],
                "statuses": statuses,
                "median_ms": 1000 * statistics.median(times),
                "server_processor": (live.processor() - before) / seconds,
                "server_processor_ms_per_photo": 1000 * (live.processor() - before) / len(times),
                "clients_processor": used / seconds,
            }
        row["memory_mb"] = live.memory()
    return row


def _children() -> float:
    """Processor seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def latency(bundle: str, photos: Sequence[bytes], rate: float, clients: int, seconds: float) -> Figures:
    with served(bundle) as live:
        messages = [raw(live.port, p) for p in photos]
        driven(_closed_loop, live.port, messages, clients, 2.0)
        times, statuses, _ = driven(_open_loop, live.port, messages, rate, clients, seconds)
    return {"rate": rate, **_spread(times), "statuses": statuses}


def _spread(times: Sequence[float]) -> Figures:
    cuts = statistics.quantiles(times, n=1000)
    median = statistics.median(times)
    return {
        "requests": len(times),
        "median_ms": 1000 * median,
        "p95_ms": 1000 * cuts[949],
        "p99_ms": 1000 * cuts[989],
        "max_ms": 1000 * max(times),
        "p99_over_median": cuts[989] / median,
    }


def _bad(port: int, photos: Sequence[bytes]) -> list[bytes]:
    """Uploads that are due a refusal."""
    rng = random.Random(1)  # noqa: S311
    torn = [raw(port, p[: len(p) // 2]) for p in photos[:20]]
    junk = [raw(port, rng.randbytes(20_000)), raw(port, b""), raw(port, b"<html>"), raw(port, bytes(5000))]
    bomb = bytearray(photos[0])
    place = max(bomb.find(b"\xff\xc0"), bomb.find(b"\xff\xc2"))
    bomb[place + 5 : place + 9] = b"\xea\x60\xea\x60"
    forms = [raw(port, b"no form", "multipart/form-data; boundary=x"), raw(port, b"{}", "application/json")]
    large = raw(port, photos[0] + bytes(21 * 1024**2))
    return [*torn, *junk, raw(port, bytes(bomb)), *forms, large, raw(port, photos[0], path="/v1/nothing")]


class _BadClients:
    """In a process: bad uploads ten times a second, slow ones that break off, forms, an explanation a second."""

    def __init__(self, port: int, photos: Sequence[bytes], seconds: float) -> None:
        self.port, self.photos = port, photos
        self.until = time.monotonic() + seconds
        self.statuses: Counter[str] = Counter()

    def bad(self) -> None:
        client, messages = Client(self.port), _bad(self.port, self.photos)
        while time.monotonic() < self.until:
            for message in messages:
                try:
                    self.statuses[f"bad {client.send(message)}"] += 1
                except OSError:
                    self.statuses["bad: connection ended"] += 1
                    client = Client(self.port)
                time.sleep(0.1)

    def slow(self) -> None:
        message = raw(self.port, self.photos[0])
        while time.monotonic() < self.until:
            with socket.create_connection(("127.0.0.1", self.port)) as connection:
                for place in range(0, 400, 20):
                    connection.sendall(message[place : place + 20])
                    time.sleep(0.1)
            self.statuses["broken off"] += 1

    def explain(self) -> None:
        self._every(1.0, "explain", lambda: raw(self.port, self.photos[0], path="/v1/explain"))

    def forms(self) -> None:
        rng = random.Random(2)  # noqa: S311
        self._every(0.5, "form", lambda: form(self.port, rng.sample(list(self.photos), 4)))

    def _every(self, seconds: float, name: str, message: Callable[[], bytes]) -> None:
        client = Client(self.port)
        while time.monotonic() < self.until:
            self.statuses[f"{name} {client.send(message())}"] += 1
            time.sleep(seconds)


def _bad_clients(port: int, photos: Sequence[bytes], seconds: float, out: Any) -> None:
    trouble = _BadClients(port, photos, seconds)
    works = (trouble.bad, trouble.slow, trouble.slow, trouble.explain, trouble.forms)
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    out.put(([0.0], dict(trouble.statuses), 0.0))


def mixed(bundle: str, photos: Sequence[bytes], rate: float, minutes: float) -> Figures:
    with served(bundle) as live:
        messages = [raw(live.port, p) for p in photos]
        driven(_closed_loop, live.port, messages, 16, 5.0)
        memory: list[float] = []
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(1.0):
                memory.append(live.memory())

        watcher = threading.Thread(target=look)
        watcher.start()
        results: dict[str, tuple[list[float], dict[int, int], float]] = {}
        work = {
            "good": (_open_loop, live.port, messages, rate, 32, 60 * minutes),
            "trouble": (_bad_clients, live.port, photos, 60 * minutes),
        }

        def drive(name: str) -> None:
            results[name] = driven(*work[name])

        threads = [threading.Thread(target=drive, args=(name,)) for name in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ended.set()
        watcher.join()
    half = len(memory) // 2
    return {
        "minutes": minutes,
        **_spread(results["good"][0]),
        "statuses": results["good"][1],
        "trouble": results["trouble"][1],
        "memory_mb": {
            "first": memory[0],
            "first_half": statistics.median(memory[:half]),
            "second_half": statistics.median(memory[half:]),
            "last": memory[-1],
            "most": max(memory),
        },
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("data", nargs="?")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--photos", type=int, default=1000, help="at most so many different ones")
    parser.add_argument(
        "--rate", type=float, default=0, help="of the latency and mixed parts; default: half of the throughput"
    )
    parser.add_argument("--parts", default="throughput,latency,mixed")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> None:
    options = _options()
    root = Path(options.data) if options.data else sample.render(Path(tempfile.mkdtemp()) / "sample")
    found = [
        str(root / p.path) for p in scan(root, least_classes=1).photos if p.path.lower().endswith((".jpg", ".jpeg"))
    ]
    random.Random(0).shuffle(found)  # noqa: S311
    paths = found[: options.photos]
    photos = [Path(path).read_bytes() for path in paths]
    document: Figures = {
        "bundle": options.bundle,
        "photos": len(photos),
        "mean_bytes": statistics.mean(map(len, photos)),
    }
    parts = options.parts.split(",")
    rate = options.rate
    if "throughput" in parts or not rate:
        document["throughput"] = throughput(options.bundle, paths, photos, options.clients, options.seconds)
        rate = rate or document["throughput"]["raw"]["photos_per_second"] / 2
    if "latency" in parts:
        document["latency"] = latency(options.bundle, photos, rate, options.clients, options.seconds)
    if "mixed" in parts:
        document["mixed"] = mixed(options.bundle, photos, rate, options.minutes)
    print(json.dumps(document, indent=1))
    if options.out:
        write_json(options.out, document)


if __name__ == "__main__":
    main()
