"""Claim 6: feature quality matters more than parameter count."""

from __future__ import annotations

from frostline.evidence.claims.evidence import Evidence, Finding, untested
from frostline.stats import intervals


def measure(evidence: Evidence) -> Finding:
    """Whether a frozen network with fewer parameters is more accurate than a network from scratch with more.

    Where the frozen network is the larger one, its features can't be told from its size.
    """
    frozen, baseline = evidence.rows["frozen"], evidence.rows["baseline"]
    points = [
        {"strategy": name, **row["parameters"], "accuracy": row.get("accuracy"), "accuracy_ci": row.get("accuracy_ci")}
        for name, row in evidence.rows.items()
    ]
    sizes = f"{frozen['parameters']['total']:,} against {baseline['parameters']['total']:,} parameters in all"
    if frozen["parameters"]["total"] >= baseline["parameters"]["total"]:
        why = f"the frozen network is not the smaller one ({sizes}), so features can't be told from size"
        return untested(why, "frostline study DATA --backbone mobilenet_v2 --image-size 224", {"strategies": points})
    result = comparison(evidence, "frozen", "baseline")
    measured = (
        f"{result.verdict}; {sizes}, {frozen['parameters']['trainable']:,} against "
        f"{baseline['parameters']['trainable']:,} trainable{_unequal(evidence)}"
    )
    figures = {
        "difference": result.difference,
        "ci": result.ci,
        "p_value": result.p_value,
        "image_size": {name: evidence.rows[name].get("image_size") for name in ("baseline", "frozen")},
        "training_photos": {name: trained_on(evidence, name) for name in ("baseline", "frozen")},
        "strategies": points,
    }
    ahead = result.difference > 0
    supports, contradicts = (result.p_value, 1.0) if ahead else (1.0, result.p_value)
    return Finding(measured, figures, supports, contradicts, result.p_corrected)


def comparison(evidence: Evidence, a: str, b: str) -> intervals.Comparison:
    """`a` against `b`, as the report's table of differences has it: corrected for all its comparisons."""
    others = {name: evidence.correct(name) for name in evidence.predictions if name not in (a, b)}
    correct = {b: evidence.correct(b), a: evidence.correct(a), **others}
    return next(c for c in intervals.compare_all(correct, evidence.clusters) if (c.a, c.b) == (a, b))


def trained_on(evidence: Evidence, name: str) -> int | None:
    """The photos that a strategy's model was trained on."""
    row = evidence.rows[name]
    return row["refit"]["photos"] if "refit" in row else evidence.training_photos


def _unequal(evidence: Evidence) -> str:
    """What else differs between the two, beside features and size."""
    sides = [evidence.rows[name].get("image_size") for name in ("baseline", "frozen")]
    photos = [trained_on(evidence, name) for name in ("baseline", "frozen")]
    differ = []
    if sides[0] != sides[1]:
        differ.append(f"photos of {sides[0]} pixels a side against {sides[1]}")
    if photos[0] != photos[1]:
        differ.append(
            f"{photos[0]:,} training photos against {photos[1]:,} (it is not refitted with the validation set)"
        )
    return f". Mind that the network from scratch had {' and '.join(differ)}" if differ else ""
