"""What a study measures once its strategies are done: causes of errors, photos made worse, fewer photos. Each step ends on disk.

Only where two pretrained strategies are compared, or where robustness was asked for: a single strategy's run ends with its figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from frostline.config import Config
from frostline.evidence import claims, error_causes, learning_curve, robustness
from frostline.progress import Progress
from frostline.stats.calibration import calibration, cross_fitted, reliability
from frostline.stats.predictions import Prediction
from frostline.stats.probabilities import softmax
from frostline.training.prepare import Prepared

Row = dict[str, Any]


def wanted(config: Config) -> bool:
    """Whether a study of this configuration measures more than its strategies."""
    asked = config.robustness not in ("auto", "0")
    return asked or sum(s.weights == "pretrained" for s in config.strategies) > 1


def gather(
    run: Path,
    prepared: Prepared,
    document: Row,
    predictions: Mapping[str, Sequence[Prediction]],
    *,
    progress: Progress,
    log: Callable[..., None],
    write: Callable[[], None],
    photos: int | None = None,
) -> None:
    """Measure what `document` lacks, put it in, and measure the claims anew; `write` is called after each step.

    Parameters
    ----------
    document
        A study's, with every strategy finished.
    predictions
        What each strategy said of the photos reported on.
    photos
        How many photos to measure robustness on, anew; None = as the configuration says, if that is not done yet.

    Raises
    ------
    RunError, BundleError
        A file is gone, or there is no room.
    """
    _calibrations(document, predictions)
    steps: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("error causes", lambda: _causes(run, prepared, document, predictions, progress)),
        ("robustness", lambda: _robustness(run, prepared, document, photos, progress)),
        ("fewer photos", lambda: _curve(run, prepared, document, progress, log)),
    )
    for name, step in steps:
        if step():
            document["claims"] = measured(run, document, predictions)
            write()
            log("evidence", step=name)


def measured(run: Path, document: Row, predictions: Mapping[str, Sequence[Prediction]]) -> list[claims.Claim]:
    """The seven claims, from what a run folder and its document hold."""
    rows = {row["name"]: row for row in document["strategies"]}
    said = {name: robustness.read(run / name) for name in rows if "robustness" in rows[name]}
    known = claims.Evidence(
        {name: one for name, one in said.items() if one is not None},
        document.get("error_causes", {}),
        _known_curve(run, document),
    )
    return claims.measure(rows, predictions, known)


def _known_curve(run: Path, document: Row) -> Row | None:
    """The study's own learning curve; where a sweep over numbers of photos was run too, that one's crossing."""
    own = document.get("data_curve")
    swept = learning_curve.from_sweep(run, document)
    if swept is None:
        return own
    return {
        "photos_to_95": {"frozen": {"photos": swept["differences"][0]["photos"], "at_most": True}},
        **(own or {}),
        **swept,
    }


def _calibrations(document: Row, predictions: Mapping[str, Sequence[Prediction]]) -> None:
    """Give the rows of an older run what later ones have from the start."""
    for row in document["strategies"]:
        if "calibration" in row:
            continue
        classes = [c["class"] for c in row["per_class"]]
        said = predictions[row["name"]]
        shares = np.clip([[p.probabilities[c] for c in classes] for p in said], 1e-7, 1)
        labels = np.array([classes.index(p.true) for p in said])
        plain = softmax(np.log(shares) * row["temperature"], 1.0)
        fitted = document["reported_on"] == "test"
        stages = {
            "before": plain,
            "after": shares if fitted else cross_fitted(np.log(shares), labels, document["seed"]),
        }
        row["calibration"] = {k: calibration(p, labels, document["seed"]) for k, p in stages.items()}
        row["reliability"] = {k: reliability(p, labels) for k, p in stages.items()}


def _causes(
    run: Path, prepared: Prepared, document: Row, predictions: Mapping[str, Sequence[Prediction]], progress: Progress
) -> bool:
    if set(document.get("error_causes", {})) == set(predictions):
        return False
    found = error_causes.measure(prepared, progress)
    error_causes.write(run / error_causes.FILE, prepared.reported(), found)
    document["error_causes"] = {name: error_causes.tested(found, said) for name, said in predictions.items()}
    return True


def _robustness(run: Path, prepared: Prepared, document: Row, photos: int | None, progress: Progress) -> bool:
    reported = len(prepared.reported())
    count = robustness.photo_count(prepared.config, reported) if photos is None else min(photos, reported)
    rows = {row["name"]: row for row in document["strategies"]}
    strategies = [s for s in prepared.config.strategies if s.name in rows]
    done = photos is None and all("robustness" in row for row in rows.values())
    if not count or done:
        return False
    robustness.run(run, prepared, strategies, count, progress)
    said = {name: one for name in rows if (one := robustness.read(run / name)) is not None}
    for name, one in said.items():
        rows[name]["robustness"] = robustness.row(one)
    pretrained = [s.name for s in reversed(strategies) if s.weights == "pretrained"]
    document["robustness"] = {
        "photos": count,
        "reported": reported,
        "conditions": 60,
        "note": "the causes act on the prepared photo, at the size that the network sees",
        "pairs": [
            robustness.pair(a, said[a], b, said[b]) for i, a in enumerate(pretrained) for b in pretrained[i + 1 :]
        ],
    }
    return True


def _curve(run: Path, prepared: Prepared, document: Row, progress: Progress, log: Callable[..., None]) -> bool:
    names = {row["name"] for row in document["strategies"]}
    if "data_curve" in document or not set(learning_curve.PAIR) <= names:
        return False
    document["data_curve"] = learning_curve.curve(run, prepared, prepared.config.strategies, progress, log)
    return True
