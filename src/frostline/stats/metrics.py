"""The metrics of a model: one table, `METRICS`.

A new metric is a row of `METRICS` and the function that it names; the order of rows is that of columns. study.json, the
report, the Markdown report, the page and the JSON of `frostline compare` and the model card loop over the table, so
nothing else needs an edit. The tables in the terminal, and the pages of a sweep and of several seeds, show a few fixed
metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from frostline import wording
from frostline.documents.strategy import CalibrationFigures, CalibrationStages, PerClass, ReliabilityStages
from frostline.stats.calibration import calibration, calibration_error, cross_fitted
from frostline.stats.class_balance import class_mean
from frostline.stats.clusters import Clusters
from frostline.stats.intervals import Labels, balanced_interval, mean_interval
from frostline.stats.probabilities import softmax
from frostline.stats.reliability import reliability

Probabilities = np.ndarray
Page = Literal["report", "card"]


@dataclass(frozen=True)
class Outcomes:
    """What a model answered on N photos of C classes: all that a metric is computed from."""

    labels: Labels
    """(N,) class indices."""
    uncalibrated: Probabilities
    """(N, C) at temperature 1."""
    shipped: Probabilities
    """(N, C) at the bundle's temperature."""
    calibrated: Probabilities
    """(N, C) at a temperature that never saw these photos' labels."""
    calibration: CalibrationStages
    """Calibration figures of `uncalibrated` (before) and `calibrated` (after); costly, so computed once for all."""
    fitted: bool
    """Whether the bundle's temperature was fitted on other photos, so that `shipped` is `calibrated`."""
    clusters: Clusters | None = None
    """(N,) Numbers shared by photos that are not independent; None = all are."""

    @property
    def saved(self) -> CalibrationFigures:
        """Calibration figures of `shipped`."""
        return self.calibration["after" if self.fitted else "before"]

    @property
    def predicted(self) -> Labels:
        """(N,) class indices."""
        return np.asarray(self.uncalibrated.argmax(1))

    @property
    def correct(self) -> np.ndarray:
        """(N,) 1.0 where the predicted class is the true one, else 0.0."""
        return np.asarray(self.predicted == self.labels, dtype=float)


@dataclass(frozen=True)
class Metric:
    """One figure of a model."""

    name: str
    """Its key in study.json. With `interval`, the 95 % CI stands under ``<name>_ci``."""
    label: str
    """Its heading in tables."""
    function: Callable[[Outcomes], float]
    """A finite number."""
    style: Literal["percent", "decimal"] = "decimal"
    better: Literal["higher", "lower"] = "higher"
    interval: Callable[[Outcomes], tuple[float, float]] | None = None
    pages: tuple[Page, ...] = ("report", "card")
    """Where it is shown: the report (also as Markdown, and in comparisons of runs), the model card."""
    hub_type: str = ""
    """The Hugging Face Hub's name of it, in the model card, where that is another than `name`."""

    def text(self, row: Mapping[str, Any]) -> str:
        """The figure of a row of study.json as people read it; a dash where the row has none."""
        show = wording.percent if self.style == "percent" else wording.decimal
        return show(row.get(self.name))

    def interval_text(self, row: Mapping[str, Any]) -> str:
        """Its 95 % CI as people read it."""
        show = wording.span if self.style == "percent" else wording.decimals
        return show(row.get(f"{self.name}_ci"))


def log_loss(probabilities: Probabilities, labels: Labels) -> float:
    """Mean negative log probability of the true class, in nats."""
    return float(-np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1)).mean())


def _macro_f1(found: Outcomes) -> float:
    """The mean of the classes' F1, of those classes that have photos."""
    from sklearn import metrics as sk  # half a second, when the photos have long gone through the network

    present = np.unique(found.labels)
    return float(np.mean(sk.f1_score(found.labels, found.predicted, labels=present, average=None, zero_division=0.0)))


