"""Proof that an artefact predicts what its bundle predicts: from image file to label, in an interpreter without
frostline."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from frostline.bundles.bundle import Bundle
from frostline.documents.bundle import ProofFigures
from frostline.errors import PhotoError, RunError
from frostline.exports import run_example
from frostline.parallel import ahead, groups
from frostline.photos.loading import pixels
from frostline.photos.manifest import Photo
from frostline.progress import Step
from frostline.stats import intervals
from frostline.stats.probabilities import Floats

AGREE = 0.999
"""Share of photos on which a float32 artefact has to predict the class that its bundle predicts."""
TIE = 0.02
"""Where less separates a photo's two best classes, rounding in the last place of a pixel may decide. One such photo is
forgiven: fewer than a thousand photos can't tell 99.9 % from 100 %."""
LOSS = 0.005
"""Accuracy that int8 may lose."""
TIMED = 50


@dataclass(frozen=True)
class ExampleResult:
    """The output of an artefact's example for photo files."""

    classes: list[str]
    probabilities: list[list[float] | None]
    faults: dict[int, str]
    latency_ms: list[float]
    """Of decoded photos, one at a time."""
    file_ms: list[float]
    """The same with reading and decoding."""
    throughput: float


def run_on(example: Path, files: Sequence[Path], timed: int = TIMED) -> ExampleResult:
    """Run an artefact's example on photo files, in a fresh interpreter that sees neither this package nor the user's
    settings.

    Raises
    ------
    RunError
        It could not run at all, or frostline was imported in there.
    """
    done = subprocess.run(  # noqa: S603 - our own interpreter on our own file
        [sys.executable, "-I", str(Path(run_example.__file__)), str(example.resolve())],
        input=json.dumps({"files": [str(f.resolve()) for f in files], "timed": timed}),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RunError(f"the artefact's own example, {example.name}, can't run: {lines[-1][:300]}")
    printed = json.loads(done.stdout)
    if printed["frostline"]:
        raise RunError("the proof is void: the artefact's example imported frostline")
    faults = {int(k): v for k, v in printed["faults"].items()}
    return ExampleResult(
        printed["classes"],
        printed["probabilities"],
        faults,
        printed["latency_ms"],
        printed["file_ms"],
        printed["throughput"],
    )


def bundle_probabilities(bundle: Bundle, photos: Sequence[Photo], root: Path, step: Step) -> Floats:
    """The bundle's own probabilities (N, C) from the same files; a row of NaN where one can't be read."""
    rows: list[np.ndarray] = []
    unread = np.full(len(bundle.classes), np.nan)

    def work(group: list[Photo]) -> list[np.ndarray]:
        loaded = [pixels(root / photo.path, bundle.transform) for photo in group]
        good = [p for p in loaded if not isinstance(p, PhotoError)]
        found = iter(bundle.probabilities(np.stack(good)) if good else ())
        return [unread if isinstance(p, PhotoError) else next(found) for p in loaded]

    for group, found in ahead(work, groups(photos, bundle.batch), depth=16):
        rows += found
        step.advance(len(group))
    return np.stack(rows)


def compare(result: ExampleResult, bundle: Floats, labels: np.ndarray) -> ProofFigures:
    """Compare an artefact with its bundle.

    Parameters
    ----------
    bundle
        (N, C) probabilities of the bundle, as `bundle_probabilities` gives them.
    labels
        (N,) class indices.
    """
    there = np.array([p is not None for p in result.probabilities]) & ~np.isnan(bundle).any(1)
    if not there.any():
        first = next(iter(result.faults.values()), "the bundle can't read them")
        raise RunError(f"none of the {len(labels)} photos of the proof could be read; the first: {first}")
    probabilities = np.array([p if p is not None else [np.nan] * bundle.shape[1] for p in result.probabilities])[there]
    reference, truth = bundle[there], labels[there]
    same = probabilities.argmax(1) == reference.argmax(1)
    correct, bundle_correct = probabilities.argmax(1) == truth, reference.argmax(1) == truth
    best = np.sort(reference, 1)
    gaps = (best[:, -1] - best[:, -2])[~same]
    low, high = intervals.mean_interval(correct.astype(float))
    change = intervals.compare("artefact", correct, "bundle", bundle_correct)
    return {
        "photos": int(there.sum()),
        "unreadable": int((~there).sum()),
        "agreement": float(same.mean()),
        "disagree": int((~same).sum()),
        "disagree_gaps": [round(float(g), 6) for g in np.sort(gaps)[:20]],
        "largest_difference": float(np.abs(probabilities - reference).max()),
        "mean_difference": float(np.abs(probabilities - reference).max(1).mean()),
        "accuracy": float(correct.mean()),
        "accuracy_ci": [low, high],
        "bundle_accuracy": float(bundle_correct.mean()),
        "accuracy_change": change.difference,
        "accuracy_change_ci": list(change.ci),
        "accuracy_change_p": change.p_value,
        "latency_ms": round(statistics.median(result.latency_ms), 3),
        "throughput": round(result.throughput, 1),
    }


def failure(result: ExampleResult, found: ProofFigures, classes: Sequence[str], *, int8: bool) -> str:
    """Why the proof fails, in words; empty where it holds."""
    if result.classes != list(classes):
        return f"its classes are {', '.join(result.classes)}, the bundle's {', '.join(classes)}"
    if found["unreadable"]:
        number, why = next(iter(result.faults.items()), (0, "unreadable"))
        return f"{found['unreadable']} photos could not be read by its example, the first is number {number + 1}: {why}"
    if int8:
        return _lost(found)
    return _disagrees(found)


def _disagrees(found: ProofFigures) -> str:
    ties = [gap for gap in found["disagree_gaps"] if gap < TIE]
    if found["agreement"] >= AGREE or (found["disagree"] == 1 and ties):
        return ""
    return (
        f"it predicts another class than the bundle for {found['disagree']} of {found['photos']} photos, "
        f"agreement {100 * found['agreement']:.1f} %, expected {100 * AGREE:.1f} %"
    )


def _lost(found: ProofFigures) -> str:
    low, high = (100 * x for x in found["accuracy_change_ci"])
    loss = -found["accuracy_change"]
    if loss <= LOSS or high >= 0:
        return ""
    return (
        f"int8 loses {100 * loss:.1f} points on {found['photos']} photos (95 % CI of the change {low:.1f} to "
        f"{high:.1f}), more than {100 * LOSS:.1f} and than chance explains"
    )
