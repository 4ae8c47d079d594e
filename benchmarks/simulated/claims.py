"""The tutorial's claims on studies without any effect: three equal strategies, a validation loss that ends level.

Every number of such a study is drawn, and `claims.measure` gives the verdicts: "supported" and "contradicted" are both
false of every claim, but for the first, of which "contradicted" is true.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from frostline.documents import StrategyRow
from frostline.evidence import claims
from frostline.evidence.claims import CONTRADICTED, SUPPORTED, Evidence
from frostline.evidence.corruptions import CORRUPTIONS, SEVERITIES
from frostline.evidence.robustness import CorruptionResults
from frostline.networks.trainable import Above
from frostline.recipes import Recipe
from frostline.stats.intervals import compare
from frostline.stats.predictions import Prediction
from frostline.training import early_stopping
from frostline.training.checkpoint import Epoch, State
from frostline.training.stages import ValidationByEpoch
from simulated.line import Line, Study

NAMES = ("baseline", "frozen", "fine-tuned")
CLASSES = ("a", "b", "c", "d", "e")
EPOCHS, PATIENCE = 12, 4
_SHARED = 0.7
"""Correlation of how hard a photo is for two strategies."""


def hardness(rng: np.random.Generator, clusters: np.ndarray, within: float) -> np.ndarray:
    """(N,) standard normal; photos of a cluster correlate by `within`."""
    groups = rng.normal(size=int(clusters.max()) + 1)[clusters]
    return np.asarray(np.sqrt(within) * groups + np.sqrt(1 - within) * rng.normal(size=len(clusters)))


def predictions(rng: np.random.Generator, hard: np.ndarray, clusters: np.ndarray, within: float) -> list[Prediction]:
    """Those of one strategy: about 85 % are correct; confidences are a little too high."""
    own = np.sqrt(_SHARED) * hard + np.sqrt(1 - _SHARED) * hardness(rng, clusters, within)
    confidence = 1 / (1 + np.exp(-np.clip(2.4 - 1.2 * own + 0.3 * rng.normal(size=len(own)), -1, 9)))
    wrong = own > 1.04
    found = []
    for i, (miss, sure) in enumerate(zip(wrong.tolist(), np.maximum(confidence, 0.3).tolist(), strict=True)):
        true = CLASSES[i % 5]
        said = CLASSES[(i + (1 if rng.random() < 0.6 else 2)) % 5] if miss else true
        rest = (1 - sure) / 4
        found.append(Prediction(str(i), true, said, sure, {c: sure if c == said else rest for c in CLASSES}))
    return found


def epochs(rng: np.random.Generator, photos: int, rise: float = 0.0) -> tuple[list[dict[str, float]], Any]:
    """A history that falls for five epochs, then stays (or rises by `rise` an epoch), until early stopping ends it."""
    state, recipe = State(), Recipe(epochs=EPOCHS, patience=PATIENCE)
    model = cast(Above, nn.Linear(1, 1))
    own = np.abs(rng.normal(size=photos))
    losses, correct = [], []
    while state.last < EPOCHS and not early_stopping.should_stop(state, recipe):
        e = state.last
        level = 0.5 + 0.1 * max(0, 4 - e) + rise * max(0, e - 4)
        loss = level * (0.2 + own) + 0.15 * rng.normal(size=photos)
        losses.append(loss)
        correct.append(rng.random(photos) < 0.85 - 0.1 * max(0, 4 - e))
        state.history.append(Epoch(e + 1, 1 / (e + 1), 0.9, float(loss.mean()), float(correct[-1].mean()), 1.0))
        early_stopping.update(state, model, recipe, torch.from_numpy(loss))
    rows = [vars(epoch) for epoch in state.history]
    return rows, (max(1, state.best_epoch), ValidationByEpoch(np.array(losses), np.array(correct)))


def row(own: list[Prediction], history: list[dict[str, float]], best: int, total: int) -> StrategyRow:
    """What the claims read of a strategy's row of study.json."""
    confusion = np.zeros((5, 5), int)
    for p in own:
        confusion[CLASSES.index(p.true), CLASSES.index(p.predicted)] += 1
    found: Any = {
        "history": history, "best_epoch": best, "temperature": 1.0, "label_smoothing": 0.0, "calibration": {},
        "per_class": [{"class": c} for c in CLASSES], "confusion": confusion.tolist(),
        "parameters": {"total": total, "trainable": total}, "image_size": 224,
    }  # fmt: skip
    return cast(StrategyRow, found)


