"""Other ways to thaw: what each trains moves and all else stays to the bit, and a model is as any other's."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import frostline
from frostline.config import Config, configure
from frostline.errors import ConfigError
from support.commands import SMALL, call, document, events, must, spawn, stop_when, table

WAYS = ("fine-tuned-window", "fine-tuned-norms", "fine-tuned-lora")
RANK = 8


@dataclass(frozen=True)
class Thawed:
    """A study of several ways to thaw one network."""

    data: Path
    weights: Path
    out: Path
    said: str
    options: tuple[str, ...]

    def row(self, name: str) -> dict[str, Any]:
        return next(row for row in document(self.out)["strategies"] if row["name"] == name)

    def moved(self, name: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """The tensors of the backbone that training has changed: (before, after) by name, batch-norm statistics
        included. Position embeddings were made for another size of photos and are fitted to this one when loaded."""
        before = load_file(self.weights)
        after = load_file(self.out / name / "bundle" / "model.safetensors")
        pairs = {key: (old, after[f"backbone.body.{key}"]) for key, old in before.items()}
        return {key: pair for key, pair in pairs.items() if key != "pos_embed" and not torch.equal(*pair)}


@pytest.fixture(scope="module")
def data(flowers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some real photos of two classes."""
    folder = tmp_path_factory.mktemp("thaw") / "photos"
    for label in ("rose", "tulip"):
        (folder / label).mkdir(parents=True)
        for file in sorted((flowers / label).iterdir())[:20]:
            shutil.copy(file, folder / label)
    return folder


def thawed(data: Path, network: str, ways: tuple[str, ...]) -> Thawed:
    import timm

    torch.manual_seed(3)
    weights = data.parent / f"{network}.safetensors"
    save_file(timm.create_model(network, pretrained=False, num_classes=0).state_dict(), weights)
    options = (
        "--backbone", network, "--weights", str(weights), "--strategies", ",".join(ways), "--epochs", "2",
        "--preset", "fast", *SMALL, "--engine", "torch", "--seed", "1", "--robustness", "0", "--explain", "0",
    )  # fmt: skip
    out = data.parent / network
    result = must("study", data, "--out", out, *options)
    return Thawed(data, weights, out, " ".join(result.out.split()), options)


@pytest.fixture(scope="module")
def transformer(data: Path) -> Thawed:
    return thawed(data, "test_vit", WAYS)


@pytest.fixture(scope="module")
def convolutions(data: Path) -> Thawed:
    """With batch norms, which the transformer has not."""
    return thawed(data, "test_efficientnet", WAYS[:2])


def trained_counts(run: Thawed, name: str) -> tuple[int, int]:
    """(numbers trained in the backbone as they are told, those of the tensors that moved)."""
    row = run.row(name)
    told = row["unfrozen"]
    assert row["parameters"]["trainable"] == told["head"] + told["backbone"]
    assert f"{told['head'] + told['backbone']:,} parameters" in run.said
    return told["backbone"], sum(after.numel() for _, after in run.moved(name).values())


def test_norms_and_biases_are_trained_and_nothing_else(transformer: Thawed, convolutions: Thawed) -> None:
    for run in (transformer, convolutions):
        told, moved = trained_counts(run, "fine-tuned-norms")
        names = run.moved("fine-tuned-norms")
        assert told == moved > 0
        assert all(name.endswith("bias") or "norm" in name or "bn" in name for name in names)
        assert not any("running" in name or "batches" in name for name in names)
        assert {name.rpartition(".")[2] for name in names} == {"weight", "bias"}
        assert f"norms and biases above line {run.row('fine-tuned-norms')['unfrozen']['line']}" in run.said


def test_a_window_is_trained_and_what_is_above_it_stays(transformer: Thawed, convolutions: Thawed) -> None:
    for run in (transformer, convolutions):
        told, moved = trained_counts(run, "fine-tuned-window")
        assert told == moved > 0
        unfrozen, names = run.row("fine-tuned-window")["unfrozen"], run.moved("fine-tuned-window")
        assert names
        assert 0.3 < unfrozen["share"] < 0.6
        assert (unfrozen["line"], unfrozen["upper_line"]) == ("65%", "30%")
        assert "the layers between lines 65% and 30%" in run.said
    names = transformer.moved("fine-tuned-window")
    assert not any(name.startswith(("blocks.5", "blocks.0", "norm", "patch")) for name in names)
    assert not any("running" in name for name in convolutions.moved("fine-tuned-window"))


