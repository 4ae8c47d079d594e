"""The freeze line and the engines that run what lies below it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from frostline.bundles import bundle
from frostline.cache.store import Key, Store
from frostline.errors import ConfigError
from frostline.networks import backbone, freeze_line
from frostline.networks.backbone import Backbone
from frostline.networks.compilation import Runtime, compiled
from frostline.networks.engine import Engine, multiplies_bfloat16
from frostline.networks.trainable import Above, make_head
from frostline.progress import Progress
from frostline.recipes import Recipe, resolve
from frostline.training.examples import Examples
from frostline.training.loop import Settings, train

CPU = torch.device("cpu")


@cache
def network(name: str, size: int) -> Backbone:
    """A backbone with random weights and batch-norm statistics that are not the identity."""
    built = backbone.build(name, "random", seed=3, image_size=size)
    rng = torch.Generator().manual_seed(4)
    for module in built.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=rng) / 10)
            module.running_var.copy_(torch.rand(module.num_features, generator=rng) + 0.5)
    return built


def photos(count: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def assert_parity(built: Backbone, lines: list[int]) -> None:
    """Prefix then suffix is the whole network, bit for bit, at each line."""
    batch = torch.from_numpy(photos(2, built.transform.size))
    with torch.inference_mode():
        whole = built.network(batch)
        assert whole.std() > 0
        for line in lines:
            parts = freeze_line.cut(built.traced, line)
            live = parts.prefix(batch)
            assert [tuple(t.shape[1:]) for t in live] == list(parts.shapes)
            assert [t.dtype for t in live] == list(parts.dtypes)
            assert torch.equal(parts.suffix(*live), whole), f"{built.name} cut at {line}"


# ---- mobilenet_v2, the tutorial's network ----------------------------------------------------------------------------


def test_the_last_six_layers_are_the_tutorials() -> None:
    built = network("mobilenet_v2", 64)
    names = freeze_line.layers(built.traced)
    assert len(names) == built.layer_count == 139
    kinds = [type(built.traced.get_submodule(name)) for name in names]
    assert kinds[-6:] == [nn.ReLU6, nn.Conv2d, nn.BatchNorm2d, nn.Conv2d, nn.BatchNorm2d, nn.ReLU6]
    depthwise, projection, last = (built.traced.get_submodule(names[i]) for i in (-8, -5, -3))
    assert depthwise.groups == depthwise.out_channels == 960
    assert (projection.kernel_size, projection.out_channels) == ((1, 1), 320)
    assert (last.kernel_size, last.out_channels) == ((1, 1), 1280)


def test_mobilenet_v2_is_the_same_network_cut_anywhere() -> None:
    assert_parity(network("mobilenet_v2", 64), [*range(0, 125, 9), *range(125, 140)])


def test_the_tensors_at_the_tutorials_line() -> None:
    parts = freeze_line.cut(network("mobilenet_v2", 224).traced, 133)
    assert parts.shapes == ((960, 7, 7),)
    assert freeze_line.cut(network("mobilenet_v2", 224).traced, 139).shapes == ((1280,),)
    assert freeze_line.cut(network("mobilenet_v2", 224).traced, 0).dtypes == (torch.uint8,)


@pytest.mark.parametrize(
    ("name", "line", "expected"),
    [
        ("small_cnn", "0", (11_169_605, 11_169_605)),
        ("mobilenet_v2", "top", (2_223_872 + 164_613, 164_613)),
        ("mobilenet_v2", "top-6", (2_223_872 + 164_613, 884_613)),
    ],
)
def test_parameter_counts_are_the_tutorials(name: str, line: str, expected: tuple[int, int]) -> None:
    built = network(name, 224)
    parts = freeze_line.cut(built.traced, resolve(line, built.layer_count))
    head = make_head(built.features, 5, Recipe(), 0)
    assert freeze_line.parameter_counts(parts.prefix, parts.suffix, head) == expected


def test_pretrained_weights_arrive_whole(pretrained: Path) -> None:
    built = backbone.build("mobilenet_v2", "pretrained", image_size=64)
    published = torch.load(pretrained, weights_only=True)
    tensors = built.network.state_dict()
    assert {f"body.{k}" for k in published if not k.startswith("classifier.")} == set(tensors)
    assert all(torch.equal(tensors[f"body.{k}"], v) for k, v in published.items() if not k.startswith("classifier."))


# ---- other families --------------------------------------------------------------------------------------------------

FAMILIES = {
    "resnet18": 64,
    "mobilenetv3_small_050": 64,
    "regnetx_002": 64,
    "convnext_atto": 64,
    "test_vit": 0,
    "test_efficientnet": 64,
    "densenet121": 64,
    "mobilevit_xxs": 64,
    "efficientvit_b0": 64,  # with blocks that can't be recorded inside
}


@pytest.mark.parametrize("name", FAMILIES)
def test_other_families_are_the_same_cut_anywhere(name: str) -> None:
    built = network(name, FAMILIES[name])
    count = built.layer_count
    assert_parity(built, sorted({0, 1, 2, count // 3, count // 2, 2 * count // 3, count - 3, count - 1, count}))


@pytest.mark.parametrize("name", FAMILIES)
def test_training_moves_nothing_that_is_frozen(name: str, tmp_path: Path) -> None:
    """Neither weights below the line nor batch-norm statistics anywhere, while what lies above learns."""
    built = network(name, FAMILIES[name])
    before = {k: v.clone() for k, v in built.network.state_dict().items()}
    parts = freeze_line.cut(built.traced, built.layer_count // 2)
    recipe = Recipe(epochs=1, batch_size=4, hidden=0)
    above = Above(bundle.detached(parts), make_head(built.features, 2, recipe, 0), learn_statistics=False)
    examples = at_line(parts, photos(8, built.transform.size), tmp_path)
    settings = Settings("own", "Training test", seed=0, device=CPU, precision="float32", reduced=True)
    train(above, examples, examples, recipe, settings, Progress(True))
    after = bundle.state(built, above)
    moved = {k for k, v in before.items() if not torch.equal(after[f"backbone.{k}"], v)}
    frozen = {k for k, _ in parts.prefix.named_parameters()}
    assert moved
    assert not moved & frozen
    assert not [k for k in moved if k.endswith(("running_mean", "running_var", "num_batches_tracked"))]


def at_line(parts: freeze_line.Cut, batch: np.ndarray, folder: Path) -> Examples:
    """Photos of two classes, by what the prefix makes of them."""
    with torch.inference_mode():
        live = [t.numpy() for t in parts.prefix(torch.from_numpy(batch))]
    store = Store(folder, parts.shapes, [a.dtype for a in live])
    keys = [Key(f"{i:064x}", 0, 0) for i in range(len(batch))]
    store.append(keys, live)
    return Examples(store, [[k] for k in keys], np.arange(len(batch)) % 2)


def test_a_network_that_decides_by_its_data_is_refused() -> None:
    class Moody(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.float() if x.sum() > 0 else -x.float()

    with pytest.raises(ConfigError, match=r"Moody can't be recorded layer by layer: .+") as error:
        freeze_line.trace(Moody(), torch.zeros(1, 4, 4, 3))
    assert "\n" not in str(error.value)


def test_a_layer_on_both_sides_of_the_line_is_refused() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.act = nn.Linear(3, 3), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.first(self.act(self.first(x))))

    traced = freeze_line.trace(Shared(), torch.zeros(2, 3))
    assert freeze_line.layers(traced) == ["first", "act", "first", "act"]
    for line in (1, 2):
        with pytest.raises(ConfigError, match="layer 'first' runs on both sides of the freeze line"):
            freeze_line.cut(traced, line)
    for line in (0, 3, 4):  # both uses above, both below; `act` has no weights, so it may stand on both sides
        freeze_line.cut(traced, line)


@pytest.mark.parametrize(
    ("line", "place"),
    [("0", 0), ("133", 133), ("top", 139), ("top-6", 133), ("top-0", 139), (" TOP-139 ", 0), ("139", 139)],
)
def test_lines_can_be_named(line: str, place: int) -> None:
    assert resolve(line, 139) == place


@pytest.mark.parametrize("line", ["", "bottom", "-1", "top-", "top+6", "top-x", "1.5", "top--6", "٣", "6-top"])
def test_a_line_of_another_form_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match="expected a layer number, 'top' or 'top-6'"):
        resolve(line, 139)


@pytest.mark.parametrize("line", ["140", "top-140"])
def test_a_line_outside_the_network_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match=f"freeze line '{line}': the network has 139 layers, so expected 0 to 139"):
        resolve(line, 139)


# ---- any residual network --------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """Blocks with a branch around them; activations work in place, the sum sometimes too."""

    def __init__(self, blocks: list[tuple[int, bool, bool]]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.bodies, self.branches = nn.ModuleList(), nn.ModuleList()
        for depth, branch, _ in blocks:
            steps: list[nn.Module] = []
            for _ in range(depth):
                steps += [nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Hardswish(inplace=True)]
            self.bodies.append(nn.Sequential(*steps))
            self.branches.append(nn.Conv2d(4, 4, 1) if branch else nn.Identity())
        self.in_place = [in_place for _, _, in_place in blocks]

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for body, branch, in_place in zip(self.bodies, self.branches, self.in_place, strict=True):
            y = body(x)
            if in_place:
                y += branch(x)
                x = y
            else:
                x = y + branch(x)
        return x.mean((2, 3))


@settings(max_examples=25, deadline=None)
@given(
    blocks=st.lists(st.tuples(st.integers(1, 3), st.booleans(), st.booleans()), min_size=1, max_size=3),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**16),
)
def test_any_residual_network_is_the_same_cut_anywhere(
    blocks: list[tuple[int, bool, bool]], share: float, seed: int
) -> None:
    torch.manual_seed(seed)
    net = Residual(blocks)
    x = torch.randn(2, 3, 6, 6)
    traced = freeze_line.trace(net, x)
    count = len(freeze_line.layers(traced))
    line = round(share * count)
    parts = freeze_line.cut(traced, line)
    with torch.no_grad():
        live = parts.prefix(x)
        at_line = [t.clone() for t in live]
        together = freeze_line.taps(traced, [count, line])(x)
        assert torch.equal(parts.suffix(*live), net(x))
        assert torch.equal(together[0], net(x))
        assert len(together) == 1 + len(at_line)
        assert all(torch.equal(a, b) for a, b in zip(together[1:], at_line, strict=True))


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenetv3_small_050", "resnet18"])
def test_taps_give_what_separate_cuts_give(name: str) -> None:
    """An activation that works in place must not change what was tapped before it."""
    built = network(name, 64)
    batch = torch.from_numpy(photos(2, built.transform.size))
    count = built.layer_count
    lines = [count, *range(count - 12, count), 5]
    with torch.inference_mode():
        expected = [t.clone() for line in lines for t in freeze_line.cut(built.traced, line).prefix(batch)]
        together = freeze_line.taps(built.traced, lines)(batch)
    assert len(together) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(together, expected, strict=True))


# ---- engines ---------------------------------------------------------------------------------------------------------


def engine(built: Backbone, lines: Sequence[int], kind: Any, folder: Path, half: bool = True) -> Engine:
    network = freeze_line.taps(built.traced, lines)
    return compiled(network, [built.example()], Runtime(kind), half=half, folder=folder)


@pytest.mark.parametrize("kind", ["openvino", "onnx", "torch"])
def test_a_photos_bits_depend_on_nothing_else(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither on the photos beside it, nor on what other threads do."""
    built = network("mobilenet_v2", 64)
    one = engine(built, (133, 139), kind, shared(tmp_path_factory))
    batch = photos(40, 64)  # more than a pass of PyTorch
    whole = one.run([batch])
    assert [a.shape for a in whole] == [(40, 960, 2, 2), (40, 1280)]
    for count in (1, 17, 31):
        assert all(np.array_equal(a[:count], b) for a, b in zip(whole, one.run([batch[:count]]), strict=True))
        assert all(np.array_equal(a[-count:], b) for a, b in zip(whole, one.run([batch[-count:]]), strict=True))
    with ThreadPoolExecutor(8) as pool:
        alone = list(pool.map(lambda i: one.run([batch[i : i + 1]]), range(40)))
    assert all(np.array_equal(a[i : i + 1], b) for i, row in enumerate(alone) for a, b in zip(whole, row, strict=True))


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
@pytest.mark.parametrize("kind", ["openvino", "onnx"])
def test_compiled_engines_and_torch_agree(name: str, kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """To 1e-4 of the largest value: float32 sums in another order, nothing more (measured: 2e-6)."""
    built = network(name, 64)
    lines = (built.layer_count - 6, built.layer_count)
    folder = shared(tmp_path_factory)
    ours, eager = (engine(built, lines, k, folder, half=False).run([photos(5, 64)]) for k in (kind, "torch"))
    assert len(ours) == len(eager) >= 2
    for a, b in zip(ours, eager, strict=True):
        assert a.dtype == b.dtype == np.float32
        assert np.abs(a - b).max() <= 1e-4 * np.abs(b).max()
        assert np.abs(b).max() > 0


@pytest.mark.skipif(not multiplies_bfloat16(), reason="this processor has no instructions for bfloat16")
def test_half_precision_stays_near(tmp_path_factory: pytest.TempPathFactory) -> None:
    built = network("mobilenet_v2", 64)
    folder = shared(tmp_path_factory)
    half, whole = (engine(built, (139,), "openvino", folder, half=h).run([photos(8, 64)])[0] for h in (True, False))
    difference = np.linalg.norm(half - whole) / np.linalg.norm(whole)
    assert 1e-4 < difference < 0.1  # of the features; measured: 0.03


def shared(factory: pytest.TempPathFactory) -> Path:
    """One folder of compiled engines for all tests: a compilation takes seconds."""
    folder = factory.getbasetemp() / "engines"
    folder.mkdir(exist_ok=True)
    return folder


# ---- batch norm ------------------------------------------------------------------------------------------------------


def test_fixed_statistics_hold_still_while_the_rest_trains() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    freeze_line.fixed_statistics(net, True)
    assert [m.training for m in net] == [True, False, True]
    before = net[1].running_mean.clone()
    net(torch.randn(8, 3, 2, 2))
    assert torch.equal(net[1].running_mean, before)


def test_identity_tells_networks_apart() -> None:
    torch.manual_seed(0)
    a = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    same = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    same.load_state_dict(a.state_dict())
    assert freeze_line.identity(a) == freeze_line.identity(same)
    same[1].running_var[2] += 1e-3
    assert freeze_line.identity(a) != freeze_line.identity(same)
