"""From a folder, table, archive or data set to the list of its photos.

`scan` takes:

- a folder of class folders (``roses/…``, ``tulips/…``); photos may lie in subfolders, the top folder names the class
- ``train/`` beside ``validation|val|valid/`` and/or ``test/`` (any case), each holding class folders
- a table (`tables`): CSV, tab-separated, JSON lines or Parquet, with the columns ``path,label`` and optionally
  ``split`` and ``group``; paths relative to its folder, or absolute
- a folder of photos with such a table in it, called ``metadata.csv``, ``.jsonl`` or ``.parquet`` (``file_name,label``)
- an archive of any of these (`archives`): zip or tar
- a data set saved by Hugging Face's `datasets`, or Parquet files with the photos in them (`hf_datasets`)

The last two are unpacked once, into the cache folder (`unpacking`), and read from there.

Whether a file is a photo is decided by its content when it is decoded (`decoding`), not by its name. Here a file is
left out only when it can't be one (empty, huge, unreadable, not a regular file). Hidden files and those of operating
systems (``Thumbs.db``, ``desktop.ini``, ``__MACOSX``) are passed over in silence; all others that are left out are
listed in `Manifest.skipped`.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from frostline.errors import DataError, FrostlineError
from frostline.photos import archives, hf_datasets, tables, unpacking
from frostline.photos.decoding import too_large
from frostline.photos.manifest import Manifest, Photo, Skip, in_order, place_of
from frostline.photos.names import is_litter, natural, printable, unusable
from frostline.progress import Progress

SPLITS = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}
"""Names of split folders and of values in a table's split column (in lower case) -> the part they mean."""

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Tables with the labels of the photos in their folder, as Hugging Face's image folders have them."""

_WEB = re.compile(r"(https?|s3|gs|ftp)://", re.IGNORECASE)


