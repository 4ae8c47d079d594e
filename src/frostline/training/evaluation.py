"""Evaluate a trained strategy on the photos that the run reports, from the activations in the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from frostline.bundles import bundle
from frostline.cache.store import Store
from frostline.documents.strategy import StrategyRow
from frostline.networks import freeze_line
from frostline.parallel import ahead, groups
from frostline.photos.manifest import Photo
from frostline.stats import intervals, metrics
from frostline.stats.calibration import fit_temperature
from frostline.stats.class_balance import class_mean, photo_weights, represented
from frostline.stats.predictions import Prediction
from frostline.stats.probabilities import softmax
from frostline.training import loop
from frostline.training.examples import Examples
from frostline.training.prepare import Prepared, network_name
from frostline.training.stages import TrainedStrategy, labels_of, stored_examples

Logits = Callable[[Examples], np.ndarray]
"""A model: photos to logits (N, C), from as many views of each as the model looks at."""
Row = dict[str, Any]


class Evaluation(NamedTuple):
    """The figures and predictions of a trained strategy."""

    row: StrategyRow
    """Its row of study.json, without times and memory."""
    reported: list[Prediction]
    """For the photos reported on."""
    validation: list[Prediction]
    """For the validation photos; none where those are the ones reported on."""
    before_refit: list[Prediction]
    """For the photos reported on where they may be of another kind, by the model that was not trained on the validation
    photos; none where no model was."""


def evaluate(
    trained: TrainedStrategy, prepared: Prepared, model: Logits, validated: Logits | None = None
) -> Evaluation:
    """Measure a trained strategy on the photos reported on, with a temperature fitted on the validation photos.

    Parameters
    ----------
    model
        The compiled model, or `torch_logits`.
    validated
        The model to validate, where the one reported on was trained on the validation photos too.
    """
    network, cut = trained.parts.backbone, trained.parts.cut
    store = prepared.taps[network_name(trained.strategy), cut.line].store
    measured = _measure(model, validated or model, store, prepared)
    head = freeze_line.parameter_count(trained.parts.above.head)
    unfrozen = network.lines.unfrozen(trained.strategy, head)
    total, _ = freeze_line.parameter_counts(cut.prefix, cut.suffix, trained.parts.above.head)
    row: Row = {
        "name": trained.strategy.name,
        "backbone": trained.strategy.backbone,
        "weights": trained.strategy.weights,
        "pretrained_weights": list(network.origins),
        "freeze_line": cut.line,
        "layers": network.layer_count,
        "image_size": network.transform.size,
        "label_smoothing": 0.0 if trained.strategy.recipe.robust else trained.strategy.recipe.label_smoothing,
        "parameters": {"total": total, "trainable": unfrozen["head"] + unfrozen["backbone"]},
        "unfrozen": unfrozen,
        **measured.figures.to_dict(),
        "validation_accuracy": trained.state.kept_accuracy,
        "validation_balanced_accuracy": measured.validation_balanced_accuracy,
        "history": trained.history,
        "best_epoch": trained.state.best_epoch,
        "head_history": trained.head_history,
        **_before_corrections(model, store, prepared),
        **_with_known(model, store, prepared),
    }
    before: list[Prediction] = []
    if validated is not None and validated is not model and prepared.reported_apart:
        photos = prepared.reported()
        logits = validated(stored_examples(store, photos, prepared))
        before = _predictions(photos, logits, measured.figures.temperature, prepared)
    return Evaluation(cast(StrategyRow, row), measured.reported, measured.validation, before)


class _Measured(NamedTuple):
    figures: metrics.Figures
    reported: list[Prediction]
    validation: list[Prediction]
    validation_balanced_accuracy: float


def _measure(model: Logits, validated: Logits, store: Store, prepared: Prepared) -> _Measured:
    """The figures and predictions, with the temperature from the validation photos where those aren't the ones reported
    on."""
    reported = stored_examples(store, prepared.reported(), prepared)
    logits = model(reported)
    temperature: float | None = None
    validation: list[Prediction] = []
    checked, validation_logits = reported, logits
    if not prepared.validation_is_reported:
        photos = prepared.part(prepared.split.validation.tolist())
        checked = stored_examples(store, photos, prepared)
        validation_logits = validated(checked)
        weights = _validation_weights(checked.labels, prepared)
        temperature = fit_temperature(validation_logits, checked.labels, weights)
        validation = _predictions(photos, validation_logits, temperature, prepared)
    clusters = prepared.clusters(prepared.reported())
    figures = metrics.measure(logits, reported.labels, prepared.classes, temperature, prepared.config.seed, clusters)
    predictions = _predictions(prepared.reported(), logits, figures.temperature, prepared)
    balanced = class_mean(validation_logits.argmax(1) == checked.labels, checked.labels)
    return _Measured(figures, predictions, validation, balanced)


def _validation_weights(labels: np.ndarray, prepared: Prepared) -> npt.NDArray[np.float64] | None:
    """Weights (V,) of the validation photos for fitting the temperature; None = all alike.

    After balanced training they are weighted to the class shares that the probabilities stand for: the temperature is
    to correct confidence, not a difference in class shares.
    """
    priors, stands_for = (np.array(shares) for shares in class_shares(prepared))
    return None if np.allclose(stands_for, priors) else photo_weights(labels, stands_for)


def class_shares(prepared: Prepared) -> tuple[list[float], list[float]]:
    """The class shares (C,) of the training photos, and those that probabilities stand for after training on them."""
    labels = labels_of(prepared.part(prepared.split.train.tolist()), prepared.classes)
    counts = np.bincount(labels, minlength=len(prepared.classes))
    return represented(counts, "none").tolist(), represented(counts, prepared.config.balance).tolist()


def _predictions(
    photos: Sequence[Photo], logits: np.ndarray, temperature: float, prepared: Prepared
) -> list[Prediction]:
    probabilities, clusters = softmax(logits, temperature), prepared.clusters(photos).tolist()
    return [
        replace(Prediction.of(photo.path, photo.label, prepared.classes, shares), cluster=cluster)
        for photo, shares, cluster in zip(photos, probabilities, clusters, strict=True)
    ]


def _before_corrections(model: Logits, store: Store, prepared: Prepared) -> Row:
    """The accuracy on the photos reported on before any was left out or relabelled; empty where none was."""
    if not prepared.as_given:
        return {}
    examples = stored_examples(store, prepared.as_given, prepared)
    correct = model(examples).argmax(1) == examples.labels
    low, high = intervals.mean_interval(correct, prepared.clusters(prepared.as_given))
    return {
        "accuracy_as_given": float(correct.mean()),
        "accuracy_as_given_ci": [low, high],
        "photos_as_given": len(correct),
    }


def _with_known(model: Logits, store: Store, prepared: Prepared) -> Row:
    """The accuracy on all photos of the test folder, where those that were trained on, or whose group was, are left out
    of the figures; else empty."""
    if prepared.asked is None:
        return {}
    examples = stored_examples(store, prepared.asked.photos, prepared)
    correct = model(examples).argmax(1) == examples.labels
    return {
        "accuracy_with_known": float(correct.mean()),
        "accuracy_with_known_ci": intervals.mean_interval(correct, prepared.clusters(prepared.asked.photos)),
        "photos_with_known": len(correct),
    }


# ---- models that give logits -----------------------------------------------------------------------------------------


def torch_logits(trained: TrainedStrategy, prepared: Prepared) -> Logits:
    """The model in PyTorch and float32: for one that is measured and not kept, so that nothing is compiled for it."""

    def view(photos: Examples, number: int) -> np.ndarray:
        return loop.predict_logits(trained.parts.above, photos, prepared.device, view=number).numpy()

    def logits(photos: Examples) -> np.ndarray:
        clean = view(photos, 0)
        return clean if trained.strategy.test_views == 1 else bundle.both_sides(clean, view(photos, 1))

    return logits


def compiled_logits(model: bundle.Bundle) -> Logits:
    """A compiled model, fed with the activations that the cache holds at its line."""

    def view(photos: Examples, number: int) -> np.ndarray:
        return np.concatenate([seen.logits for seen in outputs_of(model, photos, number)])

    def logits(photos: Examples) -> np.ndarray:
        clean = view(photos, 0)
        return clean if model.about.test_views == 1 else bundle.both_sides(clean, view(photos, 1))

    return logits


def outputs_of(model: bundle.Bundle, photos: Examples, view: int) -> Iterator[bundle.Outputs]:
    """The outputs of a compiled model for the cached rows of these photos, some photos at a time."""
    size = max(model.batch, 8)  # one thread's share at a time
    read = (photos.store.read([views[view] for views in group]) for group in groups(photos.keys, size))
    return (seen for _, seen in ahead(model.outputs_at_line, read, depth=4))
