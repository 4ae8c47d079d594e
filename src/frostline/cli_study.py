"""The commands that train and compare: study, fit, sweep, and the report of what they left."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frostline.console import accuracy_cells, console, print_skipped, progress_bar, right_aligned
from frostline.errors import ConfigError
from frostline.options import (
    Backbone,
    Balance,
    CacheLimit,
    Data,
    Device,
    Engine,
    Epochs,
    Exclude,
    Explain,
    ImageSize,
    Json,
    Line,
    Loss,
    Out,
    Overwrite,
    Precision,
    Preset,
    Protocol,
    Quiet,
    Resize,
    Resume,
    Robustness,
    Seed,
    Seeds,
    Settings,
    StoredAs,
    Test,
    Twins,
    Weights,
)

if TYPE_CHECKING:
    from frostline.config import Config
    from frostline.study import Existing
    from frostline.sweep import Plan


def study(
    context: typer.Context,
    data: Data = "",
    out: Out = "",
    strategies: Annotated[str, typer.Option(help="Comma-separated.")] = "baseline,frozen,fine-tuned",
    backbone: Backbone = "",
    protocol: Protocol = "rigorous",
    preset: Preset = "balanced",
    epochs: Epochs = None,
    seed: Seed = 0,
    seeds: Seeds = 1,
    test: Test = "",
    exclude: Exclude = "",
    line: Line = None,
    weights: Weights = "",
    image_size: ImageSize = 0,
    resize: Resize = "squash",
    engine: Engine = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    stored_as: StoredAs = "float16",
    balance: Balance = "none",
    loss: Loss = "cross-entropy",
    explain: Explain = -1,
    robustness: Robustness = "auto",
    twins: Twins = "auto",
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
        resize=resize, engine=engine, device=device, precision=precision, stored_as=stored_as, balance=balance, loss=loss, exclude=exclude,
        explain=explain,
        robustness=robustness, twins=twins,
    )  # fmt: skip
    count = _seed_count(seeds, data, out, settings, resume)
    run = _run if count == 1 else partial(_run_several, count=count)
    run(config, out, _existing(resume, overwrite), as_json, quiet)


def fit(
    context: typer.Context,
    data: Data = "",
    strategy: Annotated[
        str, typer.Option(help="baseline, frozen, fine-tuned, fine-tuned-all or scratch.")
    ] = "fine-tuned",
    out: Out = "",
    backbone: Backbone = "",
    protocol: Protocol = "rigorous",
    preset: Preset = "balanced",
    epochs: Epochs = None,
    seed: Seed = 0,
    test: Test = "",
    exclude: Exclude = "",
    line: Line = None,
    weights: Weights = "",
    image_size: ImageSize = 0,
    resize: Resize = "squash",
    engine: Engine = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    stored_as: StoredAs = "float16",
    balance: Balance = "none",
    loss: Loss = "cross-entropy",
    explain: Explain = -1,
    twins: Twins = "auto",
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
        device=device, precision=precision, stored_as=stored_as, balance=balance, loss=loss, exclude=exclude,
        explain=explain, twins=twins,
    )  # fmt: skip
    _run(config, out, _existing(resume, overwrite), as_json, quiet)


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
    backbone: Backbone = "",
    protocol: Protocol = "rigorous",
    preset: Preset = "balanced",
    epochs: Epochs = None,
    seed: Seed = 0,
    test: Test = "",
    exclude: Exclude = "",
    line: Line = None,
    weights: Weights = "",
    image_size: ImageSize = 0,
    resize: Resize = "squash",
    engine: Engine = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    stored_as: StoredAs = "float16",
    balance: Balance = "none",
    loss: Loss = "cross-entropy",
    twins: Twins = "auto",
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
        "device": device, "precision": precision, "stored_as": stored_as, "balance": balance, "loss": loss, "exclude": exclude,
        "twins": twins,
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
    from frostline.configuration import SAMPLE, configure

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
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds}: expected 1 or more")
    if not resume or data or settings:
        return seeds
    from frostline.seeds import FILE, read

    return max(seeds, len(read(Path(out))["seeds"])) if (Path(out) / FILE).exists() else seeds


def _existing(resume: bool, overwrite: bool) -> Existing:
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other: give one of them")
    return "resume" if resume else "overwrite" if overwrite else "refuse"


def _run(config: Config, out: str, existing: Existing, as_json: bool, quiet: bool) -> None:
    from frostline import headstart

    run = _run_folder(config, out, existing)
    with headstart.begin(config) as start, progress_bar(quiet) as progress:
        from frostline.study import study as run_study  # PyTorch and all: the head start's seconds

        progress.say(f"Run folder {run}; stop with Ctrl-C, go on with --out {run} --resume")

        def on_row(row: dict[str, Any], document: dict[str, Any]) -> None:
            progress.say(_ended(row, document))

        def on_answer(document: dict[str, Any]) -> None:
            if not as_json and not quiet:
                _print_study(document)

        document = run_study(
            config, run, existing=existing, progress=progress, on_row=on_row, on_answer=on_answer, head_start=start
        )
    if as_json:
        typer.echo(json.dumps(document, ensure_ascii=False))
    elif not quiet:
        _print_evidence(document, run)


def robustness(
    run: Annotated[str, typer.Argument(help="Run folder of a finished study.")],
    photos: Annotated[
        str,
        typer.Option(help="How many reported photos to make worse: a number or all. Default: as the study was told."),
    ] = "",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a finished study's models on photos made worse, its errors' causes, and how many photos fine-tuning takes."""
    from frostline.study import robustness as measure

    if photos and photos != "all" and not (photos.isascii() and photos.isdigit()):
        raise ConfigError(f"--photos {photos}: expected a number of photos, or all")
    count = None if not photos else 10**9 if photos == "all" else int(photos)
    with progress_bar(quiet) as progress:
        document = measure(run, count, progress=progress)
    if as_json:
        typer.echo(json.dumps(document, ensure_ascii=False))
    elif not quiet:
        _print_evidence(document, Path(run))


