"""Which photos there are, what they are said to show, and what was left out and why.

`scan` reads three layouts:

- a folder of class folders (``roses/…``, ``tulips/…``); photos may lie in subfolders, the top folder names the class
- ``train/`` beside ``validation|val|valid/`` and/or ``test/`` (any case), each holding class folders
- a CSV file with the columns ``path,label`` and optionally ``split`` and ``group``; paths relative to its folder, or absolute

What counts as a photo is settled by content when it is decoded (`images`), not by the file's name; here a file is left
out only when it can't be one (empty, huge, unreadable, not a regular file). Hidden files and what operating systems
strew about (``Thumbs.db``, ``desktop.ini``, ``__MACOSX``) are passed over in silence; all else that is left out is
listed in `Manifest.skipped`. Photos and classes stand in natural order ("2" before "10"), the same on every machine.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import os
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import natsort

from frostline.errors import DataError
from frostline.files import write_text
from frostline.images import MAX_BYTES

SPLITS = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}
"""Names of split folders and of values in a CSV's split column (in lower case) -> the part they mean."""

_LITTER = {"thumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin", "system volume information"}
_LITTER |= {"readme.md", "readme.txt", "license", "license.txt"}
_COLUMNS = ["path", "label", "split", "sha256"]
_natural = natsort.natsort_keygen(alg=natsort.ns.IGNORECASE)


@dataclass(frozen=True)
class Photo:
    """One photo and the class it stands in."""

    path: str
    """Posix, relative to the manifest's root; absolute only where a CSV names a file outside the CSV's folder."""
    label: str
    split: str
    """The part the data set itself puts it in: "" (none given), "train", "validation" or "test"."""
    sha256: str
    """Hex digest of the file's bytes."""
    group: str = ""
    """What it shares with other photos (the same plant, the same patient), from a table's group column; "": nothing."""


@dataclass(frozen=True)
class Skip:
    """A file or folder that was left out, and why (the reason alone, for people)."""

    path: str
    why: str


@dataclass(frozen=True)
class Manifest:
    """The photos of a data set in natural order, and what was left out."""

    root: Path
    """``root / photo.path`` is the file."""
    photos: list[Photo]
    skipped: list[Skip] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """Names of the classes that have photos, in natural order: position = class index everywhere."""
        return sorted({photo.label for photo in self.photos}, key=natural)

    def counts(self) -> dict[str, int]:
        """Photos per class, in the order of `classes`."""
        counts = dict.fromkeys(self.classes, 0)
        for photo in self.photos:
            counts[photo.label] += 1
        return counts

    def without(self, skips: Iterable[Skip]) -> Manifest:
        """The manifest without the photos at these paths; `skips` joins `skipped`. For photos that can't be decoded."""
        new = list(skips)
        gone = {skip.path for skip in new}
        kept = [photo for photo in self.photos if photo.path not in gone]
        return Manifest(self.root, kept, _in_order([*self.skipped, *new]))

    def twins(self) -> list[list[Photo]]:
        """Groups of two or more byte-identical photos, each group and the list in the order of `photos`."""
        groups: defaultdict[str, list[Photo]] = defaultdict(list)
        for photo in self.photos:
            groups[photo.sha256].append(photo)
        return [group for group in groups.values() if len(group) > 1]

    def conflicts(self) -> list[list[Photo]]:
        """Those `twins` that stand in more than one class: at least one of the labels is wrong."""
        return [group for group in self.twins() if len({photo.label for photo in group}) > 1]

    def write(self, path: Path, splits: Sequence[str]) -> None:
        """Write manifest.csv (path,label,split,sha256, and group where there are some); `splits[i]` is the part of photo i.

        Raises RunError when `path` can't be written.
        """
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        grouped = any(photo.group for photo in self.photos)
        rows.writerow([*_COLUMNS, *(["group"] if grouped else [])])
        for photo, part in zip(self.photos, splits, strict=True):
            rows.writerow([photo.path, photo.label, part, photo.sha256, *([photo.group] if grouped else [])])
        write_text(path, text.getvalue())


def natural(text: str) -> tuple[Any, str]:
    """Sort key: digits by value, letters without regard to case; the text itself decides between equals ("1", "01")."""
    return _natural(text), text


def is_litter(name: str) -> bool:
    """Hidden files, what file managers leave behind, and notes on the set: passed over without a word."""
    return name.startswith(".") or name.lower() in _LITTER


