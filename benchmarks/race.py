"""frostline against what a user would run instead: process against process, in turns, on the same photos.

    python benchmarks/race.py [DATA] [--epochs 10] [--repeats 3] [--out runs/race.json] [--record]

DATA is a folder of class folders; without it the built-in sample is used. benchmarks/README.md says what is measured
and how. The results are written after every process; the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from frostline.errors import FrostlineError
from frostline.files import write_json, write_text

# Nothing heavy is imported up here: a child's peak memory counts from its parent's at the moment it is spawned.

HERE = Path(__file__).resolve().parent
LIMIT = 30 * 60.0  # seconds; a peer that would take longer is stopped after its third epoch
ANSWER = re.compile(r"(\S+): accuracy [\d.]+ % \(95 % CI")
ALL_JOBS = ("frozen", "fine-tuned", "baseline", "study", "predict")
SCRIPTS = {
    "expert": "features_once.py",
    "keras": "keras_tutorial.py",
    "torch": "torch_tutorial.py",
    "fastai": "fastai_learner.py",
}
NAMES = {"expert": "PyTorch and scikit-learn", "keras": "Keras", "torch": "PyTorch", "fastai": "fastai"}

Record = dict[str, Any]


@dataclass(frozen=True)
class Race:
    """One row of the table: a job of frostline's and what a peer runs against it."""

    job: str
    peer: str
    peer_job: str
    models: int
    """Models that the peer trains one after another; 0: it trains none."""
    label: str

    @property
    def name(self) -> str:
        return f"{self.job} against {self.peer}"


RACES = (
    Race("frozen", "expert", "features", 0, "frozen; peer: features once, logistic regression"),
    Race("frozen", "keras", "frozen", 1, "frozen"),
    Race("fine-tuned", "keras", "fine-tuned", 1, "fine-tuned, last six layers"),
    Race("baseline", "keras", "baseline", 1, "baseline CNN"),
    Race("study", "keras", "study", 3, "whole study: the same three models"),
    Race("study", "torch", "whole", 1, "whole study; peer: one network, all layers, every epoch"),
    Race("study", "fastai", "fine_tune", 1, "whole study; peer: one network, all layers, every epoch"),
    Race("predict", "torch", "predict", 0, "predict a folder"),
)


# ---- one process -----------------------------------------------------------------------------------------------------


@dataclass
class Watched:
    """What was seen of a process from its spawn to its exit."""

    seconds: float
    exit: int
    memory: float
    """Peak resident memory of the process itself, MB of 10^6 bytes."""
    cpu_seconds: float
    spawned: float
    """Seconds since the epoch."""
    load: float
    """The machine's load average (1 min) when it was spawned."""
    lines: list[tuple[float, str]]
    """Seconds since the spawn, text."""
    stopped: bool


def watch(
    command: list[str], environment: dict[str, str], folder: Path, *, stream: str, over: Callable[[float, str], bool]
) -> Watched:
    """Run `command`, stamp the lines of its `stream` ("stdout" or "stderr"), the other one goes to a file in `folder`.

    It is killed as soon as `over(seconds, line)` is true for a line.
    """
    lines: list[tuple[float, str]] = []
    stopped = False
    load = os.getloadavg()[0]
    with (folder / "other.txt").open("wb") as other:
        out, err = (subprocess.PIPE if name == stream else other for name in ("stdout", "stderr"))
        spawned, started = time.time(), time.perf_counter()
        child = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            start_new_session=True,
        )  # fmt: skip
        pipe = child.stdout or child.stderr
        assert pipe is not None  # noqa: S101  # one of them is a pipe
        try:
            for raw in pipe:
                line = raw.decode(errors="replace").rstrip()
                lines.append((time.perf_counter() - started, line))
                if not stopped and over(*lines[-1]):
                    stopped = True
                    os.killpg(child.pid, signal.SIGKILL)
            _, status, used = os.wait4(child.pid, 0)
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            raise
        seconds = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB here
    return Watched(
        seconds,
        child.returncode,
        used.ru_maxrss * unit / 1e6,
        used.ru_utime + used.ru_stime,
        spawned,
        load,
        lines,
        stopped,
    )


