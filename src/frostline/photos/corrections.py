"""A list of corrections: leave this photo out, give that one another label. The photos themselves stay as they are.

The list is a CSV file: ``path,action,label,why,confidence``. `path` is as the manifest writes it; `action` is
``exclude`` or ``relabel``; `label` is the new class of a relabelled photo (with ``exclude``: the class that it is taken
out of, where a table lists it in several; empty = all). `why` and `confidence` are for people. `frostline check
--write` makes such a list, and so does check.html.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, get_args

from frostline.errors import ConfigError, nearest
from frostline.files import write_csv
from frostline.photos.manifest import Manifest, Photo, Skip
from frostline.photos.names import printable

Action = Literal["exclude", "relabel"]
COLUMNS = ("path", "action", "label", "why", "confidence")


class Decision(NamedTuple):
    """What to do with one photo."""

    path: str
    action: Action
    label: str = ""
    why: str = ""
    confidence: float | None = None


def write(path: Path, decisions: Iterable[Decision]) -> None:
    """Write the list. Raises RunError when `path` can't be written."""
    rows = ([*d[:4], "" if d.confidence is None else f"{d.confidence:.3f}"] for d in decisions)
    write_csv(path, COLUMNS, rows)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"--exclude {path}: no such file; 'frostline check DATA --write FILE' makes one") from None
    except OSError as error:
        raise ConfigError(f"--exclude {path}: can't be read: {error.strerror}") from error


def read(path: Path, sha256: str = "") -> list[Decision]:
    """The decisions of a list.

    Raises
    ------
    ConfigError
        No such file, not such a list, a photo decided twice, or (with `sha256`) not the list it was.
    """
    content = _content(path)
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        raise ConfigError(
            f"--exclude {path} is not the list that the configuration was made with: "
            "restore it, or start again with the new one"
        )
    try:
        rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        if not {"path", "action"} <= set(rows.fieldnames or ()):
            came = printable(",".join(rows.fieldnames or ())) or "nothing"
            raise ConfigError(
                f"--exclude {path}: the first line must name the columns {','.join(COLUMNS)}; it is: {came}"
            )
        return _decided_once(path, [_decision(path, rows.line_num, row) for row in rows])
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"--exclude {path} is no CSV file in UTF-8: {error}") from error


def _decision(path: Path, line: int, row: dict[str, str | None]) -> Decision:
    action = (row["action"] or "").strip().lower()
    if action not in get_args(Action):
        raise ConfigError(
            f"--exclude {path} line {line}: unknown action '{printable(action)}'{nearest(action, get_args(Action))}"
        )
    label = (row.get("label") or "").strip()
    if not row["path"] or (action == "relabel" and not label):
        raise ConfigError(f"--exclude {path} line {line}: {'relabel needs a label' if row['path'] else 'no path'}")
    return Decision(row["path"], "relabel" if action == "relabel" else "exclude", label, row.get("why") or "")


def _decided_once(path: Path, decisions: list[Decision]) -> list[Decision]:
    seen: dict[str, Decision] = {}
    for d in decisions:
        first = seen.setdefault(d.path, d)
        if (first.action, first.label) != (d.action, d.label) and "relabel" in (first.action, d.action):
            raise ConfigError(
                f"--exclude {path}: {printable(d.path)} is decided twice, differently: keep one of the lines"
            )
    return list(dict.fromkeys(decisions))


def clean(manifest: Manifest, decisions: Sequence[Decision], source: str) -> tuple[Manifest, list[int]]:
    """The corrected manifest, and for each of its photos the index in the old one. Excluded photos are listed as
    skipped.

    `source` names the list in messages.

    Raises
    ------
    ConfigError
        A photo or a class that is not there; the nearest name is suggested.
    """
    decided: dict[str, list[Decision]] = {}
    for d in decisions:
        decided.setdefault(d.path, []).append(d)
    check_known(manifest, decisions, source)
    kept: list[Photo] = []
    places: list[int] = []
    gone: list[Skip] = []
    for place, photo in enumerate(manifest.photos):
        fitting = [d for d in decided.get(photo.path, ()) if d.action == "relabel" or d.label in ("", photo.label)]
        if not fitting or fitting[0].action == "relabel":
            kept.append(replace(photo, label=fitting[0].label) if fitting else photo)
            places.append(place)
        else:
            why = f": {fitting[0].why}" if fitting[0].why else ""
            gone.append(Skip(photo.path, f"left out by {PurePosixPath(source).name}{why}"))
    return replace(manifest, photos=kept).listing(gone), places


def check_known(manifest: Manifest, decisions: Sequence[Decision], source: str) -> None:
    """Raise ConfigError where a decision names a photo or a class that is not there, with the nearest name."""
    decided = {d.path for d in decisions}
    known = {p.path for p in manifest.photos} | {s.path for s in manifest.skipped}
    if strange := [path for path in decided if path not in known]:
        close = difflib.get_close_matches(strange[0], known, n=1)
        hint = f"; did you mean '{printable(close[0])}'?" if close else ""
        count = f" ({len(strange)} such paths)" if len(strange) > 1 else ""
        raise ConfigError(
            f"--exclude {source}: {printable(strange[0])} is not among the photos of {manifest.root}{hint}{count}"
        )
    classes = manifest.classes
    for d in decisions:
        if d.action == "relabel" and d.label not in classes:
            raise ConfigError(f"--exclude {source}: unknown class '{printable(d.label)}'{nearest(d.label, classes)}")