def _print_evidence(document: dict[str, Any], run: Path) -> None:
    """What was measured beside the strategies, and where the report is."""
    screen = console()
    rows = [row for row in document["strategies"] if "robustness" in row]
    if rows:
        table = right_aligned("photos made worse", *(row["name"] for row in rows))
        table.add_row("as they are", *(f"{100 * row['robustness']['clean']:.1f} %" for row in rows))
        for i, cause in enumerate(rows[0]["robustness"]["causes"]):
            table.add_row(
                cause["title"], *(f"{100 * _mean(row['robustness']['causes'][i]['accuracy']):.1f} %" for row in rows)
            )
        screen.print(table)
        for pair in document["robustness"]["pairs"]:
            screen.print(f"{pair['verdict'][0].upper()}{pair['verdict'][1:]}.", markup=False, soft_wrap=True)
    for claim in document["claims"] if rows else ():
        screen.print(f"- {claim['claim']} {claim['verdict'].capitalize()}.", markup=False, soft_wrap=True)
    screen.print(f"Report: {run / 'report.html'}", markup=False, soft_wrap=True)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _run_several(config: Config, out: str, existing: Existing, as_json: bool, quiet: bool, count: int) -> None:
    from frostline.seeds import several

    run = _run_folder(config, out, existing)
    with progress_bar(quiet) as progress:
        progress.say(f"Run folder {run}; stop with Ctrl-C, go on with --out {run} --resume")

        def on_row(row: dict[str, Any], document: dict[str, Any]) -> None:
            progress.say(f"Seed {document['seed']}, {_ended(row, document)}")

        document = several(config, run, count, existing=existing, progress=progress, on_row=on_row)
    if as_json:
        typer.echo(json.dumps(document, ensure_ascii=False))
    elif not quiet:
        _print_seeds(document, run)


def _run_folder(config: Config, out: str, existing: Existing) -> Path:
    from frostline.configuration import SAMPLE

    name = "sample" if config.data == SAMPLE else Path(config.data).resolve().stem.removesuffix(".tar")
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


