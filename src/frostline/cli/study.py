"""The commands that train and compare: study, fit, and robustness of what they trained."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frostline import wording
from frostline.cli.console import is_narrow, line, print_skipped, print_table, progress_bar, right_aligned, show
from frostline.cli.options import Json, Quiet, RunOptions, run_options
from frostline.cli.runs import announce, configuration, existing_run, limit_cache, run_folder
from frostline.errors import ConfigError
from frostline.recipes import STRATEGIES

if TYPE_CHECKING:
    from frostline.config import Config


@run_options()
def study(
    asked: RunOptions,
    seeds: Annotated[
        int, typer.Option(help="Studies with so many seeds, from --seed on, and what they say together.")
    ] = 1,
) -> None:
    """Train the strategies on DATA, compare them, leave models and a report in a run folder."""
    limit_cache(asked.cache_limit)
    config = configuration(asked, free=("seeds",))
    count = _seed_count(seeds, asked)
    if count == 1:
        _study(config, asked)
    else:
        _several(config, asked, count)


@run_options("strategies", "robustness", "learning_curve", "settings")
def fit(
    asked: RunOptions,
    strategy: Annotated[str, typer.Option(help=f"{', '.join(STRATEGIES[:-1])} or {STRATEGIES[-1]}.")] = "fine-tuned",
) -> None:
    """Train one strategy on DATA: a study of one."""
    limit_cache(asked.cache_limit)
    asked = replace(asked, configuration={**asked.configuration, "strategies": [strategy]})
    _study(configuration(asked), asked)


def robustness(
    run: Annotated[str, typer.Argument(help="Run folder of a finished study.")],
    photos: Annotated[
        str, typer.Option(help="How many reported photos to corrupt: a number or all. Default: as the study was told.")
    ] = "",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure, on a finished study: robustness to corruptions, causes of errors, how many photos fine-tuning takes."""
    from frostline.studies.study import robustness as measure

    if photos and photos != "all" and not (photos.isascii() and photos.isdigit()):
        raise ConfigError(f"--photos {photos}: expected a number of photos, or all")
    count = None if not photos else 10**9 if photos == "all" else int(photos)
    with progress_bar(quiet) as progress:
        document = measure(run, count, progress=progress)
    show(document, as_json, quiet, lambda: _print_evidence(document, Path(run)))


def _seed_count(seeds: int, asked: RunOptions) -> int:
    """How many seeds to run: as many as asked for; when a folder is resumed, at least those that it has."""
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds}: expected 1 or more")
    if not asked.resume or asked.data or asked.settings:
        return seeds
    from frostline.reports.seeds_page import FILE, read

    run = Path(asked.out)
    return max(seeds, len(read(run)["seeds"])) if (run / FILE).exists() else seeds


def _study(config: Config, asked: RunOptions) -> None:
    """Run a study of one seed and print its results: the answer as soon as it stands, then what else was measured."""
    from frostline.photos import head_start

    started, answered = time.perf_counter(), False
    existing, run = existing_run(asked), run_folder(config, asked)
    talks = not asked.as_json and not asked.quiet
    with head_start.begin(config) as start, progress_bar(asked.quiet) as progress:
        from frostline.studies.study import study as run_study  # PyTorch and all: the head start's seconds

        announce(run, progress)

        def on_row(row: Mapping[str, Any], document: Mapping[str, Any]) -> None:
            progress.say(_strategy_ended(row, document))

        def on_answer(document: Mapping[str, Any]) -> None:
            nonlocal answered
            answered = True
            if talks:
                _print_study(document)

        try:
            document = run_study(
                config, run, existing=existing, progress=progress, on_row=on_row, on_answer=on_answer, head_start=start,
                started=started,
            )  # fmt: skip
        except KeyboardInterrupt:
            if talks:
                _print_stopped(run, answered)
            raise
    show(document, asked.as_json, asked.quiet, lambda: _print_evidence(document, run))


def _several(config: Config, asked: RunOptions, count: int) -> None:
    """Run a study with each of several seeds and print what they say together."""
    from frostline.studies.seeds import several

    existing, run = existing_run(asked), run_folder(config, asked)
    with progress_bar(asked.quiet) as progress:
        announce(run, progress)

        def on_row(row: Mapping[str, Any], document: Mapping[str, Any]) -> None:
            progress.say(f"Seed {document['seed']}, {_strategy_ended(row, document)}")

        document = several(config, run, count, existing=existing, progress=progress, on_row=on_row)
    show(document, asked.as_json, asked.quiet, lambda: _print_seeds(document, run))


# ---- in words --------------------------------------------------------------------------------------------------------


