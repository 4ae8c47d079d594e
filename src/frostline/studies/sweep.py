"""Sweeps: the same training at many freeze lines, or on many numbers of photos, and what follows from the curve.

A point of a sweep is a strategy like any other: `frostline.training.strategy` prepares, trains and measures it. The
points share what can be shared: one pass of the photos through the frozen layers, one head that all lines start from,
and the activations of the whole training part.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from frostline import documents, wording
from frostline.config import Config, configure
from frostline.documents import Sweep
from frostline.documents.decision import Decision
from frostline.documents.strategy import StrategyRow
from frostline.documents.study import Crossing
from frostline.documents.sweep import LineRow, PhotosRow, PlanFigures, Recommendation
from frostline.errors import ConfigError, RunError
from frostline.evidence.learning_curve import subsets
from frostline.files import write_csv
from frostline.networks import backbone as backbones
from frostline.networks.backbone import Backbone
from frostline.networks.short_list import MARK
from frostline.progress import Progress, open_progress
from frostline.recipes import LINE_FORMS, Strategy, is_line
from frostline.reports import sweep_page
from frostline.stats import decision, macro_recall, sweep_stats
from frostline.stats.clusters import Clusters
from frostline.stats.predictions import Prediction, clusters, read_predictions, write_predictions
from frostline.studies import cost
from frostline.studies.document import begin
from frostline.studies.run_folder import Existing, held, look, start
from frostline.studies.study import head_from, order
from frostline.training.evaluation import evaluate, torch_logits
from frostline.training.prepare import LEAST_UNFROZEN, Prepared, network_name
from frostline.training.stages import TrainedHead, discard_checkpoints, train_strategy
from frostline.training.strategy import fit, training_seconds

ALL = "all"
AUTO = "auto"
PHOTOS: tuple[int | str, ...] = (5, 10, 20, 50, 100, 200, ALL)
REPEATS = 3
LINES = 9
"""How many lines `auto` aims at."""

OnPoint = Callable[[LineRow | PhotosRow, Sweep], None]


@dataclass(frozen=True)
class Plan:
    """What is swept, beyond what the configuration says."""

    kind: Literal["lines", "photos"] = "lines"
    photos: tuple[int | str, ...] = ()
    """Photos of a class, ascending; ``"all"`` stands last."""
    repeats: int = 1
    """Trainings at each number of photos, with other photos and another seed each time."""

    def to_dict(self) -> PlanFigures:
        """The JSON form."""
        return {"kind": self.kind, "photos": list(self.photos), "repeats": self.repeats}

    @classmethod
    def of(cls, run: Path) -> Plan:
        """The plan that a run folder was begun with.

        Raises
        ------
        RunError
            It holds no sweep, or a damaged one.
        """
        found = documents.read(run, Sweep).get("plan")
        if not isinstance(found, dict) or set(found) != {"kind", "photos", "repeats"}:
            raise RunError(f"{run / 'sweep.json'} holds no plan: begin the sweep again with another --out")
        return cls(found["kind"], tuple(found["photos"]), found["repeats"])


# ---- what to sweep ---------------------------------------------------------------------------------------------------


def over_lines(data: str | Path, lines: str = AUTO, *, line: str | None = None, **options: Any) -> tuple[Config, Plan]:
    """The configuration of a sweep over freeze lines: one strategy a line, from the top down.

    Parameters
    ----------
    lines
        ``auto``, or lines as the command line takes them: ``0,features.14,30%``. The top is always among them: its
        head is what the others start from.
    line
        The fine-tuned strategy's line, where it is not the usual one; `auto` has it among its lines.
    options
        As for `frostline.configure`, less `strategies`.

    Raises
    ------
    ConfigError
        All that can't be used, in one line.
    """
    base = configure(data, strategies=("frozen", "fine-tuned"), line=line, **options)
    frozen, fine_tuned = base.strategies
    size = base.image_size or backbones.enlarged(fine_tuned.backbone, fine_tuned.enlarge)
    network = backbones.skeleton(fine_tuned.backbone, backbones.info(fine_tuned.backbone).transform(size, base.resize))
    asked = lines.strip() != AUTO
    chosen = _named(lines, network, fine_tuned) if asked else auto_lines(network, fine_tuned)
    lower = replace(fine_tuned, refit=False, line_asked=asked or fine_tuned.line_asked)
    rows = (replace(frozen, name=x, refit=False) if x == "top" else replace(lower, name=x, line=x) for x in chosen)
    return replace(base, strategies=tuple(rows)), Plan("lines")


def over_photos(
    data: str | Path,
    photos: Sequence[int | str] | str = PHOTOS,
    *,
    strategies: Sequence[str] = ("frozen", "fine-tuned"),
    repeats: int = REPEATS,
    **options: Any,
) -> tuple[Config, Plan]:
    """The configuration of a sweep over numbers of photos.

    Parameters
    ----------
    photos
        Photos of a class: whole numbers and ``"all"``, as a sequence or as the command line takes them.
    options
        As for `frostline.configure`.

    Raises
    ------
    ConfigError
        All that can't be used, in one line.
    """
    config = configure(data, strategies=strategies, **options)
    rows = (
        replace(s, refit=False) for s in config.strategies
    )  # a few photos and all validation photos would be another number
    return replace(config, strategies=tuple(rows)), plan_photos(photos, repeats)


def plan_photos(photos: Sequence[int | str] | str, repeats: int) -> Plan:
    """The plan of a sweep over numbers of photos; see `over_photos`.

    Raises
    ------
    ConfigError
        Fewer than two numbers, or something that is none.
    """
    if repeats < 1:
        raise ConfigError(f"--repeats {repeats}: expected 1 or more")
    said = photos.split(",") if isinstance(photos, str) else [str(p) for p in photos]
    sizes = sorted({_size(text.strip()) for text in said if text.strip()})
    if len(sizes) < 2:
        raise ConfigError(f"--photos {','.join(said)}: expected two numbers of photos or more, such as 5,10,20,all")
    return Plan("photos", tuple(ALL if size == np.inf else int(size) for size in sizes), repeats)


def _size(text: str) -> float:
    if text.lower() == ALL:
        return np.inf
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise ConfigError(f"--photos '{text}': expected whole numbers from 1, or all, such as 5,10,20,all")
    return int(text)


def _named(lines: str, network: Backbone, fine_tuned: Strategy) -> list[str]:
    """The lines that someone listed, from the top down, with the top among them."""
    found = {network.lines.top: "top"}
    for text in [part.strip() for part in lines.split(",") if part.strip()]:
        if not is_line(text):
            raise ConfigError(f"--lines: freeze line '{text}': expected {LINE_FORMS}")
        place = network.lines.place(replace(fine_tuned, line=text))
        if place != network.lines.top and place in found:
            raise ConfigError(f"--lines {lines}: {found[place]} and {text} are the same line; name it once")
        found.setdefault(place, _plainly(text))
    if len(found) < 2:
        raise ConfigError(f"--lines {lines}: expected a line below the top too, such as 30% or 0")
    return [found[place] for place in sorted(found, reverse=True)]


def _plainly(text: str) -> str:
    """A line as it names a folder: 7 for 007, 30% for 30 %, top-6 for TOP-6."""
    if text.isdigit():
        return str(int(text))
    return text.lower() if text.lower().startswith("top-") else text.replace(" ", "")


def auto_lines(network: Backbone, fine_tuned: Strategy, count: int = LINES) -> list[str]:
    """Lines worth measuring, from the top down: the top, the fine-tuned strategy's, 0, and edges of blocks, at about
    equal steps of the share of parameters that is trained.

    Only edges where a single tensor is live (of each network), and only places where no more numbers are live than the
    photo has: they are written for every photo and read in every epoch. Where a network has few such edges, places
    within blocks join.
    """
    lines = network.lines
    upper = lines.place(fine_tuned)
    chosen = {lines.top: "top", 0: "0"}
    chosen.setdefault(upper, fine_tuned.line)
    most = (1 + network.name.count(MARK)) * 3 * network.transform.size**2
    edges = {b.start: b.name for b in lines.edges if lines.share(b.start) >= LEAST_UNFROZEN}
    edges = {start: name for start, name in edges.items() if lines.width(start) <= most}
    targets = sorted(i / (count - 1) for i in range(1, count - 1))
    targets.remove(min(targets, key=lambda t: abs(t - lines.share(upper))))
    for target in targets:
        apart = {k: abs(lines.share(k) - target) for k in edges.keys() - chosen.keys()}
        if apart and min(apart.values()) < 1 / (count - 1):
            nearest = min(apart, key=lambda k: (apart[k], -k))
            chosen[nearest] = edges[nearest]
    if len(chosen) < count:
        _fill(chosen, edges, network, count, most)
    return [chosen[place] for place in sorted(chosen, reverse=True)]


def _fill(chosen: dict[int, str], edges: Mapping[int, str], network: Backbone, count: int, most: int) -> None:
    """Add places until `count` are chosen, each time where the steps of the share are widest. An edge of a block is
    taken where another place would halve a step."""
    lines = network.lines
    numbers = {lines.find(str(n)): str(n) for n in range(1, len(lines.counted))}
    places = {p: n for p, n in numbers.items() if lines.width(p) <= most} | dict(edges)
    while len(chosen) < count and (free := places.keys() - chosen.keys()):
        apart = {p: min(abs(lines.share(p) - lines.share(c)) for c in chosen) for p in free}
        lonely = max(sorted(free), key=lambda p: (2 if p in edges else 1) * apart[p])
        if apart[lonely] < LEAST_UNFROZEN:
            return
        chosen[lonely] = places[lonely]


# ---- the run ---------------------------------------------------------------------------------------------------------


def sweep(
    config: Config,
    plan: Plan,
    out: str | Path,
    *,
    existing: Existing = "refuse",
    quiet: bool = True,
    progress: Progress | None = None,
    on_point: OnPoint | None = None,
) -> Sweep:
    """Run a sweep and return what its sweep.json holds.

    Parameters
    ----------
    config, plan
        From `over_lines` or `over_photos`.
    out
        The run folder.
    existing
        What to do where `out` holds a run already: refuse, resume it, or overwrite it.
    progress
        Where to show progress; without it, `quiet` decides whether to show any.
    on_point
        Called as each point ends, with its row and the document so far.

    Raises
    ------
    FrostlineError
        Of the kind that fits; its text is one line.
    """
    run = Path(out)
    with open_progress(progress, quiet) as progress, held(run):
        old = look(run, config, existing, Sweep)
        if old is not None and old.get("plan") != plan.to_dict():
            raise RunError(f"{run} holds a sweep of another plan: choose another --out, or --overwrite it")
        return _run(run, config, plan, old, progress, on_point)


def _run(
    run: Path, config: Config, plan: Plan, old: Sweep | None, progress: Progress, on_point: OnPoint | None
) -> Sweep:
    """The stages of a sweep, in order; finished points of an `old` document are kept as they are."""
    started = time.perf_counter()
    coster = cost.of_lines(old) if plan.kind == "lines" else cost.of_sizes(old, plan.photos, plan.repeats)
    prepared, log = start(run, config, old, progress, None, coster, sweep=plan.kind)
    document = old or _begin(prepared, plan)
    document["status"] = "running"
    spent = document["seconds"] - started

    def write() -> None:
        document["seconds"] = round(spent + time.perf_counter(), 3)
        documents.write(run, documents.Sweep, document)

    write()
    points: Iterator[LineRow] | Iterator[PhotosRow]
    if plan.kind == "lines":
        points = _lines(run, prepared, document, progress, log)
    else:
        points = _photos(run, prepared, plan, document, progress, log)
    for row in points:
        log("finished", point=row["name"], accuracy=row["accuracy"], seconds=row["seconds"]["total"])
        conclude(run, document)
        write()
        if plan.kind == "lines":
            discard_checkpoints(run / row["name"])
        if on_point is not None:
            on_point(row, document)
    conclude(run, document, whole=True)
    document["status"] = "finished"
    write()
    sweep_page.build(run)
    log("end", seconds=document["seconds"])
    return documents.read(run, Sweep)


def _begin(prepared: Prepared, plan: Plan) -> Sweep:
    shared = {k: v for k, v in begin(prepared).items() if k not in ("strategies", "comparisons", "claims")}
    own = {"plan": plan.to_dict(), "prefix_seconds": round(prepared.prefix_seconds, 3), plan.kind: []}
    return cast(Sweep, {**shared, **own})


Log = Callable[..., None]
Cells = dict[str, str | int | float]
"""A row of a CSV."""


# ---- over lines ------------------------------------------------------------------------------------------------------


def _lines(run: Path, prepared: Prepared, document: Sweep, progress: Progress, log: Log) -> Iterator[LineRow]:
    """Fit the lines from the top down; yields each finished one's row, which then stands in `document`."""
    config = prepared.config
    rows = {row["name"]: row for row in document["lines"]}
    task = progress.task("Freeze lines", len(config.strategies))
    for s in sorted(config.strategies, key=lambda s: order(s, prepared)):
        if s.name not in rows:
            log("line", line=s.name)
            (run / s.name).mkdir(exist_ok=True)
            head = head_from(s, config, rows)
            row = fit(s, prepared, run / s.name, head_from=head, progress=progress, log=log).row
            rows[s.name] = cast(LineRow, {**row, **_about(s, prepared)})
            document["lines"] = [rows[x.name] for x in config.strategies if x.name in rows]
            yield rows[s.name]
        task.advance(1)


