"""What is trained: the layers above the line and the head."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from frostline.networks import freeze_line
from frostline.networks.fused_layers import fold
from frostline.recipes import Recipe


def make_head(features: int, classes: int, recipe: Recipe, seed: int) -> nn.Sequential:
    """The tutorial's head: Dense (hidden), ReLU, dropout, Dense (classes); with hidden 0 one Dense layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if recipe.hidden == 0:
            return nn.Sequential(nn.Dropout(recipe.dropout), nn.Linear(features, classes))
        return nn.Sequential(
            nn.Linear(features, recipe.hidden), nn.ReLU(), nn.Dropout(recipe.dropout), nn.Linear(recipe.hidden, classes)
        )


class Above(nn.Module):
    """What learns: the layers above the line, then the head."""

    def __init__(self, suffix: nn.Module, head: nn.Module, *, learn_statistics: bool) -> None:
        super().__init__()
        self.suffix, self.head = suffix, head
        self.learn_statistics = learn_statistics
        self._steps = [
            suffix if learn_statistics else fold(suffix)
        ]  # in a list: its layers are the suffix's, no further ones

    def forward(self, *live: Tensor) -> Tensor:
        """The tensors at the line, each (N, ...), to logits (N, classes)."""
        quick = self.training or torch.is_autocast_enabled(live[0].device.type)  # in float32 as the bundle computes it
        body = self._steps[0] if quick else self.suffix
        return cast(Tensor, self.head(body(*live).float()))

    def set_training(self, training: bool) -> None:
        """Dropout on or off. Batch-norm statistics move only in a network that starts from random weights."""
        if self.learn_statistics:
            self.train(training)
        else:
            freeze_line.fixed_statistics(self, training)


class Telling(nn.Module):
    """What a bundle runs above the line: logits, and beside them what photos are compared by."""

    def __init__(self, above: Above, widest: int) -> None:
        super().__init__()
        self.above, self.widest = above, widest

    def forward(self, *live: Tensor) -> tuple[Tensor, Tensor]:
        """The tensors at the line, each (N, ...), to logits (N, classes) and the features, or the hidden layer where
        those are wider."""
        features = self.above.suffix(*live).float()
        head = cast(nn.Sequential, self.above.head)
        if features.shape[1] <= self.widest:
            return head(features), features
        hidden = head[:-1](features)
        return head[-1](hidden), hidden
