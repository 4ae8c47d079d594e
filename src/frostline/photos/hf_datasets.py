"""Photos that lie as bytes in a table: data sets that Hugging Face's `datasets` saved (`save_to_disk`), and Parquet files of the same form,
alone or in a folder as the hub has them (``data/train-00000-of-00001.parquet``, ``data/test-...``).

Read with pyarrow alone, row by row: `datasets` itself is not needed. The photo is the column that the file's own notes call an
image, else `image`, `img` or `photo`, with the bytes or with ``{bytes, path}``. The label is the column `label`, `labels` or
`class`, else the one that those notes call class labels (numbers with names). A `group` column counts as in any table. Saved
splits (train, validation, test) are kept.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from frostline.errors import DataError
from frostline.files import sha256
from frostline.photos import tables
from frostline.photos.decoding import MAX_BYTES
from frostline.photos.names import is_litter, natural, printable, unusable
from frostline.progress import Progress

TABLE = "manifest.csv"
"""What `Saved.unpack` writes beside the photos: path,label,split,group."""

_STATE, _INFO, _SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
_PHOTOS = ("image", "img", "photo")
_LABELS = ("label", "labels", "class")
_BATCH = 16  # rows of a Parquet file at a time
MAX_RATIO = 100
_FREE = 1_000_000_000  # bytes below which no ratio is looked at


def is_saved(folder: Path) -> bool:
    """Whether a folder holds rows in place of photos: `save_to_disk` wrote it, or all that lies in it is Parquet files."""
    try:
        if (folder / _SPLITS).is_file() or all((folder / name).is_file() for name in (_STATE, _INFO)):
            return True
        return bool(_parquets(folder))
    except OSError:
        return False


def _parquets(folder: Path) -> list[Path]:
    """The Parquet files of a folder, or of its only folder, ``data``, where there is nothing else; else none."""
    names = [name for name in os.listdir(folder) if not is_litter(name)]  # noqa: PTH208 - a folder may hold 100,000 names
    if names == ["data"] and (folder / "data").is_dir():
        return _parquets(folder / "data")
    if not names or not all(name.lower().endswith(".parquet") for name in names):
        return []
    return [folder / name for name in sorted(names, key=natural)]


def holds_photos(path: Path) -> bool:
    """Whether a Parquet file has a column of photos, as bytes. Raises DataError or MissingExtraError, as `tables.open_parquet` does."""
    return _image_column(tables.open_parquet(path).schema_arrow) != ""


@dataclass(frozen=True)
class _Part:
    """A file of rows, and the part of the data set that it belongs to."""

    file: Path
    split: str


@dataclass(frozen=True)
class _Columns:
    photo: str
    label: str
    names: list[str]  # of the classes, where the labels are numbers
    group: str
    split: str


class Saved:
    """A folder that `save_to_disk` wrote, or a Parquet file with photos in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        tables.arrow("data sets of photos")

    @property
    def name(self) -> str:
        """The folder's or file's name."""
        return printable(self.path.resolve().name)

    def digest(self) -> str:
        """Of all files of rows, and of the splits' names."""
        whole = hashlib.sha256()
        for part in self._parts:
            try:
                whole.update(f"{part.split}\0{sha256(part.file)}\0".encode())
            except OSError as error:
                raise DataError(f"can't read {printable(str(part.file))}: {error.strerror}") from error
        return whole.hexdigest()

    def size(self) -> int:
        """Bytes of the files of rows: photos hardly shrink."""
        return sum(part.file.stat().st_size for part in self._parts)

    def unpack(self, folder: Path, progress: Progress) -> list[tuple[str, str]]:
        """Write the photos and `TABLE` into `folder`; returns the rows left out: (which, why).

        Raises DataError when a file can't be read, or has no column of photos or labels.
        """
        left: list[tuple[str, str]] = []
        written, most = 0, max(_FREE, MAX_RATIO * self.size())
        with (folder / TABLE).open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["path", "label", "split", "group"])
            for number, (split, row) in enumerate(self._all(progress), 1):
                data, name = self._photo(row["photo"])
                if fault := _fault(data, name, row["label"], row["group"]):
                    left.append((f"{split} row {number}".strip(), fault))
                    continue
                written += len(data)
                if written > most:  # a dictionary can name one value a billion times
                    raise DataError(
                        f"{self.name} unpacks to over {most / 1e9:,.0f} GB: a bomb, since photos don't shrink"
                    )
                path = f"{number // 1000:04d}/{number:07d} {_plain(name)}"
                (folder / path).parent.mkdir(exist_ok=True)
                (folder / path).write_bytes(data)
                table.writerow([path, row["label"], split or row["split"], row["group"]])
        return left

    def _all(self, progress: Progress) -> Iterator[tuple[str, dict[str, Any]]]:
        """(part, row) of every file."""
        task = progress.task(f"Unpacking {self.name}", sum(_count(part.file) for part in self._parts))
        try:
            for part in self._parts:
                for row in _rows(part.file):
                    task.advance(1)
                    yield part.split, row
        finally:
            task.finish()

    @cached_property
    def _parts(self) -> list[_Part]:
        if self.path.is_file():
            return [_Part(self.path, "")]
        if files := _parquets(self.path):
            return [_Part(file, _split_in(file.name)) for file in files]
        if not (self.path / _SPLITS).is_file():
            return [_Part(file, "") for file in _files(self.path)]
        names = _json(self.path / _SPLITS).get("splits", [])
        return [_Part(file, str(name)) for name in names for file in _files(self.path / _inside(self.path, name))]

    def _photo(self, value: Any) -> tuple[bytes, str]:
        """The bytes and the name of one photo; b"" where there are none."""
        if isinstance(value, bytes):
            return value, ""
        if not isinstance(value, dict):
            return b"", ""
        data, name = value.get("bytes"), str(value.get("path") or "")
        if data is None and name:  # photos that were saved by their path alone
            file = (self.path if self.path.is_dir() else self.path.parent) / name
            try:
                data = file.read_bytes() if file.is_file() and file.stat().st_size <= MAX_BYTES else None
            except (OSError, ValueError):
                data = None
        return data or b"", name


