"""Photos stored as rows: data sets that Hugging Face's `datasets` saved (`save_to_disk`), and Parquet files with photos
in them, alone or in a folder as the hub has them (``data/train-00000-of-00001.parquet``, ``data/test-...``).

The photo is the column with the feature `Image`, else `image`, `img` or `photo` with the file's bytes or ``{bytes,
path}``. The label is the column `label`, `labels` or `class`, else the one with the feature `ClassLabel`. A `group`
column counts as in any table. Saved splits (train, validation, test) are kept.

`datasets` (an extra) is imported only when there are rows to unpack. It opens one local file at a time
(`Dataset.from_file`). `load_dataset` would count the load over the network and write into the home folder, and
`load_from_disk` reads paths as URLs.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from frostline.errors import DataError, FrostlineError, MissingExtraError, one_line
from frostline.files import sha256
from frostline.photos import tables
from frostline.photos.decoding import too_large
from frostline.photos.loading import raw
from frostline.photos.names import is_litter, natural, printable, unusable
from frostline.progress import Progress

if TYPE_CHECKING:
    from datasets import Features

TABLE = "manifest.csv"
"""What `SavedDataset.unpack` writes beside the photos: path,label,split,group."""

MAX_RATIO = 100
"""A data set of over a gigabyte of photos may hold so many times its own bytes, no more."""

_STATE, _INFO, _SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
_PHOTOS = ("image", "img", "photo")
_LABELS = ("label", "labels", "class")
_BYTES = ("binary", "large_binary")
_BATCH = 16  # rows in memory at a time: photos are large
_FREE = 1_000_000_000  # bytes below which no ratio is looked at


def is_saved(folder: Path) -> bool:
    """Whether a folder holds rows in place of photos: `save_to_disk` wrote it, or it holds Parquet files only."""
    try:
        if (folder / _SPLITS).is_file() or all((folder / name).is_file() for name in (_STATE, _INFO)):
            return True
        return bool(_parquets(folder))
    except OSError:
        return False


def holds_photos(path: Path) -> bool:
    """Whether a Parquet file has a column of photos, as bytes. Raises DataError or MissingExtraError."""
    schema = tables.open_parquet(path).schema_arrow
    if not any("binary" in str(column.type) for column in schema):  # no bytes: spares the import of `datasets` (2 s)
        return False
    with _read_errors(path):
        return _photo_column(_datasets().Features.from_arrow_schema(schema)) != ""


class SavedDataset:
    """A folder that `save_to_disk` wrote, a Parquet file with photos in it, or a folder of such files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """The folder's or file's name."""
        return printable(self.path.resolve().name)

    def digest(self) -> str:
        """64 hex digits, of all files of rows and of the splits' names. Raises DataError when a file can't be read."""
        whole = hashlib.sha256()
        for split, file in self._files:
            with _read_errors(file):
                whole.update(f"{split}\0{sha256(file)}\0".encode())
        return whole.hexdigest()

    def size(self) -> int:
        """Bytes of the files of rows: photos hardly shrink."""
        return sum(file.stat().st_size for _, file in self._files)

    def unpack(self, folder: Path, progress: Progress) -> list[tuple[str, str]]:
        """Write the photos and `TABLE` into `folder`; returns the rows left out: (which, why).

        Raises
        ------
        DataError
            A file can't be read, has no column of photos or labels, or unpacks to over `MAX_RATIO` times its size.
        MissingExtraError
            `datasets` is not installed.
        """
        left: list[tuple[str, str]] = []
        written, most = 0, max(_FREE, MAX_RATIO * self.size())
        with (folder / TABLE).open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["path", "label", "split", "group"])
            for number, (split, row) in enumerate(self._rows(progress), 1):
                data = self._bytes(row)
                if fault := _fault(data, row):
                    left.append((f"{split} row {number}".strip(), fault))
                    continue
                written += len(data)
                if written > most:  # a dictionary can name one value a billion times
                    raise DataError(
                        f"{self.name} unpacks to over {most / 1e9:,.0f} GB: a bomb, since photos don't shrink"
                    )
                path = f"{number // 1000:04d}/{number:07d} {_file_name(row.path)}"
                (folder / path).parent.mkdir(exist_ok=True)
                (folder / path).write_bytes(data)
                table.writerow([path, row.label, split or row.split, row.group])
        return left

    def _rows(self, progress: Progress) -> Iterator[tuple[str, _Row]]:
        """(split by the file, row) of every file."""
        task = progress.task(f"Unpacking {self.name}", self.size(), unit="B")
        try:
            for split, file in self._files:
                for row in _rows(file):
                    task.advance(len(row.data or b""))
                    yield split, row
        finally:
            task.finish()

    @cached_property
    def _files(self) -> list[tuple[str, Path]]:
        """(split, file of rows); the split is "" where the file doesn't say it."""
        if self.path.is_file():
            return [("", self.path)]
        if files := _parquets(self.path):
            return [(_split_in(file.name), file) for file in files]
        if not (self.path / _SPLITS).is_file():
            return [("", file) for file in _arrow_files(self.path)]
        splits = _listed(self.path / _SPLITS, "splits")
        return [(str(name), file) for name in splits for file in _arrow_files(self.path / _inside(self.path, name))]

    def _bytes(self, row: _Row) -> bytes:
        """A row's photo; b"" where there is none."""
        if row.data is None and row.path:  # photos that were saved by their path alone
            found = raw((self.path if self.path.is_dir() else self.path.parent) / row.path)
            return found if isinstance(found, bytes) else b""
        return row.data or b""


