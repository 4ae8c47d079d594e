"""The one training loop: every strategy and stage goes through `train`, only what it starts from differs.

A photo's activations come from the cache; what lies above the line and the head learn on them. At line 0 the cached rows are the
photos themselves. After each epoch the whole state is on disk, and each epoch's randomness comes from (seed, stage, epoch) alone, so a
resumed run ends with the same bits as one that was never stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from frostline.cache.store import Key, Store
from frostline.config import Precision
from frostline.errors import RunError
from frostline.files import write_with
from frostline.networks import freeze_line
from frostline.networks.compilation import BATCH
from frostline.networks.trainable import Above
from frostline.parallel import thread_count
from frostline.progress import Progress
from frostline.recipes import LEAST_TO_TELL, MOST_VIEWS, Balance, Recipe
from frostline.stats.class_balance import class_weights, equal_draw, photo_weights, represented

Stage = Literal["head", "own", "head again", "own again"]
"""`again`: with the validation photos among the others, once it is known for how long."""


_PHOTOS_AT_A_TIME = 8


@dataclass(frozen=True)
class Examples:
    """Photos and their classes, by way of the cache."""

    store: Store
    keys: Sequence[Sequence[Key]]
    """``keys[i][v]``: the row of view v of photo i."""
    labels: np.ndarray
    """Class index of each photo, int64 (N,)."""

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Sequence[int], views: Sequence[int], device: torch.device) -> tuple[list[Tensor], Tensor]:
        """The live tensors of these photos' views, in their stored number format, and their classes."""
        arrays = self.store.read([self.keys[i][v % len(self.keys[i])] for i, v in zip(indices, views, strict=True)])
        labels = torch.from_numpy(self.labels[np.asarray(indices)])
        return [torch.from_numpy(a).to(device) for a in arrays], labels.to(device)


@dataclass(frozen=True)
class Epoch:
    """One row of history.csv."""

    epoch: int
    train_loss: float
    """Mean cross-entropy over the epoch's steps, dropout on, without label smoothing."""
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float


@dataclass
class State:
    """All that a stage needs to go on: the checkpoint's content."""

    history: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    """The epoch whose weights are kept; 0: those that training began with, where every epoch was clearly worse."""
    lowest: Tensor | None = None
    """Of the epoch of the lowest validation loss so far, or of the beginning where that may be kept: the loss of each photo (V,)."""
    lowest_epoch: int = 0
    """The epoch of the lowest validation loss so far, the beginning left aside: patience counts from it, or from the one kept."""
    lowest_loss: float = math.inf
    start_accuracy: float = 0.0
    """On validation photos, before the first epoch; only where that may be kept."""
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def kept_accuracy(self) -> float:
        """On validation photos, of the weights that are kept."""
        return self.history[self.best_epoch - 1].val_accuracy if self.best_epoch else self.start_accuracy

    @property
    def last(self) -> int:
        """Epochs done."""
        return len(self.history)


