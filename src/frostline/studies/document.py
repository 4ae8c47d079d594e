"""What study.json says: the data set, the comparisons, the answer."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import numpy as np
import torch

import frostline
from frostline import wording
from frostline.documents import Study
from frostline.documents.decision import Decision
from frostline.documents.shared import Cleaned, Dataset, LeakageFigures, Machine, ReportedGroups
from frostline.documents.strategy import StrategyRow
from frostline.documents.study import Comparison
from frostline.evidence import leakage
from frostline.networks import devices
from frostline.networks.engine import processor
from frostline.parallel import thread_count
from frostline.photos import sample
from frostline.photos.manifest import Manifest
from frostline.photos.split import shared_groups
from frostline.progress import Progress
from frostline.recipes import LEAST_TO_TELL, USUAL_LOSS
from frostline.stats import clusters as dependence
from frostline.stats import decision, intervals
from frostline.stats.class_balance import unequal
from frostline.stats.predictions import Prediction, clusters, clusters_of_all
from frostline.training.prepare import Prepared


def files_of(prepared: Prepared) -> dict[str, Path]:
    """The file of each photo reported on, by its path."""
    root = (prepared.others or prepared.photos).root
    return {p.path: root / p.path for p in prepared.reported()}


def begin(prepared: Prepared) -> Study:
    """What a run's document holds before its first figure."""
    return {
        "frostline": frostline.__version__,
        "created": datetime.now(UTC).isoformat(timespec="microseconds"),
        "status": "running",
        "seed": prepared.config.seed,
        "protocol": prepared.config.protocol,
        "preset": prepared.config.preset,
        "balance": prepared.config.balance,
        "validation_stops": len(prepared.split.validation) >= LEAST_TO_TELL,
        "backbones": sorted({s.backbone for s in prepared.config.strategies if s.weights == "pretrained"}),
        "loss": "robust" if any(s.recipe.robust for s in prepared.config.strategies) else USUAL_LOSS,
        "reported_on": prepared.reported_on,
        "dataset": _dataset(prepared),
        "strategies": [],
        "comparisons": [],
        "claims": [],
        "answer": "",
        "answer_detail": "",
        "seconds": 0.0,
        "machine": _machine(prepared),
    }


def _machine(prepared: Prepared) -> Machine:
    device = prepared.device
    machine: Machine = {
        "cpu": processor(),
        "cores": thread_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": device.type,
        "deterministic": devices.deterministic(device),
        "precision": prepared.precision,
    }
    return machine if device.type == "cpu" else {**machine, "device_name": devices.name(device)}


def _dataset(prepared: Prepared) -> Dataset:
    photos = prepared.photos
    root = photos.root.resolve()
    others = prepared.others
    return {
        "name": photos.name,
        "root": str(root),
        "test_root": str(others.root.resolve()) if others else None,
        "source": str(photos.packed or root),  # what the user named: `root` is in the cache where photos came packed
        "test_source": str(others.packed or others.root.resolve()) if others else None,
        "photos": len(photos.photos),
        "classes": prepared.classes,
        "counts": photos.counts(),
        "unequal": unequal(photos.counts().values()),
        "train": len(prepared.split.train),
        "validation": len(prepared.split.validation),
        "test": len(others.photos) if others else len(prepared.split.test),
        "skipped": [{"path": s.path, "why": s.why} for s in prepared.skipped],
        "cleaned": cast(Cleaned, prepared.cleaned) if prepared.cleaned else None,
        "twins": _paths(photos),
        "near_twins": leakage.near_duplicates(prepared),
        "conflicts": [[{"path": p.path, "class": p.label} for p in group] for group in photos.conflicts()],
        "sample": _is_sample(root),
        "test_sample": others is not None and _is_sample(others.root),
        "reported_groups": _reported_groups(prepared),
        "shared_groups_only": others is not None and bool(shared_groups(photos, others)),
    }


def _reported_groups(prepared: Prepared) -> ReportedGroups | None:
    """Of how many groups the reported photos are; None where each photo is one of its own."""
    photos = prepared.reported()
    own = dependence.numbered(prepared.clusters(photos))
    if own is None:
        return None
    count, grouped = int(own.max()) + 1, any(photo.group for photo in photos)
    return {"groups": count, "words": dependence.words(len(photos), count, grouped=grouped)}


def report_near_duplicates(
    dataset: Dataset, progress: Progress, measure: Callable[[], LeakageFigures | None] = lambda: None
) -> None:
    """Say how many near-duplicates there are and, once `measure` has measured it, what a split that ignores them
    would have shown.
    """
    found = dataset.get("near_twins")  # an older run has none
    if found and found["groups"]:
        found["naive"] = found["naive"] or measure()
        found["words"] = leakage.sentence(found)
        progress.say(found["words"])


def _is_sample(folder: Path) -> bool:
    return (folder / sample.MARKER).is_file()


def _paths(photos: Manifest) -> list[list[str]]:
    return [[p.path for p in group] for group in photos.duplicates()]