def record(seen: Watched) -> Record:
    return {
        "seconds": round(seen.seconds, 3),
        "exit": seen.exit,
        "peak_mb": round(seen.memory, 1),
        "cpu_seconds": round(seen.cpu_seconds, 1),
        "load_before": round(seen.load, 2),
        "date": datetime.fromtimestamp(seen.spawned, UTC).isoformat(timespec="seconds"),
    }


def with_failure(result: Record, seen: Watched, folder: Path) -> Record:
    """Where the process failed, what it said last."""
    if seen.exit and not seen.stopped:
        other = (folder / "other.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        result["said"] = [*[line for _, line in seen.lines[-10:]], *other[-10:]]
    return result


# ---- a peer ----------------------------------------------------------------------------------------------------------


def event(line: str) -> Record | None:
    """The event that a line holds, None for any other line."""
    if not line.startswith("{"):
        return None
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "event" in value else None


def steady(events: list[Record], epochs: int) -> float:
    """Seconds that are still to come when each model seen so far goes on to `epochs` as its second and third did."""
    stamps: dict[str, list[float]] = {}
    for e in events:
        if e["event"] == "epoch":
            stamps.setdefault(e["model"], []).append(e["seconds"])
    return sum((epochs - len(s)) * (s[2] - s[0]) / 2 for s in stamps.values() if 3 <= len(s) < epochs)


def run_peer(race: Race, data: Path, epochs: int, *, short: bool, limit: float = LIMIT) -> Record:
    """Run a peer's job once. `short`: three epochs, the others reckoned; else it is stopped when it would take over
    `limit` seconds."""
    events: list[Record] = []
    told = 3 if short else epochs

    def over(seconds: float, line: str) -> bool:
        seen = event(line)
        if seen is None:
            return False
        events.append({**seen, "seconds": round(seconds, 3)})
        third = seen["event"] == "epoch" and seen["epoch"] == 3
        return third and not short and seconds + steady(events, epochs) > limit

    python = str(environment_of(race.peer))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    with tempfile.TemporaryDirectory() as folder:
        environment["TMPDIR"] = folder
        out = Path(folder) / ("predictions.csv" if race.job == "predict" else "saved")
        script = HERE / "peers" / SCRIPTS[race.peer]
        command = [python, str(script), race.peer_job, str(data), "--epochs", str(told), "--out", str(out)]
        if race.peer == "expert":  # how long a regression takes depends on the features
            command += ["--weights", str(published())]
        seen = watch(command, environment, Path(folder), stream="stdout", over=over)
        result = with_failure({**record(seen), "events": events, "short": short}, seen, Path(folder))
    if seen.stopped or (short and told < epochs and race.models):
        more = steady(events, epochs)
        result |= {"extrapolated": True, "measured_seconds": result["seconds"], "stopped": seen.stopped}
        result["seconds"] = round((events[-1]["seconds"] if seen.stopped else seen.seconds) + more, 3)
    return result


def environment_of(peer: str) -> Path:
    """The interpreter of the peer's own environment, made where it is not there yet; frostline's own for a peer that
    needs nothing else."""
    folder, requirements = HERE / ".envs" / peer, HERE / "peers" / f"{peer}.txt"
    if not requirements.exists():
        return Path(sys.executable)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted, mark = requirements.read_text(encoding="utf-8"), folder / "installed.txt"
    if not mark.exists() or mark.read_text(encoding="utf-8") != wanted:
        say(f"installing {', '.join(wanted.split())} into {folder.relative_to(HERE.parent)}")
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements)], check=True)
        write_text(mark, wanted)
    return python


def published() -> Path:
    """MobileNetV2's published weights, which both sides start from."""
    from frostline.networks import weights

    return weights.fetch(weights.KNOWN["mobilenet_v2"])