def _split_in(name: str) -> str:
    """The split that a Parquet file of the hub is named after: "train-00000-of-00002.parquet"."""
    found = re.match(r"(train|validation|valid|val|test)\b", name.lower())
    return found[1] if found else ""


def _fault(data: bytes, name: str, label: str, group: str) -> str:
    if not data:
        return f"no bytes, and no such file: {printable(name)}" if name else "no photo"
    if len(data) > MAX_BYTES:
        return f"too large: {len(data) / 1024**2:.0f} MiB, at most {MAX_BYTES // 1024**2} MiB"
    return unusable(label) or unusable(group) or ("" if label.strip() else "no label")


def _plain(name: str) -> str:
    """The last part of a path, for a file name on any system."""
    base = PurePosixPath(name.replace("\\", "/")).name
    return re.sub(r"[^\w.\- ]", "_", base, flags=re.ASCII)[-80:].strip() or "photo"


# --- files -----------------------------------------------------------------------------------------------------------


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{printable(str(path))} can't be read: {tables.one_line(error)}; save the data set again"
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"{printable(str(path))} holds no object: save the data set again")
    return value


def _inside(folder: Path, name: object) -> str:
    """A file's or folder's plain name, as the data set's own notes give it."""
    if not isinstance(name, str) or not name or name in (".", "..") or re.search(r"[/\\\0]", name):
        raise DataError(
            f"{printable(str(folder))} names a file '{printable(str(name))}' outside it: save the data set again"
        )
    return name


def _files(folder: Path) -> list[Path]:
    """The files of rows of one saved data set, in order."""
    state = _json(folder / _STATE)
    if state.get("_indices_data_files"):
        raise DataError(f"{printable(str(folder))} was saved with an index: call flatten_indices() and save it again")
    listed = state.get("_data_files")
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise DataError(f"{printable(str(folder / _STATE))} names no files: save the data set again")
    return [folder / _inside(folder, entry.get("filename")) for entry in listed]


