"""The main job: train the strategies, compare them, leave a run folder. Every step that is done is on disk, so a run resumes."""

from __future__ import annotations

import ctypes
import itertools
import json
import platform
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock, Timeout
from threadpoolctl import threadpool_limits

import frostline
from frostline import (
    check,
    evidence,
    explanations,
    flattery,
    metrics,
    report,
    sample,
    shift,
    upkeep,
    words,
)
from frostline.balance import unequal
from frostline.cache import Store
from frostline.config import LEAST_TO_TELL, USUAL_LOSS, Config, Strategy, resolve
from frostline.configuration import SAMPLE as SAMPLE
from frostline.configuration import configure as configure
from frostline.engine import processor
from frostline.errors import RunError
from frostline.files import disk_errors, write_json
from frostline.fit import Row, discard_checkpoints, fit
from frostline.headstart import HeadStart
from frostline.manifest import Manifest
from frostline.predict import Classified, read_predictions
from frostline.progress import Progress
from frostline.reading import thread_count
from frostline.ready import Ready, network_name, prepare
from frostline.weights import cache_dir

DOCUMENT, SWEEP = "study.json", "sweep.json"
"""What a run folder holds, by kind of run."""

Existing = Literal["refuse", "resume", "overwrite"]
OnRow = Callable[[Row, dict[str, Any]], None]
OnAnswer = Callable[[dict[str, Any]], None]


