"""What to do next: fixed rules over a study's figures, each step with its reason. The rules use only figures that the
report shows.

The thresholds are judgements. Each step names its figure, so that readers can judge for themselves.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from frostline import wording
from frostline.reports.record import Record, Row
from frostline.stats import intervals, thresholds

SURE = 0.9
"""A photo that every strategy gets wrong, the best one with at least this confidence, is more likely mislabelled than
hard."""
DOUBTED = 0.2
"""Share of doubtful labels (by the quick check) above which there are too many to review. The check doubts 6 % of the
flowers, 15 % of small grey copies of them, which are only harder, and 29 to 33 % where a fifth of the labels are
wrong."""
GOOD, WEAK_CLASS = 0.85, 0.7
"""Fit for use: the lower end of the accuracy's interval is above the first, and no class has a recall below the
second."""
MISCALIBRATED = 0.05
WIDE = 0.06
"""Width of an interval that hides the differences people look for."""
OVERFIT = 0.05
"""Training accuracy minus validation accuracy from which a model knows its training photos much better than others."""
HURT = 0.10
"""Mean loss of accuracy under one corruption that is worth training photos of its own."""


@dataclass(frozen=True)
class Step:
    """One thing to do."""

    kind: str
    """labels, ship, wait, unfreeze, keep, label, test, robust or calibrate."""
    title: str
    why: str
    link: str = ""
    """The section of the report that shows it."""
    command: str = ""


def steps(record: Record) -> list[Step]:
    """What to do next, the most urgent first; nothing while no strategy has ended."""
    if record.best is None:
        return []
    best = record.best
    found = (
        _labels(record, best), _ship(record, best), _line(record, best), _photos(record, best), _robust(best),
        _confidence(best), _test(record, best),
    )  # fmt: skip
    return [step for step in found if step is not None]


def _labels(record: Record, best: Row) -> Step | None:
    found = record.dataset.get("check") or {}
    by_chance = found.get("chance")
    called = by_chance["called"] if by_chance else 0
    conflicts = len(record.dataset.get("conflicts") or [])
    alike = len((record.dataset.get("near_twins") or {}).get("across_classes") or [])
    wrong = _always_wrong(record, best["name"])
    about = f" (about {by_chance['called_by_chance']:.0f} of these by chance)" if by_chance else ""
    reasons = [
        (called, f"label is likely wrong{about}", f"labels are likely wrong{about}"),
        (conflicts, "photo has two different labels", "photos have two different labels"),
        (alike, "group of near-duplicates spans several classes", "groups of near-duplicates span several classes"),
        (wrong, "photo is wrong in every strategy", "photos are wrong in every strategy"),
    ]
    said = [f"{n} {one if n == 1 else many}" for n, one, many in reasons if n]
    doubted = _doubted(record)
    if not said and not doubted:
        return None
    if wrong:
        said[-1] += f", with at least {100 * SURE:.0f} % confidence in {best['name']}"
    sentences = [f"{_listed(said)}.", *doubted] if said else doubted
    if by_chance and not called:
        sentences.append("No label stands out in the check: photos that are hard to tell apart are expected by chance.")
    sentences.append(
        "A wrong label harms twice: the network learns it, and in the test set a correct prediction counts as an error."
    )
    # photos that every strategy gets wrong are hard or mislabelled: where the check judged the labels, it tells which
    number = called or conflicts + alike + (0 if by_chance else wrong)
    command = found.get("command") or shlex.join(["frostline", "check", *_data(record)])
    return Step(
        "labels", _labels_title(number, called, doubted), " ".join(sentences), "labels" if wrong else "data", command
    )


def _labels_title(number: int, called: int, doubted: Sequence[str]) -> str:
    if doubted and not called:
        return "Review the labels"
    if not number:
        return "Look at the photos that every strategy gets wrong"
    may = "may be" if not called else "is likely" if number == 1 else "are likely"
    return f"{_number(number, 'label')} {may} wrong: review {'it' if number == 1 else 'them'}"


def _doubted(record: Record) -> list[str]:
    """A sentence if the quick check doubts many labels; none if training used the robust loss already."""
    kinds = (record.dataset.get("check") or {}).get("kinds", {})
    found = kinds.get("label", 0) + kinds.get("hard", 0)
    photos = record.dataset["photos"]
    if found < DOUBTED * photos or record.study.get("loss") == "robust":
        return []
    return [
        f"{found:,} of {photos:,} labels are doubtful. If they are wrong, not only hard, "
        "--loss robust gives them less weight."
    ]


def _always_wrong(record: Record, best: str) -> int:
    said = record.predictions
    if len(said) < 2 or best not in said:
        return 0
    wrong = [{p.path for p in rows if not p.correct} for rows in said.values()]
    sure = {p.path for p in said[best] if p.confidence >= SURE}
    return len(set.intersection(sure, *wrong))


def _ship(record: Record, best: Row) -> Step | None:
    if record.unfinished:
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
        faults.append(f"its recall for {worst['class']} is only {wording.percent(worst['recall'])}")
    if faults:
        why = (
            f"Ready for use means here: the interval is above {100 * GOOD:.0f} % and every recall is at least "
            f"{100 * WEAK_CLASS:.0f} %. But {_listed(faults)}. {_held_back(record, best)}"
        )
        return Step("wait", f"Use {best['name']} with care", why.strip(), "strategies")
    command = shlex.join(["frostline", "predict", str(record.run / best["name"] / "bundle"), "new-photos/"])
    why = (
        f"The lower end of its {name}'s interval is {wording.percent(interval[0])}, and every class has a recall of "
        f"at least {100 * WEAK_CLASS:.0f} %. {_held_back(record, best)}"
    )
    return Step("ship", f"Use {best['name']}", why.strip(), "strategies", command)


def _scored(best: Row) -> list[Row]:
    return [row for row in best.get("per_class") or [] if row.get("support") and wording.known(row.get("recall"))]


def _held_back(record: Record, best: Row) -> str:
    """The effect of withholding unsure predictions. The threshold is chosen on validation photos, the effect measured
    on the others."""
    reported = record.predictions.get(best["name"]) or []
    row = thresholds.of_half_the_errors(record.validation.get(best["name"]) or [])
    kept = [p.correct for p in reported if row is not None and p.confidence >= row["threshold"]]
    if row is None or not kept:
        return ""
    return (
        f"If predictions below {wording.percent(row['threshold'])} confidence are withheld, at least "
        f"{100 * row['precision']:g} % of the others are correct, by the validation photos (with 95 % confidence). Of "
        f"the photos reported on, {wording.percent(len(kept) / len(reported))} remain, and accuracy on them is "
        f"{wording.percent(np.mean(kept))} ({wording.interval(intervals.mean_interval(np.array(kept, dtype=float)))})."
    )


def _line(record: Record, best: Row) -> Step | None:
    """Unfreeze more layers, or keep the line: what the study's decision says of it."""
    about = (record.study.get("decision") or {}).get("unfreezing") or _as_older(record)
    if not about:
        return None
    sweep = shlex.join(["frostline", "sweep", *_data(record), "--lines", "auto"])
    if about["helps"] == "unknown":
        return Step("keep", "Whether unfreezing helps can't be told yet", about["words"], "difference", sweep)
    shipped = best["name"]
    if shipped == {"yes": about["frozen"], "no": about["unfrozen"]}[about["helps"]]:
        seeds = shlex.join(["frostline", "study", *_data(record), "--seeds", "3"])
        return Step("keep", "Repeat the study with several seeds", about["words"], "difference", seeds)
    if about["helps"] == "no":
        return Step("keep", "Keep the network frozen", about["words"], "difference")
    tuned = next((s for s in record.strategies if s["name"] == about["unfrozen"]), best)
    if (excess := _excess(tuned)) is not None and excess > OVERFIT:
        why = (
            f"{about['words']} But its training accuracy is already {100 * excess:.0f} points above its validation "
            "accuracy, and more layers fit the training photos still more closely."
        )
        return Step("keep", "Do not unfreeze more layers for now", why, "curves")
    why = f"{about['words']} A lower freeze line may gain more; a sweep measures it."
    return Step("unfreeze", "Try to unfreeze more layers", why, "difference", sweep)


