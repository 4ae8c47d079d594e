"""Figures from predictions, each with what is needed to judge it: intervals, paired tests, calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from frostline.balance import class_mean
from frostline.calibration import Calibrated, calibration, calibration_error, reliability, wilson
from frostline.probabilities import softmax

Labels = np.ndarray
Probabilities = np.ndarray

RESAMPLES = 4000


@dataclass(frozen=True)
class Figures:
    """How good one model is on the photos reported on; fractions of 1."""

    accuracy: float
    accuracy_ci: tuple[float, float]
    """95 % interval over photos."""
    balanced_accuracy: float
    """Macro recall: the mean of the recalls of the classes that have photos, each class counting the same."""
    balanced_accuracy_ci: tuple[float, float]
    """95 % interval over photos, drawn class by class."""
    macro_f1: float
    log_loss: float
    """Mean negative log probability of the true class in nats, of the probabilities as shipped (temperature applied)."""
    log_loss_uncalibrated: float
    """The same at temperature 1."""
    ece: float
    """Expected calibration error in equal-count bins, uncalibrated. Biased upward by chance, as everywhere; `calibration` is not."""
    ece_calibrated: float
    """The same after temperature scaling that never saw these photos' labels."""
    ece_shipped: float
    """The same of the probabilities as shipped: `ece_calibrated`, or `ece` where no temperature could be fitted."""
    temperature: float
    """What the logits are divided by in the bundle."""
    per_class: list[dict[str, Any]]
    """class, precision, recall, f1, support."""
    confusion: list[list[int]]
    """Rows: true class; columns: predicted."""
    calibration: dict[str, Calibrated]
    """`before` any temperature and `after` one that never saw these photos' labels: error without bias, interval, test; see
    `frostline.calibration`."""
    reliability: dict[str, list[dict[str, Any]]]
    """The bins of a reliability diagram, `before` and `after`."""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def figures(
    logits: np.ndarray, labels: Labels, classes: list[str], temperature: float, calibrated: Probabilities, seed: int
) -> Figures:
    """All figures of one model.

    Parameters
    ----------
    logits
        (N, C), uncalibrated.
    labels
        (N,) class indices.
    temperature
        The one that ships.
    calibrated
        (N, C) probabilities after temperature scaling that never saw these photos' labels.
    """
    from sklearn import metrics as sk  # half a second, when the photos have long gone through the network

    plain, shipped = softmax(logits, 1.0), softmax(logits, temperature)
    predicted = plain.argmax(1)
    index = list(range(len(classes)))
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        labels, predicted, labels=index, zero_division=0.0
    )
    present = support > 0
    right = (predicted == labels).astype(float)
    stages = {"before": plain, "after": calibrated}
    found = {stage: calibration(shares, labels, seed) for stage, shares in stages.items()}
    return Figures(
        accuracy=float((predicted == labels).mean()),
        accuracy_ci=mean_interval(right),
        balanced_accuracy=class_mean(right, labels),
        balanced_accuracy_ci=balanced_interval(right, labels),
        macro_f1=float(f1[present].mean()),
        log_loss=log_loss(shipped, labels),
        log_loss_uncalibrated=log_loss(plain, labels),
        ece=found["before"].error,
        ece_calibrated=found["after"].error,
        ece_shipped=calibration_error(shipped, labels),
        temperature=temperature,
        per_class=[
            {
                "class": c,
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "support": int(support[i]),
            }
            for i, c in enumerate(classes)
        ],
        confusion=sk.confusion_matrix(labels, predicted, labels=index).tolist(),
        calibration=found,
        reliability={stage: reliability(shares, labels) for stage, shares in stages.items()},
    )


def log_loss(probabilities: Probabilities, labels: Labels) -> float:
    """Mean negative log probability of the true class, in nats."""
    return float(-np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1)).mean())


