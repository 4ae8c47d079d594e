"""Frostline's command line for tests: in this process (`call`, quick) or as a process of its own (`spawn`, to be
killed).
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import frostline
from frostline.cli import main

SOURCES = str(Path(frostline.__file__).parents[1])
SMALL = ("--image-size", "64")


@dataclass(frozen=True)
class Result:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """Its one line of error; fails when there is none, more than one, a stack trace or another exit status."""
        lines = self.err.strip().splitlines()
        assert self.code == 1, self
        assert "Traceback" not in self.err
        assert [line.startswith("error: ") for line in lines] == [False] * (len(lines) - 1) + [True], self.err
        return lines[-1]


def call(*arguments: object, stdin: str | bytes = "") -> Result:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    fed = io.TextIOWrapper(io.BytesIO(stdin.encode() if isinstance(stdin, str) else stdin), encoding="utf-8")
    with (
        mock.patch.object(sys, "argv", ["frostline", *map(str, arguments)]),
        mock.patch.object(sys, "stdin", fed),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main.main()
            code: Any = 0
        except SystemExit as exit_:
            code = exit_.code
    return Result(int(code or 0), out.getvalue(), err.getvalue())


def must(*arguments: object, stdin: str | bytes = "") -> Result:
    """Run a command that has to work."""
    result = call(*arguments, stdin=stdin)
    assert result.code == 0, result
    return result


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """Nothing is unreadable to root: be nobody for a while."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def spawn(*arguments: object, **settings: str) -> subprocess.Popen[str]:
    """Start a command as a process of its own; `settings` join its environment."""
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # a shell's background job ignores Ctrl-C, and so would its children
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        [sys.executable, "-m", "frostline", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": SOURCES, **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def events(run: Path) -> list[dict[str, Any]]:
    """What log.jsonl tells, less a last line that is being written."""
    file = run / "log.jsonl"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def stop_when(process: subprocess.Popen[str], run: Path, reached: Callable[[dict[str, Any]], bool], sign: int) -> int:
    """Send `sign` as soon as log.jsonl has an event that is `reached`; returns the exit status."""
    for _ in range(60_000):
        if any(reached(event) for event in events(run)):
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.send_signal(sign)
    return process.wait()


def document(run: Path) -> dict[str, Any]:
    """A run's study.json."""
    value: dict[str, Any] = json.loads((run / "study.json").read_text(encoding="utf-8"))
    return value


def table(path: Path) -> list[dict[str, str]]:
    """A CSV file's rows."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def figures(run: Path) -> list[dict[str, Any]]:
    """The strategies of a run without what a clock or the machine's load decides."""
    rows = document(run)["strategies"]
    for row in rows:
        del row["seconds"], row["peak_rss_mb"]
        for epoch in [*row["history"], *row["head_history"]]:
            del epoch["seconds"]
        row.get("refit", {}).pop("seconds", None)
    return rows
