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

from frostline.cache.store import Key, Store
from frostline.config import Precision
from frostline.errors import RunError
from frostline.networks import freeze_line
from frostline.networks.compilation import BATCH
from frostline.networks.devices import autocast
from frostline.networks.trainable import Above
from frostline.parallel import thread_count
from frostline.progress import Progress
from frostline.recipes import Balance, Recipe
from frostline.stats.class_balance import class_weights, equal_draw, photo_weights, represented
from frostline.training import checkpoint, early_stopping
from frostline.training.checkpoint import Epoch, Stage, State
from frostline.training.losses import cross_entropy_and_accuracy, mean_loss, photo_losses
from frostline.training.optimiser import Learner, stretched
from frostline.training.precision import converted

_PHOTOS_AT_A_TIME = 8


@dataclass(frozen=True)
class Examples:
    """Photos and their classes; the rows come from the cache."""

    store: Store
    keys: Sequence[Sequence[Key]]
    """``keys[i][v]``: the row of view v of photo i."""
    labels: np.ndarray
    """Class index of each photo, int64 (N,)."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def targets(self) -> Tensor:
        """The labels as a tensor, int64 (N,)."""
        return torch.from_numpy(self.labels)

    def batch(self, indices: Sequence[int], views: Sequence[int], device: torch.device) -> tuple[list[Tensor], Tensor]:
        """The tensors at the line of these photos' views, in their stored number format, and their classes."""
        arrays = self.store.read([self.keys[i][v % len(self.keys[i])] for i, v in zip(indices, views, strict=True)])
        labels = torch.from_numpy(self.labels[np.asarray(indices)])
        return [torch.from_numpy(a).to(device) for a in arrays], labels.to(device)


