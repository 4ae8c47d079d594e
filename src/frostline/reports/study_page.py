"""One self-contained page about a run: the answer first, what to do next, then everything that it rests on.

The page holds its own style, drawings and photos and asks nothing of a network. Three rules keep it honest and safe:
each drawing's numbers also stand in a table (so it reads without scripts, and on paper); all text from outside goes
through jinja2's escaping, or through `svg`'s; and a content security policy admits our own script alone, by hash.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import cast

from frostline import wording
from frostline.documents.study import Crossing
from frostline.photos.scan import restore
from frostline.recipes import TUTORIAL_TITLE, TUTORIAL_URL
from frostline.reports import gallery, next_steps, study_charts, sweep_charts
from frostline.reports.gallery import Pictures
from frostline.reports.html import PAGE, furniture, template, write
from frostline.reports.record import Record, Row, read
from frostline.reports.svg import Figure, looks
from frostline.stats.metrics import shown_on

SHOWN_WRONG, SHOWN_CONFLICTS, SHOWN_EXPLAINED = 24, 12, 16  # photos outside the gallery


LISTED = 1000  # rows of skipped files or twins; study.json has them all


SPLITS = ("train", "validation", "test")


def build(run: Path) -> Path:
    """Write `run`/report.html from what the run has left so far: all strategies, some, or none. Returns its path.

    Reads study.json (required) and, where they are there, manifest.csv, config.toml, photo_measures.csv and each
    strategy's predictions.csv and explanations.json. Photos that have been moved since get a placeholder and are
    listed.

    Raises
    ------
    RunError
        study.json is missing or isn't one; a CSV lacks its columns; the report can't be written.
    """
    record = read(run)
    restore(record.dataset)
    return write(run / PAGE, template("report.html.j2").render(_contents(record), **furniture()))


def _contents(record: Record) -> Row:
    """All that the template shows, by the name it has there."""
    run, study, strategies = record.run, record.study, record.strategies
    pictures = Pictures()
    photos = gallery.contents(record, pictures)
    shown = {
        "always_wrong": gallery.always_wrong(record, pictures, SHOWN_WRONG),
        "conflicts": gallery.conflicts(record, pictures, SHOWN_CONFLICTS),
        "lookalikes": gallery.lookalikes(record, pictures, SHOWN_CONFLICTS),
        "explained": gallery.explained(record, pictures, SHOWN_EXPLAINED),
    }
    contents = {
        "study": study,
        "dataset": record.dataset,
        "strategies": strategies,
        "metrics": shown_on("report", record.unequal),
        "best": record.best,
        "answer": study.get("answer") or provisional_answer(record),
        "steps": next_steps.steps(record),
        "waiting": waiting(record),
        "resume": shlex.join(["frostline", "study", "--out", str(run), "--resume"]),
        "seconds": whole_seconds(study),
        "curves": {s["name"]: study_charts.epochs(s) for s in strategies},
        "figures": _figures(record),
        "confusions": {s["name"]: _confusion(s.get("confusion") or [], record.classes) for s in strategies},
        "class_tables": class_tables(strategies),
        "claims": claims(study.get("claims") or []),
        "tutorial": {"title": TUTORIAL_TITLE, "url": TUTORIAL_URL},
        "sweeps": record.sweeps,
        "causes": study_charts.causes(strategies),
        "errors": _errors(study.get("error_causes") or {}),
        "photos": {key: value for key, value in photos.items() if key != "pictures"},
        "pictures": photos["pictures"],
        "most_pictures": gallery.PICTURES,
        "missing": list(pictures.missing.values()),
        "splits": _split_table(record.manifest),
        "settings": record.settings,
        "command": _command(run),
        "rebuild": shlex.join(["frostline", "report", str(run)]),
        "shared_pass": _shared_pass(strategies),
        "listed": LISTED,
        **shown,
    }
    sections = _sections(contents)
    return {**contents, "sections": sections, "titles": dict(sections)}


def _figures(record: Record) -> Row:
    strategies = record.strategies
    return {
        "accuracy": study_charts.accuracy(strategies, record.unequal),
        "differences": study_charts.differences(record.study.get("comparisons") or []),
        "curves": {
            s["name"]: [(m, study_charts.curves(strategies, s, m)) for m in ("accuracy", "loss")] for s in strategies
        },
        "classes": {metric: study_charts.classwise(strategies, metric) for metric in ("recall", "f1")},
        "reliability": [figure for s in strategies if (figure := study_charts.reliability(s))],
        "robustness": [
            figure for c in study_charts.causes(strategies) if (figure := study_charts.robustness(strategies, c))
        ],
        "cost": study_charts.cost(strategies),
        "needed": needed(record),
        "lines": sweep_charts.figures(record.sweeps["lines"])[:1] if "lines" in record.sweeps else [],
    }


def needed(record: Record) -> list[Figure]:
    """How accuracy grows with the number of photos: from a sweep beside the run, else from the study's own shorter
    curve."""
    if "photos" in record.sweeps:
        return sweep_charts.figures(record.sweeps["photos"])
    curve = record.study.get("data_curve") or {}
    if not curve.get("curves"):
        return []
    crossing, differences = curve.get("crossing"), curve.get("differences")
    crossings = (
        [cast(Crossing, {**crossing, "differences": differences})]
        if crossing and "at" in crossing and differences
        else []
    )
    return sweep_charts.photos(curve["curves"], [], crossings, looks([s["name"] for s in record.strategies]))


def claims(listed: Sequence[Row]) -> dict[str, list[Row]]:
    """The tutorial's claims by whether the run could test them: ``tested`` and ``untested``. The words of older
    versions too."""
    untested = ("not tested in this run", "not measured")
    return {
        "tested": [c for c in listed if c.get("verdict") not in untested],
        "untested": [c for c in listed if c.get("verdict") in untested],
    }


def _errors(causes: Row) -> Row:
    """By strategy: what was measured on wrong and on right photos, "clear" where they differ beyond chance."""
    found = {}
    for name, rows in causes.items():
        tested = [{**row, "p": row.get("p_corrected", row.get("p_value"))} for row in rows or []]
        found[name] = [{**row, "clear": wording.known(row["p"]) and row["p"] < 0.05} for row in tested]
    return {name: rows for name, rows in found.items() if rows}


def _sections(contents: Row) -> list[tuple[str, str]]:
    """Id and name of each section that has something to show, in order."""
    figures, some = contents["figures"], bool(contents["strategies"])
    listed = [
        ("next", "What to do next", contents["steps"]),
        ("strategies", "Strategies", some),
        ("difference", "Differences", some and contents["study"].get("comparisons")),
        ("curves", "Learning curves", some),
        ("confusion", "Confusion matrices", some),
        ("classes", "Class by class", some),
        ("claims", "Claims", any(contents["claims"].values())),
        ("elsewhere", "Photos of another kind", contents["study"].get("shift")),
        ("calibration", "Calibration", figures["reliability"]),
        ("robustness", "Robustness", figures["robustness"] or contents["errors"]),
        ("needed", "Photos needed", figures["needed"]),
        ("line", "Freeze line", figures["lines"]),
        ("why", "Heat maps", contents["explained"]),
        ("labels", "Labels to review", contents["always_wrong"]["total"]),
        ("photos", "Photos", contents["photos"]["photos"]),
        ("data", "Data", True),
        ("cost", "Parameters and time", some),
        ("again", "Configuration", True),
    ]
    return [(name, title) for name, title, there in listed if there]


# ---------------------------------------------------------------- what the run says


def provisional_answer(record: Record) -> str:
    """What can be said when the study has not yet drawn its conclusion."""
    best = record.best
    if best is None:
        return "No strategy has ended yet. The figures appear here when the first one has."
    figures = wording.headline(best, record.unequal)
    return (
        f"So far {best['name']} leads: {figures}."
        if len(record.strategies) > 1
        else f"First result, {best['name']}: {figures}."
    )


def waiting(record: Record) -> list[str]:
    """The strategies that an unfinished run was asked for and that have not ended."""
    ended = [s["name"] for s in record.strategies]
    return [name for name in _wanted(record.config) if name not in ended] if record.unfinished else []


def whole_seconds(study: Row) -> float | None:
    """Seconds of the whole run; an older one's `seconds` end with its answer."""
    seconds = study.get("seconds")
    if not wording.known(seconds) or not seconds:
        return None
    return seconds if study.get("sittings") else seconds + (study.get("evidence_seconds") or 0)


