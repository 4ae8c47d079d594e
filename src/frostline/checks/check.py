"""`frostline check`: what is wrong with a folder of photos, before anything is trained on it.

    scan -> examine (two passes over all photos) -> kinds (one function for each kind of finding) -> check.json

check.json is a `documents.Check`. Its `findings` come in the order of what matters (`kinds.KINDS`): first what makes
figures wrong, then what makes training worse, then what is only odd; the surest first within a kind. Its `decisions`
are the list that ``--write`` saves (see `photos.corrections`): only what is safe to leave out unseen. Nothing in the
folder is changed.
"""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import frostline
from frostline.cache.folder import cache_dir
from frostline.cache.store import Store
from frostline.checks import kinds, label_errors, photo_quality
from frostline.checks.examine import ENLARGE, NETWORKS, Examined, examine, features_of
from frostline.checks.kinds import KINDS, Finding
from frostline.checks.near_duplicates import DuplicateGroup
from frostline.config import SAMPLE, EngineKind, require
from frostline.documents.check import Check, CheckSummary, CorrectionRow
from frostline.documents.shared import Chance, QuickCheck
from frostline.networks import backbone as backbones
from frostline.networks import devices
from frostline.networks.compilation import Runtime
from frostline.photos import sample, scan
from frostline.photos.corrections import Decision
from frostline.photos.manifest import Manifest
from frostline.progress import Progress

SURE = 0.98
"""Probability of a wrong label from which `decisions` leaves the photo out unseen. Of the labels called with so much,
all had been planted: on the sample, half of the flowers and ants and bees, with 3 and 10 % of the labels flipped."""

_NOTHING = {
    "Files": "all can be read, no photo twice",
    "Labels": "none looks wrong",
    "Photos": "light and sharpness are fine",
}
_DETAILS = 2  # findings that a summary line tells by their details


