"""The commands that look at photos or bring some: check, data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from frostline.cli.console import console, print_skipped, progress_bar
from frostline.cli.options import PHOTOS, Engine, ImageSize, Json, Quiet, Seed, Weights
from frostline.errors import ConfigError

if TYPE_CHECKING:
    from frostline.documents import Check


def check(
    data: Annotated[str, typer.Argument(help=f"{PHOTOS}.")],
    out: Annotated[
        str, typer.Option("--out", help="Gets check.html, check.csv and check.json. Default: runs/NAME-check.")
    ] = "",
    save: Annotated[
        str, typer.Option("--write", help="A .csv file that gets what is safe to leave out, for study --exclude.")
    ] = "",
    backbone: Annotated[
        str,
        typer.Option(
            help="Networks that look at the photos: A or A+B; MobileNetV2 and EfficientNet-Lite0 if none is named."
        ),
    ] = "",
    weights: Weights = "",
    image_size: ImageSize = 0,
    engine: Engine = "auto",
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find what is wrong with the photos: broken files, duplicates, wrong labels, junk, shortcuts. No photo is changed."""
    from frostline.cache import marks, upkeep
    from frostline.checks.check import check as look
    from frostline.checks.examine import NETWORKS
    from frostline.checks.kinds import KINDS
    from frostline.config import EngineKind
    from frostline.errors import nearest
    from frostline.photos.corrections import Decision
    from frostline.photos.corrections import write as write_list
    from frostline.reports.check_page import write

    if engine not in get_args(EngineKind):
        raise ConfigError(f"unknown engine '{engine}'{nearest(engine, get_args(EngineKind))}")
    if seed < 0:
        raise ConfigError(f"seed {seed}: expected 0 or more")
    if image_size and not 32 <= image_size <= 1024:
        raise ConfigError(f"image size {image_size}: expected 32 to 1024 pixels, or 0 for the network's own")
    if weights and not backbone:
        raise ConfigError(f"--weights {weights}: name the network that they are of with --backbone")
    if save and Path(save).suffix.lower() != ".csv":
        raise ConfigError(f"--write {save}: expected a name that ends in .csv")
    folder = Path(out) if out else Path("runs") / f"{Path(data).resolve().stem}-check"
    with progress_bar(quiet) as progress, marks.session():
        document = look(
            data,
            backbone=backbone or NETWORKS,
            weights=weights,
            image_size=image_size,
            engine=engine,  # type: ignore[arg-type]
            seed=seed,
            progress=progress,
        )
        write(folder, document, [(kind, about.title, about.advice) for kind, about in KINDS.items()])
    upkeep.trim()
    if save:
        write_list(Path(save), [Decision(**row) for row in document["decisions"]])
    if as_json:
        typer.echo(json.dumps(document, ensure_ascii=False))
    elif not quiet:
        _print_check(document, folder, save)


def _print_check(document: Check, folder: Path, save: str, shown: int = 10) -> None:
    from itertools import groupby

    from frostline.checks.kinds import KINDS
    from frostline.photos.names import printable

    screen = console()
    for kind, rows in groupby(document["findings"], key=lambda f: f["kind"]):
        found = list(rows)
        screen.print(f"{KINDS[kind].title} ({len(found):,}). {KINDS[kind].advice}", markup=False, soft_wrap=True)
        for f in found[:shown]:
            where = " = ".join(printable(p) for p in f["paths"][:4]) or ", ".join(printable(c) for c in f["classes"])
            more = f" and {len(f['paths']) - 4:,} more" if len(f["paths"]) > 4 else ""
            change = f": likely {printable(f['suggested'])}" if f["suggested"] else ""
            why = f" ({f['detail']})" if f["detail"] else ""
            screen.print(f"  {f['confidence']:.2f}  {where}{more}{change}{why}", markup=False, soft_wrap=True)
        if len(found) > shown:
            screen.print(f"  ... and {len(found) - shown:,} more, in check.csv and check.html", markup=False)
    for line in [*document["lines"], *(f"Not checked: {note}" for note in document["notes"])]:
        screen.print(line, markup=False, soft_wrap=True)
    if save:
        screen.print(f"To leave out: {len(document['decisions']):,} photos, in {save}", markup=False, soft_wrap=True)
    screen.print(f"Report: {folder / 'check.html'}", markup=False, soft_wrap=True)


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
    from frostline.errors import nearest
    from frostline.photos import public_sets

    if name == "sample":
        _render(folder, per_class, seed, as_json, quiet)
        return
    if name not in public_sets.KNOWN:
        raise ConfigError(f"unknown data set '{name}'{nearest(name, ['sample', *public_sets.KNOWN])}")
    with progress_bar(quiet) as progress:
        fetched = public_sets.fetch(public_sets.KNOWN[name], Path(folder), url=url, progress=progress)
    if as_json:
        typer.echo(json.dumps(fetched, ensure_ascii=False))
    elif not quiet:
        counts = ", ".join(f"{label} {count:,}" for label, count in fetched["classes"].items())
        typer.echo(f"{folder}: {fetched['photos']:,} photos ({counts})")
        print_skipped(fetched["left_out"], console())
        typer.echo(f"Licence: {fetched['licence_text'] or fetched['licence']} ({fetched['licence_file']})")


def _render(folder: str, per_class: int, seed: int, as_json: bool, quiet: bool) -> None:
    from frostline.photos import sample

    with progress_bar(quiet) as progress:
        task = progress.task("Rendering", 5 * per_class)
        sample.render(Path(folder), per_class=per_class, seed=seed, on_step=lambda _done, _total: task.advance(1))
    if as_json:
        typer.echo(json.dumps({"folder": folder, "rendered": True}))
    elif not quiet:
        typer.echo(f"{folder}: rendered by code, no real photos")