def printable(text: str) -> str:
    """A path or name for messages, in one line: control characters and bytes that are no UTF-8 as escapes."""
    try:
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a surrogate pair, as names on Windows may hold: it stands for no byte
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def read(path: Path, root: Path) -> Manifest:
    """Read what `Manifest.write` wrote; `root` is the folder that the paths are relative to. Raises DataError."""
    rows = _rows(path, _COLUMNS)
    photos = [Photo(r["path"], r["label"], r["split"], r["sha256"], r.get("group", "")) for _, r in rows]
    return Manifest(root, photos)


def scan(data: Path, *, least_classes: int = 2) -> Manifest:
    """List the photos of a folder or a CSV file, with their digests.

    Reads every file once, in two threads (about 1 GB/s when the files are in the system's cache). `least_classes` is 1
    for a folder that is only tested on.

    Raises
    ------
    DataError
        No such folder; neither a folder nor a CSV file; empty; no class folders; fewer classes than `least_classes`;
        a class that is only in validation or test; CSV columns or splits that are missing or unknown.
    """
    data = Path(data)
    kind = _kind(data)
    finds = _Finds()
    if stat.S_ISDIR(kind):
        root = data
        _from_folder(data, finds)
    elif stat.S_ISREG(kind) and data.suffix.lower() == ".csv":
        root = data.parent
        _from_csv(data, finds)
    else:
        raise DataError(f"{printable(str(data))} is not a folder: give a folder of class folders, or a .csv file")
    manifest = _digested(root, finds)
    _check(data, manifest, least_classes)
    return manifest


# --- finding ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """A file or folder that exists and can be stat'ed."""

    name: str
    path: str  # posix, relative to the root
    file: Path
    status: os.stat_result

    @property
    def folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def identity(self) -> tuple[int, int]:
        return self.status.st_dev, self.status.st_ino


@dataclass(frozen=True)
class _Candidate:
    file: Path
    path: str
    label: str
    split: str
    group: str = ""


@dataclass
class _Finds:
    """What the search has come upon so far."""

    candidates: list[_Candidate] = field(default_factory=list)
    skipped: list[Skip] = field(default_factory=list)

    def skip(self, path: str, why: str) -> None:
        self.skipped.append(Skip(printable(path), why))

    def add(self, entry: _Entry, label: str, split: str, group: str = "") -> None:
        if stat.S_ISREG(entry.status.st_mode):
            self.candidates.append(_Candidate(entry.file, entry.path, label, split, group))
        else:  # opening a pipe would wait for ever
            self.skip(entry.path, "not a regular file")


def _kind(data: Path) -> int:
    """The file mode of what was given."""
    shown = printable(str(data))
    try:
        return data.stat().st_mode
    except PermissionError as error:
        raise DataError(f"can't read {shown}: {error.strerror}") from error
    except (OSError, ValueError) as error:
        try:
            siblings = [sibling.name for sibling in data.parent.iterdir()]
        except (OSError, ValueError):
            siblings = []
        close = difflib.get_close_matches(data.name, siblings, n=1)
        hint = f"; did you mean '{printable(str(data.parent / close[0]))}'?" if close else ""
        raise DataError(f"no such folder or CSV file: '{shown}'{hint}") from error


def _entries(folder: Path, path: str, finds: _Finds) -> Iterator[_Entry]:
    """What lies in one folder, in natural order, links followed; what can't be looked at is listed as skipped."""
    try:
        names = sorted((file.name for file in folder.iterdir()), key=natural)
    except OSError as error:
        finds.skip(path, f"folder can't be read: {error.strerror}")
        return
    for name in names:
        if is_litter(name):
            continue
        file, inner = folder / name, f"{path}/{name}" if path else name
        if why := _unusable(name):
            finds.skip(inner, why)
            continue
        try:
            yield _Entry(name, inner, file, file.stat())
        except OSError as error:
            finds.skip(inner, "broken link" if file.is_symlink() else f"can't be read: {error.strerror}")


def _unusable(name: str) -> str:
    """Why a name can't stand in the run's CSV and JSON files; "" when it can."""
    if "\r" in name:  # Python's csv module writes it bare and reads it as the end of the line
        return "the name holds a carriage return: rename it"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "the name is not UTF-8: rename it"
    return ""


def _from_folder(data: Path, finds: _Finds) -> None:
    try:
        next(data.iterdir(), None)
    except OSError as error:
        raise DataError(f"can't read {printable(str(data))}: {error.strerror}") from error
    top = list(_entries(data, "", finds))
    if not top and not finds.skipped:
        raise DataError(f"{printable(str(data))} is empty: expected one folder of photos for each class")
    if top and not any(entry.folder for entry in top):
        raise DataError(
            f"no class folders in {printable(str(data))}, only {len(top)} {_plural('file', len(top))}: "
            "put the photos of each class into a folder of its own"
        )
    if _has_parts(top):
        _from_parts(top, finds)
    else:
        _from_classes(top, "", finds)


