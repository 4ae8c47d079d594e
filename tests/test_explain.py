"""Heat maps: of any network and line, at the place that decides; nothing of the model changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from frostline import backbone, bundle, explain, freeze, train
from frostline.config import Recipe
from frostline.errors import ConfigError


def parts_of(name: str, line: str, side: int = 64, classes: int = 3) -> bundle.Parts:
    """A network with random weights, cut and with a head, as a bundle holds it."""
    network = backbone.build(name, "random", image_size=side)
    cut = freeze.cut(network.traced, freeze.resolve(line, network.layer_count))
    head = train.make_head(network.features, classes, Recipe(hidden=16), 0)
    return bundle.Parts(network, cut, train.Above(bundle.detached(cut), head, learn_statistics=False))


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
    before = freeze.identity(whole)
    size = parts.backbone.transform.size
    photos = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    maps = explain.heat_maps(parts, photos, [0, 1, 2])
    assert maps.shape == (3, grid, grid)
    assert maps.dtype == np.float32
    assert set(maps.max((1, 2)).tolist()) <= {0.0, 1.0}
    assert maps.min() >= 0
    assert maps.any()
    assert freeze.identity(whole) == before
    assert all(p.grad is None for p in whole.parameters())
    np.testing.assert_allclose(explain.heat_maps(parts, photos[1:2], [1]), maps[1:2], atol=1e-3)  # any company


def test_maps_are_the_exact_parts_of_a_logit_where_the_head_is_linear() -> None:
    """With average pooling and a linear head the evidence of all places and the bias make up the logit: nothing is left over."""
    network = backbone.build("mobilenet_v2", "random", image_size=96)
    cut = freeze.cut(network.traced, network.layer_count)
    head = train.make_head(network.features, 3, Recipe(hidden=0), 0)
    parts = bundle.Parts(network, cut, train.Above(bundle.detached(cut), head, learn_statistics=False))
    photos = np.random.default_rng(1).integers(0, 256, (2, 96, 96, 3), np.uint8)
    with torch.no_grad():
        features = network.network(torch.from_numpy(photos))
        logits = (features @ head[1].weight.T).numpy()
    centred = logits - logits.mean(1, keepdims=True)
    signed = explain.signed_maps(parts, photos, np.array([[0, 1, 2]] * 2))
    np.testing.assert_allclose(signed.sum((2, 3)), centred, rtol=1e-3, atol=1e-6)


def test_mirror_images_count_as_the_bundle_says() -> None:
    parts = parts_of("small_cnn", "0")
    photos = np.random.default_rng(2).integers(0, 256, (2, 64, 64, 3), np.uint8)
    maps = explain.heat_maps(parts, photos, [0, 1], test_views=2)
    turned = explain.heat_maps(parts, photos[:, :, ::-1], [0, 1], test_views=2)
    np.testing.assert_allclose(turned[..., ::-1], maps, atol=1e-5)


def test_a_network_without_places_is_told() -> None:
    parts = parts_of("resnet18", "top", 32)  # its last map has one place
    assert explain.grids(parts)[0].side == 2  # so that the one before it is taken
    parts.backbone.traced.meta.clear()
    for node in parts.backbone.traced.graph.nodes:
        node.meta.pop("like", None)
    with pytest.raises(ConfigError, match="no heat map"):
        explain.heat_maps(parts, np.zeros((1, 32, 32, 3), np.uint8), [0])


def test_an_overlay_has_the_photos_shape_and_shows_where_it_is_hot() -> None:
    photo = np.full((90, 120, 3), 120, np.uint8)
    heat = np.zeros((3, 4), np.float32)
    heat[0, 3] = 1
    picture = explain.overlay(photo, heat)
    assert picture.size == (120, 90)
    assert picture.mode == "RGB"
    pixels = np.asarray(picture).astype(int)
    assert np.ptp(pixels[80, 5]) == 0  # grey
    assert np.ptp(pixels[5, 115]) > 60  # coloured
    same = explain.overlay(photo, (heat * 255).astype(np.uint8))
    assert np.array_equal(np.asarray(same), pixels)
