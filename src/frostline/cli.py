"""The command line: a thin map from verbs to library functions. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

import frostline
from frostline.errors import ConfigError, FrostlineError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from frostline.config import Config
    from frostline.progress import Progress
    from frostline.study import Existing
    from frostline.sweep import Plan

app = typer.Typer(
    help="Train from scratch, freeze a pretrained network, or fine-tune its upper layers? Measured on your own photos.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout, all else on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, no words; errors only.")]
Data = Annotated[
    str, typer.Argument(help="Folder of class folders, folder with train/ and test/, or CSV. None: built-in sample.")
]
Out = Annotated[str, typer.Option("--out", help="Run folder. Default: runs/NAME.")]
Backbone = Annotated[str, typer.Option(help="Pretrained network: mobilenet_v2, any timm name, or several: A+B.")]
Protocol = Annotated[
    str, typer.Option(help="tutorial (80/20, the 20 % is reported) or rigorous (train/validation/test).")
]
Preset = Annotated[
    str, typer.Option(help="How much time to spend: fast (seconds), balanced (a minute) or best (some minutes).")
]
Epochs = Annotated[int | None, typer.Option(help="Epochs of every strategy, in place of the recipe's.")]
Seed = Annotated[int, typer.Option(help="Decides the split, the starting weights and every random choice.")]
Seeds = Annotated[int, typer.Option(help="Studies with so many seeds, from --seed on, and what they say together.")]
Test = Annotated[str, typer.Option(help="Another folder of photos, to report on.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")]
Weights = Annotated[str, typer.Option(help="A file with the backbone's published weights.")]
ImageSize = Annotated[
    int,
    typer.Option(
        help="Side of the photos the network sees, pixels; 0: the backbone's own, times 9/7 (balanced) or 10/7 (best)."
    ),
]
Resize = Annotated[str, typer.Option(help="squash (the whole photo) or crop (its centre).")]
Engine = Annotated[str, typer.Option(help="What runs the frozen layers: auto, openvino, onnx or torch.")]
Device = Annotated[str, typer.Option(help="Where training runs: auto, cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="Arithmetic of training: auto, float32 or bfloat16.")]
StoredAs = Annotated[str, typer.Option(help="Activations on disk: float16 or float32.")]
Balance = Annotated[
    str, typer.Option(help="Unequal classes in training: none, loss (weighted) or sampling (drawn equally).")
]
Prior = Annotated[
    str,
    typer.Option(
        help="How often each class is expected: train, equal, estimate (from these photos), rose=0.7,tulip=0.3 or a CSV (class,share). "
        "Default: as trained."
    ),
]
Line = Annotated[str | None, typer.Option(help="Freeze line of the fine-tuned strategy: a layer number, top or top-6.")]
CacheLimit = Annotated[
    str,
    typer.Option(
        help="What the cache may hold, e.g. 20GB; stores unused for longest go. Default: FROSTLINE_CACHE_LIMIT."
    ),
]
Settings = Annotated[str, typer.Option("--config", help="A run's config.toml, in place of all options but --out.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"frostline {frostline.__version__}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
) -> None:
    pass


# ---- the main job ----------------------------------------------------------------------------------------------------


@app.command()
def study(
    context: typer.Context,
    data: Data = "",
    out: Out = "",
    strategies: Annotated[str, typer.Option(help="Comma-separated.")] = "baseline,frozen,fine-tuned",
    backbone: Backbone = "mobilenet_v2",
    protocol: Protocol = "rigorous",
    preset: Preset = "balanced",
    epochs: Epochs = None,
    seed: Seed = 0,
    seeds: Seeds = 1,
    test: Test = "",
    line: Line = None,
    weights: Weights = "",
    image_size: ImageSize = 0,
    resize: Resize = "squash",
    engine: Engine = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    stored_as: StoredAs = "float16",
    balance: Balance = "none",
    cache_limit: CacheLimit = "",
    settings: Settings = "",
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the strategies on DATA, compare them, leave models and a report in a run folder."""
    _limit_cache(cache_limit)
    config = _configuration(
        context, data, out, settings, resume,
        strategies=[s.strip() for s in strategies.split(",") if s.strip()], backbone=backbone, protocol=protocol,
        preset=preset, epochs=epochs, seed=seed, test=test, line=line, weights=weights, image_size=image_size,
        resize=resize, engine=engine, device=device, precision=precision, stored_as=stored_as, balance=balance,
    )  # fmt: skip
    count = _seed_count(seeds, data, out, settings, resume)
    run = _run if count == 1 else partial(_run_several, count=count)
    run(config, out, _existing(resume, overwrite), as_json, quiet)


