"""What `frostline check` leaves: check.json, check.csv, and check.html, in which the user decides about each photo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import TypedDict

from markupsafe import Markup

from frostline import documents
from frostline.checks.kinds import Kind
from frostline.documents import Check
from frostline.documents.shared import Finding
from frostline.files import write_csv
from frostline.photos import corrections
from frostline.reports import html
from frostline.reports.gallery import Pictures
from frostline.reports.html import TEMPLATES, script_hash, style, template

SHOWN, SHOWN_LABELS = 30, 120
"""Findings of a kind that the page draws; check.csv has them all."""

BESIDE = 6
"""Photos of one finding that are drawn side by side."""

COLUMNS = ("finding", "kind", "path", "class", "suggested", "confidence", "advice", "detail")

_Tile = TypedDict("_Tile", {"path": str, "file": str, "class": str, "picture": str | None})


class _Card(Finding):
    tiles: list[_Tile]
    more: int


def write(out: Path, document: Check, kinds: Mapping[str, Kind]) -> None:
    """Write check.json, check.csv and check.html into `out`.

    `kinds`: in the page's order (`frostline.checks.kinds.KINDS`). About 4 ms for each photo that the page draws.

    Raises
    ------
    RunError
        `out` can't be written.
    """
    documents.write(out, documents.Check, document)
    write_csv(out / "check.csv", COLUMNS, _rows(document["findings"]))
    html.write(out / "check.html", _page(document, kinds))


def _rows(findings: Sequence[Finding]) -> Iterator[list[object]]:
    """A row for each photo of each finding; a finding about whole classes has a row without a path for each class."""
    for number, f in enumerate(findings, 1):
        paths = f["paths"] or [""] * max(1, len(f["classes"]))
        labels = f["classes"] or [""] * len(paths)
        for path, label in zip(paths, labels, strict=True):
            yield [number, f["kind"], path, label, f["suggested"] or "", f["confidence"], f["advice"], f["detail"]]


def _page(document: Check, kinds: Mapping[str, Kind]) -> str:
    sections = []
    pictures, root = Pictures(), Path(document["root"])
    by_kind = {kind: list(rows) for kind, rows in groupby(document["findings"], key=lambda f: f["kind"])}
    for kind, told in kinds.items():
        if rows := by_kind.get(kind):
            shown = rows[: SHOWN_LABELS if kind == "label" else SHOWN]
            if kind != "unreadable":
                pictures.add(root, [path for row in shown for path in row["paths"][:BESIDE]])
            cards = [_card(row, pictures, root) for row in shown]
            drawn = any(tile["picture"] for card in cards for tile in card["tiles"])
            about = {"kind": kind, "anchor": kind.replace(" ", "-"), "cards": cards, "total": len(rows), "drawn": drawn}
            sections.append({**about, "title": told.title, "advice": told.advice, "certain": told.certain})
    script = (TEMPLATES / "check.js").read_text(encoding="utf-8")
    own_style = (TEMPLATES / "check.css").read_text(encoding="utf-8")
    return template("check.html.j2").render(
        document=document,
        name=document["name"],
        found=sections,
        sections=[(s["anchor"], f"{s['title']} ({s['total']:,})") for s in sections] + [("photos", "The photos")],
        columns=list(corrections.COLUMNS),
        style=style() + Markup(own_style),  # noqa: S704 -- our own file
        script=Markup(script),  # noqa: S704 -- our own file
        script_hash=script_hash(script),
    )


def _card(finding: Finding, pictures: Pictures, root: Path) -> _Card:
    """A finding with a tile for each of the photos that are drawn."""
    paths = finding["paths"]
    labels = finding["classes"] if len(finding["classes"]) == len(paths) else [""] * len(paths)
    tiles: list[_Tile] = [
        {"path": path, "file": PurePosixPath(path).name, "class": label, "picture": pictures.get(root, path)}
        for path, label in list(zip(paths, labels, strict=True))[:BESIDE]
    ]
    return {**finding, "tiles": tiles, "more": len(paths) - len(tiles)}