# ---- frostline -------------------------------------------------------------------------------------------------------


class Frostline:
    """Runs frostline's side of each job, every time with a cache that holds nothing but the published weights."""

    def __init__(self, data: Path, epochs: int) -> None:
        self.data = data
        self.epochs = epochs
        subprocess.run([sys.executable, "-m", "frostline", "weights", "mobilenet_v2", "--quiet"], check=True)
        from frostline.cache.folder import cache_dir

        self._weights = cache_dir() / "weights"

    def study(self, job: str) -> Record:
        strategies = [] if job == "study" else ["--strategies", job]
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            command = ["study", str(self.data), *strategies, "--protocol", "tutorial", "--epochs", str(self.epochs)]
            seen = self._watch([*command, "--out", str(run)], Path(folder))
            result = with_failure(record(seen), seen, Path(folder))
            result["answers"] = {
                found[1]: round(seconds, 3) for seconds, line in seen.lines if (found := ANSWER.match(line))
            }
            result["finished"] = dict(_finished(run / "log.jsonl", seen.spawned))
        return result

    def fit(self, bundles: Path) -> Record:
        """The bundle to predict with, untimed: only that the predictions cost what any frozen bundle's cost counts."""
        with tempfile.TemporaryDirectory() as folder:
            command = ["fit", str(self.data), "--strategy", "frozen", "--protocol", "tutorial", "--epochs", "1"]
            seen = self._watch([*command, "--out", str(bundles / "run")], Path(folder))
            result = with_failure(record(seen), seen, Path(folder))
        if seen.exit:
            raise SystemExit(f"frostline fit failed with exit code {seen.exit}:\n" + "\n".join(result["said"]))
        return result

    def predict(self, bundles: Path, cache: Path | None = None) -> Record:
        """Classify all photos. `cache`: a cache to use in place of a new one."""
        with tempfile.TemporaryDirectory() as folder:
            bundle, out = bundles / "run" / "frozen" / "bundle", Path(folder) / "x.csv"
            command = ["predict", str(bundle), str(self.data), "--out", str(out), "--quiet"]
            seen = self._watch(command, Path(folder), cache)
            return with_failure(record(seen), seen, Path(folder))

    def _watch(self, command: list[str], folder: Path, cache: Path | None = None) -> Watched:
        cache = cache or folder / "cache"
        if not cache.exists():
            cache.mkdir()
            shutil.copytree(self._weights, cache / "weights")
        environment = os.environ | {"FROSTLINE_CACHE": str(cache)}
        whole = [sys.executable, "-m", "frostline", *command]
        return watch(whole, environment, folder, stream="stderr", over=lambda _seconds, _line: False)


def _finished(log: Path, spawned: float) -> Iterator[tuple[str, float]]:
    """Each strategy and the second, from the spawn, at which frostline's log says that it ended."""
    if not log.exists():
        return
    for line in log.read_text(encoding="utf-8").splitlines():
        value = json.loads(line)
        if value["event"] == "finished":
            yield value["strategy"], round(datetime.fromisoformat(value["time"]).timestamp() - spawned, 3)


# ---- the race --------------------------------------------------------------------------------------------------------


def settings_of(data: Path, epochs: int, steady_only: bool) -> Record:
    """What two runs must share to stand in one table. Reads every file once, so that the disk's cache is warm for
    all."""
    files = [p for p in sorted(data.rglob("*")) if p.is_file() and p.parent != data]
    found = importlib.util.find_spec("frostline")
    assert found is not None and found.origin is not None  # noqa: S101  # it was imported above
    code = [*sorted(Path(found.origin).parent.rglob("*.py")), *sorted((HERE / "peers").iterdir())]
    digest = hashlib.sha256()
    for path in code:
        if path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    return {
        "photos": len(files),
        "bytes": sum(len(p.read_bytes()) for p in files),
        "classes": len({p.parent for p in files}),
        "epochs": epochs,
        "steady": steady_only,
        "code": digest.hexdigest()[:12],
    }


