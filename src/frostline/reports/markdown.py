"""A study for a paper or a pull request: the report as Markdown, and every figure as SVG beside its numbers as CSV."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from frostline import wording
from frostline.recipes import TUTORIAL_TITLE, TUTORIAL_URL
from frostline.reports import next_steps, study_charts, study_page
from frostline.reports.html import write
from frostline.reports.record import Record, Row, read
from frostline.reports.svg import Figure
from frostline.stats.metrics import Metric, shown_on

Drawn = list[tuple[Figure, str]]
"""Figures and the names of their files."""

FOLDER, FILE = "figures", "report.md"


def build(run: Path) -> Path:
    """Write `run`/report.md, and the figures that it shows; returns its path.

    Raises
    ------
    RunError
        study.json is missing or isn't one; a CSV lacks its columns; a file can't be written.
    """
    record = read(run)
    drawn = _drawn(record)
    _write(run, drawn)
    parts = [part for section in _SECTIONS for part in section(record, drawn)]
    return write(run / FILE, "\n\n".join(parts) + "\n")


def export(run: Path) -> list[Path]:
    """Write every figure of a study to `run`/figures: NAME.svg, and its numbers as NAME.csv. Returns the files.

    Each file is replaced as a whole, so a reader never meets half of one.

    Raises
    ------
    RunError
        As `build`.
    """
    return _write(run, _drawn(read(run)))


def _drawn(record: Record) -> Drawn:
    return list(_named([*study_charts.study(record.study), *study_page.needed(record)]))


def _write(run: Path, drawn: Drawn) -> list[Path]:
    written = []
    for figure, name in drawn:
        for ending, text in (("svg", figure.file()), ("csv", figure.table())):
            written.append(write(run / FOLDER / f"{name}.{ending}", text))
    return written


def _named(figures: Iterable[Figure]) -> Iterator[tuple[Figure, str]]:
    """Figures with names that no other has: strategies may differ in what a file name can't hold."""
    taken: set[str] = set()
    for figure in figures:
        name = next(n for i in range(1, 10_000) if (n := figure.name if i == 1 else f"{figure.name}-{i}") not in taken)
        taken.add(name)
        yield figure, name


# ---- sections --------------------------------------------------------------------------------------------------------


def _answer(record: Record, _: Drawn) -> Iterator[str]:
    study = record.study
    yield f"# {_text(record.dataset.get('name') or 'Study')}: from scratch, frozen or fine-tuned?"
    yield f"**{_text(wording.tied(study.get('answer') or study_page.provisional_answer(record)))}**"
    if study.get("answer_detail"):
        yield _text(wording.tied(study["answer_detail"]))
    on = study.get("reported_on") or "test"
    yield _text(
        f"Figures are on {wording.count(record.dataset.get(on))} {on} photos in {len(record.classes)} classes; "
        f"{study.get('protocol')} protocol, seed {study.get('seed')}, frostline {study.get('frostline')}."
    )
    if study.get("stopped"):
        missing = study_page.waiting(record)
        named = f" Not finished: {', '.join(missing)}." if missing else ""
        yield _text(f"Stopped {study['stopped']}.{named} What is missing was not measured.")
    if record.dataset.get("sample") or record.dataset.get("test_sample"):
        yield "> Built-in sample: synthetic images, rendered by code. The figures say nothing about real flowers."
    if steps := next_steps.steps(record):
        yield "## What to do next"
        yield "\n".join(
            f"{i}. **{_text(step.title)}.** {_text(wording.tied(step.why))}" for i, step in enumerate(steps, start=1)
        )


def _strategies(record: Record, drawn: Drawn) -> Iterator[str]:
    if not record.strategies:
        return
    yield "## Strategies"
    metrics = shown_on("report", record.unequal)
    headings = [text for m in metrics for text in [m.label, *(["95 % CI"] if m.interval else [])]]
    rows = [
        [_mark(record, s), *(text for m in metrics for text in _figure(m, s)), *_sizes(s)] for s in record.strategies
    ]
    yield _table(["Strategy", *headings, "Frozen layers", "Trainable", "Parameters"], rows)
    yield from _pictures(drawn, "accuracy", "cost")
    if comparisons := record.study.get("comparisons"):
        yield "## Differences"
        yield _table(
            ["Pair", "Points", "95 % CI", "p (McNemar, mid-p)", "Verdict"],
            ([f"{c.get('a')} − {c.get('b')}", wording.points(c.get("difference")), wording.span(c.get("ci")),
              wording.p_value(c.get("p_value")), wording.tied(c.get("verdict"))] for c in comparisons),
        )  # fmt: skip
        if note := wording.refit_note(record.strategies, record.dataset.get("train")):
            yield note
        yield from _pictures(drawn, "differences")


def _figure(metric: Metric, strategy: Row) -> list[str]:
    """The cells of a metric: its figure, and its interval where it has one."""
    return [metric.text(strategy), *([metric.interval_text(strategy)] if metric.interval else [])]


def _sizes(strategy: Row) -> list[str]:
    """Frozen layers, trainable and all parameters."""
    parameters = strategy.get("parameters") or {}
    frozen = " of ".join(map(wording.count, wording.frozen_layers(strategy)))
    return [frozen, wording.count(parameters.get("trainable")), wording.count(parameters.get("total"))]


def _mark(record: Record, strategy: Row) -> str:
    best = len(record.strategies) > 1 and strategy is record.best
    return f"{strategy['name']} (chosen on validation)" if best else str(strategy["name"])


def _training(record: Record, drawn: Drawn) -> Iterator[str]:
    if record.strategies:
        yield "## Learning curves"
        yield from _pictures(drawn, "curve-")
        yield "## Confusion matrices"
        yield from _pictures(drawn, "confusion-")


