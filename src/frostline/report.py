"""One self-contained page about a run: the answer first, then everything that it rests on.

The page holds its own style, charts and thumbnails and asks nothing of a network. Three rules keep it honest and safe:
each chart stands beside tables that carry every one of its numbers (so it reads without scripts, and on paper); all
text from outside goes through jinja2's escaping; and a content security policy admits our own scripts alone, by hash.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import shlex
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from jinja2 import ChainableUndefined, Environment, FileSystemLoader, Template
from markupsafe import Markup
from PIL.Image import Image

from frostline import charts, files, images, words
from frostline.errors import PhotoError, RunError

TEMPLATES = Path(__file__).parent / "templates"
THUMBNAIL = 160  # pixels, the longer side: about 6 kB of JPEG
SUREST_WRONG, OTHER_WRONG, RIGHT, SHARED_WRONG, CONFLICTS = 16, 8, 8, 16, 12  # photos shown of each kind
LISTED = 1000  # rows of skipped files or twins; study.json has them all
SPLITS = ("train", "validation", "test")

Row = dict[str, Any]


def build(run: Path) -> Path:
    """Write `run`/report.html from what the run has left so far: all strategies, some, or none. Returns its path.

    Reads study.json (required) and, where they are there, manifest.csv, config.toml and <strategy>/predictions.csv.
    Photos that have been moved since get a placeholder and are listed. Costs 3 s the first time in a process, then 1 s.

    Raises
    ------
    RunError
        study.json is missing or isn't one; a CSV lacks its columns; the report can't be written.
    """
    study = _read_study(run)
    scripts = [charts.bundle(), (TEMPLATES / "report.js").read_text(encoding="utf-8")]
    page = template("report.html.j2").render(
        _contents(run, study),
        run=run,
        style=style(),
        scripts=[Markup(script) for script in scripts],  # noqa: S704 -- our own file and vl_convert's bundle
        hashes=[script_hash(script) for script in scripts],
    )
    return write(run, page)


def _contents(run: Path, study: Row) -> Row:
    """All that the template shows, by the name it has there."""
    dataset, strategies = study["dataset"], study["strategies"]
    names = [s["name"] for s in strategies]
    classes = dataset.get("classes") or []
    config, wanted = _read_config(run / "config.toml")
    predictions = {name: _read_predictions(run / name / "predictions.csv") for name in names}
    thumbnails = Thumbnails(
        Path(dataset.get("root") or run), Path(dataset.get("test_root") or dataset.get("root") or run)
    )
    return {
        "study": study,
        "dataset": dataset,
        "strategies": strategies,
        "best": _best(strategies, bool(dataset.get("unequal"))),
        "answer": study.get("answer") or _answer(strategies, bool(dataset.get("unequal"))),
        "waiting": [s for s in _wanted(wanted) if s not in names] if study.get("status") == "running" else [],
        "charts": charts.specifications(strategies, macro=bool(dataset.get("unequal"))),
        "curves": {s["name"]: charts.epochs(s) for s in strategies},
        "confusions": {s["name"]: _confusion(s.get("confusion") or [], classes) for s in strategies},
        "class_tables": [_class_table(strategies, metric) for metric in ("recall", "f1")] if strategies else [],
        "galleries": _galleries(predictions, thumbnails),
        "conflicts": _conflicts(dataset, thumbnails),
        "thumbnails": thumbnails,
        "splits": _split_table(_read_csv(run / "manifest.csv", ("path", "label", "split"))),
        "config": config,
        "command": _command(run),
        "rebuild": shlex.join(["frostline", "report", str(run)]),
        "shared_pass": _shared_pass(strategies),
        "listed": LISTED,
    }


# ---------------------------------------------------------------- what the run has left


def _read_study(run: Path) -> Row:
    """study.json with a colour, a shape and the frozen share added to each strategy."""
    path = run / "study.json"
    try:
        study = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except FileNotFoundError:
        raise RunError(f"no study.json in {run}: expected a run folder, as 'frostline study --out' leaves it") from None
    except (OSError, ValueError) as error:
        raise RunError(f"can't read {path}: {' '.join(str(error).split())}; resume or repeat the study") from error
    if not _is_study(study):
        raise RunError(
            f"{path} is no study: expected an object with 'dataset' and 'strategies', a list of named objects"
        )
    for index, strategy in enumerate(study["strategies"]):
        strategy["colour"], strategy["shape"] = charts.look(index)
        layers, line = strategy.get("layers"), strategy.get("freeze_line")
        strategy["frozen_share"] = min(line / layers, 1.0) if layers and line is not None else None
    return dict(study)


def _is_study(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("dataset"), dict):
        return False
    strategies = value.get("strategies")
    return isinstance(strategies, list) and all(
        isinstance(s, dict) and isinstance(s.get("name"), str) for s in strategies
    )


def _read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV; none when there is no such file (a run that is still going)."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
                raise RunError(f"{path} has no column {', '.join(missing)}: expected {', '.join(columns)}")
            return list(reader)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"can't read {path}: {' '.join(str(error).split())}") from error


def _read_predictions(path: Path) -> list[Row]:
    """The surest first, each with "confidence" as a number and "right"."""
    rows: list[Row] = []
    for row in _read_csv(path, ("path", "true", "predicted", "confidence")):
        try:
            confidence = float(row["confidence"])
        except (TypeError, ValueError):
            came = f"confidence {row['confidence']!r} of {row['path']}"
            raise RunError(f"{path}: {came}, expected a number from 0 to 1; resume or repeat the study") from None
        rows.append({**row, "confidence": confidence, "right": row["true"] == row["predicted"]})
    return sorted(rows, key=lambda row: -row["confidence"])


def _read_config(path: Path) -> tuple[str, Row]:
    """config.toml as text and as values; both empty when there is none, the values when it isn't TOML."""
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except FileNotFoundError:
        return "", {}
    except tomllib.TOMLDecodeError:
        return text, {}
    except (OSError, ValueError) as error:
        raise RunError(f"can't read {path}: {' '.join(str(error).split())}") from error


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
    return list(dict.fromkeys(float(s) for s in seconds if s and words.known(s)))


