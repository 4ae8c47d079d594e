"""Which model to ship, and whether unfreezing is shown to help: every such choice of the package is made in this file.

    which model to ship   `best_strategy`, `best_over_seeds`, `recommended_line`   by validation photos alone
    does unfreezing help  `unfreezing`                                             by the photos reported on alone
    both, in words        `decide`                                                 what study.json and its kin hold

**Which to ship**: the highest validation accuracy (macro recall where classes are unequal). For freeze lines, each
line's figure is averaged with those of its neighbours first. Between equals, the fewest trainable parameters. In
simulations this rule costs less accuracy than those that ask for evidence before they leave the frozen network
(recipes/decision.md). The photos reported on have no say in it.

**Does unfreezing help**: the paired difference on the photos reported on, with its interval and its p value, corrected
for the comparisons of the same report. Often that can't be told; then the answer is how many photos would tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import stats

from frostline import wording
from frostline.documents.decision import Decision, Helps, Metric, Ship, Unfreezing
from frostline.documents.sweep import LineAgainstTop, Recommendation, RecommendedLine
from frostline.stats import intervals, macro_recall
from frostline.stats.clusters import numbered
from frostline.stats.resampling import photo_counts

R = TypeVar("R", bound=Mapping[str, object])

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

WORTH_KNOWING = 0.01
"""The smallest difference that people would act on: 1 point."""
POWER = 0.8
_SHOWN_UP_TO = 10_000  # photos; more is "more than 10,000"
_LEAST_SHARE = 5e-7  # half of the last digit that predictions.csv holds


# ---- which model to ship ---------------------------------------------------------------------------------------------


def highest(values: npt.ArrayLike, trainable: Sequence[int], lines: bool = False) -> int:
    """The place of the model to ship.

    Parameters
    ----------
    values
        (M,) each model's metric on the validation photos.
    trainable
        Each model's trainable parameters; between equals, the fewest.
    lines
        The models are freeze lines, from the top down: each is judged by the mean of its own value (counted twice) and
        its neighbours', since neighbouring lines are nearly the same model. The first and the last count as their own
        outer neighbour.
    """
    # equals are equal, whatever the order of sums
    found = np.round(smoothed(values), 9) if lines else np.asarray(values, dtype=float)
    return max(range(len(found)), key=lambda i: (found[i], -trainable[i], -i))


def smoothed(values: npt.ArrayLike) -> Floats:
    """(L,) each line's value averaged with its neighbours'; see `highest`."""
    wide = np.pad(np.asarray(values, dtype=float), 1, mode="edge")
    return np.asarray((wide[:-2] + 2 * wide[1:-1] + wide[2:]) / 4)


def metric_of(unequal: bool) -> Metric:
    """The metric that decides."""
    return "macro recall" if unequal else "accuracy"


def best_strategy(rows: Sequence[R], unequal: bool) -> R | None:
    """The strategy to ship: the highest validation accuracy; None where no row has an accuracy.

    Documents of older versions lack the validation accuracy of some strategies. Then, and only then, the accuracy on
    the photos reported on decides.

    Parameters
    ----------
    rows
        Rows of study.json.
    unequal
        The classes are of unequal size: macro recall (balanced accuracy) decides in place of accuracy.
    """
    key = _deciding(rows, unequal)
    return _highest([row for row in rows if wording.known(row.get(key))], key)


def _deciding(rows: Sequence[Mapping[str, object]], unequal: bool) -> str:
    """The key that decides: of the validation photos, where all rows have it."""
    key = "balanced_accuracy" if unequal else "accuracy"
    return f"validation_{key}" if all(wording.known(row.get(f"validation_{key}")) for row in rows) else key


def best_over_seeds(rows: Sequence[R], unequal: bool = False) -> R:
    """The strategy with the highest validation accuracy (macro recall where classes are `unequal`), averaged over the
    seeds.

    Parameters
    ----------
    rows
        Rows of seeds.json; one or more. Those of older versions have no macro recall: then accuracy decides.
    """
    best = _highest(rows, _deciding_mean(rows, unequal))
    if best is None:
        raise ValueError("expected the rows of one strategy or more")
    return best


def _deciding_mean(rows: Sequence[Mapping[str, object]], unequal: bool) -> str:
    key = "validation_balanced_mean"
    return key if unequal and all(wording.known(row.get(key)) for row in rows) else "validation_mean"


def _highest(rows: Sequence[R], key: str) -> R | None:
    values = [value if wording.known(value := row[key]) else -np.inf for row in rows]
    return rows[highest(values, [_trainable(row) for row in rows])] if rows else None


def _trainable(row: Mapping[str, object]) -> int:
    parameters = row.get("parameters")
    return int((parameters.get("trainable") if isinstance(parameters, Mapping) else 0) or 0)


# ---- does unfreezing help --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """Two models on the photos reported on: all that the second sentence rests on."""

    difference: float
    ci: tuple[float, float]
    p_value: float
    photos: int
    scatter: float
    """What one photo adds to the variance of the difference, times the number of photos: for accuracy and independent
    photos, the share of photos that exactly one of the two models gets right."""


def difference(
    correct_a: npt.NDArray[np.bool_],
    correct_b: npt.NDArray[np.bool_],
    labels: Places,
    unequal: bool = False,
    clusters: Places | None = None,
) -> Difference:
    """How far model a is ahead of model b.

    Parameters
    ----------
    correct_a, correct_b
        (N,) which photos each predicted correctly.
    labels
        (N,) class of each photo.
    unequal
        Compare macro recall (`frostline.stats.macro_recall`), not accuracy (`intervals.compare`).
    clusters
        (N,) photos with the same number are not independent; None: all are.
    """
    each = correct_a.astype(float) - correct_b.astype(float)
    count, clusters = len(each), numbered(clusters)
    if unequal:
        apart = macro_recall.parts(each, labels, clusters)
        found = (
            float(apart.sum() / count),
            macro_recall.interval(each, labels, clusters),
            macro_recall.p_value(each, labels, clusters),
        )
    else:
        apart = each if clusters is None else np.bincount(clusters, weights=each).astype(np.float64)
        pair = intervals.compare("a", correct_a, "b", correct_b, clusters)
        found = pair.difference, pair.ci, pair.p_value
    return Difference(*found, photos=count, scatter=float((apart**2).sum() + 1) / (count + 2))


def over_runs(difference: float, ci: tuple[float, float], p_value: float, photos: int) -> Difference:
    """A difference over several training runs; see `Difference`. What one photo adds to its variance is then read off
    the interval, which covers the runs too: to be told with so many more photos takes as many more runs.
    """
    error = (ci[1] - ci[0]) / 2 / float(stats.norm.ppf(0.975))
    return Difference(difference, ci, p_value, photos, scatter=min(1.0, max(photos * error**2 + difference**2, 1e-6)))


def photos_to_tell(scatter: float, difference: float, level: float = 0.05) -> float:
    """How many photos show a difference of two paired proportions with 80 % power (Connor, Biometrics, 1987).

    Assumed: the models disagree on other photos as often as on these (`scatter`), their true difference is
    `difference`, and photos are as dependent on each other as here. A difference that was seen is itself uncertain: if
    the true one is half as large, four times as many photos are needed.

    Parameters
    ----------
    scatter
        The share of photos that exactly one of the models gets right; see `Difference`.
    difference
        The true difference, a fraction of 1 and not 0.
    level
        Of the two-sided test.
    """
    size = abs(difference)
    share = max(scatter, size)
    alpha, beta = stats.norm.isf(level / 2), stats.norm.ppf(POWER)
    return float((alpha * np.sqrt(share) + beta * np.sqrt(share - size**2)) ** 2 / size**2)


def unfreezing(
    unfrozen: str,
    frozen: str,
    found: Difference,
    metric: Metric,
    photos: str,
    comparisons: Sequence[float] = (),
    kind: str = "",
) -> Unfreezing:
    """Whether unfreezing is shown to help.

    Parameters
    ----------
    unfrozen, frozen
        Names of the two models.
    found
        The first against the second.
    photos
        What they were measured on: "test photos".
    comparisons
        The p values of all comparisons of the same report, this one among them; none: it is the only one. They are
        corrected together (`intervals.holm`).
    kind
        What stands before the names: "line ".
    """
    family = list(comparisons) or [found.p_value]
    p_corrected = intervals.holm(family)[family.index(found.p_value)]
    helps: Helps = "unknown"
    if p_corrected < 0.05 and (found.ci[0] > 0 or found.ci[1] < 0):
        helps = "yes" if found.difference > 0 else "no"
    size = max(abs(found.difference), WORTH_KNOWING)
    stricter = max(1, len(family) - sum(p < found.p_value for p in family))  # what Holm multiplies this one by
    needed = photos_to_tell(found.scatter, size, 0.05 / stricter)
    told = helps != "unknown" or needed <= found.photos
    row: Unfreezing = {
        "unfrozen": unfrozen,
        "frozen": frozen,
        "metric": metric,
        "helps": helps,
        "difference": found.difference,
        "ci": found.ci,
        "p_value": found.p_value,
        "p_corrected": p_corrected,
        "comparisons": len(family),
        "photos": found.photos,
        "photos_to_tell": None if told else _plain(needed),
        "smallest_difference": size,
        "words": "",
    }
    return {**row, "words": _told(row, photos, kind)}


def _plain(number: float) -> int:
    """Rounded up to what people would say: 350, 3,500, 20,000."""
    for below, step in ((100, 10), (1_000, 50), (_SHOWN_UP_TO, 500)):
        if number <= below:
            return int(np.ceil(number / step) * step)
    return int(np.ceil(number / 10_000) * 10_000)


def _told(row: Unfreezing, photos: str, kind: str) -> str:
    count = f"{row['photos']:,} {photos}"
    corrected = f" after correction for {row['comparisons']} comparisons" if row["comparisons"] > 1 else ""
    figures = (
        f"{wording.points(row['difference'])} points of {row['metric']} for {kind}{row['unfrozen']} over "
        f"{kind}{row['frozen']} ({wording.interval(row['ci'])}, {wording.p_value(row['p_corrected'])}{corrected})"
    )
    if row["helps"] == "yes":
        return f"Unfreezing helps on these {count}: {figures}."
    if row["helps"] == "no":
        return f"Unfreezing lowers {row['metric']} on these {count}: {figures}."
    text = f"Whether unfreezing helps can't be told from these {count}: {figures}"
    points = f"{100 * row['smallest_difference']:.1f}".removesuffix(".0")
    size = f"a true difference of {points} point{'' if points == '1' else 's'}"
    needed = row["photos_to_tell"]
    if needed is None:
        return f"{text}; {size} would very likely have shown."
    number = f"about {needed:,}" if needed <= _SHOWN_UP_TO else f"more than {_SHOWN_UP_TO:,}"
    return f"{text}; {number} would show {size}."


def unfrozen_pair(rows: Sequence[R], unequal: bool) -> tuple[R, R] | None:
    """The two models that tell whether unfreezing helps: a pretrained network with unfrozen layers, and the same
    network frozen. Of several, those to ship; None where the rows hold no such pair.
    """
    pretrained = [row for row in rows if row.get("weights", "pretrained") == "pretrained" and _line(row) is not None]
    frozen = [row for row in pretrained if _line(row) == 0]
    pairs = [(row, top) for row in pretrained for top in frozen if _line(row) and _same_network(row, top)]
    rows = [row for row, _ in pairs]
    over_seeds = bool(rows) and "validation_mean" in rows[0]
    best = best_over_seeds(rows, unequal) if over_seeds else best_strategy(rows, unequal)
    return next((pair for pair in pairs if pair[0] is best), None)


def _line(row: Mapping[str, object]) -> int | None:
    """How many layers below the head are trained; None where the row doesn't tell."""
    layers, line = row.get("layers"), row.get("freeze_line")
    return max(0, layers - line) if isinstance(layers, int) and isinstance(line, int) else None


