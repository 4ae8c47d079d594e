"""Engines under threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from frostline.networks.compilation import exported
from frostline.networks.engine import Settled, opened

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
