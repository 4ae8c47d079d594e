"""Engines under threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from frostline.compiling import exported

_RACE = """
import os, sys, threading
from pathlib import Path
import numpy as np
from frostline.engine import opened
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
    """Two threads in OpenVINO's first inference of a process waited for each other for ever, in four of ten processes."""
    if kind == "openvino":
        pytest.importorskip("openvino", reason="OpenVINO has no wheel for this platform")
    with exported(nn.Conv2d(3, 8, 3).eval(), [torch.zeros(1, 3, 8, 8)], tmp_path) as file:
        for _ in range(6):
            done = subprocess.run([sys.executable, "-c", _RACE, str(file), kind], timeout=60, check=False)
            assert done.returncode == 0