def _same_network(a: Mapping[str, object], b: Mapping[str, object]) -> bool:
    return a.get("backbone") == b.get("backbone")


# ---- a sweep over freeze lines ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LineOnValidation:
    """How one freeze line did on the validation photos."""

    name: str
    correct: npt.NDArray[np.bool_]
    """(N,) whether each photo's predicted class is the true one."""
    loss: Floats
    """(N,) negative log probability of each photo's true class, nats."""
    labels: Places | None = None
    """(N,) class of each photo; without it macro recall is not known."""
    trainable: int = 0
    """Trainable parameters; where no line says, the top one has the fewest."""

    @classmethod
    def of(
        cls, name: str, true: Sequence[str], probabilities: Sequence[Mapping[str, float]], trainable: int = 0
    ) -> LineOnValidation:
        """From what predictions.csv holds: each photo's class, and the probability of every class."""
        pairs = list(zip(true, probabilities, strict=True))
        of_true = np.array([by_class[label] for label, by_class in pairs])
        correct = np.array([max(by_class, key=by_class.__getitem__) == label for label, by_class in pairs])
        loss = -np.log(np.clip(of_true, _LEAST_SHARE, 1))
        return cls(name, correct, loss, np.unique(true, return_inverse=True)[1].astype(np.intp), trainable)


