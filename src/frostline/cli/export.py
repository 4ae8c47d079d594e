"""The commands that take a trained model elsewhere: export, bench, push."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from frostline import wording
from frostline.cli.console import accuracy_cells, line, print_table, progress_bar, right_aligned, show
from frostline.cli.options import Json, Quiet

if TYPE_CHECKING:
    from frostline.documents import Export

Bundle = Annotated[str, typer.Argument(help="Bundle folder, e.g. runs/flowers/frozen/bundle.")]


def export(
    bundle: Bundle,
    form: Annotated[str, typer.Option("--format", help="onnx, openvino, torch or litert.")] = "onnx",
    int8: Annotated[bool, typer.Option("--int8", help="Eight-bit integers, calibrated on training photos.")] = False,
    out: Annotated[str, typer.Option("--out", help="The artefact's folder. Default: beside the bundle.")] = "",
    data: Annotated[
        str,
        typer.Option(
            help="Labelled photos to prove it on. Default: photos of the bundle's run that it was not trained on."
        ),
    ] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the export in --out.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a model that runs without frostline, and prove that it says the same."""
    from frostline.exports.exporter import export as write

    with progress_bar(quiet) as progress:
        document = write(bundle, form, out or None, int8=int8, data=data, overwrite=overwrite, progress=progress)
    show(document, as_json, quiet, lambda: _print_proof(document))


def bench(
    bundle: Bundle,
    artefacts: Annotated[
        list[str] | None, typer.Argument(help="Folders of exports. Default: those beside the bundle.")
    ] = None,
    out: Annotated[str, typer.Option("--out", help="A folder for bench.json and bench.svg.")] = "",
    data: Annotated[
        str, typer.Option(help="Labelled photos. Default: photos of the bundle's run that it was not trained on.")
    ] = "",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure latency and throughput of a bundle and its exports on this machine."""
    from frostline.exports.benchmark import PICTURE
    from frostline.exports.benchmark import bench as measure

    with progress_bar(quiet) as progress:
        document = measure(bundle, artefacts or (), out or None, data=data, progress=progress)

    def in_words() -> None:
        shown = right_aligned("from file", "latency, ms", "95th percentile", "photos/s", "size, MB")
        for row in document["rows"]:
            times = (f"{row[k]:.1f}" for k in ("latency_ms", "latency_p95_ms"))
            shown.add_row(row["name"], *times, f"{row['throughput']:.0f}", f"{row['size_bytes'] / 1e6:.1f}")
        print_table(shown)
        if out:
            line(f"Picture: {out}/{PICTURE}")

    show(document, as_json, quiet, in_words)


def push(
    bundle: Bundle,
    repository: Annotated[str, typer.Argument(metavar="REPO", help="NAME or OWNER/NAME on the hub; made if need be.")],
    private: Annotated[
        bool, typer.Option("--private", help="For a repository that is made: only its owner sees it.")
    ] = False,
    token: Annotated[str, typer.Option(help="Access token. Default: HF_TOKEN, or what 'hf auth login' left.")] = "",
    accept_licence: Annotated[
        bool,
        typer.Option(
            "--accept-licence", help="You have read the licence of the weights it started from, and may pass them on."
        ),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Put a bundle with its card on a Hugging Face hub (HF_ENDPOINT names another one)."""
    from frostline.exports.hub import push as upload

    with progress_bar(quiet) as progress:
        document = upload(
            bundle, repository, private=private, token=token, accept_licence=accept_licence, progress=progress
        )
    show(document, as_json, quiet, lambda: line(f"{document['url']} holds {', '.join(document['files'])}"))


def _print_proof(document: Export) -> None:
    """The figures of a proof, the artefact beside the bundle."""
    shown = right_aligned("from file to label", "artefact", "bundle")
    accuracy, interval = accuracy_cells(document)
    shown.add_row("accuracy", accuracy, wording.percent(document["bundle_accuracy"]))
    shown.add_row("95 % CI", interval, "")
    shown.add_row("same label", wording.percent(document["agreement"]), "")
    shown.add_row("largest difference of a probability", f"{document['largest_difference']:.4f}", "")
    if here := document.get("as_run_here"):
        same, of_bundle = wording.percent(here["agreement"]), wording.percent(here["bundle_accuracy"])
        shown.add_row(f"same label, bundle on {here['engine']}", same, of_bundle)
    shown.add_row("size, MB", f"{document['size_bytes'] / 1e6:.1f}", f"{document['bundle_bytes'] / 1e6:.1f}")
    shown.add_row("latency, one decoded photo, ms (median)", f"{document['latency_ms']:.1f}", "")
    shown.add_row("photos/s, from file", f"{document['throughput']:.0f}", "")
    print_table(shown)
    name = f"{document['format']}{' in int8' if document['int8'] else ''}"
    line(f"Proved on {document['photos']:,} photos ({document['proved_on']}): {name}")
