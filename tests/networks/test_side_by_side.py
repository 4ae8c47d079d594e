"""Backbones side by side: the features of each, the layers in turns, and a study that trains on them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from frostline.errors import ConfigError
from frostline.networks import backbone as backbones
from frostline.networks import freeze_line
from frostline.recipes import resolve
from support.commands import must
from support.photos import write_folder

NAME = "resnet10t+mobilenetv3_small_050"


def test_features_stand_one_behind_the_other() -> None:
    photos = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    joint = backbones.build(NAME, "random", image_size=64)
    alone = [backbones.build(name, "random", image_size=64) for name in NAME.split("+")]
    with torch.no_grad():
        got = joint.network(photos)
        expected = torch.cat([one.network(photos) for one in alone], 1)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert joint.layer_count == sum(one.layer_count for one in alone)


def test_the_line_counts_the_networks_in_turns_from_the_top() -> None:
    joint = backbones.build(NAME, "random", image_size=64)
    upper = freeze_line.layers(joint.traced)[-12:]
    assert [sum(f"parts.{k}." in name for name in upper) for k in (0, 1)] == [6, 6]


@pytest.mark.parametrize("line", ["0", "40", "top-12", "top-1", "top"])
def test_prefix_and_suffix_compute_the_whole(line: str) -> None:
    joint = backbones.build(NAME, "random", image_size=64)
    photos = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    cut = freeze_line.cut(joint.traced, resolve(line, joint.layer_count))
    with torch.no_grad():
        live = cut.prefix(photos) if cut.line else (photos,)
        assert torch.equal(cut.suffix(*live), joint.network(photos))


def test_a_network_of_a_fixed_size_stands_alone() -> None:
    with pytest.raises(ConfigError, match="photos of any size"):
        backbones.info("mobilenet_v2+vit_tiny_patch16_224")
    with pytest.raises(ConfigError, match="photos of any size"):
        backbones.info("mobilenet_v2+small_cnn")


def test_a_bundle_of_two_networks_gives_its_run_s_predictions(tmp_path: Path) -> None:
    data, out = write_folder(tmp_path / "data", ("one", "two"), each=10), tmp_path / "run"
    options = ("--backbone", NAME, "--strategy", "scratch", "--image-size", 64, "--protocol", "tutorial", "--epochs", 1)
    must("fit", data, *options, "--out", out, "--quiet")
    must("predict", out / "scratch" / "bundle", data, "--out", tmp_path / "again.csv", "--quiet")
    said = _rows(out / "scratch" / "predictions.csv")
    again = {Path(path).name: rest for path, rest in _rows(tmp_path / "again.csv").items()}
    assert said
    assert {name: again[Path(name).name] for name in said} == said


def _rows(file: Path) -> dict[str, list[str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return {path: rest for path, _true, *rest in list(csv.reader(lines))[1:]}
