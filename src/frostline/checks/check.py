"""`frostline check`: what is wrong with a folder of photos, before anything is trained on it.

    scan -> examine (two passes over all photos) -> kinds (one function for each kind of finding) -> check.json

check.json is a `documents.Check`. Its `findings` come in the order of what matters (`kinds.KINDS`): first what makes
figures wrong, then what makes training worse, then what is only odd; the surest first within a kind. Its `decisions`
are the list that ``--write`` saves (see `photos.corrections`): only what is safe to leave out unseen. Nothing in the
folder is changed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

import frostline
from frostline.cache.store import Store
from frostline.checks import kinds, photo_quality
from frostline.checks.examine import NETWORKS, Examined, examine, features_of
from frostline.checks.kinds import KINDS, Finding
from frostline.checks.near_duplicates import DuplicateGroup
from frostline.config import EngineKind, require
from frostline.documents.check import Check, CheckSummary, CorrectionRow
from frostline.documents.shared import QuickCheck
from frostline.networks.compilation import Runtime
from frostline.photos import scan
from frostline.photos.corrections import Decision
from frostline.photos.manifest import Manifest
from frostline.progress import Progress

SURE = 0.98
"""Confidence in a wrong label from which `decisions` leaves the photo out unseen. Of the flowers' 50 likeliest label
errors, 42 % are plainly wrong or junk to the eye, and 16 % show several classes; the rest are correct but hard. So
review the list."""

_NOTHING = {
    "Files": "all can be read, no photo twice",
    "Labels": "none looks wrong",
    "Photos": "light and sharpness are fine",
}
_DETAILS = 2  # findings that a summary line tells by their details


def check(
    data: str | Path,
    *,
    backbone: str = NETWORKS,
    weights: str = "",
    image_size: int = 0,
    engine: EngineKind = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Check:
    """Examine the photos and report what is wrong with them.

    One pass through the frozen networks (kept in the cache), one at thumbnail size, then seconds. Memory is 1.3 kB a
    photo beyond the manifest.

    Raises
    ------
    DataError
        There are no photos to examine. One class, or none that can be read, is no error here where files are there.
    ConfigError, RunError
        See the errors' own words. Weights that can't be had are a note in the document: labels are not judged then.
    """
    require(image_size=image_size, engine=engine, seed=seed)
    progress = progress or Progress(quiet=True)
    started = time.perf_counter()
    listed = scan.scan(Path(data), least_classes=1, progress=progress)
    scanned = time.perf_counter()
    runtime = Runtime(engine, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    examined = examine(listed, backbone, weights, image_size, runtime, seed, progress)
    judging = time.perf_counter()
    findings = kinds.find(examined)
    ended = time.perf_counter()
    seconds = {**examined.seconds, "scan": scanned - started, "judge": ended - judging, "total": ended - started}
    return {
        "frostline": frostline.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": str(data),
        "name": listed.name,
        "root": str(listed.root.resolve()),
        "photos": len(examined.photos.photos),
        "classes": examined.photos.classes,
        "counts": examined.photos.counts(),
        "findings": [f.to_dict() for f in findings],
        "decisions": [_row(d) for d in decisions(findings)],
        "summary": _summary(findings, examined.table),
        "lines": lines(findings, len(examined.photos.photos), _judged(examined)),
        "notes": examined.notes,
        "seconds": {stage: round(s, 3) for stage, s in seconds.items()},
    }


def quick(photos: Manifest, store: Store | None, near: Sequence[DuplicateGroup] = (), seed: int = 0) -> QuickCheck:
    """The checks that cost a study little: about 2 s for 3,500 photos. Light, sharpness and shortcuts are left out.

    Parameters
    ----------
    store
        A pretrained network's activations at its top, with all photos in it; None: labels are not judged.
    near
        The groups of near-duplicates among the photos.

    Returns
    -------
    QuickCheck
        Three sentences, counts by kind, and the ten likeliest label errors.
    """
    features = features_of([store], photos.photos, seed) if store is not None else None
    examined = Examined(photos, features=features, near=list(near), seed=seed, repeats=0)
    findings = kinds.find(examined)
    sentences = lines(findings, len(photos.photos), _judged(examined))
    if store is None:
        sentences[1] = "Labels: not judged, no pretrained network is among the strategies."
    unequal = [f.detail for f in findings if f.kind == "unequal"]
    classes = unequal[0] if unequal else "no class is much larger than another"
    sentences[2] = f"Photos: {classes}; frostline check looks at light, sharpness and shortcuts."
    labels = [f.to_dict() for f in findings if f.kind == "label"][:10]
    return {"lines": sentences, "kinds": dict(Counter(f.kind for f in findings)), "labels": labels}


# ---- what follows ----------------------------------------------------------------------------------------------------


def decisions(findings: Iterable[Finding]) -> list[Decision]:
    """What is safe to leave out unseen: photos in several classes, and labels that are almost surely wrong.

    A photo in several classes is left out of those that it surely doesn't show, else of all of them. No photo is
    relabelled: that is for people. Unreadable files are not on the list: every study leaves them out anyway, and an
    intact copy put in their place should count.
    """
    made: dict[str, Decision] = {}
    for f in findings:
        for path, why in _left_out(f):
            made.setdefault(path, Decision(path, "exclude", "", why, round(f.confidence, 3)))
    return list(made.values())


def _left_out(f: Finding) -> Iterator[tuple[str, str]]:
    """The photos of a finding that are better left out, and why."""
    if f.kind == "conflict":
        why = f"the same photo in {' and '.join(dict.fromkeys(f.classes))}"
        yield from ((path, why) for path, label in zip(f.paths, f.classes, strict=True) if label != f.suggested)
    elif f.kind == "label" and f.confidence >= SURE:
        yield from ((path, f"likely {f.suggested}, not {f.classes[0]}") for path in f.paths)


def _row(decision: Decision) -> CorrectionRow:
    path, action, label, why, confidence = decision
    return {"path": path, "action": action, "label": label, "why": why, "confidence": confidence}


def _summary(findings: Sequence[Finding], table: photo_quality.Floats | None) -> CheckSummary:
    counts = Counter(f.kind for f in findings)
    found = {kind: counts[kind] for kind in KINDS if counts[kind]}
    if table is None or not len(table):
        return {"kinds": found, "formats": {}, "sizes": {}}
    return {"kinds": found, "formats": photo_quality.formats(table), "sizes": photo_quality.sizes(table)}


def _judged(examined: Examined) -> bool:
    """Whether any label could be judged: there are features, two classes, and enough photos of both."""
    return examined.judgement is not None and bool(examined.judgement.judged.any())


def lines(findings: Sequence[Finding], photos: int, judged: bool) -> list[str]:
    """A summary in three sentences: files and duplicates; labels, if any were `judged`; what the photos look like."""
    words = {}
    nothing = dict(_NOTHING)
    if not judged:
        nothing["Labels"] = "not judged"
    if not photos:
        nothing["Photos"] = "none can be read"
    for line in _NOTHING:
        counts: Counter[tuple[str, str]] = Counter()
        details: list[str] = []
        for finding in findings:
            kind = KINDS[finding.kind]
            if kind.line == line and kind.counted:
                counts[kind.counted] += 1
            elif kind.line == line:
                details.append(finding.detail)
        counted = ", ".join(f"{n:,} {one if n == 1 else many}" for (one, many), n in counts.items())
        words[line] = "; ".join([counted or nothing[line], *details[:_DETAILS]])
    return [
        f"Files: {words['Files']} ({photos:,} usable photos).",
        f"Labels: {words['Labels']}.",
        f"Photos: {words['Photos']}.",
    ]
