"""Progress in a log, on a terminal (a real pseudo-terminal) and when quiet."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading

import pytest

from frostline.progress import Progress, Step, open_progress


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_log_gets_one_line_at_the_end_of_each_task() -> None:
    out, clock = io.StringIO(), Clock()
    with Progress(stream=out, clock=clock) as progress:
        task = progress.task("Decoding", 4317)
        for _ in range(4317):
            clock.now += 0.001
            task.advance()
        progress.task("Loading", 0)
    lines = out.getvalue().splitlines()
    assert lines == ["Decoding: 4,317 in 4.3 s", "Loading: 0 in 0.0 s"]


def test_a_log_gets_at_most_a_line_every_ten_seconds_with_percentage_and_time_left() -> None:
    out, clock = io.StringIO(), Clock()
    with Progress(stream=out, clock=clock) as progress:
        task: Step = progress.task("Training", 100)
        task.update(detail="loss 0.31")
        for _ in range(100):
            clock.now += 0.25
            task.advance()
    assert out.getvalue().splitlines() == [
        "Training: 40 % (40/100), 15 s left, loss 0.31",
        "Training: 80 % (80/100), 5.0 s left, loss 0.31",
        "Training: 100 in 25 s, loss 0.31",
    ]


def test_a_second_task_does_not_get_its_line_before_ten_seconds() -> None:
    out, clock = io.StringIO(), Clock()
    with Progress(stream=out, clock=clock) as progress:
        progress.task("First", 1).advance()
        clock.now += 60
        second = progress.task("Second", 2)
        second.advance()
        assert out.getvalue().splitlines() == ["First: 1 in 0.0 s"]
        second.advance()


def test_bytes_are_counted_in_megabytes() -> None:
    out, clock = io.StringIO(), Clock()
    with Progress(stream=out, clock=clock) as progress:
        task = progress.task("Weights", 14_212_972, unit="B")
        clock.now += 11
        task.advance(7_000_000)
        task.advance(7_212_972)
    assert out.getvalue().splitlines() == ["Weights: 49 % (7.0 MB/14.2 MB)", "Weights: 14.2 MB in 11 s"]


def test_time_left_is_known_when_a_step_takes_a_minute() -> None:
    out, clock = io.StringIO(), Clock()
    with Progress(stream=out, clock=clock) as progress:
        task = progress.task("Epochs", 4)
        for _ in range(4):
            clock.now += 60
            task.advance()
    assert out.getvalue().splitlines()[1] == "Epochs: 50 % (2/4), 2 min left"


@pytest.mark.parametrize(
    ("total", "end", "line"),
    [
        (10, "leave", "Job: stopped at 4/10 in 0.0 s"),
        (10, "finish", "Job: stopped at 4/10 in 0.0 s"),
        (10, "shorten", "Job: 4 in 0.0 s"),
        (None, "leave", "Job: 4 in 0.0 s"),
    ],
)
def test_a_task_that_ends_early_is_told_once(total: int | None, end: str, line: str) -> None:
    out = io.StringIO()
    with Progress(stream=out, clock=Clock()) as progress:
        task = progress.task("Job", total)
        task.advance(4)
        if end == "finish":
            task.finish()
            task.finish()
            task.advance()
        elif end == "shorten":
            task.update(total=4)
    assert out.getvalue().splitlines() == [line]


def test_an_error_passes_and_the_task_is_told() -> None:
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt), Progress(stream=out, clock=Clock()) as progress:
        progress.task("Job", 10).advance(3)
        raise KeyboardInterrupt
    assert out.getvalue() == "Job: stopped at 3/10 in 0.0 s\n"


def test_quiet_writes_nothing_and_needs_no_with() -> None:
    out, clock = io.StringIO(), Clock()
    progress = Progress(quiet=True, stream=out, clock=clock)
    task = progress.task("Job", 10)
    clock.now += 60
    task.advance(10)
    progress.say("a line")
    assert out.getvalue() == ""


def test_a_progress_that_was_given_stays_open_and_a_new_one_is_closed(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    with Progress(stream=out, clock=Clock()) as given:
        with open_progress(given, quiet=True) as progress:
            assert progress is given
            task = progress.task("Job", 2)
        task.advance(2)
    assert out.getvalue() == "Job: 2 in 0.0 s\n"
    with open_progress(None, quiet=False) as progress:
        progress.task("Job", 2)
    assert capsys.readouterr().err == "Job: stopped at 0/2 in 0.0 s\n"


def test_lines_are_written_as_they_are() -> None:
    out = io.StringIO()
    text = "skipped [bold]rose/ü :smile:.jpg[/bold] " + "x" * 200
    with Progress(stream=out) as progress:
        progress.say(text)
        progress.task("[red]Job[/red]", 1).advance()
    assert out.getvalue().splitlines()[0] == text
    assert out.getvalue().splitlines()[1].startswith("[red]Job[/red]: 1 in ")


def test_tasks_advance_from_many_threads() -> None:
    out = io.StringIO()
    with Progress(stream=out, clock=Clock()) as progress:
        task = progress.task("Decoding", 4000)
        threads = [threading.Thread(target=lambda: [task.advance() for _ in range(1000)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert out.getvalue() == "Decoding: 4,000 in 0.0 s\n"


def test_colours_forced_by_the_environment_draw_no_bar_into_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = io.StringIO()
    with Progress(stream=out, clock=Clock()) as progress:
        progress.task("Job", 2).advance(2)
    assert out.getvalue() == "Job: 2 in 0.0 s\n"


SCRIPT = """
import time
from frostline.progress import Progress
with Progress() as progress:
    task = progress.task("Decoding", 40)
    for i in range(40):
        time.sleep(0.02)
        task.advance()
        if i == 20:
            progress.say("skipped rose/broken.jpg")
            print("a result")
print("another result")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_bar_and_stdout_stays_clean() -> None:
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "110"}
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=theirs, text=True, env=environment
    )
    os.close(theirs)
    screen = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the child has closed its end
            break
        if not chunk:
            break
        screen += chunk
    os.close(ours)
    stdout, _ = child.communicate()
    text = screen.decode()
    assert child.returncode == 0
    assert stdout == "a result\nanother result\n"
    assert "━" in text
    assert "/40" in text
    assert re.search(r"\d\d:\d\d", text)  # the time left
    assert "skipped rose/broken.jpg\r\n" in text
    assert "Decoding: 40 in " in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back