def scan(
    data: Path,
    *,
    least_classes: int = 2,
    progress: Progress | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Manifest:
    """List the photos of a folder, a table, an archive or a saved data set, with their digests.

    Reads every file once, in two threads (about 1 GB/s when the files are in the system's cache).

    Parameters
    ----------
    least_classes
        1 for photos that are only tested on.
    progress
        Shows what is unpacked; None: silent.
    stopped
        Once it returns true no more files are read, and CancelledError is raised.

    Raises
    ------
    DataError
        No such file or folder; none of the kinds; empty; no class folders; fewer classes than `least_classes`; a class
        that is only in validation or test; columns or splits that are missing or unknown; an archive that can't be
        unpacked.
    RunError
        The cache folder has no room for the photos of an archive, or can't be written.
    MissingExtraError
        A Parquet file or a saved data set, and the extra `datasets` is not installed.
    """
    data = Path(data)
    mode = _mode(data)
    finds = _Finds()
    root, packed = data, None
    if found := _packed(data, mode):
        packed = data
        root, left = unpacking.folder(found, progress or Progress(quiet=True))
        for path, why in left:
            finds.skip(path or data.name, why)
        root = _lone_folder(root)
        finds.confined = True
    if stat.S_ISREG(mode) and not packed:
        root = data.parent
        _from_table(data, finds)
    elif isinstance(found, hf_datasets.SavedDataset):
        _from_table(root / hf_datasets.TABLE, finds)
    else:
        _from_folder(root, finds, data)
    manifest = _digested(root, finds, packed, stopped)
    _check(data, manifest, least_classes)
    return manifest


def _packed(data: Path, mode: int) -> unpacking.Packed | None:
    """What has to be unpacked first; None for a folder or a table."""
    if stat.S_ISDIR(mode):
        return hf_datasets.SavedDataset(data) if hf_datasets.is_saved(data) else None
    suffix = data.suffix.lower()
    if stat.S_ISREG(mode):
        if suffix == ".parquet":
            return hf_datasets.SavedDataset(data) if hf_datasets.holds_photos(data) else None
        if suffix in tables.SUFFIXES:
            return None
        if archives.is_archive(data):
            return archives.Archive(data)
    raise DataError(
        f"{printable(str(data))} is not a set of photos that frostline reads: give a folder of class folders, "
        "a table (.csv, .tsv, .jsonl, .parquet), an archive (.zip, .tar, .tar.gz) "
        "or a data set saved by Hugging Face's datasets"
    )


def _lone_folder(root: Path) -> Path:
    """The inner folder where an archive has all in one, as many do: flowers.zip -> flowers/ -> daisy/, ..."""
    while True:
        entries = list(_entries(root, "", _Finds()))
        if len(entries) != 1 or not entries[0].folder or _has_parts(entries):
            return root
        inner = list(_entries(entries[0].file, "", _Finds()))
        if not any(entry.folder for entry in inner) and not any(entry.name.lower() in METADATA for entry in inner):
            return root
        root = entries[0].file


def restore(dataset: Mapping[str, object]) -> None:
    """Unpack photos of a run again that the cache no longer holds, for its report. `dataset`: as its study.json has it.

    Silent where that can't be done: a report has placeholders for photos that are not there.
    """
    for kind in ("", "test_"):
        root, source = dataset.get(f"{kind}root"), dataset.get(f"{kind}source")
        if isinstance(root, str) and isinstance(source, str) and root != source and not Path(root).exists():
            with suppress(FrostlineError):
                scan(Path(source), least_classes=1)


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
    """The files found so far, and those left out."""

    candidates: list[_Candidate] = field(default_factory=list)
    skipped: list[Skip] = field(default_factory=list)
    confined: bool = False  # a table that came in an archive may only name files that came with it

    def skip(self, path: str, why: str) -> None:
        self.skipped.append(Skip(printable(path), why))

    def add(self, entry: _Entry, label: str, split: str, group: str = "") -> None:
        if stat.S_ISREG(entry.status.st_mode):
            self.candidates.append(_Candidate(entry.file, entry.path, label, split, group))
        else:  # opening a pipe would wait for ever
            self.skip(entry.path, "not a regular file")


def _mode(data: Path) -> int:
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
        raise DataError(f"no such file or folder: '{shown}'{hint}") from error


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
        if why := unusable(name):
            finds.skip(inner, why)
            continue
        try:
            yield _Entry(name, inner, file, file.stat())
        except OSError as error:
            finds.skip(inner, "broken link" if file.is_symlink() else f"can't be read: {error.strerror}")


def _from_folder(root: Path, finds: _Finds, named: Path) -> None:
    """`named`: the path that the user gave, for messages."""
    shown = printable(str(named))
    try:
        next(root.iterdir(), None)
    except OSError as error:
        raise DataError(f"can't read {shown}: {error.strerror}") from error
    top = list(_entries(root, "", finds))
    if not top and not finds.skipped:
        raise DataError(f"{shown} is empty: expected one folder of photos for each class")
    if table := _metadata(top):
        _from_table(table.file, finds)
    elif _has_parts(top):
        _from_parts(top, finds)
    elif top and not any(entry.folder for entry in top):
        raise DataError(
            f"no class folders in {shown}, only {len(top)} {_plural('file', len(top))}: "
            "put the photos of each class into a folder of its own"
        )
    else:
        _from_classes(top, "", finds)


def _metadata(entries: list[_Entry]) -> _Entry | None:
    """The table with the labels of a folder's photos, if there is one. A table of captions alone is none."""
    for entry in entries:
        if entry.name.lower() in METADATA and not entry.folder and {"path", "label"} <= tables.columns(entry.file):
            return entry
    return None


def _has_parts(top: list[_Entry]) -> bool:
    """Whether these are the folders train, validation, test, and not classes of which one is called "train"."""
    names = {entry.name.lower() for entry in top if entry.folder}
    if "train" not in names or (len(names) > 1 and not (names & SPLITS.keys()) - {"train"}):
        return False
    trains = [entry for entry in top if entry.folder and entry.name.lower() == "train"]
    inner = [inner for entry in trains for inner in _entries(entry.file, entry.path, _Finds())]
    return any(entry.folder for entry in inner) or _metadata(inner) is not None


def _from_parts(top: list[_Entry], finds: _Finds) -> None:
    for entry in top:
        part = SPLITS.get(entry.name.lower())
        if not entry.folder:
            finds.skip(entry.path, "not in a class folder")
        elif part is None:
            finds.skip(entry.path, "folder is none of train, validation, test")
        else:
            inner = list(_entries(entry.file, entry.path, finds))
            if table := _metadata(inner):
                _from_table(table.file, finds, entry.path, part)
            else:
                _from_classes(inner, part, finds)


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


def _from_table(table: Path, finds: _Finds, folder: str = "", part: str = "") -> None:
    """The photos that a table lists. `folder`: its place in the data set; `part`: the part that this folder is."""
    rows = tables.rows(table, ["path", "label"])
    if not rows:
        raise DataError(f"{printable(str(table))} is empty: expected a line for each photo (path,label)")
    listed: set[tuple[str, str]] = set()
    splits = [part or _split_of(table, line, row, finds) for line, row in rows]
    some = next((split for split in splits if split is not None), "")
    for (line, row), split in zip(rows, splits, strict=True):
        if split is None:
            continue
        if bool(split) != bool(some):
            raise DataError(f"{printable(str(table))} line {line}: either every photo has a split or none has")
        path, label, group = (unicodedata.normalize("NFC", row.get(k, "").strip()) for k in ("path", "label", "group"))
        path = row["path"].strip()
        entry = _located(table.parent, path, folder)
        if why := _row_fault(path, label, group, entry, finds.confined):
            finds.skip(f"{folder}/{path}" if folder and path else path or f"line {line}", why)
        elif entry and (entry.path, label) in listed:
            finds.skip(entry.path, f"listed twice (again in line {line})")
        elif entry:
            listed.add((entry.path, label))
            finds.add(entry, label, split, group)


def _row_fault(path: str, label: str, group: str, entry: _Entry | None, confined: bool) -> str:
    if not path:
        return "no path"
    if entry is None:
        return "a web address: fetch the photos and give their paths" if _WEB.match(path) else "no such file"
    if confined and (PurePosixPath(entry.path).is_absolute() or ".." in entry.path.split("/")):
        return "its path leads out of the archive"
    return unusable(path) or unusable(label) or unusable(group) or ("" if label else "no label")


def _split_of(table: Path, line: int, row: dict[str, str], finds: _Finds) -> str | None:
    """The part that a row is put in, "" for none; None: a saved data set's own split, which is no part here."""
    value = row.get("split", "").strip().lower()
    if value in SPLITS or not value:
        return SPLITS.get(value, "")
    if table.name == hf_datasets.TABLE and finds.confined:
        finds.skip(row["path"], f"split '{printable(value)}' is none of train, validation, test")
        return None
    raise DataError(f"{printable(str(table))} line {line}: split '{printable(value)}' is none of {', '.join(SPLITS)}")


def _located(root: Path, path: str, folder: str) -> _Entry | None:
    """The file that a table's path means; from Windows, as a link (file://) and with escapes (%20) too."""
    plain = path.removeprefix("file://")
    for spelling in dict.fromkeys((path, plain, plain.replace("\\", "/"), unquote(plain))):
        file = Path(spelling)
        if file.is_absolute() and file.is_relative_to(root.absolute()):
            file = file.relative_to(root.absolute())
        shown = file.as_posix() if file.is_absolute() or not folder else f"{folder}/{file.as_posix()}"
        try:
            return _Entry(file.name, shown, root / file, (root / file).stat())
        except (OSError, ValueError):  # ValueError: a NUL in the path
            continue
    return None


def _digested(root: Path, finds: _Finds, packed: Path | None, stopped: Callable[[], bool]) -> Manifest:
    def digest(candidate: _Candidate) -> Photo | Skip:
        if stopped():
            raise CancelledError
        return _digest(candidate)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(digest, finds.candidates))
    photos = [result for result in results if isinstance(result, Photo)]
    photos.sort(key=lambda photo: (place_of(photo.path), photo.label))
    skipped = in_order([*finds.skipped, *(result for result in results if isinstance(result, Skip))])
    return Manifest(root, photos, skipped, packed)


