"""A whole study on a device: the processor with the number formats of an accelerator, and each accelerator there is."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from frostline.bundles import bundle
from frostline.bundles.predict import predict
from frostline.documents import Study, read
from frostline.networks.compilation import Runtime
from frostline.photos import sample
from frostline.photos.manifest import Skip
from frostline.stats.predictions import read_predictions
from frostline.training import prepare
from support.commands import SMALL, call, must
from support.devices import each_device

pytestmark = pytest.mark.filterwarnings("default:.*deterministic")  # PyTorch tells of kernels that are not


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name in ("rose", "tulip"):
        (folder / name).mkdir()
        for number in range(12):
            sample.photo(name, number, seed=0).save(folder / name / f"{number}.jpg", quality=90)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), file)
    return file


@each_device
def test_a_study_on_a_device_ends_in_a_bundle_for_the_processor(
    data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    """On the processor its frozen layers run in bfloat16 and the training in float16, as an accelerator does it.

    Some seconds: what is held is that every part of a study finds its tensors on the right device.
    """
    formats = [] if device.type != "cpu" else ["--engine", "torch", "--precision", "float16"]
    if device.type == "cpu":
        monkeypatch.setattr(prepare, "Runtime", partial(Runtime, numbers="bfloat16"))
    must(
        "study", data, "--out", tmp_path / "run", "--device", device.type, *formats,
        "--strategies", "frozen,fine-tuned", "--backbone", "test_resnet", "--weights", weights,
        "--preset", "fast", "--epochs", 2, "--explain", 2, "--robustness", 2, *SMALL,
    )  # fmt: skip
    study = read(tmp_path / "run", Study)
    machine = study["machine"]
    assert (machine["device"], machine["deterministic"]) == (device.type, device.type != "mps")
    assert ("device_name" in machine) is (device.type != "cpu")
    for row in study["strategies"]:
        folder = tmp_path / "run" / row["name"]
        assert row["robustness"]["photos"] == 2
        assert "failure" not in (folder / "explanations.json").read_text()
        there = {p.path: p.confidence for p in read_predictions(folder / "predictions.csv")}
        model = bundle.load(folder / "bundle")
        told = [p for p in predict(model, [str(data / path) for path in there]) if not isinstance(p, Skip)]
        here = {str(Path(p.path).relative_to(data)): p.confidence for p in told}
        assert here.keys() == there.keys()
        np.testing.assert_allclose([here[path] for path in there], list(there.values()), atol=0.02)


def test_a_study_on_a_device_that_is_not_there_is_told(data: Path, tmp_path: Path) -> None:
    if torch.backends.mps.is_available():
        pytest.skip("it is there")
    error = call("study", data, "--out", tmp_path / "run", "--device", "mps").error
    assert error == "error: device 'mps': PyTorch sees none here; use --device cpu"
    assert not (tmp_path / "run").exists()
