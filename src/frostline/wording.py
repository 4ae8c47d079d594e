"""Figures as people read them: 91.2 %, 89.1 to 93.0, 11.2 M, 2 min 14 s. What is not known is a dash.

All take any object, since study.json may hold null where a figure is undefined.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeGuard

NONE = "–"


def percent(fraction: object, digits: int = 1) -> str:
    """0.9123 -> "91.2 %"."""
    return f"{100 * fraction:.{digits}f} %" if known(fraction) else NONE


def headline(row: Mapping[str, Any], unequal: bool) -> str:
    """A model's figure with its interval: "accuracy 91.2 % (95 % CI 89.1 to 93.0)"; macro recall first where classes
    are unequal."""
    accuracy = f"accuracy {percent(row['accuracy'])}"
    if not unequal:
        return f"{accuracy} ({interval(row.get('accuracy_ci'))})"
    recall = f"macro recall {percent(row.get('balanced_accuracy'))}"
    return f"{recall} ({interval(row.get('balanced_accuracy_ci'))}), {accuracy}"


def interval(bounds: object) -> str:
    """(0.891, 0.93) -> "95 % CI 89.1 to 93.0", in percent or points."""
    return f"95 % CI {span(bounds)}"


def span(bounds: object) -> str:
    """(0.891, 0.93) -> "89.1 to 93.0", in percent or points."""
    ends = list(bounds) if isinstance(bounds, Sequence) else []
    return " to ".join(_signed(100 * end, ".1f") for end in ends) if ends and all(map(known, ends)) else NONE


def decimals(bounds: object) -> str:
    """(0.012, 0.034) -> "0.012 to 0.034"."""
    ends = list(bounds) if isinstance(bounds, Sequence) else []
    return " to ".join(decimal(end) for end in ends) if ends and all(map(known, ends)) else NONE


def points(difference: object) -> str:
    """0.013 -> "+1.3"."""
    return _signed(100 * difference, "+.1f") if known(difference) else NONE


def change(difference: object, digits: int = 3) -> str:
    """0.12345 -> "+0.123"."""
    return _signed(difference, f"+.{digits}f") if known(difference) else NONE


def changes(bounds: Sequence[float], digits: int = 3) -> str:
    """(0.012, 0.034) -> "+0.012 to +0.034"."""
    return " to ".join(change(end, digits) for end in bounds)


def decimal(number: object, digits: int = 3) -> str:
    """0.12345 -> "0.123"."""
    return _signed(number, f".{digits}f") if known(number) else NONE


def count(number: object) -> str:
    """11169605 -> "11,169,605"."""
    return f"{number:,}" if known(number) else NONE


def short(number: object) -> str:
    """11169605 -> "11.2 M", 884613 -> "885 k"."""
    if not known(number):
        return NONE
    if number >= 999_500:
        return f"{number / 1e6:.1f} M"
    return f"{number / 1e3:.0f} k" if number >= 1000 else str(number)


def unfrozen(row: Mapping[str, Any]) -> str:
    """What a strategy trains, as a sentence: "fine-tuned trains 884,613 parameters: the head and 32 % of the backbone
    (features.17 in part, features.18)."; empty for rows of older versions, which do not say it."""
    found = row.get("unfrozen")
    if not found:
        return ""
    share, partly = found["share"], found["partly"]
    what = "the head alone"
    if share == 1:
        what = "the head and the whole backbone"
    elif found["backbone"]:
        blocks = [f"{name} in part" if name in partly else name for name in found["blocks"]]
        named = ", ".join(blocks) if len(blocks) < 5 else f"{blocks[0]} to {blocks[-1]}"
        part = f"{percent(share, 0 if share >= 0.01 else 2)} of the backbone"
        chosen = {"norms": "norms and biases", "lora": f"LoRA of rank {found.get('rank')}"}.get(found.get("trains"))
        ends = f"between lines {found['line']} and {upper}" if (upper := found.get("upper_line")) else ""
        where = ends or (f"above line {found['line']}" if chosen else "")
        if chosen:
            part = f"{chosen} {where}, {part}"
        elif where:
            part = f"the layers {where}, {part}"
        what = f"the head and {part} ({named})"
    return f"{row['name']} trains {count(found['head'] + found['backbone'])} parameters: {what}."


