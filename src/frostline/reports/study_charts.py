"""The figures of a study: each a drawing with the numbers that it shows. A figure without a single number is None."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from frostline import wording
from frostline.reports.record import Row
from frostline.reports.svg import GREY, Canvas, Figure, Frame, Scale, domain, plain, shortened, slug

SETS = {"training": "train", "validation": "val"}  # as a reader says it, as the history does
_SIDE = 320  # units: as wide as a phone shows without shrinking the text
_CURVE = 270  # three side by side on a desk
_MOST_CLASSES = 60


def epochs(strategy: Row) -> list[Row]:
    """The head's epochs, then those of the strategy itself: "x" counts on from 1, "stage" is "head" or "main"."""
    head, main = strategy.get("head_history") or [], strategy.get("history") or []
    staged = [("head", row) for row in head] + [("main", row) for row in main]
    best = strategy.get("best_epoch")
    return [
        {**row, "x": x, "stage": stage, "best": stage == "main" and best is not None and row.get("epoch") == best}
        for x, (stage, row) in enumerate(staged, start=1)
    ]


def study(figures: Row) -> list[Figure]:
    """All figures of a study, in the order of the report; `figures` is study.json with a "colour" and "shape" for
    each strategy."""
    strategies = figures["strategies"]
    macro = bool(figures["dataset"].get("unequal"))
    classes = figures["dataset"].get("classes") or []
    drawn: list[Figure | None] = [
        accuracy(strategies, macro),
        differences(figures.get("comparisons") or []),
        *(curves(strategies, s, metric) for s in strategies for metric in ("accuracy", "loss")),
        *(confusion(s, classes) for s in strategies),
        *(classwise(strategies, metric) for metric in ("recall", "f1")),
        *(reliability(s) for s in strategies),
        *(robustness(strategies, cause) for cause in causes(strategies)),
        cost(strategies),
    ]
    return [figure for figure in drawn if figure is not None]


# ---- how good --------------------------------------------------------------------------------------------------------


def accuracy(strategies: Sequence[Row], macro: bool = False) -> Figure | None:
    """Accuracy, or macro recall, with its interval: a strategy a row."""
    metric, title = ("balanced_accuracy", "macro recall") if macro else ("accuracy", "accuracy")
    rows = [
        (s, s[metric], *_ends(s.get(f"{metric}_ci"), s[metric])) for s in strategies if wording.known(s.get(metric))
    ]
    if not rows:
        return None
    canvas = Canvas(_SIDE, 46 * len(rows) + 30, f"{title.capitalize()} of each strategy with its 95 % CI.")
    low, high = domain([100 * end for _, *ends in rows for end in ends], 5, 100)
    frame = Frame(canvas, Scale(low, high, 6, _SIDE - 44), Scale(0, 1, canvas.height - 26, 0))
    frame.across(frame.x.ticks(5 if high - low <= 20 else 6), form=lambda v: f"{plain(v)} %", grid=True)
    for index, (s, value, left, right) in enumerate(rows):
        y = 46 * index + 30
        tip = f"{s['name']}\n{title} {wording.percent(value)}\n{wording.interval((left, right))}"
        canvas.text(6, y - 14, shortened(s["name"], 40))
        canvas.bar(frame.x(100 * left), y, frame.x(100 * right), y, s["colour"], 7)
        canvas.sign(frame.x(100 * value), y, s["colour"], s["shape"], 6)
        canvas.text(_SIDE, y + 4, wording.percent(value), "strong", "end")
        _touch(canvas, y, tip)
    numbers: list[tuple[Any, ...]] = [(s["name"], value, left, right) for s, value, left, right in rows]
    return Figure(
        "accuracy", f"{title.capitalize()} with its 95 % CI", canvas, ("strategy", metric, "low", "high"), numbers
    )


def _ends(interval: Any, value: float) -> tuple[float, float]:
    known = interval and all(map(wording.known, interval))
    return (interval[0], interval[1]) if known else (value, value)


def _touch(canvas: Canvas, y: float, tip: str, tall: float = 40) -> None:
    canvas.draw("rect", tip=tip, kind="band", x=0, y=y - tall / 2 - 4, width=canvas.width, height=tall)


