"""A study over several seeds: whole studies side by side, and what they say together.

Each seed has its own split, starting weights and order of photos, and an ordinary run folder, so one seed's figure
tells nothing of how much of it was luck. The mean over seeds does, with an interval over photos and seeds
(`metrics.mean_across`).
"""

from __future__ import annotations

import csv
import itertools
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

import frostline
from frostline import documents, wording
from frostline.config import Config, configured
from frostline.documents import Seeds, Study
from frostline.documents.decision import Decision
from frostline.documents.seeds import SeedRun, SeedsComparison, SeedsRow, SeedStrategy
from frostline.documents.strategy import StrategyRow
from frostline.errors import ConfigError, RunError
from frostline.fields import path_of
from frostline.files import write_csv, write_text
from frostline.progress import Progress, open_progress
from frostline.reports.seeds_page import FILE, PICTURE, TABLE, draw, read
from frostline.stats import across_seeds, decision, macro_recall
from frostline.stats.clusters import Clusters, numbered
from frostline.stats.predictions import read_predictions
from frostline.studies.run_folder import Existing, alone, finished, look, tidy
from frostline.studies.study import OnRow, study

MOST = 100


def several(
    config: Config | str | Path,
    out: str | Path,
    count: int,
    *,
    existing: Existing = "refuse",
    quiet: bool = True,
    progress: Progress | None = None,
    on_row: OnRow | None = None,
) -> Seeds:
    """Run a study with each of `count` seeds from `config.seed` on, and return what their seeds.json holds.

    Parameters
    ----------
    config
        As for `frostline.study`.
    out
        The folder: `seed-0`, `seed-1`, ... are ordinary run folders; seeds.json, seeds.csv, seeds.svg and report.html
        stand beside them.
    count
        2 or more. A folder with fewer seeds may be resumed with more.
    existing
        What to do where `out` holds such a study already: refuse, resume it, or overwrite it.
    progress
        Where to show progress; without it, `quiet` decides whether to show any.
    on_row
        Called as each strategy ends with each seed, with its row and that seed's document so far.

    Raises
    ------
    FrostlineError
        Of the kind that fits; its text is one line.
    """
    if not 2 <= count <= MOST:
        raise ConfigError(f"{count} seeds: expected 2 to {MOST} (one seed is a plain study)")
    config, folder = configured(config), path_of(out, "out")
    with open_progress(progress, quiet) as progress, alone(folder):
        wanted = list(range(config.seed, config.seed + count))
        old = _look(folder, config, wanted, existing)
        document = _begin(wanted, old)
        with _kept_up_to_date(folder, document, fresh=old is None):
            return _run(folder, config, document, progress, on_row)


def _run(folder: Path, config: Config, document: Seeds, progress: Progress, on_row: OnRow | None) -> Seeds:
    """One seed after the other; what there is to say together is written after each from the second on."""
    ended: list[Study] = []
    seeds = document["seeds"]
    for seed in seeds:
        own, run = replace(config, seed=seed), _folder(folder, seed)
        current = _is_current(run, document)
        done = finished(run, own) if current else None
        kept = done is not None
        progress.say(f"Seed {seed}{': finished before, kept' if kept else f', {len(ended) + 1} of {len(seeds)}'}")
        if done is None:
            done = study(own, run, existing="resume" if current else "overwrite", progress=progress, on_row=on_row)
        ended.append(done)
        _check_photos(folder, config, seeds[0], seed)
        if len(ended) == 1:
            _clear(folder, document)
        last = len(ended) == len(seeds)
        if last or (len(ended) > 1 and not kept):
            _write(folder, cast(Seeds, {**document, **_together(folder, ended)}), done=last)
    return read(folder)


# ---- the folder ------------------------------------------------------------------------------------------------------


def _folder(folder: Path, seed: int) -> Path:
    return folder / f"seed-{seed}"


def settings(folder: Path) -> Path:
    """The config.toml that the study over several seeds in `folder` began with: its first seed's."""
    return _folder(folder, read(folder)["seeds"][0]) / "config.toml"


