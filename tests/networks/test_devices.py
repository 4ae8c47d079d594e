"""Which device is taken, in which number format, and that the frozen layers give there what they give on the processor.

Where there is an accelerator the same tests run on it: `pytest -m device`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from frostline.cache.store import Key
from frostline.config import Config, configure
from frostline.errors import ConfigError, RunError
from frostline.networks import backbone, devices
from frostline.networks.activations import Tap, fill, tap
from frostline.networks.backbone import Backbone
from frostline.networks.compilation import Runtime, TorchEngine
from frostline.photos import scan
from frostline.photos.manifest import Manifest
from frostline.progress import Progress
from support import photos as pictures
from support.devices import each_device

CPU = torch.device("cpu")
QUIET = Progress(True)
CLOSE = {"float32": 1e-4, "bfloat16": 0.05, "float16": 0.01}
"""How far rows may be apart, as a share of the largest value."""


def sees(monkeypatch: pytest.MonkeyPatch, *kinds: str) -> None:
    """PyTorch sees these kinds of accelerator alone."""
    for kind, module in (("cuda", torch.cuda), ("mps", torch.backends.mps), ("xpu", torch.xpu)):
        monkeypatch.setattr(module, "is_available", lambda kind=kind: kind in kinds)


@pytest.fixture
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What choosing an accelerator changes in PyTorch is put back."""
    cudnn = torch.backends.cudnn
    kept = (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32)
    asked = torch.get_deterministic_debug_mode()
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    torch.set_deterministic_debug_mode(asked)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = kept


# ---- the choice ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "taken"), [((), "cpu"), (("mps",), "mps"), (("xpu",), "xpu"), (("xpu", "cuda"), "cuda")]
)
def test_auto_takes_the_accelerator_where_there_is_one(
    undisturbed: None, monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], taken: str
) -> None:
    sees(monkeypatch, *there)
    monkeypatch.setattr(devices, "fault", lambda _device: "")
    assert devices.choose().type == taken
    assert devices.choose("cpu").type == "cpu"
    assert torch.are_deterministic_algorithms_enabled() is (taken != "cpu")
    assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) is (taken != "cpu")
    assert torch.utils.deterministic.fill_uninitialized_memory is (taken == "cpu")  # type: ignore[attr-defined]


@pytest.mark.parametrize("asked", ["cuda", "mps", "xpu"])
def test_a_device_that_is_not_there_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch, asked: Any) -> None:
    sees(monkeypatch)
    with pytest.raises(ConfigError, match=f"^device '{asked}': PyTorch sees none here; use --device cpu$"):
        devices.choose(asked)
    assert configure("photos", device=asked).device == asked  # a configuration may be written on another machine


def test_a_device_that_can_not_compute_is_left_alone_and_told_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("it can")
    sees(monkeypatch, "cuda")
    assert devices.choose() == CPU
    with pytest.raises(
        ConfigError, match=r"^device 'cuda': PyTorch can't compute on it \(.+\); use --device cpu$"
    ) as error:
        devices.choose("cuda")
    assert "\n" not in str(error.value)


def test_an_unknown_device_is_told() -> None:
    with pytest.raises(ConfigError, match="unknown device 'cuda:1'; did you mean 'cuda'"):
        configure("photos", device="cuda:1")


@pytest.mark.parametrize(
    ("capability", "bf16", "takes"),
    [((9, 0), True, "bfloat16"), ((7, 5), False, "float16"), ((6, 1), False, "float32")],
)
def test_an_nvidia_card_takes_the_format_that_it_multiplies_in_hardware(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], bf16: bool, takes: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16 or including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    assert devices.half(torch.device("cuda")) == takes


@pytest.mark.parametrize(("newer", "takes"), [(True, "bfloat16"), (False, "float16")])
def test_apple_s_takes_bfloat16_from_macos_14_on(monkeypatch: pytest.MonkeyPatch, newer: bool, takes: str) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, _minor: newer or major < 14)
    assert devices.half(torch.device("mps")) == takes
    assert not devices.deterministic(torch.device("mps"))


