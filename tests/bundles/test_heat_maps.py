"""Heat maps: of any network and line, at the place that decides; nothing of the model changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from frostline.bundles import bundle, heat_maps
from frostline.errors import ConfigError
from frostline.networks import backbone, freeze_line, trainable
from frostline.recipes import Recipe, resolve
from support.commands import SMALL, call, must


def parts_of(name: str, line: str, side: int = 64, classes: int = 3) -> bundle.Parts:
    """A network with random weights, cut and with a head, as a bundle holds it."""
    network = backbone.build(name, "random", image_size=side)
    cut = freeze_line.cut(network.traced, resolve(line, network.layer_count))
    head = trainable.make_head(network.features, classes, Recipe(hidden=16), 0)
    return bundle.Parts(network, cut, trainable.Above(bundle.detached(cut), head, learn_statistics=False))


@pytest.mark.parametrize(
    ("name", "line", "side", "grid"),
    [
        ("small_cnn", "0", 64, 6),
        ("mobilenet_v2", "top", 96, 3),
        ("mobilenet_v2", "top-6", 96, 3),
        ("mobilenet_v2", "0", 96, 3),
        ("resnet18", "top-3", 64, 2),
        ("mobilenetv3_small_050", "top-4", 64, 2),  # a convolution above its pooling
        ("mobilenet_v2+resnet18", "top-4", 64, 2),
        ("mixer_s32_224", "top", 0, 7),  # tokens in place of a grid
    ],
)
def test_any_network_and_line_gives_maps_and_stays_as_it_was(name: str, line: str, side: int, grid: int) -> None:
    parts = parts_of(name, line, side)
    whole = torch.nn.ModuleList([parts.backbone.network, parts.above])
    before = freeze_line.identity(whole)
    size = parts.backbone.transform.size
    photos = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    maps = heat_maps.heat_maps(parts, photos, [0, 1, 2])
    assert maps.shape == (3, grid, grid)
    assert maps.dtype == np.float32
    assert set(maps.max((1, 2)).tolist()) <= {0.0, 1.0}
    assert maps.min() >= 0
    assert maps.any()
    assert freeze_line.identity(whole) == before
    assert all(p.grad is None for p in whole.parameters())
    np.testing.assert_allclose(heat_maps.heat_maps(parts, photos[1:2], [1]), maps[1:2], atol=1e-3)  # any company


def test_maps_are_the_exact_parts_of_a_logit_where_the_head_is_linear() -> None:
    """With average pooling and a linear head the evidence of all places and the bias make up the logit: nothing is
    left over."""
    network = backbone.build("mobilenet_v2", "random", image_size=96)
    cut = freeze_line.cut(network.traced, network.layer_count)
    head = trainable.make_head(network.features, 3, Recipe(hidden=0), 0)
    parts = bundle.Parts(network, cut, trainable.Above(bundle.detached(cut), head, learn_statistics=False))
    photos = np.random.default_rng(1).integers(0, 256, (2, 96, 96, 3), np.uint8)
    with torch.no_grad():
        features = network.network(torch.from_numpy(photos))
        logits = (features @ head[1].weight.T).numpy()
    centred = logits - logits.mean(1, keepdims=True)
    signed = heat_maps.signed_maps(parts, photos, np.array([[0, 1, 2]] * 2))
    np.testing.assert_allclose(signed.sum((2, 3)), centred, rtol=1e-3, atol=1e-6)


def test_mirror_images_count_as_the_bundle_says() -> None:
    parts = parts_of("small_cnn", "0")
    photos = np.random.default_rng(2).integers(0, 256, (2, 64, 64, 3), np.uint8)
    maps = heat_maps.heat_maps(parts, photos, [0, 1], test_views=2)
    turned = heat_maps.heat_maps(parts, photos[:, :, ::-1], [0, 1], test_views=2)
    np.testing.assert_allclose(turned[..., ::-1], maps, atol=1e-5)


def test_a_network_without_places_is_told() -> None:
    parts = parts_of("resnet18", "top", 32)  # its last map has one place
    assert heat_maps.grids(parts)[0].side == 2  # so that the one before it is taken
    parts.backbone.traced.meta.clear()
    for node in parts.backbone.traced.graph.nodes:
        node.meta.pop("like", None)
    with pytest.raises(ConfigError, match="no heat map"):
        heat_maps.heat_maps(parts, np.zeros((1, 32, 32, 3), np.uint8), [0])


def test_an_overlay_has_the_photos_shape_and_shows_where_it_is_hot() -> None:
    photo = np.full((90, 120, 3), 120, np.uint8)
    heat = np.zeros((3, 4), np.float32)
    heat[0, 3] = 1
    picture = heat_maps.overlay(photo, heat)
    assert picture.size == (120, 90)
    assert picture.mode == "RGB"
    pixels = np.asarray(picture).astype(int)
    assert np.ptp(pixels[80, 5]) == 0  # grey
    assert np.ptp(pixels[5, 115]) > 60  # coloured
    same = heat_maps.overlay(photo, (heat * 255).astype(np.uint8))
    assert np.array_equal(np.asarray(same), pixels)


def blobs(root: Path, each: int = 60) -> Path:
    """Photos whose class is the colour of a blob in an otherwise grey picture; their names tell where it is."""
    for kind, colour in (("blue", (30, 60, 230)), ("red", (230, 40, 30))):
        (root / kind).mkdir(parents=True)
        for number in range(each):
            rng = np.random.default_rng((len(kind), number))
            grey = rng.normal(128, 12, (64, 64, 1)).clip(0, 255) * np.ones(3)
            row, column = rng.integers(0, 44, 2)
            grey[row : row + 20, column : column + 20] = colour
            name = f"{number}-{row}-{column}.png"
            Image.fromarray(grey.astype(np.uint8)).save(root / kind / name)
    return root


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network from scratch that learns to tell the blobs apart."""
    base = tmp_path_factory.mktemp("explain")
    blobs(base / "data")
    options = ("--strategies", "baseline", "--protocol", "tutorial", "--epochs", 15, "--explain", 16, *SMALL)
    must("study", base / "data", "--out", base / "run", *options, "--quiet")
    return base