def _fault(data: bytes, row: _Row) -> str:
    """Why a row is left out; "": it is not."""
    if not data:
        return f"no bytes, and no such file: {printable(row.path)}" if row.path else "no photo"
    return (
        too_large(len(data)) or unusable(row.label) or unusable(row.group) or ("" if row.label.strip() else "no label")
    )


def _file_name(path: str) -> str:
    """The last part of a path, for a file name on any system."""
    base = PurePosixPath(path.replace("\\", "/")).name
    return re.sub(r"[^\w.\- ]", "_", base, flags=re.ASCII)[-80:].strip() or "photo"


# --- files -----------------------------------------------------------------------------------------------------------


def _parquets(folder: Path) -> list[Path]:
    """The Parquet files of a folder, or of its only folder, ``data``, where there is nothing else; else none."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not is_litter(entry.name)]
    if names == ["data"] and (folder / "data").is_dir():
        return _parquets(folder / "data")
    if not names or not all(name.lower().endswith(".parquet") for name in names):
        return []
    return [folder / name for name in sorted(names, key=natural)]


def _split_in(name: str) -> str:
    """The split that a Parquet file of the hub is named after: "train-00000-of-00002.parquet"."""
    found = re.match(r"(train|validation|valid|val|test)\b", name.lower())
    return found[1] if found else ""


def _arrow_files(folder: Path) -> list[Path]:
    """The files of rows of one saved data set, in order, as its state.json lists them."""
    files = _listed(folder / _STATE, "_data_files")
    return [folder / _inside(folder, file.get("filename") if isinstance(file, dict) else file) for file in files]


def _listed(path: Path, key: str) -> list[object]:
    """The list at `key` of a JSON file that `save_to_disk` wrote."""
    with _read_errors(path):
        document = json.loads(path.read_text(encoding="utf-8"))
    listed = document.get(key) if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise DataError(f"{printable(str(path))} has no list '{key}': save the data set again")
    if document.get("_indices_data_files"):  # until version 1.6; read without it, the rows would be others
        raise DataError(f"{printable(str(path))} names an index: call flatten_indices() and save the data set again")
    return listed


def _inside(folder: Path, name: object) -> str:
    """The plain name of a file or folder, from the data set's own JSON. Raises DataError when it leads elsewhere."""
    if not isinstance(name, str) or not name or name in (".", "..") or re.search(r"[/\\\0]", name):
        shown = printable(str(folder))
        raise DataError(f"{shown} names a file '{printable(str(name))}' outside it: save the data set again")
    return name


# --- rows ------------------------------------------------------------------------------------------------------------


class _Row(NamedTuple):
    data: bytes | None
    path: str
    label: str  # the class's name
    group: str
    split: str


def _datasets() -> Any:
    """The package `datasets`. Raises MissingExtraError, with the pip line, when it is not there."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("datasets for data sets of photos", tables.EXTRA) from error
    return datasets


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Turn what `datasets`, pyarrow and json raise on damaged files (over ten kinds of exceptions) into a DataError."""
    try:
        yield
    except FrostlineError:
        raise
    except Exception as error:
        why = (error.strerror if isinstance(error, OSError) else None) or one_line(error)
        raise DataError(f"{printable(str(path))} can't be read: {why}; save the data set again") from error


def _rows(file: Path) -> Iterator[_Row]:
    """Each row of a file. Raises DataError."""
    datasets = _datasets()
    with _read_errors(file):
        if file.suffix.lower() == ".parquet":
            parquet = tables.open_parquet(file)
            features = datasets.Features.from_arrow_schema(parquet.schema_arrow)
            names = _columns(file, features)
            batches = parquet.iter_batches(_BATCH, columns=names)
        else:
            data = datasets.Dataset.from_file(str(file)).with_format("arrow")
            features, names = data.features, _columns(file, data.features)
            batches = data.select_columns(names).iter(_BATCH)
        photo, label = names[:2]
        classes = features[label].names if isinstance(features[label], datasets.ClassLabel) else None
        for batch in batches:
            batch.validate(full=True)  # pyarrow would follow a damaged offset to wherever it leads
            for row in batch.to_pylist():
                content = row[photo] if isinstance(row[photo], dict) else {"bytes": row[photo]}
                group, split = tables.words(row.get("group")), tables.words(row.get("split"))
                path = str(content.get("path") or "")
                yield _Row(content.get("bytes"), path, _class_name(row[label], classes), group, split)


def _class_name(label: object, classes: list[str] | None) -> str:
    if isinstance(label, int) and classes:
        return classes[label] if 0 <= label < len(classes) else ""  # -1: `datasets` has it for "not known"
    return tables.words(label)


def _columns(file: Path, features: Features) -> list[str]:
    """The columns to read: photo, label, then group and split if there. Raises DataError without the first two."""
    shown, came = printable(str(file)), printable(", ".join(features)) or "no columns"
    photo = _photo_column(features)
    if not photo:
        raise DataError(f"{shown} has no column of photos (image, with their bytes); it has: {came}")
    noted = [name for name, feature in features.items() if isinstance(feature, _datasets().ClassLabel)]
    label = next((name for name in [*_LABELS, *noted] if name in features), "")
    if not label:
        raise DataError(f"{shown} has no column of labels ({', '.join(_LABELS)}); it has: {came}")
    return list(dict.fromkeys([photo, label, *(name for name in ("group", "split") if name in features)]))


def _photo_column(features: Features) -> str:
    """The column of photos; "" when there is none."""
    noted = [name for name, feature in features.items() if isinstance(feature, _datasets().Image)]
    return next((name for name in [*noted, *_PHOTOS] if name in noted or _holds_bytes(features.get(name))), "")


def _holds_bytes(feature: object) -> bool:
    return "bytes" in feature if isinstance(feature, dict) else getattr(feature, "dtype", "") in _BYTES