def _about(strategy: Strategy, prepared: Prepared) -> dict[str, str | int]:
    """What a line means in this network: the first layer that is trained, and what a photo takes on the disk."""
    network = prepared.backbones[network_name(strategy)]
    names, place = network.lines.layers, network.lines.place(strategy)
    store = prepared.taps[network_name(strategy), place].store
    return {"first_trained": names[place] if place < len(names) else "head", "bytes_per_photo": store.row_bytes}


def recommendation(
    run: Path, names: Sequence[str], seed: int, unequal: bool = False, trainable: Sequence[int] = ()
) -> Recommendation:
    """The line that `decision.recommended_line` chooses of these lines of a run folder, by their predictions of
    validation photos. `trainable`: each line's parameters, which decide between equals.
    """
    lines = []
    for name, parameters in zip(names, trainable or [0] * len(names), strict=True):
        file = run / name / "validation.csv"  # where there is none, the reported photos are the validation photos
        said = read_predictions(file if file.exists() else run / name / "predictions.csv")
        of_class = [p.probabilities for p in said]
        lines.append(decision.LineOnValidation.of(name, [p.true for p in said], of_class, parameters))
    return decision.recommended_line(lines, seed, unequal)


def _decide_line(run: Path, document: Sweep) -> None:
    """Put into `document` which line to ship and whether unfreezing helps."""
    rows, unequal = document["lines"], document["dataset"].get("unequal", False)
    names, trainable = [row["name"] for row in rows], [row["parameters"]["trainable"] for row in rows]
    found = recommendation(run, names, document["seed"], unequal, trainable)
    said = {name: read_predictions(run / name / "predictions.csv") for name in names}
    labels = np.unique([p.true for p in said[names[0]]], return_inverse=True)[1].astype(np.intp)
    correct, together = {name: np.array(_correct(own)) for name, own in said.items()}, clusters(said[names[0]])
    top = correct[names[0]]
    against, about = decision.against_top(
        found,
        {name: decision.difference(correct[name], top, labels, unequal, together) for name in names[1:]},
        decision.metric_of(unequal),
        wording.photos_reported(document),
        chosen_here=document["reported_on"] == "validation",
    )
    chosen = next(row for row in rows if row["name"] == found["recommended"])
    ship = decision.shipped_line(found, *sweep_page.line_use(chosen, document), unequal)
    document["recommendation"], document["against_top"] = found, against
    document["decision"] = decision.decide(ship, about, decision.ONE_TRAINING)
    document["answer"], document["answer_detail"] = sweep_page.line_answer(document)


