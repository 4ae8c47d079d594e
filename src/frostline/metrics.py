"""Figures from predictions, each with what is needed to judge it: intervals, paired tests, calibration error."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import optimize, stats
from sklearn import metrics as sk

from frostline.balance import class_mean
from frostline.probabilities import softmax

Labels = np.ndarray
Probabilities = np.ndarray

RESAMPLES = 4000
BINS = 15


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
    """Expected calibration error in equal-count bins, uncalibrated."""
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
    plain, shipped = softmax(logits, 1.0), softmax(logits, temperature)
    predicted = plain.argmax(1)
    index = list(range(len(classes)))
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        labels, predicted, labels=index, zero_division=0.0
    )
    present = support > 0
    right = (predicted == labels).astype(float)
    return Figures(
        accuracy=float((predicted == labels).mean()),
        accuracy_ci=mean_interval(right, seed),
        balanced_accuracy=class_mean(right, labels),
        balanced_accuracy_ci=balanced_interval(right, labels, seed),
        macro_f1=float(f1[present].mean()),
        log_loss=log_loss(shipped, labels),
        log_loss_uncalibrated=log_loss(plain, labels),
        ece=calibration_error(plain, labels),
        ece_calibrated=calibration_error(calibrated, labels),
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
    )


def log_loss(probabilities: Probabilities, labels: Labels) -> float:
    """Mean negative log probability of the true class, in nats."""
    return float(-np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1)).mean())


def mean_interval(values: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % bootstrap interval (BCa) of the mean of 0/1 `values` over photos.

    Where all values agree a bootstrap says nothing (it would claim certainty), so Wilson's interval stands in.
    """
    if values.min() == values.max():
        low, high = stats.binomtest(int(values.sum()), len(values)).proportion_ci(method="wilson")
        return float(low), float(high)
    return _bootstrap(values, seed)


def balanced_interval(right: np.ndarray, labels: Labels, seed: int) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over classes of the mean of 0/1 `right` (N,), resampled within each class.

    The number right in a resample of n photos is binomial, so it is drawn as such. In a class whose photos all agree every resample
    would be the same; its recall is drawn from Jeffreys' posterior instead, so that two of two right are no certainty.
    """
    counts = np.bincount(labels)
    n = counts[counts > 0]
    k = np.bincount(labels, weights=right)[counts > 0].round()
    rng = np.random.default_rng(seed)
    shape = (RESAMPLES, len(n))
    resampled = rng.binomial(n, k / n, shape) / n
    unanimous = (k == 0) | (k == n)
    recalls = np.where(unanimous, rng.beta(k + 0.5, n - k + 0.5, shape), resampled)
    low, high = np.quantile(recalls.mean(1), (0.025, 0.975))
    value = float((k / n).mean())
    return min(float(low), value), max(float(high), value)


def _bootstrap(values: np.ndarray, seed: int) -> tuple[float, float]:
    interval = stats.bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, batch=200, method="BCa", rng=np.random.default_rng(seed)
    ).confidence_interval
    return float(interval.low), float(interval.high)


def calibration_error(probabilities: Probabilities, labels: Labels, bins: int = BINS) -> float:
    """Mean gap between confidence and accuracy over bins of equal count (adaptive ECE; Nixon et al., 2019)."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    parts = np.array_split(np.argsort(confidence, kind="stable"), min(bins, len(labels)))
    gaps = [len(p) * abs(float(confidence[p].mean()) - float(right[p].mean())) for p in parts]
    return float(sum(gaps) / len(labels))


def fit_temperature(logits: np.ndarray, labels: Labels, weights: np.ndarray | None = None) -> float:
    """The temperature of least log loss, 0.05 to 20 (Guo et al., ICML 2017); `weights` (N,) of the photos, None = all alike."""
    scores = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        scaled = scores / np.exp(log_temperature)
        top = scaled.max(1, keepdims=True)
        log_sum = np.log(np.exp(scaled - top).sum(1)) + top[:, 0]
        return float(np.average(log_sum - scaled[np.arange(len(labels)), labels], weights=weights))

    best = optimize.minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(best.x))


def cross_fitted(logits: np.ndarray, labels: Labels, seed: int, folds: int = 5) -> Probabilities:
    """Calibrated probabilities where each photo's temperature was fitted on the other photos.

    For the tutorial's protocol, which has no photos left to calibrate on but those it reports.
    """
    if len(labels) < 2:
        return softmax(logits, 1.0)
    fold = np.random.default_rng(seed).permutation(len(labels)) % min(folds, len(labels))
    result = np.empty(logits.shape)
    for k in np.unique(fold):
        result[fold == k] = softmax(logits[fold == k], fit_temperature(logits[fold != k], labels[fold != k]))
    return result


@dataclass(frozen=True)
class Comparison:
    """Two models on the same photos."""

    a: str
    b: str
    difference: float
    """Accuracy of a minus that of b."""
    ci: tuple[float, float]
    """95 % paired bootstrap interval of the difference."""
    p_value: float
    """McNemar's exact test: how often chance alone would split the photos on which they disagree so unevenly."""
    verdict: str
    """The comparison in words."""


def compare(a: str, right_a: np.ndarray, b: str, right_b: np.ndarray, seed: int) -> Comparison:
    """Compare two models by which photos (N,) each got right.

    McNemar's exact test (McNemar, 1947) on the photos that exactly one got right.
    """
    difference = right_a.astype(float) - right_b.astype(float)
    only_a, only_b = int((difference > 0).sum()), int((difference < 0).sum())
    p = float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    ci = _bootstrap(difference, seed) if difference.min() != difference.max() else _unanimous(difference)
    mean = float(difference.mean())
    return Comparison(a, b, mean, ci, p, _verdict(a, b, mean, ci, p))


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
            f"(McNemar's exact test, p = {p:.2f})"
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
    """McNemar's exact test over photos: each counts once, for the model that was right about it with more seeds."""
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

    "Beats" asks for both: an interval that leaves 0 out, which accounts for photos and seeds, and McNemar's exact test over photos,
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
    p = float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return PairAcross(**asdict(found), a=a, b=b, p_value=p, verdict=_verdict_across(a, b, found, p))


def _across(sums: np.ndarray, counts: np.ndarray, seed: int, least: float) -> Across:
    means = sums.sum(0) / counts.sum(0)
    values = sums[counts > 0] / counts[counts > 0]
    if values.min() < values.max():
        low, high = np.quantile(_pigeonhole(sums, counts, seed), (0.025, 0.975))
    else:  # a bootstrap would claim certainty
        same = np.full(len(sums), values[0])
        low, high = mean_interval(same, seed) if least == 0 else _unanimous(same)
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
