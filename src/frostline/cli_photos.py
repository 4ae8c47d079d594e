"""The commands that look at photos or bring some: data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from frostline.console import console, print_skipped, progress_bar
from frostline.errors import ConfigError
from frostline.options import Json, Quiet, Seed


def data(
    name: Annotated[
        str, typer.Argument(help="sample: five flower classes, rendered by code; flowers: TensorFlow's 3,670 photos.")
    ],
    folder: Annotated[str, typer.Argument(help="Where to write it.")],
    per_class: Annotated[int, typer.Option(help="With sample: photos a class.")] = 120,
    seed: Seed = 0,
    url: Annotated[str, typer.Option(help="With flowers: a mirror of the archive, to be asked first.")] = "",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a data set to try things on: render the sample, or fetch public photos (229 MB, checked, resumed)."""
    from frostline import public
    from frostline.errors import nearest

    if name == "sample":
        _render(folder, per_class, seed, as_json, quiet)
        return
    if name not in public.KNOWN:
        raise ConfigError(f"unknown data set '{name}'{nearest(name, ['sample', *public.KNOWN])}")
    with progress_bar(quiet) as progress:
        fetched = public.fetch(public.KNOWN[name], Path(folder), url=url, progress=progress)
    if as_json:
        typer.echo(json.dumps(fetched, ensure_ascii=False))
    elif not quiet:
        counts = ", ".join(f"{label} {count:,}" for label, count in fetched["classes"].items())
        typer.echo(f"{folder}: {fetched['photos']:,} photos ({counts})")
        print_skipped(fetched["left_out"], console())
        typer.echo(f"Licence: {fetched['licence_text'] or fetched['licence']} ({fetched['licence_file']})")


def _render(folder: str, per_class: int, seed: int, as_json: bool, quiet: bool) -> None:
    from frostline import sample

    with progress_bar(quiet) as progress:
        task = progress.task("Rendering", 5 * per_class)
        sample.render(Path(folder), per_class=per_class, seed=seed, on_step=lambda _done, _total: task.advance(1))
    if as_json:
        typer.echo(json.dumps({"folder": folder, "rendered": True}))
    elif not quiet:
        typer.echo(f"{folder}: rendered by code, no real photos")