# ---- over photos -----------------------------------------------------------------------------------------------------


def _photos(
    run: Path, prepared: Prepared, plan: Plan, document: Sweep, progress: Progress, log: Log
) -> Iterator[PhotosRow]:
    """Train every strategy on every subset, one repeat after the other; yields each point's row, which then stands in
    `document`.
    """
    config = prepared.config
    training = prepared.part(prepared.split.train.tolist())
    labels = [p.label for p in training]
    sizes = _sizes(plan.photos, labels, progress)
    done = {row["name"] for row in document["photos"]}
    counts = {size: sum(min(size, labels.count(c)) for c in prepared.classes) for size in sizes}
    cost = {
        size: count + len(prepared.split.validation) for size, count in counts.items()
    }  # what an epoch goes through
    task = progress.task("All numbers of photos", plan.repeats * len(config.strategies) * sum(cost.values()))
    for repeat in range(plan.repeats):
        places = subsets(labels, [p.sha256 for p in training], list(sizes), config.seed, repeat)
        for size, name in sizes.items():
            split = replace(prepared.split, train=prepared.split.train[places[size]])
            some = replace(prepared, split=split, training_seed=config.seed + repeat)
            heads: dict[str, TrainedHead] = {}
            rows: dict[str, StrategyRow] = {}
            for s in sorted(config.strategies, key=lambda s: order(s, prepared)):
                point = f"{s.name}/{name}-{repeat}"
                if point not in done:
                    log("point", point=point)
                    first = head_from(s, config, rows)
                    head = heads[first["name"]] if first else None
                    rows[s.name], heads[s.name] = _point(s, some, run / f"{point}.csv", head, progress, log)
                    row = _point_row(rows[s.name], point, name, repeat, counts[size], len(prepared.classes))
                    document["photos"].append(row)
                    yield row
                task.advance(cost[size])