def frozen_layers(row: Mapping[str, Any]) -> tuple[Any, Any]:
    """(layers below the line, layers in all) of a strategy's row, as its line counts them; older rows count all."""
    found = row.get("unfrozen") or {}
    return found.get("frozen_layers", row.get("freeze_line")), found.get("layers", row.get("layers"))


def duration(seconds: object) -> str:
    """134 -> "2 min 14 s"."""
    if not known(seconds):
        return NONE
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (0 if hours else rest, "s")]
    return " ".join(f"{value} {unit}" for value, unit in parts if value)


def roughly(seconds: float) -> str:
    """A time that is only estimated: 34 -> "35 seconds", 134 -> "2 minutes", 9000 -> "2.5 hours"."""
    if seconds < 57.5:
        return f"{max(5, 5 * round(seconds / 5))} seconds"
    if seconds < 90 * 60:
        minutes = max(1, round(seconds / 60))
        return "1 minute" if minutes == 1 else f"{minutes} minutes"
    return f"{round(seconds / 1800) / 2:g} hours"


def gigabytes(megabytes: object) -> str:
    """1834 -> "1.8 GB", both in powers of ten."""
    return f"{megabytes / 1000:.1f} GB" if known(megabytes) else NONE


def p_value(p: object) -> str:
    """0.0000012 -> "p < 0.001", 0.0342 -> "p = 0.034"."""
    if not known(p):
        return "p unknown"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def moment(text: object) -> str:
    """An ISO 8601 time as "4 March 2026, 10:22 UTC"; anything else as it came."""
    try:
        when = datetime.fromisoformat(str(text))
    except ValueError:
        return str(text or "")
    return f"{when.day} {when:%B %Y, %H:%M} {when.tzname() or ''}".strip()


def photos_reported(document: Mapping[str, Any]) -> str:
    """What the figures of a run (study.json, sweep.json) were measured on: "test photos", "validation images
    (synthetic)"."""
    dataset, part = document["dataset"], document["reported_on"]
    synthetic = dataset["test_sample" if part == "test" and dataset["test_root"] else "sample"]
    return f"{part} images (synthetic)" if synthetic else f"{part} photos"


def tied(text: object) -> str:
    """A sentence whose numbers stay on one line with what they count, intervals whole, with true minus signs."""
    minus = re.sub(r"(?<![\w.)-])-(?=\d)", "\u2212", str(text))
    return re.sub("|".join(_TIED), "\u00a0", minus)


_TIED = (
    r"(?<=\d) (?=%|points?\b|to [+\u2212]?\d)",
    r"(?<=%) (?=CI\b)",
    r"(?<=\d to) (?=[+\u2212]?\d)",
    r"(?<=\bp) (?=[=<] ?\d)",
    r"(?<=p [=<]) (?=\d)",
)
"""Spaces at which a line must not break."""


def refit_note(strategies: Sequence[Mapping[str, Any]], trained: object) -> str:
    """Where only some strategies were refitted on training and validation photos: which, and on how many photos; else
    nothing.

    `trained`: the number of training photos.
    """
    joined = {row["name"]: row["refit"]["photos"] for row in strategies if row.get("refit")}
    alone = [row["name"] for row in strategies if not row.get("refit")]
    if not joined or not alone:
        return ""
    more = f"{' and '.join(joined)}: trained on training and validation photos together ({count(max(joined.values()))})"
    less = f"{' and '.join(alone)}: on training photos alone ({count(trained)})"
    return f"{more[0].upper()}{more[1:]}; {less}. This may be part of the difference."


def known(number: object) -> TypeGuard[float]:
    """Whether this is a finite number."""
    return isinstance(number, int | float) and math.isfinite(number)


def _signed(number: float, form: str) -> str:
    """With a true minus sign, and no sign at all where the figure rounds to nothing."""
    text = format(number, form)
    return text.lstrip("+-") if not float(text) else text.replace("-", "\u2212")