def train(
    above: Above,
    examples: Examples,
    validation: Examples,
    recipe: Recipe,
    *,
    seed: int,
    stage: Stage,
    reduced: bool,
    device: torch.device,
    precision: Precision,
    checkpoint: Path | None,
    progress: Progress,
    title: str,
    on_epoch: Callable[[Epoch], None] | None = None,
    keep_start: bool = False,
    balance: Balance = "none",
    last: int | None = None,
) -> State:
    """Train `above` on `examples`; it ends with the kept epoch's weights (the best one with patience, else the last).

    The best epoch is the last one that is not clearly worse (`clearly_worse`) than the one of least validation loss: step sizes fall to
    nothing at the end, so a later epoch is better where validation photos are too few to tell. With `balance` the loss is the mean over
    classes of each class's mean loss, which balanced training aims at; the history tells plain cross-entropy all the same.

    Parameters
    ----------
    reduced
        Whether the layers above the line take the reduced learning rate (they are pretrained) or the head's own.
    checkpoint
        Where the state is kept after each epoch, and where it is picked up from; None = nowhere.
    on_epoch
        Told of each epoch as it ends.
    keep_start
        Whether what training begins with (a trained head) is kept where every epoch is clearly worse; only with patience.
    balance
        `loss`: each photo's loss is weighted by `balance.class_weights`; `sampling`: photos are drawn by `balance.equal_draw`. Where all
        classes have as many training photos it changes nothing.
    last
        Stop after this epoch, though step sizes fall as if all of the recipe's were to come; validation photos are not asked then, they may
        be among `examples`.

    Raises
    ------
    RunError
        The loss is not a number any more, or the checkpoint can't be read or written.
    """
    if len(np.unique(np.bincount(examples.labels))) == 1:
        balance = "none"
    recipe = stretched(recipe, len(examples))
    _set_threads(above)
    above.to(device).to(memory_format=torch.channels_last)
    optimiser = _optimiser(above, recipe, reduced)
    learner = _Learner(above, optimiser, _averaged(above, recipe))
    state = _resume(checkpoint, stage, learner)
    # a head alone is trained in the same way whether it is a strategy's own stage or another's first one
    dice: Stage = "own" if any(True for _ in above.suffix.parameters()) else "head"
    epochs = recipe.epochs if last is None else last
    task = progress.task(title, epochs * len(examples))
    task.advance(state.last * len(examples))
    if keep_start and recipe.patience and not state.history:  # few photos may make the head worse than it was
        _, state.start_accuracy, watched = _judged(above, validation, recipe, device, precision, balance)
        state.lowest = watched
        _keep(state, above, 0)
    while state.last < epochs and not _should_stop(state, recipe):
        started, number = time.perf_counter(), state.last + 1
        loss, accuracy = _epoch(
            learner, examples, recipe, (seed, dice, number), device, precision, task.advance, balance
        )
        val_loss, val_accuracy, watched = math.nan, math.nan, torch.empty(0)
        if last is None:
            val_loss, val_accuracy, watched = _judged(learner.kept, validation, recipe, device, precision, balance)
        if not math.isfinite(loss if last is not None else loss + val_loss):
            raise RunError(f"{title}: the loss is {loss} in epoch {number}: lower the learning rate, or use float32")
        state.history.append(Epoch(number, loss, accuracy, val_loss, val_accuracy, time.perf_counter() - started))
        _remember(state, learner.kept, recipe, watched)
        if checkpoint is not None:
            _save(checkpoint, stage, state, learner)
        if on_epoch is not None:
            on_epoch(state.history[-1])
    task.finish()
    optimiser.zero_grad(set_to_none=True)  # the small CNN's take 45 MB
    if recipe.patience or learner.average:
        above.load_state_dict(state.best if recipe.patience else learner.kept.state_dict())
    return state


@dataclass(frozen=True)
class _Learner:
    """What changes from step to step."""

    above: Above
    optimiser: torch.optim.Optimizer
    average: AveragedModel | None

    @property
    def kept(self) -> Above:
        """What is validated and kept: the weights as they are, or their running mean."""
        return cast(Above, self.average.module) if self.average else self.above


def _averaged(above: Above, recipe: Recipe) -> AveragedModel | None:
    """The running mean of the weights. It reaches back no further than a tenth of the steps so far: few photos make few steps."""
    if not recipe.averaging:
        return None

    def average(means: Sequence[Tensor], weights: Sequence[Tensor], steps: Tensor | int) -> None:
        count = int(steps)
        kept = min(recipe.averaging, (1 + count) / (10 + count))
        if means[0].is_floating_point():
            torch._foreach_lerp_(list(means), list(weights), 1 - kept)
        else:  # a batch norm's counter of steps
            torch._foreach_copy_(list(means), list(weights))

    return AveragedModel(above, multi_avg_fn=average, use_buffers=True)


