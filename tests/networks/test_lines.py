"""What a line means: the same in every network."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from frostline.errors import ConfigError
from frostline.networks import backbone, freeze_line
from frostline.networks.backbone import Scaled
from frostline.networks.lines import Lines
from frostline.networks.side_by_side import in_turns
from frostline.recipes import TOGETHER, strategy
from support.commands import call, must
from support.photos import write_folder

NETWORKS = (
    "mobilenet_v2", "tf_efficientnet_lite0", "regnety_004", "vit_tiny_patch16_224", "convnext_atto",
    "swin_tiny_patch4_window7_224", "fastvit_mci0", "mobilenetv4_conv_small", "hgnetv2_b0", "efficientnet_b0",
    "tf_efficientnetv2_b0", "tiny_vit_5m_224", "convnext_tiny", "vit_small_patch14_dinov2", "vit_small_patch16_dinov3",
    "resnet18", "densenet121",
)  # fmt: skip


@cache
def lines_of(name: str) -> Lines:
    """The lines of a network without weights: its shapes alone."""
    about = backbone.info(name)
    with torch.device("meta"):
        network = Scaled(backbone.architecture(about, 224), about.transform(224, "squash"))
        traced = freeze_line.trace(network, torch.zeros(2, 224, 224, 3, dtype=torch.uint8))
    return Lines(name, in_turns(traced), network.body)


# ---- the presets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "above"),
    [
        ({"preset": "fast"}, 6),
        ({"preset": "balanced"}, 6),
        ({"preset": "best"}, 27),
        ({"protocol": "tutorial"}, 6),
        ({"preset": "balanced", "backbone": TOGETHER}, 12),
        ({"preset": "best", "backbone": TOGETHER}, 54),
        ({"protocol": "tutorial", "backbone": TOGETHER}, 12),
    ],
)
def test_mobilenet_v2_keeps_the_lines_that_its_figures_are_of(options: dict[str, Any], above: int) -> None:
    row = strategy("fine-tuned", **options)
    lines = lines_of(row.backbone)
    assert lines.top - lines.place(row) == above


@pytest.mark.parametrize("name", NETWORKS)
def test_the_default_line_trains_a_good_part_of_any_network(name: str) -> None:
    lines = lines_of(name)
    place = lines.place(strategy("fine-tuned", backbone=name))
    assert 0.1 <= lines.share(place) <= 0.6
    assert 0.6 <= lines.share(lines.place(strategy("fine-tuned", backbone=name, preset="best"))) <= 0.85
    assert lines.share(0) == 1
    assert lines.share(lines.top) == 0
    found = lines.unfrozen(strategy("fine-tuned", backbone=name), 10)
    assert found["blocks"][-1] == lines.blocks[-1].name
    assert found["backbone"] == lines.above(place)
    assert lines.frozen(place)[1] == len(lines.counted) < lines.top


@pytest.mark.parametrize(
    ("name", "at_the_top", "at_the_default_line"),
    [  # in float16, two bytes a number
        ("mobilenet_v2", 2 * 1280, 2 * 960 * 7 * 7),
        ("mobilenetv4_conv_small", 2 * 1280, 2 * 960),
        ("vit_tiny_patch16_224", 2 * 192, 2 * 197 * 192),  # a class token and 14 x 14 patches
        ("vit_small_patch14_dinov2", 2 * 384, 2 * 257 * 384),
        ("vit_small_patch16_dinov3", 2 * 384, 2 * 201 * 384),  # four registers too
        ("vit_medium_patch16_gap_240", 2 * 512, 2 * 196 * 512),  # the mean of all tokens
        ("deit_tiny_distilled_patch16_224", 2 * 192, 2 * 198 * 192),  # the mean of two tokens
        ("swin_tiny_patch4_window7_224", 2 * 768, None),
        ("tiny_vit_5m_224", 2 * 320, 2 * 320 * 7 * 7),
        ("convnext_tiny", 2 * 768, 2 * 768 * 7 * 7),
        ("fastvit_mci0", 2 * 1024, None),
    ],
)
def test_a_photo_costs_one_vector_at_the_top_and_all_tokens_below(
    name: str, at_the_top: int, at_the_default_line: int | None
) -> None:
    """What selects a token or takes the mean of all has no parameters, and belongs to the frozen part."""
    lines = lines_of(name)
    assert 2 * lines.width(lines.find("top")) == at_the_top
    if at_the_default_line is not None:
        assert 2 * lines.width(lines.find("30%")) == at_the_default_line


WITH_WEIGHTS = (
    "regnety_004",
    "vit_tiny_patch16_224",
    "fastvit_mci0",
    "hgnetv2_b0",
)


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_both_sides_of_the_default_line_are_the_whole_network(name: str) -> None:
    """Bit for bit; and all that is counted above the line, and nothing else, is trained."""
    built = backbone.build(name, "random", image_size=64)
    batch = torch.randint(256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = built.network(batch)
        for place in (built.lines.find("30%"), built.lines.edges[0].start):
            parts = freeze_line.cut(built.traced, place)
            live = parts.prefix(batch)
            assert torch.equal(parts.suffix(*live), whole)
            assert all(t.shape[0] == 2 for t in live)
            assert freeze_line.parameter_count(parts.suffix) == built.lines.above(place)


# ---- the three ways --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "line", "first"),
    [
        ("mobilenet_v2", "0", "body.features.0.0"),
        ("mobilenet_v2", "2", "body.features.0.2"),  # above a convolution and its norm; the ReLU6 has no parameters
        ("mobilenet_v2", "top-4", "body.features.17.conv.1.2"),  # the tutorial's line
        ("mobilenet_v2", "top-104", "body.features.0.0"),
        ("mobilenet_v2", "features.17", "body.features.17.conv.0.0"),
        ("mobilenet_v2", "body.features.17.conv.2", "body.features.17.conv.2"),
        ("mobilenet_v2", "100%", "body.features.0.0"),
        ("mobilenet_v2", " 39.5 % ", "body.features.17.conv.0.0"),
        ("resnet18", "2", "body.layer1.0.conv1"),  # the pooling below it leaves fewer numbers to store
        ("resnet18", "layer4", "body.layer4.0.conv1"),
        ("vit_tiny_patch16_224", "blocks.9", "body.blocks.9.norm1"),
        ("vit_tiny_patch16_224", "30%", "body.blocks.8.norm1"),  # a block's edge
        ("hgnetv2_b0", "30%", "body.head.last_conv.0"),  # not below the pooling, where a block begins
        (TOGETHER, "mobilenet_v2.features.15", "body.parts.0.body.features.15.conv.0.0"),
        (TOGETHER, "blocks.5.2", "body.parts.1.body.blocks.5.2.conv_pw"),
    ],
)
def test_a_line_is_a_number_a_block_or_a_share(name: str, line: str, first: str) -> None:
    lines = lines_of(name)
    assert lines.layers[lines.find(line)] == first


@pytest.mark.parametrize("line", ["top", "top-0", "104", "0%", "TOP"])
def test_the_top_has_several_names(line: str) -> None:
    assert lines_of("mobilenet_v2").find(line) == 139


def test_the_tutorials_count_is_that_of_all_layers() -> None:
    lines = lines_of("mobilenet_v2")
    tutorial = strategy("fine-tuned", protocol="tutorial", line="100")
    assert (lines.place(tutorial), lines.frozen(100, count_all=True)) == (100, (100, 139))
    assert lines.find("100") == lines.find("top-4") == 133


@pytest.mark.parametrize(
    ("name", "line", "told"),
    [
        ("mobilenet_v2", "features.71", "mobilenet_v2 has no layer or block of that name; did you mean 'features.7'?"),
        ("mobilenet_v2", "stages.2", "its blocks: features.0, features.1, ..., features.17, features.18"),
        ("mobilenet_v2", "105", "the network has 104 layers with parameters, so expected 0 to 104"),
        ("vit_tiny_patch16_224", "top-75", "the network has 74 layers with parameters"),
    ],
)
def test_a_line_that_a_network_has_not_is_told_with_those_that_it_has(name: str, line: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        lines_of(name).find(line)
    assert told in str(error.value)
    assert f"'{line}'" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_line_within_windows_is_refused() -> None:
    """There a row of a tensor is a window, not a photo."""
    lines = lines_of("swin_tiny_patch4_window7_224")
    inside = next(p for p, name in enumerate(lines.layers) if "layers.2.blocks.4.attn.proj" in name)
    with pytest.raises(ConfigError, match="photos can't be kept apart at this freeze line"):
        freeze_line.boundary(lines._traced, inside)


def test_nothing_is_stored_for_its_size_alone() -> None:
    """DINOv3's position encoding needs the height and width of the patches, which are the same for all photos."""
    lines = lines_of("vit_small_patch16_dinov3")
    assert freeze_line.boundary(lines._traced, lines.find("blocks.9")) == ((201, 384),)


