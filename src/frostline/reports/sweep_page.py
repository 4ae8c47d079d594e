"""What a sweep says to its reader: the answer in words, a picture, and one self-contained page in the look of a study's report."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frostline import wording
from frostline.errors import RunError
from frostline.files import write_text
from frostline.reports import html, svg, sweep_charts

Row = dict[str, Any]


# ---- in words --------------------------------------------------------------------------------------------------------


def line_answer(document: Row) -> tuple[str, str]:
    """Where to put the line, and how sure that is."""
    found = document["recommendation"]
    rows = {row["name"]: row for row in document["lines"]}
    judged = {row["name"]: row for row in found["lines"]}
    row, chosen, best = rows[found["recommended"]], judged[found["recommended"]], judged[found["best"]]
    answer = (
        f"{_advice(row)}: {_right(row)} on {_reported(document)}, with {wording.count(row['parameters']['trainable'])} "
        f"of {wording.count(row['parameters']['total'])} parameters trained."
    )
    on = f"{wording.count(found['photos'])} validation photos"
    if chosen["name"] == best["name"]:
        others = [other for other in found["lines"] if other is not best]
        second = max(others, key=lambda r: r["best_share"], default=None)
        next_ = f"; next comes {second['name']}, with {_share(second)}" if second else ""
        how = f"Line {best['name']} is the best on {on} ({_percent(best['accuracy'])}), and in {_share(best)} of their resamples{next_}."
        above = [other["name"] for other in found["lines"][: found["lines"].index(best)]]
        if above:
            how += f" Every line above it ({', '.join(above)}) is clearly below it there."
    else:
        low, high = (100 * -x for x in reversed(chosen["difference_ci"]))
        gap = f"{-100 * chosen['difference']:.1f} points behind it there, which may be chance (95 % interval {low:.1f} to {high:.1f})"
        if chosen["difference"] == 0:
            gap = f"level with it there (95 % interval of the difference {low:.1f} to {high:.1f})"
        how = (
            f"On {on} line {best['name']} gets most right, {_percent(best['accuracy'])}, and is the best in {_share(best)} of their "
            f"resamples ({chosen['name']}: {_share(chosen)}). Line {chosen['name']} is {gap}, so the one with fewer parameters to train "
            "is named."
        )
    if document["reported_on"] == "validation":
        how += " The photos reported on are the validation photos here, so the figure leans to the hopeful side."
    return answer, how


def _advice(row: Row) -> str:
    if row["freeze_line"] == row["layers"]:
        return "Freeze the whole network and train a head"
    if row["freeze_line"] == 0:
        return "Fine-tune the whole network (line 0)"
    return f"Put the line at {row['name']}, {row['freeze_line']} of {row['layers']} layers frozen"


def photo_answer(document: Row) -> tuple[str, str]:
    """From how many photos on fine-tuning pays, and what more photos would bring."""
    crossings, curves = document["crossings"], document["curves"]
    ends = (curves[0]["per_class"], curves[-1]["per_class"])
    told = [_crossing(c, *ends) for c in crossings] or [_span(curves)]
    return told[0], " ".join([*told[1:], *(_forecast(f) for f in document["forecasts"])])


def _crossing(c: Row, smallest: float, largest: float) -> str:
    name, other = c["challenger"], c["reference"]
    points, (low, high) = 100 * c["difference_at_most"], (100 * x for x in c["difference_ci"])
    span = f"95 % interval {low:.1f} to {high:.1f}"
    if c["at"] is None:
        gap = "level with" if points == 0 else f"{-points:.1f} points behind"
        return f"{_capital(name)} does not pay within these photos: with {largest:.0f} of each class it is {gap} {other} ({span})."
    if not c["shown"]:
        return (
            f"Whether {name} pays is not settled within these photos: with {largest:.0f} of each class it is {points:.1f} points ahead "
            f"of {other}, but that may be chance ({span})."
        )
    if c["from_the_start"]:
        where = f"at every number of photos measured, {smallest:.0f} to {largest:.0f} of each class"
    else:
        where = f"from about {c['at']:.0f} photos of each class on"
    where += f" (95 % interval {_end(c['at_ci'][0], smallest, largest)} to {_end(c['at_ci'][1], smallest, largest)})"
    return f"{_capital(name)} pays {where}: with {largest:.0f} it is {points:.1f} points ahead of {other} ({span})."


def _end(end: float | str, smallest: float, largest: float) -> str:
    if isinstance(end, str):
        return f"fewer than {smallest:.0f}" if end == "below" else f"more than {largest:.0f}"
    return f"{end:.0f}"


def _span(curves: Sequence[Row]) -> str:
    first, last = curves[0], curves[-1]
    return (
        f"{_capital(first['strategy'])} goes from {_percent(first['accuracy'])} right with {first['per_class']:.0f} photos of each class "
        f"to {_right(last)} with {last['per_class']:.0f}."
    )


def _forecast(f: Row) -> str:
    if "why_not" in f:
        return f"{_capital(f['strategy'])} with twice the photos: {f['why_not']}."
    low, high = (100 * x for x in f["accuracy_ci"])
    return (
        f"Twice the photos ({f['per_class']:.0f} of each class) would bring {f['strategy']} to about {_percent(f['accuracy'])} "
        f"(95 % interval {low:.1f} to {high:.1f}), {100 * f['gain']:.1f} points more than now, if its curve goes on as it began."
    )


def _reported(document: Row) -> str:
    dataset = document["dataset"]
    test = document["reported_on"] == "test"
    kind = "pictures rendered by code" if dataset["test_sample" if dataset["test_root"] else "sample"] else "photos"
    count = wording.count(dataset["test"] if test else dataset["validation"])
    return f"{count} {kind} it had never seen" if test else f"{count} validation {kind}"


def _right(row: Row) -> str:
    low, high = (100 * x for x in row["accuracy_ci"])
    return f"{_percent(row['accuracy'])} right (95 % interval {low:.1f} to {high:.1f})"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _share(row: Row) -> str:
    return f"{100 * row['best_share']:.0f} %"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


# ---- the page --------------------------------------------------------------------------------------------------------


def build(run: Path) -> Path:
    """Write the page, and the picture beside it, from what the sweep has left so far. Returns the page's path.

    Raises
    ------
    RunError
        sweep.json is missing or damaged.
    """
    document = _read(run)
    kind = document["plan"]["kind"]
    drawn = sweep_charts.figures(document)
    if drawn:
        write_text(run / f"{kind}.svg", svg.stacked(drawn))
    page = html.template("sweep.html.j2").render(
        document=document,
        dataset=document["dataset"],
        kind=kind,
        figures={figure.name: figure for figure in drawn},
        looks=svg.looks(sweep_charts.strategies(document)),
        sections=_sections(document, kind),
        command=_command(run, document),
        rebuild=shlex.join(["frostline", "report", str(run)]),
        **html.furniture(),
    )
    return html.write(run / html.PAGE, page)


def _sections(document: Row, kind: str) -> list[tuple[str, str]]:
    """Id and name of each section that has something to show."""
    lines = kind == "lines" and bool(document.get("recommendation"))
    curves = kind == "photos" and bool(document.get("curves"))
    listed = [
        ("lines", "Lines", lines),
        ("sure", "How sure", lines),
        ("curves", "Learning curves", curves),
        ("crossing", "Crossing point", curves and bool(document.get("crossings"))),
        ("more", "Twice the photos", curves),
        ("again", "Data and configuration", True),
    ]
    return [(name, title) for name, title, there in listed if there]


def _read(run: Path) -> Row:
    path = run / "sweep.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"can't read {path}: {' '.join(str(error).split())}; resume or repeat the sweep") from error
    if not isinstance(document, dict) or not all(isinstance(document.get(k), dict) for k in ("plan", "dataset")):
        raise RunError(f"{path} is no sweep: expected an object with 'plan' and 'dataset'")
    return document


def _command(run: Path, document: Row) -> str:
    """The command line that repeats the sweep: config.toml holds all settings but the plan."""
    plan = document["plan"]
    again = run.with_name(f"{run.name}-again")
    what = ["--photos", ",".join(map(str, plan["photos"])), "--repeats", str(plan["repeats"])]
    over = what if plan["kind"] == "photos" else []
    return shlex.join(["frostline", "sweep", "--config", str(run / "config.toml"), *over, "--out", str(again)])
