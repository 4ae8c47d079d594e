"""One sitting of a study: the time that it takes, and what it says when it is stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from frostline import documents
from frostline.documents import Study
from frostline.errors import FrostlineError
from frostline.progress import Progress
from frostline.reports import study_page


class Sitting:
    """From the start of a command to its end, or to where it is stopped; a run that is resumed has several."""

    def __init__(self, run: Path, document: Study, started: float, earlier: list[float]) -> None:
        """Begin one: `document` is marked as running.

        Parameters
        ----------
        started
            When the command began, by `time.perf_counter`.
        earlier
            What `earlier` found before this sitting wrote anything.
        """
        self.run = run
        self.doing = "while preparing the photos"
        """What is being done, should it be stopped."""
        self._document, self._started = document, started
        self._earlier = earlier
        document["status"] = "running"
        document.pop("stopped", None)

    def write(self) -> None:
        """Write study.json with the time spent so far, earlier sittings included."""
        self._document["sittings"] = [*self._earlier, round(time.perf_counter() - self._started, 3)]
        self._document["seconds"] = round(sum(self._document["sittings"]), 3)
        documents.write(self.run, Study, self._document)

    @contextmanager
    def told_if_stopped(self, progress: Progress) -> Iterator[None]:
        """Where the block is left by Ctrl-C or an error, study.json and the report say so, and show what there is."""
        try:
            yield
        except BaseException:
            progress.say("Stopping: writing the report of what there is; Ctrl-C again leaves it out")
            if self._document["status"] != "finished":
                self._document["status"] = "stopped"
            self._document["stopped"] = self.doing
            with suppress(FrostlineError, OSError):  # a full disk: the first error is the one to tell
                self.write()
                study_page.build(self.run)
            raise


def earlier(run: Path, document: Study | None) -> list[float]:
    """The seconds of each sitting so far, of a run that is about to be resumed. One that was killed ends with the last
    line of its log.
    """
    if document is None or not document["seconds"]:
        return []
    # documents without sittings: their seconds end with the answer
    sittings = list(document.get("sittings", [document["seconds"] + document.get("evidence_seconds", 0.0)]))
    if document["status"] == "running":
        with suppress(OSError):
            unwritten = (run / "log.jsonl").stat().st_mtime - (run / "study.json").stat().st_mtime
            sittings[-1] = round(sittings[-1] + max(0.0, unwritten), 3)
    return sittings
