"""Whether fine-tuning gains less on photos of another kind than on photos like those trained on.

Kumar et al. (Fine-tuning can distort pretrained features and underperform out-of-distribution, ICLR 2022) find that
what fine-tuning gains over a frozen network on photos like the training photos, it can lose on others. A study that is
reported on photos of another kind (`--test OTHER`, found to differ by `evidence.domain_shift`) can tell: the gain there
is on the photos reported on, the gain here on the validation photos. Both are of the models before a refit, which would
have trained on the validation photos. Those also chose the epochs of both strategies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from frostline import wording
from frostline.documents import Study
from frostline.documents.study import Gain, OutOfDistribution
from frostline.evidence.claims import CONTRADICTED, PHOTOS, SUPPORTED, UNTESTED
from frostline.evidence.claims.evidence import LEVEL
from frostline.evidence.claims.measure import STATEMENTS
from frostline.stats import decision
from frostline.stats.decision import Difference
from frostline.stats.predictions import Prediction, clusters, read_predictions
from frostline.training.strategy import BEFORE_REFIT, VALIDATION

CLAIM = "{} gains less on photos of another kind than on photos like those trained on."
_KNOWN = 1.959964


class Apart(NamedTuple):
    """How far two gains are apart."""

    difference: float
    ci: tuple[float, float]
    p_value: float
    """Two-sided; below 0.05 exactly where the interval excludes 0."""


def measure(run: Path, document: Study, predictions: Mapping[str, Sequence[Prediction]]) -> OutOfDistribution | None:
    """``out_of_distribution`` of study.json; None where the photos reported on were not tested for being of another
    kind, or no two strategies tell whether unfreezing helps.

    Parameters
    ----------
    run
        The run folder, with the predictions of each strategy.
    document
        study.json with ``shift`` and ``decision``.
    predictions
        By strategy, of the photos reported on.
    """
    shift, decided = document.get("shift"), document.get("decision")
    about = decided["unfreezing"] if decided else None
    if shift is None or about is None:
        return None
    names = about["unfrozen"], about["frozen"]
    claim = CLAIM.format(f"{names[0][:1].upper()}{names[0][1:]}")
    if not shift["differs"]:
        return _untested(claim, "no difference shown between the two kinds of photos")
    here = [_read(run / name / VALIDATION) for name in names]
    before = [_read(run / name / BEFORE_REFIT) for name in names]
    if not all(here):
        return _untested(claim, "no photos like those trained on were held out")
    unrefitted = all(before) or not any("refit" in row for row in document["strategies"] if row["name"] in names)
    there = before if all(before) else [predictions[name] for name in names]
    unequal = document["dataset"].get("unequal", False)
    gains = [_gain(unfrozen, frozen, unequal) for unfrozen, frozen in (here, there)]
    found = apart(gains[1], gains[0])
    corrected = min(1.0, STATEMENTS * found.p_value)
    verdict = PHOTOS if corrected >= LEVEL else SUPPORTED if found.difference < 0 else CONTRADICTED
    metric = decision.metric_of(unequal)
    return {
        "claim": claim,
        "measured": _words(names, metric, gains, found, unrefitted=unrefitted),
        "verdict": verdict,
        "unfrozen": names[0],
        "frozen": names[1],
        "metric": metric,
        "here": _as_gain(gains[0]),
        "there": _as_gain(gains[1]),
        "difference": found.difference,
        "ci": found.ci,
        "p_value": found.p_value,
        "p_corrected": corrected,
        "before_refit": unrefitted,
    }


def apart(there: Difference, here: Difference) -> Apart:
    """The gain there less the gain here, of independent photos.

    The interval is made of those of the two gains, each on the side that matters (MOVER; Zou and Donner, Statistics in
    Medicine, 2008), so that it inherits their groups and their few photos.
    """
    difference = there.difference - here.difference
    below = np.hypot(there.difference - there.ci[0], here.ci[1] - here.difference)
    above = np.hypot(there.ci[1] - there.difference, here.difference - here.ci[0])
    towards_0 = float(below if difference > 0 else above)
    p = 2 * float(stats.norm.sf(_KNOWN * abs(difference) / towards_0)) if towards_0 > 0 else 1.0
    return Apart(difference, (float(difference - below), float(difference + above)), p)


def _untested(claim: str, why: str) -> OutOfDistribution:
    tested_by = "frostline study DATA --test OTHER, with photos of another kind in OTHER"
    return {"claim": claim, "measured": why, "verdict": UNTESTED, "tested_by": tested_by}


def _read(file: Path) -> list[Prediction]:
    return read_predictions(file, probabilities=False) if file.exists() else []


def _gain(unfrozen: Sequence[Prediction], frozen: Sequence[Prediction], unequal: bool) -> Difference:
    labels = np.unique([p.true for p in unfrozen], return_inverse=True)[1]
    a, b = (np.array([p.correct for p in own]) for own in (unfrozen, frozen))
    return decision.difference(a, b, labels, unequal, clusters(unfrozen))


def _as_gain(found: Difference) -> Gain:
    return {"difference": found.difference, "ci": found.ci, "photos": found.photos}


def _words(names: tuple[str, str], metric: str, gains: Sequence[Difference], found: Apart, *, unrefitted: bool) -> str:
    here, there = (f"{wording.points(gain.difference)} points ({wording.interval(gain.ci)})" for gain in gains)
    models = "" if unrefitted else ", there of models that were then trained on the validation photos too"
    return (
        f"{names[0]} less {names[1]}, {metric}: {here} on {gains[0].photos:,} validation photos like those trained on, "
        f"{there} on {gains[1].photos:,} photos of the other kind; the second less the first: "
        f"{wording.points(found.difference)} points ({wording.interval(found.ci)}). The validation photos chose the "
        f"epochs{models}. One training run of each"
    )
