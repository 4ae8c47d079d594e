"""The commands about photos: check finds what is wrong with them, data brings some."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frostline.cli.console import line, print_skipped, progress_bar, show
from frostline.cli.options import PHOTOS, Engine, ImageSize, Json, Quiet, Seed, Weights
from frostline.config import require
from frostline.errors import ConfigError

if TYPE_CHECKING:
    from frostline.documents import Check


def check(
    data: Annotated[str, typer.Argument(help=f"{PHOTOS}. None: built-in sample.")] = "",
    out: Annotated[
        str, typer.Option("--out", help="Gets check.html, check.csv and check.json. Default: runs/NAME-check.")
    ] = "",
    save: Annotated[
        str, typer.Option("--write", help="A .csv file that gets what is safe to leave out, for study --exclude.")
    ] = "",
    backbone: Annotated[
        str,
        typer.Option(
            help="Networks that look at the photos: A or A+B; if none is named, MobileNetV2 at a study's image size."
        ),
    ] = "",
    weights: Weights = "",
    image_size: ImageSize = 0,
    engine: Engine = "auto",
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find what is wrong with the photos: broken files, duplicates, label errors, shortcuts. No photo is changed."""
    from frostline.cache import marks, upkeep
    from frostline.checks.check import check as look
    from frostline.checks.examine import NETWORKS
    from frostline.checks.kinds import KINDS
    from frostline.config import SAMPLE
    from frostline.photos.corrections import Decision
    from frostline.photos.corrections import write as write_list
    from frostline.reports.check_page import write

    if weights and not backbone:
        raise ConfigError(f"--weights {weights}: name the network that they are of with --backbone")
    if save and Path(save).suffix.lower() != ".csv":
        raise ConfigError(f"--write {save}: expected a name that ends in .csv")
    name = Path(data).resolve().stem if data else "sample"
    folder = Path(out) if out else Path("runs") / f"{name}-check"
    with progress_bar(quiet) as progress, marks.session():
        document = look(
            data or SAMPLE,
            backbone=backbone or NETWORKS,
            weights=weights,
            image_size=image_size,
            engine=engine,
            seed=seed,
            progress=progress,
        )
        write(folder, document, KINDS)
    upkeep.trim()
    if save:
        write_list(Path(save), [Decision(**row) for row in document["decisions"]])
    show(document, as_json, quiet, lambda: _print_check(document, folder, save))


def _print_check(document: Check, folder: Path, save: str, shown: int = 10) -> None:
    from itertools import groupby

    from frostline.checks.kinds import KINDS
    from frostline.photos.names import printable

    for kind, rows in groupby(document["findings"], key=lambda f: f["kind"]):
        found = list(rows)
        line(f"{KINDS[kind].title} ({len(found):,}). {KINDS[kind].advice}")
        for f in found[:shown]:
            where = " = ".join(printable(p) for p in f["paths"][:4]) or ", ".join(printable(c) for c in f["classes"])
            more = f" and {len(f['paths']) - 4:,} more" if len(f["paths"]) > 4 else ""
            change = f": likely {printable(f['suggested'])}" if f["suggested"] and kind != "hard" else ""
            why = f" ({f['detail']})" if f["detail"] else ""
            line(f"  {f['confidence']:.2f}  {where}{more}{change}{why}")
        if len(found) > shown:
            line(f"  ... and {len(found) - shown:,} more, in check.csv and check.html")
    for text in [*document["lines"], *(f"Not checked: {note}" for note in document["notes"])]:
        line(text)
    if save:
        line(f"To leave out: {len(document['decisions']):,} photos, in {save}")
    line(f"Report: {folder / 'check.html'}")


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
        require(seed=seed)
        _render(folder, per_class, seed, as_json, quiet)
        return
    if name not in public_sets.KNOWN:
        raise ConfigError(f"unknown data set '{name}'{nearest(name, ['sample', *public_sets.KNOWN])}")
    with progress_bar(quiet) as progress:
        fetched = public_sets.fetch(public_sets.KNOWN[name], Path(folder), url=url, progress=progress)
    show(fetched, as_json, quiet, lambda: _print_fetched(fetched, folder))


def _print_fetched(fetched: Mapping[str, Any], folder: str) -> None:
    counts = ", ".join(f"{label} {count:,}" for label, count in fetched["classes"].items())
    typer.echo(f"{folder}: {fetched['photos']:,} photos ({counts})")
    print_skipped(fetched["left_out"])
    typer.echo(f"Licence: {fetched['licence_text'] or fetched['licence']} ({fetched['licence_file']})")


def _render(folder: str, per_class: int, seed: int, as_json: bool, quiet: bool) -> None:
    from frostline.photos import sample

    with progress_bar(quiet) as progress:
        task = progress.task("Rendering", 5 * per_class)
        sample.render(Path(folder), per_class=per_class, seed=seed, on_step=lambda _done, _total: task.advance(1))
    words = f"{folder}: rendered by code, no real photos"
    show({"folder": folder, "rendered": True}, as_json, quiet, lambda: typer.echo(words))
