"""Figures as people read them: 91.2 %, 89.1 to 93.0, 11.2 M, 2 min 14 s. What is not known is a dash.

All take `Any`, since study.json may hold null where a figure is undefined.
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Any, TypeGuard

NONE = "–"


def percent(fraction: Any) -> str:
    """0.9123 -> "91.2 %"."""
    return f"{100 * fraction:.1f}\u00a0%" if known(fraction) else NONE


def headline(row: Any, unequal: bool) -> str:
    """A model's figure with its interval: "91.2 % right (95 % interval 89.1 to 93.0)"; macro recall first where classes are unequal."""
    low, high = (100 * bound for bound in row["balanced_accuracy_ci" if unequal else "accuracy_ci"])
    interval = f"(95 % interval {low:.1f} to {high:.1f})"
    right = f"{100 * row['accuracy']:.1f} % right"
    return (
        f"macro recall {100 * row['balanced_accuracy']:.1f} % {interval}, {right}" if unequal else f"{right} {interval}"
    )


def span(bounds: Any) -> str:
    """(0.891, 0.93) -> "89.1 to 93.0", in percent or points."""
    return " to ".join(_signed(100 * bound, ".1f") for bound in bounds) if bounds and all(map(known, bounds)) else NONE


def points(difference: Any) -> str:
    """0.013 -> "+1.3"."""
    return _signed(100 * difference, "+.1f") if known(difference) else NONE


def change(difference: Any) -> str:
    """0.12345 -> "+0.123"."""
    return _signed(difference, "+.3f") if known(difference) else NONE


def decimal(number: Any, digits: int = 3) -> str:
    """0.12345 -> "0.123"."""
    return _signed(number, f".{digits}f") if known(number) else NONE


def count(number: Any) -> str:
    """11169605 -> "11,169,605"."""
    return f"{number:,}" if known(number) else NONE


def short(number: Any) -> str:
    """11169605 -> "11.2 M", 884613 -> "885 k"."""
    if not known(number):
        return NONE
    if number >= 999_500:
        return f"{number / 1e6:.1f}\u00a0M"
    return f"{number / 1e3:.0f}\u00a0k" if number >= 1000 else str(number)


def duration(seconds: Any) -> str:
    """134 -> "2 min 14 s"."""
    if not known(seconds):
        return NONE
    if seconds < 9.95:
        return f"{seconds:.1f}\u00a0s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (0 if hours else rest, "s")]
    return " ".join(f"{value}\u00a0{unit}" for value, unit in parts if value)


def gigabytes(megabytes: Any) -> str:
    """1834 -> "1.8 GB", both in powers of ten."""
    return f"{megabytes / 1000:.1f}\u00a0GB" if known(megabytes) else NONE


def p_value(p: Any) -> str:
    """0.0000012 -> "p < 0.001", 0.0342 -> "p = 0.034"."""
    if not known(p):
        return "p unknown"
    return "p\u00a0<\u00a00.001" if p < 0.001 else f"p\u00a0=\u00a0{p:.3f}"


def moment(text: Any) -> str:
    """An ISO 8601 time as "4 March 2026, 10:22 UTC"; anything else as it came."""
    try:
        when = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return str(text or "")
    return f"{when.day} {when:%B %Y, %H:%M} {when.tzname() or ''}".strip()


def tied(text: Any) -> str:
    """A sentence whose numbers stay on one line with what they count, intervals whole, with true minus signs."""
    minus = re.sub(r"(?<![\w.)-])-(?=\d)", "\u2212", str(text))
    return re.sub(
        r"(?<=\d) (?=%|points?\b|to [+\u2212]?\d)|(?<=\d to) (?=[+\u2212]?\d)|(?<=\bp) (?=[=<] ?\d)|(?<=p [=<]) (?=\d)",
        "\u00a0",
        minus,
    )


def photos_learnt_from(strategies: Any, trained: Any) -> str:
    """Where some strategies learnt from validation photos too in the end and others did not: which, and from how many; else nothing."""
    joined = {row["name"]: row["refit"]["photos"] for row in strategies if row.get("refit")}
    alone = [row["name"] for row in strategies if not row.get("refit")]
    if not joined or not alone:
        return ""
    more = f"{' and '.join(joined)} learnt from the validation photos too in the end ({count(max(joined.values()))} photos)"
    less = f"{' and '.join(alone)} from the training photos alone ({count(trained)})"
    return f"{more[0].upper()}{more[1:]}, {less}: that may be a part of the lead."


def known(number: Any) -> TypeGuard[float]:
    """Whether this is a finite number."""
    return isinstance(number, int | float) and math.isfinite(number)


def _signed(number: float, form: str) -> str:
    """With a true minus sign, and no sign at all where the figure rounds to nothing."""
    text = format(number, form)
    return text.lstrip("+-") if not float(text) else text.replace("-", "\u2212")


FILTERS = (
    change,
    count,
    decimal,
    duration,
    gigabytes,
    moment,
    p_value,
    percent,
    photos_learnt_from,
    points,
    short,
    span,
    tied,
)