def _as_older(record: Record) -> Row | None:
    """The same from a study of an older version, which has comparisons alone."""
    pairs = {(c.get("a"), c.get("b")): c for c in record.study.get("comparisons") or []}
    pair = pairs.get(("fine-tuned", "frozen"))
    if pair is None or not wording.known(pair.get("p_value")) or not wording.known((pair.get("ci") or [None])[0]):
        return None
    p, (low, high) = pair.get("p_corrected", pair["p_value"]), pair["ci"]
    helps = "unknown" if p >= 0.05 or low <= 0 <= high else "yes" if low > 0 else "no"
    said = {"unknown": "Whether unfreezing helps can't be told", "yes": "Unfreezing helps", "no": "Unfreezing hurts"}
    figures = f"{wording.points(pair['difference'])} points of accuracy ({wording.interval(pair['ci'])})"
    words = f"{said[helps]}: fine-tuned against frozen, {figures}."
    return {"unfrozen": "fine-tuned", "frozen": "frozen", "helps": helps, "words": words}


def _excess(strategy: Row) -> float | None:
    """Training accuracy minus validation accuracy at the epoch kept, or at the last one if none is named."""
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
    weakest = (
        f"The class with the lowest recall is {worst['class']} ({wording.percent(worst['recall'])} of "
        f"{worst['support']} photos{taken})."
    )
    command = shlex.join(["frostline", "sweep", *_data(record), "--photos", "5,10,20,50,100,all"])
    if excess > OVERFIT:
        title = f"Label more photos, {worst['class']} first"
        why = (
            f"The training accuracy of {best['name']} is {100 * excess:.0f} points above its validation accuracy. How "
            f"much more photos would bring, a sweep over their number forecasts. {weakest}"
        )
        return Step("label", title, why, "classes", command)
    why = (
        f"Training accuracy is close to validation accuracy. A sweep forecasts what more photos would bring. {weakest}"
    )
    return Step("label", "Before labelling more photos, forecast the gain", why, "classes", command)


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
        f"With this corruption {best['name']} loses {100 * worst['mean_drop']:.0f} points of accuracy on average over "
        "5 severities, more than with any other. If your photos will show it, add such photos to the training set."
    )
    return Step("robust", f"Largest loss under corruption: {title[:1].lower()}{title[1:]}", why, "robustness")