def _sizes(photos: Sequence[int | str], labels: Sequence[str], progress: Progress) -> dict[int, int | str]:
    """The sizes of subsets, by what they are called; those that would take every photo are one and the same."""
    most = max(labels.count(label) for label in set(labels))
    beyond = [p for p in photos if isinstance(p, int) and p >= most]
    if beyond:
        progress.say(
            f"{', '.join(map(str, beyond))} photos a class: the largest class has {most} to train on, so this is all"
        )
    sizes: dict[int, int | str] = {p: p for p in photos if isinstance(p, int) and p < most}
    if ALL in photos or beyond:
        sizes[most] = ALL
    if len(sizes) < 2:
        raise ConfigError(
            f"--photos {','.join(map(str, photos))}: the largest class has {most} to train on; name a number below that"
        )
    return sizes


def _point(
    s: Strategy, prepared: Prepared, file: Path, head: TrainedHead | None, progress: Progress, log: Log
) -> tuple[StrategyRow, TrainedHead]:
    """Train and measure one strategy on some of the photos; what it says of those reported on goes to `file`."""
    started = time.perf_counter()
    prepared.fill_views(s, progress)
    trained = train_strategy(s, prepared, None, head=head, progress=progress, log=log)
    trained_at = time.perf_counter()
    row, reported, *_ = evaluate(trained, prepared, torch_logits(trained, prepared))
    write_predictions(file, reported, prepared.classes)
    ended = time.perf_counter()
    row["seconds"] = {
        "train": round(training_seconds(row), 3),
        "evaluate": round(ended - trained_at, 3),
        "total": round(ended - started, 3),
    }
    return row, trained.head