def _wanted(config: Row) -> list[str]:
    """Names of the strategies that the run was asked for."""
    rows = config.get("strategies")
    return [row["name"] for row in rows if isinstance(row, dict) and "name" in row] if isinstance(rows, list) else []


def _command(run: Path) -> str:
    """The command line that repeats the study: config.toml holds every setting, so none is spelt out here to drift."""
    again = run.with_name(f"{run.name}-again")
    return shlex.join(["frostline", "study", "--config", str(run / "config.toml"), "--out", str(again)])


def _shared_pass(strategies: Sequence[Row]) -> list[float]:
    """Seconds of the pass of all photos through the frozen layers: once, or once for each time the run was resumed."""
    seconds = [(s.get("seconds") or {}).get("prefix") for s in strategies]
    return list(dict.fromkeys(float(s) for s in seconds if s and wording.known(s)))


# ---------------------------------------------------------------- tables


def _confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Row:
    """Rows of (count, share of its true class), and the three confusions seen most."""
    rows = []
    for name, counts in zip(classes, matrix, strict=False):
        total = sum(counts) or 1
        rows.append({"class": name, "cells": [(count, count / total) for count in counts]})
    pairs = [(n, classes[i], classes[j]) for i, row in enumerate(matrix) for j, n in enumerate(row) if n and i != j]
    return {"classes": classes, "rows": rows, "most": sorted(pairs, key=lambda pair: -pair[0])[:3]}


