"""The report's charts as Vega-Lite specifications, and the one script that draws them all without a network.

Text from outside (class and strategy names) enters as data, never as an expression. Charts bear no colours of their own
for text and axes: the page's style gives those, light or dark.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from typing import Any

from frostline.files import write_text
from frostline.weights import cache_dir

Row = dict[str, Any]

# Each colour keeps a contrast of 3 to 1 on the light page and on the dark one, so charts need no second set.
COLOURS = ("#b7662a", "#3b82c4", "#0f8f86", "#8b6fd6", "#c2557f", "#6b7f92")
SHAPES = ("circle", "diamond", "square", "triangle-up", "triangle-down", "cross")
GREY = COLOURS[-1]
SETS = {"training": "train", "validation": "val"}  # as a reader says it, as the history does
CONFIG: Row = {
    "background": None,
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "domain": False,
        "ticks": False,
    },
    "axisY": {"minExtent": 36, "labelPadding": 8, "labelLimit": 120},
    "axisX": {"labelPadding": 6, "labelFlush": False},
    "legend": {"labelFontSize": 12, "orient": "top", "title": None, "columns": 3},
}


def look(index: int) -> tuple[str, str]:
    """Colour and shape of the strategy at `index`: two signs, so that neither carries the meaning alone."""
    return COLOURS[index % len(COLOURS)], SHAPES[index % len(SHAPES)]


def epochs(strategy: Row) -> list[Row]:
    """The head's epochs, then those of the strategy itself: "x" counts on from 1, "stage" is "head" or "main"."""
    head, main = strategy.get("head_history") or [], strategy.get("history") or []
    staged = [("head", row) for row in head] + [("main", row) for row in main]
    best = strategy.get("best_epoch")
    return [
        {**row, "x": x, "stage": stage, "best": stage == "main" and best is not None and row.get("epoch") == best}
        for x, (stage, row) in enumerate(staged, start=1)
    ]


def specifications(strategies: Sequence[Row]) -> dict[str, Row]:
    """Specifications by the name that the template places them under: accuracy, recall, f1, accuracy-0.., loss-0..

    A chart without a single number is left out. Each strategy of study.json needs a "colour" and "shape".
    """
    charts = {
        "accuracy": _dot_plot(strategies),
        "recall": _class_plot(strategies, "recall"),
        "f1": _class_plot(strategies, "f1"),
    }
    for metric in ("accuracy", "loss"):
        charts |= {f"{metric}-{index}": chart for index, chart in enumerate(_curves(strategies, metric))}
    return {name: _specification(chart) for name, chart in charts.items() if chart is not None}