def machine() -> Record:
    cpu = platform.processor() or platform.machine()
    about = Path("/proc/cpuinfo")
    if about.exists():
        names = re.findall(r"^model name\s*:\s*(.+)$", about.read_text(encoding="utf-8"), re.MULTILINE)
        cpu = names[0] if names else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {"cpu": cpu, "cores": cores, "memory_gb": round(memory), "system": platform.system()}


def versions() -> Record:
    packages = {name: metadata.version(name) for name in ("torch", "onnxruntime")}
    return {"frostline": sys.modules["frostline"].__version__, "python": platform.python_version(), **packages}


class Results:
    """The JSON file, written whole after every process."""

    def __init__(self, path: Path, settings: Record) -> None:
        self.path = path
        self.document: Record = {"settings": settings, "machine": machine(), "versions": versions(), "runs": []}
        if path.exists():
            old = json.loads(path.read_text(encoding="utf-8"))
            differing = [k for k, v in settings.items() if old["settings"].get(k) != v]
            if differing:
                raise SystemExit(
                    f"{path} holds a race with other settings (differs in {', '.join(differing)}): "
                    "choose another --out, or remove it"
                )
            self.document = old

    def done(self, race: str, who: str, turn: int) -> Record | None:
        """The run that is there already and went well."""
        for run in self.document["runs"]:
            if (run["race"], run["who"], run["turn"]) == (race, who, turn) and succeeded(run):
                return dict(run)
        return None

    def add(self, race: str, who: str, turn: int, result: Record) -> None:
        runs = self.document["runs"]
        runs[:] = [r for r in runs if (r["race"], r["who"], r["turn"]) != (race, who, turn)]
        runs.append({**result, "race": race, "who": who, "turn": turn})
        write_json(self.path, self.document)
        note = "" if succeeded(runs[-1]) else f", FAILED with exit code {result['exit']}: " + "\n".join(result["said"])
        about = " (reckoned from three epochs)" if result.get("extrapolated") else ""
        say(f"{race}, {who}, {turn + 1}: {result['seconds']:.1f} s{about}, {result['peak_mb']:.0f} MB{note}")


def succeeded(run: Record) -> bool:
    return run["exit"] == 0 or bool(run.get("stopped"))


def compete(races: list[Race], data: Path, arguments: argparse.Namespace, results: Results) -> None:
    """All races, turn by turn: frostline, peer, frostline, peer, so that a machine whose speed drifts drifts for
    all."""
    ours = Frostline(data, arguments.epochs)
    for peer in sorted({race.peer for race in races}):
        environment_of(peer)
    with tempfile.TemporaryDirectory() as folder:
        bundles = Path(folder)
        for turn in range(arguments.repeats):
            for race in races:
                if not results.done(race.name, "frostline", turn):
                    if race.job == "predict" and not (bundles / "run").exists():
                        prepare_bundle(ours, bundles, race, results)
                    results.add(race.name, "frostline", turn, our_turn(ours, race, bundles, turn, results))
                if not results.done(race.name, race.peer, turn):
                    results.add(race.name, race.peer, turn, peer_turn(race, data, arguments, results))


def our_turn(ours: Frostline, race: Race, bundles: Path, turn: int, results: Results) -> Record:
    """A run of frostline's. Several peers stand against one job (the whole study): its run of this turn then stands in
    all their rows."""
    if race.job == "predict":
        return ours.predict(bundles)
    same = (results.done(other.name, "frostline", turn) for other in RACES if other.job == race.job)
    return next((run for run in same if run), None) or ours.study(race.job)


def prepare_bundle(ours: Frostline, bundles: Path, race: Race, results: Results) -> None:
    """Fit the bundle; its first prediction, and one more with the cache that the first one left, stand beside the
    race."""
    results.add(race.name, "frostline, untimed: fit", 0, ours.fit(bundles))
    cache = bundles / "cache"
    results.add(race.name, "frostline, untimed: first", 0, ours.predict(bundles, cache))
    results.add(race.name, "frostline, untimed: again, cache kept", 0, ours.predict(bundles, cache))


