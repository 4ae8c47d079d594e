"""Tables that list photos: CSV (comma, semicolon or tab), JSON lines, Parquet. Every value is read as text."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from frostline.errors import DataError, MissingExtraError, one_line
from frostline.photos.names import printable

SUFFIXES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".parquet")
"""File names that mean a table, in lower case."""

EXTRA = "datasets"
"""The extra that installs pyarrow."""

Rows = list[tuple[int, dict[str, str]]]
"""(line or row number from 1, column -> value)."""

_WANTED = "path,label[,split][,group]"
_COLUMNS = {"path", "label", "split", "group"}
_ALSO = {"file_name": "path"}  # image folders with a metadata.csv name it so


def rows(path: Path, needed: Collection[str]) -> Rows:
    """Each row that isn't blank, with its number; column names in lower case.

    A column `file_name` counts as `path` where there is no `path`.

    Raises
    ------
    DataError
        The file can't be read as the kind of table that its name says, or a column of `needed` is missing or there
        twice.
    MissingExtraError
        A Parquet file, and pyarrow is not installed.
    """
    kind = path.suffix.lower()
    if kind == ".parquet":
        return _from_parquet(path, needed)
    return _from_json(path, needed) if kind in (".jsonl", ".ndjson") else _from_csv(path, needed)


def columns(path: Path) -> set[str]:
    """Names of a table's columns, with `path` for `file_name`; none where the file can't be read as a table."""
    try:
        if path.suffix.lower() == ".parquet":
            return set(_named(open_parquet(path).schema_arrow.names))
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            return set(_named(next((list(value) for _, value in _objects(path)), [])))
        text = _text(path)
        return set(_header(text, _delimiter(path, text)))
    except (DataError, csv.Error):
        return set()


def _arrow() -> Any:
    """The package pyarrow with its Parquet reader. Raises MissingExtraError, with the pip line."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow for Parquet files", EXTRA) from error
    return pyarrow


def open_parquet(path: Path) -> Any:
    """A `pyarrow.parquet.ParquetFile`. Raises DataError when it is none, MissingExtraError without pyarrow."""
    pyarrow = _arrow()
    try:
        return pyarrow.parquet.ParquetFile(path, memory_map=True)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{printable(str(path))} can't be read as Parquet: {one_line(error)}") from error


def _named(names: Collection[object]) -> list[str]:
    """Column names in lower case; "file_name" becomes "path" where that is free."""
    plain = [str(name).strip().lower() for name in names]
    return [_ALSO[name] if name in _ALSO and _ALSO[name] not in plain else name for name in plain]


def _check_header(shown: str, header: list[str], needed: Collection[str], first: str = "the first line") -> None:
    used = [name for name in header if name in _COLUMNS or name in needed]
    if set(needed) <= set(header) and len(set(used)) == len(used):
        return
    came = printable(",".join(header)) or "nothing"
    raise DataError(f"{shown}: {first} must name the columns {_WANTED}, each once; it is: {came}")


# --- CSV -------------------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    shown = printable(str(path))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"can't read {shown}: {error.strerror}") from error
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # Excel's "Unicode text"
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{shown} is not UTF-8 (byte {error.start}): save it as CSV UTF-8") from error


def _header(text: str, delimiter: str) -> list[str]:
    return _named(next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), []))


def _delimiter(path: Path, text: str) -> str:
    """What separates values: a tab in a .tsv file, else what the first line has."""
    if path.suffix.lower() in (".tsv", ".tab"):
        return "\t"
    head = text[:10_000]
    return next((d for d in (",", ";", "\t") if {"path", "label"} <= set(_header(head, d))), ",")


def _from_csv(path: Path, needed: Collection[str]) -> Rows:
    shown = printable(str(path))
    text = _text(path)
    found: Rows = []
    line = 1
    try:
        delimiter = _delimiter(path, text)
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        header = _named(next(lines, []))
        _check_header(shown, header, needed)
        for row in lines:
            line = lines.line_num
            if len(row) > len(header):
                mark = {",": "comma", ";": "semicolon"}.get(delimiter, "tab")
                came = f"{len(row)} fields, expected {len(header)}"
                raise DataError(f"{shown} line {line}: {came}; a value with a {mark} needs quotes")
            if any(value.strip() for value in row):
                found.append((line, dict.fromkeys(header, "") | dict(zip(header, row, strict=False))))
    except csv.Error as error:
        raise DataError(f"{shown} line {line}: {error}") from error
    return found


# --- JSON lines ------------------------------------------------------------------------------------------------------


def _objects(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    shown = printable(str(path))
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{shown} line {number}: not JSON: {one_line(error)}") from error
        if not isinstance(value, dict):
            raise DataError(
                f"{shown} line {number}: expected an object such as " + '{"path": "1.jpg", "label": "rose"}'
            )
        yield number, value


def _from_json(path: Path, needed: Collection[str]) -> Rows:
    found: Rows = []
    for number, value in _objects(path):
        header = _named(value)
        if not found:
            _check_header(printable(str(path)), header, needed, "the first object")
        found.append((number, dict.fromkeys(needed, "") | dict(zip(header, map(words, value.values()), strict=True))))
    return found


def words(value: object) -> str:
    """A value as text: none and NaN are "", 3.0 is "3" (columns of numbers with gaps turn into fractions)."""
    if value is None or value != value:
        return ""
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


# --- Parquet ---------------------------------------------------------------------------------------------------------


def _from_parquet(path: Path, needed: Collection[str]) -> Rows:
    pyarrow = _arrow()
    file = open_parquet(path)
    names = list(file.schema_arrow.names)
    header = _named(names)
    _check_header(printable(str(path)), header, needed, "its schema")
    wanted = [name for name, plain in zip(names, header, strict=True) if plain in _COLUMNS or plain in needed]
    found: Rows = []
    try:
        for batch in file.iter_batches(columns=wanted):
            listed = zip(*(map(words, column.to_pylist()) for column in batch.columns), strict=True)
            plain = _named(batch.schema.names)
            found += [(len(found) + n, dict(zip(plain, row, strict=True))) for n, row in enumerate(listed, 1)]
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{printable(str(path))} can't be read as Parquet: {one_line(error)}") from error
    return [(number, row) for number, row in found if any(value.strip() for value in row.values())]
