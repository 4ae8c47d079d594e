"""The state of a training stage, saved after each epoch: a resumed run ends with the same bits as one never stopped."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from frostline.errors import RunError
from frostline.files import replacing
from frostline.training.optimiser import Learner

Stage = Literal["head", "own", "head again", "own again"]
"""The head alone, or the strategy's own layers. `again`: a second training with the validation photos among the others,
once the number of epochs is chosen."""


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
    """All that a stage needs to go on."""

    history: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    """The epoch whose weights are kept; 0: the starting weights, where every epoch was clearly worse."""
    lowest: Tensor | None = None
    """The validation loss of each photo (V,), in the epoch of the lowest mean so far (or at the start, where that may
    be kept)."""
    lowest_epoch: int = 0
    """The epoch of the lowest validation loss so far, the start not counted. Patience counts from it, or from the best
    epoch."""
    lowest_loss: float = math.inf
    start_accuracy: float = 0.0
    """Validation accuracy before the first epoch; only where the starting weights may be kept."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """The weights that are kept."""
    val_losses: list[Tensor] = field(default_factory=list)
    """The cross-entropy of each validation photo (V,), epoch by epoch; shorter than `history` where an older version
    began."""
    val_correct: list[Tensor] = field(default_factory=list)
    """Whether each validation photo's predicted class is the true one (V,), epoch by epoch."""

    @property
    def kept_accuracy(self) -> float:
        """Validation accuracy of the weights that are kept."""
        return self.history[self.best_epoch - 1].val_accuracy if self.best_epoch else self.start_accuracy

    @property
    def last(self) -> int:
        """Number of epochs done."""
        return len(self.history)


def save(path: Path, stage: Stage, state: State, learner: Learner) -> None:
    """Write a checkpoint, atomically.

    Raises
    ------
    RunError
        It can't be written.
    """
    content = {
        "stage": stage,
        "state": dataclasses.asdict(state),
        "above": learner.model.state_dict(),
        "optimiser": learner.optimiser.state_dict(),
        "average": learner.average.state_dict() if learner.average else {},
        "scaler": learner.scaler.state_dict() if learner.scaler else {},
    }
    with replacing(path) as temporary:
        _torch_save(_on_processor(content), temporary)


def _on_processor(value: Any) -> Any:
    """The same with all its tensors on the processor: a run may go on with another device."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {key: _on_processor(each) for key, each in value.items()}
    return [_on_processor(each) for each in value] if isinstance(value, list) else value


def _torch_save(content: Mapping[str, object], path: Path) -> None:
    """torch.save, which hides the system's own error (no room on the disk) behind a RuntimeError of its file format."""
    try:
        with path.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def resume(path: Path | None, stage: Stage, learner: Learner) -> State:
    """Load the checkpoint of this stage into `learner`; a new state where there is none.

    Raises
    ------
    RunError
        The checkpoint is damaged.
    """
    if path is None or not path.exists():
        return State()
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        if content["stage"] != stage:
            return State()
        learner.model.load_state_dict(content["above"])
        learner.optimiser.load_state_dict(content["optimiser"])
        if learner.average:
            learner.average.load_state_dict(content["average"])
        if learner.scaler and content.get("scaler"):  # begun with another number format, there is none
            learner.scaler.load_state_dict(content["scaler"])
        saved = content["state"]
        return State(**{**saved, "history": [Epoch(**row) for row in saved["history"]]})
    except Exception as error:  # any damage: zip, pickle and key errors alike
        raise RunError(
            f"the checkpoint {path} can't be read ({type(error).__name__}): delete it to train again"
        ) from error
