"""A served bundle for tests: in this process (`asked`, quick), or as a process of its own (`running`, to be killed)."""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from starlette.testclient import TestClient

from frostline.serving import models
from frostline.serving.app import Settings, site
from frostline.serving.heat_map_process import Explainer
from support.commands import spawn
from support.photos import picture

JPEG = {"Content-Type": "image/jpeg"}


@functools.cache
def _loaded(bundle: Path, pixels: int) -> models.Served:
    return models.load(bundle, "auto", pixels)


@contextlib.contextmanager
def asked(bundle: Path, **settings: Any) -> Iterator[TestClient]:
    """A client of a server in this process."""
    wanted = Settings(**settings)
    loaded = _loaded(bundle, wanted.limits.pixels)
    loaded = replace(loaded, explainer=Explainer(bundle, loaded.digest))  # the one before ended with its server
    swapped = models.Models(bundle, loaded, "auto", lambda _: None)
    app, _ = site(swapped, wanted)
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        yield client


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
        told = json.loads(line)
        httpx.get(told["url"] + "readyz", timeout=30).raise_for_status()
        yield Live(process, told["url"], told["model"])
    finally:
        process.kill()
        process.communicate()


def large_jpeg() -> bytes:
    """A photo that takes a while to decode."""
    import io

    buffer = io.BytesIO()
    picture(3, 1600, 1200).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
