"""What exceeds chance: wrong labels, and photos unlike any class. Both are estimated from the photos themselves.

**Wrong labels.** A hard photo is often predicted as another class although its label is right. So a prediction that
contradicts the label proves nothing by itself: if the probabilities q are calibrated, as many right labels look
unlikely as q says. `wrong_labels` fits such probabilities and a share of wrong labels at once, by maximum likelihood:

    p(label y | photo) = (1 - e) q_y + e (1 - q_y) / (C - 1),    q = softmax(log p / T)

where p are cross-validated predictions, T is a temperature (Guo et al., "On Calibration of Modern Neural Networks",
ICML 2017) and e the share of labels that were replaced by another class at random (Angluin and Laird, "Learning From
Noisy Examples", 1988). If no label is wrong, T alone fits and e is 0. Bayes' rule then says of each label how likely it
is one of those replaced. Called are labels that are more likely wrong than right (a local false discovery rate below a
half: Efron, "Large-Scale Inference", 2010), and none where a likelihood-ratio test finds no wrong labels at all.
What it can't find: wrong labels that all go to the class likeliest next look like hard photos.

**Photos unlike any class.** `outliers` takes the upper tail of the distances between photos for exponential, with the
scale of its inner half, and calls those that are too far out for it (Benjamini and Hochberg, JRSS B 1995).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

CALLED = 0.5
"""Probability of being wrong from which a label is called."""

FALSE = 0.25
"""Of the photos that are called unlike any class, at most this share is expected by chance."""

_SHOWN = 2.71  # twice the log likelihood ratio that right labels exceed in 5 % of sets: e = 0 is the end of its range
_LEVEL = 0.05  # of the test whether there are outliers at all
_TAIL = 0.1  # share of the photos that the tail is fitted to
_MOST_WRONG = 0.5
_TEMPERATURES = (0.2, 4.0)
_USUAL, _SPREAD = np.log(0.5), 0.4  # prior of log T: what was seen with the regression of `label_errors`
_LEAST = 1e-12
_STEP = 0.05  # of log T and of the share's log odds, for numerical derivatives
_DRAWS = 100  # of temperature and share, for an interval; and a tenth as many of the labels for each


@dataclass(frozen=True)
class WrongLabels:
    """What `wrong_labels` finds for N labels."""

    share: float
    """Of all labels that are wrong, as fitted; 0 where the test finds none."""
    temperature: float
    """T of the calibrated probabilities."""
    wrong: Doubles
    """(N,): probability that the label is wrong; 0 where it wasn't judged, or none is found."""
    called: Mask
    """(N,): the labels to call wrong."""
    precision_ci: tuple[float, float] | None
    """95 % CI of the share of the called labels that are wrong; None where none is called."""
    hard_by_chance: float
    """How many labels are expected to be doubted by `hard` or more if all were right."""

    @property
    def by_chance(self) -> float:
        """How many of the called labels are expected to be right."""
        return float((1 - self.wrong[self.called]).sum())


def wrong_labels(
    probabilities: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    judged: Mask,
    *,
    hard: float,
) -> WrongLabels:
    """Estimate the share of wrong labels, and which ones they are.

    Parameters
    ----------
    probabilities
        (N, C): cross-validated predictions.
    labels
        (N,): 0 to C - 1 where `judged`.
    groups
        (N,): photos of one group (near-duplicates) are evidence only once.
    judged
        (N,): the labels to fit and to call.
    hard
        Doubt, p(likeliest other class) / (p(that) + p(label)), from which a photo counts as hard.
    """
    wrong, called = np.zeros(len(labels)), np.zeros(len(labels), bool)
    if not judged.any():
        return WrongLabels(0.0, 1.0, wrong, called, None, 0.0)
    model = _Model(np.log(np.maximum(probabilities[judged], _LEAST)).astype(np.float64), labels[judged], groups[judged])
    alone, (temperature, share) = model.fit_right_labels(), model.fit()
    expected = _hard_by_chance(model.logits, alone, hard)
    if 2 * (model.fitness(temperature, share) - model.fitness(alone, 0.0)) < _SHOWN:
        return WrongLabels(0.0, alone, wrong, called, None, expected)
    own = model.posterior(temperature, share)
    some = own >= CALLED
    wrong[judged], called[judged] = own, some
    ci = model.precision_ci(temperature, share, some) if some.any() else None
    return WrongLabels(share, temperature, wrong, called, ci, expected)