def differences(comparisons: Sequence[Row], name: str = "differences") -> Figure | None:
    """Each pair's difference in accuracy with its interval, and where zero lies. A pair needs "a", "b", "difference"
    and "ci"."""
    rows = [
        (c, c["difference"], *_ends(c.get("ci"), c["difference"]))
        for c in comparisons
        if wording.known(c.get("difference"))
    ]
    if not rows:
        return None
    canvas = Canvas(_SIDE, 46 * len(rows) + 44, "Paired differences in accuracy with their 95 % CIs.")
    ends = [100 * end for _, *values in rows for end in values]
    low, high = domain([*ends, 0], 2 if max(map(abs, ends)) < 12 else 5, 100, -100)
    frame = Frame(canvas, Scale(low, high, 6, _SIDE - 44), Scale(0, 1, canvas.height - 40, 0))
    frame.across(frame.x.ticks(6), "points of accuracy", grid=True)
    canvas.line(frame.x(0), frame.y.start, frame.x(0), 0, "rule", stroke_width=1.4)
    for index, (c, value, left, right) in enumerate(rows):
        y = 46 * index + 30
        clear = left > 0 or right < 0
        pair = f"{shortened(c['a'], 28)} \u2212 {shortened(c['b'], 28)}"
        interval = wording.interval((left, right))
        tip = "\n".join((pair, f"{wording.points(value)} points", interval, wording.p_value(c.get("p_value"))))
        canvas.text(6, y - 14, pair)
        canvas.bar(frame.x(100 * left), y, frame.x(100 * right), y, "#0b78bd" if clear else GREY, 7)
        canvas.sign(frame.x(100 * value), y, "#0b78bd" if clear else GREY, "circle", 6)
        canvas.text(_SIDE, y + 4, wording.points(value), "strong", "end")
        _touch(canvas, y, tip)
    numbers: list[tuple[Any, ...]] = [
        (c["a"], c["b"], value, left, right, c.get("p_value")) for c, value, left, right in rows
    ]
    columns = ("a", "b", "difference", "low", "high", "p_value")
    return Figure(name, "Paired differences in accuracy", canvas, columns, numbers)


def classwise(strategies: Sequence[Row], metric: str) -> Figure | None:
    """One metric of each class, a sign a strategy, joined by a line: the longer, the more the strategies differ."""
    title, factor, show = ("recall, %", 100, wording.percent) if metric == "recall" else ("F1", 1, wording.decimal)
    tables = [(s, {row["class"]: row.get(metric) for row in s.get("per_class") or []}) for s in strategies]
    labels = list(dict.fromkeys(label for _, table in tables for label in table))
    values = {
        label: [(s, table.get(label)) for s, table in tables if wording.known(table.get(label))] for label in labels
    }
    known = [float(factor * (value or 0)) for cells in values.values() for _, value in cells]
    if not known or len(labels) > _MOST_CLASSES:
        return None
    canvas = Canvas(_SIDE, 28 * len(labels) + 44, f"{title} of each class for each strategy.")
    left = min(104.0, 6.6 * max(map(len, labels)))
    frame = Frame(
        canvas, Scale(*domain(known, 0.1 * factor, factor), left + 12, _SIDE - 12), Scale(0, 1, canvas.height - 40, 0)
    )
    frame.across(frame.x.ticks(), title, grid=True)
    for index, (label, cells) in enumerate(values.items()):
        y = 28 * index + 16
        canvas.text(left, y + 4, shortened(label, 16), anchor="end")
        places = [frame.x(factor * (value or 0)) for _, value in cells]
        if places:
            canvas.line(min(places), y, max(places), y, "rule", stroke_width=1.6, stroke_opacity=0.45)
        for (s, _), place in zip(cells, places, strict=True):
            canvas.sign(place, y, s["colour"], s["shape"], 5)
        _touch(canvas, y + 4, "\n".join([label, *(f"{s['name']} {show(value)}" for s, value in cells)]), 28)
    numbers: list[tuple[Any, ...]] = [
        (s["name"], label, value) for label, cells in values.items() for s, value in cells
    ]
    heading = "Recall of each class" if metric == "recall" else "F1 of each class"
    return Figure(f"classes-{metric}", heading, canvas, ("strategy", "class", metric), numbers)


