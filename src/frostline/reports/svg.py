"""Drawing: scales, ticks and marks as plain SVG, and the figure that a page, a picture file and a table are made from.

An SVG written here is a few kilobytes, needs no script, takes its colours for text and axes from the page around it
(light, dark, paper) and carries each mark's figures as a tip. As a file of its own it brings fixed colours along, and
tips become titles. Text from outside (class and strategy names) is escaped in one place, `_element`.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from markupsafe import Markup

# After Tol's "vibrant" scheme: told apart with the common kinds of colour blindness, and 3 to 1 or more against both
# the light and the dark page, so that one set serves both. A shape of its own repeats each.
COLOURS = ("#cc6a1c", "#0b78bd", "#0a9485", "#d23a72", "#7d62cf", "#6b7f92")
SHAPES = ("circle", "diamond", "square", "triangle-up", "triangle-down", "cross")
GREY = COLOURS[-1]

_STYLE = (
    "text{font:11.5px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;fill:#13212e}"
    ".soft{fill:#506375}.strong{font-weight:600}.grid{stroke:#d9e3ec}.rule{stroke:#506375}.halo{stroke:#fff}"
    ".paper{fill:#fff}.cell{fill:#0b78bd}.miss{fill:#cc6a1c}.band{fill:none}"
)
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # what XML can't hold


_PLACES = {"baseline": 0, "frozen": 1, "fine-tuned": 2, "fine-tuned-all": 3, "scratch": 4}


def looks(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and shape of each name: two signs, so that neither carries the meaning alone.

    The strategies that frostline knows look the same on every page; other names take what is left, in their order.
    """
    free = [place for place in range(len(COLOURS)) if place not in {_PLACES.get(name) for name in names}]
    own = [name for name in names if name not in _PLACES]
    places = {name: free[i % len(free)] for i, name in enumerate(own)} | {n: _PLACES[n] for n in names if n in _PLACES}
    return {name: (COLOURS[places[name]], SHAPES[places[name]]) for name in names}


Attributes = dict[str, Any]
Element = tuple[str, str, str, Attributes]
"""Tag, text, tip and attributes."""