def recommended_line(lines: Sequence[LineOnValidation], seed: int, unequal: bool = False) -> Recommendation:
    """Choose a freeze line: the highest validation metric after averaging with the neighbours (`highest`).

    `best` is the line with the highest metric of its own; between equals, the lower log loss. A line's `best_share` is
    the share of resamples of the photos in which it is the best. A line is `clearly_below` if its difference from the
    best one is shown: p below 0.05, corrected for the number of lines (Holm), and a 95 % CI below zero.

    Parameters
    ----------
    lines
        From the top down, all on the same N photos.
    seed
        Decides the resamples.
    unequal
        Macro recall is the metric, not accuracy; the lines need `labels`.
    """
    mass = _mass(lines[0], unequal)
    values = np.round([(mass * line.correct).mean() for line in lines], 9)
    smooth = smoothed(values)
    place = max(range(len(lines)), key=lambda i: (values[i], -lines[i].loss.mean()))
    shares = _best_shares(lines, mass, seed)
    found = [_behind(line, lines[place], unequal) for line in lines]
    others = [i for i in range(len(lines)) if i != place]
    corrected = dict(zip(others, intervals.holm([found[i].p_value for i in others]), strict=True))
    rows = [
        _line_row(line, found[i], float(shares[i]), float(smooth[i]), corrected.get(i, 1.0))
        for i, line in enumerate(lines)
    ]
    if unequal:
        for row, value in zip(rows, values, strict=True):
            row["macro_recall"] = float(value)
    chosen = highest(values, [line.trainable for line in lines], lines=True)
    return {"recommended": lines[chosen].name, "best": lines[place].name, "photos": len(mass), "lines": rows}


