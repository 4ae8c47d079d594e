"""Engines under threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from frostline.networks import backbone, freeze_line
from frostline.networks.compilation import Runtime, compiled, exported
from frostline.networks.engine import SEVERAL, Settled, multiplies_bfloat16, opened

_RACE = """
import os, sys, threading
from pathlib import Path
import numpy as np
from frostline.networks.engine import opened
sys.setswitchinterval(1e-6)
engine = opened(sys.argv[2], Path(sys.argv[1]), half=True)
start = threading.Barrier(8)
def work():
    start.wait()
    engine.run([np.zeros((3, 3, 8, 8), np.float32)])
threads = [threading.Thread(target=work, daemon=True) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join(30)
os._exit(any(thread.is_alive() for thread in threads))
"""


@pytest.mark.parametrize("kind", ["openvino", "onnx"])
def test_threads_that_begin_at_once_all_end(kind: str, tmp_path: Path) -> None:
    """Two threads in OpenVINO's first inference of a process waited for each other for ever, in four of ten
    processes."""
    if kind == "openvino":
        pytest.importorskip("openvino", reason="OpenVINO has no wheel for this platform")
    with exported(nn.Conv2d(3, 8, 3).eval(), [torch.zeros(1, 3, 8, 8)], tmp_path) as file:
        for _ in range(6):
            done = subprocess.run([sys.executable, "-c", _RACE, str(file), kind], timeout=60, check=False)
            assert done.returncode == 0


class _Pictures(nn.Module):
    """`alone`: written for one picture at a time, as some networks are."""

    def __init__(self, alone: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 40, 3, 2), nn.AdaptiveAvgPool2d(1))
        self.alone = alone

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        y = self.layers(photos.permute(0, 3, 1, 2).float() / 255)
        return y.reshape(1, 40) if self.alone else y.flatten(1)


@pytest.mark.parametrize("kind", ["openvino", "onnx"])
@pytest.mark.parametrize("alone", [False, True])
def test_to_expect_many_changes_no_bit(kind: Settled, alone: bool, tmp_path: Path) -> None:
    if kind == "openvino":
        pytest.importorskip("openvino", reason="OpenVINO has no wheel for this platform")
    pictures = np.random.default_rng(1).integers(0, 256, (7, 33, 33, 3), np.uint8)
    network = _Pictures(alone).eval()
    with exported(network, [torch.zeros(1, 33, 33, 3, dtype=torch.uint8)], tmp_path) as file:
        engine = opened(kind, file, half=True)
        (before,) = engine.run([pictures])
        engine.expect(1000)
        (after,) = engine.run([pictures])
    assert before.shape == (7, 40)
    assert np.array_equal(before, after)
    assert engine.batch == 1 or (kind == "openvino" and not alone)


# ---- transformers ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def transformer() -> backbone.Backbone:
    """A small one, with random weights."""
    return backbone.build("test_vit", "random", seed=2)


def noise(built: backbone.Backbone, count: int) -> np.ndarray:
    side = built.transform.size
    return np.random.default_rng(1).integers(0, 256, (count, side, side, 3), np.uint8)


@pytest.mark.parametrize("kind", ["openvino", "onnx"])
def test_a_transformers_rows_are_pytorchs(kind: Settled, transformer: backbone.Backbone, tmp_path: Path) -> None:
    """In float32 to the last digits, at the default line and at the top; and however many photos are expected."""
    if kind == "openvino":
        pytest.importorskip("openvino", reason="OpenVINO has no wheel for this platform")
    network = freeze_line.taps(transformer.traced, [transformer.lines.find("30%"), transformer.layer_count])
    photos = noise(transformer, 6)
    engine = compiled(network, [transformer.example()], Runtime(kind), half=False, folder=tmp_path)
    rows = engine.run([photos])
    reference = compiled(network, [transformer.example()], Runtime("torch"), half=False, folder=tmp_path).run([photos])
    for a, b in zip(rows, reference, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= 1e-4 * np.abs(b).max()
    engine.expect(10**9)
    assert all(np.array_equal(a, b) for a, b in zip(rows, engine.run([photos]), strict=True))
    assert all(np.array_equal(a[:1], b) for a, b in zip(rows, engine.run([photos[:1]]), strict=True))


@pytest.mark.skipif(not multiplies_bfloat16(), reason="this processor has no instructions for bfloat16")
def test_a_transformer_in_half_precision_stays_near(transformer: backbone.Backbone, tmp_path: Path) -> None:
    network = freeze_line.taps(transformer.traced, [transformer.layer_count])
    half, whole = (
        compiled(network, [transformer.example()], Runtime("openvino"), half=h, folder=tmp_path).run(
            [noise(transformer, 8)]
        )[0]
        for h in (True, False)
    )
    assert 1e-4 < np.linalg.norm(half - whole) / np.linalg.norm(whole) < 0.1


@pytest.mark.parametrize("photos", [1, SEVERAL])
def test_openvino_computes_attention_in_one_step(photos: int, transformer: backbone.Backbone, tmp_path: Path) -> None:
    """Neither its products nor its softmax are steps of their own, for one photo and for several."""
    openvino = pytest.importorskip("openvino", reason="OpenVINO has no wheel for this platform")
    if not multiplies_bfloat16():
        pytest.skip("this processor has no instructions for bfloat16")
    network = freeze_line.taps(transformer.traced, [transformer.layer_count])
    with exported(network, [transformer.example()], tmp_path) as file:
        model = openvino.Core().read_model(file)
    model.reshape([photos, *transformer.example().shape[1:]])
    done = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"}).get_runtime_model()
    steps = [op.get_rt_info()["layerType"].astype(str) for op in done.get_ops()]
    assert not {"Softmax", "MatMul"} & set(steps)
    assert steps.count("Subgraph") >= 6  # attention of each of its blocks among them