_SHARED = (
    "accuracy", "accuracy_ci", "macro_f1", "log_loss", "ece_shipped", "temperature", "validation_accuracy",
    "validation_balanced_accuracy", "best_epoch", "parameters", "freeze_line", "seconds",
)  # fmt: skip
"""What a point's row has in common with a strategy's."""


def _point_row(row: StrategyRow, point: str, photos: int | str, repeat: int, count: int, classes: int) -> PhotosRow:
    """A point's row of sweep.json."""
    place = {"name": point, "strategy": row["name"], "photos": photos, "repeat": repeat}
    shared = {key: value for key, value in row.items() if key in _SHARED}
    return cast(PhotosRow, {**place, "train": count, "per_class": count / classes, **shared})


def grid(run: Path, document: Sweep) -> sweep_stats.Grid | None:
    """The points that are done, as far as they fill a grid: the repeats in which every strategy has every size."""
    rows = document["photos"]
    strategies = list(dict.fromkeys(row["strategy"] for row in rows))
    sizes = sorted({row["per_class"] for row in rows})
    by_place = {(row["strategy"], row["per_class"], row["repeat"]): row["name"] for row in rows}
    whole = [
        r
        for r in range(document["plan"]["repeats"])
        if all((s, size, r) in by_place for s in strategies for size in sizes)
    ]
    if not whole or len(sizes) < 2:
        return None
    right = [
        [[_correct(read_predictions(run / f"{by_place[s, size, r]}.csv")) for r in whole] for size in sizes]
        for s in strategies
    ]
    return sweep_stats.Grid(strategies, np.array(sizes, dtype=float), np.array(right))