def _mass(line: LineOnValidation, unequal: bool) -> Floats:
    """(N,) what each photo counts in the metric, 1 on average."""
    if not unequal or line.labels is None:
        return np.ones(len(line.correct))
    return macro_recall.weights(line.labels)


def _behind(line: LineOnValidation, best: LineOnValidation, unequal: bool) -> Difference:
    labels = np.zeros(len(line.correct), dtype=np.intp) if line.labels is None else line.labels
    return difference(line.correct, best.correct, labels, unequal)


def _line_row(
    line: LineOnValidation, behind: Difference, best_share: float, smooth: float, corrected: float
) -> RecommendedLine:
    return {
        "name": line.name,
        "accuracy": float(line.correct.mean()),
        "accuracy_ci": intervals.mean_interval(line.correct),
        "log_loss": float(line.loss.mean()),
        "best_share": best_share,
        "smoothed": smooth,
        "difference": behind.difference,
        "difference_ci": behind.ci,
        "p_value": behind.p_value,
        "p_corrected": corrected,
        "clearly_below": behind.ci[1] < 0 and corrected < 0.05,
    }


def _best_shares(lines: Sequence[LineOnValidation], mass: Floats, seed: int) -> Floats:
    """(L,) the share of resamples in which each line is the best."""
    correct = np.array([line.correct for line in lines], dtype=float) * mass
    loss = np.array([line.loss for line in lines])
    wins = np.zeros(len(lines))
    for counts in photo_counts(correct.shape[1], seed):
        score = np.round(correct @ counts.T, 6)  # equals are equal
        behind = score < score.max(0)
        first = np.where(behind, np.inf, loss @ counts.T).argmin(0)
        wins += np.bincount(first, minlength=len(lines))
    return np.asarray(wins / wins.sum())


