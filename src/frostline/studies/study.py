"""The main job: train the strategies, compare them, leave a run folder. Every step that is done is on disk, so a run
resumes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from threadpoolctl import threadpool_limits

import frostline
from frostline import documents
from frostline.cache.store import Store
from frostline.checks import check
from frostline.config import Config, configured
from frostline.documents import Study
from frostline.documents.shared import QuickCheck
from frostline.documents.strategy import StrategyRow
from frostline.errors import RunError
from frostline.evidence import domain_shift, explanations, gather, leakage
from frostline.fields import path_of
from frostline.photos.head_start import HeadStart
from frostline.progress import Progress, open_progress
from frostline.recipes import Strategy, trains_the_head_of
from frostline.reports import study_page
from frostline.stats.predictions import Prediction, read_predictions
from frostline.studies import cost
from frostline.studies.document import (
    answer,
    begin,
    comparisons,
    decide,
    files_of,
    provisional,
    report_near_duplicates,
)
from frostline.studies.run_folder import Existing, held, look, start
from frostline.studies.sitting import Sitting, earlier
from frostline.training.prepare import Prepared, network_name
from frostline.training.stages import discard_checkpoints
from frostline.training.strategy import fit

OnRow = Callable[[StrategyRow, Study], None]
OnAnswer = Callable[[Study], None]
Log = Callable[..., None]


def study(
    config: Config | str | Path,
    out: str | Path,
    *,
    existing: Existing = "refuse",
    quiet: bool = True,
    progress: Progress | None = None,
    on_row: OnRow | None = None,
    on_answer: OnAnswer | None = None,
    head_start: HeadStart | None = None,
    started: float | None = None,
) -> Study:
    """Run a study and return what its study.json holds.

    Parameters
    ----------
    config
        From `frostline.configure`; or the path of the photos, which are studied with all settings at their defaults.
    out
        The run folder.
    existing
        What to do where `out` holds a run already: refuse, resume it, or overwrite it.
    progress
        Where to show progress; without it, `quiet` decides whether to show any.
    on_row
        Called as each strategy ends, with its row and the document so far.
    on_answer
        Called with the document when all strategies are done, before what else there is to measure
        (`frostline.evidence.gather`): from then on the study may be stopped, and is finished.
    head_start
        What `frostline.photos.head_start.begin` began before this module was imported.
    started
        When the command began, by `time.perf_counter`; None = now.

    Raises
    ------
    FrostlineError
        Of the kind that fits; its text is one line.
    """
    started = time.perf_counter() if started is None else started
    config, run = configured(config), path_of(out, "out")
    with open_progress(progress, quiet) as progress, held(run):
        old = look(run, config, existing, Study)
        return _run(run, config, old, started, head_start, progress, on_row, on_answer)


def _run(
    run: Path,
    config: Config,
    old: Study | None,
    started: float,
    head_start: HeadStart | None,
    progress: Progress,
    on_row: OnRow | None,
    on_answer: OnAnswer | None,
) -> Study:
    """The stages of a study, in order; a finished strategy of an `old` document is kept as it is."""
    # ---- the photos: listed, decoded, split, and run through the frozen layers
    before = earlier(run, old)
    coster = cost.of_study(old)
    prepared, log = start(run, config, old, progress, head_start, coster, frostline=frostline.__version__)
    document = old or begin(prepared)
    sitting = Sitting(run, document, started, before)
    report_near_duplicates(document["dataset"], progress)
    wait_for_check = _quick_check(document, prepared, progress)
    photos, skipped = len(prepared.photos.photos), len(prepared.skipped)
    log("photos", usable=photos, skipped=skipped, seconds=round(prepared.prefix_seconds, 3))
    sitting.write()
    with sitting.told_if_stopped(progress):
        # ---- the strategies, the quick ones first
        predictions = _train(prepared, document, sitting, progress, log, wait_for_check, on_row)

        # ---- the answer: from here on the study may be stopped, and is finished
        wait_for_check()
        document["status"] = "finished"
        if "shift" not in document and (shift := domain_shift.measure(prepared)) is not None:
            document["shift"] = shift
        sitting.write()
        if on_answer is not None:
            on_answer(document)

        # ---- the evidence and the report
        _measure_evidence(prepared, document, predictions, sitting, progress, log)
    log("end", seconds=document["seconds"])
    return documents.read(run, Study)


def _train(
    prepared: Prepared,
    document: Study,
    sitting: Sitting,
    progress: Progress,
    log: Log,
    wait_for_check: Callable[[], None],
    on_row: OnRow | None,
) -> dict[str, list[Prediction]]:
    """Train, evaluate and compare the strategies that `document` lacks; returns the predictions of all."""
    run, config = sitting.run, prepared.config
    rows = {row["name"]: row for row in document["strategies"]}
    more = gather.wanted(config) or any(s.name not in rows for s in config.strategies)
    predictions = _read_predictions(run, config, rows) if more else {}  # a run with nothing to add needs none
    for s in sorted(config.strategies, key=lambda s: order(s, prepared)):
        if s.name in rows:
            progress.say(f"{s.name}: finished before, kept")
            continue
        if rows:
            study_page.build(run)  # what there is so far; its last form is built at the end
        sitting.doing = f"while training {s.name}"
        log("strategy", strategy=s.name)
        (run / s.name).mkdir(exist_ok=True)
        head = head_from(s, config, rows)
        row, own, *_ = fit(s, prepared, run / s.name, head_from=head, progress=progress, log=log)
        rows[s.name], predictions[s.name] = row, [p.as_written() for p in own]
        wait_for_check()
        log("finished", strategy=s.name, accuracy=row["accuracy"], seconds=row["seconds"]["total"])
        _conclude(run, config, document, rows, predictions)
        sitting.write()
        discard_checkpoints(run / s.name)
        if on_row is not None:
            on_row(row, document)
    return predictions


def _conclude(
    run: Path,
    config: Config,
    document: Study,
    rows: dict[str, StrategyRow],
    predictions: dict[str, list[Prediction]],
) -> None:
    """Put into `document` what follows from the strategies that have ended; they stand in the configured order."""
    names = [s.name for s in config.strategies if s.name in rows]
    by_name = {name: predictions[name] for name in names}
    document["strategies"] = [rows[name] for name in names]
    document["comparisons"] = comparisons(by_name)
    missing = [s.name for s in config.strategies if s.name not in rows]
    if not missing and (found := decide(list(rows.values()), document, by_name)) is not None:
        document["decision"] = found
    document["claims"] = gather.measured_claims(run, document, by_name)
    if missing:
        document["answer"], document["answer_detail"] = provisional(document, missing), ""
    else:
        document["answer"], document["answer_detail"] = answer(list(rows.values()), document)


def _read_predictions(run: Path, config: Config, rows: dict[str, StrategyRow]) -> dict[str, list[Prediction]]:
    """What an earlier run left of each finished strategy, in the configured order: predictions of the photos reported
    on.
    """
    names = [s.name for s in config.strategies if s.name in rows]
    return {name: read_predictions(run / name / "predictions.csv") for name in names}


def _measure_evidence(
    prepared: Prepared,
    document: Study,
    predictions: dict[str, list[Prediction]],
    sitting: Sitting,
    progress: Progress,
    log: Log,
) -> None:
    """Heat maps, near-duplicates, causes of errors, robustness, fewer photos: as far as the configuration asks
    for them; then the report.
    """
    config, run = prepared.config, sitting.run
    sitting.doing = "while drawing heat maps"
    networks = {s.name: prepared.backbones[network_name(s)] for s in config.strategies}
    explanations.write_missing(run, config, networks, files_of(prepared), prepared.runtime, progress, log)
    if gather.wanted(config):
        report_near_duplicates(document["dataset"], progress, partial(leakage.measure, prepared))
        sitting.write()
        _gather(prepared, document, predictions, sitting, progress, log)
    _report(sitting)


def _report(sitting: Sitting) -> None:
    """Write the page, and before it the time that the whole run took."""
    sitting.doing = "while writing the report"
    sitting.write()
    study_page.build(sitting.run)


def _gather(
    prepared: Prepared,
    document: Study,
    predictions: dict[str, list[Prediction]],
    sitting: Sitting,
    progress: Progress,
    log: Log,
    photos: int | None = None,
    *,
    everything: bool = False,
) -> None:
    """Measure what `frostline.evidence.gather` adds to a finished study; each step that is done is on disk."""
    spent = document.get("evidence_seconds", 0.0) - time.perf_counter()

    def write() -> None:
        document["evidence_seconds"] = round(spent + time.perf_counter(), 3)
        sitting.write()

    sitting.doing = "while measuring robustness, causes of errors and fewer photos"
    by_name = {s.name: predictions[s.name] for s in prepared.config.strategies if s.name in predictions}
    gather.gather(
        gather.Gathering(sitting.run, prepared, document, by_name, progress, log, write), photos, everything=everything
    )


def robustness(
    run: str | Path, photos: int | None = None, *, quiet: bool = True, progress: Progress | None = None
) -> Study:
    """Measure on a finished study's models what its run did not, or on more photos; returns what its study.json holds
    then.

    Parameters
    ----------
    run
        The run folder; its study.json and report are renewed.
    photos
        How many reported photos to corrupt; None = as the run's configuration says, where it has not been done.

    Raises
    ------
    FrostlineError
        The run is not finished, its photos are gone, or the like; its text is one line.
    """
    folder, started = Path(run), time.perf_counter()
    document = documents.read(folder, Study)
    if document["status"] != "finished":
        raise RunError(f"{folder} is not finished: go on with it by frostline study --out {folder} --resume")
    with open_progress(progress, quiet) as progress, held(folder):
        config = Config.from_toml(folder / "config.toml")
        before = earlier(folder, document)
        prepared, log = start(folder, config, document, progress, robustness=photos)
        sitting = Sitting(folder, document, started, before)
        document["status"] = "finished"
        with sitting.told_if_stopped(progress):
            rows = {row["name"]: row for row in document["strategies"]}
            predictions = _read_predictions(folder, config, rows)
            _gather(prepared, document, predictions, sitting, progress, log, photos, everything=True)
            _report(sitting)
    return documents.read(folder, Study)


def _quick_check(document: Study, prepared: Prepared, progress: Progress) -> Callable[[], None]:
    """Start `frostline check`'s quick part, once in a run: it needs nothing but the files and the activations at hand.

    It takes a second or two, beside the training of the first strategy. Returns a function that waits for it and puts
    its findings into the document. The thread keeps nobody from stopping the study, and the study stands without its
    lines.
    """
    dataset = document["dataset"]
    if "check" in dataset:
        return lambda: None

    found: list[QuickCheck] = []

    def look() -> None:
        try:
            # the other core trains; threads that wait for each other would take turns with it
            with threadpool_limits(1):
                store, command = _at_the_top(prepared)
                seen = check.quick(prepared.photos, store, prepared.near_twins, command)
            for line in seen["lines"]:
                progress.say(line)
            found.append(seen)
        except Exception as error:  # the answer is worth more than these lines
            progress.say(
                f"The photos were not checked on the way ({type(error).__name__}: {error}); frostline check does it"
            )

    looking = threading.Thread(target=look, daemon=True)
    looking.start()

    def wait() -> None:
        looking.join()
        if found:
            dataset["check"] = found[0]

    return wait


def _at_the_top(prepared: Prepared) -> tuple[Store | None, str]:
    """The photos' activations at the top of a pretrained network of the run, None where the run has none; and the
    command that checks the photos by the same network."""
    config = prepared.config
    for s in config.strategies:
        network = prepared.backbones[network_name(s)]
        place = (network_name(s), network.layer_count)
        if s.weights == "pretrained" and place in prepared.taps:
            command = check.command(config.data, s.backbone, network.transform.size, config.weights)
            return prepared.taps[place].store, command
    return None, check.command(config.data)


def order(s: Strategy, prepared: Prepared) -> int:
    """Frozen before fine-tuned (which starts from its head), those that read whole photos last: the first answer is
    quick.
    """
    network = prepared.backbones[network_name(s)]
    return network.layer_count - network.lines.place(s)


def head_from(s: Strategy, config: Config, rows: Mapping[str, StrategyRow]) -> StrategyRow | None:
    """The finished strategy whose head is the one that `s` would train first: same network, line at the top, same
    recipe.

    A head that was trained on validation photos too is none: what starts from it could not be judged on those.
    """
    for other in config.strategies:
        if trains_the_head_of(other, s) and "refit" not in rows.get(other.name, {"refit": None}):
            return rows[other.name]
    return None
