"""One strategy, from photos to bundle. This file reads top to bottom as the product.

    photos -> manifest -> split -> backbone cut at the line -> activations (cache) -> train suffix and head -> evaluate -> bundle

`frostline.training.prepare.prepare` does the part that all strategies of a study share, up to the activations; `fit` the rest.
A strategy with `refit` is trained once more, with the validation photos among the others.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import numpy as np
import torch
from torch import nn

from frostline.bundles import bundle, card, neighbours
from frostline.cache.store import Key, Store
from frostline.documents.bundle import BundleFigures, NeighboursFile
from frostline.files import write_text
from frostline.networks import freeze_line, trainable
from frostline.networks.backbone import Backbone
from frostline.parallel import ahead, groups
from frostline.photos.decoding import MIRROR
from frostline.photos.manifest import Photo
from frostline.progress import Progress
from frostline.recipes import Recipe, Strategy, resolve
from frostline.stats import evaluation, intervals, metrics, thresholds
from frostline.stats.class_balance import class_mean, photo_weights, represented
from frostline.stats.predictions import Prediction, write_predictions
from frostline.stats.probabilities import softmax
from frostline.training import loop
from frostline.training.prepare import Prepared, network_name

Log = Callable[..., None]
Row = dict[str, Any]
Logits = Callable[[loop.Examples], np.ndarray]


# ---- one strategy ----------------------------------------------------------------------------------------------------


class TrainedHead(NamedTuple):
    """A trained head, for strategies that start from it."""

    tensors: dict[str, torch.Tensor]
    history: list[Row]
    """The epochs that were tried on the way."""
    epochs: int
    """After how many of them it was taken."""


@dataclass(frozen=True)
class TrainedStrategy:
    """A trained strategy, of which nothing but checkpoints is on disk."""

    strategy: Strategy
    parts: bundle.Parts
    state: loop.State
    head_history: list[Row]
    head_epochs: int
    """Of the head's own stage, the epochs after which it was taken; 0 without such a stage."""

    @property
    def head(self) -> TrainedHead:
        """Its head as it is now."""
        tensors = {k: v.detach().cpu().clone() for k, v in self.parts.above.head.state_dict().items()}
        return TrainedHead(tensors, _history(self.state), self.state.best_epoch)


class Evaluation(NamedTuple):
    """What a trained strategy is worth."""

    row: Row
    """Its row of study.json, without times and memory."""
    reported: list[Prediction]
    """On the photos reported on."""
    validation: list[Prediction]
    """On the validation photos; none where those are the ones reported on."""


def fit(
    strategy: Strategy, prepared: Prepared, folder: Path, *, head_from: Row | None, progress: Progress, log: Log
) -> Row:
    """Train, evaluate and write one strategy; returns its row of study.json.

    Parameters
    ----------
    folder
        The strategy's folder in the run: gets history.csv, predictions.csv, validation.csv (where validation photos are not
        the ones reported on) and bundle/, and a checkpoint until it is done.
    head_from
        The finished row of a strategy whose head this one starts from (the frozen one's), or None to train the head here.
    log
        Called with an event's name and its values.

    Raises
    ------
    RunError
        No room on the disk, or training came to nothing (the loss is not a number).
    """
    head = None
    if head_from is not None:
        tensors = bundle.head_of(folder.parent / head_from["name"] / "bundle")
        head = TrainedHead(tensors, head_from["history"], head_from["best_epoch"])
    trained = train_strategy(strategy, prepared, folder, head=head, progress=progress, log=log)
    watched = torch_logits(
        trained, prepared
    )  # who validation photos are asked of: the model that was not trained on them
    trained_on, refitted = prepared, Row()
    if strategy.refit and prepared.refits:
        trained_on = prepared.joined()
        trained, refitted = refit(trained, prepared, folder, progress=progress, log=log)
    trained_at = time.perf_counter()

    # -- what it is worth, compiled as it will be used
    about = bundle.describe(
        strategy,
        trained.parts.backbone,
        trained.parts.cut,
        prepared.classes,
        stored_as=prepared.config.stored_as,
        temperature=1.0,
        figures={},
        **_shares(trained_on),
    )
    model = bundle.assembled(about, trained.parts, prepared.runtime)
    asked = partial(_logits, model)
    row, reported, validation = evaluate(trained, prepared, asked, watched if refitted else asked)
    row.update(refitted)

    # -- and the model, ready to use
    known, kept = _training_photos(trained, trained_on, model)
    sure = thresholds.of(validation)
    about = replace(
        about, temperature=row["temperature"], figures=_headline(row, prepared), neighbours=kept, thresholds=sure
    )
    write_history(folder / "history.csv", trained.state)
    write_predictions(folder / "predictions.csv", reported, prepared.classes)
    if validation:
        write_predictions(folder / "validation.csv", validation, prepared.classes)
    bundle.save(
        folder / "bundle", about, trained.parts, card.write(about, prepared.config, prepared.photos.counts()), known
    )
    ended = time.perf_counter()
    spent = {"prefix": prepared.prefix_seconds, "train": training_seconds(row), "evaluate": ended - trained_at}
    row["seconds"] = {k: round(v, 3) for k, v in {**spent, "total": sum(spent.values())}.items()}
    row["peak_rss_mb"] = peak_memory_mb()
    return row


