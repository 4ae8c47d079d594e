"""The figures of sweeps and of studies over several seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from frostline import wording
from frostline.documents import Sweep
from frostline.documents.seeds import SeedsRow
from frostline.documents.study import Crossing, CurvePoint
from frostline.documents.sweep import Forecast
from frostline.reports.svg import COLOURS, GREY, Canvas, Figure, Frame, Scale, domain, looks, plain, shortened

WARM, COLD = COLOURS[0], COLOURS[1]


def figures(document: Sweep) -> list[Figure]:
    """The figures of a sweep.json; none before its points have ended."""
    return _line_figures(document) if document["plan"]["kind"] == "lines" else _photo_figures(document)


def _line_figures(document: Sweep) -> list[Figure]:
    found = document.get("recommendation")
    if not found:
        return []
    judged = {row["name"]: row for row in found["lines"]}
    return lines([
        Line(
            row["name"], row["accuracy"], row["accuracy_ci"][0], row["accuracy_ci"][1], judged[row["name"]]["accuracy"],
            row["name"] == found["recommended"], row["parameters"]["trainable"], row["seconds"]["train"],
        )
        for row in document["lines"]
    ])  # fmt: skip


def _photo_figures(document: Sweep) -> list[Figure]:
    if not document.get("curves"):
        return []
    return photos(document["curves"], document["forecasts"], document["crossings"], looks(strategies(document)))


def strategies(document: Sweep) -> list[str]:
    """Names of the strategies of a sweep over numbers of photos."""
    return list(dict.fromkeys(row["strategy"] for row in document.get("photos") or []))


# ---- over freeze lines -----------------------------------------------------------------------------------------------


class Line(NamedTuple):
    """What is drawn of one freeze line; accuracies are fractions of 1."""

    name: str
    accuracy: float
    low: float
    high: float
    validation: float
    recommended: bool
    trainable: int
    seconds: float
    """Of training."""

    @property
    def colour(self) -> str:
        """The recommended line stands out."""
        return WARM if self.recommended else COLD


def lines(rows: Sequence[Line]) -> list[Figure]:
    """The figures of a sweep over freeze lines: accuracy, trainable parameters, seconds of training."""
    trainable = [(row, float(row.trainable), wording.short(row.trainable)) for row in rows]
    seconds = [(row, row.seconds, f"{row.seconds:.0f}" if row.seconds >= 10 else f"{row.seconds:.1f}") for row in rows]
    return [
        _line_accuracy(rows),
        _line_bars("trainable", "Trainable parameters", trainable),
        _line_bars("seconds", "Seconds of training", seconds),
    ]


def _line_accuracy(rows: Sequence[Line]) -> Figure:
    """Accuracy with its interval at each line, validation beside it, the recommended line in another colour."""
    canvas = Canvas(640, 300, "Accuracy at each freeze line with its 95 % CI.")
    low, high = domain([100 * value for row in rows for value in (row.low, row.high, row.validation)], 5, 100)
    frame = Frame(canvas, Scale(-0.5, len(rows) - 0.5, 38, 632), Scale(low, high, 258, 26))
    frame.up(frame.y.ticks(6), title="accuracy, %")
    frame.across(range(len(rows)), "freeze line: from the head alone to the whole network", lambda i: rows[int(i)].name)
    line = [(frame.x(i), frame.y(100 * row.accuracy)) for i, row in enumerate(rows)]
    canvas.path(line, COLD, 1.5, stroke_opacity=0.35)
    for (x, y), row in zip(line, rows, strict=True):
        canvas.bar(x, frame.y(100 * row.low), x, frame.y(100 * row.high), row.colour)
        canvas.sign(x, frame.y(100 * row.validation), GREY, "diamond", 4.5, hollow=True)
        canvas.sign(x, y, row.colour, "circle", 6)
        canvas.text(x + 10, y + 4, f"{100 * row.accuracy:.1f}", "strong")
    frame.bands([(i, _line_tip(row)) for i, row in enumerate(rows)])
    columns = ("line", "accuracy", "low", "high", "validation")
    return Figure("accuracy", "Accuracy at each freeze line", canvas, columns, [row[:5] for row in rows])


def _line_tip(row: Line) -> str:
    accuracy = f"accuracy {wording.percent(row.accuracy)} ({wording.span((row.low, row.high))})"
    return f"line {row.name}\n{accuracy}\nvalidation {wording.percent(row.validation)}"


def _line_bars(key: str, title: str, rows: Sequence[tuple[Line, float, str]]) -> Figure:
    """A bar for each line: its value, and what is written above it."""
    canvas = Canvas(400, 190, f"{title} at each freeze line.")
    most = max(value for _, value, _ in rows) or 1
    frame = Frame(canvas, Scale(-0.5, len(rows) - 0.5, 8, 392), Scale(0, 1.12 * most, 150, 16))
    frame.across(range(len(rows)), "freeze line", lambda i: rows[int(i)][0].name)
    wide = 0.62 * (frame.x(1) - frame.x(0)) if len(rows) > 1 else 60
    for i, (row, value, text) in enumerate(rows):
        x, y = frame.x(i), frame.y(value)
        tip = f"line {row.name}\n{title.lower()} {wording.count(round(value))}"
        canvas.draw("rect", tip=tip, x=x - wide / 2, y=y, width=wide, height=frame.y.start - y, rx=2, fill=row.colour)
        canvas.text(x, y - 5, text, "soft", "middle", font_size="9.5")
    canvas.line(8, 150, 392, 150)
    numbers = [(row.name, getattr(row, key)) for row, *_ in rows]
    return Figure(key, f"{title} at each freeze line", canvas, ("line", key), numbers)


# ---- over numbers of photos ------------------------------------------------------------------------------------------


Signs = Mapping[str, tuple[str, str]]
"""Colour and shape of each strategy."""


def photos(
    curves: Sequence[CurvePoint], forecasts: Sequence[Forecast], crossings: Sequence[Crossing], signs: Signs
) -> list[Figure]:
    """The figures of a sweep over numbers of photos: "curves", then "difference-0", .. for each crossing."""
    first = _learning_curves(curves, forecasts, crossings, signs)
    return [first, *(_difference(c, i) for i, c in enumerate(crossings))]


def _learning_curves(
    curves: Sequence[CurvePoint], forecasts: Sequence[Forecast], crossings: Sequence[Crossing], signs: Signs
) -> Figure:
    """Mean accuracy and its band over the number of photos, each repeat as a faint stroke, the forecast dashed."""
    ahead = [f for f in forecasts if "accuracy" in f]
    ends = [100 * end for row in (*curves, *ahead) for end in row["accuracy_ci"]]
    ends += [100 * value for row in curves for value in row["repeats"]]
    sizes = [row["per_class"] for row in (*curves, *ahead)]
    canvas = Canvas(640, 340, "Accuracy over the number of training photos of each class, with 95 % CIs.")
    frame = Frame(
        canvas, Scale(0.9 * min(sizes), 1.08 * max(sizes), 38, 632, log=True), Scale(*domain(ends, 5, 100), 298, 26)
    )
    frame.up(frame.y.ticks(6), title="accuracy, %")
    frame.across(_apart(frame, sorted(set(sizes))), "training photos of each class", lambda v: f"{v:,.0f}")
    for c in crossings:
        if c["at"] is not None and not c["from_the_start"]:
            frame.canvas.line(
                frame.x(c["at"]), 298, frame.x(c["at"]), 26, "rule", stroke_dasharray="2 3", stroke_width=1.4
            )
    for name, sign in signs.items():
        own = [row for row in curves if row["strategy"] == name]
        _one_curve(frame, sign, own, [f for f in ahead if f["strategy"] == name])
    _band_tips(frame, curves, ahead)
    numbers: list[tuple[Any, ...]] = [
        (row["strategy"], row["per_class"], kind, row["accuracy"], *row["accuracy_ci"])
        for kind, rows in (("measured", curves), ("forecast", ahead))
        for row in rows
    ]
    columns = ("strategy", "photos_of_each_class", "kind", "accuracy", "low", "high")
    return Figure("curves", "Accuracy over the number of training photos", canvas, columns, numbers)


def _one_curve(frame: Frame, sign: tuple[str, str], rows: Sequence[CurvePoint], ahead: Sequence[Forecast]) -> None:
    """One strategy's curve: the interval as a band, repeats as strokes, the forecast dashed."""
    if not rows:
        return
    canvas, (colour, shape) = frame.canvas, sign

    def place(row: CurvePoint | Forecast, value: float) -> tuple[float, float]:
        return frame.x(row["per_class"]), frame.y(100 * value)

    low = [place(row, row["accuracy_ci"][0]) for row in rows]
    high = [place(row, row["accuracy_ci"][1]) for row in reversed(rows)]
    canvas.area(low + high, colour)
    for row in rows:
        for value in row["repeats"]:
            x, y = place(row, value)
            canvas.line(x - 4, y, x + 4, y, "", stroke=colour, stroke_width=1.4, stroke_opacity=0.55)
    canvas.path([place(row, row["accuracy"]) for row in rows], colour)
    for f in ahead:
        canvas.path([place(rows[-1], rows[-1]["accuracy"]), place(f, f["accuracy"])], colour, 2, stroke_dasharray="4 4")
        canvas.bar(*place(f, f["accuracy_ci"][0]), *place(f, f["accuracy_ci"][1]), colour, 5)
        canvas.sign(*place(f, f["accuracy"]), colour, shape, 5, hollow=True)
    for row in rows:
        canvas.sign(*place(row, row["accuracy"]), colour, shape, 5)


