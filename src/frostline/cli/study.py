"""The commands that train and compare: study, fit, sweep, and the report of what they left."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frostline.cli.console import console, print_skipped, progress_bar, right_aligned
from frostline.cli.options import (
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
from frostline.errors import ConfigError

if TYPE_CHECKING:
    from frostline.config import Config
    from frostline.studies.run_folder import Existing
from frostline.cli.runs import configuration, existing_run, limit_cache, run_folder


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
    limit_cache(cache_limit)
    config = configuration(
        context, data, out, settings, resume,
        strategies=[s.strip() for s in strategies.split(",") if s.strip()], backbone=backbone, protocol=protocol,
        preset=preset, epochs=epochs, seed=seed, test=test, line=line, weights=weights, image_size=image_size,
        resize=resize, engine=engine, device=device, precision=precision, stored_as=stored_as, balance=balance, loss=loss, exclude=exclude,
        explain=explain,
        robustness=robustness, twins=twins,
    )  # fmt: skip
    count = _seed_count(seeds, data, out, settings, resume)
    run = _run if count == 1 else partial(_run_several, count=count)
    run(config, out, existing_run(resume, overwrite), as_json, quiet)


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
    limit_cache(cache_limit)
    config = configuration(
        context, data, out, "", resume, strategies=[strategy], backbone=backbone, protocol=protocol, preset=preset, epochs=epochs,
        seed=seed, test=test, line=line, weights=weights, image_size=image_size, resize=resize, engine=engine,
        device=device, precision=precision, stored_as=stored_as, balance=balance, loss=loss, exclude=exclude,
        explain=explain, twins=twins,
    )  # fmt: skip
    _run(config, out, existing_run(resume, overwrite), as_json, quiet)


def _seed_count(seeds: int, data: str, out: str, settings: str, resume: bool) -> int:
    """How many seeds to run: those asked for, or when a folder alone says what to go on with, at least those that it has."""
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds}: expected 1 or more")
    if not resume or data or settings:
        return seeds
    from frostline.reports.seeds_page import FILE, read

    return max(seeds, len(read(Path(out))["seeds"])) if (Path(out) / FILE).exists() else seeds


def _run(config: Config, out: str, existing: Existing, as_json: bool, quiet: bool) -> None:
    from frostline.photos import head_start

    run = run_folder(config, out, existing)
    with head_start.begin(config) as start, progress_bar(quiet) as progress:
        from frostline.studies.study import study as run_study  # PyTorch and all: the head start's seconds

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
    from frostline.studies.study import robustness as measure

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
    from frostline.studies.seeds import several

    run = run_folder(config, out, existing)
    with progress_bar(quiet) as progress:
        progress.say(f"Run folder {run}; stop with Ctrl-C, go on with --out {run} --resume")

        def on_row(row: dict[str, Any], document: dict[str, Any]) -> None:
            progress.say(f"Seed {document['seed']}, {_ended(row, document)}")

        document = several(config, run, count, existing=existing, progress=progress, on_row=on_row)
    if as_json:
        typer.echo(json.dumps(document, ensure_ascii=False))
    elif not quiet:
        _print_seeds(document, run)


def _ended(row: dict[str, Any], document: dict[str, Any]) -> str:
    """A strategy's figures, told as it ends."""
    from frostline import wording

    return (
        f"{row['name']}: {wording.headline(row, document['dataset'].get('unequal', False))} "
        f"on {document['reported_on']} photos, after {row['seconds']['total']:.0f} s"
    )


def _print_study(document: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    from frostline import wording

    screen = console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    unequal = document["dataset"].get("unequal", False)
    figures = ("macro recall", "95 % CI", "macro F1", "accuracy") if unequal else ("accuracy", "95 % CI", "macro F1")
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
            wording.duration(row["seconds"]["total"]),
        )  # fmt: skip
    screen.print(table)
    print_skipped(document["dataset"]["skipped"], screen)
    if conflicts := document["dataset"]["conflicts"]:
        screen.print(f"{len(conflicts)} photo(s) stand in two classes; the report shows them.", markup=False)
    shift = document.get("shift")
    if shift and shift["differs"]:
        screen.print(f"Mind: {shift['verdict']} ({shift['measured']}).", markup=False, soft_wrap=True)
    screen.print(f"{document['answer']} {document['answer_detail']}", markup=False, soft_wrap=True)


def _print_seeds(document: dict[str, Any], run: Path) -> None:
    from rich import box
    from rich.table import Table

    from frostline import wording

    screen = console()
    table = Table("strategy", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("mean", "95 % CI", "standard deviation", "range", "time, mean"):
        table.add_column(column, justify="right", no_wrap=column != "standard deviation")
    for row in document["strategies"]:
        low, high, least, most = (100 * x for x in (*row["ci"], *row["range"]))
        table.add_row(
            row["name"], f"{100 * row['mean']:.1f} %", f"{low:.1f} to {high:.1f}", f"{100 * row['sd']:.1f}",
            f"{least:.1f} to {most:.1f}", wording.duration(row["seconds_mean"]),
        )  # fmt: skip
    screen.print(table)
    print_skipped(document["dataset"]["skipped"], screen)
    screen.print(document["answer"], markup=False, soft_wrap=True)
    for comparison in document["comparisons"]:
        screen.print(f"- {comparison['verdict']}", markup=False, soft_wrap=True)
    screen.print(f"Report: {run / 'report.html'}", markup=False, soft_wrap=True)