def _classes(record: Record, drawn: Drawn) -> Iterator[str]:
    names = [s["name"] for s in record.strategies]
    for table in study_page.class_tables(record.strategies):
        recall = table["metric"] == "recall"
        show, change = (wording.percent, wording.points) if recall else (wording.decimal, wording.change)
        yield f"## {'Recall' if recall else 'F1'} of each class"
        yield _table(
            ["Class", "Photos", *names, *(f"{names[b]} − {names[a]}" for a, b in table["steps"])],
            ([row["class"], wording.count(row["support"]), *map(show, row["values"]), *map(change, row["changes"])]
             for row in table["rows"]),
        )  # fmt: skip
        yield from _pictures(drawn, f"classes-{table['metric']}")


def _elsewhere(record: Record) -> Iterator[str]:
    """Whether the photos reported on are of another kind, and what fine-tuning gains there."""
    if shift := record.study.get("shift"):
        yield "## Photos of another kind"
        yield f"{wording.tied(shift.get('measured'))}: {shift.get('verdict')}."
    if found := record.study.get("out_of_distribution"):
        verdict = str(found.get("verdict")).capitalize()
        yield f"**{found.get('claim')}** {verdict}: {wording.tied(found.get('measured'))}."


def _evidence(record: Record, drawn: Drawn) -> Iterator[str]:
    claims = study_page.claims(record.study.get("claims") or [])
    if any(claims.values()):
        yield "## The tutorial's claims, measured"
        yield f"The claims are those of [{TUTORIAL_TITLE}]({TUTORIAL_URL})."
    if claims["tested"]:
        yield _table(
            ["Claim", "Verdict", "Measured"],
            ([c.get("claim"), wording.tied(c.get("verdict")), wording.tied(c.get("measured"))]
             for c in claims["tested"]),
        )  # fmt: skip
    if claims["untested"]:
        yield "Not tested in this run:"
        yield _table(
            ["Claim", "Why", "Test it with"],
            ([c.get("claim"), wording.tied(c.get("measured")), c.get("tested_by") or ""] for c in claims["untested"]),
        )
    yield from _elsewhere(record)
    for title, prefix in (("Calibration", "reliability-"), ("Robustness", "robustness-")):
        if pictures := list(_pictures(drawn, prefix)):
            yield f"## {title}"
            yield from pictures
    for name, rows in (record.study.get("error_causes") or {}).items():
        if rows:
            yield f"### Measures of wrong and correct photos: {_text(name)}"
            yield _table(
                ["Measure", "Wrong, median", "Correct, median", "Effect", "p", "Verdict"],
                ([r.get("measure"), wording.decimal(r.get("wrong_median")), wording.decimal(r.get("right_median")),
                  wording.change(r.get("effect")), wording.p_value(r.get("p_value")), r.get("verdict")] for r in rows),
            )  # fmt: skip
    if record.sweeps.get("photos") or (record.study.get("data_curve") or {}).get("curves"):
        yield "## How many photos are needed"
        yield from _pictures(drawn, "curves", "difference-")


def _data(record: Record, _: Drawn) -> Iterator[str]:
    dataset = record.dataset
    yield "## Data"
    parts = ", ".join(f"{wording.count(dataset.get(part))} {part}" for part in study_page.SPLITS if dataset.get(part))
    yield _text(f"{wording.count(dataset.get('photos'))} usable photos in {len(record.classes)} classes: {parts}.")
    if lines := (dataset.get("check") or {}).get("lines"):
        yield "\n".join(f"- {_text(wording.tied(line))}" for line in lines)
    yield _table(["Class", "Photos"], ([name, wording.count(n)] for name, n in (dataset.get("counts") or {}).items()))
    left = [
        ("left out", "skipped"),
        ("groups of byte-identical photos", "twins"),
        ("photos in two classes", "conflicts"),
    ]
    yield "\n".join(f"- {len(dataset.get(key) or [])} {what}" for what, key in left)
    yield "## How to repeat it"
    again = record.run.with_name(f"{record.run.name}-again")
    command = shlex.join(["frostline", "study", "--config", str(record.run / "config.toml"), "--out", str(again)])
    yield f"```\n{command}\n```"


_SECTIONS = (_answer, _strategies, _training, _classes, _evidence, _data)


# ---- Markdown --------------------------------------------------------------------------------------------------------


def _pictures(drawn: Drawn, *prefixes: str) -> Iterator[str]:
    """The figures whose names begin so, two or three to a row."""
    links = [
        f"![{_text(figure.title)}]({FOLDER}/{name}.svg)"
        for figure, name in drawn
        if any(name == p or (p.endswith("-") and name.startswith(p)) for p in prefixes)
    ]
    across = 2 if len(links) <= 6 else 3
    if len(links) == 1:
        yield links[0]
    elif links:
        rows = [links[i : i + across] for i in range(0, len(links), across)]
        blank = [""] * across
        lines = [_line(blank), _line(["---"] * across), *(_line([*row, *blank[len(row) :]]) for row in rows)]
        yield "\n".join(lines)


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Figures stand right, words left: a column is of words where its first cell is."""
    cells = [[_text(value) for value in row] for row in rows]
    sides = ["---:" if cells and re.match(r"[+\u2212\d]", cells[0][i]) else "---" for i in range(len(columns))]
    return "\n".join([_line(map(_text, columns)), _line(sides), *map(_line, cells)])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(value: Any) -> str:
    """Text from outside as text: what Markdown or HTML would take for markup is escaped, and a line stays a line."""
    flat = re.sub(r"[\r\n\t\v\f\x1c-\x1e\x85\u2028\u2029]+", " ", str("–" if value is None else value))
    return re.sub(r"([\\`*_\[\]<>|#~&])", r"\\\1", flat)
