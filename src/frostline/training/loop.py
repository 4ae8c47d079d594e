"""The one training loop. Every strategy and stage goes through `train`; only the starting weights differ.

The rows of a photo at the freeze line come from the cache; the layers above the line and the head are trained on them.
At line 0 the cached rows are the photos themselves. After each epoch the whole state is on disk, and the randomness of
each epoch depends on (seed, stage, epoch) alone, so a resumed run ends with the same bits as one that was never
stopped.
"""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from frostline.config import Precision
from frostline.errors import RunError
from frostline.networks import devices, freeze_line
from frostline.networks.compilation import BATCH
from frostline.networks.devices import autocast
from frostline.networks.trainable import Above
from frostline.parallel import thread_count
from frostline.progress import Progress
from frostline.recipes import Balance, Recipe
from frostline.stats.class_balance import class_weights, equal_draw, photo_weights, represented
from frostline.training import checkpoint, early_stopping
from frostline.training.checkpoint import Epoch, Stage, State
from frostline.training.examples import Examples, Feed
from frostline.training.losses import cross_entropy_and_accuracy, mean_loss, photo_losses
from frostline.training.optimiser import Learner, stretched
from frostline.training.precision import converted

_PHOTOS_AT_A_TIME = 8


@dataclass(frozen=True)
class Settings:
    """What a stage of training needs beside photos and recipe."""

    stage: Stage
    title: str
    """What progress and error messages call the stage."""
    seed: int
    device: torch.device
    precision: Precision
    """float32, bfloat16 or float16."""
    reduced: bool
    """Whether the layers above the line take the reduced learning rate (they are pretrained) or the head's own."""
    balance: Balance = "none"
    """`loss`: each photo's loss is weighted by `class_weights`; `sampling`: photos are drawn by `equal_draw`. It
    changes nothing where all classes have the same number of training photos."""
    keep_start: bool = False
    """Whether the starting weights (a trained head) are kept where every epoch is clearly worse; only with patience."""
    last_epoch: int | None = None
    """Stop after this epoch, though the learning rates fall as if all of the recipe's epochs were to come. Nothing is
    validated then: validation photos may be among the training photos."""
    checkpoint: Path | None = None
    """Where the state is saved after each epoch, and resumed from; None = nowhere."""
    room: int | None = None
    """Bytes that rows may take on the device; see `frostline.training.examples.Feed`."""