def training_seconds(row: Row) -> float:
    """Seconds in training, the head's own stage included. Not this process's clock: part of a resumed run was trained before."""
    once = sum(epoch["seconds"] for epoch in [*row["head_history"], *row["history"]])
    return float(once + row.get("refit", {}).get("seconds", 0.0))


def train_strategy(
    strategy: Strategy,
    prepared: Prepared,
    folder: Path | None,
    *,
    head: TrainedHead | None,
    progress: Progress,
    log: Log,
) -> TrainedStrategy:
    """Train one strategy.

    Parameters
    ----------
    folder
        Where checkpoints are kept; None = nowhere.
    head
        The head to start from where the strategy trains one first; None to train it here, to the same bits.

    Raises
    ------
    RunError
        No room on the disk, or training came to nothing (the loss is not a number).
    """
    network = prepared.backbones[network_name(strategy)]
    cut = freeze_line.cut(network.traced, resolve(strategy.line, network.layer_count))
    layers = trainable.make_head(network.features, len(prepared.classes), strategy.recipe, prepared.training_seed)

    # -- the head first, on the whole frozen network
    head_history: list[Row] = []
    head_epochs = 0
    if strategy.head_first and head is not None:
        layers.load_state_dict(head.tensors)
        head_history, head_epochs = head.history, head.epochs
    elif strategy.head_first:
        state = _train_stage(_frozen(network, layers), strategy, "head", network, prepared, folder, progress, log)
        head_history, head_epochs = _history(state), state.best_epoch

    # -- then all that lies above the line
    above = trainable.Above(bundle.detached(cut), layers, learn_statistics=strategy.weights == "random")
    state = _train_stage(above, strategy, "own", network, prepared, folder, progress, log)
    return TrainedStrategy(strategy, bundle.Parts(network, cut, above), state, head_history, head_epochs)


