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


def specifications(strategies: Sequence[Row], *, macro: bool = False) -> dict[str, Row]:
    """Specifications by the name that the template places them under: accuracy, recall, f1, accuracy-0.., loss-0..

    With `macro` the first shows macro recall. A chart without a single number is left out. Each strategy of study.json needs a
    "colour" and "shape".
    """
    charts = {
        "accuracy": _dot_plot(
            strategies, *(("balanced_accuracy", "macro recall") if macro else ("accuracy", "accuracy"))
        ),
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


def _dot_plot(strategies: Sequence[Row], metric: str, title: str) -> Any:
    """Accuracy or macro recall with its interval, a strategy a row."""
    import altair as alt  # 0.4 s: only who builds a report pays

    rows = []
    for s in (s for s in strategies if s.get(metric) is not None):
        low, high = s.get(f"{metric}_ci") or (None, None)
        value = 100 * s[metric]
        ends = {"low": value if low is None else 100 * low, "high": value if high is None else 100 * high}
        rows.append({"strategy": s["name"], "value": value, **ends, "label": f"{value:.1f}\u00a0%"})
    if not rows:
        return None
    scale = alt.Scale(domain=_domain((row[end] for row in rows for end in ("low", "high")), 5, 100), nice=False)
    base = _chart(alt, rows).encode(y=alt.Y("strategy:N", sort=None, title=None))
    axis = alt.Axis(tickCount=6, title=f"{title} in %, with its 95 % interval")
    x, low_end = (alt.X(f"{name}:Q", scale=scale, axis=axis) for name in ("value", "low"))
    names = {"value": f"{title}, %", "low": "interval from", "high": "to"}
    figures = [alt.Tooltip(f"{key}:Q", title=title, format=".1f") for key, title in names.items()]
    tips = [alt.Tooltip("strategy:N"), *figures]
    sign = _sign(alt, strategies, legend=None)
    bar = base.mark_rule(strokeWidth=6, opacity=0.45, strokeCap="round")
    bar = bar.encode(x=low_end, x2="high:Q", color=sign["color"])
    dot = base.mark_point(filled=True, size=150, opacity=1).encode(x=x, tooltip=tips, **sign)
    text = base.mark_text(dy=-17, fontSize=13, fontWeight=600).encode(x=x, text="label:N")
    said = f"{title.capitalize()} of each strategy with its 95 % interval; the table beside it holds the figures."
    return alt.layer(bar, dot, text).properties(height=56 * len(rows), description=said)


def seeds_plot(strategies: Sequence[Row]) -> str:
    """Each strategy's seeds as dots, with the mean and its interval, as SVG: one picture for the page and for a file of its own.

    Each of `strategies` needs "name", "mean", "ci", "seeds" (one accuracy a seed), "colour" and "shape".
    """
    import altair as alt
    import vl_convert

    rows = []
    for s in strategies:
        low, high = (100 * end for end in s["ci"])
        shared = {"strategy": s["name"], "low": low, "high": high, "mean": 100 * s["mean"]}
        rows += [{**shared, "value": 100 * value, "first": number == 0} for number, value in enumerate(s["seeds"])]
    ends = [row[key] for row in rows for key in ("low", "high", "value")]
    scale = alt.Scale(domain=_domain(ends, 5, 100), nice=False)
    axis = alt.Axis(tickCount=6, title="accuracy in %: each seed, and their mean with its 95 % interval")
    base = _chart(alt, rows).encode(y=alt.Y("strategy:N", sort=None, title=None))
    once = base.transform_filter("datum.first")
    sign = _sign(alt, strategies, legend=None)
    x, mean, low_end = (alt.X(f"{name}:Q", scale=scale, axis=axis) for name in ("value", "mean", "low"))
    bar = once.mark_rule(strokeWidth=6, opacity=0.35, strokeCap="round")
    bar = bar.encode(x=low_end, x2="high:Q", color=sign["color"])
    tick = once.mark_tick(thickness=3, size=26).encode(x=mean, color=sign["color"])
    dots = base.mark_point(filled=False, size=80, strokeWidth=1.8, opacity=1).encode(x=x, **sign)
    label = once.transform_calculate(label="format(datum.mean, '.1f') + '\u00a0%'")
    text = label.mark_text(dy=-20, fontSize=13, fontWeight=600).encode(x=mean, text="label:N")
    said = "Accuracy of each strategy with each seed, and the mean with its 95 % interval; the table holds the figures."
    chart = alt.layer(bar, tick, dots, text).properties(width=640, height=60 * len(strategies), description=said)
    spec = {**chart.to_dict(), "config": {**CONFIG, "background": "white"}}
    svg: str = vl_convert.vegalite_to_svg(spec, ".".join(alt.SCHEMA_VERSION.split(".")[:2]))
    return svg


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


# ---- sweeps ----------------------------------------------------------------------------------------------------------

WARM, COLD = COLOURS[0], COLOURS[1]


def line_specifications(lines: Sequence[Row]) -> dict[str, Row]:
    """The charts of a sweep over freeze lines, by the name that the template places them under: accuracy, trainable, seconds.

    Each line needs "name", "value", "low", "high", "validation" (percent), "recommended", "trainable" and "seconds".
    """
    return {name: _specification(chart) for name, chart in _line_charts(lines).items()}


def line_svg(lines: Sequence[Row]) -> str:
    """The same charts in one picture."""
    import altair as alt

    charts = _line_charts(lines)
    beside = [charts[name].properties(width=330) for name in ("trainable", "seconds")]
    title = "Amber: the recommended line; diamonds: validation photos; bars: 95 % intervals"
    first = charts["accuracy"].properties(width=760, title=alt.Title(title, fontSize=13, fontWeight="normal"))
    return _svg(alt.vconcat(first, alt.hconcat(*beside)))


def _line_charts(lines: Sequence[Row]) -> dict[str, Any]:
    names = [line["name"] for line in lines]
    return {
        "accuracy": _line_accuracy(lines, names),
        "trainable": _line_bars(lines, names, "trainable", "trainable parameters", "~s"),
        "seconds": _line_bars(lines, names, "seconds", "seconds of training", "~s"),
    }


def _line_axis(alt: Any, names: Sequence[str], title: str) -> Any:
    return alt.X("name:O", sort=list(names), title=title, axis=alt.Axis(labelAngle=0, grid=False))


def _line_accuracy(lines: Sequence[Row], names: Sequence[str]) -> Any:
    """Accuracy with its interval at each line, validation beside it, the recommended line in another colour."""
    import altair as alt

    ends = [line[key] for line in lines for key in ("low", "high", "validation")]
    scale = alt.Scale(domain=_domain(ends, 5, 100), nice=False)
    base = _chart(alt, lines).encode(x=_line_axis(alt, names, "freeze line: from the head alone to the whole network"))
    axis = alt.Axis(tickCount=6, title="accuracy, %")
    value, low, seen = (alt.Y(f"{key}:Q", scale=scale, axis=axis) for key in ("value", "low", "validation"))
    colour = alt.condition("datum.recommended", alt.value(WARM), alt.value(COLD))
    shown = {"value": "accuracy, %", "low": "interval from", "high": "to", "validation": "validation, %"}
    figures = [alt.Tooltip(f"{key}:Q", title=title, format=".1f") for key, title in shown.items()]
    tips = [alt.Tooltip("name:N", title="line"), *figures]
    path = base.mark_line(strokeWidth=1.5, opacity=0.35, color=COLD).encode(y=value)
    bar = base.mark_rule(strokeWidth=6, opacity=0.4, strokeCap="round").encode(y=low, y2="high:Q", color=colour)
    watched = base.mark_point(shape="diamond", size=80, opacity=1, strokeWidth=1.6, color=GREY).encode(y=seen)
    dot = base.mark_point(filled=True, size=150, opacity=1).encode(y=value, color=colour, tooltip=tips)
    text = base.mark_text(dx=11, align="left", fontSize=12, fontWeight=600).encode(y=value, text="label:N")
    said = "Accuracy at each freeze line with its 95 % interval; the table below holds the figures."
    return alt.layer(path, bar, watched, dot, text).properties(height=300, description=said)


def _line_bars(lines: Sequence[Row], names: Sequence[str], key: str, title: str, form: str) -> Any:
    import altair as alt

    colour = alt.condition("datum.recommended", alt.value(WARM), alt.value(COLD))
    y = alt.Y(f"{key}:Q", title=title, axis=alt.Axis(tickCount=4, format=form))
    bars = _chart(alt, lines).mark_bar(cornerRadiusEnd=3, opacity=0.85)
    tips = [alt.Tooltip("name:N", title="line"), alt.Tooltip(f"{key}:Q", title=title, format=",.1~f")]
    said = f"{title} at each freeze line; the table holds the figures."
    return bars.encode(x=_line_axis(alt, names, "freeze line"), y=y, color=colour, tooltip=tips).properties(
        height=170, description=said
    )


def photo_specifications(
    curves: Sequence[Row], forecasts: Sequence[Row], crossings: Sequence[Row], strategies: Sequence[Row]
) -> dict[str, Row]:
    """The charts of a sweep over numbers of photos: curves, and a difference chart for each crossing ("difference-0", ..).

    `curves`, `forecasts` and `crossings` as in sweep.json; `strategies` need "name", "colour" and "shape".
    """
    charts = {"curves": _learning_curves(curves, forecasts, crossings, strategies)}
    charts |= {f"difference-{i}": _differences(c) for i, c in enumerate(crossings)}
    return {name: _specification(chart) for name, chart in charts.items()}


def photo_svg(
    curves: Sequence[Row], forecasts: Sequence[Row], crossings: Sequence[Row], strategies: Sequence[Row]
) -> str:
    """The same charts in one picture."""
    import altair as alt

    first = _learning_curves(curves, forecasts, crossings, strategies).properties(width=760)
    return _svg(alt.vconcat(first, *(_differences(c).properties(width=760) for c in crossings)))


def _photos_axis(alt: Any, sizes: Sequence[float], end: float) -> Any:
    scale = alt.Scale(type="log", domain=[min(sizes) * 0.9, end * 1.06], nice=False)
    ticks = sorted({round(size) for size in (*sizes, end)})
    axis = alt.Axis(values=ticks, format=",.0f", grid=False, labelOverlap=True, title="training photos of each class")
    return alt.X("per_class:Q", scale=scale, axis=axis)


def _learning_curves(
    curves: Sequence[Row], forecasts: Sequence[Row], crossings: Sequence[Row], strategies: Sequence[Row]
) -> Any:
    """Mean accuracy and its band over the number of photos, each repeat as a faint dot, the forecast dashed."""
    import altair as alt

    rows = [_percent(row) for row in curves]
    single = [
        {"strategy": r["strategy"], "per_class": r["per_class"], "value": 100 * x} for r in curves for x in r["repeats"]
    ]
    ahead = [_percent(f) for f in forecasts if "accuracy" in f]
    last = {r["strategy"]: r for r in rows}
    path = [{k: r[k] for k in ("strategy", "per_class", "value")} for f in ahead for r in (last[f["strategy"]], f)]
    ends = [r[k] for r in (*rows, *ahead) for k in ("low", "high")] + [r["value"] for r in single]
    x = _photos_axis(alt, [r["per_class"] for r in rows], max(r["per_class"] for r in (*rows, *ahead)))
    y = alt.Y(
        "value:Q",
        scale=alt.Scale(domain=_domain(ends, 5, 100), nice=False),
        axis=alt.Axis(tickCount=6, title="accuracy, %"),
    )
    low = y.copy()
    low.shorthand = "low:Q"
    sign = _sign(alt, strategies, legend=alt.Legend(symbolOpacity=1))
    numbers = {"per_class": "photos of each class", "value": "accuracy, %", "low": "interval from", "high": "to"}
    tips = [alt.Tooltip("strategy:N"), *(alt.Tooltip(f"{k}:Q", title=t, format=".1f") for k, t in numbers.items())]
    base = _chart(alt, rows).encode(x=x, color=sign["color"])
    layers = [
        base.mark_area(opacity=0.18).encode(y=low, y2="high:Q"),
        base.mark_line(strokeWidth=2.2).encode(y=y),
        _chart(alt, single).mark_tick(thickness=1.5, size=9, opacity=0.55, orient="horizontal").encode(x=x, y=y, color=sign["color"]),
        base.mark_point(filled=True, size=90, opacity=1).encode(y=y, shape=sign["shape"], tooltip=tips),
    ]  # fmt: skip
    if ahead:
        to = _chart(alt, ahead).encode(x=x, color=sign["color"])
        layers += [
            _chart(alt, path).mark_line(strokeWidth=2, strokeDash=[4, 4]).encode(x=x, y=y, color=sign["color"]),
            to.mark_rule(strokeWidth=5, opacity=0.35, strokeCap="round").encode(y=low, y2="high:Q"),
            to.mark_point(size=90, opacity=1, strokeWidth=2).encode(y=y, shape=sign["shape"], tooltip=tips),
        ]
    marks = [{"per_class": c["at"]} for c in crossings if c["at"] is not None and not c["from_the_start"]]
    if marks:
        layers.append(_chart(alt, marks).mark_rule(strokeDash=[2, 3], strokeWidth=1.5, color=GREY).encode(x=x))
    said = (
        "Accuracy over the number of training photos of each class, with 95 % intervals; the table holds the figures."
    )
    return alt.layer(*layers).properties(height=340, description=said)


def _percent(row: Row) -> Row:
    low, high = row["accuracy_ci"]
    place = {"strategy": row["strategy"], "per_class": row["per_class"]}
    return {**place, "value": 100 * row["accuracy"], "low": 100 * low, "high": 100 * high}


def _differences(crossing: Row) -> Any:
    """How far one strategy is ahead of another at each number of photos."""
    import altair as alt

    rows = [
        {"per_class": d["per_class"], "value": 100 * d["difference"], "low": 100 * d["ci"][0], "high": 100 * d["ci"][1]}
        for d in crossing["differences"]
    ]
    x = _photos_axis(alt, [r["per_class"] for r in rows], max(r["per_class"] for r in rows))
    title = f"{crossing['challenger']} \u2212 {crossing['reference']}, points"
    numbers = {"per_class": "photos of each class", "value": title, "low": "interval from", "high": "to"}
    tips = [alt.Tooltip(f"{k}:Q", title=t, format=".1f") for k, t in numbers.items()]
    base = _chart(alt, rows).encode(x=x)
    zero = _chart(alt, [{"value": 0}]).mark_rule(strokeWidth=1.2, color=GREY).encode(y="value:Q")
    bar = base.mark_rule(strokeWidth=6, opacity=0.4, strokeCap="round", color=COLD).encode(y="low:Q", y2="high:Q")
    y = alt.Y("value:Q", axis=alt.Axis(tickCount=5, title=title))
    dot = base.mark_point(filled=True, size=110, opacity=1, color=COLD).encode(y=y, tooltip=tips)
    said = f"{title} at each number of photos with its 95 % interval; the table holds the figures."
    return alt.layer(zero, bar, dot).properties(height=180, description=said)


def _svg(chart: Any) -> str:
    """A picture on its own, on white."""
    import altair as alt
    import vl_convert

    spec = {**chart.to_dict(), "config": {**CONFIG, "background": "white"}}
    picture: str = vl_convert.vegalite_to_svg(spec, vl_version=".".join(alt.SCHEMA_VERSION.split(".")[:2]))
    return picture