def peer_turn(race: Race, data: Path, arguments: argparse.Namespace, results: Results) -> Record:
    """A peer's run. Once it was too slow for the limit, three epochs and its own end are measured."""
    past = [r for t in range(arguments.repeats) if (r := results.done(race.name, race.peer, t))]
    short = (
        bool(race.models) and arguments.epochs > 3 and (arguments.steady or any(r.get("extrapolated") for r in past))
    )
    result = run_peer(race, data, arguments.epochs, short=short)
    begun = {e["model"] for e in result["events"] if e["event"] == "epoch"}
    if result.get("stopped") and len(begun) < race.models:  # models that never began can't be reckoned
        return run_peer(race, data, arguments.epochs, short=True)
    return result


# ---- table and picture -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    race: Race
    ours: list[Record]
    theirs: list[Record]

    @property
    def ratio(self) -> float:
        return middle(self.theirs, "seconds") / middle(self.ours, "seconds")

    @property
    def ratios(self) -> list[float]:
        """Of each turn's pair."""
        own = {r["turn"]: r["seconds"] for r in self.ours}
        return [r["seconds"] / own[r["turn"]] for r in self.theirs if r["turn"] in own]

    @property
    def reckoned(self) -> bool:
        return any(r.get("extrapolated") for r in self.theirs)


def middle(runs: list[Record], key: str) -> float:
    return float(statistics.median(r[key] for r in runs))


def rows_of(document: Record) -> list[Row]:
    """Races of which both sides have run."""
    rows = []
    for race in RACES:
        runs = [r for r in document["runs"] if r["race"] == race.name and succeeded(r)]
        ours, theirs = ([r for r in runs if r["who"] == who] for who in ("frostline", race.peer))
        if ours and theirs:
            rows.append(Row(race, ours, theirs))
    return rows


def number(value: float) -> str:
    return f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def spread(runs: list[Record]) -> str:
    values = [r["seconds"] for r in runs]
    return f"{number(statistics.median(values))} ({number(min(values))} to {number(max(values))})"