def test_adapters_end_up_in_the_weights_of_attention(transformer: Thawed) -> None:
    """Each of them has changed by a matrix of the adapters' rank."""
    told, _ = trained_counts(transformer, "fine-tuned-lora")
    moved = transformer.moved("fine-tuned-lora")
    assert set(moved) == {f"blocks.{n}.attn.{layer}.weight" for n in (4, 5) for layer in ("qkv", "proj")}
    assert told == sum(RANK * sum(after.shape) for _, after in moved.values())
    for before, after in moved.values():
        sizes = torch.linalg.svdvals((after - before).double())
        assert sizes[RANK] < 1e-3 * sizes[0]
    assert f"LoRA of rank {RANK} above line 30%" in transformer.said


def test_a_model_is_as_any_others(transformer: Thawed, tmp_path: Path) -> None:
    """The same tensors by name, the predictions of its run, an export with proof, and a card that says what was
    trained."""
    for name in WAYS:
        bundle = transformer.out / name / "bundle"
        tensors = load_file(bundle / "model.safetensors")
        network = {key.removeprefix("backbone.body.") for key in tensors if key.startswith("backbone.body.")}
        assert network >= set(load_file(transformer.weights))
        assert not any("parametrizations" in key for key in tensors)
        model = frostline.load(bundle)
        rows = table(transformer.out / name / "predictions.csv")[:3]
        found = frostline.predict(model, [transformer.data / row["path"] for row in rows])
        said = [p.probabilities["rose"] for p in found]
        assert np.allclose(said, [float(row["p_rose"]) for row in rows], atol=1e-3)
        sentence = {"window": "between lines", "norms": "norms and biases above", "lora": "LoRA of rank 8"}
        assert sentence[name.rpartition("-")[2]] in (bundle / "README.md").read_text(encoding="utf-8")
    lora = transformer.out / "fine-tuned-lora" / "bundle"
    must("export", lora, "--format", "onnx", "--out", tmp_path / "onnx")
    assert json.loads((tmp_path / "onnx" / "export.json").read_text())["status"] == "proved"


def test_killed_and_resumed_it_ends_with_the_same_bytes(transformer: Thawed, tmp_path: Path) -> None:
    def second_stage(event: dict[str, Any]) -> bool:
        return event["event"] == "epoch" and (event["strategy"], event["stage"]) == ("fine-tuned-lora", "own")

    out = tmp_path / "killed"
    process = spawn("study", transformer.data, "--out", out, *transformer.options, "--quiet")
    assert stop_when(process, out, second_stage, signal.SIGKILL) == -signal.SIGKILL
    process.communicate()
    must("study", transformer.data, "--out", out, *transformer.options, "--resume")
    for name in WAYS:
        for file in ("predictions.csv", "bundle/model.safetensors"):
            assert (out / name / file).read_bytes() == (transformer.out / name / file).read_bytes()
    assert [event["resumed"] for event in events(out) if event["event"] == "start"] == [False, True]


# ---- what can't be trained -------------------------------------------------------------------------------------------


def refused(data: Path, out: Path, *options: str) -> str:
    result = call("study", data, "--out", out, "--epochs", "1", *options)
    assert not out.exists()
    return result.error


def test_adapters_need_attention(convolutions: Thawed, tmp_path: Path) -> None:
    network = ("--backbone", "test_efficientnet", "--weights", str(convolutions.weights))
    line = refused(convolutions.data, tmp_path / "run", *network, "--strategies", "fine-tuned-lora")
    assert "test_efficientnet has no attention with linear layers (qkv or q, k, v; proj) above line '30%'" in line
    assert "fine-tuned-norms" in line


def test_a_window_needs_layers(convolutions: Thawed, tmp_path: Path) -> None:
    network = ("--backbone", "test_efficientnet", "--weights", str(convolutions.weights))
    line = refused(convolutions.data, tmp_path / "run", *network, "--strategies", "fine-tuned-window", "--line", "20%")
    assert "nothing of test_efficientnet is between line '20%' and upper_line '30%'" in line


# ---- configurations --------------------------------------------------------------------------------------------------


def test_older_configurations_train_all_above_the_line(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    now = configure("photos", strategies=["frozen", "fine-tuned"])
    now.to_toml(file)
    text = file.read_text(encoding="utf-8")
    kept = [row for row in text.splitlines() if not row.startswith(("trains", "upper_line", "rank"))]
    assert len(kept) == len(text.splitlines()) - 6
    file.write_text("\n".join(kept), encoding="utf-8")
    assert Config.from_toml(file) == now
    assert {(s.trains, s.upper_line) for s in now.strategies} == {("all", "top")}


def test_a_line_moves_each_way_to_thaw() -> None:
    rows = configure("photos", strategies=["frozen", "fine-tuned", "fine-tuned-all", *WAYS], line="70%").strategies
    assert [row.line for row in rows] == ["top", "70%", "0", "70%", "70%", "70%"]
    (alone,) = configure("photos", strategies=["fine-tuned-all"], line="70%").strategies
    assert alone.line == "70%"
    with pytest.raises(ConfigError, match="none of the strategies"):
        configure("photos", strategies=["baseline", "frozen"], line="70%")
