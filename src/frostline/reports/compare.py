"""Two or more runs side by side, paired on the photos that they share.

Photos are the same where their bytes are (SHA-256 from manifest.csv; where a run's manifest has none, the same path
and label). A photo that one run reports on and another was trained on would flatter the other, so it is counted and
left out of the pairing.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import frostline
from frostline import files, wording
from frostline.errors import ConfigError, RunError, nearest
from frostline.photos.scan import restore
from frostline.reports import gallery, html, study_charts, svg
from frostline.reports.record import Record, Row, read
from frostline.stats import intervals
from frostline.stats.metrics import METRICS, shown_on
from frostline.stats.predictions import Prediction, clusters

Photos = dict[str, Prediction]
"""The predictions of one strategy, by photo."""

PAGE, DOCUMENT = "compare.html", "compare.json"
FEW = 30
"""Shared photos below which a comparison says little whatever it finds."""


@dataclass(frozen=True)
class Entry:
    """One strategy of one run."""

    name: str
    record: Record
    run: str
    strategy: Row
    said: Photos
    keys: Mapping[str, str]
    """Photo by the path that the run knows it by."""


def compare(runs: Sequence[str | Path], *, strategy: str = "", every: bool = False) -> Row:
    """Compare runs, and return what compare.json holds.

    Parameters
    ----------
    runs
        Two or more run folders.
    strategy
        The strategy to take from each; without it the one that validation prefers.
    every
        Take all strategies of all runs.

    Raises
    ------
    ConfigError
        Fewer than two runs, the same run twice, or no such strategy.
    RunError
        A folder is no run, or none of its strategies has ended.
    """
    return _document(_entries(runs, strategy, every))


def write(out: str | Path, runs: Sequence[str | Path], *, strategy: str = "", every: bool = False) -> Row:
    """The same, and leave compare.html and compare.json in the folder `out`.

    Raises
    ------
    ConfigError, RunError
        As `compare`; or `out` can't be written.
    """
    folder = Path(out)
    entries = _entries(runs, strategy, every)
    document = _document(entries)
    for entry in entries:
        restore(entry.record.dataset)
    page = html.template("compare.html.j2").render(_contents(document, entries), **html.furniture())
    html.write(folder / PAGE, page)
    files.write_json(folder / DOCUMENT, document)
    return document


# ---- what is compared ------------------------------------------------------------------------------------------------


def _entries(runs: Sequence[str | Path], strategy: str, every: bool) -> list[Entry]:
    folders = [Path(run) for run in runs]
    if len(folders) < 2:
        raise ConfigError(f"{len(folders)} run given: expected two or more run folders to compare")
    if strategy and every:
        raise ConfigError("--strategy and --all exclude each other: give one of them")
    if twice := [str(f) for f, n in Counter(f.resolve() for f in folders).items() if n > 1]:
        raise ConfigError(f"{twice[0]} is given twice: expected different runs")
    names = _short_names(folders)
    return [
        entry
        for folder, name in zip(folders, names, strict=True)
        for entry in _of_run(read(folder), name, strategy, every)
    ]


def _short_names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, with as much of the way to them as tells them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-depth:]).lstrip("/") for p in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _of_run(record: Record, run: str, strategy: str, every: bool) -> list[Entry]:
    ended = [s for s in record.strategies if s["name"] in record.predictions]
    if not ended or record.best is None:
        raise RunError(f"{record.run}: no strategy has ended yet, so there is nothing to compare; resume the study")
    chosen = ended if every else [record.best]
    if strategy:
        names = [s["name"] for s in ended]
        if strategy not in names:
            raise ConfigError(f"--strategy {strategy}: {record.run} has none of that name{nearest(strategy, names)}")
        chosen = [s for s in ended if s["name"] == strategy]
    keys = _keys(record)
    entries = []
    for row in chosen:
        said: Photos = {}
        for answer in record.predictions[row["name"]]:
            said.setdefault(keys.get(answer.path, _by_name(answer.path, answer.true)), answer)
        entries.append(Entry(f"{run}: {row['name']}", record, run, row, said, keys))
    return entries


def _keys(record: Record) -> dict[str, str]:
    """The photo behind each path that the run reports on."""
    part = record.study.get("reported_on") or "test"
    return {row["path"]: _key(row) for row in record.manifest if row["split"] == part}


def _key(row: Mapping[str, str]) -> str:
    return row.get("sha256") or _by_name(row["path"], row["label"])


def _by_name(path: str, label: str) -> str:
    return f"{label}\n{path}"


# ---- pairs -----------------------------------------------------------------------------------------------------------


def _document(entries: Sequence[Entry]) -> Row:
    seen = {entry.run: _seen(entry.record) for entry in entries}
    found = [_pair(b, a, seen) for a, b in itertools.combinations(entries, 2)]
    corrected = iter(intervals.corrected([result for _, result in found if result is not None]))
    pairs = []
    for pair, result in found:
        if result is not None:
            own = next(corrected)
            pair |= {"p_corrected": own.p_corrected, "verdict": own.verdict}
        pairs.append(pair)
    records = {entry.run: entry.record for entry in entries}
    return {
        "frostline": frostline.__version__,
        "runs": [_about(name, record) for name, record in records.items()],
        "chosen": [
            {
                "name": entry.name,
                "run": entry.run,
                "strategy": entry.strategy["name"],
                "photos": len(entry.said),
                **_figures(entry.strategy),
            }
            for entry in entries
        ],
        "pairs": pairs,
        "settings": _settings(records),
        "warnings": [*_warnings(pairs), *_class_warnings(records)],
        "answer": _headline(entries, pairs)["verdict"],
    }


def _figures(strategy: Row) -> Row:
    """A strategy's metrics, with their intervals, as its own run reports them."""
    keys = (key for metric in METRICS for key in (metric.name, f"{metric.name}_ci"))
    return {"accuracy": None, "accuracy_ci": None, **{key: strategy[key] for key in keys if key in strategy}}


