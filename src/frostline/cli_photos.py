"""The commands that look at photos or bring some: data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from frostline.console import progress_bar
from frostline.errors import ConfigError
from frostline.options import Json, Quiet, Seed


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
    with progress_bar(quiet) as progress:
        task = progress.task("Rendering", 5 * per_class)
        sample.render(Path(folder), per_class=per_class, seed=seed, on_step=lambda _done, _total: task.advance(1))
    if as_json:
        typer.echo(json.dumps({"folder": folder, "rendered": True}))
    elif not quiet:
        typer.echo(f"{folder}: rendered by code, no real photos")
