"""Reading and writing documents by one rule."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from frostline.documents.bundle import Bundle, Export
from frostline.documents.check import Check
from frostline.documents.schemas import FILES, problems
from frostline.documents.seeds import Seeds
from frostline.documents.study import Study
from frostline.documents.sweep import Sweep
from frostline.errors import RunError, one_line
from frostline.files import write_json

_MADE_BY = {
    Study: "a frostline study",
    Sweep: "a frostline sweep",
    Seeds: "a frostline study --seeds",
    Check: "a frostline check",
    Bundle: "a strategy's bundle",
    Export: "a frostline export",
}
CHECKED = "FROSTLINE_CHECK_DOCUMENTS"

T = TypeVar("T")


def read(folder: Path, kind: type[T]) -> T:
    """The document of a folder.

    Numbers that are not finite, which older versions could write, are read as null.

    Parameters
    ----------
    kind
        `Study`, `Sweep`, `Seeds`, `Check`, `Bundle` or `Export`.

    Raises
    ------
    RunError
        There is none, or it is damaged: one line says which file and why.
    """
    name = FILES[kind]
    try:
        return cast(T, read_object(folder / name))
    except FileNotFoundError:
        raise RunError(f"{folder} holds no {name}: give the --out of {_MADE_BY[kind]}") from None


def read_object(file: Path) -> dict[str, Any]:
    """A file that holds one JSON object.

    Raises
    ------
    FileNotFoundError
        There is none.
    RunError
        It can't be read, or is damaged.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "") or one_line(error)
        raise RunError(f"can't read {file}: {reason}") from error
    if not isinstance(value, dict):
        raise RunError(f"{file} is damaged: expected a JSON object, it holds {type(value).__name__}")
    return value


def write(folder: Path, kind: type, document: Mapping[str, object]) -> Path:
    """Write a document into its folder, whole or not at all; returns the file.

    Raises
    ------
    RunError
        No room on the disk, or the folder can't be written.
    """
    if os.environ.get(CHECKED) and (wrong := problems(kind, document)):
        raise TypeError(f"{FILES[kind]} does not fit its type: {'; '.join(wrong[:5])}")
    write_json(folder / FILES[kind], document)
    return folder / FILES[kind]


def trained_alike(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two runs were trained in the same way, by their documents (`Study`, `Sweep`).

    An older version's tells less: beside a newer one it counts as other training.
    """
    return all(a.get(key) == b.get(key) for key in ("protocol", "preset", "balance", "loss", "backbones"))