def stretched(recipe: Recipe, photos: int) -> Recipe:
    """The recipe as it is followed on so many photos: as many times its epochs and patience as make its least number of steps, and as
    many views as make its least number of pictures.
    """
    steps = recipe.epochs * -(-photos // recipe.batch_size)
    times = max(1, -(-recipe.least_steps // steps))
    views = max(recipe.views, min(MOST_VIEWS, -(-recipe.least_pictures // photos)))
    return replace(recipe, epochs=times * recipe.epochs, patience=times * recipe.patience, views=views)


def again(recipe: Recipe, photos: int) -> Recipe:
    """The recipe to train once more by, as it was followed on so many photos, whatever the number is now."""
    return replace(stretched(recipe, photos), patience=0, least_steps=0, least_pictures=0)


def _should_stop(state: State, recipe: Recipe) -> bool:
    return bool(recipe.patience) and state.last - max(state.lowest_epoch, state.best_epoch) >= recipe.patience


def _remember(state: State, above: Above, recipe: Recipe, watched: Tensor) -> None:
    """Keep the weights unless `watched`, each validation photo's part of the loss that training aims at, is clearly worse than at best."""
    row = state.history[-1]
    if not recipe.patience:
        state.best_epoch = row.epoch
        return
    loss = float(watched.mean())
    if loss < state.lowest_loss:
        state.lowest_epoch, state.lowest_loss = row.epoch, loss
    if state.lowest is None or not clearly_worse(watched, state.lowest):
        _keep(state, above, row.epoch)
    if state.lowest is None or loss < float(state.lowest.mean()):
        state.lowest = watched


def clearly_worse(losses: Tensor, than: Tensor) -> bool:
    """Whether losses (V,) are higher on the same photos by more than one standard error of the mean difference.

    The one-standard-error rule (Breiman et al., Classification and Regression Trees, 1984) with pairs. Never of fewer than `LEAST_TO_TELL`
    photos.
    """
    if len(losses) < LEAST_TO_TELL:
        return False
    higher = losses.double() - than.double()
    return bool(higher.mean() > higher.std() / math.sqrt(len(higher)))


def _keep(state: State, above: Above, epoch: int) -> None:
    state.best_epoch = epoch
    state.best = {k: v.detach().clone() for k, v in above.state_dict().items()}


def _epoch(
    learner: _Learner,
    examples: Examples,
    recipe: Recipe,
    dice: tuple[int, Stage, int],
    device: torch.device,
    precision: Precision,
    advance: Callable[[int], None],
    balance: Balance,
) -> tuple[float, float]:
    """One pass over the photos; returns (mean loss, accuracy) as seen while learning."""
    above, optimiser = learner.above, learner.optimiser
    above.set_training(True)
    rng = np.random.default_rng(_seed_of(dice))
    torch.manual_seed(_seed_of(dice))
    order = rng.permutation(len(examples))
    photos, views = np.arange(len(examples)), rng.integers(0, recipe.views, len(examples))
    if balance == "sampling":
        photos, views = equal_draw(examples.labels, recipe.views, rng)
    weights = (
        torch.from_numpy(class_weights(np.bincount(examples.labels))).float().to(device) if balance == "loss" else None
    )
    total_loss, right = 0.0, 0
    size = _slice(above, examples)
    batches = list(_batches(order, recipe.batch_size))
    for step, indices in enumerate(batches):
        _set_rates(optimiser, recipe, dice[2] - 1 + step / len(batches))
        optimiser.zero_grad(set_to_none=True)
        for some in np.array_split(indices, -(-len(indices) // size)):
            live, labels = examples.batch(photos[some].tolist(), views[some].tolist(), device)
            with arithmetic(device, precision):
                logits = above(*_floating(live, precision)).float()
                loss = _loss(logits, labels, recipe, weights)
            (loss * (len(some) / len(indices))).backward()  # type: ignore[no-untyped-call]
            plain = nn.functional.cross_entropy(logits.detach(), labels)  # what validation measures too: no smoothing
            total_loss += plain.item() * len(some)
            right += int((logits.argmax(1) == labels).sum())
        optimiser.step()
        if learner.average:
            learner.average.update_parameters(above)
        advance(len(indices))
    return total_loss / len(examples), right / len(examples)


def _loss(logits: Tensor, labels: Tensor, recipe: Recipe, weights: Tensor | None) -> Tensor:
    """Mean loss, each photo's times the weight of its class: PyTorch's own weights would divide by their sum in the batch."""
    each = _losses(logits, labels, recipe.robust, recipe.label_smoothing)
    return each.mean() if weights is None else (each * weights[labels]).mean()


def _losses(logits: Tensor, labels: Tensor, robust: float, smoothing: float = 0.0) -> Tensor:
    """Each photo's loss (N,): cross-entropy, or with `robust` the generalised one, (1 - p^q) / q of the probability of its label
    (Zhang and Sabuncu, Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels, 2018).
    """
    log_loss = nn.functional.cross_entropy(
        logits, labels, label_smoothing=0.0 if robust else smoothing, reduction="none"
    )
    return -torch.expm1(-robust * log_loss) / robust if robust else log_loss


def _slice(above: Above, examples: Examples) -> int:
    """How many photos go through the network at a time; the gradients of a batch's slices add up to the batch's own.

    Whole photos fill the memory: a batch of 32 takes the small CNN 500 MB, a slice of 8 takes 130 MB and 10 % more time. A batch norm that
    learns its statistics needs the batch in one piece.
    """
    norms = above.learn_statistics and any(isinstance(m, freeze_line.NORMS) for m in above.modules())
    return _PHOTOS_AT_A_TIME if examples.store.dtypes[0] == np.uint8 and not norms else sys.maxsize


def _batches(order: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Whole batches, the last one smaller. A last batch of one photo joins the one before: no norm can learn from one."""
    ends = list(range(size, len(order), size))
    if len(order) % size == 1 and ends:
        ends.pop()
    yield from np.split(order, ends)


def measure(above: Above, examples: Examples, device: torch.device, precision: Precision) -> tuple[float, float]:
    """(mean cross-entropy, accuracy) on clean views."""
    return _scores(predict_logits(above, examples, device, precision), examples)


def _scores(logits: Tensor, examples: Examples) -> tuple[float, float]:
    labels = torch.from_numpy(examples.labels)
    return float(nn.functional.cross_entropy(logits, labels)), float((logits.argmax(1) == labels).double().mean())


def _judged(
    above: Above, validation: Examples, recipe: Recipe, device: torch.device, precision: Precision, balance: Balance
) -> tuple[float, float, Tensor]:
    """(mean cross-entropy, accuracy) on validation photos, and each one's part (V,) of the loss that training aims at: their mean."""
    logits, labels = predict_logits(above, validation, device, precision), torch.from_numpy(validation.labels)
    each = _losses(logits, labels, recipe.robust)
    loss, accuracy = _scores(logits, validation)
    if balance == "none":
        return loss, accuracy, each
    equal = represented(np.bincount(validation.labels), "sampling")  # every class that is there counts the same
    return loss, accuracy, each * torch.from_numpy(photo_weights(validation.labels, equal))


def predict_logits(
    above: Above, examples: Examples, device: torch.device, precision: Precision = "float32", view: int = 0
) -> Tensor:
    """Logits (N, classes) float32 on the CPU, from one view of each photo: the clean one, or another in the order of its keys."""
    above.to(device)
    size = min(BATCH, _slice(above, examples))
    parts = []
    for start in range(0, len(examples), size):
        indices = list(range(start, min(start + size, len(examples))))
        live, _ = examples.batch(indices, [view] * len(indices), device)
        parts.append(_logits_of(above, live, size, device, precision))
    return torch.cat(parts)


def _logits_of(above: Above, live: Sequence[Tensor], size: int, device: torch.device, precision: Precision) -> Tensor:
    """Logits (N, classes) for up to `size` rows, padded to that: a photo's bits don't depend on how many stand beside it."""
    _set_threads(above)
    above.set_training(False)  # here and not with the callers: a dropout that is left on makes predictions random
    count = len(live[0])
    padded = [torch.cat([t, t.new_zeros(size - count, *t.shape[1:])]) if count < size else t for t in live]
    with torch.inference_mode(), arithmetic(device, precision):
        logits: Tensor = above(*_floating(padded, precision))
    return logits[:count].float().cpu()


def _set_threads(above: Above) -> None:
    """One thread for a head alone: so small a product gains nothing from a second, and waits where another process has the core."""
    torch.set_num_threads(thread_count() if any(True for _ in above.suffix.parameters()) else 1)


def _floating(live: Sequence[Tensor], precision: Precision) -> list[Tensor]:
    """Half-precision rows in the number format of the arithmetic; uint8 photos stay, their scaling is part of the network."""
    wide = torch.bfloat16 if precision == "bfloat16" else torch.float32
    return [_as(t, wide) if t.is_floating_point() else t for t in live]


def _as(rows: Tensor, wide: torch.dtype) -> Tensor:
    """The number format, and for pictures the layout that the convolutions read fastest.

    Between two half formats by way of float32, and the layout last: PyTorch takes twice as long over all of it in one pass.
    """
    rows = rows.float().to(wide)
    return rows.contiguous(memory_format=torch.channels_last) if rows.dim() == 4 else rows


def settle(precision: Precision, device: torch.device) -> Precision:
    """Settle `auto`: bfloat16 where the hardware multiplies it, else float32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if fast else "float32"


def arithmetic(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """bfloat16 products with float32 master weights and sums, or plain float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False)


# ---- optimiser -------------------------------------------------------------------------------------------------------


class _AdamW(torch.optim.AdamW):
    """AdamW as it is, less PyTorch's compiler: the plain methods import that (1 s of every run) only to ask it to keep off."""

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def _optimiser(above: Above, recipe: Recipe, reduced: bool) -> torch.optim.Optimizer:
    groups = []
    rates = {
        "suffix": recipe.learning_rate_above_line if reduced else recipe.learning_rate,
        "head": recipe.learning_rate,
    }
    for part, rate in rates.items():
        parameters = list(getattr(above, part).parameters())
        matrices, vectors = [p for p in parameters if p.dim() > 1], [p for p in parameters if p.dim() <= 1]
        for members, decay in ((matrices, recipe.weight_decay), (vectors, 0.0)):
            if members:
                groups.append({"params": members, "lr": rate, "full_rate": rate, "weight_decay": decay})
    return _AdamW(groups, fused=True)


def _set_rates(optimiser: torch.optim.Optimizer, recipe: Recipe, epochs: float) -> None:
    """The step sizes after so many epochs: constant, or down a half cosine to nothing at the end."""
    share = 0.5 * (1 + math.cos(math.pi * epochs / recipe.epochs)) if recipe.schedule == "cosine" else 1.0
    for group in optimiser.param_groups:
        group["lr"] = share * group["full_rate"]


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def _save(path: Path, stage: Stage, state: State, learner: _Learner) -> None:
    content = {
        "stage": stage,
        "state": dataclasses.asdict(state),
        "above": learner.above.state_dict(),
        "optimiser": learner.optimiser.state_dict(),
        "average": learner.average.state_dict() if learner.average else {},
    }
    write_with(path, lambda temporary: _torch_save(content, temporary))


def _torch_save(content: dict[str, Any], path: Path) -> None:
    """torch.save, which hides the system's own error (no room on the disk) behind a RuntimeError of its file format."""
    try:
        with path.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _resume(path: Path | None, stage: Stage, learner: _Learner) -> State:
    if path is None or not path.exists():
        return State()
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        if content["stage"] != stage:
            return State()
        learner.above.load_state_dict(content["above"])
        learner.optimiser.load_state_dict(content["optimiser"])
        if learner.average:
            learner.average.load_state_dict(content["average"])
        saved = content["state"]
        return State(**{**saved, "history": [Epoch(**row) for row in saved["history"]]})
    except Exception as error:  # any damage: zip, pickle and key errors alike
        raise RunError(
            f"the checkpoint {path} can't be read ({type(error).__name__}): delete it to train again"
        ) from error


def _seed_of(dice: tuple[object, ...]) -> int:
    return int.from_bytes(hashlib.sha256(repr(dice).encode()).digest()[:4], "big")