def against_top(
    found: Recommendation, differences: Mapping[str, Difference], metric: Metric, photos: str, chosen_here: bool
) -> tuple[list[LineAgainstTop], Unfreezing | None]:
    """Every line against the topmost one on the photos reported on, and whether unfreezing helps.

    Unfreezing is judged by the recommended line or, where that is the top, by the best one below it. Validation photos
    choose that line, so it is one comparison and needs no correction; the others are corrected together (Holm) and are
    no surer than it is (a fixed sequence of tests). Where the reported photos are the validation photos
    (`chosen_here`), all are corrected together.

    Parameters
    ----------
    found
        What `recommended_line` found.
    differences
        By line, the top left out: it against the top.
    photos
        What they were measured on: "test photos".
    """
    names = list(differences)
    if not names:
        return [], None
    top, smooth = found["lines"][0]["name"], {row["name"]: row["smoothed"] for row in found["lines"]}
    chosen = found["recommended"]
    if chosen == top:
        chosen = names[highest([smooth[name] for name in names], [0] * len(names))]
    first = differences[chosen].p_value
    p_values = {name: differences[name].p_value for name in names}
    rest = names if chosen_here else [name for name in names if name != chosen]
    corrected = dict(zip(rest, intervals.holm([p_values[name] for name in rest]), strict=True))
    if not chosen_here:
        corrected = {chosen: first, **{name: max(first, p) for name, p in corrected.items()}}
    rows: list[LineAgainstTop] = [
        {
            "name": name,
            "difference": differences[name].difference,
            "ci": differences[name].ci,
            "p_value": p_values[name],
            "p_corrected": corrected[name],
        }
        for name in names
    ]
    family = list(p_values.values()) if chosen_here else []
    return rows, unfreezing(chosen, top, differences[chosen], metric, photos, family, "line ")


# ---- both, in words --------------------------------------------------------------------------------------------------


ONE_TRAINING = "Each model was trained once: another training run may differ by a point."
"""What a decision from one training run of each model says of itself."""


def decide(ship: Ship, about: Unfreezing | None, note: str = "") -> Decision:
    """What study.json and its kin hold as ``decision``; where its two sentences point in different directions, the
    second says why. `note`: what they leave out.
    """
    if about is None:
        return {"ship": ship, "unfreezing": None, "note": ""}
    against = {"yes": about["frozen"], "no": about["unfrozen"], "unknown": None}[about["helps"]]
    if ship["model"] == against:
        about = {**about, "words": f"{about['words']} The validation photos, which alone decide, said otherwise."}
    return {"ship": ship, "unfreezing": about, "note": note}


def shipped(best: Mapping[str, object], rows: Sequence[Mapping[str, object]], unequal: bool, figure: str) -> Ship:
    """The first sentence about strategies.

    Parameters
    ----------
    best
        What `best_strategy` or `best_over_seeds` chose of these `rows`.
    figure
        What was measured of it: "accuracy 93.1 % (95 % CI 91.2 to 94.6) on 345 test photos".
    """
    metric = metric_of(unequal)
    key = (_deciding_mean if "validation_mean" in best else _deciding)(rows, unequal)
    part = f"{'mean ' if key.endswith('mean') else ''}validation" if key.startswith("validation") else "reported"
    value = best.get(key)
    level = [str(row["name"]) for row in rows if row is not best and row.get(key) == value]
    ties = f", as {' and '.join(level)} had, with more parameters to train" if level else ""
    reason = f"it had the highest {part} {metric} ({wording.percent(value)}{ties})"
    if len(rows) == 1:
        reason = "no other model was trained; it"
    validation = float(value) if key.startswith("validation") and wording.known(value) else None
    text = f"Use {best['name']}: {reason} {'and ' if len(rows) > 1 else ''}has {figure}."
    return {"model": str(best["name"]), "metric": metric, "validation": validation, "words": text}


def shipped_line(found: Recommendation, use: str, figure: str, unequal: bool) -> Ship:
    """The first sentence about freeze lines: `use` is what to do, `figure` as for `shipped`."""
    row = next(row for row in found["lines"] if row["name"] == found["recommended"])
    value, metric = row.get("macro_recall", row["accuracy"]) if unequal else row["accuracy"], metric_of(unequal)
    reason = f"it had the highest validation {metric} ({wording.percent(value)})"
    if found["recommended"] != found["best"]:
        reason = (
            f"it had the highest validation {metric} averaged with its neighbours "
            f"({wording.percent(row.get('smoothed', value))})"
        )
    return {
        "model": found["recommended"],
        "metric": metric,
        "validation": value,
        "words": f"{use}: {reason} and has {figure}.",
    }
