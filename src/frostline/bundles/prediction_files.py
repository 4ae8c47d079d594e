"""What `frostline predict` writes: CSV, JSON lines or Parquet, row by row, so that a stopped run goes on where it was.

The file appears whole at the end. Until then its rows stand beside it in NAME.part, each on the disk as soon as it is
known, as text in all three formats (Parquet is made of it at the end): a killed process loses one row at most, the
one it was writing, and `resume` drops that.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from frostline.bundles.bundle import Bundle
from frostline.bundles.predict import Prior, predict
from frostline.errors import ConfigError, DataError, MissingExtraError, RunError
from frostline.files import disk_errors, replacing
from frostline.photos.names import printable
from frostline.stats import predictions
from frostline.stats.predictions import Prediction

SUFFIXES = (".csv", ".jsonl", ".parquet")
_GROUP = 10_000  # rows that Parquet takes at a time
_SAME = 2e-3  # confidences that two engines give one photo differ less

Cells = dict[str, Any]


@dataclass(frozen=True)
class RowFormat:
    """What a row holds."""

    classes: Sequence[str]
    top: int = 0
    """So many of the likeliest classes, each with its probability; 0: none."""
    threshold: float | None = None
    """Answers of less confidence are unsure; None: nothing is said of that."""

    def __post_init__(self) -> None:
        if not 0 <= self.top <= len(self.classes):
            raise ConfigError(
                f"top {self.top}: the bundle knows {len(self.classes)} classes; expected 1 to {len(self.classes)}"
            )
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold {self.threshold:g}: expected a confidence, 0 to 1")

    def columns(self) -> list[str]:
        """path, true, predicted, confidence and p_<class>..., then what was asked for on top."""
        tops = [name for k in range(1, self.top + 1) for name in (f"top{k}", f"top{k}_confidence")]
        return [*predictions.header(self.classes), *(["unsure"] if self.threshold is not None else []), *tops]

    def cells(self, result: Prediction) -> Cells:
        """A row of a table, as text; `columns` tells the order."""
        row = predictions.row(replace(result, path=storable(result.path)))
        if self.threshold is not None:
            row.append("true" if result.confidence < self.threshold else "false")
        for name, share in self._likeliest(result):
            row += [name, f"{share:.{predictions.DIGITS}f}"]
        return dict(zip(self.columns(), row, strict=True))

    def nested(self, result: Prediction) -> Cells:
        """An object of JSON lines."""
        row = {**asdict(result), "path": storable(result.path)}
        if self.threshold is not None:
            row["unsure"] = result.confidence < self.threshold
        if self.top:
            row["top"] = [{"class": name, "confidence": share} for name, share in self._likeliest(result)]
        return row

    def _likeliest(self, result: Prediction) -> list[tuple[str, float]]:
        return sorted(result.probabilities.items(), key=lambda item: -item[1])[: self.top]


def storable(path: str) -> str:
    """`path`, or where UTF-8 or a CSV reader would stumble over it (a carriage return), its escaped form."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return printable(path)
    return printable(path) if "\r" in path else path


class RowWriter:
    """Where rows go."""

    def __init__(self, stream: Any, form: RowFormat, *, nested: bool, begun: bool = False) -> None:
        self._stream, self._form, self._nested = stream, form, nested
        self._table = csv.writer(stream, lineterminator="\n")
        if not nested and not begun:
            self._table.writerow(form.columns())

    def write(self, result: Prediction) -> None:
        """One more row."""
        if self._nested:
            self._stream.write(json.dumps(self._form.nested(result), ensure_ascii=False) + "\n")
        else:
            self._table.writerow(self._form.cells(result).values())


class KeptRows:
    """The rows of a run that was stopped: 8 bytes each in memory."""

    def __init__(self, paths: Iterator[str], first: Cells | None = None) -> None:
        self.first = first
        """Path, class and confidence in the first of them: a model that goes on must say the same of that photo."""
        found = array("Q", map(_digest, paths))
        self._known = np.sort(np.frombuffer(found, np.uint64)) if found else np.zeros(0, np.uint64)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, path: object) -> bool:
        wanted = np.uint64(_digest(storable(str(path))))
        place = int(np.searchsorted(self._known, wanted))
        return place < len(self._known) and bool(self._known[place] == wanted)


def _digest(path: str) -> int:
    return int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "little")


def check(out: str) -> None:
    """Refuse a name that tells no format, and Parquet without pyarrow.

    Raises
    ------
    ConfigError, MissingExtraError
        See above.
    """
    if out and Path(out).suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--out {out}: expected a name that ends in .csv, .jsonl or .parquet")
    if out.lower().endswith(".parquet"):
        _parquet()


@contextmanager
def opened(
    out: str, form: RowFormat, *, nested: bool = False, resume: bool = False
) -> Iterator[tuple[RowWriter, KeptRows]]:
    """A sink for rows, and the rows that `resume` found: on stdout (CSV, or JSON lines if `nested`), or a file, as
    its name says.

    The file takes its place at the end. Where the block is left by Ctrl-C or an error of the disk its rows stay in
    NAME.part; a file that stood there stays as it was.

    Raises
    ------
    RunError
        The disk refuses, or the rows to go on with have other columns.
    """
    if not out:
        yield RowWriter(sys.stdout, form, nested=nested), KeptRows(iter(()))
        return
    path, nested = Path(out), out.lower().endswith(".jsonl")
    part = path.with_name(f"{path.name}.part")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _take_up(path, part, form, nested) if resume else part.unlink(missing_ok=True)
        begun = part.exists()
        kept = KeptRows(_paths(part, nested), _first(part, nested)) if begun else KeptRows(iter(()))
        try:
            with part.open("a", encoding="utf-8", newline="", buffering=1) as stream:  # each row as it comes
                yield RowWriter(stream, form, nested=nested, begun=begun), kept
            _settle(path, part, form)
        except DataError:  # nothing was classified
            if not begun:
                part.unlink(missing_ok=True)
            raise