@app.command()
def fit(
    context: typer.Context,
    data: Data = "",
    strategy: Annotated[
        str, typer.Option(help="baseline, frozen, fine-tuned, fine-tuned-all or scratch.")
    ] = "fine-tuned",
    out: Out = "",
    backbone: Backbone = "mobilenet_v2",
    protocol: Protocol = "rigorous",
    preset: Preset = "balanced",
    epochs: Epochs = None,
    seed: Seed = 0,
    test: Test = "",
    line: Line = None,
    weights: Weights = "",
    image_size: ImageSize = 0,
    resize: Resize = "squash",
    engine: Engine = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    stored_as: StoredAs = "float16",
    balance: Balance = "none",
    cache_limit: CacheLimit = "",
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train one strategy on DATA: a study of one."""
    _limit_cache(cache_limit)
    config = _configuration(
        context, data, out, "", resume, strategies=[strategy], backbone=backbone, protocol=protocol, preset=preset, epochs=epochs,
        seed=seed, test=test, line=line, weights=weights, image_size=image_size, resize=resize, engine=engine,
        device=device, precision=precision, stored_as=stored_as, balance=balance,
    )  # fmt: skip
    _run(config, out, _existing(resume, overwrite), as_json, quiet)


@app.command()
def sweep(
    context: typer.Context,
    data: Data = "",
    lines: Annotated[
        str,
        typer.Option(
            help="Freeze lines: auto (about nine, top to 0), or a list: 0,60,top-6. The top is always among them."
        ),
    ] = "auto",
    photos: Annotated[
        str, typer.Option(help="In place of --lines: training photos of each class, e.g. 5,10,20,50,100,200,all.")
    ] = "",
    strategies: Annotated[str, typer.Option(help="Comma-separated; with --photos.")] = "frozen,fine-tuned",
    repeats: Annotated[
        int, typer.Option(help="Trainings at each number of photos, each with other photos and another seed.")
    ] = 3,
    out: Out = "",
    backbone: Backbone = "mobilenet_v2",
    protocol: Protocol = "rigorous",
    preset: Preset = "balanced",
    epochs: Epochs = None,
    seed: Seed = 0,
    test: Test = "",
    line: Line = None,
    weights: Weights = "",
    image_size: ImageSize = 0,
    resize: Resize = "squash",
    engine: Engine = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    stored_as: StoredAs = "float16",
    balance: Balance = "none",
    cache_limit: CacheLimit = "",
    settings: Settings = "",
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure many freeze lines on DATA, or (--photos) how accuracy grows with the number of photos."""
    from frostline.study import SAMPLE
    from frostline.sweep import Plan, over_lines, over_photos, plan_photos

    _check_sweep(_given(context), photos)
    _limit_cache(cache_limit)
    options: dict[str, Any] = {
        "backbone": backbone, "protocol": protocol, "preset": preset, "epochs": epochs, "seed": seed, "test": test,
        "line": line, "weights": weights, "image_size": image_size, "resize": resize, "engine": engine,
        "device": device, "precision": precision, "stored_as": stored_as, "balance": balance,
    }  # fmt: skip
    if settings or (resume and not data):
        config = _configuration(context, data, out, settings, resume)
        plan = plan_photos(photos, repeats) if photos else Plan() if settings else Plan.of(Path(out))
    elif photos:
        names = [s.strip() for s in strategies.split(",") if s.strip()]
        config, plan = over_photos(data or SAMPLE, photos, strategies=names, repeats=repeats, **options)
    else:
        config, plan = over_lines(data or SAMPLE, lines, **options)
    _run_sweep(config, plan, out, _existing(resume, overwrite), as_json, quiet)


def _given(context: typer.Context) -> list[str]:
    """The options that stand on the command line."""
    return [n for n in context.params if str(context.get_parameter_source(n)).endswith("COMMANDLINE")]


def _check_sweep(given: list[str], photos: str) -> None:
    if "lines" in given and "photos" in given:
        raise ConfigError("--lines and --photos exclude each other: a sweep moves one of them; run it once for each")
    if "photos" in given and not photos.strip():
        raise ConfigError("--photos is empty: expected numbers of photos, such as 5,10,20,all")
    if alone := next((n for n in ("strategies", "repeats") if n in given and not photos), None):
        raise ConfigError(f"--{alone} goes with --photos: a sweep over freeze lines has a strategy for each line")


def _limit_cache(size: str) -> None:
    """Like the folder itself, the limit belongs to the process and not to the run: it shapes no figure."""
    from frostline import upkeep

    if size:
        upkeep.parse_size(size)
        os.environ[upkeep.LIMIT_VARIABLE] = size


def _configuration(context: typer.Context, data: str, out: str, settings: str, resume: bool, **options: Any) -> Config:
    """The configuration that the options make, or that a file holds; options that a file would overrule are refused."""
    from frostline.config import Config
    from frostline.study import SAMPLE, configure

    if not settings and not (resume and not data):
        return configure(data or SAMPLE, **options)
    file = Path(settings) if settings else _settings_in(out)
    why = "--config" if settings else "--resume without DATA"
    if not settings and not (out and file.exists()):
        raise ConfigError(
            f"--resume: {out or 'no --out given, so it'} holds no run to go on with; give DATA to begin one"
        )
    free = {"out", "resume", "overwrite", "settings", "seeds", "cache_limit", "as_json", "quiet", "photos", "repeats"}
    if given := [n for n in _given(context) if n not in free]:
        names = ", ".join("DATA" if n == "data" else "--" + n.replace("_", "-") for n in given)
        raise ConfigError(f"{names} can't be given with {why}: {file} says everything")
    return Config.from_toml(file)


def _settings_in(out: str) -> Path:
    """The config.toml of a run folder, or of the first of its seeds."""
    from frostline import seeds

    return seeds.settings(Path(out)) if out and (Path(out) / seeds.FILE).exists() else Path(out) / "config.toml"


def _seed_count(seeds: int, data: str, out: str, settings: str, resume: bool) -> int:
    """How many seeds to run: those asked for, or when a folder alone says what to go on with, at least those that it has."""
    from frostline.seeds import FILE, read

    if seeds < 1:
        raise ConfigError(f"--seeds {seeds}: expected 1 or more")
    if resume and not data and not settings and (Path(out) / FILE).exists():
        return max(seeds, len(read(Path(out))["seeds"]))
    return seeds


def _existing(resume: bool, overwrite: bool) -> Existing:
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other: give one of them")
    return "resume" if resume else "overwrite" if overwrite else "refuse"


def _run(config: Config, out: str, existing: Existing, as_json: bool, quiet: bool) -> None:
    from frostline.study import study as run_study

    run = _run_folder(config, out, existing)
    with _progress(quiet) as progress:
        progress.say(f"Run folder {run}; stop with Ctrl-C, go on with --out {run} --resume")

        def on_row(row: dict[str, Any], document: dict[str, Any]) -> None:
            progress.say(_ended(row, document))

        document = run_study(config, run, existing=existing, progress=progress, on_row=on_row)
    if as_json:
        typer.echo(json.dumps(document, ensure_ascii=False))
    elif not quiet:
        _print_study(document, run)


def _run_several(config: Config, out: str, existing: Existing, as_json: bool, quiet: bool, count: int) -> None:
    from frostline.seeds import several

    run = _run_folder(config, out, existing)
    with _progress(quiet) as progress:
        progress.say(f"Run folder {run}; stop with Ctrl-C, go on with --out {run} --resume")

        def on_row(row: dict[str, Any], document: dict[str, Any]) -> None:
            progress.say(f"Seed {document['seed']}, {_ended(row, document)}")

        document = several(config, run, count, existing=existing, progress=progress, on_row=on_row)
    if as_json:
        typer.echo(json.dumps(document, ensure_ascii=False))
    elif not quiet:
        _print_seeds(document, run)


def _run_folder(config: Config, out: str, existing: Existing) -> Path:
    from frostline.study import SAMPLE

    name = "sample" if config.data == SAMPLE else Path(config.data).resolve().stem
    return Path(out) if out else _unused(Path("runs") / name, existing)


def _ended(row: dict[str, Any], document: dict[str, Any]) -> str:
    """A strategy's figures, told as it ends."""
    from frostline import words

    return (
        f"{row['name']}: {words.headline(row, document['dataset'].get('unequal', False))} "
        f"on {document['reported_on']} photos, after {row['seconds']['total']:.0f} s"
    )


def _unused(run: Path, existing: Existing) -> Path:
    """`run`, or `run`-2, -3, ... so that a study without --out never meets an older one."""
    if existing != "refuse" or not run.exists():
        return run
    return next(p for n in range(2, 10**6) if not (p := run.with_name(f"{run.name}-{n}")).exists())


def _print_study(document: dict[str, Any], run: Path) -> None:
    from rich import box
    from rich.table import Table

    from frostline import words

    console = _console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    unequal = document["dataset"].get("unequal", False)
    figures = (
        ("macro recall", "95 % interval", "macro F1", "accuracy")
        if unequal
        else ("accuracy", "95 % interval", "macro F1")
    )
    for column in ("strategy", *figures, "calibration error", "trainable", "total", "time"):
        table.add_column(
            column, justify="left" if column == "strategy" else "right", no_wrap=column != "calibration error"
        )
    for row in document["strategies"]:
        metric = "balanced_accuracy" if unequal else "accuracy"
        low, high = (100 * x for x in row[f"{metric}_ci"])
        plain = [f"{100 * row['accuracy']:.1f} %"] if unequal else []
        table.add_row(
            row["name"], f"{100 * row[metric]:.1f} %", f"{low:.1f} to {high:.1f}", f"{row['macro_f1']:.3f}", *plain,
            f"{row['ece_shipped']:.3f}", f"{row['parameters']['trainable']:,}", f"{row['parameters']['total']:,}",
            words.duration(row["seconds"]["total"]),
        )  # fmt: skip
    console.print(table)
    _print_skipped(document["dataset"]["skipped"], console)
    if conflicts := document["dataset"]["conflicts"]:
        console.print(f"{len(conflicts)} photo(s) stand in two classes; the report shows them.", markup=False)
    console.print(f"{document['answer']} {document['answer_detail']}", markup=False, soft_wrap=True)
    console.print(f"Report: {run / 'report.html'}", markup=False, soft_wrap=True)


def _run_sweep(config: Config, plan: Plan, out: str, existing: Existing, as_json: bool, quiet: bool) -> None:
    from frostline.study import SAMPLE
    from frostline.sweep import sweep as run_sweep

    name = "sample" if config.data == SAMPLE else Path(config.data).resolve().stem
    run = Path(out) if out else _unused(Path("runs") / f"{name}-{plan.kind}", existing)
    with _progress(quiet) as progress:
        progress.say(f"Run folder {run}; stop with Ctrl-C, go on with --out {run} --resume")
        told = 0

        def on_point(row: dict[str, Any], _document: dict[str, Any]) -> None:
            nonlocal told
            low, high = (100 * x for x in row["accuracy_ci"])
            what = {"lines": "line", "photos": "strategy/photos-repeat"}[plan.kind]
            if not told:
                progress.say(f"{what:<24}{'accuracy':>9}  {'95 % interval':>13}{'trainable':>14}{'training':>11}")
            told += 1
            progress.say(
                f"{row['name']:<24}{100 * row['accuracy']:>7.1f} %  {f'{low:.1f} to {high:.1f}':>13}"
                f"{row['parameters']['trainable']:>14,}{row['seconds']['train']:>9.1f} s"
            )

        document = run_sweep(config, plan, run, existing=existing, progress=progress, on_point=on_point)
    if as_json:
        typer.echo(json.dumps(document, ensure_ascii=False))
    elif not quiet:
        _print_lines(document) if plan.kind == "lines" else _print_photos(document)
        _print_skipped(document["dataset"]["skipped"], _console())
        _console().print(f"{document['answer']} {document['answer_detail']}", markup=False, soft_wrap=True)
        _console().print(f"Report: {run / 'report.html'}", markup=False, soft_wrap=True)


def _print_lines(document: dict[str, Any]) -> None:
    from frostline import words

    found = document["recommendation"]
    table = _right_aligned("line", "accuracy", "95 % interval", "validation", "best in", "trainable", "training")
    for row, judged in zip(document["lines"], found["lines"], strict=True):
        table.add_row(
            f"{row['name']}{' *' if row['name'] == found['recommended'] else ''}", *_accuracy_cells(row),
            f"{100 * judged['accuracy']:.1f} %", f"{100 * judged['best_share']:.0f} %",
            f"{row['parameters']['trainable']:,}", words.duration(row["seconds"]["train"]),
        )  # fmt: skip
    _console().print(table)
    _console().print(
        "* recommended; best in: share of resamples of the validation photos in which the line is the best"
    )


def _print_photos(document: dict[str, Any]) -> None:
    table = _right_aligned("strategy", "photos of each class", "accuracy", "95 % interval")
    for row in document["curves"]:
        table.add_row(row["strategy"], f"{row['per_class']:.0f}", *_accuracy_cells(row))
    _console().print(table)


def _accuracy_cells(row: dict[str, Any]) -> tuple[str, str]:
    low, high = (100 * x for x in row["accuracy_ci"])
    return f"{100 * row['accuracy']:.1f} %", f"{low:.1f} to {high:.1f}"


def _right_aligned(first: str, *columns: str) -> Table:
    """A table with its names on the left and its figures on the right."""
    from rich import box
    from rich.table import Table

    table = Table(first, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _print_seeds(document: dict[str, Any], run: Path) -> None:
    from rich import box
    from rich.table import Table

    from frostline import words

    console = _console()
    table = Table("strategy", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("mean", "95 % interval", "standard deviation", "range", "time, mean"):
        table.add_column(column, justify="right", no_wrap=column != "standard deviation")
    for row in document["strategies"]:
        low, high, least, most = (100 * x for x in (*row["ci"], *row["range"]))
        table.add_row(
            row["name"], f"{100 * row['mean']:.1f} %", f"{low:.1f} to {high:.1f}", f"{100 * row['sd']:.1f}",
            f"{least:.1f} to {most:.1f}", words.duration(row["seconds_mean"]),
        )  # fmt: skip
    console.print(table)
    _print_skipped(document["dataset"]["skipped"], console)
    console.print(document["answer"], markup=False, soft_wrap=True)
    for comparison in document["comparisons"]:
        console.print(f"- {comparison['verdict']}", markup=False, soft_wrap=True)
    console.print(f"Report: {run / 'report.html'}", markup=False, soft_wrap=True)


def _print_skipped(skipped: list[dict[str, str]], console: Any, shown: int = 100) -> None:
    if not skipped:
        return
    console.print(f"{len(skipped)} left out:", markup=False)
    for skip in skipped[:shown]:
        console.print(f"  {skip['path']}: {skip['why']}", markup=False, soft_wrap=True)
    if len(skipped) > shown:
        console.print(f"  ... and {len(skipped) - shown} more, in study.json and the report", markup=False)


# ---- using a model ---------------------------------------------------------------------------------------------------


@app.command()
def predict(
    bundle: Annotated[str, typer.Argument(help="Bundle folder, e.g. runs/flowers/frozen/bundle.")],
    photos: Annotated[
        list[str] | None, typer.Argument(help="Files or folders; '-' or nothing: a list on stdin.")
    ] = None,
    out: Annotated[
        str, typer.Option("--out", help="A .csv or .jsonl file, as its name says; default: CSV on stdout.")
    ] = "",
    engine: Engine = "auto",
    prior: Prior = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON lines on stdout; with --out a summary of it, photos left out included.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress, no words; photos left out are still listed on stderr.")
    ] = False,
) -> None:
    """Classify photos: a row each, bad files listed on stderr."""
    from frostline.bundle import load
    from frostline.config import EngineKind
    from frostline.errors import DataError, nearest
    from frostline.manifest import Skip, printable
    from frostline.predict import predict as classify

    if engine not in get_args(EngineKind):
        raise ConfigError(f"unknown engine '{engine}'{nearest(engine, get_args(EngineKind))}")
    if out and Path(out).suffix.lower() not in (".csv", ".jsonl"):
        raise ConfigError(f"--out {out}: expected a name that ends in .csv or .jsonl")
    model = load(bundle, engine)  # type: ignore[arg-type]
    lines_of_json = out.lower().endswith(".jsonl") if out else as_json
    paths = _listed() if not photos or photos == ["-"] else photos
    classified = skipped = 0
    listed: list[dict[str, str]] = []  # kept for the summary alone
    with _progress(quiet) as progress, _sink(out) as sink:
        task = progress.task("Classifying")
        results = classify(model, paths, prior=prior, on_photo=lambda: task.advance(1))
        write = _json_writer(sink) if lines_of_json else _csv_writer(sink, model.classes)
        for result in results:
            if isinstance(result, Skip):
                skipped += 1
                typer.echo(f"skipped {printable(result.path)}: {result.why}", err=True)
                if as_json and out:
                    listed.append({"path": printable(result.path), "why": result.why})
            else:
                classified += 1
                write(result)
        task.finish()
        if skipped:
            progress.say(f"{skipped} left out")
        if not classified:  # raised in here: a file that stood at --out stays
            came = f"all {skipped} left out, as listed above" if skipped else "there are none in what was given"
            raise DataError(f"no photo was classified: {came}; name photos, or folders that hold some")
    if as_json and out:
        typer.echo(json.dumps({"out": out, "classified": classified, "skipped": listed}, ensure_ascii=False))


def _listed() -> Iterator[str]:
    """Paths on stdin, one a line."""
    if sys.stdin.isatty():
        raise ConfigError("no photos given: name files or folders, or pipe a list of paths to stdin")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a file's name may be any bytes
    return (line.rstrip("\r\n") for line in sys.stdin if line.strip())


@contextmanager
def _sink(out: str) -> Iterator[Any]:
    """Where rows go: stdout, or a file that appears whole at the end."""
    if not out:
        yield sys.stdout
        return
    from frostline.files import replacing

    with replacing(Path(out)) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield file


def _csv_writer(sink: Any, classes: list[str]) -> Any:
    import numpy as np

    from frostline import probabilities

    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(probabilities.header(classes))

    def write(result: Any) -> None:
        shares = np.array(list(result.probabilities.values()))
        prediction = probabilities.Prediction(_storable(result.path), result.true, shares)
        writer.writerow(probabilities.row(prediction, classes))

    return write


def _json_writer(sink: Any) -> Any:
    from dataclasses import asdict

    def write(result: Any) -> None:
        sink.write(json.dumps({**asdict(result), "path": _storable(result.path)}, ensure_ascii=False) + "\n")

    return write


def _storable(path: str) -> str:
    """`path`, or where UTF-8 or a CSV reader would stumble over it (a carriage return), its escaped form."""
    from frostline.manifest import printable

    try:
        path.encode()
    except UnicodeEncodeError:
        return printable(path)
    return printable(path) if "\r" in path else path


@app.command()
def evaluate(
    bundle: Annotated[str, typer.Argument(help="Bundle folder.")],
    data: Annotated[str, typer.Argument(help="Labelled photos, as for study.")],
    out: Annotated[str, typer.Option("--out", help="Write the predictions to this .csv file.")] = "",
    prior: Prior = "",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a bundle on labelled photos."""
    from frostline.bundle import load
    from frostline.predict import evaluate_on
    from frostline.probabilities import write_predictions

    model = load(bundle)
    with _progress(quiet) as progress:
        figures, predictions, skipped = evaluate_on(model, Path(data), progress, prior=prior)
    if out:
        write_predictions(Path(out), predictions, model.classes)
    listed = [{"path": s.path, "why": s.why} for s in skipped]
    if as_json:
        typer.echo(json.dumps({"photos": len(predictions), **figures, "skipped": listed}, ensure_ascii=False))
    elif not quiet:
        _print_figures(figures, len(predictions), listed)


def _print_figures(figures: dict[str, Any], count: int, skipped: list[dict[str, str]]) -> None:
    from rich import box
    from rich.table import Table

    from frostline import words
    from frostline.balance import unequal

    console = _console()
    console.print(
        f"{words.headline(figures, unequal(row['support'] for row in figures['per_class']))} on {count:,} photos; "
        f"macro F1 {figures['macro_f1']:.3f}, calibration error {figures['ece_shipped']:.3f}"
    )
    if "prior" in figures:
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in figures["prior"].items())
        console.print(f"Class shares assumed: {shares}", markup=False, soft_wrap=True)
    table = Table("class", "precision", "recall", "F1", "photos", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in figures["per_class"]:
        cells = (f"{row[k]:.3f}" for k in ("precision", "recall", "f1"))
        table.add_row(row["class"].replace("[", "\\["), *cells, str(row["support"]))
    console.print(table)
    _print_skipped(skipped, console)


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="Run folder.")], as_json: Json = False, quiet: Quiet = False
) -> None:
    """Build the report.html of a run, a sweep, or a study over several seeds again."""
    if (Path(run) / "sweep.json").exists():
        from frostline.sweep_report import build
    elif (Path(run) / "seeds.json").exists():
        from frostline.seeds import build
    else:
        from frostline.report import build

    path = build(Path(run))
    if as_json:
        typer.echo(json.dumps({"report": str(path)}))
    elif not quiet:
        typer.echo(f"Report: {path}")


# ---- what there is ---------------------------------------------------------------------------------------------------


@app.command()
def backbones(
    find: Annotated[str, typer.Argument(help="Part of a name: lists timm's networks that have it.")] = "",
    speed: Annotated[
        bool, typer.Option("--speed", help="Measure how many photos/s each takes here, a few seconds each; it is kept.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the networks that a study can use."""
    from frostline.networks import listing

    with _progress(quiet) as progress:
        rows = listing(find, speed=speed, progress=progress)
    if as_json:
        typer.echo(json.dumps(rows))
    elif not quiet:
        _table([{k: v for k, v in row.items() if k != "home"} for row in rows])


@app.command()
def weights(
    name: Annotated[str, typer.Argument(help="Backbone whose weights to fetch now; none: list what is at hand.")] = "",
    path: Annotated[str, typer.Option(help="A file with the weights, to check and keep.")] = "",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List published weights and where they come from, or fetch some ahead of time."""
    from frostline import weights as known
    from frostline.errors import nearest

    if path and not name:
        raise ConfigError(f"--path {path}: name the backbone whose weights it holds (known: {', '.join(known.KNOWN)})")
    if name:
        if name not in known.KNOWN:
            raise ConfigError(f"no published weights known for '{name}'{nearest(name, known.KNOWN)}")
        if path:
            known.keep(known.KNOWN[name], Path(path))
        else:
            with _progress(quiet) as progress:
                known.fetch(known.KNOWN[name], progress=progress)
    rows = [known.status(spec) for key, spec in known.KNOWN.items() if not name or key == name]
    if as_json:
        typer.echo(json.dumps(rows, default=str))
    elif not quiet:
        _table(rows)


@app.command()
def cache(
    action: Annotated[str, typer.Argument(help="list, or clear: remove what no process is using.")] = "list",
    kind: Annotated[
        str,
        typer.Option(
            help="Comma-separated: activations, engines, weights, sample. Default: all; clear: the first two."
        ),
    ] = "",
    older_than: Annotated[float | None, typer.Option(help="Only what was not used for so many days.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List what the cache folder holds, or clear it: all of it can be had again, at the cost of time."""
    from frostline import upkeep
    from frostline.errors import nearest
    from frostline.weights import cache_dir

    if action not in ("list", "clear"):
        raise ConfigError(f"unknown action '{action}'{nearest(action, ['list', 'clear'])}")
    kinds = [k.strip() for k in kind.split(",") if k.strip()]
    result: dict[str, Any]
    if action == "clear":
        removed, kept = upkeep.clear(kinds or upkeep.COMPUTED, older_than)
        result = {"freed": sum(e.bytes for e in removed), "removed": removed, "kept": kept}
    else:
        found = upkeep.older_than(upkeep.entries(kinds or upkeep.KINDS), older_than)
        result = {"limit": upkeep.limit(), "bytes": sum(e.bytes for e in found), "entries": found}
    result = {"folder": str(cache_dir()), **result}
    if as_json:
        typer.echo(json.dumps(result, default=upkeep.Entry.to_dict, ensure_ascii=False))
    elif not quiet:
        _print_cleared(result) if action == "clear" else _print_cache(result)


def _print_cleared(result: dict[str, Any]) -> None:
    from frostline.upkeep import readable

    typer.echo(f"freed {readable(result['freed'])} in {result['folder']}: {_counted(result['removed'])}")
    for entry in result["kept"]:
        typer.echo(f"kept, in use: {entry.what} ({readable(entry.bytes)})")


def _print_cache(result: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    from frostline.upkeep import readable

    table = Table("kind", "what", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("rows", "size", "per row", "last used", "in use"):
        table.add_column(column, justify="right", no_wrap=True)
    for e in result["entries"]:
        sizes = [readable(e.bytes), "-" if e.bytes_per_row is None else readable(e.bytes_per_row)]
        table.add_row(
            e.kind, _cell(e.what), _cell(e.rows), *sizes, f"{e.used.astimezone():%Y-%m-%d %H:%M}", _cell(e.in_use)
        )
    if result["entries"]:
        _console().print(table)
    limit = "no limit" if result["limit"] is None else f"limit {readable(result['limit'])}"
    typer.echo(f"{_counted(result['entries'])}, {readable(result['bytes'])} in {result['folder']} ({limit})")


def _counted(entries: list[Any]) -> str:
    return f"{len(entries)} entr{'y' if len(entries) == 1 else 'ies'}"


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="sample: five flower classes, rendered by code.")],
    folder: Annotated[str, typer.Argument(help="Where to write it.")],
    per_class: Annotated[int, typer.Option(help="Photos a class.")] = 120,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a data set to try things on."""
    from frostline import sample
    from frostline.errors import nearest

    if name != "sample":
        raise ConfigError(f"unknown data set '{name}'{nearest(name, ['sample'])}")
    with _progress(quiet) as progress:
        task = progress.task("Rendering", 5 * per_class)
        sample.render(Path(folder), per_class=per_class, seed=seed, on_step=lambda _done, _total: task.advance(1))
    if as_json:
        typer.echo(json.dumps({"folder": folder, "rendered": True}))
    elif not quiet:
        typer.echo(f"{folder}: rendered by code, no real photos")


def _table(rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(*rows[0], box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    _console().print(table)


def _console() -> Console:
    """Results go to stdout; in a pipe or a file nothing is cut to 80 columns."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(str(v) for v in value)
    return str(value).replace("[", "\\[")


@contextmanager
def _progress(quiet: bool) -> Iterator[Progress]:
    from frostline.progress import Progress

    with Progress(quiet) as progress:
        yield progress


STOPPED = 130
"""Exit status after Ctrl-C, as shells have it."""


def main() -> None:
    """Run the command line: a user's mistake is one line on stderr and exit 1, Ctrl-C is exit 130."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = app(standalone_mode=False)
    except FrostlineError as error:
        _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        status = STOPPED
    except BrokenPipeError:  # the reader of stdout has had enough
        sys.stdout = None
        sys.exit(0)
    except OSError as error:
        _fail(_refusal(error))
    except Exception as error:
        if not type(error).__module__.startswith(("click", "typer")):
            raise
        words = error.format_message() if hasattr(error, "format_message") else str(error)
        _fail(words, code=2)
    if status == STOPPED:  # typer's own answer to Ctrl-C inside a command
        resumable = sys.argv[1:2] in (["study"], ["fit"], ["sweep"])
        hint = "; nothing that was finished is lost: go on with --resume" if resumable else ""
        print(f"stopped{hint}", file=sys.stderr)  # noqa: T201
    sys.exit(status if isinstance(status, int) else 0)


def _refusal(error: OSError) -> str:
    """What the operating system would not do, and with which file where that is known."""
    from frostline.manifest import printable

    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        return f"the system refused to read or write: {reason}"
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
    return f"can't read or write {printable(name)}: {reason}"


def _fail(message: str, code: int = 1) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    sys.exit(code)