def corrupted(rng: np.random.Generator, photos: int) -> CorruptionResults:
    """A strategy that stays correct on 70 % of corrupted photos."""
    kept = rng.beta(7, 3, photos)[:, None]
    correct = np.hstack([rng.random((photos, 1)) < 0.9, rng.random((photos, len(CORRUPTIONS) * SEVERITIES)) < kept])
    return CorruptionResults(CORRUPTIONS, correct, np.full(correct.shape, 0.9))


def curve(rng: np.random.Generator, own: dict[str, list[Prediction]]) -> Any:
    """Frozen on few photos is as good as the baseline on all; fine-tuned and frozen are alike everywhere."""
    count = len(own["frozen"])
    few = rng.random(count) < 0.85
    less = compare("frozen", few, "baseline", np.array([p.correct for p in own["baseline"]]))
    small = compare("fine-tuned", rng.random(count) < 0.85, "frozen", few)
    differences = [{"photos": size, "per_class": size / 5, "difference": small.difference, "ci": small.ci} for size in
                   (100, 400)]  # fmt: skip
    against = {"photos": 100, "baseline_photos": 400, "difference": less.difference, "ci": less.ci,
               "p_value": less.p_value}  # fmt: skip
    return {"source": "study", "differences": differences, "crossing": {}, "against_baseline": against}


def null(rng: np.random.Generator, photos: int, groups: int | None = None) -> Evidence:
    """A study of three equal strategies, with as many photos to validate on as to report on."""
    clusters = np.arange(photos) if groups is None else np.arange(photos) % groups
    within = 0.0 if groups is None else 0.3
    hard = hardness(rng, clusters, within)
    own = {name: predictions(rng, hard, clusters, within) for name in NAMES}
    rows, kept = {}, {}
    for name in NAMES:
        history, (best, by_epoch) = epochs(rng, photos)
        rows[name] = row(own[name], history, best, 100 if name == "baseline" else 50)
        kept[name] = by_epoch
    robustness = {name: corrupted(rng, min(48, photos)) for name in NAMES}
    return Evidence(
        rows, own, robustness, curve=curve(rng, own), validation=kept, clusters=None if groups is None else clusters
    )


def false_verdicts(evidence: Evidence) -> list[int]:
    """The claims, from 1, with a verdict that is false of a study without any effect."""
    found = [claim["verdict"] for claim in claims.measure(evidence)]
    return [n for n, v in enumerate(found, 1) if v == SUPPORTED or (v == CONTRADICTED and n > 1)]


def any_false(photos: int, groups: int | None = None) -> Study:
    return lambda rng: bool(false_verdicts(null(rng, photos, groups)))


def rise_held(photos: int, rise: float) -> Study:
    """Whether the interval of claim 1 holds the true rise of a loss that is lowest in the fifth epoch."""

    def study(rng: np.random.Generator) -> bool:
        history, (best, by_epoch) = epochs(rng, photos, rise)
        known = Evidence({"baseline": row([], history, best, 1)}, {}, validation={"baseline": by_epoch})
        figures = claims.measure(known)[0]["figures"]
        truth = rise * (len(history) - 5) * (0.2 + np.sqrt(2 / np.pi))
        return "ci" in figures and bool(figures["ci"][0] <= truth <= figures["ci"][1])

    return study


def lines() -> Iterator[Line]:
    for photos, groups in ((90, None), (300, None), (690, None), (600, 40)):
        of = f"{photos} photos" + (f" of {groups} groups" if groups else "")
        yield Line("any false verdict on a claim, no effect", of, any_false(photos, groups), 0.0, 0.05)
    for photos in (90, 690):
        yield Line(
            "rise of the validation loss", f"{photos} photos, 0.05 an epoch", rise_held(photos, 0.05), 0.93, 0.97
        )