def _has_parts(top: list[_Entry]) -> bool:
    """Whether these are train/ and its kin, and not classes of which one happens to be called "train" (or "test")."""
    names = {entry.name.lower() for entry in top if entry.folder}
    if "train" not in names or (len(names) > 1 and not (names & SPLITS.keys()) - {"train"}):
        return False
    trains = [entry for entry in top if entry.folder and entry.name.lower() == "train"]
    return any(inner.folder for entry in trains for inner in _entries(entry.file, entry.path, _Finds()))


def _from_parts(top: list[_Entry], finds: _Finds) -> None:
    for entry in top:
        part = SPLITS.get(entry.name.lower())
        if not entry.folder:
            finds.skip(entry.path, "not in a class folder")
        elif part is None:
            finds.skip(entry.path, "folder is none of train, validation, test")
        else:
            _from_classes(list(_entries(entry.file, entry.path, finds)), part, finds)


def _from_classes(entries: list[_Entry], part: str, finds: _Finds) -> None:
    for entry in entries:
        if not entry.folder:
            finds.skip(entry.path, "not in a class folder")
            continue
        before = len(finds.candidates)
        label = unicodedata.normalize("NFC", entry.name)  # macOS writes "é" as two characters, others as one
        for file in _walk(entry, finds):
            finds.add(file, label, part)
        if len(finds.candidates) == before:
            finds.skip(entry.path, "class folder holds no photos")


def _walk(top: _Entry, finds: _Finds) -> Iterator[_Entry]:
    """All files below a class folder. A folder is entered once, by its identity on the disk, so links can't loop."""
    seen = {top.identity}
    for parent in {*top.file.absolute().parents, *top.file.resolve().parents}:  # a link to "/" is not to be followed
        with suppress(OSError):
            seen.add((parent.stat().st_dev, parent.stat().st_ino))
    stack = [top]
    while stack:
        folder = stack.pop()
        for entry in _entries(folder.file, folder.path, finds):
            if not entry.folder:
                yield entry
            elif entry.identity in seen:
                finds.skip(entry.path, "a link to a folder that is read already, or that holds it")
            else:
                seen.add(entry.identity)
                stack.append(entry)


# --- CSV -------------------------------------------------------------------------------------------------------------


def _rows(path: Path, needed: list[str]) -> list[tuple[int, dict[str, str]]]:
    """(line number, column -> value) of each row that isn't blank; column names in lower case."""
    shown = printable(str(path))
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{shown} is not UTF-8 (byte {error.start}): save it as CSV UTF-8") from error
    except OSError as error:
        raise DataError(f"can't read {shown}: {error.strerror}") from error
    lines = csv.reader(io.StringIO(text, newline=""))
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        header = [name.strip().lower() for name in next(lines, [])]
        _check_header(shown, header, needed)
        for row in lines:
            if len(row) > len(header):
                raise DataError(
                    f"{shown} line {lines.line_num}: {len(row)} fields, expected {len(header)}; "
                    "a value with a comma needs quotes"
                )
            if any(value.strip() for value in row):
                rows.append((lines.line_num, dict.fromkeys(header, "") | dict(zip(header, row, strict=False))))
    except csv.Error as error:
        raise DataError(f"{shown} line {lines.line_num}: {error}") from error
    return rows


def _check_header(shown: str, header: list[str], needed: list[str]) -> None:
    if set(needed) <= set(header) and len(set(header)) == len(header):
        return
    came = printable(",".join(header)) or "nothing"
    hint = "; separate with commas" if len(header) == 1 and (";" in came or "\\t" in came) else ""
    raise DataError(
        f"{shown}: the first line must name the columns path,label[,split][,group], each once; it is: {came}{hint}"
    )


def _from_csv(table: Path, finds: _Finds) -> None:
    rows = _rows(table, ["path", "label"])
    if not rows:
        raise DataError(f"{printable(str(table))} is empty: expected a line for each photo (path,label)")
    listed: set[tuple[str, str]] = set()
    splits = [_split_of(table, line, row) for line, row in rows]
    for (line, row), split in zip(rows, splits, strict=True):
        if bool(split) != bool(splits[0]):
            raise DataError(f"{printable(str(table))} line {line}: either every photo has a split or none has")
        path = row["path"].strip()
        label = unicodedata.normalize("NFC", row["label"].strip())
        group = unicodedata.normalize("NFC", row.get("group", "").strip())
        entry = _located(table.parent, path)
        if why := _row_fault(path, label, group, entry):
            finds.skip(path or f"line {line}", why)
        elif entry and (entry.path, label) in listed:
            finds.skip(entry.path, f"listed twice (again in line {line})")
        elif entry:
            listed.add((entry.path, label))
            finds.add(entry, label, split, group)


