"""What the commands show: progress on stderr, tables and sentences of results on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from frostline import wording

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from frostline.documents.shared import Skipped
    from frostline.progress import Progress


def console() -> Console:
    """Results go to stdout; in a pipe or a file nothing is cut to 80 columns."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 140)


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Progress]:
    """Show progress on stderr, unless the user wants quiet."""
    from frostline.progress import Progress

    with Progress(quiet) as progress:
        yield progress


def show(
    document: object,
    as_json: bool,
    quiet: bool,
    in_words: Callable[[], None],
    default: Callable[[Any], object] | None = None,
) -> None:
    """End a command: print its document as JSON, or `in_words`, or nothing. `default` is that of `json.dumps`."""
    if as_json:
        typer.echo(json.dumps(document, ensure_ascii=False, default=default))
    elif not quiet:
        in_words()


def line(text: str) -> None:
    """Print a line, as long as it is; nothing in it is markup."""
    console().print(text, markup=False, soft_wrap=True)


def table(rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows (one at least) as a table; their keys are its columns."""
    from rich import box
    from rich.table import Table

    shown = Table(*rows[0], box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, show_edge=False)
    for row in rows:
        shown.add_row(*(cell(value) for value in row.values()))
    print_table(shown)


def print_table(table: Table) -> None:
    """Print a table between two empty lines."""
    screen = console()
    screen.print()
    screen.print(table)
    screen.print()


def is_narrow() -> bool:
    """Whether tables have to fit into a terminal of 80 columns."""
    return console().width < 100


def right_aligned(first: str, *columns: str, wrapped: Sequence[str] = ()) -> Table:
    """A table with names on the left and figures on the right, never cut; `wrapped` columns may take several lines."""
    from rich import box
    from rich.table import Table

    shown = Table(first, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, show_edge=False)
    shown.columns[0].overflow = "fold"
    for column in columns:
        title = "\n".join(column.rsplit(" ", 1)) if is_narrow() else column
        shown.add_column(title, justify="right", no_wrap=column not in wrapped)
    return shown


def cell(value: object) -> str:
    """A value as a table shows it."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(str(v) for v in value)
    return str(value).replace("[", "\\[")


def accuracy_cells(row: Mapping[str, Any]) -> tuple[str, str]:
    """A row's accuracy and its 95 % CI, in percent."""
    return wording.percent(row["accuracy"]), wording.span(row["accuracy_ci"])


def print_skipped(skipped: Sequence[Skipped], shown: int = 100) -> None:
    """List files that were left out, each with the reason."""
    if not skipped:
        return
    line(f"{len(skipped)} left out:")
    for skip in skipped[:shown]:
        line(f"  {skip['path']}: {skip['why']}")
    if len(skipped) > shown:
        line(f"  ... and {len(skipped) - shown} more, in study.json and the report")