@dataclass(frozen=True)
class Figure:
    """A picture and its numbers."""

    name: str
    """Of its files, without an ending: letters, digits, hyphens."""
    title: str
    canvas: Canvas
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def inline(self) -> Markup:
        """The picture for a page: the page's style colours it, and a script may show the tips."""
        return Markup(self.canvas.render(alone=False))  # noqa: S704 -- every text in it went through `_element`

    def file(self) -> str:
        """The picture as a file of its own."""
        return self.canvas.render(alone=True)

    def table(self) -> str:
        """The numbers as CSV."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_cell(value) for value in row] for row in self.rows)
        return text.getvalue()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def stacked(figures: Sequence[Figure]) -> str:
    """Several figures as one file, one below the other, each under its title."""
    width = max(figure.canvas.width for figure in figures)
    whole = Canvas(width + 24, 12, "; ".join(figure.canvas.label for figure in figures))
    for figure in figures:
        whole.text(12, whole.height + 14, figure.title, "strong")
        whole.nested(figure.canvas, 12, whole.height + 24)
        whole.height += figure.canvas.height + 40
    return whole.render(alone=True)


def slug(*parts: Any) -> str:
    """Parts as one name fit for a file on any system: ("curves", "Fine-tuned (b0)") -> "curves-fine-tuned-b0"."""
    return re.sub(r"[^a-z0-9]+", "-", " ".join(map(str, parts)).lower()).strip("-") or "figure"


@dataclass
class Canvas:
    """What is drawn on: lengths are in the drawing's own units, about a pixel each; y grows downward."""

    width: float
    height: float
    label: str
    """What the picture shows, for who can't see it."""
    parts: list[Element] = field(default_factory=list)

    def draw(self, tag: str, text: str = "", tip: str = "", **attributes: Any) -> None:
        """Add an element. `kind` is its class; an underscore in an attribute's name stands for a hyphen; None leaves
        one out."""
        self.parts.append((tag, text, tip, attributes))

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start", **attributes: Any) -> None:
        """Add a line of text that ends or begins at x, its base at y."""
        self.draw(
            "text", text, x=x, y=y, kind=kind or None, text_anchor=None if anchor == "start" else anchor, **attributes
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str = "grid", **attributes: Any) -> None:
        """Add a straight line."""
        self.draw("path", d=f"M{_n(x1)} {_n(y1)}L{_n(x2)} {_n(y2)}", kind=kind, fill="none", **attributes)

    def path(self, points: Iterable[tuple[float, float]], colour: str, width: float = 2.2, **attributes: Any) -> None:
        """Add a line through points."""
        d = "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points)
        self.draw("path", d=d, fill="none", stroke=colour, stroke_width=width, stroke_linejoin="round", **attributes)

    def area(self, points: Iterable[tuple[float, float]], colour: str) -> None:
        """Add a pale area within a closed line through points."""
        d = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "Z"
        self.draw("path", d=d, fill=colour, fill_opacity=0.15)

    def bar(self, x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 6) -> None:
        """Add an interval: a thick pale line with round ends."""
        d = f"M{_n(x1)} {_n(y1)}L{_n(x2)} {_n(y2)}"
        self.draw("path", d=d, stroke=colour, stroke_width=width, stroke_opacity=0.4, stroke_linecap="round")

    def sign(
        self,
        x: float,
        y: float,
        colour: str,
        shape: str = "circle",
        size: float = 5,
        tip: str = "",
        hollow: bool = False,
    ) -> None:
        """Add a strategy's mark."""
        paint = {"fill": "none", "stroke": colour, "stroke_width": 1.8} if hollow else {"fill": colour}
        if shape == "circle":
            self.draw("circle", tip=tip, cx=x, cy=y, r=size, **paint)
        else:
            self.draw("path", tip=tip, d=_outline(shape, x, y, size * 1.15), **paint)

    def nested(self, other: Canvas, x: float, y: float) -> None:
        """Add another drawing, moved by x and y."""
        self.parts.append(("g", "", "", {"transform": f"translate({_n(x)} {_n(y)})", "parts": other.parts}))

    def render(self, alone: bool) -> str:
        """The drawing as text: for a page, or as a file of its own."""
        width, height = _n(self.width), _n(self.height)
        about = f'viewBox="0 0 {width} {height}" role="img" aria-label={_quoted(self.label)}'
        body = "".join(_element(*part, alone=alone) for part in self.parts)
        if not alone:
            return f'<svg class="fig" {about} style="--w:{width}">{body}</svg>'
        size = f'width="{_n(2 * self.width)}" height="{_n(2 * self.height)}"'
        paper = f'<style>{_STYLE}</style><rect class="paper" width="100%" height="100%"/>'
        return f'<svg xmlns="http://www.w3.org/2000/svg" {about} {size}>{paper}{body}</svg>\n'


def _element(tag: str, text: str, tip: str, attributes: Attributes, *, alone: bool) -> str:
    if "parts" in attributes:
        inner = "".join(_element(*part, alone=alone) for part in attributes["parts"])
        return f"<g transform={_quoted(attributes['transform'])}>{inner}</g>"
    named = {("class" if key == "kind" else key.replace("_", "-")): value for key, value in attributes.items()}
    if tip and not alone:
        named["data-tip"] = tip
    inside = escape(_FORBIDDEN.sub("\ufffd", text))
    if tip and alone:
        inside += f"<title>{escape(_FORBIDDEN.sub(chr(0xFFFD), tip))}</title>"
    shown = "".join(f" {key}={_quoted(_n(value))}" for key, value in named.items() if value is not None)
    return f"<{tag}{shown}>{inside}</{tag}>" if inside else f"<{tag}{shown}/>"


def _quoted(text: str) -> str:
    return quoteattr(_FORBIDDEN.sub("\ufffd", text))


def _n(value: Any) -> str:
    """A number in as few digits as a drawing needs; anything else as it is."""
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".") or "0"
    return str(value)


