"""Whole reports on studies without any effect: how often does one say anything false?

Three equal strategies, photos whose light and sharpness have nothing to do with errors, a learning curve that is level
between strategies. A report is false where it says that one strategy beats another, that unfreezing helps or harms,
that a claim is supported or contradicted, or that wrong photos differ from correct ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from frostline.evidence import error_causes
from frostline.evidence.claims import Evidence
from frostline.stats import decision, intervals
from simulated.claims import CLASSES, NAMES, false_verdicts, hardness, null
from simulated.line import Line, Study


def false_statements(rng: np.random.Generator, photos: int, groups: int | None) -> list[str]:
    """What the report on one such study says falsely."""
    evidence = null(rng, photos, groups)
    correct = {name: evidence.correct(name) for name in NAMES}
    pairs = intervals.compare_all(correct, evidence.clusters)
    said = [pair.verdict for pair in pairs if pair.p_corrected < 0.05]
    labels = np.array([CLASSES.index(p.true) for p in evidence.predictions["frozen"]])
    found = decision.difference(correct["fine-tuned"], correct["frozen"], labels, clusters=evidence.clusters)
    about = decision.unfreezing(
        "fine-tuned", "frozen", found, "accuracy", "test photos", [pair.p_value for pair in pairs]
    )
    said += [about["words"]] if about["helps"] != "unknown" else []
    said += [f"claim {number}" for number in false_verdicts(replace(evidence, unfreezing=about))]
    said += [row["verdict"] for row in _causes(rng, evidence) if row["verdict"] != error_causes.NOTHING]
    return said


def _causes(rng: np.random.Generator, evidence: Evidence) -> list[error_causes.ErrorCause]:
    count = len(evidence.predictions["frozen"])
    clusters = np.arange(count) if evidence.clusters is None else evidence.clusters
    within = 0.0 if evidence.clusters is None else 0.3
    measures = {name: hardness(rng, clusters, within) for name in error_causes.MEASURES}
    rows = error_causes.tested(measures, evidence.predictions, evidence.clusters)
    return [row for own in rows.values() for row in own]


def any_false(photos: int, groups: int | None) -> Study:
    return lambda rng: bool(false_statements(rng, photos, groups))


def lines() -> Iterator[Line]:
    for photos, groups in ((90, None), (345, None), (690, None), (600, 40), (300, 20)):
        of = f"{photos} photos" + (f" of {groups} groups" if groups else "")
        yield Line("a report without any effect says something false", of, any_false(photos, groups), 0.0, 0.05)
