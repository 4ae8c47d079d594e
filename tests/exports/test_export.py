"""frostline export: artefacts that run without frostline, and their proof."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frostline.exports.artefact import Whole
from frostline.photos.decoding import Transform, prepare
from support.commands import SMALL, call, must
from support.photos import photo, write_folder

CLASSES = ["class 2", "class 10", "Tulpe ü"]  # in natural order


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network from random weights, in its run folder."""
    folder = tmp_path_factory.mktemp("export")
    data = write_folder(folder / "photos", CLASSES, 20)
    options = ("--strategy", "baseline", "--preset", "fast", "--epochs", "2", *SMALL, "--quiet")
    must("fit", data, "--out", folder / "run", *options)
    return folder / "run" / "baseline" / "bundle"


def exported(bundle: Path, out: Path, *options: object) -> dict[str, Any]:
    said = must("export", bundle, "--out", out, "--json", "--quiet", *options)
    document: dict[str, Any] = json.loads(said.out)
    assert document == json.loads((out / "export.json").read_text(encoding="utf-8"))
    return document


@pytest.mark.parametrize("form", ["onnx", "openvino", "torch"])
def test_an_artefact_says_what_its_bundle_says(form: str, bundle: Path, tmp_path: Path) -> None:
    if form == "openvino":
        pytest.importorskip("openvino")
    document = exported(bundle, tmp_path / "out", "--format", form)
    assert document["status"] == "proved"
    assert document["photos"] > 5
    assert document["agreement"] == 1
    assert document["largest_difference"] < 0.02
    assert document["classes"] == CLASSES
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        document["file"], *document["also"], "example.py", "export.json", "README.md",
    }  # fmt: skip
    assert "## Artefact" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    # the example runs from anywhere, on a photo of another shape, without frostline
    (tmp_path / "wide.jpg").write_bytes(photo(3, "JPEG", 301, 97))
    line = [sys.executable, "-I", str(tmp_path / "out" / "example.py"), "wide.jpg"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, encoding="utf-8", check=True)
    said = json.loads(must("predict", bundle, tmp_path / "wide.jpg", "--engine", "onnx", "--json", "--quiet").out)
    assert said["predicted"] in done.stdout
    assert float(done.stdout.split()[-1]) == pytest.approx(said["confidence"], abs=0.02)


def test_int8_is_small_and_says_nearly_the_same(bundle: Path, tmp_path: Path) -> None:
    document = exported(bundle, tmp_path / "out", "--int8")
    assert document["int8"]
    assert document["size_bytes"] < 0.3 * document["bundle_bytes"]
    assert document["agreement"] > 0.7


@pytest.mark.parametrize("resize", ["squash", "crop"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(60, 40), (31, 90), (300, 200), (64, 64)])
def test_the_graphs_resize_as_pillow_does(resize: Any, interpolation: Any, size: tuple[int, int]) -> None:
    import onnxruntime
    import torch
    from PIL import Image

    from frostline.exports.onnx_graph import preparation

    data = photo(1, "PNG", *size)
    transform = Transform(64, resize, interpolation=interpolation)
    expected = prepare(data, transform).astype(int)
    pixels = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    whole = Whole(torch.nn.Identity(), transform)
    found = {"torch": whole(torch.from_numpy(pixels)).numpy()[0]}
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    for plain in (False, True):
        graph = preparation(transform, plain=plain).SerializeToString()
        session = onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
        found[f"onnx {plain}"] = session.run(None, {"photo": pixels})[0][0]
    for name, came in found.items():
        difference = np.abs(came.astype(int) - expected)
        assert difference.max() <= 3, name  # Pillow rounds in between, in an order of its own
        assert difference.mean() < 0.3, name


def test_a_false_artefact_is_not_kept(bundle: Path, tmp_path: Path) -> None:
    moved = tmp_path / "run" / "baseline" / "bundle"
    shutil.copytree(bundle.parents[1], tmp_path / "run")
    from frostline.exports import exporter, proof

    def wrong(*arguments: Any, **rest: Any) -> proof.ExampleResult:
        heard = real(*arguments, **rest)
        return dataclasses.replace(heard, classes=heard.classes[::-1])

    real = proof.run_on
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proof, "run_on", wrong)
        failed = call("export", moved, "--out", tmp_path / "out", "--quiet")
    assert "its classes are" in failed.error
    assert [p.name for p in (tmp_path / "out").iterdir()] == [exporter.FILE]
    assert json.loads((tmp_path / "out" / exporter.FILE).read_text(encoding="utf-8"))["status"] == "failed"


def test_mistakes_are_told_in_one_line(bundle: Path, tmp_path: Path) -> None:
    assert "did you mean 'onnx'" in call("export", bundle, "--format", "onx").error
    assert "--int8 with --format torch" in call("export", bundle, "--format", "torch", "--int8").error
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing.txt").write_text("mine")
    assert "something else already" in call("export", bundle, "--out", tmp_path / "full").error
    alone = shutil.copytree(bundle, tmp_path / "far" / "away" / "alone")
    assert "--data FOLDER" in call("export", alone, "--out", tmp_path / "o").error
    strange = write_folder(tmp_path / "strange", ["class 2", "lily"], 2)
    assert (
        "'lily' that the bundle does not know"
        in call("export", bundle, "--data", strange, "--out", tmp_path / "o").error
    )


def test_a_bundle_away_from_its_run_is_proved_on_photos_given(bundle: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(bundle, tmp_path / "far" / "away" / "alone")
    data = write_folder(tmp_path / "new", CLASSES, 4, first_seed=900)
    document = exported(alone, tmp_path / "out", "--data", data)
    assert document["photos"] == 8
    assert "--overwrite" in call("export", alone, "--out", tmp_path / "out", "--data", data).error
