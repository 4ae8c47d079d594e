"""What a long job shows while it works: bars on a terminal, plain lines in a log. The only home of rich's progress.

Everything goes to stderr, so that stdout stays free for results (``--json``). A finished task leaves one line and its
bar goes, so a study of thirty tasks shows the one that runs.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, Protocol, Self, TextIO

import rich.progress
from rich.console import Console
from rich.filesize import decimal
from rich.text import Text

from frostline.wording import duration

LINE_SECONDS = 10.0  # in a log: at most one line about a running task in this time
Unit = Literal["", "B"]


class Step(Protocol):
    """What a job needs of its task: to say how far it is. Jobs take this, so tests can pass a stand-in."""

    def advance(self, n: int = 1) -> None:
        """Count `n` more units as done."""

    def update(self, *, total: int | None = None, detail: str | None = None) -> None:
        """Set another total (a job that ends early, a size that is now known) or the words behind the bar."""


class Progress:
    """Shows tasks while a ``with`` block runs: a bar on a terminal, plain lines elsewhere, nothing when `quiet`.

    Usable without the ``with`` only when `quiet`. Tasks may be advanced from several threads.

    Parameters
    ----------
    quiet:
        Show nothing at all.
    stream:
        Where to write; default: the present `sys.stderr`.
    clock:
        Seconds that only grow; tests pass their own.
    """

    def __init__(
        self, quiet: bool = False, *, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        stream = sys.stderr if stream is None else stream
        # not rich's own guess: FORCE_COLOR, usual in CI, would make it draw bars into a log file
        terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._quiet = quiet
        self._bars = terminal and not quiet
        self._clock = clock
        self._console = Console(file=stream, force_terminal=terminal, highlight=False, markup=False, emoji=False)
        self._rich = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}", markup=False),
            rich.progress.BarColumn(bar_width=30),
            rich.progress.TaskProgressColumn(),
            _CountColumn(),
            rich.progress.TimeRemainingColumn(compact=True),
            rich.progress.TextColumn("left"),
            rich.progress.TextColumn("{task.fields[detail]}", markup=False),
            console=self._console,
            disable=not self._bars,  # rich still counts and estimates, it only draws nothing
            transient=True,
            redirect_stdout=False,  # rich would send what is printed on stdout to the console, which is stderr
            get_time=clock,
            speed_estimate_period=300.0,  # seconds; with 30 no speed is known when a step (an epoch) takes longer
        )
        self._lock = threading.RLock()
        self._open: list[_Task] = []
        self._last_line = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in list(self._open):
            task.finish()
        self._rich.stop()

    @property
    def quiet(self) -> bool:
        """Whether nothing is shown."""
        return self._quiet

    def task(self, label: str, total: int | None = None, *, unit: Unit = "") -> Task:
        """Begin a task of `total` units (None: not known yet; shows that something moves). `unit` "B" counts bytes.

        It ends by itself when `total` is reached, else with `Task.finish` or at the end of the ``with`` block.
        """
        with self._lock:
            if self._bars:
                self._rich.start()
            if not self._open:
                self._last_line = self._clock()
            number = self._rich.add_task(label, total=total, unit=unit, detail="")
            task = _Task(self, number)
            self._open.append(task)
            return task

    def say(self, text: str) -> None:
        """Write `text` as a line of its own, above the bars if there are any."""
        if not self._quiet:
            self._console.print(Text(text), soft_wrap=True)

    def _moved(self, task: _Task) -> None:
        state = self._rich.tasks[self._rich.task_ids.index(task.number)]
        if state.total is not None and state.completed >= state.total:
            task.finish()
        elif not self._bars and not self._quiet and self._clock() - self._last_line >= LINE_SECONDS:
            self._last_line = self._clock()
            self.say(_running_line(state))

    def _finished(self, task: _Task) -> None:
        state = self._rich.tasks[self._rich.task_ids.index(task.number)]
        self._open.remove(task)
        self._rich.remove_task(task.number)
        self.say(_end_line(state))


@contextmanager
def open_progress(given: Progress | None, quiet: bool) -> Iterator[Progress]:
    """Yield the caller's progress, which stays open; without one a new one, which is closed at the end."""
    if given is not None:
        yield given
    else:
        with Progress(quiet) as new:
            yield new


class Task(Step, Protocol):
    """A running task of a `Progress`."""

    def finish(self) -> None:
        """End the task now, whatever it has counted; more than once does no harm."""


class _Task:
    """A task is known to rich by its number only; here it gets the methods that jobs call."""

    def __init__(self, owner: Progress, number: rich.progress.TaskID) -> None:
        self._owner = owner
        self.number = number
        self._ended = False

    def advance(self, n: int = 1) -> None:
        with self._owner._lock:
            if not self._ended:
                self._owner._rich.advance(self.number, n)
                self._owner._moved(self)

    def update(self, *, total: int | None = None, detail: str | None = None) -> None:
        with self._owner._lock:
            if self._ended:
                return
            if detail is not None:
                self._owner._rich.update(self.number, detail=detail)
            if total is not None:
                self._owner._rich.update(self.number, total=total)
            self._owner._moved(self)

    def finish(self) -> None:
        with self._owner._lock:
            if not self._ended:
                self._ended = True
                self._owner._finished(self)


class _CountColumn(rich.progress.ProgressColumn):
    """ "1,727/4,317", or "5.1/14.2 MB" for bytes: rich's own columns do one or the other for all tasks."""

    def render(self, task: rich.progress.Task) -> Text:
        return Text(_count(task), style="progress.download")


def _number(value: float, task: rich.progress.Task) -> str:
    return decimal(int(value)) if task.fields["unit"] == "B" else f"{int(value):,}"


def _count(task: rich.progress.Task) -> str:
    if task.total is None:
        return _number(task.completed, task) if task.completed else ""
    return f"{_number(task.completed, task)}/{_number(task.total, task)}"


def _running_line(task: rich.progress.Task) -> str:
    parts = [_count(task)]
    if task.total is not None:
        parts[0] = f"{task.percentage:.0f} % ({parts[0]})"
        if task.time_remaining is not None:
            parts.append(f"{duration(task.time_remaining)} left")
    return f"{task.description}: " + ", ".join(part for part in [*parts, task.fields["detail"]] if part)


def _end_line(task: rich.progress.Task) -> str:
    whole = task.total is None or task.completed >= task.total
    time_taken = duration(task.elapsed or 0.0)
    detail = f", {task.fields['detail']}" if task.fields["detail"] else ""
    if task.total is None and not task.completed:  # nothing was counted
        return f"{task.description}: {time_taken}{detail}"
    count = _number(task.completed, task) if whole else f"stopped at {_count(task)}"
    return f"{task.description}: {count} in {time_taken}{detail}"