def table(document: Record) -> str:
    """The results as Markdown."""
    lines = [
        "| job | peer | peer, s | frostline, s | ratio | peak memory, peer and frostline, MB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    rows = rows_of(document)
    for row in rows:
        ratios = (
            f"{row.ratio:.1f} ({min(row.ratios):.1f} to {max(row.ratios):.1f})" if row.ratios else f"{row.ratio:.1f}"
        )
        mark = " \\*" if row.reckoned else ""
        lines.append(
            f"| {row.race.label} | {NAMES[row.race.peer]} | {spread(row.theirs)}{mark} | {spread(row.ours)} "
            f"| {ratios} | {middle(row.theirs, 'peak_mb'):,.0f}, {middle(row.ours, 'peak_mb'):,.0f} |"
        )
    return "\n".join([*lines, "", *notes(document, rows)])


def notes(document: Record, rows: list[Row]) -> Iterator[str]:
    """What a reader needs beside the table."""
    settings, on = document["settings"], document["machine"]
    runs = sorted({len(side) for row in rows for side in (row.ours, row.theirs)})
    yield (
        f"{settings['photos']:,} photos in {settings['classes']} classes, {settings['epochs']} epochs; start-up to "
        "exit, median (smallest "
        f"to largest) of {' to '.join(map(str, runs)) or 0} runs in turns; ratio of medians (of pairs). {on['cpu']}, "
        f"{on['cores']} cores, "
        f"{on['memory_gb']} GB, {on['system']}; {', '.join(sorted({r['date'][:10] for r in document['runs']}))}."
    )
    if any(row.reckoned for row in rows):
        yield ""
        yield "\\* reckoned from start-up, the first epoch and two steady ones: " + "; ".join(
            f"{row.race.label} ({NAMES[row.race.peer]}): {how(row)}" for row in rows if row.reckoned
        )
    yield ""
    yield "Versions: " + ", ".join(f"{k} {v}" for k, v in known_versions(document, rows).items()) + "."
    yield from first_answer(document, rows)


def how(row: Row) -> str:
    kinds = {
        "stopped after it, its end not counted" if r["stopped"] else "its end measured"
        for r in row.theirs
        if r.get("extrapolated")
    }
    return ", ".join(sorted(kinds))


def known_versions(document: Record, rows: list[Row]) -> dict[str, str]:
    found: dict[str, str] = dict(document["versions"])
    for row in rows:
        for e in (e for run in row.theirs for e in run["events"] if e["event"] == "end"):
            for name, version in e["versions"].items():
                plain = version.partition("+")[0]
                key = name if found.get(name, plain).partition("+")[0] == plain else f"{name} ({NAMES[row.race.peer]})"
                found[key] = plain
    return found


def first_answer(document: Record, rows: list[Row]) -> Iterator[str]:
    """When frostline's study had something to say, and how long Keras takes for one frozen run."""
    answers = [r["answers"] for row in rows if row.race.job == "study" for r in row.ours if r["answers"]]
    if not answers:
        return
    names = sorted(answers[0], key=lambda name: float(answers[0][name]))
    seconds = (f"{name} {number(statistics.median(a[name] for a in answers if name in a))} s" for name in names)
    keras = next((row for row in rows if row.race.name == "frozen against keras"), None)
    against = (
        f" One frozen run of {document['settings']['epochs']} epochs in Keras: "
        f"{number(middle(keras.theirs, 'seconds'))} s."
        if keras
        else ""
    )
    yield ""
    yield f"Accuracy with its interval in the terminal, from the start of a whole study: {', '.join(seconds)}.{against}"


def publish(document: Record, command: str) -> None:
    """Put medians, spreads and ratios into docs/figures.toml, experts first; only of a quiet machine, three runs in
    turns."""
    import figures

    rows = [row for row in rows_of(document) if not row.reckoned and min(len(row.ours), len(row.theirs)) >= 3]
    loads = [run["load_before"] for row in rows for run in (*row.ours, *row.theirs)]
    if not rows or max(loads) >= 2 * figures.BUSY:  # a run that has just ended still counts in the load of its minute
        raise SystemExit(
            f"not recorded: {len(rows)} jobs with three runs on both sides, load average before a run up to "
            f"{max(loads, default=0):.1f}; expected one job or more, and a machine that does nothing else"
        )
    rows.sort(key=lambda row: row.race.peer != "expert")
    values = [
        {
            "job": row.race.label,
            "peer": NAMES[row.race.peer],
            "theirs": _three(row.theirs),
            "ours": _three(row.ours),
            "ratios": [row.ratio, min(row.ratios), max(row.ratios)],
        }
        for row in rows
    ]
    about = {"rows": values, **document["settings"]}
    figures.record("speed", command, about, loads=loads, versions=known_versions(document, rows))


def _three(runs: list[Record]) -> list[float]:
    """Median, least and most seconds."""
    seconds = [run["seconds"] for run in runs]
    return [float(statistics.median(seconds)), min(seconds), max(seconds)]


def words(seconds: float) -> str:
    from frostline.wording import duration

    return duration(seconds)


@dataclass(frozen=True)
class Bars:
    """One job in the picture: the peer's seconds and frostline's."""

    job: str
    peer: str
    theirs: float
    ours: float
    reckoned: bool = False


def picture(document: Record, path: Path) -> None:
    """Write the bars of all races as an SVG."""
    jobs = [
        Bars(
            row.race.job, NAMES[row.race.peer], middle(row.theirs, "seconds"), middle(row.ours, "seconds"), row.reckoned
        )
        for row in rows_of(document)
    ]
    if jobs:
        write_text(path, drawn(jobs))


def drawn(jobs: list[Bars]) -> str:
    """Two bars for each job, each with its name and time beside it; lengths are seconds on one scale."""
    from frostline.reports.svg import COLOURS, GREY, Canvas

    left, row_height, longest = 120, 44, max(max(job.theirs, job.ours) for job in jobs)
    canvas = Canvas(660, row_height * len(jobs) + 8, "Seconds of Keras, PyTorch, fastai and of frostline, job by job.")
    for index, job in enumerate(jobs):
        top, ratio = row_height * index + 8, job.theirs / job.ours
        times = f"{ratio:.0f}" if ratio >= 9.95 else f"{ratio:.1f}"
        peer = f"{job.peer} {words(job.theirs)}{' (reckoned)' if job.reckoned else ''}"
        own = f"frostline {words(job.ours)}: {times} times as fast"
        canvas.text(left - 10, top + 20, f"{job.job} / {job.peer}", anchor="end")
        for y, seconds, text, colour, kind in (
            (top, job.theirs, peer, GREY, "soft"),
            (top + 17, job.ours, own, COLOURS[1], "strong"),
        ):
            width = 350 * seconds / longest
            canvas.draw("rect", x=left, y=y, width=width, height=15, rx=2, fill=colour)
            canvas.text(left + width + 6, y + 12, text, kind)
    return canvas.render(alone=True)


# ---- the command -----------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def listed(allowed: tuple[str, ...]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        if unknown := [name for name in names if name not in allowed]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)} (known: {', '.join(allowed)})")
        return names

    return parse


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="folder of class folders; default: the built-in sample")
    parser.add_argument("--jobs", type=listed(ALL_JOBS), default=list(ALL_JOBS), help="comma-separated; default: all")
    parser.add_argument(
        "--peers", type=listed(tuple(SCRIPTS)), default=list(SCRIPTS), help="comma-separated; default: all"
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--steady", action="store_true", help="three epochs of every peer, the others reckoned from them"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/race.json"), help="results as JSON (runs/race.json)")
    parser.add_argument("--picture", type=Path, help="write the bars to this .svg file")
    parser.add_argument("--table", action="store_true", help="run nothing: table (and picture) from the JSON in --out")
    parser.add_argument("--record", action="store_true", help="put the results into docs/figures.toml, for README.md")
    arguments = parser.parse_args()
    if arguments.epochs < 1 or arguments.repeats < 1:
        parser.error("--epochs and --repeats: expected 1 or more")
    return arguments


