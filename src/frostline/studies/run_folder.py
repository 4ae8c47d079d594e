"""The run folder: who may write to it, what it holds, how a run in it is begun or resumed."""

from __future__ import annotations

import ctypes
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import torch
from filelock import FileLock, Timeout

from frostline import documents
from frostline.cache import marks, upkeep
from frostline.cache.folder import cache_dir
from frostline.config import SAMPLE, Config
from frostline.documents import Study, Sweep
from frostline.errors import ConfigError, FrostlineError, RunError
from frostline.files import disk_errors
from frostline.parallel import thread_count
from frostline.photos import sample
from frostline.photos.head_start import HeadStart
from frostline.photos.manifest import Manifest
from frostline.progress import Progress
from frostline.studies.cost import Cost, Coster
from frostline.training.prepare import Frozen, Prepared, prepare

Existing = Literal["refuse", "resume", "overwrite"]
T = TypeVar("T", Study, Sweep)


def start(
    run: Path,
    config: Config,
    old: Study | Sweep | None,
    progress: Progress,
    head_start: HeadStart | None = None,
    coster: Coster | None = None,
    **said: Any,
) -> tuple[Prepared, Callable[..., None]]:
    """Push the photos through the frozen layers, then make the run folder ready; returns the photos and the run's log.

    Nothing is written, nor overwritten, before the photos have gone well. `said` goes into the log's first line.

    Parameters
    ----------
    coster
        Finds what the run will cost, which is told before the photos' pass, where anything is shown.
    """
    settle_torch()
    settled = _with_sample(config, progress)
    found: list[Cost] = []

    def tell(frozen: Frozen, photos: Manifest, others: Manifest | None) -> None:
        assert coster is not None  # noqa: S101 - see below
        with suppress(FrostlineError):  # the run meets the same error, and tells it with all that belongs to it
            found.append(coster(settled, frozen, photos, others))
            progress.say(str(found[0]))

    prepared = prepare(settled, progress, head_start, tell if coster is not None and not progress.quiet else None)
    if old is None:
        _empty(run)
    config.to_toml(run / "config.toml")
    log = _logger(run / "log.jsonl")
    log("start", **said, resumed=old is not None)
    for one in found:
        log("cost", seconds=round(one.seconds, 1), bytes=one.bytes)
    _settle_manifest(run, prepared, old)
    return prepared, log


# ---- the run folder --------------------------------------------------------------------------------------------------


@contextmanager
def held(run: Path) -> Iterator[None]:
    """Hold the run folder, and what the run uses of the cache, which is brought below its limit at the end."""
    try:
        with alone(run), marks.session():
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


def look(run: Path, config: Config, existing: Existing, kind: type[T]) -> T | None:
    """Check that `run` may be written to; returns its document where there is something to resume. Changes no document.

    Parameters
    ----------
    kind
        `Study` or `Sweep`.

    Raises
    ------
    RunError
        The folder holds other files, another kind of run, a run of another configuration, or one that is not to be
        touched.
    """
    if existing not in get_args(Existing):
        raise ConfigError(f"existing is {existing!r}: expected {', '.join(get_args(Existing))}")
    settings = run / "config.toml"
    if (run / "seeds.json").exists():
        raise RunError(f"{run} holds a study over several seeds: go on with it by --seeds, or choose another --out")
    if not settings.exists() and any(p.name != ".lock" for p in run.iterdir()):
        raise RunError(f"{run} holds other files and no frostline run: choose another --out")
    if not settings.exists() or existing == "overwrite":
        return None
    name, other = ("study.json", "sweep.json") if kind is Study else ("sweep.json", "study.json")
    if (run / other).exists():
        raise RunError(f"{run} holds another kind of run ({other}): choose another --out, or --overwrite it")
    differing = _differences(Config.from_toml(settings), config)
    if differing:
        raise RunError(
            f"{run} holds a run of another configuration (differs in {', '.join(differing)}): --resume it without "
            "naming the photos and options again, choose another --out, or --overwrite it"
        )
    if existing == "refuse":
        raise RunError(f"{run} holds a run already: --resume it, --overwrite it, or choose another --out")
    tidy(run)
    return documents.read(run, kind) if (run / name).exists() else None  # None: stopped before its first figure


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


def finished(run: Path, config: Config) -> Study | None:
    """The study.json of a run of this very configuration that came to its end; None: there is none, or more is to be
    done.
    """
    settings = run / "config.toml"
    if not settings.exists() or _differences(Config.from_toml(settings), config) or not (run / "study.json").exists():
        return None
    document = documents.read(run, Study)
    return document if document["status"] == "finished" else None


def _differences(a: Config, b: Config) -> list[str]:
    one, other = asdict(a), asdict(b)
    for side in (one, other):
        for name in ("data", "test", "weights"):
            if side[name] and side[name] != SAMPLE:
                side[name] = str(Path(side[name]).resolve())
        for strategy in side["strategies"]:
            del strategy["line_asked"]  # the same line, whoever named it
        side["exclude"] = side.pop("exclude_sha256") or side["exclude"]  # what it says counts, not where it lies
    return [name for name in one if one[name] != other[name]]


def _settle_manifest(run: Path, prepared: Prepared, old: Study | Sweep | None) -> None:
    """Write manifest.csv (photos of a test folder last), or hold the photos against the one that the run began with."""
    file = run / "manifest.csv"
    fresh = run / ".manifest.csv"
    tested = prepared.others.photos if prepared.others else []
    both = Manifest(prepared.photos.root, [*prepared.photos.photos, *tested])
    both.write(fresh, [*prepared.split.names(), *["test"] * len(tested)])
    if old is not None and file.exists() and file.read_bytes() != fresh.read_bytes():
        fresh.unlink()
        raise RunError(
            f"the photos in {prepared.config.data} are not those that {run} began with: start again with another --out"
        )
    fresh.replace(file)


def _logger(path: Path) -> Callable[..., None]:
    """Structured events, a JSON object a line."""

    def log(event: str, **values: Any) -> None:
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **values}
        with disk_errors(path), path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    return log


# ---- the pieces ------------------------------------------------------------------------------------------------------


def _with_sample(config: Config, progress: Progress) -> Config:
    """The configuration with the built-in sample's folder in place of its name; renders it where it is missing."""
    if config.data != SAMPLE:
        return config
    folder = cache_dir() / "sample"
    task = None

    def on_step(_done: int, total: int) -> None:
        nonlocal task
        task = task or progress.task("Rendering the built-in sample", total)
        task.advance(1)

    sample.render(folder, on_step=on_step)
    marks.mark_used(folder)
    return replace(config, data=str(folder))


def settle_torch() -> None:
    """Set PyTorch and the allocator up for a run on the processor: as many threads as there are cores.

    Accelerators are set up where they are chosen, by `frostline.networks.devices`.
    """
    _keep_freed_memory()
    torch.set_num_threads(thread_count())


def _keep_freed_memory() -> None:
    """Let glibc reuse the large blocks that each training step frees, instead of fetching zeroed pages anew for the
    next.

    A step of the small CNN touches 500 MB of such blocks. On other C libraries nothing changes.
    """
    trim_threshold, mmap_max = -1, -4  # as malloc.h numbers them
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
