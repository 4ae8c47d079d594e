"""Training again with the validation photos: what it changes, what it must not, and where it is left out."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

import frostline
from frostline.config import Config
from support.commands import document, events, must, spawn, stop_when, table
from support.photos import write_folder

EPOCHS = 3


def settings(data: Path, *, refit: bool, **options: Any) -> Config:
    config = frostline.configure(
        data, strategies=["frozen", "fine-tuned"], epochs=EPOCHS, image_size=64, robustness="0", **options
    )
    rows = tuple(dataclasses.replace(s, refit=s.refit and refit) for s in config.strategies)
    return dataclasses.replace(config, strategies=rows)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("refit") / "photos", ["rose", "tulip"], 24)


@pytest.fixture(scope="module")
def pair(data: Path) -> tuple[Path, Path]:
    """The same study with and without."""
    for refit in (True, False):
        frostline.study(settings(data, refit=refit), data.parent / f"refit {refit}")
    return data.parent / "refit True", data.parent / "refit False"


def rows(run: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in document(run)["strategies"]}


def test_it_learns_from_validation_photos_too_and_for_as_long_as_was_best(pair: tuple[Path, Path]) -> None:
    dataset = document(pair[0])["dataset"]
    for name, row in rows(pair[0]).items():
        told = row["refit"]
        assert told["photos"] == dataset["train"] + dataset["validation"]
        assert told["epochs"] == row["best_epoch"]
        assert (told["head_epochs"] > 0) == (name == "fine-tuned")
        again = [
            e for e in events(pair[0]) if e["event"] == "epoch" and e["strategy"] == name and e["stage"] == "own again"
        ]
        assert len(again) == row["best_epoch"]
        assert row["seconds"]["train"] > sum(e["seconds"] for e in [*row["head_history"], *row["history"]])
    assert all("refit" not in row for row in rows(pair[1]).values())


def test_what_validation_photos_said_is_said_by_the_model_that_has_not_seen_them(pair: tuple[Path, Path]) -> None:
    again, once = rows(pair[0]), rows(pair[1])
    for name in again:
        for kept in ("best_epoch", "validation_accuracy"):
            assert again[name][kept] == once[name][kept]
        assert again[name]["temperature"] == pytest.approx(
            once[name]["temperature"], rel=0.02
        )  # PyTorch's and the engine's arithmetic
        said, before = (table(run / name / "validation.csv") for run in pair)
        assert [row["path"] for row in said] == [row["path"] for row in before]
        for a, b in zip(said, before, strict=True):
            assert float(a["p_rose"]) == pytest.approx(float(b["p_rose"]), abs=0.02)
        tensors, others = (load_file(run / name / "bundle" / "model.safetensors") for run in pair)
        assert tensors.keys() == others.keys()
        assert any((tensors[key] != others[key]).any() for key in tensors)


def test_frozen_statistics_stay_and_the_card_says_what_was_done(pair: tuple[Path, Path]) -> None:
    tensors, others = (load_file(run / "fine-tuned" / "bundle" / "model.safetensors") for run in pair)
    fixed = [key for key in tensors if "running_" in key]
    assert fixed
    assert all((tensors[key] == others[key]).all() for key in fixed)
    card, plain = ((run / "frozen" / "bundle" / "README.md").read_text(encoding="utf-8") for run in pair)
    assert "trained again" in card
    assert "trained again" not in plain
    report = (pair[0] / "report.html").read_text(encoding="utf-8")
    assert "trained again for as many epochs" in report


def test_an_export_is_proved_on_photos_that_the_model_has_not_learnt_from(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    dataset = document(pair[0])["dataset"]
    assert dataset["test"] != dataset["validation"]
    for run, part in zip(pair, ("test", "validation"), strict=True):
        out = tmp_path / part
        must("export", run / "frozen" / "bundle", "--out", out)
        proved = json.loads((out / "export.json").read_text(encoding="utf-8"))
        assert proved["proved_on"] == f"the run's {part} photos"


def test_an_export_of_a_run_that_was_asked_about_another_folder_is_proved_on_that(data: Path, tmp_path: Path) -> None:
    other = write_folder(
        tmp_path / "other", ["rose", "tulip"], 5, first_seed=900
    )  # the same names as in the folder trained on
    must(
        "fit",
        data,
        "--test",
        other,
        "--out",
        tmp_path / "run",
        "--strategy",
        "frozen",
        "--epochs",
        "2",
        "--image-size",
        "64",
    )
    assert document(tmp_path / "run")["strategies"][0]["refit"]["photos"] == 48
    must("export", tmp_path / "run" / "frozen" / "bundle", "--out", tmp_path / "export")
    proved = json.loads((tmp_path / "export" / "export.json").read_text(encoding="utf-8"))
    assert (proved["photos"], proved["proved_on"]) == (10, "the run's test photos")
    (row,) = document(tmp_path / "run")["strategies"]
    assert proved["bundle_accuracy"] == pytest.approx(
        row["accuracy"], abs=0.11
    )  # one photo of ten: the engine's arithmetic


def test_the_report_says_where_one_strategy_learnt_from_more_photos_than_another(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    must("study", data, "--out", run, "--strategies", "baseline,frozen", "--epochs", "1", "--image-size", "64")
    assert [("refit" in row) for row in document(run)["strategies"]] == [False, True]
    must("report", run, "--format", "md")
    for name in ("report.html", "report.md"):
        said = (run / name).read_text(encoding="utf-8")
        assert "Frozen: trained on training and validation photos together" in " ".join(said.split())
    bundle = json.loads((run / "frozen" / "bundle" / "bundle.json").read_text(encoding="utf-8"))
    dataset = document(run)["dataset"]
    assert bundle["neighbours"]["photos"] == dataset["train"] + dataset["validation"]


def test_killed_while_training_again_and_resumed_it_ends_with_the_same_bits(
    pair: tuple[Path, Path], data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    out.mkdir()
    (out / "config.toml").write_bytes((pair[0] / "config.toml").read_bytes())
    for strategy in ("frozen", "fine-tuned"):
        process = spawn("study", "--out", out, "--resume", "--quiet")
        stop_when(
            process,
            out,
            lambda e, s=strategy: e.get("strategy") == s and e.get("stage", "").endswith("again"),
            signal.SIGKILL,
        )
        process.communicate()
    must("study", "--out", out, "--resume", "--quiet")
    for strategy in ("frozen", "fine-tuned"):
        for name in ("predictions.csv", "validation.csv", "bundle/model.safetensors"):
            assert (out / strategy / name).read_bytes() == (pair[0] / strategy / name).read_bytes()
    count = Counter((e["strategy"], e["stage"], e["epoch"]) for e in events(out) if e["event"] == "epoch")
    assert set(count.values()) == {1}


def test_validation_photos_that_the_data_set_gives_stay_out_and_so_they_do_in_the_tutorial(tmp_path: Path) -> None:
    given = tmp_path / "parts"
    for number, (part, each) in enumerate({"train": 9, "validation": 4, "test": 4}.items()):
        write_folder(given / part, ["rose", "tulip"], each, first_seed=100 * number)
    must("study", given, "--out", tmp_path / "given", "--strategies", "frozen", "--epochs", "1", "--image-size", "64")
    reported = [p["path"] for p in table(tmp_path / "given" / "frozen" / "predictions.csv")]
    assert len(reported) == 8
    assert {path.split("/")[0] for path in reported} == {"test"}
    plain = write_folder(tmp_path / "plain", ["rose", "tulip"], 10)
    must(
        "fit",
        plain,
        "--out",
        tmp_path / "tutorial",
        "--strategy",
        "frozen",
        "--protocol",
        "tutorial",
        "--epochs",
        "1",
        "--image-size",
        "64",
    )
    assert all("refit" not in row for run in ("given", "tutorial") for row in document(tmp_path / run)["strategies"])