def comparisons(predictions: Mapping[str, Sequence[Prediction]]) -> list[Comparison]:
    """Every pair of finished strategies on the same photos, the later one in the configuration first."""
    correct = {name: np.array([p.correct for p in own]) for name, own in predictions.items()}
    found = intervals.compare_all(correct, clusters_of_all(predictions))
    return [cast(Comparison, asdict(pair)) for pair in found]


def decide(
    rows: Sequence[StrategyRow], document: Study, predictions: Mapping[str, Sequence[Prediction]]
) -> Decision | None:
    """Which strategy to ship, and whether unfreezing helps; None where no strategy has an accuracy.

    Parameters
    ----------
    rows
        Of the strategies that have ended.
    document
        What study.json holds so far, the comparisons among it.
    predictions
        Of the photos reported on, by strategy.
    """
    dataset = document["dataset"]
    unequal = dataset.get("unequal", False)  # an older run's rows have no macro recall
    best = decision.best_strategy(rows, unequal)
    if best is None:
        return None
    photos = wording.photos_reported(document)
    count = dataset["test"] if document["reported_on"] == "test" else dataset["validation"]
    ship = decision.shipped(best, rows, unequal, f"{wording.headline(best, unequal)} on {count:,} {photos}")
    about, pair = None, decision.unfrozen_pair(rows, unequal)
    if pair is not None:
        a, b = pair[0]["name"], pair[1]["name"]
        found = {(x, y): _difference(predictions[x], predictions[y], unequal) for x, y in _pairs(predictions)}
        if (a, b) not in found:
            found[a, b] = _difference(predictions[a], predictions[b], unequal)
            del found[b, a]
        family = [other.p_value for other in found.values()]
        about = decision.unfreezing(a, b, found[a, b], decision.metric_of(unequal), photos, family)
    return decision.decide(ship, about, decision.ONE_TRAINING)


def _pairs(predictions: Mapping[str, Sequence[Prediction]]) -> list[tuple[str, str]]:
    return list(itertools.combinations(reversed(list(predictions)), 2))


def _difference(a: Sequence[Prediction], b: Sequence[Prediction], unequal: bool) -> decision.Difference:
    labels = np.unique([p.true for p in a], return_inverse=True)[1]
    right, other = (np.array([p.correct for p in own]) for own in (a, b))
    return decision.difference(right, other, labels, unequal, clusters(a))


def answer(rows: Sequence[StrategyRow], document: Study) -> tuple[str, str]:
    """The decision in words: which strategy to ship, with its figure and interval; and whether unfreezing helps, with
    what else there is to know.
    """
    found = document.get("decision")
    if found is None:
        return "", ""
    model, about = found["ship"]["model"], found["unfreezing"]
    best = next(row for row in rows if row["name"] == model)
    told = {about["unfrozen"], about["frozen"]} if about else set()
    others = [c for c in document["comparisons"] if model in (c["a"], c["b"]) and {c["a"], c["b"]} != told]
    detail = " ".join(f"{c['verdict'][0].upper()}{c['verdict'][1:]}." for c in others)
    if document["dataset"].get("unequal", False) and detail:
        detail = f"By plain accuracy: {detail}"
    detail = f"{about['words']} {found['note']} {detail}" if about else detail
    if unmeasured := [row["class"] for row in best.get("per_class", []) if not row["support"]]:
        detail += f" No photos of {', '.join(unmeasured)} were reported on: nothing was measured of that class."
    if "accuracy_as_given" in best:
        low, high = (100 * bound for bound in best["accuracy_as_given_ci"])
        detail += (
            f" On all photos with their original labels: accuracy {100 * best['accuracy_as_given']:.1f} % (95 % CI "
            f"{low:.1f} to {high:.1f}) on {best['photos_as_given']:,}."
        )
    if "accuracy_with_known" in best:
        low, high = (100 * bound for bound in best["accuracy_with_known_ci"])
        left = best["photos_with_known"] - document["dataset"]["test"]
        detail += (
            f" Left out of these figures: {left:,} photos of the test folder that are also trained on, as they are, as "
            f"near-duplicates or by others of their group. With them: accuracy {100 * best['accuracy_with_known']:.1f} "
            f"% (95 % CI {low:.1f} to {high:.1f}) on {best['photos_with_known']:,}."
        )
    if document["dataset"].get("shared_groups_only"):
        detail += " All test photos are of groups that were trained on: this says little about new groups."
    if groups := document["dataset"].get("reported_groups"):
        detail += f" {groups['words']}"
    return found["ship"]["words"], detail.strip()


def provisional(document: Study, missing: Sequence[str]) -> str:
    """What can be said before all strategies have ended: figures, and no advice."""
    unequal = document["dataset"].get("unequal", False)
    rows = document["strategies"]
    best = decision.best_strategy(rows, unequal)
    if best is None:
        return ""
    figures = f"{wording.headline(best, unequal)} on {wording.photos_reported(document)}"
    others = f"{' and '.join(missing)} did not run yet, so no strategy is chosen."
    if len(rows) == 1:
        return f"First result, {best['name']}: {figures}. {others}"
    names = " and ".join(row["name"] for row in rows)
    return f"So far {best['name']} has the highest validation accuracy of {names}: {figures}. {others}"