def _band_tips(frame: Frame, curves: Sequence[CurvePoint], ahead: Sequence[Forecast]) -> None:
    tips: dict[float, list[str]] = {}
    for row in sorted((*curves, *ahead), key=lambda row: float(row["per_class"])):
        said = f"{row['strategy']} {wording.percent(row['accuracy'])} ({wording.span(row['accuracy_ci'])})"
        tips.setdefault(row["per_class"], [f"{row['per_class']:,.0f} of each class"]).append(said)
    frame.bands([(size, "\n".join(said)) for size, said in tips.items()])


def _apart(frame: Frame, sizes: Sequence[float]) -> list[float]:
    """Those values whose labels don't touch."""
    kept: list[float] = []
    for size in sizes:
        if not kept or frame.x(size) - frame.x(kept[-1]) > 34:
            kept.append(size)
    return kept


def _difference(crossing: Crossing, index: int) -> Figure:
    """How far one strategy is ahead of another at each number of photos."""
    rows, tips = crossing["differences"], []
    title = f"{crossing['challenger']} \u2212 {crossing['reference']}, points"
    canvas = Canvas(640, 210, f"{title} at each number of photos with its 95 % CI.")
    ends = [100 * end for row in rows for end in (*row["ci"], 0)]
    sizes = [row["per_class"] for row in rows]
    x = Scale(0.9 * min(sizes), 1.08 * max(sizes), 38, 632, log=True)
    frame = Frame(canvas, x, Scale(*domain(ends, 5, 100, -100), 168, 26))
    frame.up(frame.y.ticks(), title=title)
    frame.across(_apart(frame, sizes), "training photos of each class", lambda v: f"{v:,.0f}")
    canvas.line(38, frame.y(0), 632, frame.y(0), "rule", stroke_width=1.2)
    for row in rows:
        place = frame.x(row["per_class"])
        canvas.bar(place, frame.y(100 * row["ci"][0]), place, frame.y(100 * row["ci"][1]), COLD)
        canvas.sign(place, frame.y(100 * row["difference"]), COLD, "circle", 5.5)
    for row in rows:
        gap = f"{wording.points(row['difference'])} points ({wording.span(row['ci'])})"
        tips.append((row["per_class"], f"{row['per_class']:,.0f} of each class\n{gap}"))
    frame.bands(tips)
    numbers: list[tuple[Any, ...]] = [(row["per_class"], row["difference"], *row["ci"]) for row in rows]
    columns = ("photos_of_each_class", "difference", "low", "high")
    return Figure(f"difference-{index}", title.replace(", points", " by number of photos"), canvas, columns, numbers)