def _headline(entries: Sequence[Entry], pairs: Sequence[Row]) -> Row:
    """The first pair of two runs' own choices; else the first pair of two runs; else the first."""
    by_name = {entry.name: entry for entry in entries}
    sides = [(by_name[pair["a"]], by_name[pair["b"]], pair) for pair in pairs]
    across = [(a, b, pair) for a, b, pair in sides if a.run != b.run]
    chosen = [pair for a, b, pair in across if a.strategy is a.record.best and b.strategy is b.record.best]
    return next(iter([*chosen, *(pair for *_, pair in across), *pairs]))


def _about(name: str, record: Record) -> Row:
    study, dataset = record.study, record.dataset
    kept = ("frostline", "created", "status", "seed", "protocol", "preset", "reported_on", "answer")
    return {
        "name": name,
        "folder": str(record.run),
        **{key: study.get(key) for key in kept},
        "dataset": {
            key: dataset.get(key) for key in ("name", "root", "photos", "classes", "train", "validation", "test")
        },
        "best": record.best["name"] if record.best else None,
    }


def _seen(record: Record) -> dict[str, set[str]]:
    """Photos by the part that a run put them in."""
    parts: dict[str, set[str]] = {"train": set(), "validation": set()}
    for row in record.manifest:
        if row["split"] in parts:
            parts[row["split"]].add(_key(row))
    if any("refit" in row for row in record.study.get("strategies", ())):  # its models were trained on those as well
        parts["train"] |= parts["validation"]
    return parts


def _pair(a: Entry, b: Entry, seen: Mapping[str, Mapping[str, set[str]]]) -> tuple[Row, intervals.Comparison | None]:
    """Two entries on the photos that both report on and neither was trained on; None where there is no such photo."""
    trained_on = {
        f"{one.name} on {other.run}": len(one.said.keys() & seen[other.run]["train"])
        for one, other in ((a, b), (b, a))
        if one.run != other.run
    }
    both = [key for key in a.said if key in b.said]
    clean = [key for key in both if key not in seen[a.run]["train"] and key not in seen[b.run]["train"]]
    agreed = [key for key in clean if a.said[key].true == b.said[key].true]
    watched = sum(key in seen[r]["validation"] for key in agreed for r in {a.run, b.run})
    found: Row = {
        "a": a.name,
        "b": b.name,
        "shared": len(agreed),
        "trained_on": {name: count for name, count in trained_on.items() if count},
        "labelled_differently": len(clean) - len(agreed),
        "watched": watched if a.run != b.run else 0,
    }
    if not agreed:
        verdict = f"{a.name} and {b.name} share no photo to be compared on"
        nothing = dict.fromkeys(("accuracy", "difference", "ci", "p_value", "p_corrected"))
        return {**found, **nothing, "verdict": verdict}, None
    right = [np.array([entry.said[key].correct for key in agreed]) for entry in (a, b)]
    together = clusters([a.said[key] for key in agreed])
    result = intervals.compare(a.name, right[0], b.name, right[1], together)
    row = {
        **found,
        "accuracy": [float(side.mean()) for side in right],
        "difference": result.difference,
        "ci": list(result.ci),
        "p_value": result.p_value,
    }
    return row, result