def test_a_study_leaves_maps_that_point_at_what_decides_and_says_what_they_are_worth(seen: Path) -> None:
    found = json.loads((seen / "run" / "baseline" / "explanations.json").read_text(encoding="utf-8"))
    assert found["method"] == "HiResCAM"
    assert found["layer"] == "body.8"
    assert 4 <= len(found["photos"]) <= 16
    hits = []
    for entry in found["photos"]:
        heat = np.array(entry["maps"]["predicted"])
        assert heat.shape == (6, 6) == np.array(entry["maps"]["true"]).shape
        assert heat.max() == 255 or not heat.any()
        row, column = map(int, Path(entry["path"]).stem.split("-")[1:])
        hottest = np.unravel_index(heat.argmax(), heat.shape)
        place = [(index + 0.5) * 64 / 6 for index in hottest]
        hits.append(row - 8 <= place[0] <= row + 28 and column - 8 <= place[1] <= column + 28)
    assert np.mean(hits) >= 0.8
    worth = found["faithfulness"]
    assert worth["photos"] == 16
    assert worth["insertion"] >= worth["random_insertion"]
    assert worth["deletion"] < worth["random_deletion"]
    low, high = worth["ci"]["insertion"]
    assert low <= worth["better_than_random"]["insertion"] <= high


def test_a_network_that_can_not_be_explained_costs_no_study(seen: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(seen / "run", run)
    document = json.loads((run / "study.json").read_text(encoding="utf-8"))
    left = run / "baseline" / "explanations.json"
    wanted = left.read_bytes()
    left.unlink()
    must("study", "--out", run, "--resume", "--quiet")
    assert left.read_bytes() == wanted
    left.unlink()
    (run / "baseline" / "bundle" / "model.safetensors").write_bytes(b"")
    must("study", "--out", run, "--resume", "--quiet")
    failed = json.loads(left.read_text(encoding="utf-8"))
    assert failed["photos"] == []
    assert "SHA-256" in failed["failure"]
    assert json.loads((run / "study.json").read_text(encoding="utf-8"))["strategies"] == document["strategies"]


def test_photos_are_explained_by_pictures_and_numbers(seen: Path, tmp_path: Path) -> None:
    bundle_folder = seen / "run" / "baseline" / "bundle"
    chosen = sorted((seen / "data" / "red").iterdir())[:2]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    said = must("explain", bundle_folder, *chosen, broken, "--out", tmp_path / "out", "--json")
    found = json.loads(said.out)
    assert found == json.loads((tmp_path / "out" / "explanations.json").read_text(encoding="utf-8"))
    assert [skip["path"] for skip in found["skipped"]] == [str(broken)]
    assert f"skipped {broken}: not a photo (unknown format)" in said.err
    assert [(p["path"], p["true"]) for p in found["photos"]] == [(str(path), "red") for path in chosen]
    for entry in found["photos"]:
        assert set(entry["maps"]) == {"predicted", "true"} if entry["predicted"] != "red" else {"predicted"}
        assert len(entry["pictures"]) == len(entry["maps"])
        for name in entry["pictures"]:
            with Image.open(tmp_path / "out" / name) as picture:
                assert (picture.format, picture.size) == ("PNG", (64, 64))
    asked = json.loads(
        must("explain", bundle_folder, chosen[0], "--out", tmp_path / "o", "--class", "blue", "--json").out
    )
    assert list(asked["photos"][0]["maps"]) == ["asked"]
    options = (bundle_folder, chosen[0], "--out", tmp_path / "o", "--class")
    assert "did you mean 'blue'" in call("explain", *options, "blu").error
    assert "no photo was explained" in call("explain", bundle_folder, broken, "--out", tmp_path / "o").error
    assert "1-" in must("explain", bundle_folder, chosen[0], "--out", tmp_path / "o").out