def _outline(shape: str, x: float, y: float, r: float) -> str:
    corners = {
        "diamond": ((0, -1.15), (1.15, 0), (0, 1.15), (-1.15, 0)),
        "square": ((-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)),
        "triangle-up": ((0, -1.1), (1.05, 0.8), (-1.05, 0.8)),
        "triangle-down": ((0, 1.1), (1.05, -0.8), (-1.05, -0.8)),
        "cross": (
            (-0.35, -1), (0.35, -1), (0.35, -0.35), (1, -0.35), (1, 0.35), (0.35, 0.35),
            (0.35, 1), (-0.35, 1), (-0.35, 0.35), (-1, 0.35), (-1, -0.35), (-0.35, -0.35),
        ),
    }[shape]  # fmt: skip
    return "M" + "L".join(f"{_n(x + dx * r)} {_n(y + dy * r)}" for dx, dy in corners) + "Z"


# ---- scales ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """From values to places: `low` to `high` onto `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value; values beyond the ends are held there."""
        value = min(max(value, self.low), self.high)
        along: Callable[[float], float] = math.log if self.log else float
        share = (along(value) - along(self.low)) / (along(self.high) - along(self.low))
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values within the scale, at most about so many."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            return [10.0**p for p in powers if self.low <= 10.0**p <= self.high]
        raw = (self.high - self.low) / max(1, most)
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-6)
        return [round(i * step, 10) for i in range(first, math.floor(self.high / step + 1e-6) + 1)]


def domain(values: Iterable[float], step: float, top: float = math.inf, bottom: float = 0.0) -> tuple[float, float]:
    """The next whole steps around `values` with some air, never beyond `bottom` and `top`."""
    known = list(values)
    low, high = math.floor(min(known) / step - 0.2) * step, math.ceil(max(known) / step + 0.2) * step
    low, high = round(max(bottom, low), 6), round(min(top, high), 6)
    return (low, high) if high > low else (low, low + step)


def plain(value: float) -> str:
    """A tick in as few digits as it has: 0.5, 20, 1,000, 1M."""
    if abs(value) >= 999_500:
        return f"{value / 1e6:g} M"
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 10_000 else f"{value / 1e3:g} k"
    return f"{value:g}".replace("-", "\u2212")


@dataclass(frozen=True)
class Frame:
    """The part of a canvas that two scales span, with its axes drawn."""

    canvas: Canvas
    x: Scale
    y: Scale

    def across(
        self, ticks: Sequence[float], title: str = "", form: Callable[[float], str] = plain, grid: bool = False
    ) -> None:
        """Draw the axis below."""
        bottom = self.y.start
        for tick in ticks:
            place = self.x(tick)
            if grid:
                self.canvas.line(place, bottom, place, self.y.end)
            self.canvas.text(place, bottom + 15, form(tick), "soft", "middle")
        if title:
            self.canvas.text((self.x.start + self.x.end) / 2, bottom + 32, title, "soft", "middle")

    def up(self, ticks: Sequence[float], form: Callable[[float], str] = plain, title: str = "") -> None:
        """Draw the axis at the left, with its grid; the title stands above it."""
        for tick in ticks:
            place = self.y(tick)
            self.canvas.line(self.x.start, place, self.x.end, place)
            self.canvas.text(self.x.start - 7, place + 4, form(tick), "soft", "end")
        if title:
            self.canvas.text(self.x.start, self.y.end - 9, title, "soft")

    def bands(self, places: Sequence[tuple[float, str]]) -> None:
        """Make each value of x a strip to point at, from half-way to its neighbours, with its tip."""
        xs = [self.x(value) for value, _ in places]
        edges = [self.x.start, *((a + b) / 2 for a, b in pairwise(xs)), self.x.end]
        for index, (_, tip) in enumerate(places):
            left, right = edges[index], edges[index + 1]
            if right > left:
                self.canvas.draw(
                    "rect",
                    tip=tip,
                    kind="band",
                    x=left,
                    y=self.y.end,
                    width=right - left,
                    height=self.y.start - self.y.end,
                )


def shortened(text: str, most: int) -> str:
    """A name in at most so many characters."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}\u2026"


def symbol(shape: str, colour: str) -> Markup:
    """A strategy's mark on its own, for legends and names."""
    canvas = Canvas(14, 14, "")
    canvas.sign(7, 7, colour, shape, 5)
    body = "".join(_element(*part, alone=False) for part in canvas.parts)
    return Markup(f'<svg class="sign" viewBox="0 0 14 14" aria-hidden="true">{body}</svg>')  # noqa: S704 -- ours