def _correct(predictions: Sequence[Prediction]) -> list[bool]:
    return [p.correct for p in predictions]


# ---- what it comes to ------------------------------------------------------------------------------------------------


def conclude(run: Path, document: Sweep, *, whole: bool = False) -> None:
    """Put into `document` what the points so far come to, and write the table of points beside it.

    Over photos that is only done at the end (`whole`): half a grid says nothing.
    """
    seed = document["seed"]
    if document["plan"]["kind"] == "lines":
        _decide_line(run, document)
        _write_table(run / "lines.csv", [_line_cells(row, document) for row in document["lines"]])
        return
    _write_table(run / "photos.csv", [_photo_cells(row) for row in document["photos"]])
    points = grid(run, document) if whole else None
    if points is not None:
        first = read_predictions(run / f"{document['photos'][0]['name']}.csv")
        document.update(cast(Sweep, _learning(points, document["photos"], seed, clusters(first))))
        labels = np.unique([p.true for p in first], return_inverse=True)[1]
        document["decision"] = _decide_photos(document, points, labels, clusters(first))
        document["answer"], document["answer_detail"] = sweep_page.photo_answer(document)


def _decide_photos(
    document: Sweep, points: sweep_stats.Grid, labels: npt.NDArray[np.intp], together: Clusters | None
) -> Decision:
    """Which strategy to ship, and whether unfreezing helps, with the largest number of photos: by accuracy, or by macro
    recall where classes are unequal.

    Parameters
    ----------
    labels, together
        (N,) class and cluster of each photo reported on.
    """
    unequal = document["dataset"].get("unequal", False) and all(
        "validation_balanced_accuracy" in row for row in document["photos"]
    )
    rows, curves = document["photos"], document["curves"]
    most, repeats, photos = max(row["per_class"] for row in rows), document["repeats_done"], document["photos_reported"]
    last = {row["strategy"]: row for row in curves if row["per_class"] == most}
    means = [
        {
            "name": name,
            "validation_mean": float(np.mean([row["validation_accuracy"] for row in own])),
            "validation_balanced_mean": float(np.mean([row.get("validation_balanced_accuracy", 0) for row in own])),
            "parameters": own[0]["parameters"],
        }
        for name in last
        if (own := [row for row in rows if (row["strategy"], row["per_class"]) == (name, most)])
    ]
    best = decision.best_over_seeds(means, unequal)
    measured, kind = last[str(best["name"])], wording.photos_reported(document)
    figure = (
        f"mean accuracy {wording.percent(measured['accuracy'])} ({wording.interval(measured['accuracy_ci'])}) on "
        f"{photos:,} {kind}, with {most:.0f} photos of each class"
    )
    ship = decision.shipped(best, means, unequal, figure)
    crossings = document["crossings"]
    if unequal:  # the mean over classes is that over photos of which each counts as much as its class has few
        weighed = replace(points, correct=points.correct * macro_recall.weights(labels))
        crossings = _crossings(weighed, rows, document["seed"], together)
    pairs = [c for c in crossings if (c["challenger"], c["reference"]) == ("fine-tuned", "frozen")]
    if not pairs:
        return decision.decide(ship, None)
    ends, p_values = pairs[0]["difference_ci"], [c["p_value"] for c in crossings]
    found = decision.over_runs(pairs[0]["difference_at_most"], (ends[0], ends[1]), pairs[0]["p_value"], photos)
    about = decision.unfreezing("fine-tuned", "frozen", found, decision.metric_of(unequal), kind, p_values)
    return decision.decide(ship, about, sweep_page.repeats_note(repeats))


