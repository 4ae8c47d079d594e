"""What a run costs is told before it starts: of what is missing alone."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import timm
from safetensors.torch import save_file

import frostline
from frostline import wording
from frostline.progress import Progress
from frostline.studies.cost import Cost
from support.commands import must
from support.photos import write_folder

PHOTOS = 24


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Photos of two classes, a small transformer with random weights, and strategies that take a second."""
    folder = tmp_path_factory.mktemp("cost")
    write_folder(folder / "photos", ["rose", "tulip"], PHOTOS // 2)
    save_file(timm.create_model("test_vit", pretrained=False, num_classes=0).state_dict(), folder / "w.safetensors")
    return {"data": folder / "photos", "backbone": "test_vit", "weights": str(folder / "w.safetensors"), "epochs": 1,
            "preset": "fast", "robustness": "0"}  # fmt: skip


def costs(run: Path) -> list[dict[str, Any]]:
    """The events of a run's log that say what it costs."""
    events = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [event for event in events if event["event"] == "cost"]


def told(settings: dict[str, Any], run: Path, **changes: Any) -> tuple[str, dict[str, Any]]:
    """(what a study shows on its way, what its log says it costs)."""
    stream = io.StringIO()
    config = frostline.configure(**{**settings, "strategies": "frozen", **changes})
    with Progress(stream=stream) as progress:
        frostline.study(config, run, progress=progress)
    (cost,) = costs(run)
    return stream.getvalue(), cost


def test_a_study_tells_its_cost_and_a_filled_cache_costs_nothing(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / "cache"))
    shown, first = told(settings, tmp_path / "run")
    lines = shown.splitlines()
    (said,) = (line for line in lines if line.startswith("About "))
    assert said == f"About {wording.roughly(first['seconds'])} for {PHOTOS} photos here"
    assert lines.index(said) < next(n for n, line in enumerate(lines) if line.startswith("Computing frozen"))
    (top,) = bytes_at_lines(tmp_path / "cache")
    assert first["bytes"] == PHOTOS * top
    assert told(settings, tmp_path / "again")[1]["bytes"] == 0
    more = told(settings, tmp_path / "more", strategies="frozen,fine-tuned", line="30%")[1]
    assert more["bytes"] == PHOTOS * (sum(bytes_at_lines(tmp_path / "cache")) - top)


def bytes_at_lines(cache: Path) -> list[int]:
    """What a photo takes in each store of the network's activations."""
    known = [json.loads(file.read_text()) for file in (cache / "activations").glob("*/about.json")]
    return [row["bytes_per_row"] for row in known if row["what"].startswith("test_vit")]


def test_what_an_earlier_sitting_did_costs_nothing(settings: dict[str, Any], tmp_path: Path) -> None:
    config = frostline.configure(**{**settings, "strategies": "frozen,fine-tuned", "line": "30%"})
    for existing in ("refuse", "resume"):
        with Progress(stream=io.StringIO()) as progress:
            frostline.study(config, tmp_path / "run", existing=existing, progress=progress)
    whole, rest = costs(tmp_path / "run")
    assert rest["bytes"] == 0
    assert rest["seconds"] < whole["seconds"]


def test_a_quiet_run_measures_nothing(settings: dict[str, Any], tmp_path: Path) -> None:
    frostline.study(frostline.configure(**{**settings, "strategies": "frozen"}), tmp_path / "run", quiet=True)
    assert costs(tmp_path / "run") == []


@pytest.mark.parametrize("what", [("--lines", "30%"), ("--photos", "3,all", "--repeats", "1")])
def test_a_sweep_tells_its_cost_too(what: tuple[str, ...], settings: dict[str, Any], tmp_path: Path) -> None:
    options = ("--backbone", "test_vit", "--weights", settings["weights"], "--epochs", "1", "--preset", "fast")
    run = must("sweep", settings["data"], "--out", tmp_path / "run", *options, *what, "--json")
    assert "About " in run.err
    assert "About " not in run.out
    assert costs(tmp_path / "run")[0]["seconds"] > 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "5 seconds"), (33, "35 seconds"), (57, "55 seconds"), (58, "1 minute"), (350, "6 minutes"),
     (5_390, "90 minutes"), (9_000, "2.5 hours")],
)  # fmt: skip
def test_an_estimate_is_said_without_digits_that_it_does_not_have(seconds: float, words: str) -> None:
    assert wording.roughly(seconds) == words


def test_much_disk_is_told_in_the_same_line() -> None:
    assert str(Cost(3453, 350, 900_000_000)) == "About 6 minutes for 3,453 photos here"
    told_too = "About 6 minutes for 3,453 photos here, and 1.4 GB of disk in the cache folder"
    assert str(Cost(3453, 350, 1_400_000_000)) == told_too
