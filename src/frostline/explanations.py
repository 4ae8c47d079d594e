"""What a study leaves to be looked at: heat maps of chosen photos, and how far they can be trusted. <strategy>/explanations.json

Photos are chosen from those reported on, after all figures stand, and shape none of them.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from frostline import bundle, explain, faithfulness
from frostline.backbone import Backbone
from frostline.config import Config
from frostline.errors import FrostlineError, PhotoError
from frostline.files import write_text
from frostline.images import Pixels
from frostline.predict import Classified, read_predictions
from frostline.progress import Progress
from frostline.reading import ahead, pixels

FILE = "explanations.json"
USUAL = 32
"""Photos a strategy, unless the user says otherwise."""
TRIED = 16
"""Photos a strategy on which the maps are put to the test, at most."""

Document = dict[str, Any]


def count(config: Config) -> int:
    """How many photos of each strategy to explain: as asked; else `USUAL`, where there is something to compare and time for it."""
    if config.explain >= 0:
        return config.explain
    return USUAL if len(config.strategies) > 1 and config.preset != "fast" else 0


def leave(
    run: Path,
    config: Config,
    networks: Mapping[str, Backbone],
    where: Mapping[str, Path],
    progress: Progress,
    log: Callable[..., None],
) -> None:
    """Write explanations.json for each strategy that has none yet. What can't be explained is said in there, and stops nothing.

    Parameters
    ----------
    networks
        What each strategy was trained on, by the strategy's name.
    where
        The file of each photo, by its path in predictions.csv.
    """
    photos = count(config)
    missing = [name for name in networks if not (run / name / FILE).exists()]
    if not photos or not missing:
        return
    task = progress.task("Heat maps", len(missing))
    for name in missing:
        started = time.perf_counter()
        predictions = read_predictions(run / name / "predictions.csv")
        try:
            document = explained(run / name / "bundle", networks[name], predictions, where, photos, config.seed)
        except Exception as error:  # any of timm's networks may fail in its own way, and the study's answer stands
            reason = str(error) if isinstance(error, FrostlineError) else f"{type(error).__name__}: {error}"
            document = {"method": explain.METHOD, "layer": "", "photos": [], "failure": " ".join(reason.split())[:300]}
            progress.say(f"{name}: no heat maps: {document['failure']}")
        write_text(run / name / FILE, json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")
        log("explained", strategy=name, photos=len(document["photos"]), seconds=round(time.perf_counter() - started, 3))
        task.advance(1)


def explained(
    folder: Path,
    network: Backbone,
    predictions: Sequence[Classified],
    where: Mapping[str, Path],
    photos: int,
    seed: int,
) -> Document:
    """The maps of chosen photos and what they are worth, as explanations.json has them.

    Raises
    ------
    ConfigError
        The network has no maps.
    BundleError
        `folder` holds no bundle.
    """
    model = bundle.load(folder)
    parts = bundle.parts_on(network, folder)
    document: Document = {"method": explain.METHOD, "layer": " + ".join(g.layer for g in explain.grids(parts))}
    shown, pictures = _read(chosen(predictions, photos, model.classes), where, model)
    asked = [[p.predicted, p.true] if p.true in model.classes else [p.predicted, p.predicted] for p in shown]
    maps = _maps(model, parts, pictures, asked)
    document["photos"] = [_entry(p, pair) for p, pair in zip(shown, maps, strict=True)]
    tried, pictures = _read(_sample(predictions, min(TRIED, photos), seed), where, model)
    if tried:
        wanted = [model.classes.index(p.predicted) for p in tried]
        heat = _maps(model, parts, pictures, [[p.predicted] for p in tried])[:, 0]
        document["faithfulness"] = faithfulness.summary(faithfulness.areas(model, pictures, wanted, heat, seed), seed)
    return document


def chosen(predictions: Sequence[Classified], photos: int, classes: Sequence[str]) -> list[Classified]:
    """The surest wrong ones (three quarters of `photos`, or as many as there are), then the surest right one of each class in turn."""
    wrong = sorted((p for p in predictions if p.true != p.predicted), key=lambda p: (-p.confidence, p.path))
    right = sorted((p for p in predictions if p.true == p.predicted), key=lambda p: (-p.confidence, p.path))
    rank: dict[str, int] = defaultdict(int)
    turns = []
    for p in right:
        turns.append((rank[p.true], classes.index(p.true), p))
        rank[p.true] += 1
    in_turn = [p for *_, p in sorted(turns, key=lambda turn: turn[:2])]
    rights = max(1, photos // 4) if photos > 1 else 0
    return [*wrong[: photos - rights], *in_turn[:rights]]


def _sample(predictions: Sequence[Classified], photos: int, seed: int) -> list[Classified]:
    picked = np.random.default_rng(seed).permutation(len(predictions))[:photos]
    return [predictions[i] for i in picked]


def _read(
    wanted: Sequence[Classified], where: Mapping[str, Path], model: bundle.Bundle
) -> tuple[list[Classified], Pixels]:
    """Those photos that can be read still, and their pixels (N, H, W, 3)."""
    read = ahead(lambda p: pixels(where[p.path], model.transform), wanted, depth=32)
    found = [(p, pixel) for p, pixel in read if not isinstance(pixel, PhotoError)]
    side = model.transform.size
    stacked = np.stack([pixel for _, pixel in found]) if found else np.zeros((0, side, side, 3), np.uint8)
    return [p for p, _ in found], stacked


def _maps(model: bundle.Bundle, parts: bundle.Parts, pictures: Pixels, asked: Sequence[Sequence[str]]) -> explain.Heat:
    """Maps (N, K, h, w) of K classes for each picture."""
    if not asked:
        return np.zeros((0, 1, 1, 1), np.float32)
    classes = np.array([[model.classes.index(name) for name in names] for names in asked], dtype=np.int64)
    return explain.evidence(parts, pictures, classes, test_views=model.about.test_views)


def _entry(p: Classified, maps: explain.Heat) -> Document:
    predicted, true = (whole_numbers(heat) for heat in maps)
    return {
        "path": p.path,
        "true": p.true,
        "predicted": p.predicted,
        "confidence": round(p.confidence, 6),
        "maps": {"predicted": predicted, "true": true},
    }


def whole_numbers(heat: explain.Heat) -> list[list[int]]:
    """A map (h, w) of 0..1 as rows of 0..255."""
    rows: list[list[int]] = np.round(heat * 255).astype(int).tolist()
    return rows
