"""The command that sweeps over freeze lines or numbers of photos."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frostline import wording
from frostline.cli.console import accuracy_cells, line, print_skipped, print_table, progress_bar, right_aligned, show
from frostline.cli.options import RunOptions, run_options
from frostline.cli.runs import (
    announce,
    configuration,
    existing_run,
    from_file,
    given_options,
    limit_cache,
    run_folder,
)
from frostline.config import SAMPLE, Config
from frostline.errors import ConfigError

if TYPE_CHECKING:
    from frostline.progress import Progress
    from frostline.studies.sweep import OnPoint, Plan


@run_options("explain", "robustness", "learning_curve")
def sweep(
    asked: RunOptions,
    lines: Annotated[
        str,
        typer.Option(
            help="Freeze lines: auto (about nine, top to 0), or a list: 0,features.14,30% (see --line). The top is "
            "always among them."
        ),
    ] = "auto",
    photos: Annotated[
        str, typer.Option(help="In place of --lines: training photos of each class, e.g. 5,10,20,50,100,200,all.")
    ] = "",
    strategies: Annotated[str, typer.Option(help="Comma-separated; with --photos.")] = "frozen,fine-tuned",
    repeats: Annotated[
        int, typer.Option(help="Trainings at each number of photos, each with other photos and another seed.")
    ] = 3,
) -> None:
    """Measure many freeze lines on DATA, or (--photos) how accuracy grows with the number of photos."""
    from frostline.studies.sweep import Plan, over_lines, over_photos, plan_photos

    _check_own_options(given_options(asked.context), photos)
    limit_cache(asked.cache_limit)
    data, options = asked.data or SAMPLE, asked.configuration
    if from_file(asked):
        config = configuration(asked, free=("photos", "repeats"))
        plan = plan_photos(photos, repeats) if photos else Plan() if asked.settings else Plan.of(Path(asked.out))
    elif photos:
        config, plan = over_photos(data, photos, strategies=strategies, repeats=repeats, **options)
    else:
        config, plan = over_lines(data, lines, **options)
    _sweep(config, plan, asked)


def _check_own_options(given: Collection[str], photos: str) -> None:
    if "lines" in given and "photos" in given:
        raise ConfigError("--lines and --photos exclude each other: a sweep moves one of them; run it once for each")
    if "photos" in given and not photos.strip():
        raise ConfigError("--photos is empty: expected numbers of photos, such as 5,10,20,all")
    if alone := next((n for n in ("strategies", "repeats") if n in given and not photos), None):
        raise ConfigError(f"--{alone} goes with --photos: a sweep over freeze lines has a strategy for each line")


def _sweep(config: Config, plan: Plan, asked: RunOptions) -> None:
    from frostline.studies.sweep import sweep as run_sweep

    existing, run = existing_run(asked), run_folder(config, asked, suffix=f"-{plan.kind}")
    with progress_bar(asked.quiet) as progress:
        announce(run, progress)
        on_point = _teller(plan, progress)
        document = run_sweep(config, plan, run, existing=existing, progress=progress, on_point=on_point)

    def in_words() -> None:
        _print_lines(document) if plan.kind == "lines" else _print_photos(document)
        print_skipped(document["dataset"]["skipped"])
        line(f"{document['answer']} {document['answer_detail']}")
        line(f"Report: {run / 'report.html'}")

    show(document, asked.as_json, asked.quiet, in_words)


def _teller(plan: Plan, progress: Progress) -> OnPoint:
    """What tells the points of a sweep as they end, as rows of a table."""
    first = "line" if plan.kind == "lines" else "strategy/photos-repeat"
    titles = f"{first:<24}{'accuracy':>9}  {'95 % CI':>13}{'trainable':>14}{'training':>11}"

    def on_point(row: Mapping[str, Any], _document: Mapping[str, Any]) -> None:
        nonlocal titles
        if titles:
            progress.say(titles)
            titles = ""
        accuracy, interval = accuracy_cells(row)
        trainable = wording.count(row["parameters"]["trainable"])
        progress.say(f"{row['name']:<24}{accuracy:>9}  {interval:>13}{trainable:>14}{row['seconds']['train']:>9.1f} s")

    return on_point


def _print_lines(document: Mapping[str, Any]) -> None:
    found = document["recommendation"]
    table = right_aligned("line", "accuracy", "95 % CI", "validation", "best in", "trainable", "training")
    for row, judged in zip(document["lines"], found["lines"], strict=True):
        table.add_row(
            f"{row['name']}{' *' if row['name'] == found['recommended'] else ''}",
            *accuracy_cells(row),
            wording.percent(judged["accuracy"]),
            wording.percent(judged["best_share"], 0),
            wording.count(row["parameters"]["trainable"]),
            wording.duration(row["seconds"]["train"]),
        )
    print_table(table)
    line("* recommended; best in: share of resamples of the validation photos in which the line is the best")


def _print_photos(document: Mapping[str, Any]) -> None:
    table = right_aligned("strategy", "photos of each class", "accuracy", "95 % CI")
    for row in document["curves"]:
        table.add_row(row["strategy"], f"{row['per_class']:.0f}", *accuracy_cells(row))
    print_table(table)
