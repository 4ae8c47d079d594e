"""Photos as they come other than in folders: tables, archives, saved data sets; and what a scan says of them."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from frostline.errors import DataError
from frostline.photos.manifest import Manifest
from frostline.photos.scan import scan
from support import photos

Damage = Sequence[tuple[float, bytes]]
"""(place, bytes) of what is written over a file: a place from 0 to 1, or from the end where it is below 0."""


def skipped(manifest: Manifest) -> dict[str, str]:
    return {skip.path: skip.why for skip in manifest.skipped}


def refused(data: Path, **options: int) -> str:
    """The message, in one line, with which a scan refuses."""
    with pytest.raises(DataError) as caught:
        scan(data, **options)
    text = str(caught.value)
    assert text == " ".join(text.splitlines())
    return text


def listed(manifest: Manifest) -> set[tuple[str, str, str, str]]:
    return {(p.path, p.label, p.split, p.group) for p in manifest.photos}


ROWS = [
    {"path": f"{c}/{c} {n}.{kind}", "label": c, "split": part, "group": f"{c} bush"}
    for c in ("rose", "tulip")
    for n, (kind, part) in enumerate((("jpeg", "train"), ("png", "val")), 1)
]


EXPECTED = {
    (f"{c}/{c} {n}.{kind}", c, part, f"{c} bush")
    for c in ("rose", "tulip")
    for n, (kind, part) in enumerate((("jpeg", "train"), ("png", "validation")), 1)
}


def written(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    """The rows as a table of the kind that the name says."""
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        text = io.StringIO()
        out = csv.DictWriter(text, list(rows[0]), delimiter={".csv": ",", ".tsv": "\t"}[path.suffix])
        out.writeheader()
        out.writerows(rows)
        path.write_text(text.getvalue(), encoding="utf-8")
    return path


GOOD = {f"{c}/{i}.jpg": photos.photo(10 * ord(c) + i) for c in "ab" for i in range(2)}


def packed(folder: Path, target: Path, top: str = "") -> Path:
    """The folder's files as a zip or tar, by the target's name."""
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    names = [(top + "/" if top else "") + f.relative_to(folder).as_posix() for f in files]
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for file, name in zip(files, names, strict=True):
                archive.write(file, name)
    else:
        mode: Any = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz", ".tar": "w"}[target.suffix]
        with tarfile.open(target, mode) as tar:
            for file, name in zip(files, names, strict=True):
                tar.add(file, name)
    return target


def zipped(target: Path, members: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] = lambda _: None) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name twice
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            change(info)
            archive.writestr(info, data)
    return target


def hurt(data: bytes, damage: Damage) -> bytes:
    """The file with damage, more often at its beginning and its end, where headers stand, than between."""
    changed = bytearray(data)
    for place, what in damage:
        at = int(abs(place) ** 3 * len(changed)) * (1 if place > 0 else -1)
        changed[at : at + len(what) or None] = what
    return bytes(changed)


def scans_or_refuses(data: Path) -> None:
    """A damaged file has photos that are there, or is refused in one line."""
    try:
        manifest = scan(data)
    except DataError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert all((manifest.root / p.path).is_file() for p in manifest.photos)
