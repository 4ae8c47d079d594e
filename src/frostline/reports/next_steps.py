"""What to do next, by plain rules over a study's figures: each step with its reason. No rule looks at anything but what the report shows.

The thresholds are judgements, not findings; each step says the figure that it rests on, so that the reader may judge otherwise.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from frostline import wording
from frostline.reports.record import Record
from frostline.stats.predictions import Prediction

Row = dict[str, Any]

SURE = 0.9
"""A photo that no strategy gets right, while the best is as sure as this, is more likely mislabelled than hard."""
DOUBTED = 0.2
"""Share of the labels that the quick check doubts from which they are too many to look at. It doubts 6 % of the flowers, 15 % of small grey
photos of them, which are merely hard to tell, and 29 to 33 % where a fifth are wrong."""
GOOD, WEAK_CLASS = 0.85, 0.7
"""Fit for use: the interval of the accuracy begins above the first, and no class is found less often than the second."""
MISCALIBRATED = 0.05
WIDE = 0.06
"""Width of an interval that hides what people want to tell apart."""
OVERFIT = 0.05
"""How far training accuracy lies above validation accuracy where more photos usually help."""
HURT = 0.10
"""Mean loss of accuracy to one cause that is worth photos of its own."""


@dataclass(frozen=True)
class Step:
    """One thing to do."""

    kind: str
    """labels, ship, wait, thaw, keep, label, test, robust or calibrate."""
    title: str
    why: str
    link: str = ""
    """The section of the report that shows it."""
    command: str = ""


def steps(record: Record) -> list[Step]:
    """What to do next, the most pressing first; nothing while no strategy has ended."""
    if record.best is None:
        return []
    best = record.best
    found = (
        _labels(record, best), _ship(record, best), _line(record, best), _photos(record, best), _robust(best),
        _confidence(best), _test(record, best),
    )  # fmt: skip
    return [step for step in found if step is not None]


def _labels(record: Record, best: Row) -> Step | None:
    conflicts = len(record.dataset.get("conflicts") or [])
    alike = len((record.dataset.get("near_twins") or {}).get("across_classes") or [])
    suspects = _suspects(record, best["name"])
    reasons = [
        (conflicts, "photo stands in two classes byte for byte", "photos stand in two classes byte for byte"),
        (alike, "group of near-twins spans classes", "groups of near-twins span classes"),
        (suspects, "photo is wrong in every strategy", "photos are wrong in every strategy"),
    ]
    said = [f"{n} {one if n == 1 else many}" for n, one, many in reasons if n]
    doubted = _doubted(record)
    if not said and not doubted:
        return None
    if suspects:
        said[-1] += f", though {best['name']} is at least {100 * SURE:.0f} % sure"
    number = conflicts + alike + suspects
    title = "Check the labels first" if doubted else f"Check {_number(number, 'label')} first"
    sentences = [f"{_listed(said)}.", *doubted] if said else doubted
    sentences.append("A wrong label costs twice: it teaches the wrong thing, and a right answer counts as an error.")
    command = shlex.join(["frostline", "check", *_data(record)])
    return Step("labels", title, " ".join(sentences), "suspects" if suspects else "data", command)


def _doubted(record: Record) -> list[str]:
    """What the quick check says of the labels where it doubts many; nothing where training takes that into account already."""
    found = (record.dataset.get("check") or {}).get("kinds", {}).get("label", 0)
    photos = record.dataset["photos"]
    if found < DOUBTED * photos or record.study.get("loss") == "robust":
        return []
    return [
        f"{found:,} of {photos:,} labels are doubtful. If they are wrong, not just hard to tell, --loss robust lets them count for less."
    ]


def _suspects(record: Record, best: str) -> int:
    said = record.predictions
    if len(said) < 2 or best not in said:
        return 0
    wrong = [{p.path for p in rows if not p.correct} for rows in said.values()]
    sure = {p.path for p in said[best] if p.confidence >= SURE}
    return len(set.intersection(sure, *wrong))


def _ship(record: Record, best: Row) -> Step | None:
    if record.study.get("status") == "running":
        return None
    metric = "balanced_accuracy" if record.unequal else "accuracy"
    interval = best.get(f"{metric}_ci")
    if not interval or not all(map(wording.known, interval)):
        return None
    name = "macro recall" if record.unequal else "accuracy"
    weak = [row for row in _scored(best) if row["recall"] < WEAK_CLASS]
    faults = []
    if interval[0] < GOOD:
        faults.append(f"its {name} may be as low as {wording.percent(interval[0])}")
    if weak:
        worst = min(weak, key=lambda row: float(row["recall"]))
        faults.append(f"it finds only {wording.percent(worst['recall'])} of {worst['class']}")
    if faults:
        why = (
            f"By the rule used here (interval above {100 * GOOD:.0f} %, every class found in {100 * WEAK_CLASS:.0f} % "
            f"or more), {_listed(faults)}. {_held_back(record, best)}"
        )
        return Step("wait", f"Use {best['name']} with care, or not yet", why.strip(), "strategies")
    command = shlex.join(["frostline", "predict", str(record.run / best["name"] / "bundle"), "new-photos/"])
    why = (
        f"Its {name} is at least {wording.percent(interval[0])} by its interval, and every class is found in {100 * WEAK_CLASS:.0f} "
        f"% of cases or more. {_held_back(record, best)}"
    )
    return Step("ship", f"Ship {best['name']}", why.strip(), "strategies", command)


def _scored(best: Row) -> list[Row]:
    return [row for row in best.get("per_class") or [] if row.get("support") and wording.known(row.get("recall"))]


def _held_back(record: Record, best: Row) -> str:
    """What holding back unsure answers would do: the threshold is chosen on validation photos, the effect read off the reported ones."""
    chosen, reported = record.validation.get(best["name"]) or [], record.predictions.get(best["name"]) or []
    threshold = _threshold(chosen)
    kept = [p for p in reported if threshold is not None and p.confidence >= threshold]
    if threshold is None or not kept:
        return ""
    right = sum(p.correct for p in kept) / len(kept)
    return (
        f"Answers below {100 * threshold:.0f} % confidence held back (chosen on validation photos), it answers "
        f"{wording.percent(len(kept) / len(reported))} of the photos and gets {wording.percent(right)} of those right."
    )


def _threshold(rows: Sequence[Prediction]) -> float | None:
    """The lowest confidence above which at most half the share of errors is left; `rows` surest first."""
    errors = sum(not p.correct for p in rows)
    if errors < 4:  # too few to place a threshold by
        return None
    allowed, wrong, best = errors / len(rows) / 2, 0, None
    for number, row in enumerate(rows, start=1):
        wrong += not row.correct
        if wrong / number <= allowed:
            best = row.confidence
    return best


def _line(record: Record, best: Row) -> Step | None:
    """Thaw more, or keep the line where it is: by the paired comparison of fine-tuned and frozen."""
    pairs = {(c.get("a"), c.get("b")): c for c in record.study.get("comparisons") or []}
    pair = pairs.get(("fine-tuned", "frozen"))
    if pair is None or not wording.known(pair.get("p_value")) or not wording.known((pair.get("ci") or [None])[0]):
        return None
    command = shlex.join(["frostline", "sweep", *_data(record), "--lines", "auto"])
    gap = f"{wording.points(pair['difference'])} points, 95 % interval {wording.span(pair['ci'])}"
    tuned = next((s for s in record.strategies if s["name"] == "fine-tuned"), best)
    if pair["p_value"] < 0.05 and pair["ci"][0] > 0:
        if (excess := _excess(tuned)) is not None and excess > OVERFIT:
            why = (
                f"Thawing paid ({gap}), but training accuracy already lies {100 * excess:.0f} points above validation: "
                "photos are the limit, not layers."
            )
            return Step("keep", "Thaw no further for now", why, "curves")
        return Step(
            "thaw",
            "Try to thaw more layers",
            f"Fine-tuning is ahead of frozen ({gap}). A lower line may gain more; a sweep tells.",
            "difference",
            command,
        )
    if pair["p_value"] < 0.05 and pair["ci"][1] < 0:
        return Step("keep", "Keep the network frozen", f"Thawing costs accuracy here ({gap}).", "difference")
    why = (
        f"Fine-tuned against frozen: {gap}. Chance can't be ruled out, and frozen trains faster with fewer parameters."
    )
    return Step("keep", "Thawing is not shown to pay", why, "difference", command)


def _excess(strategy: Row) -> float | None:
    """Training accuracy above validation accuracy at the epoch kept (the last one where none is named)."""
    history = strategy.get("history") or []
    kept = next(
        (row for row in history if row.get("epoch") == strategy.get("best_epoch")), history[-1] if history else {}
    )
    train, watched = kept.get("train_accuracy"), kept.get("val_accuracy")
    return train - watched if wording.known(train) and wording.known(watched) else None


def _photos(record: Record, best: Row) -> Step | None:
    """Label more, and of what."""
    excess = _excess(best)
    scored = _scored(best)
    if excess is None or not scored:
        return None
    worst = min(scored, key=lambda row: float(row["recall"]))
    taken = _taken_for(record, best, worst["class"])
    weakest = f"The class found least is {worst['class']} ({wording.percent(worst['recall'])} of {worst['support']} photos{taken})."
    if excess > OVERFIT:
        title = f"Label more photos, {worst['class']} first"
        why = (
            f"{best['name']} gets {100 * excess:.0f} points more right on training photos than on validation photos: "
            f"more photos usually close such a gap. {weakest}"
        )
        return Step("label", title, why, "classes")
    command = shlex.join(["frostline", "sweep", *_data(record), "--photos", "5,10,20,50,100,all"])
    why = (
        "Training accuracy is not far above validation accuracy, so twice the photos may bring little; a sweep "
        f"forecasts it. {weakest}"
    )
    return Step("label", "Before labelling more, ask what it would bring", why, "classes", command)


def _taken_for(record: Record, best: Row, label: str) -> str:
    matrix, classes = best.get("confusion") or [], record.classes
    if label not in classes or len(matrix) != len(classes):
        return ""
    counts = [(n, classes[j]) for j, n in enumerate(matrix[classes.index(label)]) if n and classes[j] != label]
    if not counts:
        return ""
    most = max(counts)
    return f"; {most[0]} taken for {most[1]}"


def _robust(best: Row) -> Step | None:
    causes = [c for c in (best.get("robustness") or {}).get("causes") or [] if wording.known(c.get("mean_drop"))]
    worst = max(causes, key=lambda c: float(c["mean_drop"]), default=None)
    if worst is None or worst["mean_drop"] <= HURT:
        return None
    title = worst.get("title") or worst["cause"]
    why = (
        f"Under it {best['name']} loses {100 * worst['mean_drop']:.0f} points of accuracy on average over five "
        "strengths, more than under any other cause. Where your photos will show it, put some into training."
    )
    return Step("robust", f"Prepare for {title[:1].lower()}{title[1:]}", why, "robustness")


def _confidence(best: Row) -> Step | None:
    error = best.get("ece_shipped", best.get("ece_calibrated"))
    photos = sum(row.get("support") or 0 for row in best.get("per_class") or [])
    if not wording.known(error) or error <= MISCALIBRATED or photos < 200:
        return None
    why = (
        f"Its confidence is off by {wording.percent(error)} on average, after temperature scaling. Use it to rank "
        "photos, not as a probability."
    )
    return Step("calibrate", f"Don't take {best['name']}'s confidence at its word", why, "calibration")


def _test(record: Record, best: Row) -> Step | None:
    interval = best.get("balanced_accuracy_ci" if record.unequal else "accuracy_ci")
    if not interval or not all(map(wording.known, interval)) or interval[1] - interval[0] <= WIDE:
        return None
    why = (
        f"The interval is {100 * (interval[1] - interval[0]):.0f} points wide, which hides differences smaller "
        "than that. Four times the photos would halve it."
    )
    return Step("test", "Keep more photos back to test on", why, "strategies")


def _data(record: Record) -> list[str]:
    """The photos of the run, as a command takes them; the built-in sample is what commands take when nothing is given."""
    data = str(record.config.get("data") or "photos/")
    return [] if data.startswith("builtin:") else [data]


# ---- words -----------------------------------------------------------------------------------------------------------


def _number(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
