"""The commands that use a bundle on photos: predict, explain, evaluate."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frostline import wording
from frostline.cli.console import cell, line, print_skipped, print_table, progress_bar, right_aligned, show, table
from frostline.cli.options import PHOTOS, Engine, Json, Prior, Quiet
from frostline.errors import ConfigError

if TYPE_CHECKING:
    from frostline.bundles.bundle import Bundle
    from frostline.bundles.prediction_files import KeptRows, RowFormat, RowWriter
    from frostline.documents.shared import Skipped
    from frostline.progress import Progress

Model = Annotated[str, typer.Argument(help="Bundle folder, e.g. runs/flowers/frozen/bundle.")]
Photos = Annotated[list[str] | None, typer.Argument(help="Files or folders; '-' or nothing: a list on stdin.")]


def predict(
    bundle: Model,
    photos: Photos = None,
    out: Annotated[
        str, typer.Option("--out", help="A .csv, .jsonl or .parquet file, as its name says; default: CSV on stdout.")
    ] = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the rows that a stopped run left beside --out.")
    ] = False,
    top: Annotated[
        int, typer.Option(min=0, help="Name so many of the likeliest classes, each with its confidence.")
    ] = 0,
    precision: Annotated[
        float | None,
        typer.Option(
            help="Mark answers as unsure so that this share of the others is correct, e.g. 0.95 (as measured on the "
            "validation set)."
        ),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Mark answers of less confidence as unsure, e.g. 0.7.")
    ] = None,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="The list on stdin is separated by zero bytes (find -print0).")
    ] = False,
    engine: Engine = "auto",
    prior: Prior = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON lines on stdout; with --out a summary of it, photos left out included.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress, no words; photos left out are still listed on stderr.")
    ] = False,
) -> None:
    """Classify photos: a row each, bad files listed on stderr.

    The file in --out appears whole at the end; --resume goes on with a stopped run.
    """
    from frostline.bundles import prediction_files
    from frostline.bundles.bundle import load

    _check_predict(out, resume, precision, threshold, prior)
    prediction_files.check(out)
    model = load(bundle, engine)
    form = _form(model, top, precision, threshold, quiet)
    paths = _paths(photos, null)
    with (
        progress_bar(quiet) as progress,
        prediction_files.opened(out, form, nested=as_json, resume=resume) as (sink, kept),
    ):
        prediction_files.check_same(kept, model, prior, out)
        classified, left_out = _classify(model, paths, prior, kept, sink, progress, list_them=as_json and bool(out))
    if as_json and out:
        summary = {"out": out, "classified": classified, "skipped": left_out}
        typer.echo(json.dumps(summary | ({"kept": len(kept)} if resume else {}), ensure_ascii=False))


def _classify(
    model: Bundle,
    paths: Iterable[str],
    prior: str,
    kept: KeptRows,
    sink: RowWriter,
    progress: Progress,
    *,
    list_them: bool,
) -> tuple[int, list[Skipped]]:
    """Write a row for each photo that is not `kept`; returns how many, and the files left out if `list_them`."""
    from frostline.bundles.predict import predict as classify
    from frostline.errors import DataError
    from frostline.photos.manifest import Skip
    from frostline.photos.names import printable

    classified = skipped = 0
    left_out: list[Skipped] = []
    task = progress.task("Classifying")
    for result in classify(model, paths, prior=prior, on_photo=lambda: task.advance(1), known=kept):
        if isinstance(result, Skip):
            skipped += 1
            typer.echo(f"skipped {printable(result.path)}: {result.why}", err=True)
            if list_them:
                left_out.append({"path": printable(result.path), "why": result.why})
        else:
            classified += 1
            sink.write(result)
    task.finish()
    if counts := [f"{n} {what}" for n, what in ((len(kept), "kept"), (skipped, "left out")) if n]:
        progress.say(", ".join(counts))
    if not classified and not kept:  # raised before the file is moved to its place: one that stood at --out stays
        came = f"all {skipped} left out, as listed above" if skipped else "there are none in what was given"
        raise DataError(f"no photo was classified: {came}; name photos, or folders that hold some")
    return classified, left_out


def _check_predict(out: str, resume: bool, precision: float | None, threshold: float | None, prior: str) -> None:
    if resume and not out:
        raise ConfigError("--resume needs --out: the file whose rows are to be kept")
    if resume and prior == "estimate":
        raise ConfigError("--prior estimate needs all photos at once, so it can't go on with some: leave out --resume")
    if precision is not None and threshold is not None:
        raise ConfigError("--precision and --threshold exclude each other: give one of them")
    if precision is not None and prior:
        raise ConfigError("--precision was measured without --prior: give --threshold with it")


def _form(model: Bundle, top: int, precision: float | None, threshold: float | None, quiet: bool) -> RowFormat:
    from frostline.bundles.prediction_files import RowFormat
    from frostline.stats import thresholds

    if precision is not None:
        row = thresholds.for_precision(model.about.thresholds, precision)
        threshold = row["threshold"]
        if not quiet:
            typer.echo(
                f"unsure below {threshold:.4f}: {wording.percent(row['kept'])} of the validation photos are above it, "
                f"{wording.percent(row['right'])} of those correct (at least {wording.percent(row['lower'])} with 95 % "
                "confidence)",
                err=True,
            )
    return RowFormat(model.classes, top, threshold)


def _paths(photos: list[str] | None, null: bool) -> Iterable[str]:
    from frostline.bundles import prediction_files

    if photos and photos != ["-"]:
        if null:
            raise ConfigError("--null is for a list on stdin: leave it out, or the photos")
        return photos
    if sys.stdin.isatty():
        raise ConfigError("no photos given: name files or folders, or pipe a list of paths to stdin")
    return prediction_files.listed(sys.stdin, nul=null)


def explain(
    bundle: Model,
    photos: Annotated[list[str], typer.Argument(help="Files or folders.")],
    out: Annotated[str, typer.Option("--out", help="Folder for the pictures.")],
    name: Annotated[
        str,
        typer.Option(
            "--class",
            help="Ask about this class. Default: the predicted one, and the true one where a folder tells it.",
        ),
    ] = "",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show where in photos the model saw a class: heat maps laid over them, and explanations.json."""
    from frostline.bundles.bundle import load
    from frostline.evidence.explanations import pictures

    with progress_bar(quiet) as progress:
        document = pictures(load(bundle), photos, Path(out), name, progress)
    for skip in document["skipped"]:
        typer.echo(f"skipped {skip['path']}: {skip['why']}", err=True)
    columns = {"photo": "path", "predicted": "predicted", "true": "true", "pictures": "pictures"}
    rows = [{title: photo[key] for title, key in columns.items()} for photo in document["photos"]]
    show(document, as_json, quiet, lambda: table(rows))


