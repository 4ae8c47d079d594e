"""What the command line shows: progress on stderr, tables of results on stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

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


def table(rows: list[dict[str, Any]]) -> None:
    """Print rows (one at least) as a table; their keys are its columns."""
    from rich import box
    from rich.table import Table

    table = Table(*rows[0], box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(cell(value) for value in row.values()))
    console().print(table)


def right_aligned(first: str, *columns: str) -> Table:
    """A table with its names on the left and its figures on the right."""
    from rich import box
    from rich.table import Table

    table = Table(first, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def cell(value: Any) -> str:
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
    low, high = (100 * x for x in row["accuracy_ci"])
    return f"{100 * row['accuracy']:.1f} %", f"{low:.1f} to {high:.1f}"


def print_skipped(skipped: Sequence[Skipped], screen: Console, shown: int = 100) -> None:
    """List files that were left out, each with the reason."""
    if not skipped:
        return
    screen.print(f"{len(skipped)} left out:", markup=False)
    for skip in skipped[:shown]:
        screen.print(f"  {skip['path']}: {skip['why']}", markup=False, soft_wrap=True)
    if len(skipped) > shown:
        screen.print(f"  ... and {len(skipped) - shown} more, in study.json and the report", markup=False)