def _digest(candidate: _Candidate) -> Photo | Skip:
    try:
        with candidate.file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if why := too_large(size):
                return Skip(candidate.path, why)
            if not size:
                return Skip(candidate.path, "empty file")
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        return Skip(candidate.path, f"can't be read: {error.strerror}")
    return Photo(candidate.path, candidate.label, candidate.split, digest, candidate.group)


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
            f"each in a folder of its own (or with a label of its own in the table){_deeper(data, classes)}"
        )
    _check_parts(shown, manifest, least_classes)


def _deeper(data: Path, classes: list[str]) -> str:
    """A hint for folders packed into a folder of the same name, as archives often are."""
    inner = data / classes[0]
    if inner.is_dir() and sum(entry.folder for entry in _entries(inner, "", _Finds())) > 1:
        return f"; did you mean '{printable(str(inner))}'?"
    return ""


def _check_parts(shown: str, manifest: Manifest, least_classes: int) -> None:
    """Every class in validation or test must have photos to train on."""
    trained = {photo.label for photo in manifest.photos if photo.split in ("", "train")}
    if not trained and least_classes > 1:
        raise DataError(f"no photo in {shown} is marked for training: expected train beside validation and test")
    strange = [name for name in manifest.classes if trained and name not in trained]
    if strange:
        where = {name: sorted({p.split for p in manifest.photos if p.label == name}) for name in strange}
        named = ", ".join(f"'{printable(name)}' (only in {' and '.join(where[name])})" for name in strange)
        raise DataError(
            f"{_plural('class', len(strange))} without photos in train: {named}; add some to train, or remove the class"
        )


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}es" if word.endswith("s") else f"{word}s"
