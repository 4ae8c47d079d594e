"""The commands that show what runs left: report, compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from frostline import wording
from frostline.cli.console import accuracy_cells, cell, line, print_table, right_aligned, show
from frostline.cli.options import Json, Quiet
from frostline.errors import ConfigError


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
    path = _builder(folder, kind, figures)(folder)
    drawn: list[Path] = []
    if figures:
        from frostline.reports.markdown import export

        drawn = export(folder)
    elif kind == "md":
        drawn = sorted((folder / "figures").iterdir())

    def in_words() -> None:
        typer.echo(f"Report: {path}")
        if drawn:
            typer.echo(f"Figures: {drawn[0].parent}, {len(drawn) // 2} as SVG and CSV")

    show({"report": str(path), "figures": [str(p) for p in drawn]}, as_json, quiet, in_words)


def _builder(run: Path, kind: str, figures: bool) -> Callable[[Path], Path]:
    """What builds the report of what a run folder holds."""
    other = next((name for name in ("sweep.json", "seeds.json") if (run / name).exists()), "")
    if other and (kind == "md" or figures):
        raise ConfigError(
            f"{run} holds {other}: --format md and --figures are for studies; "
            "its picture and table stand beside its report"
        )
    if other == "sweep.json":
        from frostline.reports.sweep_page import build
    elif other:
        from frostline.reports.seeds_page import build
    elif kind == "md":
        from frostline.reports.markdown import build
    else:
        from frostline.reports.study_page import build
    return build


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
    from frostline.reports import compare as library

    document = (
        library.write(out, runs, strategy=strategy, every=every)
        if out
        else library.compare(runs, strategy=strategy, every=every)
    )
    page = Path(out) / library.PAGE if out else None
    show(document, as_json, quiet, lambda: _print_comparison(document, page))


def _print_comparison(document: Mapping[str, Any], page: Path | None) -> None:
    chosen = right_aligned("run: strategy", "photos", "accuracy", "95 % CI")
    for row in document["chosen"]:
        accuracy, interval = accuracy_cells(row)
        chosen.add_row(cell(row["name"]), wording.count(row["photos"]), accuracy, interval)
    print_table(chosen)
    pairs = right_aligned("on shared photos", "photos", "points", "95 % CI", "p")
    for pair in document["pairs"]:
        pairs.add_row(
            cell(f"{pair['a']} \u2212 {pair['b']}"),
            wording.count(pair["shared"]),
            wording.points(pair["difference"]),
            wording.span(pair["ci"]),
            wording.p_value(pair["p_corrected"]).removeprefix("p = ").removeprefix("p "),
        )
    print_table(pairs)
    if (tested := sum(pair["p_value"] is not None for pair in document["pairs"])) > 1:
        line(f"p is corrected for {tested} comparisons (Holm); the intervals are plain 95 % CIs, one pair at a time.")
    if document["settings"]:
        line("Settings that differ:")
        for row in document["settings"]:
            line(f"  {row['setting']}: {' | '.join('none' if v is None else str(v) for v in row['values'])}")
    for warning in document["warnings"]:
        line(f"Note: {warning}")
    line(f"{document['answer']}.")
    if page:
        line(f"Comparison: {page}")