def confusion(strategy: Row, classes: Sequence[str]) -> Figure | None:
    """The matrix as a picture: rows are true classes, columns predicted ones, shades are shares of the true class."""
    matrix = strategy.get("confusion") or []
    if not matrix or len(classes) > _MOST_CLASSES:
        return None
    side = max(20.0, min(44.0, 300 / len(classes)))
    left, top = 108.0, 92.0
    edge = side * len(classes)
    name = strategy["name"]
    canvas = Canvas(left + edge + 8, top + edge + 8, f"Confusion matrix of {name}.")
    canvas.text(left - 8, top - 10, "true \u2193 predicted \u2192", "soft", "end")
    for index, label in enumerate(classes):
        x, y = left + side * (index + 0.5), top + side * (index + 0.5)
        canvas.text(x + 4, top - 8, shortened(label, 14), transform=f"rotate(-60 {x + 4:.1f} {top - 8:.1f})")
        canvas.text(left - 8, y + 4, shortened(label, 16), anchor="end")
    for i, counts in enumerate(matrix):
        total = sum(counts) or 1
        for j, count in enumerate(counts):
            x, y = left + side * j, top + side * i
            tip = f"{count} ({wording.percent(count / total)}) of true {classes[i]}\npredicted {classes[j]}"
            kind = "cell" if i == j else "miss"
            shade = 0.06 + (0.55 if i == j else min(0.85, 2 * count / total)) * (
                count / total if i == j else bool(count)
            )
            canvas.draw(
                "rect", tip=tip, kind=kind, x=x + 1, y=y + 1, width=side - 2, height=side - 2, rx=4, fill_opacity=shade
            )
            canvas.text(x + side / 2, y + side / 2 + 4, str(count), "" if count else "soft", "middle")
    numbers: list[tuple[Any, ...]] = [
        (classes[i], classes[j], count) for i, counts in enumerate(matrix) for j, count in enumerate(counts)
    ]
    return Figure(
        slug("confusion", name), f"Confusion matrix: {name}", canvas, ("true", "predicted", "photos"), numbers
    )


# ---- how it came about -----------------------------------------------------------------------------------------------


def curves(strategies: Sequence[Row], strategy: Row, metric: str) -> Figure | None:
    """One strategy's curve on the scales of all: training dashed, validation solid, the best epoch marked."""
    factor = 100 if metric == "accuracy" else 1
    drawn = [value for s in strategies for _, _, value in _points(s, metric)]
    rows = _points(strategy, metric)
    if not rows:
        return None
    longest = max(2, *(len(epochs(s)) for s in strategies))
    heights = domain([factor * v for v in drawn], 10, 100) if metric == "accuracy" else (0.0, 1.02 * max(drawn) or 1.0)
    title = "accuracy, %" if metric == "accuracy" else "loss"
    name = strategy["name"]
    canvas = Canvas(_CURVE, 180, f"{title} over epochs for {name}, training and validation.")
    frame = Frame(canvas, Scale(1, longest, 32, _CURVE - 8), Scale(*heights, 142, 24))
    frame.up(frame.y.ticks(4), title=title)
    frame.across([t for t in frame.x.ticks(5) if t == int(t) and t >= 1], "epoch")
    _epoch_marks(frame, strategy, metric, factor)
    for side in SETS:
        points = [(frame.x(x), frame.y(factor * value)) for x, s, value in rows if s == side]
        if points:
            canvas.path(points, strategy["colour"], stroke_dasharray="4 3" if side == "training" else None)
            if len(points) == 1:
                canvas.sign(*points[0], strategy["colour"], "circle", 3)
    show = wording.percent if metric == "accuracy" else wording.decimal
    by_epoch = {x: {s: v for x2, s, v in rows if x2 == x} for x, _, _ in rows}
    frame.bands([
        (x, "\n".join([f"epoch {x}", *(f"{side} {show(sides[side])}" for side in SETS if side in sides)]))
        for x, sides in by_epoch.items()
    ])  # fmt: skip
    numbers: list[tuple[Any, ...]] = [
        (x, sides.get("training"), sides.get("validation")) for x, sides in by_epoch.items()
    ]
    heading = f"{'Accuracy' if metric == 'accuracy' else 'Loss'} over epochs: {name}"
    return Figure(slug("curve", metric, name), heading, canvas, ("epoch", "training", "validation"), numbers)


def _points(strategy: Row, metric: str) -> list[tuple[int, str, float]]:
    cells = [(row, name, row.get(f"{key}_{metric}")) for row in epochs(strategy) for name, key in SETS.items()]
    return [(row["x"], name, value) for row, name, value in cells if wording.known(value)]


