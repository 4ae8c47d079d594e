"""Train a strategy: the head on the frozen network first where it asks for that, then all layers above the freeze
line."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from frostline.bundles import bundle
from frostline.cache.store import Key, Store
from frostline.documents.strategy import Epoch as EpochRow
from frostline.documents.strategy import Refit
from frostline.files import replacing, write_text
from frostline.networks import freeze_line, thawing
from frostline.networks.backbone import Backbone
from frostline.networks.trainable import Above, make_head
from frostline.photos.decoding import MIRROR
from frostline.photos.manifest import Photo
from frostline.progress import Progress
from frostline.recipes import Recipe, Strategy
from frostline.training import loop
from frostline.training.checkpoint import Epoch, Stage, State
from frostline.training.examples import Examples
from frostline.training.optimiser import repeated, stretched
from frostline.training.prepare import Prepared, network_name

VALIDATION_BY_EPOCH = "validation_by_epoch.npz"
Log = Callable[..., None]
"""Called with an event's name and its values."""


class TrainedHead(NamedTuple):
    """A trained head, for strategies that start from it."""

    tensors: dict[str, torch.Tensor]
    history: list[EpochRow]
    """All its epochs."""
    epochs: int
    """The epoch whose weights these are."""


@dataclass(frozen=True)
class TrainedStrategy:
    """A trained strategy in memory. Nothing of it but checkpoints is on disk."""

    strategy: Strategy
    parts: bundle.Parts
    state: State
    head_history: list[EpochRow]
    head_epochs: int
    """The epoch that the head's own stage ended with; 0 without such a stage."""

    @property
    def head(self) -> TrainedHead:
        """Its head as it is now."""
        tensors = {k: v.detach().cpu().clone() for k, v in self.parts.above.head.state_dict().items()}
        return TrainedHead(tensors, history_rows(self.state), self.state.best_epoch)

    @property
    def line(self) -> int:
        """Number of frozen layers."""
        return self.parts.cut.line

    @property
    def history(self) -> list[EpochRow]:
        """The epochs of the strategy's own stage."""
        return history_rows(self.state)


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
        No room on the disk, or training failed (the loss is not a number).
    """
    stages = _Stages(strategy, prepared, folder, progress, log)
    layers = stages.new_head()

    # -- the head first, on the whole frozen network
    head_history: list[EpochRow] = []
    head_epochs = 0
    if strategy.head_first and head is not None:
        layers.load_state_dict(head.tensors)
        head_history, head_epochs = head.history, head.epochs
    elif strategy.head_first:
        state = stages.train(stages.on_frozen_network(layers), "head")
        head_history, head_epochs = history_rows(state), state.best_epoch

    # -- then all layers above the line
    above = stages.above_line(layers)
    state = stages.train(above, "own")
    return TrainedStrategy(strategy, stages.parts(above), state, head_history, head_epochs)


def refit(
    trained: TrainedStrategy, prepared: Prepared, folder: Path, *, progress: Progress, log: Log
) -> tuple[TrainedStrategy, Refit]:
    """Train the strategy again from its start, on training and validation photos together, for the epochs that were
    best.

    Returns
    -------
    tuple
        The model, with the history of the training that chose the number of epochs; and the row of this second
        training.

    Raises
    ------
    RunError
        As `train_strategy`.
    """
    photos, joined = len(prepared.split.train), prepared.joined()
    own, head = (repeated(recipe, photos) for recipe in (trained.strategy.recipe, trained.strategy.head_recipe))
    strategy = replace(trained.strategy, recipe=own, head_recipe=head)
    epochs = (trained.head_epochs, trained.state.best_epoch)
    again, seconds = train_for(strategy, joined, folder, epochs, progress=progress, log=log)
    row: Refit = {
        "photos": len(joined.split.train),
        "head_epochs": trained.head_epochs,
        "epochs": trained.state.best_epoch,
        "seconds": seconds,
    }
    return replace(trained, parts=again.parts), row


def train_for(
    strategy: Strategy,
    prepared: Prepared,
    folder: Path | None,
    epochs: tuple[int, int],
    *,
    progress: Progress,
    log: Log,
) -> tuple[TrainedStrategy, float]:
    """Train a strategy for so many epochs of its head alone and of its own layers; nothing is validated.

    Returns
    -------
    tuple
        The model, without a history; and the seconds that its training took.

    Raises
    ------
    RunError
        As `train_strategy`.
    """
    stages = _Stages(strategy, prepared, folder, progress, log)
    layers, seconds = stages.new_head(), 0.0
    if strategy.head_first:
        state = stages.train(stages.on_frozen_network(layers), "head again", epochs[0])
        seconds += sum(epoch.seconds for epoch in state.history)
    above = stages.above_line(layers)
    state = stages.train(above, "own again", epochs[1])
    seconds += sum(epoch.seconds for epoch in state.history)
    return TrainedStrategy(strategy, stages.parts(above), State(), [], epochs[0]), seconds


@dataclass(frozen=True)
class _Stages:
    """The stages of one strategy's training: the networks that they train, and the data."""

    strategy: Strategy
    prepared: Prepared
    folder: Path | None
    """Where checkpoints are kept."""
    progress: Progress
    log: Log

    @property
    def network(self) -> Backbone:
        return self.prepared.backbones[network_name(self.strategy)]

    @property
    def line(self) -> int:
        return self.network.lines.place(self.strategy)

    def new_head(self) -> nn.Sequential:
        """A head with random weights."""
        seed = self.prepared.training_seed
        return make_head(self.network.features, len(self.prepared.classes), self.strategy.recipe, seed)

    def on_frozen_network(self, head: nn.Sequential) -> Above:
        """A head on the whole frozen network."""
        top = freeze_line.cut(self.network.traced, self.network.layer_count)
        return Above(top.suffix, head, learn_statistics=False)

    def above_line(self, head: nn.Sequential) -> Above:
        """A head on a copy of the layers above the strategy's line, of which what the strategy trains is left to
        train."""
        suffix = bundle.detached(freeze_line.cut(self.network.traced, self.line))
        thawing.thaw(suffix, self.network.lines.trained(self.strategy), self.strategy, self.prepared.training_seed)
        return Above(suffix, head, learn_statistics=self.strategy.weights == "random")

    def parts(self, above: Above) -> bundle.Parts:
        """The whole model once it is trained: frozen layers, and those above the line."""
        thawing.merge(above.suffix)
        return bundle.Parts(self.network, freeze_line.cut(self.network.traced, self.line), above)

    def train(self, model: Above, stage: Stage, last_epoch: int | None = None) -> State:
        """One stage: the head alone at the top of the network, or the strategy's own layers at its line."""
        strategy, prepared = self.strategy, self.prepared
        head = stage.startswith("head")
        recipe = strategy.head_recipe if head else strategy.recipe
        line = self.network.layer_count if head else self.line
        store = prepared.taps[network_name(strategy), line].store
        again = " again, with the validation photos" if stage.endswith("again") else ""

        def on_epoch(epoch: Epoch) -> None:
            values = asdict(epoch)
            if last_epoch is not None:  # nothing was validated
                values = {k: v for k, v in values.items() if not k.startswith("val_")}
            self.log("epoch", strategy=strategy.name, stage=stage, **values)

        return loop.train(
            model,
            stored_examples(store, prepared.part(prepared.split.train.tolist()), prepared, recipe),
            stored_examples(store, prepared.part(prepared.split.validation.tolist()), prepared),
            recipe,
            loop.Settings(
                stage,
                f"Training {strategy.name}{again}{' (its head first)' if head else ''}",
                seed=prepared.training_seed,
                device=prepared.device,
                precision=prepared.precision,
                reduced=strategy.weights == "pretrained",
                balance=prepared.config.balance,
                keep_start=stage == "own" and strategy.head_first,
                last_epoch=last_epoch,
                checkpoint=_checkpoint(self.folder, stage) if self.folder else None,
            ),
            self.progress,
            on_epoch,
        )