@pytest.mark.parametrize("name", NETWORKS)
def test_all_that_is_stored_is_computed_with(name: str) -> None:
    """A tensor that is read for its size is left out of an exported network, which then takes fewer inputs."""
    lines = lines_of(name)
    for place in (lines.place(strategy("fine-tuned", backbone=name)), *(edge.start for edge in lines.edges[-6:])):
        inputs = [n for n in freeze_line.cut(lines._traced, place).suffix.graph.nodes if n.op == "placeholder"]
        assert inputs
        assert all(any("shape" not in user.args for user in n.users) for n in inputs)


# ---- hardly anything above the line ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(photos, random weights of a small transformer)."""
    import timm

    folder = tmp_path_factory.mktemp("tiny")
    write_folder(folder / "photos", ["rose", "tulip"], 12)
    save_file(timm.create_model("test_vit", pretrained=False, num_classes=0).state_dict(), folder / "w.safetensors")
    return folder / "photos", folder / "w.safetensors"


def said_of(tiny: tuple[Path, Path], out: Path) -> tuple[Any, ...]:
    data, file = tiny
    return ("study", data, "--out", out, "--backbone", "test_vit", "--weights", file, "--strategies", "fine-tuned",
            "--epochs", "1", "--protocol", "tutorial", "--engine", "torch")  # fmt: skip


def test_a_default_line_that_trains_hardly_anything_is_refused(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    refused = call(*said_of(tiny, tmp_path / "run"))
    assert refused.code == 1
    assert "128 of the 306,240 parameters of test_vit are above line 'top-6'" in refused.error
    assert "expected 1 % or more: name a line, --line 30%" in refused.error
    assert not (tmp_path / "run").exists()


def test_such_a_line_stands_where_it_was_asked_for(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    run = must(*said_of(tiny, tmp_path / "run"), "--line", "top-6")
    assert "hardly more is trained than by the frozen strategy" in " ".join(run.err.split())