def _take_up(path: Path, part: Path, form: RowFormat, nested: bool) -> None:
    """Make `part` hold the whole rows of a stopped run, or of the finished file, and no half one."""
    source = part if part.exists() else path
    if not source.exists():
        return
    rows = _rows_of_parquet(source) if source.suffix == ".parquet" else _whole_rows(source, form, nested)
    with replacing(part) as fresh, fresh.open("w", encoding="utf-8", newline="") as stream:
        if nested:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            return
        writer = csv.DictWriter(stream, form.columns(), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            if list(row) != form.columns():
                raise RunError(_other(source, list(row), form))
            writer.writerow(row)


def _whole_rows(source: Path, form: RowFormat, nested: bool) -> Iterator[Cells]:
    """The rows that were written to their end."""
    with source.open(encoding="utf-8", errors="replace", newline="") as stream:  # a torn row may end inside a letter
        lines = (line for line in stream if line.endswith("\n"))
        if nested:
            yield from (_object(line, source, form) for line in lines)
            return
        reader = csv.reader(lines)
        header = next(reader, form.columns())
        if header != form.columns():
            raise RunError(_other(source, header, form))
        yield from (dict(zip(header, row, strict=True)) for row in reader if len(row) == len(header))


def _object(line: str, source: Path, form: RowFormat) -> Cells:
    try:
        row: Cells = json.loads(line)
        same = list(row["probabilities"]) == list(form.classes)
        same = same and ("unsure" in row) == (form.threshold is not None) and len(row.get("top", ())) == form.top
    except (ValueError, LookupError, TypeError) as error:
        raise RunError(f"{source} can't be gone on with: {error}; choose another --out") from error
    if not same:
        raise RunError(_other(source, list(row), form))
    return row


def _other(source: Path, came: Sequence[str], form: RowFormat) -> str:
    return (
        f"{source} was written with other options or another bundle: it has {', '.join(came)}, expected "
        f"{', '.join(form.columns())}; choose another --out"
    )


def _paths(part: Path, nested: bool) -> Iterator[str]:
    with part.open(encoding="utf-8", newline="") as stream:
        if nested:
            yield from (json.loads(line)["path"] for line in stream)
        else:
            yield from (row["path"] for row in csv.DictReader(stream))


def _first(part: Path, nested: bool) -> Cells | None:
    with part.open(encoding="utf-8", newline="") as stream:
        return next((json.loads(line) for line in stream) if nested else csv.DictReader(stream), None)


def check_same(kept: KeptRows, model: Bundle, prior: Prior, out: str) -> None:
    """Hold the first row to go on with against what the model says of that photo, where it is still there.

    Raises
    ------
    RunError
        Another bundle, or another prior, wrote those rows.
    """
    if kept.first is None:
        return
    path, said, sure = kept.first["path"], kept.first["predicted"], float(kept.first["confidence"])
    for now in predict(model, [path], prior=prior):
        if isinstance(now, Prediction) and (now.predicted != said or abs(now.confidence - sure) > _SAME):
            raise RunError(
                f"{out} was written by another bundle or with another prior: it has {printable(path)} as {said} "
                f"({sure:.3f}), this bundle says {now.predicted} ({now.confidence:.3f}); choose another --out"
            )


def _settle(path: Path, part: Path, form: RowFormat) -> None:
    """Put the finished rows in their place."""
    if path.suffix.lower() != ".parquet":
        part.replace(path)
        return
    pyarrow, parquet = _parquet()
    texts = {"path", "true", "predicted", *(f"top{k}" for k in range(1, form.top + 1))}
    kinds = {"unsure": pyarrow.bool_(), **dict.fromkeys(texts, pyarrow.string())}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in form.columns()])
    with replacing(path) as fresh, part.open(encoding="utf-8", newline="") as stream:
        rows = (_typed(row, texts) for row in csv.DictReader(stream))
        with parquet.ParquetWriter(fresh, schema) as writer:
            while group := list(islice(rows, _GROUP)):
                writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))
    part.unlink()


def _typed(row: Mapping[str, str], texts: set[str]) -> Cells:
    def value(name: str, text: str) -> str | bool | float:
        return text if name in texts else text == "true" if name == "unsure" else float(text)

    return {name: value(name, text) for name, text in row.items()}


def _rows_of_parquet(source: Path) -> Iterator[Cells]:
    _, parquet = _parquet()

    def text(value: object) -> str:
        return (
            f"{value:.{predictions.DIGITS}f}"
            if isinstance(value, float)
            else str(value).lower()
            if isinstance(value, bool)
            else str(value)
        )

    for batch in parquet.ParquetFile(source).iter_batches(_GROUP):
        yield from ({name: text(value) for name, value in row.items()} for row in batch.to_pylist())


def _parquet() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "datasets") from None
    return pyarrow, pyarrow.parquet


def listed(stream: Any, *, nul: bool) -> Iterator[str]:
    """Paths on stdin as they come, one a line or (`nul`) each ended by a zero byte: the list may be endless, a name
    any bytes."""
    if not nul:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
        return (line.rstrip("\r\n") for line in stream if line.strip())
    return _between_zeros(stream.buffer)


def _between_zeros(stream: Any) -> Iterator[str]:
    import os

    rest = b""
    read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
    while block := read(65536):
        *whole, rest = (rest + block).split(b"\0")
        yield from (os.fsdecode(name) for name in whole if name)
    if rest:
        yield os.fsdecode(rest)