def _row_fault(path: str, label: str, group: str, entry: _Entry | None) -> str:
    if not path:
        return "no path"
    if entry is None:
        return "no such file"
    return _unusable(path) or _unusable(label) or _unusable(group) or ("" if label else "no label")


def _split_of(table: Path, line: int, row: dict[str, str]) -> str:
    value = row.get("split", "").strip().lower()
    if value and value not in SPLITS:
        known = ", ".join(SPLITS)
        raise DataError(f"{printable(str(table))} line {line}: split '{printable(value)}' is none of {known}")
    return SPLITS.get(value, "")


def _located(root: Path, path: str) -> _Entry | None:
    for spelling in (path, path.replace("\\", "/")):  # the second for tables from Windows
        file = Path(spelling)
        if file.is_absolute() and file.is_relative_to(root.absolute()):
            file = file.relative_to(root.absolute())
        try:
            return _Entry(file.name, file.as_posix(), root / file, (root / file).stat())
        except (OSError, ValueError):  # ValueError: a NUL in the path
            continue
    return None


# --- reading ---------------------------------------------------------------------------------------------------------


def _digested(root: Path, finds: _Finds) -> Manifest:
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(_digest, finds.candidates))
    photos = [result for result in results if isinstance(result, Photo)]
    photos.sort(key=lambda photo: (_place(photo.path), photo.label))
    return Manifest(root, photos, _in_order([*finds.skipped, *(r for r in results if isinstance(r, Skip))]))


def _digest(candidate: _Candidate) -> Photo | Skip:
    try:
        with candidate.file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > MAX_BYTES:
                return Skip(candidate.path, f"too large: {size / 1024**2:.0f} MiB, at most {MAX_BYTES // 1024**2} MiB")
            if not size:
                return Skip(candidate.path, "empty file")
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        return Skip(candidate.path, f"can't be read: {error.strerror}")
    return Photo(candidate.path, candidate.label, candidate.split, digest, candidate.group)


def _place(path: str) -> tuple[tuple[Any, str], ...]:
    return tuple(natural(part) for part in path.split("/"))


def _in_order(skips: Iterable[Skip]) -> list[Skip]:
    return sorted(skips, key=lambda skip: (_place(skip.path), skip.why))


# --- judging ---------------------------------------------------------------------------------------------------------


def _check(data: Path, manifest: Manifest, least_classes: int) -> None:
    shown = printable(str(data))
    classes = manifest.classes
    if not classes:
        first = manifest.skipped[0] if manifest.skipped else Skip("", "")
        count = len(manifest.skipped)
        raise DataError(f"no photos in {shown}: {count} skipped, the first is {first.path} ({first.why})")
    if len(classes) < least_classes:
        raise DataError(
            f"only one class in {shown}, '{printable(classes[0])}': expected at least {least_classes}, "
            f"each in a folder of its own (or with a label of its own in the CSV){_deeper(data, classes)}"
        )
    _check_parts(shown, manifest, least_classes)


def _deeper(data: Path, classes: list[str]) -> str:
    """A hint for folders packed into a folder of the same name, as archives often are."""
    inner = data / classes[0]
    if inner.is_dir() and sum(entry.folder for entry in _entries(inner, "", _Finds())) > 1:
        return f"; did you mean '{printable(str(inner))}'?"
    return ""


def _check_parts(shown: str, manifest: Manifest, least_classes: int) -> None:
    """Whatever is validated or tested must have been learnt."""
    learnt = {photo.label for photo in manifest.photos if photo.split in ("", "train")}
    if not learnt and least_classes > 1:
        raise DataError(f"no photo in {shown} is marked for training: expected train beside validation and test")
    strange = [name for name in manifest.classes if learnt and name not in learnt]
    if strange:
        where = {name: sorted({p.split for p in manifest.photos if p.label == name}) for name in strange}
        named = ", ".join(f"'{printable(name)}' (only in {' and '.join(where[name])})" for name in strange)
        raise DataError(
            f"{_plural('class', len(strange))} without photos in train: {named}; add some to train, or remove the class"
        )


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}es" if word.endswith("s") else f"{word}s"
