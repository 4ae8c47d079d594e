"""The devices of this machine, for tests that hold on each of them."""

from __future__ import annotations

import pytest

from frostline.networks import devices

each_device = pytest.mark.parametrize(
    "device", [pytest.param(d, id=d.type, marks=pytest.mark.device) for d in devices.present()]
)
"""A test's `device`: the processor, and every accelerator that PyTorch sees."""
