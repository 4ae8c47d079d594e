"""The commands that tell what there is: backbones, weights, and the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frostline.cli.console import cell, line, print_table, progress_bar, right_aligned, show
from frostline.cli.options import Json, Quiet
from frostline.errors import ConfigError
from frostline.networks.licences import licence

if TYPE_CHECKING:
    from frostline.cache.contents import Entry


def backbones(
    find: Annotated[
        str, typer.Argument(help="Part of a name: lists all networks that have it. None: the short list.")
    ] = "",
    speed: Annotated[
        bool, typer.Option("--speed", help="Measure how many photos/s each takes here, some seconds each; it is kept.")
    ] = False,
    layers: Annotated[
        bool, typer.Option("--layers", help="Count each network's layers, a second or more each; it is kept.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List networks worth knowing, or find others among timm's."""
    from frostline.networks.catalogue import listing

    with progress_bar(quiet) as progress:
        rows = listing(find, speed=speed, layers=layers, progress=progress)
    show(rows, as_json, quiet, lambda: _print_found(rows) if find else _print_short_list(rows))


def _print_short_list(rows: list[dict[str, Any]]) -> None:
    """The short list in 80 columns; small_cnn, which has no published weights, is told in a line."""
    named = [row for row in rows if row["tag"]]
    shown = right_aligned("network", "photos", "GMACs", "ImageNet", *_measured(named))
    shown.columns[0].no_wrap = True
    for title in ("pretrained on", "licence of weights"):
        shown.add_column(title)
    for row in named:
        figures = [f"{row['gmacs']:.2f}", row["imagenet"] and f"{row['imagenet']:.1f}"]
        found = [cell(row[key] if key != "photos_per_second" else _rate(row)) for key in _measured(named).values()]
        title = licence(row["licence"]).title
        cells = [row["photos"].partition(" ")[0], *map(cell, figures), *found, row["pretrained_on"], title]
        shown.add_row(_in_two(row["name"]), *cells)
    print_table(shown)
    at_hand = [row["name"] for row in named if row["weights"] == "in the cache"]
    line("photos: side, pixels. GMACs: thousand million multiply-adds for a photo.")
    line("ImageNet: published accuracy, percent (sources: --json); -: none found.")
    line(f"Weights at hand: {', '.join(at_hand) or 'none'}.")
    line("'frostline weights NAME' fetches others, 'frostline backbones FIND' searches")
    line("all of timm's names, --speed measures photos/s here, --layers counts layers.")


def _print_found(rows: list[dict[str, Any]]) -> None:
    shown = right_aligned("network", "photos", "parameters", *_measured(rows))
    shown.columns[0].no_wrap = True
    for title in ("weights", "licence"):
        shown.add_column(title)
    for row in rows:
        figures = [(row["photos"] or "-").partition(" ")[0], cell(row["parameters"])]
        figures += [cell(row[key] if key != "photos_per_second" else _rate(row)) for key in _measured(rows).values()]
        shown.add_row(_in_two(row["name"]), *figures, row["weights"], cell(row["licence"]))
    print_table(shown)