def _epoch_marks(frame: Frame, strategy: Row, metric: str, factor: float) -> None:
    """The best epoch, and where training of the head alone gave way to that of the layers above the line."""
    rows = epochs(strategy)
    head = [row["x"] for row in rows if row["stage"] == "head"]
    if head and len(head) < len(rows):
        place = frame.x(max(head) + 0.5)
        frame.canvas.line(place, frame.y.start, place, frame.y.end, "rule", stroke_width=1.4, stroke_dasharray="2 3")
    for row in rows:
        value = row.get(f"val_{metric}")
        if row["best"] and wording.known(value):
            x = frame.x(row["x"])
            frame.canvas.line(x, frame.y.start, x, frame.y.end, "", stroke=strategy["colour"], stroke_opacity=0.5)
            frame.canvas.sign(x, frame.y(factor * value), strategy["colour"], "circle", 5)


def cost(strategies: Sequence[Row]) -> Figure | None:
    """Accuracy over trainable parameters."""
    rows = [
        (s, float(s["parameters"]["trainable"]), s["accuracy"], *_ends(s.get("accuracy_ci"), s["accuracy"]))
        for s in strategies
        if wording.known(s.get("accuracy")) and (s.get("parameters") or {}).get("trainable")
    ]
    if len(rows) < 2:
        return None
    canvas = Canvas(_SIDE, 230, "Accuracy over the number of trainable parameters.")
    sizes = [row[1] for row in rows]
    low, high = domain([100 * end for row in rows for end in row[2:]], 5, 100)
    frame = Frame(canvas, Scale(min(sizes) / 2.5, max(sizes) * 2.5, 38, _SIDE - 8, log=True), Scale(low, high, 190, 24))
    frame.up(frame.y.ticks(), title="accuracy, %")
    frame.across(frame.x.ticks(), "trainable parameters")
    for s, size, value, left, right in rows:
        x, y = frame.x(size), frame.y(100 * value)
        figure = f"accuracy {wording.percent(value)}, {wording.span((left, right))}"
        tip = f"{s['name']}\n{wording.count(round(size))} trainable\n{figure}"
        canvas.bar(x, frame.y(100 * left), x, frame.y(100 * right), s["colour"])
        canvas.sign(x, y, s["colour"], s["shape"], 6, tip)
    numbers: list[tuple[Any, ...]] = [(s["name"], round(size), *rest) for s, size, *rest in rows]
    columns = ("strategy", "trainable", "accuracy", "low", "high")
    return Figure("cost", "Accuracy over trainable parameters", canvas, columns, numbers)


# ---- how far to trust it ---------------------------------------------------------------------------------------------


def reliability(strategy: Row) -> Figure | None:
    """Accuracy over confidence; on the diagonal they are equal. Hollow: before temperature scaling; filled: after."""
    sides = [(side, rows) for side, rows in _reliability(strategy.get("reliability")) if rows]
    if not sides:
        return None
    name = strategy["name"]
    canvas = Canvas(300, 316, f"Reliability diagram of {name}: accuracy over confidence.")
    frame = Frame(canvas, Scale(0, 100, 38, 290), Scale(0, 100, 276, 24))
    frame.up([0, 20, 40, 60, 80, 100], title="accuracy, %")
    frame.across([0, 20, 40, 60, 80, 100], "confidence, %")
    canvas.line(frame.x(0), frame.y(0), frame.x(100), frame.y(100), "rule", stroke_dasharray="4 4", stroke_opacity=0.7)
    numbers: list[tuple[Any, ...]] = []
    for side, rows in sides:
        hollow = side == "before" and len(sides) > 1
        _reliability_side(frame, side, rows, GREY if hollow else strategy["colour"], hollow)
        numbers += [
            (side, b["confidence"], b["accuracy"], *_ends(b.get("ci"), b["accuracy"]), b.get("count")) for b in rows
        ]
    columns = ("temperature", "confidence", "accuracy", "low", "high", "photos")
    return Figure(slug("reliability", name), f"Reliability: {name}", canvas, columns, numbers)