# --- rows ------------------------------------------------------------------------------------------------------------


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """{photo, label, group, split} of each row; the label is its class's name, "" where it has none."""
    pyarrow = tables.arrow("data sets of photos")
    try:
        if path.suffix.lower() == ".parquet":
            file = tables.open_parquet(path)
            columns = _columns(path, file.schema_arrow)
            wanted = [name for name in (columns.photo, columns.label, columns.group, columns.split) if name]
            for batch in file.iter_batches(_BATCH, columns=wanted):
                yield from _of_batch(batch, columns)
            return
        with pyarrow.memory_map(str(path)) as source, pyarrow.ipc.open_stream(source) as stream:
            columns = _columns(path, stream.schema)
            for batch in stream:
                yield from _of_batch(batch, columns)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{printable(str(path))} can't be read: {tables.one_line(error)}; save the data set again"
        ) from error


def _count(path: Path) -> int:
    """How many rows a file has."""
    pyarrow = tables.arrow("data sets of photos")
    if path.suffix.lower() == ".parquet":
        return int(tables.open_parquet(path).metadata.num_rows)
    try:
        with pyarrow.memory_map(str(path)) as source, pyarrow.ipc.open_stream(source) as stream:
            return sum(batch.num_rows for batch in stream)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{printable(str(path))} can't be read: {tables.one_line(error)}; save the data set again"
        ) from error


def _of_batch(batch: Any, columns: _Columns) -> Iterator[dict[str, Any]]:
    batch.validate(full=True)  # pyarrow would follow a damaged offset to wherever it leads
    photos, labels = batch.column(columns.photo), batch.column(columns.label)
    others = {
        key: batch.column(name) if name else None for key, name in (("group", columns.group), ("split", columns.split))
    }
    for i in range(batch.num_rows):
        row = {key: "" if column is None else tables.words(column[i].as_py()) for key, column in others.items()}
        yield {"photo": photos[i].as_py(), "label": _named(labels[i].as_py(), columns.names), **row}


def _named(value: object, names: list[str]) -> str:
    if isinstance(value, int) and names:
        return names[value] if 0 <= value < len(names) else ""  # -1 is how `datasets` says that a label is not known
    return tables.words(value)


def _columns(path: Path, schema: Any) -> _Columns:
    shown = printable(str(path))
    features = _features(schema)
    photo = _image_column(schema)
    came = printable(", ".join(schema.names)) or "no columns"
    if not photo:
        raise DataError(f"{shown} has no column of photos (image, with their bytes); it has: {came}")
    classes = [name for name, about in features.items() if about.get("_type") == "ClassLabel" and name in schema.names]
    label = next((name for name in [*_LABELS, *classes] if name in schema.names), "")
    if not label:
        raise DataError(f"{shown} has no column of labels ({', '.join(_LABELS)}); it has: {came}")
    names = features.get(label, {}).get("names")
    plain = [str(name) for name in names] if isinstance(names, list) else []
    also = (name if name in schema.names else "" for name in ("group", "split"))
    return _Columns(photo, label, plain, *also)


def _image_column(schema: Any) -> str:
    """The column of photos; "" when there is none."""
    features = _features(schema)
    noted = [name for name, about in features.items() if about.get("_type") == "Image"]
    known = [name for name in [*noted, *_PHOTOS] if name in schema.names and _may_hold_bytes(schema.field(name).type)]
    return known[0] if known else ""


def _may_hold_bytes(kind: Any) -> bool:
    text = str(kind)
    return text in ("binary", "large_binary") or (text.startswith("struct<") and "bytes: " in text)


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """What `datasets` notes about its columns inside the file; {} where another program wrote it."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: about for name, about in features.items() if isinstance(about, dict)}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