def _print_study(document: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    from frostline import words

    screen = console()
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
    screen.print(table)
    print_skipped(document["dataset"]["skipped"], screen)
    if conflicts := document["dataset"]["conflicts"]:
        screen.print(f"{len(conflicts)} photo(s) stand in two classes; the report shows them.", markup=False)
    shift = document.get("shift")
    if shift and shift["differs"]:
        screen.print(f"Mind: {shift['verdict']} ({shift['measured']}).", markup=False, soft_wrap=True)
    screen.print(f"{document['answer']} {document['answer_detail']}", markup=False, soft_wrap=True)


def _run_sweep(config: Config, plan: Plan, out: str, existing: Existing, as_json: bool, quiet: bool) -> None:
    from frostline.study import SAMPLE
    from frostline.sweep import sweep as run_sweep

    name = "sample" if config.data == SAMPLE else Path(config.data).resolve().stem.removesuffix(".tar")
    run = Path(out) if out else _unused(Path("runs") / f"{name}-{plan.kind}", existing)
    with progress_bar(quiet) as progress:
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
        print_skipped(document["dataset"]["skipped"], console())
        console().print(f"{document['answer']} {document['answer_detail']}", markup=False, soft_wrap=True)
        console().print(f"Report: {run / 'report.html'}", markup=False, soft_wrap=True)


def _print_lines(document: dict[str, Any]) -> None:
    from frostline import words

    found = document["recommendation"]
    table = right_aligned("line", "accuracy", "95 % interval", "validation", "best in", "trainable", "training")
    for row, judged in zip(document["lines"], found["lines"], strict=True):
        table.add_row(
            f"{row['name']}{' *' if row['name'] == found['recommended'] else ''}", *accuracy_cells(row),
            f"{100 * judged['accuracy']:.1f} %", f"{100 * judged['best_share']:.0f} %",
            f"{row['parameters']['trainable']:,}", words.duration(row["seconds"]["train"]),
        )  # fmt: skip
    console().print(table)
    console().print("* recommended; best in: share of resamples of the validation photos in which the line is the best")


def _print_photos(document: dict[str, Any]) -> None:
    table = right_aligned("strategy", "photos of each class", "accuracy", "95 % interval")
    for row in document["curves"]:
        table.add_row(row["strategy"], f"{row['per_class']:.0f}", *accuracy_cells(row))
    console().print(table)


def _print_seeds(document: dict[str, Any], run: Path) -> None:
    from rich import box
    from rich.table import Table

    from frostline import words

    screen = console()
    table = Table("strategy", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("mean", "95 % interval", "standard deviation", "range", "time, mean"):
        table.add_column(column, justify="right", no_wrap=column != "standard deviation")
    for row in document["strategies"]:
        low, high, least, most = (100 * x for x in (*row["ci"], *row["range"]))
        table.add_row(
            row["name"], f"{100 * row['mean']:.1f} %", f"{low:.1f} to {high:.1f}", f"{100 * row['sd']:.1f}",
            f"{least:.1f} to {most:.1f}", words.duration(row["seconds_mean"]),
        )  # fmt: skip
    screen.print(table)
    print_skipped(document["dataset"]["skipped"], screen)
    screen.print(document["answer"], markup=False, soft_wrap=True)
    for comparison in document["comparisons"]:
        screen.print(f"- {comparison['verdict']}", markup=False, soft_wrap=True)
    screen.print(f"Report: {run / 'report.html'}", markup=False, soft_wrap=True)


def report(
    run: Annotated[str, typer.Argument(help="Run folder.")],
    kind: Annotated[
        str, typer.Option("--format", help="html, or md: report.md for a paper or a pull request, with figures.")
    ] = "html",
    figures: Annotated[
        bool, typer.Option("--figures", help="Every figure as SVG and its numbers as CSV: RUN/figures/.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Build the report of a run, a sweep, or a study over several seeds again."""
    if kind not in ("html", "md"):
        raise ConfigError(f"--format {kind}: expected html or md")
    folder = Path(run)
    other = next((name for name in ("sweep.json", "seeds.json") if (folder / name).exists()), "")
    if other and (kind == "md" or figures):
        raise ConfigError(
            f"{run} holds {other}: --format md and --figures are for studies; its picture and table stand beside its report"
        )
    if other == "sweep.json":
        from frostline.sweep_report import build
    elif other:
        from frostline.seeds import build
    elif kind == "md":
        from frostline.report_md import build
    else:
        from frostline.report import build

    path = build(folder)
    drawn = _figures(folder) if figures else sorted((folder / "figures").iterdir()) if kind == "md" else []
    if as_json:
        typer.echo(json.dumps({"report": str(path), "figures": [str(p) for p in drawn]}))
    elif not quiet:
        typer.echo(f"Report: {path}")
        if drawn:
            typer.echo(f"Figures: {drawn[0].parent}, {len(drawn) // 2} as SVG and CSV")


def _figures(run: Path) -> list[Path]:
    from frostline.report_md import export

    return export(run)


def compare(
    runs: Annotated[list[str], typer.Argument(help="Two or more run folders.")],
    strategy: Annotated[
        str, typer.Option(help="The strategy to compare. Default: of each run the one that validation prefers.")
    ] = "",
    every: Annotated[bool, typer.Option("--all", help="All strategies of all runs.")] = False,
    out: Annotated[str, typer.Option("--out", help="Folder for compare.html and compare.json.")] = "",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Hold runs side by side, paired on the photos that they share."""
    from frostline import compare as library

    document = (
        library.write(out, runs, strategy=strategy, every=every)
        if out
        else library.compare(runs, strategy=strategy, every=every)
    )
    if as_json:
        typer.echo(json.dumps(document, ensure_ascii=False))
    elif not quiet:
        _print_comparison(document, Path(out) / library.PAGE if out else None)


def _print_comparison(document: dict[str, Any], page: Path | None) -> None:
    from frostline import words

    table = right_aligned("run: strategy", "photos", "accuracy", "95 % interval")
    for row in document["chosen"]:
        table.add_row(row["name"], f"{row['photos']:,}", words.percent(row["accuracy"]), words.span(row["accuracy_ci"]))
    console().print(table)
    pairs = right_aligned("on shared photos", "photos", "points", "95 % interval", "p")
    for pair in document["pairs"]:
        p = words.p_value(pair["p_value"]).removeprefix("p\u00a0=\u00a0").removeprefix("p\u00a0")
        pairs.add_row(
            f"{pair['a']} \u2212 {pair['b']}",
            f"{pair['shared']:,}",
            words.points(pair["difference"]),
            words.span(pair["ci"]),
            p,
        )
    console().print(pairs)
    if document["settings"]:
        console().print("Settings that differ:")
        for row in document["settings"]:
            values = ("none" if value is None else str(value) for value in row["values"])
            console().print(f"  {row['setting']}: {' | '.join(values)}", markup=False, soft_wrap=True)
    for warning in document["warnings"]:
        console().print(f"Note: {warning}", markup=False, soft_wrap=True)
    console().print(f"{document['answer']}.", markup=False, soft_wrap=True)
    if page:
        console().print(f"Comparison: {page}", markup=False, soft_wrap=True)
