"""The report of a sweep: the answer in words, a picture, and one self-contained page that looks like a study's."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from frostline import documents, wording
from frostline.documents import Sweep
from frostline.documents.study import Crossing, CurvePoint
from frostline.documents.sweep import Forecast, LineRow, Recommendation, RecommendedLine
from frostline.errors import RunError
from frostline.files import write_text
from frostline.reports import html, svg, sweep_charts

# ---- in words --------------------------------------------------------------------------------------------------------


def line_answer(document: Sweep) -> tuple[str, str]:
    """The decision in words, and how the lines did on validation photos: ``answer`` and ``answer_detail``."""
    found, decided = document["recommendation"], document["decision"]
    about = decided["unfreezing"]
    detail = f"{about['words']} {decided['note']} {_on_validation(found)}" if about else ""
    if document["reported_on"] == "validation":
        detail += " The figures are on the validation photos too, so they may be optimistic."
    return decided["ship"]["words"], detail.strip()


def line_use(row: LineRow, document: Sweep) -> tuple[str, str]:
    """What to do where that line is recommended, and what was measured of it; see `decision.shipped_line`."""
    unequal = document["dataset"].get("unequal", False)
    figure = (
        f"{wording.headline(row, unequal)} on {_reported(document)}, with "
        f"{wording.count(row['parameters']['trainable'])} of {wording.count(row['parameters']['total'])} parameters "
        "trained"
    )
    return _advice(row), figure


def _on_validation(found: Recommendation) -> str:
    """Which line did best on the validation photos, and how sure that is."""
    judged = {line["name"]: line for line in found["lines"]}
    best = judged[found["best"]]
    second = max((line for line in found["lines"] if line is not best), key=lambda line: line["best_share"])
    value = best.get("macro_recall", best["accuracy"])
    return (
        f"On {wording.count(found['photos'])} validation photos line {best['name']} is the highest of its own "
        f"({wording.percent(value)}), and in {_share(best)} of their resamples (next: {second['name']}, "
        f"{_share(second)})."
    )


def _advice(row: LineRow) -> str:
    if row["freeze_line"] == row["layers"]:
        return "Freeze the whole network and train a head"
    if row["freeze_line"] == 0:
        return "Fine-tune the whole network (line 0)"
    frozen, layers = wording.frozen_layers(row)
    return f"Put the line at {row['name']} ({frozen} of {layers} layers frozen)"


def photo_answer(document: Sweep) -> tuple[str, str]:
    """From how many photos fine-tuning pays, and what more photos would bring: ``answer`` and ``answer_detail``."""
    crossings, curves = document["crossings"], document["curves"]
    ends = (curves[0]["per_class"], curves[-1]["per_class"])
    told = [_crossing(c, *ends) for c in crossings] or [_span(curves)]
    more = [document["decision"]["ship"]["words"]] if "decision" in document else []
    if "repeats_done" in document:
        more.append(repeats_note(document["repeats_done"]))
    if len(crossings) > 1:
        more.append(f"What pays is corrected for {len(crossings)} comparisons (Holm); the intervals are not.")
    return told[0], " ".join([*told[1:], *more, *(_forecast(f) for f in document["forecasts"])])


def repeats_note(repeats: int) -> str:
    """What the intervals of a sweep over numbers of photos cover."""
    if repeats == 1:
        return "Each point was trained once, so the intervals are over photos alone: another training may differ."
    return f"The intervals cover photos and {repeats} trainings of each point."


def _crossing(c: Crossing, smallest: float, largest: float) -> str:
    name, other, points = c["challenger"], c["reference"], 100 * c["difference_at_most"]
    interval = wording.interval(c["difference_ci"])
    if c["at"] is None and points <= 0:
        gap = "level with" if points == 0 else f"{-points:.1f} points behind"
        if c["difference_ci"][1] >= 0:
            return (
                f"Whether {name} pays can't be told from these photos: with {largest:.0f} of each class it is {gap} "
                f"{other} ({interval})."
            )
        return (
            f"{_capital(name)} does not pay within these photos: with {largest:.0f} of each class it is {gap} {other} "
            f"({interval})."
        )
    if c["at"] is None or not c["shown"]:
        return (
            f"Whether {name} pays is not settled within these photos: with {largest:.0f} of each class it is "
            f"{points:.1f} points ahead of {other}, but that may be due to chance ({interval})."
        )
    if c["from_the_start"]:
        where = f"at every number of photos measured, {smallest:.0f} to {largest:.0f} of each class"
    else:
        where = f"from {c.get('shown_from') or largest:.0f} photos of each class on"
    low, high = (_end(end, smallest, largest) for end in c["at_ci"])
    cross = "" if c["from_the_start"] else f" The curves cross at about {c['at']:.0f} (95 % CI {low} to {high})."
    ahead = f"with {largest:.0f} it is {points:.1f} points ahead of {other} ({interval})"
    return f"{_capital(name)} pays {where}: {ahead}.{cross}"


def _end(end: float | str, smallest: float, largest: float) -> str:
    if isinstance(end, str):
        return f"fewer than {smallest:.0f}" if end == "below" else f"more than {largest:.0f}"
    return f"{end:.0f}"


def _span(curves: Sequence[CurvePoint]) -> str:
    first, last = curves[0], curves[-1]
    end = f"{wording.percent(last['accuracy'])} ({wording.interval(last['accuracy_ci'])})"
    return (
        f"The accuracy of {first['strategy']} goes from {wording.percent(first['accuracy'])} with "
        f"{first['per_class']:.0f} photos of each class to {end} with {last['per_class']:.0f}."
    )


def _forecast(f: Forecast) -> str:
    if "why_not" in f:
        return f"{_capital(f['strategy'])} with twice the photos: {f['why_not']}."
    return (
        f"Twice the photos ({f['per_class']:.0f} of each class) would bring {f['strategy']} to about "
        f"{wording.percent(f['accuracy'])} ({wording.interval(f['accuracy_ci'])}), {100 * f['gain']:.1f} points more "
        "than now, if its curve continues as before."
    )


def _reported(document: Sweep) -> str:
    return f"{wording.count(document['dataset'][document['reported_on']])} {wording.photos_reported(document)}"


def _share(line: RecommendedLine) -> str:
    return wording.percent(line["best_share"], 0)


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


def _sections(document: Sweep, kind: str) -> list[tuple[str, str]]:
    """Id and name of each section that has something to show."""
    lines = kind == "lines" and bool(document.get("recommendation"))
    curves = kind == "photos" and bool(document.get("curves"))
    listed = [
        ("lines", "Lines", lines),
        ("sure", "How sure", lines),
        ("top", "Against the frozen network", lines and bool(document.get("against_top"))),
        ("curves", "Learning curves", curves),
        ("crossing", "Crossing point", curves and bool(document.get("crossings"))),
        ("more", "Twice the photos", curves),
        ("again", "Data and configuration", True),
    ]
    return [(name, title) for name, title, there in listed if there]


def _read(run: Path) -> Sweep:
    document = documents.read(run, Sweep)
    if not all(isinstance(document.get(key), dict) for key in ("plan", "dataset")):
        raise RunError(f"{run / 'sweep.json'} is no sweep: expected an object with 'plan' and 'dataset'")
    return document


def _command(run: Path, document: Sweep) -> str:
    """The command line that repeats the sweep: config.toml holds all settings but the plan."""
    plan = document["plan"]
    again = run.with_name(f"{run.name}-again")
    what = ["--photos", ",".join(map(str, plan["photos"])), "--repeats", str(plan["repeats"])]
    over = what if plan["kind"] == "photos" else []
    return shlex.join(["frostline", "sweep", "--config", str(run / "config.toml"), *over, "--out", str(again)])
