"""What a field of a configuration says of itself in its type, and the check that follows from it.

``seed: Annotated[int, Option("Decides the split."), AT_LEAST_0] = 0`` is checked as a whole number of 0 or more
wherever it comes from (Python, TOML or the command line), and `--help` shows the text of its `Option`.
"""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from os import PathLike, fspath
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from frostline.errors import ConfigError, nearest


class Option(NamedTuple):
    """The field is an option of the command line too."""

    help: str


class Within(NamedTuple):
    """What a value must be beyond its type."""

    expected: str
    holds: Callable[[Any], bool]


AT_LEAST_0 = Within("0 or more", lambda x: x >= 0)
AT_LEAST_1 = Within("1 or more", lambda x: x >= 1)
SHARE = Within("0 to below 1", lambda x: 0 <= x < 1)
RATE = Within("above 0 and below 10", lambda x: 0 < x < 10)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


class Field(NamedTuple):
    """A field as its type describes it."""

    hint: Any
    """Its type, without what `Annotated` adds."""
    default: Any
    """`inspect.Parameter.empty` where there is none."""
    help: str = ""
    """Text of its `Option`; empty where it is none."""
    within: Within | None = None


@cache
def fields_of(described: Callable[..., Any]) -> Mapping[str, Field]:
    """The fields of a dataclass, or the parameters of a function, by name."""
    hints = get_type_hints(described, include_extras=True)
    parameters = inspect.signature(described).parameters.values()
    return {p.name: _field(hints[p.name], p.default) for p in parameters if p.kind is not p.VAR_KEYWORD}


def _field(hint: Any, default: Any) -> Field:
    plain, *extra = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    text = next((e.help for e in extra if isinstance(e, Option)), "")
    return Field(plain, default, text, next((e for e in extra if isinstance(e, Within)), None))


def problems(fields: Mapping[str, Field], values: Mapping[str, object]) -> Iterator[str]:
    """What is wrong with the values of some fields: a line for each wrong type, unknown choice, value out of range."""
    for name, value in values.items():
        if problem := _problem(name, fields[name], value):
            yield " ".join(problem.split())


def _problem(name: str, field: Field, value: object) -> str:
    words = name.replace("_", " ")
    if not _is(value, field.hint):
        quoted = f", such as '{value}'" if _is(value, int) and field.hint in (str, str | None) else ""
        return f"{name} is {_SHORT.repr(value)} ({type(value).__name__}): expected {in_words(field.hint)}{quoted}"
    if get_origin(field.hint) is Literal and value not in (choices := get_args(field.hint)):
        return f"unknown {name} {_SHORT.repr(value)}{nearest(str(value), choices)}"
    if field.within and value is not None and not field.within.holds(value):
        return f"{words} {_SHORT.repr(value)}: expected {field.within.expected}"
    return ""


def path_of(value: object, name: str) -> Path:
    """A path that someone gave in Python.

    Raises
    ------
    ConfigError
        It is neither text nor a path.
    """
    return Path(path_text(value, name))


def path_text(value: object, name: str) -> str:
    """The same as it was given: "./a.jpg" stays that, and empty text does not become the current folder.

    Raises
    ------
    ConfigError
        It is neither text nor a path.
    """
    path = fspath(value) if isinstance(value, PathLike) else value
    if not isinstance(path, str):
        raise ConfigError(f"{name} is {_SHORT.repr(value)} ({type(value).__name__}): expected a path")
    return path


def unknown(names: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    """A line for each name that is not known, with the nearest one that is."""
    known = list(known)
    yield from (f"unknown setting {name!r}{nearest(name, known)}" for name in names if name not in known)


def in_words(hint: Any) -> str:
    """A type as a message names it."""
    if get_origin(hint) is Literal:
        return " or ".join(get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(in_words(kind) for kind in get_args(hint))
    if get_origin(hint) in (tuple, Sequence):
        return (
            f"a {'tuple' if get_origin(hint) is tuple else 'list'} of {in_words(get_args(hint)[0]).removeprefix('a ')}"
        )
    names = {
        bool: "true or false",
        int: "a whole number",
        Path: "a path",
        float: "a number",
        str: "text",
        NoneType: "None",
    }
    return names.get(hint, f"a {hint.__name__}")


def _is(value: object, hint: Any) -> bool:
    """Whether a value is of a type, as TOML has it: true is no number, a whole number may stand for any number."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:  # which of them is another question
        return isinstance(value, str)
    if origin in (Union, UnionType):
        return any(_is(value, kind) for kind in inner)
    if origin in (tuple, Sequence):
        several = isinstance(value, tuple if origin is tuple else Sequence) and not isinstance(value, str | bytes)
        return several and all(_is(one, inner[0]) for one in value)  # type: ignore[attr-defined]
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)