def _measured(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Columns that are shown where any row has a value: title, key."""
    columns = {"photos/s": "photos_per_second", "layers": "layers", "whole blocks": "blocks"}
    return {title: key for title, key in columns.items() if any(row[key] for row in rows)}


def _rate(row: dict[str, Any]) -> str:
    return "" if row["photos_per_second"] is None else f"{row['photos_per_second']:.0f}"


def _in_two(name: str) -> str:
    """The weights of a long name on a line of their own."""
    return name.replace(".", "\n.") if len(name) > 26 else name


def weights(
    name: Annotated[str, typer.Argument(help="Network whose weights to fetch now; none: list what is at hand.")] = "",
    path: Annotated[str, typer.Option(help="A file with the weights, to check and keep.")] = "",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List published weights and where they come from, or fetch some ahead of time."""
    from frostline.networks import weights as known

    if path and not name:
        raise ConfigError(f"--path {path}: name the backbone whose weights it holds (known: {', '.join(known.KNOWN)})")
    if name and name not in known.KNOWN:
        rows = [_weights_of_timm(name, path, quiet)]
    else:
        if path:
            known.keep(known.KNOWN[name], Path(path))
        elif name:
            with progress_bar(quiet) as progress:
                known.fetch(known.KNOWN[name], progress=progress)
        rows = [known.status(spec) for key, spec in known.KNOWN.items() if not name or key == name]
        rows += [] if name else _kept_of_timm()
    show(rows, as_json, quiet, lambda: _print_weights(rows, whole=bool(name)), default=str)


def _print_weights(rows: list[dict[str, Any]], *, whole: bool) -> None:
    """One network's weights with all that is known of them, or a table of several that fits 80 columns."""
    if whole:
        for key, value in rows[0].items():
            line(f"{key}: {cell(value)}")
        return
    shown = right_aligned("network", "MB", "at hand")
    shown.columns[0].no_wrap = True
    for title in ("licence", "from"):
        shown.add_column(title)
    for row in rows:
        size = "-" if row["size"] is None else f"{row['size'] / 1e6:.0f}"
        title = licence(row["licence"] or "").title
        shown.add_row(_in_two(row["name"]), size, row["cached"], title, cell(row["sources"]))
    print_table(shown)


def _kept_of_timm() -> list[dict[str, Any]]:
    """Other networks whose weights are at hand."""
    from frostline.networks import timm_names, timm_weights
    from frostline.networks.weights import KNOWN

    hubs = {name: timm_names.facts(name).hub for name in timm_names.names() if name not in KNOWN}
    return [timm_weights.status(name, hub) for name, hub in hubs.items() if timm_weights.is_here(name, hub)]


def _weights_of_timm(name: str, path: str, quiet: bool) -> dict[str, Any]:
    """Fetch, or check and keep, the weights of one of timm's networks; returns what a listing shows."""
    from frostline.networks import backbone, timm_weights

    about = backbone.info(name)
    if about.home != "timm":
        raise ConfigError(f"{name}: expected one network with published weights")
    if path:
        backbone.checked(about, Path(path))
        timm_weights.keep(name, Path(path))
    else:
        with progress_bar(quiet) as progress:
            timm_weights.fetch(name, about.hub, progress)
    return timm_weights.status(name, about.hub)


def cache(
    action: Annotated[str, typer.Argument(help="list, or clear: remove what no process is using.")] = "list",
    kind: Annotated[
        str,
        typer.Option(
            help="Comma-separated: activations, engines, photos, downloads, weights, sample. Default: all; clear: the "
            "first three."
        ),
    ] = "",
    older_than: Annotated[float | None, typer.Option(help="Only what was not used for so many days.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List what the cache folder holds, or clear it: all of it can be had again, at the cost of time."""
    from frostline.cache import contents, sizes, upkeep
    from frostline.cache.folder import cache_dir
    from frostline.errors import nearest

    if action not in ("list", "clear"):
        raise ConfigError(f"unknown action '{action}'{nearest(action, ['list', 'clear'])}")
    kinds = [k.strip() for k in kind.split(",") if k.strip()]
    result: dict[str, Any] = {"folder": str(cache_dir())}
    if action == "clear":
        removed, kept = upkeep.clear(kinds or contents.COMPUTED, older_than)
        result |= {"freed": sum(e.bytes for e in removed), "removed": _named(removed), "kept": _named(kept)}
    else:
        found = contents.older_than(contents.entries(kinds or contents.KINDS), older_than)
        result |= {"limit": sizes.limit(), "bytes": sum(e.bytes for e in found), "entries": _named(found)}
    in_words = _print_cleared if action == "clear" else _print_cache
    show(result, as_json, quiet, lambda: in_words(result), default=contents.Entry.to_dict)


def _named(entries: list[Entry]) -> list[Entry]:
    """The same, weights by the name of their network where it is known."""
    from frostline.networks.weights import KNOWN

    names = {spec.filename: name for name, spec in KNOWN.items()}
    return [
        replace(e, what=e.what.replace("weights", names.get(e.name, "weights"))) if e.kind == "weights" else e
        for e in entries
    ]


def _print_cleared(result: Mapping[str, Any]) -> None:
    from frostline.cache.sizes import readable

    typer.echo(f"freed {readable(result['freed'])} in {result['folder']}: {_counted(result['removed'])}")
    for entry in result["kept"]:
        typer.echo(f"kept, in use: {entry.what} ({readable(entry.bytes)})")


def _print_cache(result: Mapping[str, Any]) -> None:
    from frostline.cache.sizes import readable

    table = right_aligned("kind", "what", "rows", "size", "per row", "last used", "in use", wrapped=("what",))
    table.columns[1].justify = "left"
    for e in result["entries"]:
        sizes = [readable(e.bytes), "-" if e.bytes_per_row is None else readable(e.bytes_per_row)]
        table.add_row(
            e.kind, cell(e.what), cell(e.rows), *sizes, f"{e.used.astimezone():%Y-%m-%d %H:%M}", cell(e.in_use)
        )
    if result["entries"]:
        print_table(table)
    limit = "no limit" if result["limit"] is None else f"limit {readable(result['limit'])}"
    typer.echo(f"{_counted(result['entries'])}, {readable(result['bytes'])} in {result['folder']} ({limit})")


def _counted(entries: Sequence[Entry]) -> str:
    return f"{len(entries)} entr{'y' if len(entries) == 1 else 'ies'}"
