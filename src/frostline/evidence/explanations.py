"""What a study leaves to be looked at: heat maps of chosen photos, and how far they can be trusted.
<strategy>/explanations.json

Photos are chosen from those reported on, after all figures stand, and shape none of them.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from frostline.bundles import bundle, heat_maps
from frostline.bundles.predict import predict
from frostline.config import Config
from frostline.errors import ConfigError, DataError, FrostlineError, PhotoError, nearest
from frostline.evidence import faithfulness
from frostline.files import replacing, write_text
from frostline.networks.backbone import Backbone
from frostline.networks.compilation import Runtime
from frostline.parallel import ahead
from frostline.photos.decoding import Pixels, Transform, thumbnail
from frostline.photos.loading import decoded, pixels
from frostline.photos.manifest import Skip
from frostline.photos.names import printable
from frostline.progress import Progress
from frostline.stats.predictions import Prediction, read_predictions

FILE = "explanations.json"
USUAL = 32
"""Photos a strategy, unless the user says otherwise."""
TRIED = 16
"""Photos a strategy on which the maps are put to the test, at most."""

_WIDTH = 640  # pixels of the longer side of an overlay

Document = dict[str, Any]


def count(config: Config) -> int:
    """How many photos of each strategy to explain: as asked; else `USUAL`, where there is something to compare and
    time for it.
    """
    if config.explain >= 0:
        return config.explain
    return USUAL if len(config.strategies) > 1 and config.preset != "fast" else 0


def write_missing(
    run: Path,
    config: Config,
    networks: Mapping[str, Backbone],
    where: Mapping[str, Path],
    runtime: Runtime,
    progress: Progress,
    log: Callable[..., None],
) -> None:
    """Write explanations.json for each strategy that has none yet. What can't be explained is said in there, and
    stops nothing.

    Parameters
    ----------
    networks
        What each strategy was trained on, by the strategy's name.
    where
        The file of each photo, by its path in predictions.csv.
    runtime
        What the run computes on.
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
            network, own = networks[name], run / name / "bundle"
            document = explained(own, network, predictions, where, photos, config.seed, runtime)
        except Exception as error:  # any of timm's networks may fail in its own way, and the study's answer stands
            reason = str(error) if isinstance(error, FrostlineError) else f"{type(error).__name__}: {error}"
            document = {
                "method": heat_maps.METHOD,
                "layer": "",
                "photos": [],
                "failure": " ".join(reason.split())[:300],
            }
            progress.say(f"{name}: no heat maps: {document['failure']}")
        write_text(run / name / FILE, json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")
        log("explained", strategy=name, photos=len(document["photos"]), seconds=round(time.perf_counter() - started, 3))
        task.advance(1)


def explained(
    folder: Path,
    network: Backbone,
    predictions: Sequence[Prediction],
    where: Mapping[str, Path],
    photos: int,
    seed: int,
    runtime: Runtime,
) -> Document:
    """The maps of chosen photos and what they are worth, as explanations.json has them.

    Raises
    ------
    ConfigError
        The network has no maps.
    BundleError
        `folder` holds no bundle.
    """
    model, parts = bundle.of_run(folder, network, runtime), bundle.parts_on(network, folder)
    if runtime.device.type != "cpu":
        parts = parts.on(runtime.device)
    document: Document = {"method": heat_maps.METHOD, "layer": " + ".join(g.layer for g in heat_maps.grids(parts))}
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


def pictures(model: bundle.Bundle, paths: Iterable[str], out: Path, name: str, progress: Progress) -> Document:
    """Lay the maps of any photos over them: PNGs in `out`, and explanations.json, whose content is returned.

    Of each photo the predicted class, and the true one where the photo lies in a folder named after a class and it is
    another; or the class `name` alone.

    Raises
    ------
    ConfigError
        The network has no maps, or the bundle knows no class `name`.
    DataError
        No photo could be read.
    RunError
        `out` can't be written.
    """
    if name and name not in model.classes:
        raise ConfigError(f"unknown class '{name}'{nearest(name, model.classes)}")
    document: Document = {
        "method": heat_maps.METHOD,
        "layer": " + ".join(g.layer for g in heat_maps.grids(model.parts)),
    }
    entries: list[Document] = []
    skipped: list[Document] = []
    task = progress.task("Heat maps")
    for result in predict(model, paths):
        if isinstance(result, Skip):
            skipped.append({"path": printable(result.path), "why": result.why})
        else:
            folder = Path(result.path).absolute().parent.name
            told = result if result.true or folder not in model.classes else replace(result, true=folder)
            entries.append(_laid_over(model, told, out, len(entries) + 1, name))
        task.advance(1)
    task.finish()
    if not entries:
        why = f"the first: {skipped[0]['path']}: {skipped[0]['why']}" if skipped else "there are none in what was given"
        raise DataError(f"no photo was explained: {why}; name photos, or folders that hold some")
    document |= {"photos": entries, "skipped": skipped}
    write_text(out / FILE, json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")
    return document


def _laid_over(model: bundle.Bundle, result: Prediction, out: Path, number: int, name: str) -> Document:
    asked = {"asked": name} if name else {"predicted": result.predicted}
    if not name and result.true and result.true != result.predicted:
        asked["true"] = result.true
    seen = pixels(Path(result.path), model.transform)
    if isinstance(seen, PhotoError):
        raise DataError(f"{printable(result.path)} changed while it was read: {seen}")
    maps = _maps(model, model.parts, seen[None], [list(asked.values())])[0]
    large = _whole(Path(result.path), model.transform, seen)
    files = []
    for (kind, wanted), heat in zip(asked.items(), maps, strict=True):
        safe = re.sub(r"[^\w.-]+", "_", f"{number}-{Path(result.path).stem[:80]}-{kind}-{wanted[:40]}")
        with replacing(out / f"{safe}.png") as temporary:
            heat_maps.overlay(large, heat).save(temporary, format="PNG")
        files.append(f"{safe}.png")
    return {
        "path": printable(result.path),
        "true": result.true,
        "predicted": result.predicted,
        "confidence": round(result.confidence, 6),
        "maps": {kind: whole_numbers(heat) for kind, heat in zip(asked, maps, strict=True)},
        "pictures": files,
    }


def _whole(path: Path, transform: Transform, seen: Pixels) -> Pixels:
    """The photo in its own shape, where the network sees all of it; else the square that it sees."""
    if transform.resize == "crop":
        return seen
    picture = decoded(path, lambda data: thumbnail(data, max(_WIDTH, transform.size)))
    if isinstance(picture, PhotoError):
        raise DataError(f"{printable(str(path))} changed while it was read: {picture}")
    return np.asarray(picture)


def chosen(predictions: Sequence[Prediction], photos: int, classes: Sequence[str]) -> list[Prediction]:
    """The surest wrong ones (three quarters of `photos`, or as many as there are), then the surest right one of each
    class in turn.
    """
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


def _sample(predictions: Sequence[Prediction], photos: int, seed: int) -> list[Prediction]:
    picked = np.random.default_rng(seed).permutation(len(predictions))[:photos]
    return [predictions[i] for i in picked]


def _read(
    wanted: Sequence[Prediction], where: Mapping[str, Path], model: bundle.Bundle
) -> tuple[list[Prediction], Pixels]:
    """Those photos that can be read still, and their pixels (N, H, W, 3)."""
    read = ahead(lambda p: pixels(where[p.path], model.transform), wanted, depth=32)
    found = [(p, pixel) for p, pixel in read if not isinstance(pixel, PhotoError)]
    side = model.transform.size
    stacked = np.stack([pixel for _, pixel in found]) if found else np.zeros((0, side, side, 3), np.uint8)
    return [p for p, _ in found], stacked


def _maps(
    model: bundle.Bundle, parts: bundle.Parts, pictures: Pixels, asked: Sequence[Sequence[str]]
) -> heat_maps.Heat:
    """Maps (N, K, h, w) of K classes for each picture."""
    if not asked:
        return np.zeros((0, 1, 1, 1), np.float32)
    classes = np.array([[model.classes.index(name) for name in names] for names in asked], dtype=np.int64)
    return heat_maps.evidence(parts, pictures, classes, test_views=model.about.test_views)


def _entry(p: Prediction, maps: heat_maps.Heat) -> Document:
    predicted, true = (whole_numbers(heat) for heat in maps)
    return {
        "path": p.path,
        "true": p.true,
        "predicted": p.predicted,
        "confidence": round(p.confidence, 6),
        "maps": {"predicted": predicted, "true": true},
    }


def whole_numbers(heat: heat_maps.Heat) -> list[list[int]]:
    """A map (h, w) of 0..1 as rows of 0..255."""
    rows: list[list[int]] = np.round(heat * 255).astype(int).tolist()
    return rows