def study(
    config: Config,
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
    out
        The run folder.
    existing
        What to do where `out` holds a run already: refuse, resume it, or overwrite it.
    progress
        Where to show progress; without it, `quiet` decides whether to show any.
    on_row
        Called as each strategy ends, with its row and the document so far.
    on_answer
        Called with the document when all strategies are done, before what else there is to measure (`frostline.evidence`): from then on
        the study may be stopped, and is finished.
    head_start
        What `frostline.headstart.begin` began before this module was imported.

    Raises
    ------
    FrostlineError
        Of the kind that fits; its text is one line.
    """
    run = Path(out)
    if progress is None:
        with Progress(quiet) as own:
            return study(
                config, out, existing=existing, progress=own, on_row=on_row, on_answer=on_answer, head_start=head_start
            )
    with held(run):
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
    ready, log = start(run, config, old, progress, head_start, frostline=frostline.__version__)
    document = old or begin(ready)
    document["status"] = "running"
    _say_near_twins(document["dataset"], progress)
    checked = _quick_check(document, ready, progress)
    rows: dict[str, Row] = {row["name"]: row for row in document["strategies"]}
    log("photos", usable=len(ready.photos.photos), skipped=len(ready.skipped), seconds=round(ready.prefix_seconds, 3))
    spent = document["seconds"] - started

    def write() -> None:
        document["seconds"] = round(spent + time.perf_counter(), 3)
        _write(run, config, document, rows)

    write()

    # ---- the strategies, the quick ones first
    for s in sorted(config.strategies, key=lambda s: order(s, ready)):
        if s.name in rows:
            progress.say(f"{s.name}: finished before, kept")
            continue
        if rows:
            report.build(run)  # what there is so far; its last form is built at the end
        log("strategy", strategy=s.name)
        (run / s.name).mkdir(exist_ok=True)
        rows[s.name] = fit(s, ready, run / s.name, head_from=head_from(s, config, rows), progress=progress, log=log)
        checked()
        log("finished", strategy=s.name, accuracy=rows[s.name]["accuracy"], seconds=rows[s.name]["seconds"]["total"])
        predictions = _predictions(run, config, rows)
        document["comparisons"] = _comparisons(predictions)
        document["strategies"] = list(rows.values())
        document["claims"] = evidence.measured(run, document, predictions)
        document["answer"], document["answer_detail"] = answer(list(rows.values()), document)
        write()
        discard_checkpoints(run / s.name)
        if on_row is not None:
            on_row(rows[s.name], document)

    # ---- done
    checked()
    document["status"] = "finished"
    if "shift" not in document and (found := shift.measure(ready)) is not None:
        document["shift"] = found
    write()
    if on_answer is not None:
        on_answer(document)
    try:  # the study is finished: from here on it may be stopped
        networks = {s.name: ready.backbones[network_name(s)] for s in config.strategies}
        explanations.leave(run, config, networks, _places(ready), progress, log)
        if evidence.wanted(config):
            _say_near_twins(document["dataset"], progress, partial(flattery.measure, ready))
            write()
            _measure_more(run, ready, document, progress, log)
    finally:
        report.build(run)
    log("end", seconds=document["seconds"])
    return read(run)


def _places(ready: Ready) -> dict[str, Path]:
    """The file of each photo reported on, by its path."""
    root = (ready.others or ready.photos).root
    return {p.path: root / p.path for p in ready.reported()}


def _measure_more(
    run: Path,
    ready: Ready,
    document: dict[str, Any],
    progress: Progress,
    log: Callable[..., None],
    photos: int | None = None,
) -> None:
    """What `frostline.evidence` adds to a finished study; each step that is done is on disk."""
    spent = document.get("evidence_seconds", 0.0) - time.perf_counter()

    def write() -> None:
        document["evidence_seconds"] = round(spent + time.perf_counter(), 3)
        write_json(run / DOCUMENT, document)

    predictions = _predictions(run, ready.config, {row["name"]: row for row in document["strategies"]})
    evidence.gather(run, ready, document, predictions, progress=progress, log=log, write=write, photos=photos)


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
    if progress is None:
        with Progress(quiet) as own:
            return robustness(run, photos, progress=own)
    document = read(folder)
    if document["status"] != "finished":
        raise RunError(f"{folder} is not finished: go on with it by frostline study --out {folder} --resume")
    with held(folder):
        config = Config.from_toml(folder / "config.toml")
        ready, log = start(folder, config, document, progress, robustness=photos)
        try:
            _measure_more(folder, ready, document, progress, log, photos)
        finally:
            report.build(folder)
    return read(folder)


def _quick_check(document: dict[str, Any], ready: Ready, progress: Progress) -> Callable[[], None]:
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
                seen = check.quick(ready.photos, _at_the_top(ready), ready.near_twins, ready.config.seed)
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


def _at_the_top(ready: Ready) -> Store | None:
    """What a pretrained network of the run makes of the photos, its head aside; None: none of them is tapped there."""
    for s in ready.config.strategies:
        network = ready.backbones[network_name(s)]
        place = (network_name(s), network.layer_count)
        if s.weights == "pretrained" and place in ready.taps:
            return ready.taps[place].store
    return None


def start(
    run: Path,
    config: Config,
    old: dict[str, Any] | None,
    progress: Progress,
    head_start: HeadStart | None = None,
    **said: Any,
) -> tuple[Ready, Callable[..., None]]:
    """Push the photos through the frozen layers, then make the run folder ready; returns the photos and the run's log.

    Nothing is written, nor overwritten, before the photos have gone well. `said` goes into the log's first line.
    """
    settle_torch()
    ready = prepare(_with_sample(config, progress), progress, head_start)
    if old is None:
        _empty(run)
    config.to_toml(run / "config.toml")
    log = _logger(run / "log.jsonl")
    log("start", **said, resumed=old is not None)
    _settle_manifest(run, ready, old)
    return ready, log


# ---- the run folder --------------------------------------------------------------------------------------------------


@contextmanager
def held(run: Path) -> Iterator[None]:
    """Hold the run folder, and what the run uses of the cache, which is brought below its limit at the end."""
    try:
        with alone(run), upkeep.session():
            yield
    finally:
        upkeep.trim()


@contextmanager
def alone(run: Path) -> Iterator[None]:
    """Hold the run folder, made where it is not there yet; a folder in which nothing was left is taken away again."""
    fresh = not run.exists()
    with disk_errors(run):
        run.mkdir(parents=True, exist_ok=True)
        lock = FileLock(run / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(f"{run} is in use by another frostline: wait for it, or choose another --out") from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no file that is open
            (run / ".lock").unlink()
        lock.release()
        if fresh:
            with suppress(OSError):  # it holds a run now
                run.rmdir()


def look(run: Path, config: Config, existing: Existing, name: str = DOCUMENT) -> dict[str, Any] | None:
    """Check that `run` may be written to; returns its document where there is something to resume. Changes nothing of it."""
    settings = run / "config.toml"
    if (run / "seeds.json").exists():
        raise RunError(f"{run} holds a study over several seeds: go on with it by --seeds, or choose another --out")
    if not settings.exists() and any(p.name != ".lock" for p in run.iterdir()):
        raise RunError(f"{run} holds other files and no frostline run: choose another --out")
    if not settings.exists() or existing == "overwrite":
        return None
    if other := next((n for n in (DOCUMENT, SWEEP) if n != name and (run / n).exists()), None):
        raise RunError(f"{run} holds another kind of run ({other}): choose another --out, or --overwrite it")
    differing = _differences(Config.from_toml(settings), config)
    if differing:
        raise RunError(
            f"{run} holds a run of another configuration (differs in {', '.join(differing)}): --resume it without naming the "
            "photos and options again, choose another --out, or --overwrite it"
        )
    if existing == "refuse":
        raise RunError(f"{run} holds a run already: --resume it, --overwrite it, or choose another --out")
    tidy(run)
    return read(run, name) if (run / name).exists() else None  # None: stopped before its first figure


def tidy(run: Path) -> None:
    """Remove half-written files that a killed process left; the lock says that nobody writes now."""
    for path in [*run.glob(".*.tmp"), *run.glob("*/.*.tmp")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _empty(run: Path) -> None:
    """Make room for a new run in a folder that `look` allowed."""
    for path in run.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != ".lock":  # this process holds it
            path.unlink()


def finished(run: Path, config: Config) -> dict[str, Any] | None:
    """The study.json of a run of this very configuration that came to its end; None: there is none, or more is to be done."""
    settings = run / "config.toml"
    if not settings.exists() or _differences(Config.from_toml(settings), config) or not (run / "study.json").exists():
        return None
    document = read(run)
    return document if document["status"] == "finished" else None


def _differences(a: Config, b: Config) -> list[str]:
    one, other = asdict(a), asdict(b)
    for side in (one, other):
        for name in ("data", "test", "weights"):
            if side[name] and side[name] != SAMPLE:
                side[name] = str(Path(side[name]).resolve())
        side["exclude"] = side.pop("exclude_sha256") or side["exclude"]  # what it says counts, not where it lies
    return [name for name in one if one[name] != other[name]]


def read(run: Path, name: str = DOCUMENT) -> dict[str, Any]:
    """The study.json (or sweep.json) of a run folder.

    Raises
    ------
    RunError
        There is none, or it is damaged.
    """
    file = Path(run) / name
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{run} holds no {name}: give the folder that was the --out of a {Path(name).stem}") from None
    except (ValueError, OSError) as error:
        raise RunError(f"{file} can't be read: {error}") from error
    return document


def _settle_manifest(run: Path, ready: Ready, old: dict[str, Any] | None) -> None:
    """Write manifest.csv (photos of a test folder last), or hold the photos against the one that the run began with."""
    file = run / "manifest.csv"
    fresh = run / ".manifest.csv"
    tested = ready.others.photos if ready.others else []
    both = Manifest(ready.photos.root, [*ready.photos.photos, *tested])
    both.write(fresh, [*ready.split.names(), *["test"] * len(tested)])
    if old is not None and file.exists() and file.read_bytes() != fresh.read_bytes():
        fresh.unlink()
        raise RunError(
            f"the photos in {ready.config.data} are not those that {run} began with: start again with another --out"
        )
    fresh.replace(file)


def begin(ready: Ready) -> dict[str, Any]:
    """What a run's document holds before its first figure."""
    return {
        "frostline": frostline.__version__,
        "created": datetime.now(UTC).isoformat(timespec="microseconds"),
        "status": "running",
        "seed": ready.config.seed,
        "protocol": ready.config.protocol,
        "preset": ready.config.preset,
        "balance": ready.config.balance,
        "validation_stops": len(ready.split.validation) >= LEAST_TO_TELL,
        "backbones": sorted({s.backbone for s in ready.config.strategies if s.weights == "pretrained"}),
        "loss": "robust" if any(s.recipe.robust for s in ready.config.strategies) else USUAL_LOSS,
        "reported_on": ready.reported_on,
        "dataset": _dataset(ready),
        "strategies": [],
        "comparisons": [],
        "claims": [],
        "answer": "",
        "answer_detail": "",
        "seconds": 0.0,
        "machine": {
            "cpu": processor(),
            "cores": thread_count(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "platform": platform.platform(),
            "device": ready.device.type,
            "precision": ready.precision,
        },
    }


def _dataset(ready: Ready) -> dict[str, Any]:
    photos = ready.photos
    root = photos.root.resolve()
    others = ready.others
    return {
        "name": photos.name,
        "root": str(root),
        "test_root": str(others.root.resolve()) if others else None,
        "source": str(photos.packed or root),  # what the user named: `root` is in the cache where photos came packed
        "test_source": str(others.packed or others.root.resolve()) if others else None,
        "photos": len(photos.photos),
        "classes": ready.classes,
        "counts": photos.counts(),
        "unequal": unequal(photos.counts().values()),
        "train": len(ready.split.train),
        "validation": len(ready.split.validation),
        "test": len(others.photos) if others else len(ready.split.test),
        "skipped": [asdict(s) for s in ready.skipped],
        "cleaned": ready.cleaned or None,
        "twins": _paths(photos),
        "near_twins": flattery.near_twins(ready),
        "conflicts": [[{"path": p.path, "class": p.label} for p in group] for group in photos.conflicts()],
        "sample": _is_sample(root),
        "test_sample": others is not None and _is_sample(others.root),
    }


def _say_near_twins(dataset: dict[str, Any], progress: Progress, naive: Callable[[], Any] = lambda: None) -> None:
    """Say how many there are and, once it is measured, what they would have done to the figures."""
    found = dataset.get("near_twins")  # an older run has none
    if found and found["groups"]:
        found["naive"] = found["naive"] or naive()
        found["words"] = flattery.sentence(found)
        progress.say(found["words"])


def _is_sample(folder: Path) -> bool:
    return (folder / sample.MARKER).is_file()


def _paths(photos: Manifest) -> list[list[str]]:
    return [[p.path for p in group] for group in photos.twins()]


def _write(run: Path, config: Config, document: dict[str, Any], rows: dict[str, Row]) -> None:
    """study.json; strategies stand in the configured order."""
    document["strategies"] = [rows[s.name] for s in config.strategies if s.name in rows]
    write_json(run / "study.json", document)


def _logger(path: Path) -> Callable[..., None]:
    """Structured events, a JSON object a line."""

    def log(event: str, **values: Any) -> None:
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **values}
        with disk_errors(path), path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    return log


# ---- the pieces ------------------------------------------------------------------------------------------------------


def _with_sample(config: Config, progress: Progress) -> Config:
    """The configuration with the built-in sample's folder in place of its name; renders it where it is not there yet."""
    if config.data != SAMPLE:
        return config
    folder = cache_dir() / "sample"
    task = None

    def on_step(_done: int, total: int) -> None:
        nonlocal task
        task = task or progress.task("Rendering the built-in sample", total)
        task.advance(1)

    sample.render(folder, on_step=on_step)
    upkeep.mark_used(folder)
    return replace(config, data=str(folder))


def settle_torch() -> None:
    """Set PyTorch and the allocator up for a run: the same seed gives the same bits, and as many threads as there are cores.

    The kernels used here on CPUs are deterministic anyway; asking for it would import PyTorch's compiler (1 s) and blank all new memory.
    """
    _keep_freed_memory()
    torch.set_num_threads(thread_count())
    if torch.cuda.is_available():
        torch.use_deterministic_algorithms(True, warn_only=True)


def _keep_freed_memory() -> None:
    """Let glibc reuse the large blocks that each training step frees, instead of fetching zeroed pages anew for the next.

    A step of the small CNN touches 500 MB of such blocks. On other C libraries nothing changes.
    """
    trim_threshold, mmap_max = -1, -4  # as malloc.h numbers them
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def order(s: Strategy, ready: Ready) -> int:
    """Frozen before fine-tuned (which starts from its head), those that read whole photos last: the first answer is quick."""
    network = ready.backbones[network_name(s)]
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


def _predictions(run: Path, config: Config, rows: dict[str, Row]) -> dict[str, list[Classified]]:
    """What each finished strategy said of the photos reported on, in the configured order."""
    return {s.name: read_predictions(run / s.name / "predictions.csv") for s in config.strategies if s.name in rows}


def _comparisons(predictions: dict[str, list[Classified]]) -> list[dict[str, Any]]:
    """Every pair of finished strategies on the same photos, the later one in the configuration first."""
    right = {name: np.array([p.true == p.predicted for p in side]) for name, side in predictions.items()}
    pairs = itertools.combinations(reversed(right), 2)
    return [asdict(metrics.compare(a, right[a], b, right[b])) for a, b in pairs]


def answer(rows: Sequence[Row], document: dict[str, Any]) -> tuple[str, str]:
    """The question's answer in a sentence (the strategy that validation prefers, and how sure its figure is), and how it compares."""
    dataset = document["dataset"]
    unlike = dataset.get("unequal", False)  # an older run's rows have no macro recall
    watched = "validation_balanced_accuracy" if unlike else "validation_accuracy"
    best = max(rows, key=lambda row: (row[watched], -row["parameters"]["trainable"]))
    count = dataset["test"] if document["reported_on"] == "test" else dataset["validation"]
    text = f"{advice(best['name'])}: {words.headline(best, unlike)} on {count:,} {photos_reported(document)}."
    verdicts = [c["verdict"] for c in document["comparisons"] if best["name"] in (c["a"], c["b"])]
    detail = " ".join(f"{v[0].upper()}{v[1:]}." for v in verdicts)
    detail = f"By plain accuracy: {detail}" if unlike and detail else detail
    if "accuracy_as_given" in best:
        low, high = (100 * bound for bound in best["accuracy_as_given_ci"])
        detail += (
            f" With all photos and labels as they were given: {100 * best['accuracy_as_given']:.1f} % right (95 % interval {low:.1f} to "
            f"{high:.1f}) on {best['photos_as_given']:,}."
        )
    return text, detail.strip()


def photos_reported(document: dict[str, Any]) -> str:
    """What the figures are of, in words: "photos it had never seen"."""
    dataset = document["dataset"]
    kind = "pictures rendered by code" if dataset["test_sample" if dataset["test_root"] else "sample"] else "photos"
    return {"test": f"{kind} it had never seen", "validation": f"validation {kind}"}[document["reported_on"]]


def advice(strategy: str) -> str:
    """What to do, where that strategy is the best."""
    return _ADVICE.get(strategy, f"Use {strategy}")


_ADVICE = {
    "baseline": "Train from scratch",
    "scratch": "Train from scratch",
    "frozen": "Freeze the pretrained network and train a head",
    "fine-tuned": "Fine-tune the upper layers",
    "fine-tuned-all": "Fine-tune the whole network",
}