# ---- over seeds ------------------------------------------------------------------------------------------------------


def seeds(rows: Sequence[SeedsRow]) -> Figure:
    """Each strategy's seeds as hollow signs, with the mean and its interval."""
    signs = looks([s["name"] for s in rows])
    said = "Accuracy of each strategy with each seed, and the mean with its 95 % CI; the table holds the figures."
    canvas = Canvas(480, 50 * len(rows) + 46, said)
    ends = [100 * value for s in rows for value in (*s["ci"], *s["seeds"])]
    frame = Frame(canvas, Scale(*domain(ends, 5, 100), 6, 424), Scale(0, 1, canvas.height - 42, 0))
    frame.across(frame.x.ticks(6), "accuracy in %: each seed, and their mean with its 95 % CI", grid=True)
    for index, s in enumerate(rows):
        y, (colour, shape) = 50 * index + 32, signs[s["name"]]
        mean, (low, high) = frame.x(100 * s["mean"]), s["ci"]
        canvas.text(6, y - 15, shortened(s["name"], 40))
        canvas.bar(frame.x(100 * low), y, frame.x(100 * high), y, colour, 7)
        canvas.line(mean, y - 11, mean, y + 11, "", stroke=colour, stroke_width=3)
        for value in s["seeds"]:
            canvas.sign(frame.x(100 * value), y, colour, shape, 5, hollow=True)
        canvas.text(480, y + 4, wording.percent(s["mean"]), "strong", "end")
        each = ", ".join(plain(round(100 * value, 1)) for value in s["seeds"])
        tip = f"{s['name']}\nmean {wording.percent(s['mean'])}, {wording.span(s['ci'])}\nseeds {each}"
        canvas.draw("rect", tip=tip, kind="band", x=0, y=y - 28, width=480, height=46)
    numbers: list[tuple[Any, ...]] = [
        (s["name"], number, value) for s in rows for number, value in enumerate(s["seeds"])
    ]
    return Figure("seeds", "Accuracy with each seed", canvas, ("strategy", "seed", "accuracy"), numbers)
