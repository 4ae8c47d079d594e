"""The whole way with the cheapest networks of the short list; benchmarks/every_network.py goes it with all of them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from support.commands import must

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CHEAPEST = (
    "mobilenetv4_conv_small",
    "mobilenet_v2",
    "hgnetv2_b0",
    "tf_efficientnet_lite0",
    "efficientnet_b0",
    "tf_efficientnetv2_b0",
)


@pytest.fixture
def every_network(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark's module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import every_network

    return every_network


def test_these_are_the_cheapest(every_network: ModuleType) -> None:
    from frostline.networks.short_list import NAMED

    cheapest = sorted(NAMED, key=lambda row: row.gmacs)[: len(CHEAPEST)]
    assert {row.name for row in cheapest} == set(CHEAPEST)
    assert set(CHEAPEST) <= set(every_network.NAMES)


@pytest.mark.parametrize("name", CHEAPEST)
def test_everything_works_with(name: str, every_network: ModuleType, tmp_path: Path) -> None:
    data = every_network.photos(tmp_path / "photos")
    found = every_network.walk(
        name, data, tmp_path, lambda *said: must(*said).out, 96, "--explain", "0", "--robustness", "0"
    )
    assert found.side == 96