@functools.cache
def bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script fit to stand inside a page: 0.9 MB, 1.5 s to put together, so kept."""
    import altair as alt

    version = ".".join(alt.SCHEMA_VERSION.split(".")[:2])  # of Vega-Lite, e.g. "v6.1"
    kept = cache_dir() / "engines" / f"vega-{version}-{metadata.version('vl-convert-python')}.js"
    if not kept.exists():
        write_text(kept, _javascript(version))
    return kept.read_text(encoding="utf-8")


def _javascript(version: str) -> str:
    import vl_convert

    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", version)
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--").replace("\r\n", "\n")


def _specification(chart: Any) -> Row:
    """As wide as the box it stands in."""
    spec: Row = chart.properties(width="container").to_dict()
    spec["config"] = CONFIG
    spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    return spec


def _chart(alt: Any, rows: Sequence[Row]) -> Any:
    return alt.Chart(alt.Data(values=list(rows)))


def _sign(alt: Any, strategies: Sequence[Row], **kept: Any) -> Row:
    """The encodings of a strategy by colour and by shape."""
    names = [s["name"] for s in strategies]
    scales = {key: alt.Scale(domain=names, range=[s[key] for s in strategies]) for key in ("colour", "shape")}
    return {
        "color": alt.Color("strategy:N", scale=scales["colour"], **kept),
        "shape": alt.Shape("strategy:N", scale=scales["shape"], **kept),
    }


def _domain(values: Iterable[float], step: float, top: float) -> list[float]:
    """The next whole steps around `values` with some air, never beyond 0 and `top`."""
    known = list(values)
    low, high = math.floor(min(known) / step - 0.2) * step, math.ceil(max(known) / step + 0.2) * step
    return [round(max(0, low), 6), round(min(top, high), 6)]


def _dot_plot(strategies: Sequence[Row]) -> Any:
    """Accuracy with its interval, a strategy a row."""
    import altair as alt  # 0.4 s: only who builds a report pays

    rows = []
    for s in (s for s in strategies if s.get("accuracy") is not None):
        low, high = s.get("accuracy_ci") or (None, None)
        value = 100 * s["accuracy"]
        ends = {"low": value if low is None else 100 * low, "high": value if high is None else 100 * high}
        rows.append({"strategy": s["name"], "value": value, **ends, "label": f"{value:.1f}\u00a0%"})
    if not rows:
        return None
    scale = alt.Scale(domain=_domain((row[end] for row in rows for end in ("low", "high")), 5, 100), nice=False)
    base = _chart(alt, rows).encode(y=alt.Y("strategy:N", sort=None, title=None))
    axis = alt.Axis(tickCount=6, title="accuracy in %, with its 95 % interval")
    x, low_end = (alt.X(f"{name}:Q", scale=scale, axis=axis) for name in ("value", "low"))
    names = {"value": "accuracy, %", "low": "interval from", "high": "to"}
    figures = [alt.Tooltip(f"{key}:Q", title=title, format=".1f") for key, title in names.items()]
    tips = [alt.Tooltip("strategy:N"), *figures]
    sign = _sign(alt, strategies, legend=None)
    bar = base.mark_rule(strokeWidth=6, opacity=0.45, strokeCap="round")
    bar = bar.encode(x=low_end, x2="high:Q", color=sign["color"])
    dot = base.mark_point(filled=True, size=150, opacity=1).encode(x=x, tooltip=tips, **sign)
    text = base.mark_text(dy=-17, fontSize=13, fontWeight=600).encode(x=x, text="label:N")
    said = "Accuracy of each strategy with its 95 % interval; the table beside it holds the figures."
    return alt.layer(bar, dot, text).properties(height=56 * len(rows), description=said)


def _class_plot(strategies: Sequence[Row], metric: str) -> Any:
    """One metric of each class, a dot a strategy, joined by a line: the longer, the more the strategies differ."""
    import altair as alt

    title, factor, form = ("recall in %", 100, ".1f") if metric == "recall" else ("F1", 1, ".3f")
    cells = [(s["name"], row["class"], row.get(metric)) for s in strategies for row in s.get("per_class") or []]
    rows = [{"class": label, "strategy": name, "value": factor * v} for name, label, v in cells if v is not None]
    if not rows:
        return None
    scale = alt.Scale(domain=_domain((row["value"] for row in rows), 0.05 * factor, factor), nice=False)
    x = alt.X("value:Q", scale=scale, axis=alt.Axis(tickCount=6, title=title))
    tips = [alt.Tooltip("class:N"), alt.Tooltip("strategy:N"), alt.Tooltip("value:Q", title=title, format=form)]
    base = _chart(alt, rows).encode(x=x, y=alt.Y("class:N", sort=None, title=None))
    line = base.mark_line(strokeWidth=2, opacity=0.4, color=GREY).encode(detail="class:N")
    dot = base.mark_point(filled=True, size=110, opacity=0.95).encode(tooltip=tips, **_sign(alt, strategies))
    said = f"{title} of each class for each strategy; the table beside it holds the figures."
    return alt.layer(line, dot).properties(height=34 * len({row["class"] for row in rows}), description=said)


def _curves(strategies: Sequence[Row], metric: str) -> list[Any]:
    """A panel a strategy, all on the same scales: training dashed, validation solid, the best epoch marked."""
    factor = 100 if metric == "accuracy" else 1
    panels = []
    for s in strategies:
        cells = [(row, name, row.get(f"{key}_{metric}")) for row in epochs(s) for name, key in SETS.items()]
        panels.append(
            [{**row, "set": name, "value": factor * value} for row, name, value in cells if value is not None]
        )
    drawn = [row for rows in panels for row in rows]
    if not drawn:
        return []
    values = [row["value"] for row in drawn]
    heights = _domain(values, 10, 100) if metric == "accuracy" else [0, 1.02 * max(values)]
    longest = max(2, *(row["x"] for row in drawn))
    return [
        _panel(s, rows, metric, heights, longest) if rows else None for s, rows in zip(strategies, panels, strict=True)
    ]


def _panel(strategy: Row, rows: Sequence[Row], metric: str, heights: list[float], longest: int) -> Any:
    import altair as alt

    x_axis = alt.Axis(tickMinStep=1, tickCount=6, grid=False, title="epoch")
    x = alt.X("x:Q", scale=alt.Scale(domain=[1, longest], nice=False), axis=x_axis)
    y = alt.Y("value:Q", scale=alt.Scale(domain=heights, nice=False), axis=alt.Axis(tickCount=5, title=None))
    dash = alt.StrokeDash("set:N", scale=alt.Scale(domain=list(SETS), range=[[4, 3], [1, 0]]), legend=None)
    title = "accuracy, %" if metric == "accuracy" else "loss"
    form = ".1f" if metric == "accuracy" else ".3f"
    tips = [alt.Tooltip("x:Q", title="epoch"), alt.Tooltip("set:N"), alt.Tooltip("value:Q", title=title, format=form)]
    base = _chart(alt, list(rows)).encode(x=x, y=y)
    line = base.mark_line(strokeWidth=2.2, color=strategy["colour"]).encode(strokeDash=dash)
    hover = base.mark_point(filled=True, size=90, opacity=0, color=strategy["colour"]).encode(tooltip=tips)
    said = (
        f"{title} over epochs for {strategy['name']}, training and validation; the table beside it holds the figures."
    )
    return alt.layer(*_marks(alt, rows, x, y, strategy["colour"]), line, hover).properties(height=180, description=said)


def _marks(alt: Any, rows: Sequence[Row], x: Any, y: Any, colour: str) -> Iterator[Any]:
    """The best epoch, and where training of the head alone gave way to that of the layers above the line."""
    best = [row for row in rows if row["best"] and row["set"] == "validation"]
    if best:
        chart = _chart(alt, best)
        yield chart.mark_rule(strokeWidth=1, opacity=0.6, color=colour).encode(x=x)
        yield chart.mark_point(filled=True, size=110, opacity=1, color=colour).encode(x=x, y=y)
    head = [row["x"] for row in rows if row["stage"] == "head"]
    if head and any(row["stage"] == "main" for row in rows):
        change = _chart(alt, [{"x": max(head) + 0.5}])
        yield change.mark_rule(strokeDash=[2, 3], strokeWidth=1.5, color=GREY).encode(x=x)