def _learning(
    points: sweep_stats.Grid, rows: Sequence[PhotosRow], seed: int, together: Clusters | None = None
) -> dict[str, object]:
    """Curves, crossing points and forecasts of a whole grid."""
    found = sweep_stats.resample(points, seed, together)
    return {
        "photos_reported": points.correct.shape[3],
        "repeats_done": points.correct.shape[2],
        "curves": sweep_stats.curves(points, found),
        "crossings": _crossings(points, rows, seed, together, found),
        "forecasts": [sweep_stats.forecast(points, found, i) for i in range(len(points.strategies))],
    }


def _crossings(
    points: sweep_stats.Grid,
    rows: Sequence[PhotosRow],
    seed: int,
    together: Clusters | None,
    resampled: sweep_stats.Resampled | None = None,
) -> list[Crossing]:
    """Every strategy against the one with the fewest trainable parameters."""
    found = resampled or sweep_stats.resample(points, seed, together)
    trainable = {row["strategy"]: row["parameters"]["trainable"] for row in rows}
    names = points.strategies
    reference = min(range(len(names)), key=lambda i: trainable[names[i]])
    others = [i for i in range(len(names)) if i != reference]
    return sweep_stats.corrected([sweep_stats.crossing(points, found, i, reference) for i in others])


def _line_cells(row: LineRow, document: Sweep) -> Cells:
    judged = next(r for r in document["recommendation"]["lines"] if r["name"] == row["name"])
    return {
        "line": row["name"], "frozen_layers": row["freeze_line"], "first_trained": row["first_trained"],
        "trainable": row["parameters"]["trainable"], "total": row["parameters"]["total"],
        "accuracy": row["accuracy"], "accuracy_low": row["accuracy_ci"][0], "accuracy_high": row["accuracy_ci"][1],
        "macro_f1": row["macro_f1"], "log_loss": row["log_loss"], "validation_accuracy": judged["accuracy"],
        "validation_low": judged["accuracy_ci"][0], "validation_high": judged["accuracy_ci"][1],
        "best_share": judged["best_share"], "train_seconds": row["seconds"]["train"],
        "evaluate_seconds": row["seconds"]["evaluate"], "bytes_per_photo": row["bytes_per_photo"],
    }  # fmt: skip


def _photo_cells(row: PhotosRow) -> Cells:
    return {
        "strategy": row["strategy"], "photos": row["photos"], "per_class": row["per_class"], "train": row["train"],
        "repeat": row["repeat"], "accuracy": row["accuracy"], "accuracy_low": row["accuracy_ci"][0],
        "accuracy_high": row["accuracy_ci"][1], "macro_f1": row["macro_f1"], "log_loss": row["log_loss"],
        "validation_accuracy": row["validation_accuracy"], "best_epoch": row["best_epoch"],
        "train_seconds": row["seconds"]["train"], "evaluate_seconds": row["seconds"]["evaluate"],
    }  # fmt: skip


def _write_table(path: Path, rows: Sequence[Cells]) -> None:
    """Rows of the same keys as CSV; fractions and seconds to six digits."""
    cells = ([f"{v:.6f}" if isinstance(v, float) else v for v in row.values()] for row in rows)
    write_csv(path, rows[0] if rows else [], cells)
