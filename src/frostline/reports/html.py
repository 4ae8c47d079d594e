"""Pages: templates filled in, with style and script inside, written whole."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path

from jinja2 import ChainableUndefined, Environment, FileSystemLoader, Template
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from frostline import files, wording
from frostline.reports import svg
from frostline.reports.record import Row

TEMPLATES = Path(__file__).parent / "templates"
PAGE = "report.html"
"""The page of a run folder."""


_ONE_LINE = (wording.duration, wording.gigabytes, wording.p_value, wording.percent, wording.short)
_WORDS = (
    wording.change,
    wording.count,
    wording.decimal,
    wording.decimals,
    wording.frozen_layers,
    wording.moment,
    wording.refit_note,
    wording.points,
    wording.span,
    wording.unfrozen,
    wording.tied,
)


def _unbroken(words: Callable[..., str]) -> Callable[..., str]:
    """The same words, which a line doesn't break."""
    return lambda *values: words(*values).replace(" ", "\u00a0")


# ---- the page --------------------------------------------------------------------------------------------------------


def furniture() -> Row:
    """What every page needs: its style, its script, and the hash that a content security policy admits that by."""
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    own = Markup(script)  # noqa: S704 -- our own file
    return {"style": style(), "script": own, "script_hash": script_hash(script)}


def script_hash(script: str) -> str:
    """What a content security policy admits a script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def write(path: Path, page: str) -> Path:
    """Write a page, or any text that names the user's files, at `path`, atomically; returns `path`.

    A file name may hold bytes that are no UTF-8 (Python has them as lone surrogates): each becomes a question mark.

    Raises
    ------
    RunError
        No room on the disk, or the folder can't be written.
    """
    files.write_text(path, page.encode("utf-8", "replace").decode("utf-8"))
    return path


def style() -> Markup:
    """The style sheet of every page."""
    return Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))  # noqa: S704 -- our own file


def template(name: str) -> Template:
    """One of `TEMPLATES`. What study.json doesn't hold shows as nothing or as a dash: older and unfinished runs stay
    readable."""
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=ChainableUndefined
    )
    environment.filters |= {function.__name__: function for function in _WORDS}
    environment.filters |= {function.__name__: _unbroken(function) for function in _ONE_LINE}
    environment.filters["data"] = htmlsafe_json_dumps
    environment.globals["symbol"] = svg.symbol
    return environment.get_template(name)
