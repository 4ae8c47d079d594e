"""Weights under their publisher's names, renamed to those of timm's network: torchvision's layouts.

timm's own rules (each family's ``checkpoint_filter_fn``) know most publishers' files, DINOv2's among them; those of
torchvision they don't. Rows of `_RULES` rename families whose tensors stand in another order. The others are renamed by
position (`frostline.networks.backbone.load`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn

State = Mapping[str, "Tensor"]
WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "teacher")
"""Under which keys training scripts put the network's tensors in a checkpoint."""


class _Rules(NamedTuple):
    """How one of torchvision's families is renamed."""

    found: Callable[[State], bool]
    """Whether a file is of this family."""
    names: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
    """Patterns, each tried on every name, in this order."""


def _stage(text: str) -> Callable[[re.Match[str]], str]:
    """torchvision counts stages and the steps between them in one: 1, 3, 5, 7 are stages, 2, 4, 6 lead to the next."""
    return lambda m: text.format(int(m[1]) // 2, *m.groups()[1:])


_RULES = (
    _Rules(  # VisionTransformer
        lambda state: "encoder.pos_embedding" in state,
        (
            (r"^class_token$", "cls_token"),
            (r"^encoder\.pos_embedding$", "pos_embed"),
            (r"^conv_proj\.", "patch_embed.proj."),
            (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
            (r"\.ln_([12])\.", r".norm\1."),
            (r"\.self_attention\.in_proj_", ".attn.qkv."),
            (r"\.self_attention\.out_proj\.", ".attn.proj."),
            (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
            (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
            (r"^encoder\.ln\.", "norm."),
            (r"^heads\.head\.", "head."),
        ),
    ),
    _Rules(  # SwinTransformer
        lambda state: "features.1.0.attn.relative_position_bias_table" in state,
        (
            (r"^features\.0\.0\.", "patch_embed.proj."),
            (r"^features\.0\.2\.", "patch_embed.norm."),
            (r"^features\.([1357])\.(\d+)\.", _stage("layers.{0}.blocks.{1}.")),
            (r"^features\.([246])\.", _stage("layers.{0}.downsample.")),
            (r"\.mlp\.0\.", ".mlp.fc1."),
            (r"\.mlp\.3\.", ".mlp.fc2."),
            (r"^head\.", "head.fc."),
        ),
    ),
    _Rules(  # ConvNeXt
        lambda state: "features.1.0.layer_scale" in state,
        (
            (r"^features\.0\.([01])\.", r"stem.\1."),
            (r"^features\.([1357])\.(\d+)\.", _stage("stages.{0}.blocks.{1}.")),
            (r"^features\.([246])\.", _stage("stages.{0}.downsample.")),
            (r"\.layer_scale$", ".gamma"),
            (r"\.block\.0\.", ".conv_dw."),
            (r"\.block\.2\.", ".norm."),
            (r"\.block\.3\.", ".mlp.fc1."),
            (r"\.block\.5\.", ".mlp.fc2."),
            (r"^classifier\.0\.", "head.norm."),
            (r"^classifier\.2\.", "head.fc."),
        ),
    ),
)


def renamed(state: State, wanted: State) -> dict[str, Tensor]:
    """The tensors under timm's names where the file is one of torchvision's families of `_RULES`; else as they are.

    A tensor that differs from the wanted one by dimensions of length 1 alone is brought into its shape.
    """
    rules = next((rules for rules in _RULES if rules.found(state)), None)
    if rules is None:
        return dict(state)
    found = {}
    for key, tensor in state.items():
        for pattern, new in rules.names:
            key = re.sub(pattern, new, key)
        found[key] = shaped(tensor, wanted[key]) if key in wanted else tensor
    return found


def shaped(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor in the shape of `like`, where the two differ by dimensions of length 1 alone; else as it is."""
    fits = _lengths(tensor) == _lengths(like)
    return tensor.reshape(like.shape) if fits else tensor


def _lengths(tensor: Tensor) -> list[int]:
    return [n for n in tensor.shape if n != 1]


def epsilon(state: State) -> float | None:
    """What torchvision's batch norms of this file add to the variance, where it isn't PyTorch's usual 1e-5; else None.

    No file holds it. MobileNetV3, EfficientNetV2 and EfficientNet-B5 to B7 have 1e-3.
    """
    if not any(".block." in key for key in state) or "features.0.1.running_var" not in state:
        return None
    mobilenet_v3 = "classifier.3.weight" in state
    efficientnet_v2 = "features.1.0.block.1.fc1.weight" not in state and not mobilenet_v3
    last = state.get("features.8.1.running_var")
    large = last is not None and len(last) >= 2048
    return 1e-3 if mobilenet_v3 or efficientnet_v2 or large else None


def with_epsilon(state: dict[str, Tensor], body: nn.Module, value: float) -> dict[str, Tensor]:
    """Running variances that do in `body`, whose norms add their own epsilon, what they did with `value`."""
    changed = dict(state)
    for name, module in body.named_modules():
        key, own = f"{name}.running_var", getattr(module, "eps", None)
        if key in changed and isinstance(own, float) and own < value:
            changed[key] = changed[key] + (value - own)
    return changed


def unwrapped(state: object) -> object:
    """The tensors of a training script's checkpoint: out of the entry that holds them, without the prefix of a
    wrapper."""
    while isinstance(state, dict) and (found := [k for k in WRAPPERS if isinstance(state.get(k), dict)]):
        state = state[found[0]]
    if isinstance(state, dict) and state and all(str(key).startswith("module.") for key in state):
        return {str(key).removeprefix("module."): value for key, value in state.items()}
    return state
