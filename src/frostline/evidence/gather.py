"""What a study measures once its strategies are done: causes of errors, robustness, fewer photos. Each step ends on
disk.

Only where two pretrained strategies are compared, or where robustness was asked for: a single strategy's run ends
with its figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from frostline.config import Config
from frostline.documents import Study
from frostline.documents.study import Claim, DataCurve
from frostline.evidence import claims, error_causes, learning_curve, out_of_distribution, robustness
from frostline.progress import Progress
from frostline.stats.calibration import calibration, cross_fitted
from frostline.stats.clusters import Clusters
from frostline.stats.predictions import Prediction, clusters, clusters_of_all, read_predictions
from frostline.stats.probabilities import softmax
from frostline.stats.reliability import reliability
from frostline.training.prepare import Prepared
from frostline.training.stages import VALIDATION_BY_EPOCH, read_validation_by_epoch

Predictions = Mapping[str, Sequence[Prediction]]
"""By strategy, on the photos reported on."""


def wanted(config: Config) -> bool:
    """Whether a study of this configuration measures more than its strategies."""
    asked = config.robustness not in ("auto", "0")
    return asked or sum(s.weights == "pretrained" for s in config.strategies) > 1


@dataclass(frozen=True)
class Gathering:
    """A study whose strategies are finished, and where what else is measured goes."""

    run: Path
    prepared: Prepared
    document: Study
    """study.json: gets what it lacks."""
    predictions: Predictions
    progress: Progress
    log: Callable[..., None]
    write: Callable[[], None]
    """Writes `document`; called after each step."""


def gather(study: Gathering, photos: int | None = None, *, everything: bool = False) -> None:
    """Measure what the document of a study lacks, put it in, and measure the claims anew.

    Parameters
    ----------
    photos
        How many photos to corrupt, anew; None = as the configuration says, if that is not done yet.
    everything
        Measure the learning curve even where the configuration says no.

    Raises
    ------
    RunError, BundleError
        A file is gone, or there is no room.
    """
    _add_calibrations(study.document, study.predictions)
    steps: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("photos of another kind", lambda: _add_out_of_distribution(study)),
        ("error causes", lambda: _add_error_causes(study)),
        ("robustness", lambda: _add_robustness(study, photos)),
        ("fewer photos", lambda: _add_learning_curve(study)),
    )
    if study.prepared.config.learning_curve == "no" and not everything:
        steps = steps[:-1]
    for name, step in steps:
        if step():
            study.document["claims"] = measured_claims(study.run, study.document, study.predictions)
            study.write()
            study.log("evidence", step=name)


def measured_claims(run: Path, document: Study, predictions: Predictions) -> list[Claim]:
    """The seven claims, from what a run folder and its document hold."""
    rows = {row["name"]: row for row in document["strategies"]}
    read = {name: robustness.read(run / name) for name, row in rows.items() if "robustness" in row}
    kept = {name: read_validation_by_epoch(run / name / VALIDATION_BY_EPOCH) for name in rows}
    known = claims.Evidence(
        rows,
        predictions,
        {name: results for name, results in read.items() if results is not None},
        document.get("error_causes", {}),
        _known_curve(run, document),
        validation={name: found for name, found in kept.items() if found is not None},
        training_photos=document["dataset"]["train"],
        unfreezing=document["decision"]["unfreezing"] if "decision" in document else None,
        clusters=clusters_of_all(predictions),
        validation_clusters=_validation_clusters(run, predictions),
    )
    return claims.measure(known)


def _validation_clusters(run: Path, predictions: Predictions) -> Clusters | None:
    """The clusters of the validation photos, which may be the ones reported on."""
    for name, own in predictions.items():
        file = run / name / "validation.csv"
        return clusters(read_predictions(file, probabilities=False) if file.exists() else own)
    return None


def _known_curve(run: Path, document: Study) -> DataCurve | None:
    """The study's own learning curve; where a sweep over numbers of photos was run too, that one's crossing."""
    own = document.get("data_curve")
    swept = learning_curve.from_sweep(run, document)
    if swept is None:
        return own
    fewest: DataCurve = {
        "photos_to_95": {"frozen": {"photos": swept["differences"][0]["photos"], "at_most": True}},
    }
    return {**fewest, **(own or {}), **swept}


def _add_calibrations(document: Study, predictions: Predictions) -> None:
    """Give the rows of an older run what later ones have from the start."""
    for row in document["strategies"]:
        if "calibration" in row:
            continue
        classes = [c["class"] for c in row["per_class"]]
        own = predictions[row["name"]]
        shares = np.clip([[p.probabilities[c] for c in classes] for p in own], 1e-7, 1)
        labels = np.array([classes.index(p.true) for p in own])
        plain = softmax(np.log(shares) * row["temperature"], 1.0)
        alike = clusters(own)
        fitted = document["reported_on"] == "test"
        after = shares if fitted else cross_fitted(np.log(shares), labels, document["seed"], alike)
        before, scaled = (calibration(p, labels, document["seed"], alike) for p in (plain, after))
        row["calibration"] = {"before": before, "after": scaled}
        row["reliability"] = {
            "before": reliability(plain, labels, clusters=alike),
            "after": reliability(after, labels, clusters=alike),
        }


def _add_out_of_distribution(study: Gathering) -> bool:
    if "out_of_distribution" in study.document:
        return False
    found = out_of_distribution.measure(study.run, study.document, study.predictions)
    if found is None:
        return False
    study.document["out_of_distribution"] = found
    return True


def _add_error_causes(study: Gathering) -> bool:
    if set(study.document.get("error_causes", {})) == set(study.predictions):
        return False
    found = error_causes.measure(study.prepared, study.progress)
    error_causes.write(study.run / error_causes.FILE, study.prepared.reported(), found)
    study.document["error_causes"] = error_causes.tested(found, study.predictions, clusters_of_all(study.predictions))
    return True


def _add_robustness(study: Gathering, photos: int | None) -> bool:
    prepared = study.prepared
    reported = len(prepared.reported())
    count = robustness.photo_count(prepared.config, reported) if photos is None else min(photos, reported)
    rows = {row["name"]: row for row in study.document["strategies"]}
    strategies = [s for s in prepared.config.strategies if s.name in rows]
    done = photos is None and all("robustness" in row for row in rows.values())
    if not count or done:
        return False
    robustness.run(study.run, prepared, strategies, count, study.progress)
    results = {name: found for name in rows if (found := robustness.read(study.run / name)) is not None}
    for name, found in results.items():
        rows[name]["robustness"] = robustness.figures(found)
    pretrained = [s.name for s in reversed(strategies) if s.weights == "pretrained"]
    study.document["robustness"] = {
        "photos": count,
        "reported": reported,
        "conditions": robustness.VERSIONS,
        "note": "the corruptions act on the prepared photo, at the size that the network sees",
        "pairs": robustness.pairs(pretrained, results),
    }
    return True


def _add_learning_curve(study: Gathering) -> bool:
    names = {row["name"] for row in study.document["strategies"]}
    if "data_curve" in study.document or not set(learning_curve.PAIR) <= names:
        return False
    strategies = study.prepared.config.strategies
    study.document["data_curve"] = learning_curve.curve(
        study.run,
        study.prepared,
        strategies,
        {row["name"]: row for row in study.document["strategies"]},
        study.progress,
        study.log,
    )
    return True