def _answer(strategies: Sequence[Row], macro: bool) -> str:
    """What can be said when the study has not yet drawn its conclusion."""
    best = _best(strategies, macro)
    if best is None:
        return "No strategy has ended yet: the figures will stand here when the first one does."
    figures = f"{words.percent(best['accuracy'])} right (95 % interval {words.span(best.get('accuracy_ci'))})"
    if macro:
        span = words.span(best.get("balanced_accuracy_ci"))
        figures = f"macro recall {words.percent(best.get('balanced_accuracy'))} (95 % interval {span})"
    return (
        f"So far {best['name']} leads: {figures}."
        if len(strategies) > 1
        else f"First result, {best['name']}: {figures}."
    )


def _best(strategies: Sequence[Row], macro: bool) -> Row | None:
    """The one that the study's answer names: chosen by validation photos, so never by those that are reported."""
    by = "balanced_accuracy" if macro else "accuracy"
    if all(words.known(s.get(f"validation_{by}")) for s in strategies):
        by = f"validation_{by}"
    scored = [s for s in strategies if words.known(s.get(by))]
    return max(scored, key=lambda s: (s[by], -((s.get("parameters") or {}).get("trainable") or 0)), default=None)


# ---------------------------------------------------------------- tables


def _confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Row:
    """Rows of (count, share of its true class), and the three confusions seen most."""
    rows = []
    for name, counts in zip(classes, matrix, strict=False):
        total = sum(counts) or 1
        rows.append({"class": name, "cells": [(count, count / total) for count in counts]})
    pairs = [(n, classes[i], classes[j]) for i, row in enumerate(matrix) for j, n in enumerate(row) if n and i != j]
    return {"classes": classes, "rows": rows, "most": sorted(pairs, key=lambda pair: -pair[0])[:3]}


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


# ---------------------------------------------------------------- photos