def _look(folder: Path, config: Config, wanted: Sequence[int], existing: Existing) -> Seeds | None:
    """Check that `folder` may be written to; returns its seeds.json where there is something to resume. Changes
    nothing of it.
    """
    if not (folder / FILE).exists():
        if any(p.name != ".lock" for p in folder.iterdir()):
            what = "a run of one seed" if (folder / "config.toml").exists() else "other files"
            raise RunError(f"{folder} holds {what} and no study over several seeds: choose another --out")
        return None
    if existing == "overwrite":
        return None
    if existing == "refuse":
        raise RunError(
            f"{folder} holds a study over several seeds already: --resume it, --overwrite it, or choose another --out"
        )
    old = read(folder)
    had = old["seeds"]
    if had != list(wanted[: len(had)]):
        raise RunError(
            f"{folder} holds the seeds {had[0]} to {had[-1]}, not {wanted[0]} to {wanted[-1]}: go on with --seed "
            f"{had[0]} and --seeds {len(had)} or more, or choose another --out"
        )
    if _is_current(first := _folder(folder, had[0]), old):
        look(first, config, "resume", Study)
    tidy(folder)
    return old


def _begin(wanted: list[int], old: Seeds | None) -> Seeds:
    if old is not None:
        return {**old, "status": "running", "seeds": wanted}
    return {
        "frostline": frostline.__version__,
        "created": datetime.now(UTC).isoformat(timespec="microseconds"),
        "status": "running",
        "seeds": wanted,
        "strategies": [],
        "comparisons": [],
        "answer": "",
        "answer_detail": "",
    }


@contextmanager
def _kept_up_to_date(folder: Path, document: Seeds, fresh: bool) -> Iterator[None]:
    """Say in seeds.json what is going on, so that it can be resumed; where a `fresh` study can't even begin, all is
    as before.
    """
    file = folder / FILE
    before = file.read_text(encoding="utf-8") if file.exists() else None
    documents.write(folder, documents.Seeds, document)
    try:
        yield
    except BaseException:
        if fresh and not _is_current(_folder(folder, document["seeds"][0]), document):
            file.unlink() if before is None else write_text(file, before)
        raise


def _is_current(run: Path, document: Seeds) -> bool:
    """Whether a seed's run belongs to this study, and is not what an overwritten one left."""
    return (run / "study.json").exists() and documents.read(run, Study)["created"] >= document["created"]


def _clear(folder: Path, document: Seeds) -> None:
    """Once a study's first seed is there: remove what is left of the one that it overwrites."""
    for run in folder.glob("seed-*"):
        if (run / "config.toml").exists() and not _is_current(run, document):
            shutil.rmtree(run)
    if not document["strategies"]:
        for name in (TABLE, PICTURE, "report.html"):
            (folder / name).unlink(missing_ok=True)


