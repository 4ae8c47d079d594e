"""What README.md reports, measured again: one row a measurement, each an ordinary run of frostline's, recorded in
docs/figures.toml.

    python benchmarks/halves.py ../shared/flowers runs/halves
    python benchmarks/reported.py --flowers runs/halves/report.csv --insects ../shared/insects \
        --all ../shared/flowers --only sample,tutorial
    python benchmarks/reported.py ... --kept     # run nothing: record what has ended (its figures computed again)

Without `--only` all rows, which takes hours. The runs lie in --out (runs/reported); the same command goes on where it
was stopped. `sample` also takes docs/report.png from its report (wants Chromium and playwright).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import figures

from frostline.files import write_text

Document = dict[str, Any]
SHOWN = {"": "", "flowers": "runs/halves/report.csv", "insects": "../shared/insects", "all": "../shared/flowers"}
"""Where the photos are said to be, in the commands."""
PLAIN = ("--explain", "0", "--robustness", "0")
"""Of runs that are measured for their accuracy alone."""


@dataclass(frozen=True)
class Row:
    """A run, and what is kept of it."""

    data: str
    """Which photos: a key of `SHOWN`."""
    options: tuple[str, ...]
    values: Callable[[Path], dict[str, Any]]

    def command(self, data: str) -> str:
        """As a person types it; of the sample, `make study` is the same."""
        return " ".join(["frostline study", data, *self.options]) if data else "make study"


# ---- what is kept of a run -------------------------------------------------------------------------------------------


def read(path: Path) -> Document:
    document: Document = json.loads(path.read_text(encoding="utf-8"))
    return document


def seeds(run: Path) -> dict[str, Any]:
    """Means over seeds with their intervals, and the paired comparisons."""
    document = read(run / "seeds.json")
    of_row = ("mean", "sd", "ci", "seeds", "seconds_mean")
    return {
        "photos": document["tested"]["photos"],
        "seeds": [run["seed"] for run in document["runs"]],
        "strategies": {row["name"]: {key: row[key] for key in of_row} for row in document["strategies"]},
        "comparisons": [
            {key: pair.get(key) for key in ("a", "b", "mean", "ci", "p_corrected", "verdict")}
            for pair in document["comparisons"]
        ],
        "answer": document["answer"],
        "seconds": document["seconds"],
    }


def study(run: Path) -> dict[str, Any]:
    """Accuracies, the answer and the claims of one study."""
    document = read(run / "study.json")
    of_row = ("accuracy", "accuracy_ci", "parameters")
    return {
        "photos": sum(sum(counts) for counts in document["strategies"][0]["confusion"]),
        "seed": document["seed"],
        "strategies": {row["name"]: {key: row[key] for key in of_row} for row in document["strategies"]},
        "comparisons": [
            {key: pair.get(key) for key in ("a", "b", "difference", "ci", "p_corrected", "verdict")}
            for pair in document["comparisons"]
        ],
        "claims": [{key: claim[key] for key in ("claim", "measured", "verdict")} for claim in document["claims"]],
        "answer": f"{document['answer']} {document['answer_detail']}".strip(),
        "seconds": document["seconds"],
    }


def sample(run: Path) -> dict[str, Any]:
    """The sample's study as the terminal showed it: the table, and the answer in lines that fit."""
    said = (run / "said.txt").read_text(encoding="utf-8").strip("\n")
    table, answer = re.split(r"\n\s*\n", said)[:2]
    lines = [line for text in answer.splitlines() for line in textwrap.wrap(text, 116)]
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    ended = {event["strategy"]: event["seconds"] for event in log if event["event"] == "finished"}
    shown = "\n".join([*(line.rstrip() for line in table.splitlines()), "", *lines])
    return {**study(run), "terminal": shown, "ended": ended}


def _seeds_of(*options: str) -> tuple[str, ...]:
    return ("--strategies", "frozen,fine-tuned", *options, "--seeds", "3", *PLAIN)