def _confidence(best: Row) -> Step | None:
    error, interval = best.get("calibration_error"), best.get("calibration_error_ci")
    if not wording.known(error) or error <= MISCALIBRATED or not interval or interval[0] <= 0:
        return None
    why = (
        f"The calibration error of the model as it is saved is {wording.decimal(error)} (95 % CI "
        f"{wording.decimals(interval)}). Use the confidence to rank photos, not as a probability."
    )
    return Step("calibrate", f"The confidence of {best['name']} is not calibrated", why, "calibration")


def _test(record: Record, best: Row) -> Step | None:
    interval = best.get("balanced_accuracy_ci" if record.unequal else "accuracy_ci")
    if not interval or not all(map(wording.known, interval)) or interval[1] - interval[0] <= WIDE:
        return None
    photos = sum(row["support"] for row in _scored(best))
    why = (
        f"The 95 % CI is {100 * (interval[1] - interval[0]):.0f} points wide and hides smaller differences. It narrows "
        f"with the square root of the number of photos: half as wide takes four times as many, {4 * photos:,}."
    )
    return Step("test", "Use a larger test set", why, "strategies")


def _data(record: Record) -> list[str]:
    """The photos of the run, as a command takes them; the built-in sample is what commands take when nothing is
    given."""
    data = str(record.config.get("data") or "photos/")
    return [] if data.startswith("builtin:") else [data]


# ---- words -----------------------------------------------------------------------------------------------------------


def _number(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
