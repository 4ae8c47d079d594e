"""A served bundle for tests: in this process (`asked`, `listening`; quick), or as a process of its own (`running`)."""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from starlette.testclient import TestClient

from frostline.serving import models, server
from frostline.serving.app import make_app
from frostline.serving.heat_map_process import HeatMapProcess
from frostline.serving.service import Service
from frostline.serving.settings import Settings
from support.commands import spawn
from support.photos import picture

JPEG = {"Content-Type": "image/jpeg"}


@functools.cache
def _loaded(bundle: Path, pixels: int) -> models.ServedModel:
    return models.load(bundle, "auto", pixels)


def _service(bundle: Path, wanted: Settings) -> Service:
    loaded = _loaded(bundle, wanted.limits.pixels)
    loaded = replace(loaded, heat_maps=HeatMapProcess(bundle, loaded.digest))  # the last one ended with its server
    return Service(models.ReloadableModel(bundle, loaded, "auto", lambda _: None), wanted)


@contextlib.contextmanager
def asked(bundle: Path, **settings: Any) -> Iterator[TestClient]:
    """A client of a server in this process, without a socket."""
    app = make_app(_service(bundle, Settings(**settings)))
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        yield client


@contextlib.contextmanager
def listening(bundle: Path, **settings: Any) -> Iterator[str]:
    """The address of a server in a thread of this process, for settings that `frostline serve` has no option for."""
    service = _service(bundle, Settings(**settings))
    with server.bound("127.0.0.1", 0) as listener:
        started = server.server(make_app(service), service.limits, service.status, drain=0)
        thread = threading.Thread(target=started.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            started.should_exit = True
            thread.join()


@dataclass(frozen=True)
class Live:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    url: str
    model: str

    @property
    def port(self) -> int:
        return int(self.url.rstrip("/").rpartition(":")[2])

    def ended(self) -> tuple[int, str]:
        """Its exit status, and what it said on stderr, once it has ended."""
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err


@contextlib.contextmanager
def running(bundle: Path, *options: object, **environment: str) -> Iterator[Live]:
    """A server that takes requests; whatever the test leaves of it is killed."""
    process = spawn("serve", bundle, "--port", 0, "--json", *options, **environment)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, process.communicate()
        started = json.loads(line)
        httpx.get(started["url"] + "readyz", timeout=30).raise_for_status()
        yield Live(process, started["url"], started["model"])
    finally:
        process.kill()
        process.communicate()


def large_jpeg() -> bytes:
    """A photo that takes a while to decode."""
    import io

    buffer = io.BytesIO()
    picture(3, 1600, 1200).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