ROWS: dict[str, Row] = {
    "sample": Row("", (), sample),
    "flowers-balanced": Row("flowers", _seeds_of(), seeds),
    "insects-balanced": Row("insects", _seeds_of(), seeds),
    "flowers-best": Row("flowers", _seeds_of("--preset", "best"), seeds),
    "insects-best": Row("insects", _seeds_of("--preset", "best"), seeds),
    "flowers-best-one": Row("flowers", _seeds_of("--preset", "best", "--backbone", "mobilenet_v2"), seeds),
    "insects-best-one": Row("insects", _seeds_of("--preset", "best", "--backbone", "mobilenet_v2"), seeds),
    "claims": Row("insects", (), study),
    "tutorial": Row("all", ("--protocol", "tutorial", "--epochs", "10", "--seeds", "3", *PLAIN), seeds),
}


# ---- running and recording -------------------------------------------------------------------------------------------


def run(row: Row, data: str, folder: Path) -> None:
    """Run it, or go on with it; commit and load at each start are kept beside the run."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    starts = _starts(folder)
    starts.append({"commit": figures.commit(figures.ROOT), "load": os.getloadavg()[0]})
    write_text(_starts_of(folder), json.dumps(starts))
    begun = folder.exists()  # then it goes on with the settings that it began with
    asked = ["--resume"] if begun else [*([data] if data else []), *row.options]
    command = [sys.executable, "-m", "frostline", "study", *asked, "--out", str(folder)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    if not begun:
        write_text(folder / "said.txt", ended.stdout)


def _starts_of(folder: Path) -> Path:
    return folder.parent / f"{folder.name}.starts.json"


def _starts(folder: Path) -> list[Document]:
    file = _starts_of(folder)
    starts: list[Document] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    return starts


def record(name: str, row: Row, data: str, folder: Path, root: Path = figures.ROOT) -> None:
    """Put what is kept of a run into docs/figures.toml."""
    starts = _starts(folder)
    more: dict[str, object] = {"commit": starts[0]["commit"]}
    if starts[-1]["commit"] != starts[0]["commit"]:
        more["computed_with"] = starts[-1]["commit"]  # trained with one, figures and intervals with the other
    if name == "sample":
        picture = root / "docs" / "report.png"
        photograph(folder / "report.html", picture)
        more["pictures"] = {"docs/report.png": figures.digest(picture)}
    document = read(next(p for p in (folder / "seeds.json", folder / "study.json") if p.exists()))
    more["date"] = date.fromisoformat(document["created"][:10])
    loads = [start["load"] for start in starts]
    values = row.values(folder)
    command = row.command(SHOWN[data])
    if "seeds" in values:  # those that have ended
        command = re.sub(r"--seeds \d+", f"--seeds {len(values['seeds'])}", command)
    figures.record(name, command, values, loads=loads, root=root, **more)


def photograph(page: Path, picture: Path, width: int = 1240, height: int = 1500) -> None:
    """The top of a report as a picture."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": width, "height": height})
        tab.goto(page.resolve().as_uri())
        tab.screenshot(path=str(picture))
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flowers", default="", help="report.csv of halves.py")
    parser.add_argument("--all", default="", help="the folder of all flowers, for the tutorial's protocol")
    parser.add_argument("--insects", default="")
    parser.add_argument("--only", default=",".join(ROWS), help="comma-separated rows")
    parser.add_argument("--out", type=Path, default=Path("runs/reported"))
    parser.add_argument("--kept", action="store_true", help="run nothing")
    parser.add_argument("--unrecorded", action="store_true", help="run, but write no figures yet")
    options = parser.parse_args()
    given: Mapping[str, str] = {**vars(options), "": ""}
    for name in options.only.split(","):
        row, folder = ROWS[name], options.out / name
        if not options.kept:
            run(row, given[row.data], folder)
        if not options.unrecorded:
            record(name, row, row.data, folder)
        print(f"{name}: ended", flush=True)


if __name__ == "__main__":
    main()
