"""Small trainings on rows of numbers."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from frostline.cache.store import Key, Store
from frostline.networks.trainable import Above, make_head
from frostline.progress import Progress
from frostline.recipes import Recipe
from frostline.training.examples import Examples
from frostline.training.loop import Epoch, Settings, State, train

CPU = torch.device("cpu")

CLASSES = 3

RECIPE = Recipe(epochs=4, batch_size=8, hidden=16, dropout=0.2, learning_rate=1e-2)


def key(number: int, view: int = 0) -> Key:
    return Key(hashlib.sha256(str(number).encode()).hexdigest(), view, view)


def examples(folder: Path, count: int = 60, *, views: int = 1, shuffled: bool = False, seed: int = 0) -> Examples:
    """Rows (8,) of three classes that lie apart; `shuffled` labels have nothing to do with them."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % CLASSES
    rows = np.eye(CLASSES, 8)[labels] * 2 + rng.normal(0, 0.3, (count, 8))
    store = Store(folder, [(8,)], [np.dtype(np.float16)])
    for view in range(views):
        store.append([key(i, view) for i in range(count)], [rows + rng.normal(0, 0.1 * view, rows.shape)])
    if shuffled:
        labels = rng.permutation(labels)
    return Examples(store, [[key(i, v) for v in range(views)] for i in range(count)], labels)


def small(seed: int = 0, recipe: Recipe = RECIPE) -> Above:
    torch.manual_seed(seed)
    suffix = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU())
    return Above(suffix, make_head(8, CLASSES, recipe, seed), learn_statistics=False)


def learn(above: Above, data: Examples, validation: Examples | None = None, **changes: Any) -> State:
    recipe, on_epoch = changes.pop("recipe", RECIPE), changes.pop("on_epoch", None)
    basic = Settings("own", "Training test", seed=0, device=CPU, precision="float32", reduced=False)
    return train(above, data, validation or data, recipe, replace(basic, **changes), Progress(True), on_epoch)


def bits(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def figures(state: State) -> list[Epoch]:
    """The history without its times."""
    return [replace(row, seconds=0.0) for row in state.history]


class Interrupted(Exception):  # noqa: N818
    pass