def refit(
    trained: TrainedStrategy, prepared: Prepared, folder: Path, *, progress: Progress, log: Log
) -> tuple[TrainedStrategy, Row]:
    """The strategy trained again from its start on training and validation photos together, each stage for the epochs that were kept.

    Returns
    -------
    tuple
        The model, with the history of the training that chose the epochs; and
        ``{"refit": {"photos", "head_epochs", "epochs", "seconds"}}``.

    Raises
    ------
    RunError
        As `train_strategy`.
    """
    strategy, network, cut = trained.strategy, trained.parts.backbone, trained.parts.cut
    photos, more = len(prepared.split.train), prepared.joined()
    own, head = (loop.again(recipe, photos) for recipe in (strategy.recipe, strategy.head_recipe))
    strategy = replace(strategy, recipe=own, head_recipe=head)
    layers = trainable.make_head(network.features, len(prepared.classes), strategy.recipe, prepared.training_seed)
    seconds = 0.0
    if strategy.head_first:
        top, last = _frozen(network, layers), trained.head_epochs
        state = _train_stage(top, strategy, "head again", network, more, folder, progress, log, last)
        seconds += sum(epoch.seconds for epoch in state.history)
    above = trainable.Above(bundle.detached(cut), layers, learn_statistics=strategy.weights == "random")
    last = trained.state.best_epoch
    state = _train_stage(above, strategy, "own again", network, more, folder, progress, log, last)
    seconds += sum(epoch.seconds for epoch in state.history)
    told = {"photos": len(more.split.train), "head_epochs": trained.head_epochs, "epochs": last, "seconds": seconds}
    return replace(trained, parts=bundle.Parts(network, cut, above)), {"refit": told}


def _frozen(network: Backbone, layers: nn.Sequential) -> trainable.Above:
    """A head on the whole frozen network."""
    top = freeze_line.cut(network.traced, network.layer_count)
    return trainable.Above(top.suffix, layers, learn_statistics=False)


def evaluate(trained: TrainedStrategy, prepared: Prepared, logits: Logits, watched: Logits | None = None) -> Evaluation:
    """Measure a trained strategy on the photos reported on, with the temperature from validation photos.

    Parameters
    ----------
    logits
        Gives (N, C) for photos, of as many views as the model looks at: the compiled model, or `torch_logits`.
    watched
        The same of the model that is asked about validation photos, where the one reported on was trained on them.
    """
    strategy, parts, state = trained.strategy, trained.parts, trained.state
    network, cut = parts.backbone, parts.cut
    store = prepared.taps[network_name(strategy), cut.line].store
    figures, reported, validation, balanced = _evaluate(logits, watched or logits, store, prepared)
    total, trainable = freeze_line.parameter_counts(cut.prefix, cut.suffix, parts.above.head)
    row: Row = {
        "name": strategy.name,
        "backbone": strategy.backbone,
        "weights": strategy.weights,
        "freeze_line": cut.line,
        "layers": network.layer_count,
        "image_size": network.transform.size,
        "parameters": {"total": total, "trainable": trainable},
        **figures.to_dict(),
        "validation_accuracy": state.kept_accuracy,
        "validation_balanced_accuracy": balanced,
        "history": _history(state),
        "best_epoch": state.best_epoch,
        "head_history": trained.head_history,
        **_as_given(logits, store, prepared),
    }
    return Evaluation(row, reported, validation)


def _as_given(logits: Logits, store: Store, prepared: Prepared) -> Row:
    """The accuracy on the photos reported on before any was left out or relabelled."""
    if not prepared.as_given:
        return {}
    examples = store_examples(store, prepared.as_given, prepared)
    right = logits(examples).argmax(1) == examples.labels
    low, high = intervals.mean_interval(right)
    return {
        "accuracy_as_given": float(right.mean()),
        "accuracy_as_given_ci": [low, high],
        "photos_as_given": len(right),
    }


def torch_logits(trained: TrainedStrategy, prepared: Prepared) -> Logits:
    """Logits straight from PyTorch in float32: for a model that is measured and not kept, so nothing is compiled for it."""

    def view(photos: loop.Examples, number: int) -> np.ndarray:
        return loop.predict_logits(trained.parts.above, photos, prepared.device, view=number).numpy()

    def logits(photos: loop.Examples) -> np.ndarray:
        clean = view(photos, 0)
        return clean if trained.strategy.test_views == 1 else bundle.both_sides(clean, view(photos, 1))

    return logits