def train(
    model: Above,
    examples: Examples,
    validation: Examples,
    recipe: Recipe,
    settings: Settings,
    progress: Progress,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> State:
    """Train `model` on `examples`. It ends with the weights of the best epoch (see `early_stopping`), or of the last
    one without patience.

    Parameters
    ----------
    on_epoch
        Called after each epoch.

    Raises
    ------
    RunError
        The loss is not a number any more, the device's memory is full, or the checkpoint can't be read or written.
    """
    with devices.memory_told(settings.device):
        return _train(model, examples, validation, stretched(recipe, len(examples)), settings, progress, on_epoch)


def _train(
    model: Above,
    examples: Examples,
    validation: Examples,
    recipe: Recipe,
    settings: Settings,
    progress: Progress,
    on_epoch: Callable[[Epoch], None] | None,
) -> State:
    if len(np.unique(np.bincount(examples.labels))) == 1:
        settings = replace(settings, balance="none")
    _set_threads(model)
    model.to(settings.device).to(memory_format=torch.channels_last)
    learner = Learner.of(model, recipe, reduced=settings.reduced, scaled=settings.precision == "float16")
    state = checkpoint.resume(settings.checkpoint, settings.stage, learner)
    training = Feed(examples, settings.device, views=recipe.views, room=settings.room)
    checking = Feed(validation, settings.device, room=settings.room)
    validating = settings.last_epoch is None
    epochs = recipe.epochs if settings.last_epoch is None else settings.last_epoch
    task = progress.task(settings.title, epochs * len(examples))
    task.advance(state.last * len(examples))

    if settings.keep_start and recipe.patience and not state.history:  # few photos may make the head worse than it was
        start = _validate(model, checking, recipe, settings)
        state.start_accuracy, state.lowest = start.accuracy, start.losses
        early_stopping.keep(state, model, 0)

    while state.last < epochs and not early_stopping.should_stop(state, recipe):
        started, number = time.perf_counter(), state.last + 1
        loss, accuracy = _train_epoch(learner, training, recipe, settings, number, task.advance)
        checked = _validate(learner.evaluated, checking, recipe, settings) if validating else _NOT_VALIDATED
        if not math.isfinite(loss) or (validating and not math.isfinite(checked.loss)):
            message = f"{settings.title}: the loss is {loss} in epoch {number}"
            raise RunError(f"{message}: lower the learning rate, or use float32")
        devices.synchronise(settings.device)
        seconds = time.perf_counter() - started
        state.history.append(Epoch(number, loss, accuracy, checked.loss, checked.accuracy, seconds))
        if validating:
            state.val_losses.append(checked.cross_entropy)
            state.val_correct.append(checked.correct)
        early_stopping.update(state, learner.evaluated, recipe, checked.losses)
        if settings.checkpoint is not None:
            checkpoint.save(settings.checkpoint, settings.stage, state, learner)
        if on_epoch is not None:
            on_epoch(state.history[-1])

    task.finish()
    learner.optimiser.zero_grad(set_to_none=True)  # the small CNN's gradients take 45 MB
    if recipe.patience or learner.average:
        model.load_state_dict(state.best if recipe.patience else learner.evaluated.state_dict())
    return state


def _train_epoch(
    learner: Learner,
    feed: Feed,
    recipe: Recipe,
    settings: Settings,
    epoch: int,
    advance: Callable[[int], None],
) -> tuple[float, float]:
    """Train on every photo once. Returns (mean cross-entropy, accuracy), as measured during training."""
    model, device, examples, balance = learner.model, settings.device, feed.examples, settings.balance
    model.set_training(True)
    # a head alone is trained in the same way whether it is a strategy's own stage or another's first one
    seed = _seed_of((settings.seed, "own" if _has_parameters(model.suffix) else "head", epoch))
    torch.manual_seed(seed)  # dropout, which draws from the device's own generator
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(examples))
    photos, views = np.arange(len(examples)), rng.integers(0, recipe.views, len(examples))
    if balance == "sampling":
        photos, views = equal_draw(examples.labels, recipe.views, rng)
    weights = None
    if balance == "loss":
        weights = torch.from_numpy(class_weights(np.bincount(examples.labels))).float().to(device)

    batches, at_a_time = list(_batches(order, recipe.batch_size)), _photos_at_a_time(model, examples, device)
    parts = [np.array_split(batch, -(-len(batch) // at_a_time)) for batch in batches]
    rows = feed.batches([photos[part] for own in parts for part in own], [views[part] for own in parts for part in own])
    tally = _Tally()
    for step, batch in enumerate(batches):
        learner.set_learning_rates(recipe, epoch - 1 + step / len(batches))
        learner.optimiser.zero_grad(set_to_none=True)
        for part in parts[step]:  # the gradients of the parts add up
            live, labels = next(rows)
            with autocast(device, settings.precision):
                logits = model(*converted(live, settings.precision)).float()
                losses = photo_losses(logits, labels, recipe.robust, recipe.label_smoothing)
                loss = mean_loss(losses, labels, weights)
            learner.backward(loss * (len(part) / len(batch)))
            tally.add(logits.detach(), labels)
        learner.step()
        advance(len(batch))
    return tally.means()


class _Tally:
    """Loss and correct predictions of an epoch's batches. They stay on the device until its end: to fetch a number is
    to wait for all that it computes before."""

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._losses: list[Tensor] = []
        self._correct: list[Tensor] = []

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Logits (N, C) and classes (N,) of some photos."""
        self._sizes.append(len(labels))
        self._losses.append(nn.functional.cross_entropy(logits, labels))  # as validation measures it: no smoothing
        self._correct.append((logits.argmax(1) == labels).sum())

    def means(self) -> tuple[float, float]:
        """(mean cross-entropy, accuracy)."""
        photos, total = sum(self._sizes), 0.0
        for loss, size in zip(torch.stack(self._losses).tolist(), self._sizes, strict=True):
            total += loss * size
        return total / photos, sum(torch.stack(self._correct).tolist()) / photos


class _Validation(NamedTuple):
    """The figures of one epoch on the validation photos."""

    loss: float
    """Mean cross-entropy."""
    accuracy: float
    losses: Tensor
    """(V,) each photo's part of the loss that training minimises; early stopping compares these."""
    cross_entropy: Tensor
    """(V,) of each photo."""
    correct: Tensor
    """(V,) whether each photo's predicted class is the true one."""


_NOT_VALIDATED = _Validation(math.nan, math.nan, *[torch.empty(0)] * 3)


def _validate(model: Above, feed: Feed, recipe: Recipe, settings: Settings) -> _Validation:
    logits, validation = _logits(model, feed, settings.device, settings.precision), feed.examples
    labels = validation.targets
    losses = photo_losses(logits, labels, recipe.robust)
    loss, accuracy = cross_entropy_and_accuracy(logits, labels)
    if settings.balance != "none":  # every class that is there counts the same
        equal = represented(np.bincount(validation.labels), "sampling")
        losses = losses * torch.from_numpy(photo_weights(validation.labels, equal))
    return _Validation(loss, accuracy, losses, photo_losses(logits, labels, robust=0.0), logits.argmax(1) == labels)


def measure(model: Above, examples: Examples, device: torch.device, precision: Precision) -> tuple[float, float]:
    """(mean cross-entropy, accuracy) on clean views."""
    return cross_entropy_and_accuracy(predict_logits(model, examples, device, precision), examples.targets)


def predict_logits(
    model: Above, examples: Examples, device: torch.device, precision: Precision = "float32", view: int = 0
) -> Tensor:
    """Logits (N, C) float32 on the CPU, from one view of each photo: the clean one, or another in the order of its
    keys."""
    with devices.memory_told(device):
        return _logits(model, Feed(examples, device, room=0), device, precision, view)  # seen once: none is kept


def _logits(model: Above, feed: Feed, device: torch.device, precision: Precision, view: int = 0) -> Tensor:
    model.to(device)
    size = min(BATCH, _photos_at_a_time(model, feed.examples, device))
    photos = np.arange(len(feed.examples))
    batches = np.split(photos, range(size, len(photos), size))
    rows = feed.batches(batches, [np.full(len(batch), view) for batch in batches])
    return torch.cat([_logits_of(model, live, size, device, precision) for live, _ in rows]).cpu()


def _logits_of(model: Above, live: Sequence[Tensor], size: int, device: torch.device, precision: Precision) -> Tensor:
    """Logits (N, C) for up to `size` rows, padded to that: a photo's bits don't depend on how many stand beside it."""
    _set_threads(model)
    model.set_training(False)  # here and not with the callers: with dropout on, predictions are random
    count = len(live[0])
    padded = [torch.cat([t, t.new_zeros(size - count, *t.shape[1:])]) if count < size else t for t in live]
    with torch.inference_mode(), autocast(device, precision):
        logits: Tensor = model(*converted(padded, precision))
    return logits[:count].float()


# ---- batches, seeds, threads -----------------------------------------------------------------------------------------


def _batches(order: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Whole batches, the last one smaller. A last batch of one photo joins the one before: a batch norm needs two."""
    ends = list(range(size, len(order), size))
    if len(order) % size == 1 and ends:
        ends.pop()
    yield from np.split(order, ends)


def _photos_at_a_time(model: Above, examples: Examples, device: torch.device) -> int:
    """How many photos of a batch go through the network at a time: on an accelerator all.

    Whole photos fill the memory: a batch of 32 takes the small CNN 500 MB, parts of 8 take 130 MB and 10 % more time. A
    batch norm that learns its statistics needs the batch in one piece.
    """
    norms = model.learn_statistics and any(isinstance(m, freeze_line.NORMS) for m in model.modules())
    whole_photos = examples.store.dtypes[0] == np.uint8
    return _PHOTOS_AT_A_TIME if device.type == "cpu" and whole_photos and not norms else sys.maxsize


def _seed_of(values: tuple[int, str, int]) -> int:
    """A seed of 32 bits that depends on all values."""
    return int.from_bytes(hashlib.sha256(repr(values).encode()).digest()[:4], "big")


def _set_threads(model: Above) -> None:
    """One thread for a head alone: a product this small gains nothing from a second thread, and waits for a busy
    core."""
    torch.set_num_threads(thread_count() if _has_parameters(model.suffix) else 1)


def _has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())
