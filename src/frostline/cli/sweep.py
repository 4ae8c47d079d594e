"""The command that sweeps over freeze lines or numbers of photos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frostline.cli.console import accuracy_cells, console, print_skipped, progress_bar, right_aligned
from frostline.cli.options import (
    Backbone,
    Balance,
    CacheLimit,
    Data,
    Device,
    Engine,
    Epochs,
    Exclude,
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
    Seed,
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
    from frostline.studies.sweep import Plan
from frostline.cli.runs import configuration, existing_run, given_options, limit_cache, unused


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
    from frostline.config import SAMPLE
    from frostline.studies.sweep import Plan, over_lines, over_photos, plan_photos

    _check_sweep(given_options(context), photos)
    limit_cache(cache_limit)
    options: dict[str, Any] = {
        "backbone": backbone, "protocol": protocol, "preset": preset, "epochs": epochs, "seed": seed, "test": test,
        "line": line, "weights": weights, "image_size": image_size, "resize": resize, "engine": engine,
        "device": device, "precision": precision, "stored_as": stored_as, "balance": balance, "loss": loss, "exclude": exclude,
        "twins": twins,
    }  # fmt: skip
    if settings or (resume and not data):
        config = configuration(context, data, out, settings, resume)
        plan = plan_photos(photos, repeats) if photos else Plan() if settings else Plan.of(Path(out))
    elif photos:
        names = [s.strip() for s in strategies.split(",") if s.strip()]
        config, plan = over_photos(data or SAMPLE, photos, strategies=names, repeats=repeats, **options)
    else:
        config, plan = over_lines(data or SAMPLE, lines, **options)
    _run_sweep(config, plan, out, existing_run(resume, overwrite), as_json, quiet)


def _check_sweep(given: list[str], photos: str) -> None:
    if "lines" in given and "photos" in given:
        raise ConfigError("--lines and --photos exclude each other: a sweep moves one of them; run it once for each")
    if "photos" in given and not photos.strip():
        raise ConfigError("--photos is empty: expected numbers of photos, such as 5,10,20,all")
    if alone := next((n for n in ("strategies", "repeats") if n in given and not photos), None):
        raise ConfigError(f"--{alone} goes with --photos: a sweep over freeze lines has a strategy for each line")


def _run_sweep(config: Config, plan: Plan, out: str, existing: Existing, as_json: bool, quiet: bool) -> None:
    from frostline.config import SAMPLE
    from frostline.studies.sweep import sweep as run_sweep

    name = "sample" if config.data == SAMPLE else Path(config.data).resolve().stem.removesuffix(".tar")
    run = Path(out) if out else unused(Path("runs") / f"{name}-{plan.kind}", existing)
    with progress_bar(quiet) as progress:
        progress.say(f"Run folder {run}; stop with Ctrl-C, go on with --out {run} --resume")
        told = 0

        def on_point(row: dict[str, Any], _document: dict[str, Any]) -> None:
            nonlocal told
            low, high = (100 * x for x in row["accuracy_ci"])
            what = {"lines": "line", "photos": "strategy/photos-repeat"}[plan.kind]
            if not told:
                progress.say(f"{what:<24}{'accuracy':>9}  {'95 % CI':>13}{'trainable':>14}{'training':>11}")
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
    from frostline import wording

    found = document["recommendation"]
    table = right_aligned("line", "accuracy", "95 % CI", "validation", "best in", "trainable", "training")
    for row, judged in zip(document["lines"], found["lines"], strict=True):
        table.add_row(
            f"{row['name']}{' *' if row['name'] == found['recommended'] else ''}", *accuracy_cells(row),
            f"{100 * judged['accuracy']:.1f} %", f"{100 * judged['best_share']:.0f} %",
            f"{row['parameters']['trainable']:,}", wording.duration(row["seconds"]["train"]),
        )  # fmt: skip
    console().print(table)
    console().print("* recommended; best in: share of resamples of the validation photos in which the line is the best")


def _print_photos(document: dict[str, Any]) -> None:
    table = right_aligned("strategy", "photos of each class", "accuracy", "95 % CI")
    for row in document["curves"]:
        table.add_row(row["strategy"], f"{row['per_class']:.0f}", *accuracy_cells(row))
    console().print(table)