def _train_stage(
    above: trainable.Above,
    strategy: Strategy,
    stage: loop.Stage,
    network: Backbone,
    prepared: Prepared,
    folder: Path | None,
    progress: Progress,
    log: Log,
    last: int | None = None,
) -> loop.State:
    """One stage of training: the head alone at the top of the network, or the strategy's own at its line."""
    head = stage.startswith("head")
    recipe = strategy.head_recipe if head else strategy.recipe
    line = network.layer_count if head else resolve(strategy.line, network.layer_count)
    store = prepared.taps[network_name(strategy), line].store
    again = " again, with the validation photos" if stage.endswith("again") else ""
    title = f"Training {strategy.name}{again}{' (its head first)' if head else ''}"

    def on_epoch(epoch: loop.Epoch) -> None:
        said = asdict(epoch) if last is None else {k: v for k, v in asdict(epoch).items() if not k.startswith("val_")}
        log("epoch", strategy=strategy.name, stage=stage, **said)

    return loop.train(
        above,
        store_examples(store, prepared.part(prepared.split.train.tolist()), prepared, recipe),
        store_examples(store, prepared.part(prepared.split.validation.tolist()), prepared),
        recipe,
        seed=prepared.training_seed,
        stage=stage,
        reduced=strategy.weights == "pretrained",
        device=prepared.device,
        precision=prepared.precision,
        checkpoint=_checkpoint(folder, stage) if folder else None,
        progress=progress,
        title=title,
        on_epoch=on_epoch,
        keep_start=stage == "own" and strategy.head_first,
        balance=prepared.config.balance,
        last=last,
    )


def store_examples(
    store: Store, photos: Sequence[Photo], prepared: Prepared, recipe: Recipe | None = None
) -> loop.Examples:
    """Photos as the loop takes them: all views of a recipe for training; else the clean one, then its mirror image."""
    views = range(loop.stretched(recipe, len(photos)).views) if recipe else (0, MIRROR)
    keys = [[Key.of(p.sha256, v, prepared.config.seed) for v in views] for p in photos]
    return loop.Examples(store, keys, _labels(photos, prepared))


def _labels(photos: Sequence[Photo], prepared: Prepared) -> np.ndarray:
    """Class indices, int64 (N,)."""
    place = {c: i for i, c in enumerate(prepared.classes)}
    return np.array([place.get(p.label, -1) for p in photos], dtype=np.int64)  # -1: of a class that was left out


def _shares(prepared: Prepared) -> dict[str, list[float]]:
    """The class shares of the training photos, and those that probabilities stand for after such training."""
    counts = np.bincount(
        _labels(prepared.part(prepared.split.train.tolist()), prepared), minlength=len(prepared.classes)
    )
    ways = {"priors": represented(counts, "none"), "stands_for": represented(counts, prepared.config.balance)}
    return {name: shares.tolist() for name, shares in ways.items()}


def _evaluate(
    logits: Logits, watched: Logits, store: Store, prepared: Prepared
) -> tuple[metrics.Figures, list[Prediction], list[Prediction], float]:
    """The figures on the photos reported on, what is said of those, and of the validation photos where they are others; the macro recall
    of the validation photos.

    After balanced training the validation photos are weighted to the class shares that the probabilities stand for: the temperature is
    to mend confidence, not a difference in shares.
    """
    reported = store_examples(store, prepared.reported(), prepared)
    scores = logits(reported)
    calibration = evaluation.Calibration(1.0, False)
    validation: list[Prediction] = []
    examples, on_validation = reported, scores
    if not prepared.validation_is_reported:
        photos = prepared.part(prepared.split.validation.tolist())
        examples = store_examples(store, photos, prepared)
        on_validation = watched(examples)
        shares = {name: np.array(values) for name, values in _shares(prepared).items()}
        as_met = np.allclose(shares["stands_for"], shares["priors"])
        weights = None if as_met else photo_weights(examples.labels, shares["stands_for"])
        calibration = evaluation.calibrate(on_validation, examples.labels, reported=False, weights=weights)
        validation = _predictions(photos, on_validation, calibration.temperature, prepared.classes)
    figures = evaluation.figures(scores, reported.labels, prepared.classes, calibration, prepared.config.seed)
    balanced = class_mean(on_validation.argmax(1) == examples.labels, examples.labels)
    predictions = _predictions(prepared.reported(), scores, calibration.temperature, prepared.classes)
    return figures, predictions, validation, balanced