def class_tables(strategies: Sequence[Row]) -> list[Row]:
    """Recall and F1 per class across strategies."""
    return [_class_table(strategies, metric) for metric in ("recall", "f1")] if strategies else []


def _class_table(strategies: Sequence[Row], metric: str) -> Row:
    """One metric per class across strategies, and its change from each strategy to the next and from first to last."""
    tables = [{row["class"]: row for row in s.get("per_class") or []} for s in strategies]
    steps = list(pairwise(range(len(strategies)))) + ([(0, len(strategies) - 1)] if len(strategies) > 2 else [])
    rows = []
    for name, first in tables[0].items():
        values = [table.get(name, {}).get(metric) for table in tables]
        changes = [None if values[a] is None or values[b] is None else values[b] - values[a] for a, b in steps]
        rows.append({"class": name, "support": first.get("support"), "values": values, "changes": changes})
    gains = sorted(
        (row for row in rows if row["changes"] and (row["changes"][-1] or 0) > 0), key=lambda r: -r["changes"][-1]
    )
    return {"metric": metric, "steps": steps, "rows": rows, "gains": gains[:2]}


def _split_table(manifest: Sequence[dict[str, str]]) -> Row | None:
    """Photos of each class in each split."""
    if not manifest:
        return None
    counts = Counter((row["label"], row["split"]) for row in manifest)
    splits = [split for split in SPLITS if any(key[1] == split for key in counts)]
    labels = list(dict.fromkeys(row["label"] for row in manifest))
    rows = [(label, [counts[label, split] for split in splits]) for label in labels]
    return {
        "splits": splits,
        "rows": rows,
        "sums": [sum(column) for column in zip(*(row[1] for row in rows), strict=True)],
    }