def stored_examples(
    store: Store, photos: Sequence[Photo], prepared: Prepared, recipe: Recipe | None = None
) -> Examples:
    """Photos whose activations are in `store`: all views of a recipe for training, else the clean view and its mirror
    image."""
    views = range(stretched(recipe, len(photos)).views) if recipe else (0, MIRROR)
    keys = [[Key.of(p.sha256, v, prepared.config.seed) for v in views] for p in photos]
    return Examples(store, keys, labels_of(photos, prepared.classes))


def labels_of(photos: Sequence[Photo], classes: Sequence[str]) -> np.ndarray:
    """Class indices, int64 (N,); -1 for a class that was left out."""
    place = {c: i for i, c in enumerate(classes)}
    return np.array([place.get(p.label, -1) for p in photos], dtype=np.int64)


# ---- history and checkpoints -----------------------------------------------------------------------------------------


def history_rows(state: State) -> list[EpochRow]:
    """The epochs of a stage, as study.json has them."""
    rows: Any = [asdict(epoch) for epoch in state.history]
    return list(rows)


def write_history(path: Path, state: State) -> None:
    """Write history.csv: one row per epoch."""
    columns = list(Epoch.__dataclass_fields__)
    lines = [",".join(columns)]
    lines += [",".join(_number(value) for value in asdict(epoch).values()) for epoch in state.history]
    write_text(path, "\n".join(lines) + "\n")


class ValidationByEpoch(NamedTuple):
    """Each validation photo in each epoch of a stage: E epochs, V photos in the order of the split."""

    loss: npt.NDArray[np.float64]
    """(E, V) cross-entropy."""
    correct: npt.NDArray[np.bool_]
    """(E, V) whether the predicted class is the true one."""


def write_validation_by_epoch(path: Path, state: State) -> None:
    """Write validation_by_epoch.npz, which `read_validation_by_epoch` reads; nothing where an older version trained a
    part."""
    if not state.history or len(state.val_losses) != len(state.history):
        return
    loss, correct = torch.stack(state.val_losses).numpy(), torch.stack(state.val_correct).numpy()
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, loss=loss, correct=correct)


def read_validation_by_epoch(path: Path) -> ValidationByEpoch | None:
    """What `write_validation_by_epoch` wrote; None where there is no such file, or it can't be read."""
    try:
        with np.load(path, allow_pickle=False) as found:
            return ValidationByEpoch(found["loss"].astype(np.float64), found["correct"].astype(bool))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6f}"


def discard_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a strategy: once its row is in study.json it never trains again."""
    for stage in get_args(Stage):
        _checkpoint(folder, stage).unlink(missing_ok=True)


def _checkpoint(folder: Path, stage: str) -> Path:
    return folder / f"checkpoint-{stage.replace(' ', '-')}.pt"