def check(
    data: str | Path = SAMPLE,
    *,
    backbone: str = NETWORKS,
    weights: str = "",
    image_size: int = 0,
    engine: EngineKind = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Check:
    """Examine the photos and report what is wrong with them.

    One pass through the frozen network (kept in the cache), one at thumbnail size, then seconds. Memory is 1.3 kB a
    photo beyond the manifest. Network and size are by default those of a study: it says the same of the same photos.

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
    folder = sample.render(cache_dir() / "sample") if str(data) == SAMPLE else Path(data)
    listed = scan.scan(folder, least_classes=1, progress=progress)
    scanned = time.perf_counter()
    runtime = Runtime(engine, devices.choose())
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
        "chance": chance(examined, findings),
        "lines": _lines(examined, findings),
        "notes": examined.notes,
        "seconds": {stage: round(s, 3) for stage, s in seconds.items()},
    }


def quick(
    photos: Manifest, store: Store | None, near: Sequence[DuplicateGroup] = (), command: str = "frostline check"
) -> QuickCheck:
    """The checks that cost a study little: about 2 s for 3,500 photos. Light, sharpness and shortcuts are left out.

    What it says of labels is what `check` says of the same photos by the same network at the same size: both draw the
    folds with seed 0.

    Parameters
    ----------
    store
        A pretrained network's activations at its top, with all photos in it; None: labels are not judged.
    near
        The groups of near-duplicates among the photos.
    command
        That lists the findings.

    Returns
    -------
    QuickCheck
        Three sentences, counts by kind, and the ten likeliest label errors.
    """
    features = features_of([store], photos.photos, 0) if store is not None else None
    examined = Examined(photos, features=features, near=list(near))
    findings = kinds.find(examined)
    sentences = _lines(examined, findings)
    if store is None:
        sentences[1] = "Labels: not judged, no pretrained network is among the strategies."
    unequal = [f.detail for f in findings if f.kind == "unequal"]
    classes = unequal[0] if unequal else "no class is much larger than another"
    sentences[2] = f"Photos: {classes}; {command} lists all findings, and looks at light, sharpness and shortcuts."
    return {
        "lines": sentences,
        "kinds": dict(Counter(f.kind for f in findings)),
        "labels": [f.to_dict() for f in findings if f.kind == "label"][:10],
        "chance": chance(examined, findings),
        "command": command,
    }


def command(data: str | Path, network: str = NETWORKS, image_size: int = 0, weights: str = "") -> str:
    """The command that checks the photos of a study by its network: only what differs from the default is said."""
    given = [] if Path(data) == cache_dir() / "sample" else [str(data)]
    if network != NETWORKS or weights:
        given += ["--backbone", network]
    if image_size not in (0, backbones.enlarged(network, ENLARGE)):
        given += ["--image-size", str(image_size)]
    return shlex.join(["frostline", "check", *given, *(["--weights", weights] if weights else [])])


def chance(examined: Examined, findings: Iterable[Finding]) -> Chance | None:
    """What chance explains of the doubts about labels and of unusual photos; None where no label could be judged."""
    judgement, labels, outliers = examined.judgement, examined.wrong_labels, examined.outliers
    if judgement is None or labels is None or outliers is None or not judgement.judged.any():
        return None
    counts = Counter(f.kind for f in findings)
    called = int(labels.called.sum())
    return {
        "judged": int(judgement.judged.sum()),
        "called": called,
        "called_by_chance": round(labels.by_chance, 2),
        "precision": round(1 - labels.by_chance / called, 3) if called else None,
        "precision_ci": [round(end, 3) for end in labels.precision_ci] if labels.precision_ci else None,
        "share_wrong": round(labels.share, 4),
        "hard": counts["hard"],
        "hard_by_chance": round(labels.hard_by_chance, 2),
        "unlike": counts["junk"],
        "unlike_by_chance": round(outliers.by_chance, 2),
    }


# ---- what follows ----------------------------------------------------------------------------------------------------


def decisions(findings: Iterable[Finding]) -> list[Decision]:
    """What is safe to leave out unseen: placeholders, photos in several classes, labels that are almost surely wrong.

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
    if f.kind == "placeholder":
        yield from ((path, "the same picture in several classes") for path in f.paths)
    elif f.kind == "conflict":
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


def _lines(examined: Examined, findings: Sequence[Finding]) -> list[str]:
    """The summary; why no label was judged, where it is a matter of groups."""
    found = chance(examined, findings)
    sentences = lines(findings, len(examined.photos.photos), judged=found is not None, by_chance=found)
    if found is None and examined.judgement is not None and any(p.group for p in examined.photos.photos):
        least = label_errors.LEAST
        sentences[1] = f"Labels: can't be judged, as classes have photos of fewer than {least} groups."
    return sentences


def lines(findings: Sequence[Finding], photos: int, judged: bool, by_chance: Chance | None = None) -> list[str]:
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
        if line == "Labels" and by_chance is not None:
            counted = _labels_line(Counter(f.kind for f in findings), by_chance)
        words[line] = "; ".join([counted or nothing[line], *details[:_DETAILS]])
    return [
        f"Files: {words['Files']} ({photos:,} usable photos).",
        f"Labels: {words['Labels']}.",
        f"Photos: {words['Photos']}.",
    ]


def _labels_line(counts: Mapping[str, int], by_chance: Chance) -> str:
    """What is called wrong or unlike any class, and how much of it by chance; then what chance explains; "": nothing.

    "12 labels are likely wrong (about 3 of these by chance); 33 photos are hard to tell apart."
    """
    called = [
        f"{_count('label', counts)} ({_about(by_chance['called_by_chance'])} of these by chance)"
        * bool(counts["label"]),
        f"{_count('junk', counts)} ({_about(by_chance['unlike_by_chance'])} of these by chance)" * bool(counts["junk"]),
    ]
    hard, expected = counts["hard"], by_chance["hard_by_chance"]
    as_many = hard <= expected + 2 * expected**0.5 + 1
    told = f"about as many as expected by chance, {expected:.0f}" if as_many else f"expected by chance: {expected:.0f}"
    usual = [
        f"{_count('hard', counts)}{'' if counts['label'] else f' ({told})'}" * bool(hard),
        _count("unusual", counts) * bool(counts["unusual"]),
    ]
    first, last = (", ".join(filter(None, some)) for some in (called, usual))
    if last and not first:
        return f"no label stands out: {last}"
    return "; ".join(filter(None, (first, last)))


def _count(kind: str, counts: Mapping[str, int]) -> str:
    number, words = counts[kind], KINDS[kind].counted
    return f"{number:,} {words[number != 1]}" if words else ""


def _about(expected: float) -> str:
    return f"about {expected:.0f}" if expected >= 0.5 else "fewer than 1"
