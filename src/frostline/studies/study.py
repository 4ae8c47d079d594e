"""The main job: train the strategies, compare them, leave a run folder. Every step that is done is on disk, so a run resumes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

import frostline
from frostline import documents
from frostline.cache.store import Store
from frostline.checks import check
from frostline.config import Config, configured
from frostline.errors import RunError
from frostline.evidence import domain_shift, explanations, gather, leakage
from frostline.fields import path_of
from frostline.photos.head_start import HeadStart
from frostline.progress import Progress, open_progress
from frostline.recipes import Strategy, resolve
from frostline.reports import study_page
from frostline.stats.predictions import Prediction, read_predictions
from frostline.studies.document import answer, begin, comparisons, files_of, say_near_twins, write_document
from frostline.studies.run_folder import Existing, held, look, read, start
from frostline.training.prepare import Prepared, network_name
from frostline.training.stages import discard_checkpoints
from frostline.training.strategy import Row, fit

OnRow = Callable[[Row, dict[str, Any]], None]


OnAnswer = Callable[[dict[str, Any]], None]


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
) -> dict[str, Any]:
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
        Called with the document when all strategies are done, before what else there is to measure (`frostline.evidence.gather`):
        from then on the study may be stopped, and is finished.
    head_start
        What `frostline.photos.head_start.begin` began before this module was imported.

    Raises
    ------
    FrostlineError
        Of the kind that fits; its text is one line.
    """
    config, run = configured(config), path_of(out, "out")
    with open_progress(progress, quiet) as progress, held(run):
        old = look(run, config, existing)
        return _run(run, config, old, head_start, progress, on_row, on_answer)


def _run(
    run: Path,
    config: Config,
    old: dict[str, Any] | None,
    head_start: HeadStart | None,
    progress: Progress,
    on_row: OnRow | None,
    on_answer: OnAnswer | None,
) -> dict[str, Any]:
    """The stages of a study, in order; a finished strategy of an `old` document is kept as it is."""
    started = time.perf_counter()
    prepared, log = start(run, config, old, progress, head_start, frostline=frostline.__version__)
    document = old or begin(prepared)
    document["status"] = "running"
    say_near_twins(document["dataset"], progress)
    checked = _quick_check(document, prepared, progress)
    rows: dict[str, Row] = {row["name"]: row for row in document["strategies"]}
    log(
        "photos",
        usable=len(prepared.photos.photos),
        skipped=len(prepared.skipped),
        seconds=round(prepared.prefix_seconds, 3),
    )
    spent = document["seconds"] - started

    def write() -> None:
        document["seconds"] = round(spent + time.perf_counter(), 3)
        write_document(run, config, document, rows)

    write()

    # ---- the strategies, the quick ones first
    for s in sorted(config.strategies, key=lambda s: order(s, prepared)):
        if s.name in rows:
            progress.say(f"{s.name}: finished before, kept")
            continue
        if rows:
            study_page.build(run)  # what there is so far; its last form is built at the end
        log("strategy", strategy=s.name)
        (run / s.name).mkdir(exist_ok=True)
        rows[s.name] = fit(s, prepared, run / s.name, head_from=head_from(s, config, rows), progress=progress, log=log)
        checked()
        log("finished", strategy=s.name, accuracy=rows[s.name]["accuracy"], seconds=rows[s.name]["seconds"]["total"])
        predictions = _predictions(run, config, rows)
        document["comparisons"] = comparisons(predictions)
        document["strategies"] = list(rows.values())
        document["claims"] = gather.measured(run, document, predictions)
        document["answer"], document["answer_detail"] = answer(list(rows.values()), document)
        write()
        discard_checkpoints(run / s.name)
        if on_row is not None:
            on_row(rows[s.name], document)

    # ---- done
    checked()
    document["status"] = "finished"
    if "shift" not in document and (found := domain_shift.measure(prepared)) is not None:
        document["shift"] = found
    write()
    if on_answer is not None:
        on_answer(document)
    try:  # the study is finished: from here on it may be stopped
        networks = {s.name: prepared.backbones[network_name(s)] for s in config.strategies}
        explanations.leave(run, config, networks, files_of(prepared), progress, log)
        if gather.wanted(config):
            say_near_twins(document["dataset"], progress, partial(leakage.measure, prepared))
            write()
            _measure_more(run, prepared, document, progress, log)
    finally:
        study_page.build(run)
    log("end", seconds=document["seconds"])
    return read(run)