def _warnings(pairs: Sequence[Row]) -> list[str]:
    """What makes a comparison less than it seems, each said once."""
    said = []
    for pair in pairs:
        for side, count in pair["trained_on"].items():
            name, other = side.rsplit(" on ", 1)
            said.append(
                f"{wording.count(count)} photos that {name} reports on are training photos of {other} (a leak): "
                "they are left out."
            )
        if pair["labelled_differently"]:
            said.append(
                f"{pair['labelled_differently']} photos have different labels in {pair['a']} and {pair['b']}: "
                "they are left out."
            )
        if pair["watched"]:
            said.append(
                f"{pair['watched']} of the photos on which {pair['a']} and {pair['b']} are compared are validation "
                "photos of one of them. Its choices used them, so its figure may be optimistic."
            )
        if pair["shared"] < FEW:
            said.append(f"{pair['a']} and {pair['b']} share only {pair['shared']} photos: too few for a conclusion.")
    return list(dict.fromkeys(said))


def _class_warnings(records: Mapping[str, Record]) -> list[str]:
    classes = {name: record.classes for name, record in records.items()}
    first, *others = classes
    return [
        f"{other} has other classes than {first}: {', '.join(sorted(set(classes[first]) ^ set(classes[other])))}."
        for other in others
        if set(classes[first]) != set(classes[other])
    ]


def _settings(records: Mapping[str, Record]) -> list[Row]:
    """Settings of config.toml that differ, with each run's value; None where a run has no such setting."""
    flat = [dict(_flat(record.config)) for record in records.values()]
    names = list(dict.fromkeys(name for values in flat for name in values if not name.endswith(".line_asked")))
    rows = [{"setting": name, "values": [values.get(name) for values in flat]} for name in names]
    return [row for row in rows if any(value != row["values"][0] for value in row["values"])]


def _flat(value: Any, name: str = "") -> list[tuple[str, Any]]:
    """Nested settings as dotted names; strategies by their own names, so that their order is no difference."""
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in _flat(inner, f"{name}.{key}" if name else str(key))]
    if name == "strategies" and isinstance(value, list):
        return [pair for row in value if isinstance(row, dict) for pair in _flat(row, str(row.get("name")))]
    return [(name, value)]


# ---- the page --------------------------------------------------------------------------------------------------------


def _contents(document: Row, entries: Sequence[Entry]) -> Row:
    looks = svg.looks([entry.name for entry in entries])
    rows = [
        {**chosen, "colour": looks[chosen["name"]][0], "shape": looks[chosen["name"]][1]}
        for chosen in document["chosen"]
    ]
    photos = _photos(entries, {name: colour for name, (colour, _) in looks.items()})
    return {
        "document": document,
        "rows": rows,
        "metrics": shown_on("report", any(entry.record.unequal for entry in entries)),
        "figures": {
            "accuracy": study_charts.accuracy(rows),
            "differences": study_charts.differences([p for p in document["pairs"] if p["ci"]]),
        },
        "photos": {key: value for key, value in photos.items() if key != "pictures"},
        "pictures": photos["pictures"],
        "most_pictures": gallery.PICTURES,
        "sections": [
            ("answers", "Accuracy"),
            ("pairs", "Differences"),
            *([("photos", "Photos")] if photos["photos"] else []),
            ("settings", "Settings that differ"),
            ("runs", "The runs"),
        ],
    }


def _photos(entries: Sequence[Entry], looks: Mapping[str, str]) -> Row:
    """The photos that all entries report on and none was trained on, where they don't all say the same and where they
    do."""
    trained = set().union(*(_seen(entry.record)["train"] for entry in entries))
    shared = set.intersection(*(set(entry.said) for entry in entries)) - trained
    said = {entry.name: {key: entry.said[key] for key in entry.said if key in shared} for entry in entries}
    first = entries[0]

    def where(key: str) -> tuple[Path, str]:
        return first.record.root, first.said[key].path

    classes = list(dict.fromkeys(label for entry in entries for label in entry.record.classes))
    found = gallery.album(said, looks, classes, {}, where, gallery.Pictures(), gallery.PICTURES)
    return {**found, "total": len(found["photos"])}
