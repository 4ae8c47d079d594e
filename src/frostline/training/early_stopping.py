"""Early stopping: which epoch's weights are kept, and when training ends.

The best epoch is the last one that is not clearly worse on the validation photos than the epoch of the lowest
validation loss. Learning rates fall to 0 at the end, so a later epoch is better where validation photos are too few to
tell.
"""

from __future__ import annotations

import math

from torch import Tensor

from frostline.networks.trainable import Above
from frostline.recipes import LEAST_TO_TELL, Recipe
from frostline.training.checkpoint import State


def should_stop(state: State, recipe: Recipe) -> bool:
    """Whether the last `recipe.patience` epochs brought neither a lower validation loss nor a new best epoch."""
    return bool(recipe.patience) and state.last - max(state.lowest_epoch, state.best_epoch) >= recipe.patience


def update(state: State, model: Above, recipe: Recipe, losses: Tensor) -> None:
    """After an epoch: keep the weights of `model` unless its validation losses (V,) are clearly worse than the lowest.

    Without patience the last epoch is the best one; its weights are those that `model` has.
    """
    epoch = state.last
    if not recipe.patience:
        state.best_epoch = epoch
        return
    loss = float(losses.mean())
    if loss < state.lowest_loss:
        state.lowest_epoch, state.lowest_loss = epoch, loss
    if state.lowest is None or not clearly_worse(losses, state.lowest):
        keep(state, model, epoch)
    if state.lowest is None or loss < float(state.lowest.mean()):
        state.lowest = losses


def keep(state: State, model: Above, epoch: int) -> None:
    """Copy the weights of `model`: those of the best epoch so far."""
    state.best_epoch = epoch
    state.best = {k: v.detach().clone() for k, v in model.state_dict().items()}


def clearly_worse(losses: Tensor, than: Tensor) -> bool:
    """Whether losses (V,) are higher than those of the same photos in another epoch, by more than one standard error of
    the mean difference.

    The one-standard-error rule (Breiman et al., Classification and Regression Trees, 1984) for pairs. Never with fewer
    than `LEAST_TO_TELL` photos.
    """
    if len(losses) < LEAST_TO_TELL:
        return False
    higher = losses.double() - than.double()
    return bool(higher.mean() > higher.std() / math.sqrt(len(higher)))
