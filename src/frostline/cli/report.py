"""The commands that show what runs left: report, compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frostline.cli.console import console, right_aligned
from frostline.cli.options import (
    Json,
    Quiet,
)
from frostline.errors import ConfigError

if TYPE_CHECKING:
    pass


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
        from frostline.reports.sweep_page import build
    elif other:
        from frostline.reports.seeds_page import build
    elif kind == "md":
        from frostline.reports.markdown import build
    else:
        from frostline.reports.study_page import build

    path = build(folder)
    drawn = _figures(folder) if figures else sorted((folder / "figures").iterdir()) if kind == "md" else []
    if as_json:
        typer.echo(json.dumps({"report": str(path), "figures": [str(p) for p in drawn]}))
    elif not quiet:
        typer.echo(f"Report: {path}")
        if drawn:
            typer.echo(f"Figures: {drawn[0].parent}, {len(drawn) // 2} as SVG and CSV")


def _figures(run: Path) -> list[Path]:
    from frostline.reports.markdown import export

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
    from frostline.reports import compare as library

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
    from frostline import wording

    table = right_aligned("run: strategy", "photos", "accuracy", "95 % CI")
    for row in document["chosen"]:
        table.add_row(
            row["name"], f"{row['photos']:,}", wording.percent(row["accuracy"]), wording.span(row["accuracy_ci"])
        )
    console().print(table)
    pairs = right_aligned("on shared photos", "photos", "points", "95 % CI", "p")
    for pair in document["pairs"]:
        p = wording.p_value(pair["p_value"]).removeprefix("p = ").removeprefix("p ")
        pairs.add_row(
            f"{pair['a']} \u2212 {pair['b']}",
            f"{pair['shared']:,}",
            wording.points(pair["difference"]),
            wording.span(pair["ci"]),
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
