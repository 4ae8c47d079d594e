"""What an optimisation step changes: AdamW, its learning rates, and the running mean of the weights."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from frostline.networks.trainable import Above
from frostline.recipes import MOST_VIEWS, Recipe


def stretched(recipe: Recipe, photos: int) -> Recipe:
    """The recipe for this number of training photos.

    Few photos make few optimisation steps: epochs and patience are multiplied until there are `recipe.least_steps`.
    They also get more augmented views each, until there are `recipe.least_pictures` images.
    """
    steps = recipe.epochs * -(-photos // recipe.batch_size)
    times = max(1, -(-recipe.least_steps // steps))
    views = max(recipe.views, min(MOST_VIEWS, -(-recipe.least_pictures // photos)))
    return replace(recipe, epochs=times * recipe.epochs, patience=times * recipe.patience, views=views)


def repeated(recipe: Recipe, photos: int) -> Recipe:
    """The recipe of a second training, exactly as it was followed on `photos` photos, whatever their number is now."""
    return replace(stretched(recipe, photos), patience=0, least_steps=0, least_pictures=0)


@dataclass(frozen=True)
class Learner:
    """A model in training, with its optimiser and the running mean of its weights."""

    model: Above
    optimiser: torch.optim.Optimizer
    average: AveragedModel | None
    scaler: torch.amp.GradScaler | None = None
    """Of the losses, so that no gradient falls below what float16 can tell from 0; None in other number formats."""

    @classmethod
    def of(cls, model: Above, recipe: Recipe, *, reduced: bool, scaled: bool = False) -> Learner:
        """Start to train `model` on the device where it is.

        Parameters
        ----------
        reduced
            The layers below the head take the reduced learning rate.
        scaled
            Losses are scaled: for products in float16.
        """
        device = next(model.parameters()).device
        scaler = torch.amp.GradScaler(device.type) if scaled else None
        return cls(model, _adamw(model, recipe, reduced), _running_mean(model, recipe), scaler)

    @property
    def evaluated(self) -> Above:
        """The model that is validated and kept: with the weights as they are, or with their running mean."""
        return cast(Above, self.average.module) if self.average else self.model

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to those that are there."""
        scaled = self.scaler.scale(loss) if self.scaler else loss
        scaled.backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        """Update the weights, and their running mean."""
        if self.scaler:
            self.scaler.step(self.optimiser)  # left out where a scaled gradient is infinite
            self.scaler.update()
        else:
            self.optimiser.step()
        if self.average:
            self.average.update_parameters(self.model)

    def set_learning_rates(self, recipe: Recipe, epochs: float) -> None:
        """The learning rates after this many epochs: constant, or down a half cosine to 0 at the end."""
        share = 0.5 * (1 + math.cos(math.pi * epochs / recipe.epochs)) if recipe.schedule == "cosine" else 1.0
        for group in self.optimiser.param_groups:
            group["lr"] = share * group["full_rate"]


class _AdamW(torch.optim.AdamW):
    """AdamW without PyTorch's compiler: the plain methods import it (1 s of every run) only to tell it to stay away."""

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def _adamw(model: Above, recipe: Recipe, reduced: bool) -> torch.optim.Optimizer:
    """Weight decay on weight matrices only; biases and norms are left out."""
    groups = []
    rates = {
        "suffix": recipe.learning_rate_above_line if reduced else recipe.learning_rate,
        "head": recipe.learning_rate,
    }
    for part, rate in rates.items():
        parameters = [p for p in getattr(model, part).parameters() if p.requires_grad]
        matrices, vectors = [p for p in parameters if p.dim() > 1], [p for p in parameters if p.dim() <= 1]
        for members, decay in ((matrices, recipe.weight_decay), (vectors, 0.0)):
            if members:
                groups.append({"params": members, "lr": rate, "full_rate": rate, "weight_decay": decay})
    return _AdamW(groups, fused=True)


def _running_mean(model: Above, recipe: Recipe) -> AveragedModel | None:
    """An exponential moving average of the weights.

    It reaches back no further than a tenth of the steps so far: few photos make few steps.
    """
    if not recipe.averaging:
        return None

    def average(means: Sequence[Tensor], weights: Sequence[Tensor], _steps: Tensor | int) -> None:
        count = int(mean.n_averaged)  # on the processor: `_steps` is on the device, which would be waited for
        kept = min(recipe.averaging, (1 + count) / (10 + count))
        if means[0].is_floating_point():
            torch._foreach_lerp_(list(means), list(weights), 1 - kept)
        else:  # a batch norm's counter of steps
            torch._foreach_copy_(list(means), list(weights))

    mean = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    return mean