def _manifest(run: Path) -> list[dict[str, str]]:
    """Rows of a run's manifest.csv."""
    try:
        with (run / "manifest.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, ValueError) as error:
        raise RunError(f"{run / 'manifest.csv'} can't be read: {error}") from error


def _check_photos(folder: Path, config: Config, first: int, seed: int) -> None:
    """The seeds' studies are held beside each other photo by photo, so they must be of the same photos."""
    one, other = (
        {(row["path"], row["label"], row["sha256"]) for row in _manifest(_folder(folder, s))} for s in (first, seed)
    )
    if one != other:
        raise RunError(
            f"the photos in {config.data} are not those that {folder} began with: start again with another --out"
        )


# ---- what the seeds say together -------------------------------------------------------------------------------------


class _Answers(NamedTuple):
    """Correct answers, photo by photo and seed by seed: (N photos, S seeds) each. Byte-identical photos are one."""

    correct: dict[str, np.ndarray]
    """By strategy: how many answers were correct."""
    counts: np.ndarray
    """How many there were."""
    clusters: Clusters | None
    """(N,) photos that share a number are not independent."""
    mass: np.ndarray
    """What an answer counts in its seed's macro recall, 1 on average: classes count the same."""


def _together(folder: Path, ended: Sequence[Study]) -> dict[str, object]:
    """The figures over the seeds that have ended."""
    names = [row["name"] for row in ended[0]["strategies"]]
    answers = _answers(folder, names, ended)
    seed = ended[0]["seed"]
    rows = [_row(name, answers, ended, seed) for name in names]
    pairs = itertools.combinations(reversed(names), 2)
    compared = across_seeds.corrected([_compared(a, b, answers, seed) for a, b in pairs])
    comparisons = [cast(SeedsComparison, asdict(pair)) for pair in compared]
    decided = _decide(rows, compared, answers, ended)
    text, detail = _answer(rows, comparisons, decided)
    asked = (answers.counts > 0).sum(1)
    tested = {"photos": len(asked), "answers": int(answers.counts.sum()), "shared": int((asked > 1).sum())}
    return {
        **{name: value for name, value in ended[0].items() if name in ("protocol", "preset", "reported_on", "machine")},
        "dataset": {name: value for name, value in ended[0]["dataset"].items() if name in _DATASET},
        "tested": tested,
        "strategies": rows,
        "comparisons": comparisons,
        "answer": text,
        "answer_detail": detail,
        "decision": decided,
        "runs": [_about(document) for document in ended],
        "seconds": round(sum(document["seconds"] for document in ended), 3),
    }


def _compared(a: str, b: str, answers: _Answers, seed: int) -> across_seeds.PairAcross:
    return across_seeds.compare_across(
        a, answers.correct[a], b, answers.correct[b], answers.counts, seed, answers.clusters
    )


_DATASET = (
    "name", "root", "test_root", "source", "test_source", "photos", "classes", "sample", "test_sample", "skipped",
)  # fmt: skip
"""What seeds.json holds of the photos."""


def _about(document: Study) -> SeedRun:
    """One seed's study, for the list of them."""
    figures = ("name", "accuracy", "accuracy_ci", "validation_accuracy", "macro_f1", "log_loss", "ece_shipped")
    return {
        "seed": document["seed"],
        "folder": f"seed-{document['seed']}",
        "seconds": document["seconds"],
        "strategies": [
            cast(SeedStrategy, {k: v for k, v in row.items() if k in figures}) for row in document["strategies"]
        ],
    }


def _answers(folder: Path, names: Sequence[str], ended: Sequence[Study]) -> _Answers:
    digests, labels = [], {}
    for document in ended:
        rows = [r for r in _manifest(_folder(folder, document["seed"])) if r["split"] == document["reported_on"]]
        digests.append({row["path"]: row["sha256"] for row in rows})
        labels.update({row["sha256"]: row["label"] for row in rows})
    place = {digest: i for i, digest in enumerate(dict.fromkeys(d for seed in digests for d in seed.values()))}
    shape = (len(place), len(ended))
    correct, counts = {name: np.zeros(shape) for name in names}, np.zeros(shape)
    together = -1 - np.arange(len(place))  # a photo whose cluster no seed tells is alone
    for column, (document, digest) in enumerate(zip(ended, digests, strict=True)):
        np.add.at(counts, ([place[d] for d in digest.values()], column), 1)
        for name in names:
            own = read_predictions(_folder(folder, document["seed"]) / name / "predictions.csv")
            np.add.at(correct[name], ([place[digest[p.path]] for p in own], column), [p.correct for p in own])
            for p in own:
                if p.cluster is not None:
                    together[place[digest[p.path]]] = p.cluster
    of = np.unique([labels[digest] for digest in place], return_inverse=True)[1]
    each = np.zeros((of.max() + 1, len(ended)))
    np.add.at(each, of, counts)
    mass = counts.sum(0) / ((each > 0).sum(0) * np.maximum(each, 1))
    return _Answers(correct, counts, numbered(together), mass[of])


def _row(name: str, answers: _Answers, ended: Sequence[Study], seed: int) -> SeedsRow:
    """A strategy over the seeds."""
    rows = [next(row for row in document["strategies"] if row["name"] == name) for document in ended]
    as_given = [row["accuracy_as_given"] for row in rows if "accuracy_as_given" in row]
    row = {
        "name": name,
        **({"as_given_mean": float(np.mean(as_given))} if as_given else {}),
        **{k: v for k, v in rows[0].items() if k in ("backbone", "weights", "freeze_line", "layers", "parameters")},
        **asdict(across_seeds.mean_across(answers.correct[name], answers.counts, seed, answers.clusters)),
        **_balanced(name, answers, rows, seed),
        "validation_mean": float(np.mean([row["validation_accuracy"] for row in rows])),
        "macro_f1_mean": float(np.mean([row["macro_f1"] for row in rows])),
        "seconds_mean": float(np.mean([row["seconds"]["total"] for row in rows])),
    }
    return cast(SeedsRow, row)


def _balanced(name: str, answers: _Answers, rows: Sequence[StrategyRow], seed: int) -> dict[str, object]:
    """A strategy's macro recall over the seeds; nothing where a seed's run is older than that figure."""
    if not all("validation_balanced_accuracy" in row for row in rows):
        return {}
    found = across_seeds.mean_across(
        answers.correct[name] * answers.mass, answers.counts * answers.mass, seed, answers.clusters
    )
    values = [row["validation_balanced_accuracy"] for row in rows]
    return {
        "validation_balanced_mean": float(np.mean(values)),
        "balanced_mean": found.mean,
        "balanced_ci": found.ci,
    }


def _decide(
    rows: Sequence[SeedsRow], pairs: Sequence[across_seeds.PairAcross], answers: _Answers, ended: Sequence[Study]
) -> Decision:
    """Which strategy to ship, and whether unfreezing helps; by macro recall where classes are unequal."""
    unequal = ended[0]["dataset"].get("unequal", False) and all("balanced_mean" in row for row in rows)
    best, metric = decision.best_over_seeds(rows, unequal), decision.metric_of(unequal)
    value, ci = (best["balanced_mean"], best["balanced_ci"]) if unequal else (best["mean"], best["ci"])
    photos = wording.photos_reported(ended[0])
    ship = decision.shipped(
        best,
        rows,
        unequal,
        f"mean {metric} {wording.percent(value)} over {len(ended)} seeds ({wording.interval(ci)}) on "
        f"{len(answers.counts):,} {photos}",
    )
    pair = decision.unfrozen_pair(rows, unequal)
    if pair is None:
        return decision.decide(ship, None)
    names = (pair[0]["name"], pair[1]["name"])
    family = [_mean_difference(p.a, p.b, answers, unequal, p, ended[0]["seed"]) for p in pairs]
    place = next(i for i, p in enumerate(pairs) if {p.a, p.b} == set(names))
    found = family[place]
    if pairs[place].a != names[0]:
        found = replace(found, difference=-found.difference, ci=(-found.ci[1], -found.ci[0]))
    p_values = [one.p_value for one in family]
    about = decision.unfreezing(*names, found, metric, photos, p_values)
    more = ", so it takes more of both to tell" if about["photos_to_tell"] else ""
    return decision.decide(ship, about, f"The interval covers photos and {len(ended)} seeds{more}.")


def _mean_difference(
    a: str, b: str, answers: _Answers, unequal: bool, known: across_seeds.PairAcross, seed: int
) -> decision.Difference:
    """Two strategies over the seeds; `known`: by accuracy."""
    photos = len(answers.counts)
    if not unequal:
        return decision.over_runs(known.mean, known.ci, known.p_value, photos)
    weighed = [answers.correct[name] * answers.mass for name in (a, b)]
    mass, together = answers.counts * answers.mass, answers.clusters
    found = across_seeds.compare_across(a, weighed[0], b, weighed[1], mass, seed, together)
    ahead = (weighed[0] - weighed[1]).sum(1)
    if together is not None:
        ahead = np.bincount(together, weights=ahead)
    return decision.over_runs(found.mean, found.ci, macro_recall.sign_flips(ahead), photos)


def _answer(rows: Sequence[SeedsRow], comparisons: Sequence[SeedsComparison], decided: Decision) -> tuple[str, str]:
    """The decision in words, and how the strategy to ship compares with the others."""
    about, model = decided["unfreezing"], decided["ship"]["model"]
    best = next(row for row in rows if row["name"] == model)
    text = decided["ship"]["words"]
    if "as_given_mean" in best:
        text += f" On all photos with their original labels: mean accuracy {100 * best['as_given_mean']:.1f} %."
    told = {about["unfrozen"], about["frozen"]} if about else set()
    verdicts = [c["verdict"] for c in comparisons if model in (c["a"], c["b"]) and {c["a"], c["b"]} != told]
    said = [about["words"], decided["note"]] if about else []
    plain = "By plain accuracy: " if verdicts and decided["ship"]["metric"] != "accuracy" else ""
    return text, " ".join([*said, *(f"{plain}{v[0].upper()}{v[1:]}." for v in verdicts)])


# ---- table, picture, page --------------------------------------------------------------------------------------------


def _write(folder: Path, document: Seeds, done: bool) -> None:
    """seeds.json last: what it says is finished is there."""
    columns = ("accuracy", "low", "high", "validation_accuracy", "macro_f1", "log_loss", "ece_shipped")
    write_csv(folder / TABLE, ["seed", "strategy", *columns], _rows(document, columns))
    document = {**document, "status": "finished" if done else "running"}
    draw(folder, document)
    documents.write(folder, documents.Seeds, document)


def _rows(document: Seeds, columns: Sequence[str]) -> Iterator[list[object]]:
    """The rows of seeds.csv: one for each seed and strategy."""
    for run in document["runs"]:
        for row in run["strategies"]:
            figures = {**row, "low": row["accuracy_ci"][0], "high": row["accuracy_ci"][1]}
            yield [run["seed"], row["name"], *(f"{figures[column]:.6f}" for column in columns)]