@dataclass
class Thumbnails:
    """Each photo once, however many galleries show it: the page refers to a thumbnail by its id."""

    root: Path
    test_root: Path
    found: dict[Path, Row] = field(default_factory=dict)
    missing: dict[Path, str] = field(default_factory=dict)

    def add(self, relative: str, root: Path) -> Row | None:
        """{"id", "width", "height", "data"} of the photo, or None when it can't be read any more. About 4 ms."""
        path = root / relative
        if path not in self.found and path not in self.missing:
            try:
                picture = images.thumbnail(path.read_bytes(), THUMBNAIL)
            except (OSError, ValueError, PhotoError):  # ValueError: a name that no file can have
                self.missing[path] = relative
            else:
                size = {"width": picture.width, "height": picture.height}
                self.found[path] = {"id": f"photo-{len(self.found)}", **size, "data": _jpeg(picture)}
        return self.found.get(path)

    def tile(self, row: Row) -> Row:
        """A row of predictions.csv with its thumbnail and bare file name."""
        return {**row, "thumbnail": self.add(row["path"], self.test_root), "file": PurePosixPath(row["path"]).name}


def _jpeg(picture: Image) -> str:
    """Base64, about 8 kB."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _galleries(predictions: dict[str, list[Row]], thumbnails: Thumbnails) -> Row:
    """For each strategy wrong and right photos, and those wrong in all: the first to check for bad labels."""
    ended = {name: rows for name, rows in predictions.items() if rows}
    shared = _wrong_in_all(list(ended.values()))
    galleries = {}
    for name, rows in ended.items():
        wrong, right = [row for row in rows if not row["right"]], [row for row in rows if row["right"]]
        chosen = wrong[:SUREST_WRONG] + _spread(wrong[SUREST_WRONG:], OTHER_WRONG)
        galleries[name] = {
            "wrong": _gallery(chosen, wrong, thumbnails),
            "right": _gallery(_spread(right, RIGHT), right, thumbnails),
        }
    return {
        "strategies": galleries,
        "shared": _gallery(shared[:SHARED_WRONG], shared, thumbnails),
        "surest": SUREST_WRONG,
    }


def _gallery(chosen: Sequence[Row], rows: Sequence[Row], thumbnails: Thumbnails) -> Row:
    return {"tiles": [thumbnails.tile(row) for row in chosen], "total": len(rows)}


def _wrong_in_all(strategies: Sequence[Sequence[Row]]) -> list[Row]:
    """Photos that no strategy got right, with the "guesses" of each; none unless there are two strategies or more."""
    if len(strategies) < 2:
        return []
    wrong = [{row["path"]: row for row in rows if not row["right"]} for rows in strategies]
    paths = [path for path in wrong[-1] if all(path in other for other in wrong)]
    return [{**wrong[-1][path], "guesses": [other[path]["predicted"] for other in wrong]} for path in paths]


def _spread(rows: Sequence[Row], most: int) -> list[Row]:
    """At most `most` (two or more) rows, at even steps from the first to the last."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]


def _conflicts(dataset: Row, thumbnails: Thumbnails) -> list[Row]:
    """Photos that stand in several classes: their places, and a thumbnail of the first few."""
    groups = [group for group in dataset.get("conflicts") or [] if group]
    tiles = [{"group": group, "classes": [place["class"] for place in group]} for group in groups]
    for tile in tiles[:CONFLICTS]:
        tile |= {"shown": True, "thumbnail": thumbnails.add(tile["group"][0]["path"], thumbnails.root)}
    return tiles


# ---------------------------------------------------------------- the page


def script_hash(script: str) -> str:
    """What a content security policy admits a script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def write(run: Path, page: str) -> Path:
    """Write `run`/report.html; returns its path. File names that are no text (lone surrogates) must not cost the report."""
    files.write_text(run / "report.html", page.encode("utf-8", "replace").decode("utf-8"))
    return run / "report.html"


def style() -> Markup:
    """The style sheet of every page."""
    return Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))  # noqa: S704 -- our own file


def template(name: str) -> Template:
    """One of `TEMPLATES`. What study.json doesn't hold shows as nothing or as a dash: older and unfinished runs stay readable."""
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=ChainableUndefined
    )
    environment.filters |= {function.__name__: function for function in words.FILTERS}
    return environment.get_template(name)