def _predictions(
    photos: Sequence[Photo], logits: np.ndarray, temperature: float, classes: Sequence[str]
) -> list[Prediction]:
    shares = softmax(logits, temperature)
    return [Prediction.of(p.path, p.label, classes, q) for p, q in zip(photos, shares, strict=True)]


def _logits(model: bundle.Bundle, photos: loop.Examples) -> np.ndarray:
    """Logits (N, C) from what the cache has at the line, of as many views as the model looks at."""
    clean = _view_logits(model, photos, 0)
    return clean if model.about.test_views == 1 else bundle.both_sides(clean, _view_logits(model, photos, 1))


def _view_logits(model: bundle.Bundle, photos: loop.Examples, view: int) -> np.ndarray:
    return np.concatenate([seen.logits for seen in _seen(model, photos, view)])


def _seen(model: bundle.Bundle, photos: loop.Examples, view: int) -> Iterator[bundle.Seen]:
    """What a compiled model makes of what the cache has at the line, some photos at a time."""
    size = max(model.batch, 8)  # a thread's share at a time
    read = (photos.store.read([views[view] for views in group]) for group in groups(photos.keys, size))
    return (seen for _, seen in ahead(model.seen_at_line, read, depth=4))


def _training_photos(
    trained: TrainedStrategy, prepared: Prepared, model: bundle.Bundle
) -> tuple[bytes, NeighboursFile]:
    """The training photos as the bundle keeps them, for whoever asks which ones a new photo resembles; and what it says of them."""
    photos = prepared.part(prepared.split.train.tolist())
    most = neighbours.MOST if trained.parts.cut.line else neighbours.MOST_FROM_PIXELS
    photos = [photos[i] for i in neighbours.chosen(_labels(photos, prepared), most)]
    network, line = network_name(trained.strategy), trained.parts.cut.line
    examples = store_examples(prepared.taps[network, line].store, photos, prepared)
    features = np.concatenate([seen.features for seen in _seen(model, examples, 0)])
    known = neighbours.to_bytes(features, examples.labels, [p.path for p in photos])
    return known, neighbours.describe(known, len(photos))


def _history(state: loop.State) -> list[Row]:
    return [asdict(epoch) for epoch in state.history]


def write_history(path: Path, state: loop.State) -> None:
    """Write history.csv: one row an epoch."""
    columns = list(loop.Epoch.__dataclass_fields__)
    lines = [",".join(columns)]
    lines += [",".join(_plain(value) for value in asdict(epoch).values()) for epoch in state.history]
    write_text(path, "\n".join(lines) + "\n")


def _plain(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6f}"


def _headline(row: Row, prepared: Prepared) -> BundleFigures:
    shown = [metric for metric in metrics.METRICS if "card" in metric.pages]
    names = [name for metric in shown for name in (metric.name, f"{metric.name}_ci") if name in row]
    about = {
        "reported_on": prepared.reported_on,
        "photos": len(prepared.reported()),
        "rendered": prepared.rendered,
        "refit": "refit" in row,
    }
    return cast(BundleFigures, {**about, **{n: row[n] for n in names}})


def discard_checkpoints(folder: Path) -> None:
    """Remove what a strategy needed to resume: once its row is in study.json it never trains again."""
    for stage in get_args(loop.Stage):
        _checkpoint(folder, stage).unlink(missing_ok=True)


def _checkpoint(folder: Path, stage: str) -> Path:
    return folder / f"checkpoint-{stage.replace(' ', '-')}.pt"


def peak_memory_mb() -> float:
    """The most memory that this process has held so far, in MB of 10^6 bytes; NaN-free 0 where the system can't tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6, 1)