def run(arguments: argparse.Namespace) -> bool:
    """Race; whether every process went well."""
    from frostline.cache.folder import cache_dir
    from frostline.photos import sample

    data = Path(arguments.data).resolve() if arguments.data else sample.render(cache_dir() / "sample")
    if not data.is_dir():
        raise SystemExit(f"{data} is no folder: expected a folder of class folders")
    results = Results(arguments.out, settings_of(data, arguments.epochs, arguments.steady))
    races = [race for race in RACES if race.job in arguments.jobs and race.peer in arguments.peers]
    compete(races, data, arguments, results)
    return all(map(succeeded, results.document["runs"]))


def main() -> None:
    arguments = parsed()
    well = True
    if not arguments.table:
        try:
            well = run(arguments)
        except FrostlineError as error:
            raise SystemExit(str(error)) from None
    elif not arguments.out.exists():
        raise SystemExit(f"{arguments.out} is not there: race first, or name the JSON with --out")
    document = json.loads(arguments.out.read_text(encoding="utf-8"))
    print(table(document))
    if arguments.picture:
        picture(document, arguments.picture)
    if well and arguments.record:
        jobs, peers = (",".join(names) for names in (arguments.jobs, arguments.peers))
        publish(document, f"python benchmarks/race.py photos/ --jobs {jobs} --peers {peers} --record")
    if not well:
        raise SystemExit("a process failed; the JSON holds what it said, the same command tries it again")


if __name__ == "__main__":
    main()