METRICS: tuple[Metric, ...] = (
    Metric(
        "accuracy",
        "Accuracy",
        lambda found: float(found.correct.mean()),
        style="percent",
        interval=lambda found: mean_interval(found.correct, found.clusters),
    ),
    Metric(  # the mean of the recalls of the classes that have photos, each class counting the same
        "balanced_accuracy",
        "Macro recall",
        lambda found: class_mean(found.correct, found.labels),
        style="percent",
        interval=lambda found: balanced_interval(found.correct, found.labels, found.clusters),
    ),
    Metric("macro_f1", "Macro F1", _macro_f1, hub_type="f1"),
    Metric("log_loss", "Log loss", lambda found: log_loss(found.shipped, found.labels), better="lower"),
    Metric(
        "log_loss_uncalibrated",
        "Log loss at temperature 1",
        lambda found: log_loss(found.uncalibrated, found.labels),
        better="lower",
        pages=(),
    ),
    Metric(  # of the model as it is saved, without the bias of chance: the one that people read
        "calibration_error",
        "Calibration error",
        lambda found: found.saved["debiased"],
        better="lower",
        interval=lambda found: (found.saved["ci"][0], found.saved["ci"][1]),
        hub_type="ece",
    ),
    # The plain expected calibration error in equal-count bins, which chance biases upward. In JSON alone.
    Metric("ece", "Plain ECE", lambda found: found.calibration["before"]["error"], better="lower", pages=()),
    Metric(
        "ece_calibrated",
        "Plain ECE after scaling",
        lambda found: found.calibration["after"]["error"],
        better="lower",
        pages=(),
    ),
    Metric(
        "ece_shipped",
        "Plain ECE of the saved model",
        lambda found: calibration_error(found.shipped, found.labels),
        better="lower",
        pages=(),
    ),
)


def shown_on(page: Page, unequal: bool) -> list[Metric]:
    """The metrics that a page shows, in order.

    Where classes are of unequal size, those in which every class counts the same come first; elsewhere macro recall
    says nothing that accuracy does not, and is left out.
    """
    chosen = [metric for metric in METRICS if page in metric.pages]
    if not unequal:
        return [metric for metric in chosen if metric.name != "balanced_accuracy"]
    return sorted(chosen, key=lambda metric: metric.name not in ("balanced_accuracy", "macro_f1"))


@dataclass(frozen=True)
class Figures:
    """How good one model is on the photos reported on."""

    metrics: dict[str, float]
    """By `Metric.name`."""
    intervals: dict[str, tuple[float, float]]
    """By ``<name>_ci``: 95 % CIs over photos."""
    temperature: float
    """What the logits are divided by in the bundle."""
    per_class: list[PerClass]
    confusion: list[list[int]]
    """Rows: true class; columns: predicted."""
    calibration: CalibrationStages
    """`before` any temperature and `after` one that never saw these photos' labels: error without bias, interval, test;
    see `frostline.stats.calibration`."""
    reliability: ReliabilityStages
    """The bins of a reliability diagram, `before` and `after`."""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, part of a `StrategyRow`: each metric under its own name."""
        rest = asdict(self)
        return {**rest.pop("metrics"), **rest.pop("intervals"), **rest}


def measure(
    logits: np.ndarray,
    labels: Labels,
    classes: list[str],
    temperature: float | None,
    seed: int,
    clusters: Clusters | None = None,
) -> Figures:
    """All figures of one model.

    Parameters
    ----------
    logits
        (N, C), uncalibrated.
    labels
        (N,) class indices.
    temperature
        The one that ships, fitted on other photos (`calibration.fit_temperature`). None where there were no others:
        then temperature 1 ships, and the calibrated figures are of temperatures cross-fitted on these photos.
    seed
        Of the simulations behind the calibration error, and of the folds of cross-fitting.
    clusters
        (N,) Numbers shared by photos that are not independent (`stats.clusters`); None = all are.
    """
    from sklearn import metrics as sk  # half a second, when the photos have long gone through the network

    shipped = softmax(logits, temperature or 1.0)
    calibrated = cross_fitted(logits, labels, seed, clusters) if temperature is None else shipped
    plain = softmax(logits, 1.0)
    stages: CalibrationStages = {
        "before": calibration(plain, labels, seed, clusters),
        "after": calibration(calibrated, labels, seed, clusters),
    }
    found = Outcomes(labels, plain, shipped, calibrated, stages, temperature is not None, clusters)
    return Figures(
        metrics={metric.name: metric.function(found) for metric in METRICS},
        intervals={f"{metric.name}_ci": metric.interval(found) for metric in METRICS if metric.interval is not None},
        temperature=temperature or 1.0,
        per_class=_per_class(found, classes),
        confusion=sk.confusion_matrix(labels, found.predicted, labels=list(range(len(classes)))).tolist(),
        calibration=stages,
        reliability={
            "before": reliability(found.uncalibrated, labels, clusters=clusters),
            "after": reliability(found.calibrated, labels, clusters=clusters),
        },
    )


def _per_class(found: Outcomes, classes: list[str]) -> list[PerClass]:
    """Precision, recall and F1 of each class. A class without photos has none of them: nothing was measured."""
    from sklearn import metrics as sk

    columns = sk.precision_recall_fscore_support(
        found.labels, found.predicted, labels=list(range(len(classes))), zero_division=0.0
    )
    return [
        {
            "class": name,
            "precision": float(precision) if support else None,
            "recall": float(recall) if support else None,
            "f1": float(f1) if support else None,
            "support": int(support),
        }
        for name, precision, recall, f1, support in zip(classes, *columns, strict=True)
    ]