def mean_interval(right: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of 0/1 values (N,) over photos: Wilson's (1927).

    Measured against bootstraps (`benchmarks/coverage.py`): for 60 to 1,500 photos at 70 to 99 % it holds the truth 95 to 96 times in 100;
    BCa falls below 93 where few photos are wrong, and claims certainty where none is.
    """
    return wilson(float(right.sum()), len(right))


def balanced_interval(right: np.ndarray, labels: Labels) -> tuple[float, float]:
    """95 % interval of the mean over classes of the mean of 0/1 `right` (N,): Wilson's, for the number of photos that would waver as much.

    Each class's variance is that of its recall after adding half a photo on each side, so that two of two right are no certainty. A class
    of few photos makes that variance itself uncertain: hence Student's t, with Satterthwaite's (1946) degrees of freedom, four at least.
    """
    counts = np.bincount(labels)
    n = counts[counts > 0]
    k = np.bincount(labels, weights=right)[counts > 0].round()
    smoothed = (k + 0.5) / (n + 1)
    variances = smoothed * (1 - smoothed) / n / len(n) ** 2
    freedom = max(4.0, variances.sum() ** 2 / (variances**2 / np.maximum(n - 1, 1)).sum())
    mean, near = float((k / n).mean()), float(smoothed.mean())
    count = near * (1 - near) / float(variances.sum())
    return wilson(mean * count, count, float(stats.t.ppf(0.975, freedom)))


def average_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of values (N,) between -1 and 1, one a photo: Student's; where all agree, what the rule of three leaves
    open."""
    if len(values) < 2 or values.min() == values.max():
        return _unanimous(values)
    mean = float(values.mean())
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return max(-1.0, mean - half), min(1.0, mean + half)


@dataclass(frozen=True)
class Comparison:
    """Two models on the same photos."""

    a: str
    b: str
    difference: float
    """Accuracy of a minus that of b."""
    ci: tuple[float, float]
    """95 % interval of the difference; see `paired_interval`."""
    p_value: float
    """McNemar's mid-p test: how often chance alone would split the photos on which they disagree so unevenly."""
    verdict: str
    """The comparison in words."""


def compare(a: str, right_a: np.ndarray, b: str, right_b: np.ndarray) -> Comparison:
    """Compare two models by which photos (N,) each got right: Tango's interval and McNemar's mid-p test."""
    difference = right_a.astype(float) - right_b.astype(float)
    only_a, only_b = int((difference > 0).sum()), int((difference < 0).sum())
    p = mid_p(only_a, only_b)
    mean, ci = float(difference.mean()), paired_interval(only_a, only_b, len(difference))
    return Comparison(a, b, mean, ci, p, _verdict(a, b, mean, ci, p))


def mid_p(only_a: int, only_b: int) -> float:
    """McNemar's mid-p test (Fagerland, Lydersen and Laake, 2013) on the photos that exactly one of two models got right.

    The exact test finds a difference between two equally good models 1 to 4 times in 100 instead of 5, so it misses true ones; this one 3
    to 5.
    """
    count = only_a + only_b
    if not count:
        return 1.0
    fewer = min(only_a, only_b)
    return float(min(1.0, 2 * stats.binom.cdf(fewer, count, 0.5) - stats.binom.pmf(fewer, count, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm, 1979), in their order."""
    corrected = [1.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def paired_interval(only_a: int, only_b: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of the difference of two models' accuracies on the same photos: Tango's score interval (Statistics in Medicine, 1998).

    Those differences d whose score test (b - c - n d) / sqrt(n (2 q + d - d^2)) stays within +-1.96, where q is the likeliest share of
    photos that only the second model gets right.

    Parameters
    ----------
    only_a, only_b
        Photos that exactly one of them got right.
    count
        All photos.
    """
    ahead = only_a - only_b

    def score(d: float) -> float:
        linear = -only_a - only_b + (2 * count - ahead) * d
        share = (np.sqrt(max(0.0, linear**2 + 8 * count * only_b * d * (1 - d))) - linear) / (4 * count)
        variance = count * (2 * share + d * (1 - d))
        gap = ahead - count * d
        return float(gap / np.sqrt(variance)) if variance > 0 else float(np.sign(gap)) * np.inf

    middle = ahead / count
    ends = []
    for outside in (-1.0, 1.0):
        inside = middle
        for _ in range(40):
            d = (inside + outside) / 2
            inside, outside = (d, outside) if abs(score(d)) <= z else (inside, d)
        ends.append(outside)
    return ends[0], ends[1]


def _unanimous(difference: np.ndarray) -> tuple[float, float]:
    """All photos say the same: the interval is what the rule of three leaves open (Hanley, 1983)."""
    value, margin = float(difference[0]), min(1.0, 3 / len(difference))
    return max(-1.0, value - margin), min(1.0, value + margin)


def _verdict(a: str, b: str, mean: float, ci: tuple[float, float], p: float) -> str:
    first, second, sign = (a, b, 1) if mean >= 0 else (b, a, -1)
    low, high = sorted((100 * sign * ci[0], 100 * sign * ci[1]))
    span = f"95 % interval {low:.1f} to {high:.1f}"
    if p < 0.05:
        return f"{first} beats {second} by {100 * abs(mean):.1f} points, {span}"
    if low > 0:
        return (
            f"{first} is {100 * abs(mean):.1f} points ahead of {second}, {span}, yet chance is not ruled out "
            f"(McNemar's mid-p test, p = {p:.2f})"
        )
    if mean == 0:
        return f"{a} and {b} are equally accurate here, {span} points"
    return f"{first} is {100 * abs(mean):.1f} points ahead of {second}, but that may be chance ({span}, p = {p:.2f})"


# ---- several seeds ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Across:
    """A figure over several seeds, each of which tests photos of its own that overlap with those of the others."""

    seeds: list[float]
    """The figure of each seed."""
    mean: float
    """Of `seeds`."""
    sd: float
    """Standard deviation of `seeds`, with one less than their number below the line."""
    range: tuple[float, float]
    """The lowest and the highest of `seeds`."""
    ci: tuple[float, float]
    """95 % interval of the mean over photos and seeds; see `mean_across`."""


@dataclass(frozen=True)
class PairAcross(Across):
    """Two models on the same photos with each of several seeds; the figure is the accuracy of `a` minus that of `b`."""

    a: str
    b: str
    p_value: float
    """McNemar's mid-p test over photos: each counts once, for the model that was right about it with more seeds."""
    verdict: str
    """The comparison in words."""


def mean_across(sums: np.ndarray, counts: np.ndarray, seed: int) -> Across:
    """The mean of the seeds' accuracies, with an interval that accounts for chance in both photos and seeds.

    Photos and seeds are resampled independently and their weights multiply: the pigeonhole bootstrap (Owen, Annals of Applied
    Statistics, 2007). A photo that several seeds tested is one cluster: it comes with all its answers or not at all. That bootstrap
    counts the noise of a single answer three times, as Owen shows: little where each photo has many answers, but here most have one,
    and intervals would be half as wide again as they should be. The excess sits in what the drawing of seeds adds, for seeds differ
    through their photos too. So that part is scaled to the variance that seeds have beyond their photos' (`_beyond_photos`).

    The interval is for other photos of this kind and other seeds (split, starting weights, order of photos). It is not for another
    collection to train on: all seeds share one. And few seeds tell little of how far seeds scatter: where they scatter no more than
    half as far as the choice of photos makes a single seed's figure waver, three seeds' interval holds the truth 95 times in 100, where
    they scatter as far, about 90 times, and where they scatter much farther, about 80 times.

    Parameters
    ----------
    sums
        (N photos, S seeds) How many of the answers about photo i with seed s were right.
    counts
        (N, S) How many answers there were: 0 where the seed did not test the photo, 2 for twins. S is 2 or more, and each seed
        tested a photo.
    seed
        Of the resampling.
    """
    return _across(sums, counts, seed, least=0.0)


def compare_across(
    a: str, right_a: np.ndarray, b: str, right_b: np.ndarray, counts: np.ndarray, seed: int
) -> PairAcross:
    """Compare two models over photos and seeds: `mean_across` of the paired differences.

    "Beats" asks for both: an interval that leaves 0 out, which accounts for photos and seeds, and McNemar's mid-p test over photos,
    since where models disagree on a handful of photos a bootstrap is too sure.

    Parameters
    ----------
    right_a, right_b
        (N photos, S seeds) How many of each model's answers about a photo were right.
    counts
        (N, S) How many answers there were of each.
    """
    found = _across(right_a - right_b, counts, seed, least=-1.0)
    ahead = (right_a - right_b).sum(1)
    only_a, only_b = int((ahead > 0).sum()), int((ahead < 0).sum())
    p = mid_p(only_a, only_b)
    return PairAcross(**asdict(found), a=a, b=b, p_value=p, verdict=_verdict_across(a, b, found, p))


def _across(sums: np.ndarray, counts: np.ndarray, seed: int, least: float) -> Across:
    means = sums.sum(0) / counts.sum(0)
    values = sums[counts > 0] / counts[counts > 0]
    if values.min() < values.max():
        low, high = np.quantile(_pigeonhole(sums, counts, seed), (0.025, 0.975))
    else:  # a bootstrap would claim certainty
        same = np.full(len(sums), values[0])
        low, high = mean_interval(same) if least == 0 else _unanimous(same)
    return Across(
        seeds=means.tolist(),
        mean=float(means.mean()),
        sd=float(means.std(ddof=1)),
        range=(float(means.min()), float(means.max())),
        ci=(max(least, float(low)), min(1.0, float(high))),
    )


def _pigeonhole(sums: np.ndarray, counts: np.ndarray, seed: int, batch: int = 200) -> np.ndarray:
    """Means (RESAMPLES,) of the seeds' accuracies, photos and seeds drawn anew for each; see `mean_across`."""
    rng = np.random.default_rng(seed)
    photos, seeds = sums.shape
    observed = sums.sum(0) / counts.sum(0)
    by_photos, by_seeds = [], []
    for _ in range(RESAMPLES // batch):
        drawn = _times_drawn(rng, batch, photos)
        asked = drawn @ counts  # (batch, seeds)
        each = np.where(
            asked > 0, (drawn @ sums) / np.maximum(asked, 1), observed
        )  # few photos: a seed's may all be missing
        by_photos.append(each.mean(1))
        by_seeds.append(
            ((_times_drawn(rng, batch, seeds) - 1) * each).mean(1)
        )  # their sum is the bootstrap as Owen has it
    shift = np.concatenate(by_seeds)
    scale = np.sqrt(_beyond_photos(sums, counts) / shift.var()) if shift.any() else 0.0
    draws: np.ndarray = np.concatenate(by_photos) + scale * shift
    return draws


def _times_drawn(rng: np.random.Generator, draws: int, things: int) -> np.ndarray:
    """How often each of so many things is picked when as many are drawn with replacement: (draws, things)."""
    picked = rng.integers(things, size=(draws, things)) + things * np.arange(draws)[:, None]
    return np.bincount(picked.ravel(), minlength=draws * things).reshape(draws, things).astype(float)


def _beyond_photos(sums: np.ndarray, counts: np.ndarray) -> float:
    """Variance of the mean that seeds give beyond what their photos do (method of moments; 0 where that comes out below 0).

    Seeds that don't differ at all still show different accuracies, for their photos differ. How far they would follows from each
    photo's part in each seed's accuracy, less what seeds have in common through the photos that they share.
    """
    seeds = sums.shape[1]
    means = sums.sum(0) / counts.sum(0)
    parts = (sums - means * counts) / counts.sum(0) / seeds  # (photos, seeds), each column adds up to 0
    alone = float((parts**2).sum())
    shared = float((parts.sum(1) ** 2).sum()) - alone
    return float(max(0.0, means.var(ddof=1) / seeds - (alone - shared / (seeds - 1))))


def _verdict_across(a: str, b: str, found: Across, p: float) -> str:
    first, second, sign = (a, b, 1) if found.mean >= 0 else (b, a, -1)
    low, high = sorted(100 * sign * end + 0.0 for end in found.ci)  # + 0.0: no "-0.0"
    span, points = f"95 % interval {low:.1f} to {high:.1f}", f"{100 * abs(found.mean):.1f} points"
    ahead = f"ahead with {sum(sign * d > 0 for d in found.seeds)} of {len(found.seeds)} seeds"
    if low > 0 and p < 0.05:
        return f"{first} beats {second} by {points} on average, {span}, {ahead}"
    if abs(found.mean) < 1e-9:  # seeds that cancel out
        return f"{a} and {b} are equally accurate here on average, {span} points"
    return f"{first} is {points} ahead of {second} on average, but that may be chance ({span}, {ahead}, p = {p:.2f})"
