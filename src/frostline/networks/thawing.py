"""What is trained of the layers above a line: all of them, norms and biases alone, or low-rank adapters of attention.

Each way picks parameters by name, so that what is told of a strategy before it is trained is what is trained. Adapters
are merged into the weights when training ends: a model has the same tensors whatever was trained of it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from frostline.recipes import Strategy

_READ = ("qkv", "q", "k", "v", "kv", "q_proj", "k_proj", "v_proj")
"""Linear layers by which attention reads its tokens, as timm's networks call them."""
_WRITE = ("proj", "out_proj")
"""Those beside them by which it writes."""


def trained(network: nn.Module, parameters: Mapping[str, nn.Parameter], strategy: Strategy) -> dict[str, int]:
    """How many numbers are trained for each of these parameters that a strategy trains, by name.

    - ``all``: the parameter itself.
    - ``norms``: the scales and shifts of norms, and all biases (BitFit: Ben Zaken et al., 2022; of batch norms: Frankle
      et al., Training BatchNorm and only BatchNorm, 2021). Batch-norm statistics stay fixed, as everywhere.
    - ``lora``: two factors of rank r in place of the weights of attention's linear layers (LoRA: Hu et al., 2021).
    """
    if strategy.trains == "norms":
        return {name: p.numel() for name, p in parameters.items() if _is_norm_or_bias(network, name)}
    if strategy.trains == "lora":
        found = {name: p.shape for name, p in parameters.items() if _is_attention(network, name)}
        return {name: strategy.rank * sum(shape) for name, shape in found.items()}
    return {name: p.numel() for name, p in parameters.items()}


def thaw(suffix: nn.Module, names: Collection[str], strategy: Strategy, seed: int) -> None:
    """Leave these parameters of a network alone to train, or give them adapters."""
    every = dict(suffix.named_parameters(remove_duplicate=False))
    for parameter in every.values():
        parameter.requires_grad_(False)
    if strategy.trains == "lora":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for name in sorted(every.keys() & set(names)):
                layer = suffix.get_submodule(name.rpartition(".")[0])
                parametrize.register_parametrization(layer, "weight", _LowRank(every[name], strategy.rank))
    else:
        for name in every.keys() & set(names):
            every[name].requires_grad_(True)


def merge(suffix: nn.Module) -> None:
    """Write adapters into the weights that they adapt; the network computes the same."""
    for layer in list(suffix.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


class _LowRank(nn.Module):
    """W + B A, with A (rank, inputs) random and B (outputs, rank) 0 at the start, so that training starts from W."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        self.down = nn.Parameter(torch.empty(rank, inputs))
        self.up = nn.Parameter(torch.zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """(outputs, inputs), in float32 also where training computes in bfloat16."""
        with torch.autocast(weight.device.type, enabled=False):
            return weight + self.up @ self.down


def _is_norm_or_bias(network: nn.Module, name: str) -> bool:
    holder, _, own = name.rpartition(".")
    return own.endswith("bias") or "norm" in type(network.get_submodule(holder)).__name__.lower()


def _is_attention(network: nn.Module, name: str) -> bool:
    """Whether these are the weights of a linear layer that reads or writes for attention."""
    holder, _, own = name.rpartition(".")
    around, _, layer = holder.rpartition(".")
    if own != "weight" or layer not in _READ + _WRITE or not isinstance(network.get_submodule(holder), nn.Linear):
        return False
    beside = dict(network.get_submodule(around).named_children())
    return any(isinstance(beside.get(read), nn.Linear) for read in _READ)
