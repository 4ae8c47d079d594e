"""Run folders and bundles of version 0.1.0 are read, shown, used and taken up by this version."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import frostline
from frostline import documents
from frostline.documents import Bundle, Check, Export, Seeds, Study, Sweep
from frostline.photos.manifest import Skip
from support.commands import call, document, must, table

OLD = Path(__file__).parent / "version_0_1_0"
THEN = "/version-0.1.0"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folders of version 0.1.0 as if they had been made here."""
    here = tmp_path / "old"
    shutil.copytree(OLD, here)
    for file in here.rglob("*"):
        if file.suffix in (".json", ".csv", ".toml", ".jsonl"):
            file.write_text(file.read_text(encoding="utf-8").replace(THEN, str(here)), encoding="utf-8", newline="")
    return here


@pytest.mark.parametrize(
    ("folder", "kind", "classes"),
    [
        ("study", Study, lambda d: d["dataset"]["classes"]),
        ("study-lines", Sweep, lambda d: d["dataset"]["classes"]),
        ("study-photos", Sweep, lambda d: d["dataset"]["classes"]),
        ("seeds", Seeds, lambda d: d["dataset"]["classes"]),
        ("check", Check, lambda d: d["classes"]),
        ("study/frozen/bundle", Bundle, lambda d: d["classes"]),
        ("onnx", Export, lambda d: d["classes"]),
    ],
)
def test_every_document_is_read_and_is_still_what_the_types_say(folder: str, kind: type, classes: object) -> None:
    assert callable(classes)
    found = documents.read(OLD / folder, kind)
    assert classes(found) == ["daisy", "rose", "tulip"]
    assert documents.problems(kind, found) == []


@pytest.mark.parametrize("run", ["study", "study-lines", "study-photos", "seeds"])
def test_reports_are_built(old: Path, run: str) -> None:
    must("report", old / run)
    page = (old / run / "report.html").read_text(encoding="utf-8")
    assert documents.read(old / run, Seeds if run == "seeds" else Sweep if "-" in run else Study)["answer"][:20] in page


def test_a_report_finds_the_sweeps_beside_it_and_becomes_markdown(old: Path) -> None:
    must("report", old / "study", "--format", "md")
    text = (old / "study" / "report.md").read_text(encoding="utf-8")
    assert "fine-tuned" in text


def test_two_runs_are_compared(old: Path) -> None:
    found = json.loads(must("compare", old / "study", old / "seeds" / "seed-1", "--json").out)
    assert len(found["runs"]) == 2


def test_a_bundle_says_what_it_said(old: Path) -> None:
    rows = table(old / "study" / "frozen" / "predictions.csv")
    photos = [old / "photos" / row["path"] for row in rows]
    answers = list(frostline.predict(old / "study" / "frozen" / "bundle", photos))
    for row, answer in zip(rows, answers, strict=True):
        assert not isinstance(answer, Skip)
        assert answer.predicted == row["predicted"]
        assert answer.confidence == pytest.approx(float(row["confidence"]), abs=0.02)  # another engine may run it


def test_a_finished_study_is_taken_up_and_nothing_is_trained_again(old: Path) -> None:
    before = document(old / "study")
    write_weights(old)
    must("study", "--out", old / "study", "--resume", "--quiet")
    after = document(old / "study")
    assert after["strategies"] == before["strategies"]
    assert after["comparisons"] == before["comparisons"]


def test_a_study_that_was_stopped_goes_on(old: Path) -> None:
    """Its last strategy is missing, as if it had been stopped before: it is trained now, the others stay."""
    run = old / "study"
    study = document(run)
    study["status"] = "running"
    gone = study["strategies"].pop(0)
    (run / "study.json").write_text(json.dumps(study), encoding="utf-8")
    shutil.rmtree(run / gone["name"])
    write_weights(old)
    file = run / "config.toml"  # the other bundles' weights are not kept here, so nothing more can be asked of them
    file.write_text(file.read_text(encoding="utf-8").replace('robustness = "8"', 'robustness = "0"'), encoding="utf-8")
    must("study", "--out", run, "--resume", "--quiet")
    after = document(run)
    assert [row["name"] for row in after["strategies"]] == ["baseline", "frozen", "fine-tuned"]
    kept = [row for row in after["strategies"] if row["name"] != gone["name"]]
    assert [row["history"] for row in kept] == [row["history"] for row in study["strategies"]]


def write_weights(folder: Path) -> None:
    """The weights that the runs were made with: random ones of a fixed seed."""
    import timm
    import torch
    from safetensors.torch import save_file

    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = timm.create_model("test_efficientnet", pretrained=False, num_classes=0).state_dict()
    save_file(state, folder / "weights.safetensors")


def test_a_missing_weights_file_is_told_in_one_line(old: Path) -> None:
    study = document(old / "study")
    study["status"], study["strategies"] = "running", []
    (old / "study" / "study.json").write_text(json.dumps(study), encoding="utf-8")
    assert "weights.safetensors" in call("study", "--out", old / "study", "--resume").error
