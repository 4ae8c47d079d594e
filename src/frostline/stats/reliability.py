"""The bins of a reliability diagram."""

from __future__ import annotations

import numpy as np

from frostline.documents.strategy import ReliabilityBin
from frostline.stats.calibration import BINS, Labels, Probabilities
from frostline.stats.clusters import Clusters
from frostline.stats.intervals import mean_interval


def reliability(
    probabilities: Probabilities, labels: Labels, bins: int = BINS, clusters: Clusters | None = None
) -> list[ReliabilityBin]:
    """The points of a reliability diagram, by rising confidence: bins of equal count, each with Wilson's 95 % CI
    of its accuracy, for so many fewer photos as the design effect of its `clusters` (N,) says."""
    top, correct = probabilities.max(1), probabilities.argmax(1) == labels
    rows: list[ReliabilityBin] = []
    for part in np.array_split(np.argsort(top, kind="stable"), min(bins, len(labels))):
        low, high = mean_interval(correct[part], None if clusters is None else clusters[part])
        rows.append(
            {
                "confidence": float(top[part].mean()),
                "accuracy": float(correct[part].mean()),
                "count": len(part),
                "ci": (low, high),
            }
        )
    return rows