def _reliability_side(frame: Frame, side: str, rows: Sequence[Row], colour: str, hollow: bool) -> None:
    """The bins of one side, joined by a line, each with its tip; intervals where the signs are filled."""
    points = [(frame.x(100 * b["confidence"]), frame.y(100 * b["accuracy"])) for b in rows]
    frame.canvas.path(points, colour, 1.4, stroke_opacity=0.7)
    for (x, y), b in zip(points, rows, strict=True):
        left, right = _ends(b.get("ci"), b["accuracy"])
        if not hollow:
            frame.canvas.bar(x, frame.y(100 * left), x, frame.y(100 * right), colour, 4)
        tip = (
            f"{side} temperature scaling",
            f"{wording.count(b.get('count'))} photos",
            f"confidence {wording.percent(b['confidence'])}",
            f"accuracy {wording.percent(b['accuracy'])}, {wording.span((left, right))}",
        )
        frame.canvas.sign(x, y, colour, "circle", 4, "\n".join(tip), hollow)


def _reliability(value: Any) -> Iterator[tuple[str, list[Row]]]:
    """("before" or "after", bins) of whatever a run holds."""
    sides = {"after": value} if isinstance(value, list) else value if isinstance(value, dict) else {}
    for side in ("before", "after"):
        bins = [b for b in sides.get(side) or [] if isinstance(b, dict)]
        yield side, [b for b in bins if wording.known(b.get("confidence")) and wording.known(b.get("accuracy"))]


def causes(strategies: Sequence[Row]) -> list[str]:
    """The causes that robustness was measured for, those that hurt most on average first."""
    drops: dict[str, list[float]] = {}
    for s in strategies:
        for row in (s.get("robustness") or {}).get("causes") or []:
            drops.setdefault(row["cause"], []).append(row.get("mean_drop") or 0)
    return sorted(drops, key=lambda cause: -sum(drops[cause]) / len(drops[cause]))


Points = list[tuple[int, float, float, float]]
"""Severity, accuracy, and the ends of its interval."""


def robustness(strategies: Sequence[Row], cause: str) -> Figure | None:
    """Accuracy over the severity of one corruption; severity 0 is the photos as they are."""
    measured = [(s, _corruption(s, cause)) for s in strategies]
    lines = [(s, _severities(s, row)) for s, row in measured if row]
    if not any(points for _, points in lines):
        return None
    title = next(row.get("title") for _, row in measured if row) or cause
    canvas = Canvas(240, 168, f"Accuracy under {title}, by severity.")
    last = max(x for _, points in lines for x, *_ in points)
    frame = Frame(canvas, Scale(0, max(1, last), 34, 230), Scale(0, 100, 132, 16))
    frame.up([0, 50, 100])
    frame.across(list(range(last + 1)), "severity")
    tips: dict[int, list[str]] = {}
    for s, points in lines:
        _corrupted_line(frame, s, points)
        for x, value, *_ in points:
            heading = f"{title}, severity {x}" if x else "photos as they are"
            tips.setdefault(x, [heading]).append(f"{s['name']} {wording.percent(value)}")
    frame.bands([(x, "\n".join(tips[x])) for x in sorted(tips)])
    numbers = [(s["name"], *point) for s, points in lines for point in points]
    columns = ("strategy", "strength", "accuracy", "low", "high")
    return Figure(slug("robustness", cause), f"Accuracy under {title}", canvas, columns, numbers)


def _corruption(strategy: Row, cause: str) -> Row | None:
    rows: list[Row] = (strategy.get("robustness") or {}).get("causes") or []
    return next((row for row in rows if row["cause"] == cause), None)


def _severities(strategy: Row, row: Row) -> Points:
    """What is known of one strategy under one corruption, severity 0 first."""
    clean = strategy["robustness"].get("clean")
    cells = zip(row["accuracy"], row.get("ci") or [None] * len(row["accuracy"]), strict=False)
    values = [(0, clean, None), *((x, value, ci) for x, (value, ci) in enumerate(cells, start=1))]
    return [(x, value, *_ends(ci, value)) for x, value, ci in values if wording.known(value)]


def _corrupted_line(frame: Frame, strategy: Row, points: Points) -> None:
    """One strategy's line with its interval as a band, and its sign at the end."""
    colour, canvas = strategy["colour"], frame.canvas
    low = [(frame.x(x), frame.y(100 * left)) for x, _, left, _ in points]
    high = [(frame.x(x), frame.y(100 * right)) for x, _, _, right in reversed(points)]
    line = [(frame.x(x), frame.y(100 * value)) for x, value, *_ in points]
    if line:
        canvas.area(low + high, colour)
        canvas.path(line, colour, 2)
        canvas.sign(*line[-1], colour, strategy["shape"], 4)