def _strategy_ended(row: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """A strategy's figures, told as it ends."""
    return (
        f"{row['name']}: {wording.headline(row, document['dataset'].get('unequal', False))} "
        f"on {wording.photos_reported(document)}, in {wording.duration(row['seconds']['total'])}"
    )


def _print_study(document: Mapping[str, Any]) -> None:
    """A study's strategies as a table, what to know of its photos, and its answer."""
    dataset = document["dataset"]
    unequal = dataset.get("unequal", False)
    metric, name = ("balanced_accuracy", "macro recall") if unequal else ("accuracy", "accuracy")
    count = wording.short if is_narrow() else wording.count
    rows = [
        {
            "strategy": row["name"],
            name: wording.percent(row[metric]),
            "95 % CI": wording.span(row[f"{metric}_ci"]),
            "macro F1": wording.decimal(row["macro_f1"]),
            "accuracy": wording.percent(row["accuracy"]),
            "calibration error": wording.decimal(row.get("calibration_error")),
            "trainable": count(row["parameters"]["trainable"]),
            "total": count(row["parameters"]["total"]),
            "time": wording.duration(row["seconds"]["total"]),
        }
        for row in document["strategies"]
    ]
    wide = {"total", "trainable"} if unequal else {"total"}
    columns = [column for column in rows[0] if not (column in wide and is_narrow())]
    shown = right_aligned(*columns)
    for cells in rows:
        shown.add_row(*(cells[column] for column in columns))
    print_table(shown)
    passes = [wording.duration(s) for row in document["strategies"] if (s := row["seconds"].get("prefix"))]
    if len(passes) > 1:
        shared = " or ".join(dict.fromkeys(passes))
        line(f"Each time includes {shared} that the strategies share: one pass of the photos through frozen layers.")
    for row in document["strategies"]:
        if told := wording.unfrozen(row):
            line(told)
    print_skipped(dataset["skipped"])
    if conflicts := dataset["conflicts"]:
        line(f"{len(conflicts)} photo(s) stand in two classes; the report shows them.")
    if (shift := document.get("shift")) and shift["differs"]:
        line(f"Mind: {shift['verdict']} ({shift['measured']}).")
    line(f"{document['answer']} {document['answer_detail']}")


def _print_stopped(run: Path, answered: bool) -> None:
    """What a stopped study has: its table, if that is not shown yet, and where the report is."""
    from frostline import documents
    from frostline.errors import RunError

    try:
        document = documents.read(run, documents.Study)
    except RunError:  # stopped before its first figure
        return
    if "stopped" not in document:
        return
    line(f"Stopped {document['stopped']}.")
    if document["strategies"] and not answered:
        _print_study(document)
    _print_end(document, run)


def _print_end(document: Mapping[str, Any], run: Path) -> None:
    """How long the run took in all, and where its report is."""
    sittings = len(document["sittings"])
    more = f", in {sittings} sittings" if sittings > 1 else ""
    line(f"Time in all: {wording.duration(document['seconds'])}{more}.")
    line(f"Report: {run / 'report.html'}")


def _print_evidence(document: Mapping[str, Any], run: Path) -> None:
    """What was measured beside the strategies, and where the report is."""
    rows = [row for row in document["strategies"] if "robustness" in row]
    if rows:
        shown = right_aligned("accuracy by corruption", *(row["name"] for row in rows))
        shown.add_row("none", *(wording.percent(row["robustness"]["clean"]) for row in rows))
        for i, corruption in enumerate(rows[0]["robustness"]["causes"]):
            means = (fmean(row["robustness"]["causes"][i]["accuracy"]) for row in rows)
            shown.add_row(corruption["title"], *map(wording.percent, means))
        print_table(shown)
        for pair in document["robustness"]["pairs"]:
            line(f"{pair['verdict'][0].upper()}{pair['verdict'][1:]}.")
    claims = document["claims"] if rows else []
    for claim in claims:
        if "tested_by" not in claim:
            line(f"- {claim['claim']} {claim['verdict'].capitalize()}.")
    if missing := [str(number) for number, claim in enumerate(claims, 1) if "tested_by" in claim]:
        line(f"Not tested in this run: claim{'s' if len(missing) > 1 else ''} {', '.join(missing)}; see the report.")
    if (found := document.get("out_of_distribution")) and "tested_by" not in found:
        line(f"- {found['claim']} {found['verdict'].capitalize()}: {found['measured']}.")
    _print_end(document, run)


def _print_seeds(document: Mapping[str, Any], run: Path) -> None:
    """The strategies over several seeds as a table, and the comparisons."""
    columns = ("mean", "95 % CI", "standard deviation", "range", "time, mean")
    shown = right_aligned("strategy", *columns)
    for row in document["strategies"]:
        shown.add_row(
            row["name"],
            wording.percent(row["mean"]),
            wording.span(row["ci"]),
            wording.decimal(100 * row["sd"], 1),
            wording.span(row["range"]),
            wording.duration(row["seconds_mean"]),
        )
    print_table(shown)
    print_skipped(document["dataset"]["skipped"])
    line(document["answer"])
    if about := (document.get("decision") or {}).get("unfreezing"):
        line(f"{about['words']} {document['decision']['note']}")
    for comparison in document["comparisons"]:
        line(f"- {comparison['verdict']}")
    line(f"Report: {run / 'report.html'}")