def evaluate(
    bundle: Annotated[str, typer.Argument(help="Bundle folder.")],
    data: Annotated[str, typer.Argument(help=f"Labelled photos. {PHOTOS}.")],
    out: Annotated[str, typer.Option("--out", help="Write the predictions to this .csv file.")] = "",
    prior: Prior = "",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a bundle on labelled photos."""
    from frostline.bundles.bundle import load
    from frostline.bundles.predict import evaluate_on
    from frostline.stats.predictions import write_predictions

    model = load(bundle)
    with progress_bar(quiet) as progress:
        figures, predictions, skipped = evaluate_on(model, Path(data), progress, prior=prior)
    if out:
        write_predictions(Path(out), predictions, model.classes)
    listed: list[Skipped] = [{"path": s.path, "why": s.why} for s in skipped]
    count = figures.get("unseen") or len(predictions)  # what the figures are of
    document = {"photos": count, **figures, "skipped": listed}
    show(document, as_json, quiet, lambda: _print_figures(figures, count, listed))


def _print_figures(figures: Mapping[str, Any], count: int, skipped: Sequence[Skipped]) -> None:
    from frostline.stats.class_balance import unequal

    headline = wording.headline(figures, unequal(row["support"] for row in figures["per_class"]))
    error = wording.decimal(figures["calibration_error"])
    more = f"macro F1 {figures['macro_f1']:.3f}, calibration error {error}"
    line(f"{headline} on {count:,} photos; {more}")
    if "seen_words" in figures:
        line(figures["seen_words"])
    if "reported_groups" in figures:
        line(figures["reported_groups"]["words"])
    if "prior" in figures:
        shares = ", ".join(f"{name} {wording.percent(share)}" for name, share in figures["prior"].items())
        line(f"Class shares assumed: {shares}")
    shown = right_aligned("class", "precision", "recall", "F1", "photos")
    for row in figures["per_class"]:
        of_class = (wording.decimal(row[k]) for k in ("precision", "recall", "f1"))
        shown.add_row(cell(row["class"]), *of_class, wording.count(row["support"]))
    print_table(shown)
    if unmeasured := [cell(row["class"]) for row in figures["per_class"] if not row["support"]]:
        line(f"No photos of {', '.join(unmeasured)}: nothing was measured of that class.")
    print_skipped(skipped)