def test_auto_runs_the_frozen_layers_on_the_accelerator() -> None:
    assert Runtime("auto", torch.device("xpu")).settled == "torch"
    assert Runtime("onnx", torch.device("cuda")).settled == "onnx"
    assert Runtime("auto").settled in ("onnx", "openvino")


def test_a_full_memory_is_told_in_one_line() -> None:
    class Full(nn.Module):
        def forward(self, _photos: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    with pytest.raises(RunError, match=r"the memory of device 'cpu' is full: .* or use --device cpu$"):
        TorchEngine(Full(), CPU).run([np.zeros((1, 2), np.float32)])


# ---- the frozen layers there -----------------------------------------------------------------------------------------


def network() -> Backbone:
    return backbone.build("test_resnet", "random", seed=0, image_size=64)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / "cache"))
    for label, seeds in (("a", range(40)), ("b", range(40, 70))):
        (tmp_path / "data" / label).mkdir(parents=True)
        for seed in seeds:
            (tmp_path / "data" / label / f"{seed}.jpg").write_bytes(pictures.photo(seed % 7) + bytes([seed]))
    return scan.scan(tmp_path / "data")


def rows(photos: Manifest, taps: list[Tap], runtime: Runtime, indices: list[int] | None = None) -> list[np.ndarray]:
    assert fill(taps, photos, indices=indices, runtime=runtime, progress=QUIET) == []
    chosen = range(len(photos.photos)) if indices is None else indices
    keys = [Key.of(photos.photos[i].sha256, 0, 0) for i in chosen]
    return [array for t in taps for array in t.store.read(keys)]


@each_device
@pytest.mark.parametrize("numbers", ["float32", "bfloat16", "float16"])
def test_rows_on_a_device_are_those_of_the_processor(photos: Manifest, device: torch.device, numbers: Any) -> None:
    built = network()
    reference, there = Runtime("torch"), Runtime("torch", device, numbers)
    lines = (built.layer_count - 3, built.layer_count)
    wanted, found = (
        rows(photos, [tap(built, line, runtime, "float32") for line in lines], runtime)
        for runtime in (reference, there)
    )
    assert all(p.device == CPU for p in built.network.parameters())  # others share them
    for a, b in zip(wanted, found, strict=True):
        assert np.abs(a - b).max() <= CLOSE[numbers] * np.abs(a).max()


@each_device
def test_a_photo_s_row_does_not_depend_on_how_many_were_asked_for(
    photos: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    built, runtime = network(), Runtime("torch", device, "bfloat16")
    top = built.layer_count
    whole = rows(photos, [tap(built, top - 3, runtime, "float16"), tap(built, top, runtime, "float16")], runtime)
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / "other"))
    few = [3, 65, 69]
    (alone,) = rows(photos, [tap(built, top, runtime, "float16")], runtime, few)
    assert np.array_equal(alone, whole[-1][few])


def test_each_device_and_number_format_has_a_store_of_its_own(photos: Manifest) -> None:
    built = network()
    runtimes = [Runtime("torch"), Runtime("torch", CPU, "bfloat16"), Runtime("torch", CPU, "float16")]
    runtimes += [Runtime("torch", torch.device(kind), n) for kind in ("cuda", "mps") for n in ("float32", "bfloat16")]
    stores = {tap(built, built.layer_count, runtime, "float16").store.folder for runtime in runtimes}
    assert len(stores) == len(runtimes)
    named = f"torch {metadata.version('torch')}, from torch {torch.__version__}cpu"
    assert Runtime("torch").signature == named  # rows of version 0.1.0 stay good
    assert tap(built, 0, runtimes[0], "float16").store.folder == tap(built, 0, runtimes[-1], "float16").store.folder


def test_configurations_name_every_device(tmp_path: Path) -> None:
    for device in ("auto", "cpu", "cuda", "mps", "xpu"):
        configure("photos", device=device).to_toml(tmp_path / "config.toml")
        assert Config.from_toml(tmp_path / "config.toml").device == device