def _measure_more(
    run: Path,
    prepared: Prepared,
    document: dict[str, Any],
    progress: Progress,
    log: Callable[..., None],
    photos: int | None = None,
) -> None:
    """What `frostline.evidence.gather` adds to a finished study; each step that is done is on disk."""
    spent = document.get("evidence_seconds", 0.0) - time.perf_counter()

    def write() -> None:
        document["evidence_seconds"] = round(spent + time.perf_counter(), 3)
        documents.write(run, documents.Study, document)

    predictions = _predictions(run, prepared.config, {row["name"]: row for row in document["strategies"]})
    gather.gather(run, prepared, document, predictions, progress=progress, log=log, write=write, photos=photos)


def robustness(
    run: str | Path, photos: int | None = None, *, quiet: bool = True, progress: Progress | None = None
) -> dict[str, Any]:
    """Measure on a finished study's models what its run did not, or on more photos; returns what its study.json holds then.

    Parameters
    ----------
    run
        The run folder; its study.json and report are renewed.
    photos
        How many reported photos to make worse; None = as the run's configuration says, where it has not been done.

    Raises
    ------
    FrostlineError
        The run is not finished, its photos are gone, or the like; its text is one line.
    """
    folder = Path(run)
    document = read(folder)
    if document["status"] != "finished":
        raise RunError(f"{folder} is not finished: go on with it by frostline study --out {folder} --resume")
    with open_progress(progress, quiet) as progress, held(folder):
        config = Config.from_toml(folder / "config.toml")
        prepared, log = start(folder, config, document, progress, robustness=photos)
        try:
            _measure_more(folder, prepared, document, progress, log, photos)
        finally:
            study_page.build(folder)
    return read(folder)


def _quick_check(document: dict[str, Any], prepared: Prepared, progress: Progress) -> Callable[[], None]:
    """Say what the photos' files and the frozen network tell of them for nothing, in three lines; once in a run.

    On the side, while the first strategy learns: a second or two. What is returned waits for it and puts it into the document. The thread
    holds nobody up who stops the study, and the study stands without its lines.
    """
    dataset = document["dataset"]
    if "check" in dataset:
        return lambda: None

    found: dict[str, Any] = {}

    def look() -> None:
        try:
            # the other core learns; threads that wait for each other would take turns with it
            with threadpool_limits(1):
                seen = check.quick(prepared.photos, _at_the_top(prepared), prepared.near_twins, prepared.config.seed)
            for line in seen["lines"]:
                progress.say(line)
            found["check"] = seen
        except Exception as error:  # the answer is worth more than these lines
            progress.say(
                f"The photos were not checked on the way ({type(error).__name__}: {error}); frostline check does it"
            )

    looking = threading.Thread(target=look, daemon=True)
    looking.start()

    def wait() -> None:
        looking.join()
        dataset.update(found)

    return wait


def _at_the_top(prepared: Prepared) -> Store | None:
    """What a pretrained network of the run makes of the photos, its head aside; None: none of them is tapped there."""
    for s in prepared.config.strategies:
        network = prepared.backbones[network_name(s)]
        place = (network_name(s), network.layer_count)
        if s.weights == "pretrained" and place in prepared.taps:
            return prepared.taps[place].store
    return None


def order(s: Strategy, prepared: Prepared) -> int:
    """Frozen before fine-tuned (which starts from its head), those that read whole photos last: the first answer is quick."""
    network = prepared.backbones[network_name(s)]
    return network.layer_count - resolve(s.line, network.layer_count)


def head_from(s: Strategy, config: Config, rows: dict[str, Row]) -> Row | None:
    """The finished strategy whose head is the one that `s` would train first: same network, line at the top, same recipe.

    A head that has learnt from validation photos too is none: what starts from it could not be judged on those.
    """
    for other in config.strategies:
        same = (other.backbone, other.weights, other.recipe) == (s.backbone, s.weights, s.head_recipe)
        if same and other.line == "top" and s.head_first and "refit" not in rows.get(other.name, {"refit": None}):
            return rows[other.name]
    return None


def _predictions(run: Path, config: Config, rows: dict[str, Row]) -> dict[str, list[Prediction]]:
    """What each finished strategy said of the photos reported on, in the configured order."""
    return {s.name: read_predictions(run / s.name / "predictions.csv") for s in config.strategies if s.name in rows}
