"""A bundle that was trained on any device: it is read on the processor, and is the same model on its run's device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from frostline.bundles import bundle, heat_maps
from frostline.bundles.bundle import Parts
from frostline.errors import BundleError
from frostline.networks import backbone, freeze_line
from frostline.networks.compilation import Runtime
from frostline.networks.trainable import Above, make_head
from frostline.recipes import Recipe, Strategy
from support.devices import each_device

CLASSES = ["a", "b", "c"]
FIGURES = {
    "reported_on": "test", "photos": 3, "rendered": False, "refit": False, "accuracy": 0.9, "accuracy_ci": [0.4, 1.0],
    "balanced_accuracy": 0.9, "balanced_accuracy_ci": [0.4, 1.0], "macro_f1": 0.9, "log_loss": 0.3, "ece_shipped": 0.1,
}  # fmt: skip
PHOTOS = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


def parts() -> Parts:
    built = backbone.build("test_resnet", "random", seed=5, image_size=64)
    cut = freeze_line.cut(built.traced, built.layer_count - 6)
    head = make_head(built.features, len(CLASSES), Recipe(hidden=8), 0)
    return Parts(built, cut, Above(bundle.detached(cut), head, learn_statistics=False))


@each_device
def test_what_was_trained_on_a_device_predicts_on_the_processor(tmp_path: Path, device: torch.device) -> None:
    trained = parts()
    trained.above.to(device).to(memory_format=torch.channels_last)  # where training leaves it
    about = bundle.describe(
        Strategy("mine", "test_resnet", "random", "top-6", recipe=Recipe(hidden=8)), trained.backbone, trained.cut,
        CLASSES, stored_as="float16", temperature=1.0, figures=FIGURES,
    )  # fmt: skip
    there = bundle.assembled(about, trained, Runtime("torch", device)).outputs(PHOTOS)
    bundle.save(tmp_path / "bundle", about, trained, "# card\n")
    there_again = bundle.of_run(tmp_path / "bundle", trained.backbone, Runtime("torch", device)).outputs(PHOTOS)
    assert np.array_equal(there.logits, there_again.logits)
    here = bundle.load(tmp_path / "bundle", "onnx").outputs(PHOTOS)
    assert np.abs(here.logits - there.logits).max() <= 0.05 * np.abs(here.logits).max()
    assert all(t.device.type == "cpu" for t in bundle.head_of(tmp_path / "bundle").values())


def test_a_run_s_own_bundle_is_held_against_its_digest(tmp_path: Path) -> None:
    model = parts()
    about = bundle.describe(
        Strategy("mine", "test_resnet", "random", "top-6", recipe=Recipe(hidden=8)), model.backbone, model.cut, CLASSES,
        stored_as="float16", temperature=1.0, figures=FIGURES,
    )  # fmt: skip
    bundle.save(tmp_path / "bundle", about, model, "# card\n")
    (tmp_path / "bundle" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(BundleError, match="is damaged"):
        bundle.of_run(tmp_path / "bundle", model.backbone, Runtime("torch"))


@each_device
def test_heat_maps_on_a_device_are_those_of_the_processor(device: torch.device) -> None:
    model = parts()
    there = model.on(device)
    classes = np.array([[0, 1]] * len(PHOTOS))
    np.testing.assert_allclose(
        heat_maps.evidence(there, PHOTOS, classes), heat_maps.evidence(model, PHOTOS, classes), atol=0.01
    )
    assert {p.device.type for p in model.backbone.network.parameters()} == {"cpu"}
    assert {p.device.type for p in there.cut.prefix.parameters()} == {device.type}
