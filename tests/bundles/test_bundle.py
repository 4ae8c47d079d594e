"""Bundles: the same logits after the way over the disk, one line for whatever is wrong, nothing executed."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frostline.bundles import about, bundle
from frostline.bundles.bundle import Bundle, Parts
from frostline.errors import BundleError
from frostline.networks import backbone, freeze_line
from frostline.networks.compilation import Runtime
from frostline.networks.trainable import Above, make_head
from frostline.recipes import Recipe, Strategy, resolve

CLASSES = ["daisy", "rose", "tulipán"]
FIGURES = {
    "reported_on": "test", "photos": 3, "rendered": False, "refit": False, "accuracy": 0.9, "accuracy_ci": [0.4, 1.0],
    "balanced_accuracy": 0.9, "balanced_accuracy_ci": [0.4, 1.0], "macro_f1": 0.9, "log_loss": 0.3, "ece_shipped": 0.1,
}  # fmt: skip


def photos(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


@cache
def made(name: str, line: str, weights: Any, hidden: int) -> Bundle:
    """A model whose upper layers are no longer those that it started with."""
    built = backbone.build(name, "random", seed=5, image_size=64, resize="crop")
    cut = freeze_line.cut(built.traced, resolve(line, built.layer_count))
    head = make_head(built.features, len(CLASSES), Recipe(hidden=hidden), 0)
    above = Above(bundle.detached(cut), head, learn_statistics=weights == "random")
    with torch.no_grad():
        rng = torch.Generator().manual_seed(1)
        for value in above.suffix.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.rand(value.shape, generator=rng) / 50)
    above.to(memory_format=torch.channels_last)  # as training leaves it
    strategy = Strategy("mine", name, weights, line, recipe=Recipe(hidden=hidden))
    about = bundle.describe(
        strategy, built, cut, CLASSES, stored_as="float16", temperature=1.7, figures=FIGURES
    )  # fmt: skip
    return bundle.assembled(about, Parts(built, cut, above), Runtime())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = made("test_resnet", "top-6", "pretrained", 8)
    bundle.save(tmp_path / "bundle", model.about, model.parts, "# card\n")
    return tmp_path / "bundle"


@pytest.mark.parametrize(
    ("name", "line", "weights", "hidden"),
    [
        ("mobilenet_v2", "top-6", "pretrained", 16),
        ("test_resnet", "top", "pretrained", 0),
        ("test_resnet", "top-6", "pretrained", 8),
        ("small_cnn", "0", "random", 16),
    ],
)
def test_the_same_logits_after_the_way_over_the_disk(
    tmp_path: Path, name: str, line: str, weights: str, hidden: int
) -> None:
    model = made(name, line, weights, hidden)
    bundle.save(tmp_path / "b", model.about, model.parts, "# card\n")
    loaded = bundle.load(tmp_path / "b")
    batch = photos(5)
    expected = model.logits(batch)
    assert expected.shape == (5, 3)
    assert expected.std() > 0
    assert np.array_equal(loaded.logits(batch), expected)
    assert np.array_equal(loaded.logits(batch[:1]), expected[:1])  # alone or among others
    assert np.array_equal(bundle.load(str(tmp_path / "b")).logits(batch[4:]), expected[4:])
    assert loaded.about == model.about
    assert loaded.transform == model.transform
    assert loaded.classes == CLASSES
    scaled = torch.softmax(torch.from_numpy(expected).double() / 1.7, 1).numpy()
    assert np.allclose(loaded.probabilities(batch), scaled, rtol=1e-12, atol=0)
    started = backbone.build(name, "random", seed=5, image_size=64).network.state_dict()
    now = loaded.parts.backbone.network.state_dict()
    assert (line == "top") is all(torch.equal(now[k], started[k]) for k in now)


def test_a_bundle_is_three_files_and_replaces_an_older_one(saved: Path) -> None:
    assert sorted(f.name for f in saved.iterdir()) == ["README.md", "bundle.json", "model.safetensors"]
    (saved / "left.over").touch()
    model = made("test_resnet", "top", "pretrained", 0)
    bundle.save(saved, model.about, model.parts, "# card\n")
    assert sorted(f.name for f in saved.iterdir()) == ["README.md", "bundle.json", "model.safetensors"]
    assert [f.name for f in saved.parent.iterdir()] == ["bundle"]
    document = json.loads((saved / "bundle.json").read_text(encoding="utf-8"))
    assert (document["line"], document["layers"], document["classes"]) == (57, 57, CLASSES)


def test_the_head_can_be_taken_on(saved: Path) -> None:
    model = made("test_resnet", "top-6", "pretrained", 8)
    head = bundle.head_of(saved)
    assert head.keys() == model.parts.above.head.state_dict().keys()
    assert all(torch.equal(v, head[k]) for k, v in model.parts.above.head.state_dict().items())


def refused(folder: Path) -> str:
    with pytest.raises(BundleError) as error:
        bundle.load(folder)
    text = str(error.value)
    assert "\n" not in text
    assert str(folder) in text
    return text


def test_what_is_no_bundle(saved: Path, tmp_path: Path) -> None:
    assert "is not a bundle: expected a folder with bundle.json" in refused(tmp_path / "nowhere")
    assert f"did you mean {saved}?" in refused(tmp_path)
    assert "is not a bundle" in refused(saved / "model.safetensors")
    (saved / "model.safetensors").unlink()
    assert "model.safetensors is missing: copy the whole bundle folder" in refused(saved)


def edited(folder: Path, **changes: Any) -> Path:
    file = folder / "bundle.json"
    document = {**json.loads(file.read_text(encoding="utf-8")), **changes}
    file.write_text(json.dumps({k: v for k, v in document.items() if v != "remove"}), encoding="utf-8")
    return folder


def with_model(folder: Path, content: bytes) -> Path:
    """Replace the tensors, and name their hash as the right one."""
    (folder / "model.safetensors").write_bytes(content)
    return edited(folder, sha256=hashlib.sha256(content).hexdigest())


def test_later_schema_is_told(saved: Path) -> None:
    text = refused(edited(saved, schema=about.SCHEMA + 1))
    assert f"has schema {about.SCHEMA + 1}, this frostline reads up to {about.SCHEMA}: pip install --upgrade" in text


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1, 2]", b"null", b"\xff\xfe", b'{"schema": "two"}', b'{"schema": 1}']
)
def test_a_damaged_description_is_told(saved: Path, content: bytes) -> None:
    (saved / "bundle.json").write_bytes(content)
    message = refused(saved)
    assert "bundle.json" in message and message.endswith("copy the bundle again")


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": "remove"},
        {"surplus": 1},
        {"backbone": "no_such_network"},
        {"backbone": ["resnet18"]},
        {"backbone": "small_cnn"},
        {"transform": {"size": 64}},
        {"transform": 5},
        {"hidden": 9},
        {"hidden": "wide"},
        {"classes": ["daisy", "rose"]},
        {"classes": 5},
        {"line": 999},
        {"line": "top"},
        {"temperature": 0},
        {"stored_as": "float12"},
    ],
)
def test_a_description_that_does_not_fit_is_told(saved: Path, changes: dict[str, Any]) -> None:
    refused(edited(saved, **changes))


def test_damaged_tensors_are_told(saved: Path) -> None:
    file = saved / "model.safetensors"
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert "is damaged (its SHA-256 is not the one in bundle.json): copy the bundle again" in refused(saved)
    assert "can't be loaded" in refused(with_model(saved, good[: len(good) // 2]))
    bundle.load(with_model(saved, good))


def test_a_pickle_is_refused_unread(saved: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"backbone.body": Evil()}, tmp_path / "evil.pt")
    for content in (pickle.dumps(Evil()), (tmp_path / "evil.pt").read_bytes()):
        assert "can't be loaded" in refused(with_model(saved, content))
    assert not (tmp_path / "executed").exists()


def test_a_bundle_can_be_moved(saved: Path, tmp_path: Path) -> None:
    shutil.move(saved, tmp_path / "elsewhere ü")
    loaded = bundle.load(tmp_path / "elsewhere ü")
    assert np.array_equal(loaded.logits(photos(2)), made("test_resnet", "top-6", "pretrained", 8).logits(photos(2)))