class _Model:
    """The likelihood of M labels, given the logits (M, C); a group of photos counts as one."""

    def __init__(self, logits: Doubles, labels: npt.NDArray[np.int64], groups: npt.NDArray[np.int64]) -> None:
        self.logits, self.labels = logits, labels
        _, self.group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        self.weight = 1 / sizes[self.group]

    def odds(self, temperature: float) -> tuple[Doubles, Doubles]:
        """(M,): the log probability of each right label, and the odds of a replaced label against a right one."""
        own = _softmax(self.logits, temperature)[np.arange(len(self.labels)), self.labels]
        own = np.clip(own, _LEAST, 1)
        return np.log(own), (1 - own) / max(1, self.logits.shape[1] - 1) / own

    def fitness(self, temperature: float, share: float) -> float:
        """The log likelihood, with the prior of the temperature."""
        own, odds = self.odds(temperature)
        prior = -(((np.log(temperature) - _USUAL) / _SPREAD) ** 2) / 2
        return float(self.weight @ (own + np.log1p(share * (odds - 1))) + prior)

    def share(self, temperature: float) -> float:
        """The likeliest share at a temperature: where the likelihood, concave in the share, has no slope."""
        from scipy.optimize import brentq

        more = self.odds(temperature)[1] - 1

        def slope(share: float) -> float:
            return float(self.weight @ (more / (1 + share * more)))

        if slope(0.0) <= 0:
            return 0.0
        return _MOST_WRONG if slope(_MOST_WRONG) >= 0 else float(brentq(slope, 0.0, _MOST_WRONG, xtol=1e-6))

    def fit(self) -> tuple[float, float]:
        """The likeliest temperature and share."""
        temperature = _likeliest(lambda t: self.fitness(t, self.share(t)))
        return temperature, self.share(temperature)

    def fit_right_labels(self) -> float:
        """The likeliest temperature if all labels are right."""
        return _likeliest(lambda t: self.fitness(t, 0.0))

    def posterior(self, temperature: float, share: float) -> Doubles:
        """(M,): the probability that a label was replaced."""
        odds = self.odds(temperature)[1]
        return np.asarray(share * odds / (1 - share + share * odds))

    def precision_ci(self, temperature: float, share: float, called: Mask) -> tuple[float, float]:
        """Between which shares of the called labels are wrong, in 95 % of draws.

        Each draw takes temperature and share from their normal approximation, and then the labels (those of a group are
        wrong together).
        """
        at = np.array([np.log(temperature), np.log(share / (1 - share))])
        rng = np.random.default_rng(0)
        _, group = np.unique(self.group[called], return_inverse=True)
        some = _Model(self.logits[called], self.labels[called], group)
        found = []
        for x in rng.multivariate_normal(at, self._covariance(at), _DRAWS, method="eigh"):
            wrong = some.posterior(*_moved(x))
            found += [(wrong > rng.random(group.max() + 1)[group]).mean() for _ in range(_DRAWS // 10)]
        low, high = np.quantile(found, [0.025, 0.975])
        return float(low), float(high)

    def _covariance(self, at: Doubles) -> Doubles:
        """Of log T and the share's log odds at the likeliest `at`: the inverse of the likelihood's curvature."""
        steps = _STEP * np.eye(2)
        curvature = np.empty((2, 2))
        for i, a in enumerate(steps):
            for j, b in enumerate(steps):
                corners = [s * t * self.fitness(*_moved(at + s * a + t * b)) for s in (-1, 1) for t in (-1, 1)]
                curvature[i, j] = -sum(corners) / (4 * _STEP**2)
        return np.asarray(np.linalg.pinv(curvature, hermitian=True))


def _moved(at: Doubles) -> tuple[float, float]:
    """Temperature and share, of log T and the share's log odds."""
    return float(np.exp(np.clip(at[0], *np.log(_TEMPERATURES)))), float(1 / (1 + np.exp(-at[1])))


def _likeliest(fitness: Callable[[float], float]) -> float:
    """The temperature of the highest fitness."""
    from scipy.optimize import minimize_scalar

    low, high = np.log(_TEMPERATURES)
    found = minimize_scalar(
        lambda x: -fitness(float(np.exp(x))), bounds=(low, high), method="bounded", options={"xatol": 1e-3}
    )
    return float(np.exp(found.x))


def _softmax(logits: Doubles, temperature: float) -> Doubles:
    from scipy.special import softmax

    return np.asarray(softmax(logits / temperature, axis=1))


def _hard_by_chance(logits: Doubles, temperature: float, hard: float) -> float:
    """How many labels, drawn from the calibrated probabilities, would be doubted by `hard` or more."""
    q, p = _softmax(logits, temperature), np.exp(logits)
    if p.shape[1] < 2:
        return 0.0
    top = np.sort(p, axis=1)[:, -2:]
    other = np.where(p == top[:, 1:], top[:, :1], top[:, 1:])
    return float(q[other / (other + p) >= hard].sum())


@dataclass(frozen=True)
class Outliers:
    """What `outliers` finds among N distances."""

    called: Mask
    """(N,): farther out than chance explains."""
    by_chance: float
    """How many of the called are expected by chance."""


def outliers(distances: npt.NDArray[np.floating[Any]]) -> Outliers:
    """Which of N distances are too large for the tail that the others have."""
    count = len(distances)
    called = np.zeros(count, bool)
    edge = float(np.quantile(distances, 1 - _TAIL)) if count else 0.0
    beyond = distances > edge
    if not beyond.any():
        return Outliers(called, 0.0)
    past = np.asarray(distances[beyond], np.float64) - edge
    scale = float(np.median(past)) / np.log(2)  # the median: outliers don't stretch it
    order = np.flatnonzero(beyond)[np.argsort(-past, kind="stable")]
    expected = _TAIL * count * np.exp(-(distances[order] - edge) / scale)  # as far out as each, by chance
    share = expected / np.arange(1, len(order) + 1)
    if share.min() > _LEVEL:
        return Outliers(called, 0.0)
    last = int(np.flatnonzero(share <= FALSE).max())
    called[order[: last + 1]] = True
    return Outliers(called, float(expected[last]))
