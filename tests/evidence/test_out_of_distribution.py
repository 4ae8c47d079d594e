"""Frozen against fine-tuned on photos of another kind: planted gains, groups, and the command on real photos."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from frostline.evidence import out_of_distribution
from frostline.evidence.claims import CONTRADICTED, PHOTOS, SUPPORTED, UNTESTED
from frostline.stats.predictions import Prediction, write_predictions
from support.commands import SMALL, document, must

CLASSES = ["daisy", "rose"]


def answers(right: list[bool], groups: int | None = None) -> list[Prediction]:
    """Of photos that alternate between the classes."""
    found = []
    for i, correct in enumerate(right):
        true = CLASSES[i % 2]
        said = true if correct else CLASSES[1 - i % 2]
        shares = {c: 0.9 if c == said else 0.1 for c in CLASSES}
        found.append(Prediction(f"{i}.jpg", true, said, 0.9, shares, None if groups is None else i % groups))
    return found


def right(count: int, first: int, last: int) -> list[bool]:
    """All but the first and the last photos."""
    return [first <= i < count - last for i in range(count)]


def found(
    tmp_path: Path, here: tuple[int, int], there: tuple[int, int], differs: bool = True, groups: int | None = None
) -> Any:
    """Of 200 photos here and 400 there, how many fine-tuned alone and how many frozen alone gets right."""
    reported = {}
    for name, place in (("frozen", 0), ("fine-tuned", 1)):
        (tmp_path / name).mkdir()
        write_predictions(
            tmp_path / name / "validation.csv",
            answers(right(200, 0 if place else here[0], here[1] if place else 0), groups),
            CLASSES,
        )
        reported[name] = answers(right(400, 0 if place else there[0], there[1] if place else 0), groups)
    study: Any = {
        "shift": {"differs": differs},
        "decision": {"unfreezing": {"unfrozen": "fine-tuned", "frozen": "frozen"}},
        "strategies": [{"name": "frozen"}, {"name": "fine-tuned"}],
        "dataset": {"unequal": False},
    }
    return out_of_distribution.measure(tmp_path, study, reported)


@pytest.mark.parametrize(
    ("here", "there", "verdict"),
    [
        ((20, 2), (10, 60), SUPPORTED),
        ((2, 10), (80, 10), CONTRADICTED),
        ((10, 4), (20, 8), PHOTOS),
        ((10, 2), (10, 12), PHOTOS),  # 4.5 points apart: p is 0.04 before the correction
    ],
)
def test_a_planted_difference_of_gains_is_told(
    tmp_path: Path, here: tuple[int, int], there: tuple[int, int], verdict: str
) -> None:
    told = found(tmp_path, here, there)
    assert told["verdict"] == verdict
    assert told["here"]["difference"] == pytest.approx((here[0] - here[1]) / 200)
    assert told["there"]["difference"] == pytest.approx((there[0] - there[1]) / 400)
    assert told["difference"] == pytest.approx(told["there"]["difference"] - told["here"]["difference"])
    assert told["ci"][0] < told["difference"] < told["ci"][1]
    assert (told["p_value"] < 0.05) == (not told["ci"][0] <= 0 <= told["ci"][1])
    assert told["p_corrected"] >= told["p_value"]
    assert told["before_refit"]


def test_photos_of_groups_tell_less(tmp_path: Path) -> None:
    """Errors come by the group: 5 groups here and there, each of one fate."""
    (tmp_path / "alone").mkdir()
    (tmp_path / "grouped").mkdir()
    alone, grouped = (
        found(tmp_path / name, (40, 4), (20, 100), groups=groups) for name, groups in (("alone", None), ("grouped", 20))
    )
    assert alone["difference"] == grouped["difference"]
    assert np.diff(grouped["ci"]) > np.diff(alone["ci"])


def test_photos_that_are_not_shown_to_differ_test_nothing(tmp_path: Path) -> None:
    told = found(tmp_path, (20, 2), (10, 60), differs=False)
    assert told["verdict"] == UNTESTED
    assert told["measured"] == "no difference shown between the two kinds of photos"
    assert "--test" in told["tested_by"]
    assert "difference" not in told


def test_a_study_tells_what_fine_tuning_gains_on_blurred_grey_photos(
    flowers: Path, pretrained: Path, tmp_path: Path
) -> None:
    for label in ("daisy", "sunflower"):
        photos = sorted((flowers / label).iterdir())[:36]
        for part, some in (("home", photos[:24]), ("away", photos[24:])):
            (tmp_path / part / label).mkdir(parents=True)
            for photo in some:
                shutil.copy(photo, tmp_path / part / label)
        for photo in (tmp_path / "away" / label).iterdir():
            grey = Image.open(photo).convert("L").convert("RGB").filter(ImageFilter.GaussianBlur(12))
            grey.save(photo)
    told = must(
        "study", tmp_path / "home", "--test", tmp_path / "away", "--out", tmp_path / "run", "--epochs", "1",
        "--strategies", "frozen,fine-tuned", "--robustness", "0", "--explain", "0", "--learning-curve", "no", *SMALL,
    )  # fmt: skip
    study = document(tmp_path / "run")
    assert "data_curve" not in study
    found = study["out_of_distribution"]
    assert study["shift"]["differs"]
    assert found["verdict"] in (SUPPORTED, CONTRADICTED, PHOTOS)
    assert found["here"]["photos"] == study["dataset"]["validation"]
    assert found["there"]["photos"] == study["dataset"]["test"] == 24
    assert found["before_refit"]
    assert found["claim"] in told.out
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Photos of another kind" in page and found["claim"] in page