@dataclass(frozen=True)
class Settings:
    """What a stage of training needs beside photos and recipe."""

    stage: Stage
    title: str
    """What progress and error messages call the stage."""
    seed: int
    device: torch.device
    precision: Precision
    """float32 or bfloat16."""
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
        The loss is not a number any more, or the checkpoint can't be read or written.
    """
    recipe = stretched(recipe, len(examples))
    if len(np.unique(np.bincount(examples.labels))) == 1:
        settings = replace(settings, balance="none")
    _set_threads(model)
    model.to(settings.device).to(memory_format=torch.channels_last)
    learner = Learner.of(model, recipe, reduced=settings.reduced)
    state = checkpoint.resume(settings.checkpoint, settings.stage, learner)
    validating = settings.last_epoch is None
    epochs = recipe.epochs if settings.last_epoch is None else settings.last_epoch
    task = progress.task(settings.title, epochs * len(examples))
    task.advance(state.last * len(examples))

    if settings.keep_start and recipe.patience and not state.history:  # few photos may make the head worse than it was
        start = _validate(model, validation, recipe, settings)
        state.start_accuracy, state.lowest = start.accuracy, start.losses
        early_stopping.keep(state, model, 0)

    while state.last < epochs and not early_stopping.should_stop(state, recipe):
        started, number = time.perf_counter(), state.last + 1
        loss, accuracy = _train_epoch(learner, examples, recipe, settings, number, task.advance)
        checked = _validate(learner.evaluated, validation, recipe, settings) if validating else _NOT_VALIDATED
        if not math.isfinite(loss) or (validating and not math.isfinite(checked.loss)):
            message = f"{settings.title}: the loss is {loss} in epoch {number}"
            raise RunError(f"{message}: lower the learning rate, or use float32")
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
    examples: Examples,
    recipe: Recipe,
    settings: Settings,
    epoch: int,
    advance: Callable[[int], None],
) -> tuple[float, float]:
    """Train on every photo once. Returns (mean cross-entropy, accuracy), as measured during training."""
    model, device, balance = learner.model, settings.device, settings.balance
    model.set_training(True)
    # a head alone is trained in the same way whether it is a strategy's own stage or another's first one
    seed = _seed_of((settings.seed, "own" if _has_parameters(model.suffix) else "head", epoch))
    torch.manual_seed(seed)  # dropout
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(examples))
    photos, views = np.arange(len(examples)), rng.integers(0, recipe.views, len(examples))
    if balance == "sampling":
        photos, views = equal_draw(examples.labels, recipe.views, rng)
    weights = None
    if balance == "loss":
        weights = torch.from_numpy(class_weights(np.bincount(examples.labels))).float().to(device)

    total_loss, correct = 0.0, 0
    batches, at_a_time = list(_batches(order, recipe.batch_size)), _photos_at_a_time(model, examples)
    for step, batch in enumerate(batches):
        learner.set_learning_rates(recipe, epoch - 1 + step / len(batches))
        learner.optimiser.zero_grad(set_to_none=True)
        for part in np.array_split(batch, -(-len(batch) // at_a_time)):  # the gradients of the parts add up
            live, labels = examples.batch(photos[part].tolist(), views[part].tolist(), device)
            with autocast(device, settings.precision):
                logits = model(*converted(live, settings.precision)).float()
                losses = photo_losses(logits, labels, recipe.robust, recipe.label_smoothing)
                loss = mean_loss(losses, labels, weights)
            (loss * (len(part) / len(batch))).backward()  # type: ignore[no-untyped-call]
            plain = nn.functional.cross_entropy(logits.detach(), labels)  # as validation measures it: no smoothing
            total_loss += plain.item() * len(part)
            correct += int((logits.argmax(1) == labels).sum())
        learner.step()
        advance(len(batch))
    return total_loss / len(examples), correct / len(examples)


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


def _validate(model: Above, validation: Examples, recipe: Recipe, settings: Settings) -> _Validation:
    logits, labels = predict_logits(model, validation, settings.device, settings.precision), validation.targets
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
    model.to(device)
    size = min(BATCH, _photos_at_a_time(model, examples))
    parts = []
    for start in range(0, len(examples), size):
        indices = list(range(start, min(start + size, len(examples))))
        live, _ = examples.batch(indices, [view] * len(indices), device)
        parts.append(_logits_of(model, live, size, device, precision))
    return torch.cat(parts)


def _logits_of(model: Above, live: Sequence[Tensor], size: int, device: torch.device, precision: Precision) -> Tensor:
    """Logits (N, C) for up to `size` rows, padded to that: a photo's bits don't depend on how many stand beside it."""
    _set_threads(model)
    model.set_training(False)  # here and not with the callers: with dropout on, predictions are random
    count = len(live[0])
    padded = [torch.cat([t, t.new_zeros(size - count, *t.shape[1:])]) if count < size else t for t in live]
    with torch.inference_mode(), autocast(device, precision):
        logits: Tensor = model(*converted(padded, precision))
    return logits[:count].float().cpu()


# ---- batches, seeds, threads -----------------------------------------------------------------------------------------


def _batches(order: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Whole batches, the last one smaller. A last batch of one photo joins the one before: a batch norm needs two."""
    ends = list(range(size, len(order), size))
    if len(order) % size == 1 and ends:
        ends.pop()
    yield from np.split(order, ends)


def _photos_at_a_time(model: Above, examples: Examples) -> int:
    """How many photos of a batch go through the network at a time.

    Whole photos fill the memory: a batch of 32 takes the small CNN 500 MB, parts of 8 take 130 MB and 10 % more time. A
    batch norm that learns its statistics needs the batch in one piece.
    """
    norms = model.learn_statistics and any(isinstance(m, freeze_line.NORMS) for m in model.modules())
    return _PHOTOS_AT_A_TIME if examples.store.dtypes[0] == np.uint8 and not norms else sys.maxsize


def _seed_of(values: tuple[int, str, int]) -> int:
    """A seed of 32 bits that depends on all values."""
    return int.from_bytes(hashlib.sha256(repr(values).encode()).digest()[:4], "big")


def _set_threads(model: Above) -> None:
    """One thread for a head alone: a product this small gains nothing from a second thread, and waits for a busy
    core."""
    torch.set_num_threads(thread_count() if _has_parameters(model.suffix) else 1)


def _has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())
