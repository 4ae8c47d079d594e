"""The commands that look at photos with a trained model: predict, explain."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from frostline.cli.console import console, print_skipped, progress_bar
from frostline.cli.options import PHOTOS, Engine, Json, Prior, Quiet
from frostline.errors import ConfigError

if TYPE_CHECKING:
    from frostline.bundles.bundle import Bundle
    from frostline.bundles.prediction_files import Form
    from frostline.documents.shared import Skipped

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
            help="Mark answers as unsure so that of the others this share is right, e.g. 0.95 (validation photos tell)."
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
    """Classify photos: a row each, bad files listed on stderr. A file appears whole at the end; --resume goes on with a stopped run."""
    from frostline.bundles import prediction_files
    from frostline.bundles.predict import predict as classify
    from frostline.errors import DataError
    from frostline.photos.manifest import Skip
    from frostline.photos.names import printable

    _check_predict(out, resume, precision, threshold, prior)
    prediction_files.check(out)
    model = _load(bundle, engine)
    form = _form(model, top, precision, threshold, quiet)
    paths = _paths(photos, null)
    classified = skipped = 0
    left_out: list[dict[str, str]] = []  # kept for the summary alone
    with (
        progress_bar(quiet) as progress,
        prediction_files.opened(out, form, nested=as_json, resume=resume) as (sink, kept),
    ):
        prediction_files.check_same(kept, model, prior, out)
        task = progress.task("Classifying")
        for result in classify(model, paths, prior=prior, on_photo=lambda: task.advance(1), known=kept):
            if isinstance(result, Skip):
                skipped += 1
                typer.echo(f"skipped {printable(result.path)}: {result.why}", err=True)
                if as_json and out:
                    left_out.append({"path": printable(result.path), "why": result.why})
            else:
                classified += 1
                sink.write(result)
        task.finish()
        if skipped or kept:
            progress.say(
                ", ".join([*([f"{len(kept)} kept"] if kept else []), *([f"{skipped} left out"] if skipped else [])])
            )
        if not classified and not kept:  # raised in here: a file that stood at --out stays
            came = f"all {skipped} left out, as listed above" if skipped else "there are none in what was given"
            raise DataError(f"no photo was classified: {came}; name photos, or folders that hold some")
    if as_json and out:
        summary: dict[str, Any] = {"out": out, "classified": classified, "skipped": left_out}
        typer.echo(json.dumps(summary | ({"kept": len(kept)} if resume else {}), ensure_ascii=False))


def _check_predict(out: str, resume: bool, precision: float | None, threshold: float | None, prior: str) -> None:
    if resume and not out:
        raise ConfigError("--resume needs --out: the file whose rows are to be kept")
    if resume and prior == "estimate":
        raise ConfigError("--prior estimate needs all photos at once, so it can't go on with some: leave out --resume")
    if precision is not None and threshold is not None:
        raise ConfigError("--precision and --threshold exclude each other: give one of them")
    if precision is not None and prior:
        raise ConfigError("--precision was measured without --prior: give --threshold with it")


def _load(bundle: str, engine: str) -> Bundle:
    from frostline.bundles.bundle import load
    from frostline.config import EngineKind
    from frostline.errors import nearest

    if engine not in get_args(EngineKind):
        raise ConfigError(f"unknown engine '{engine}'{nearest(engine, get_args(EngineKind))}")
    return load(bundle, engine)  # type: ignore[arg-type]


def _form(model: Bundle, top: int, precision: float | None, threshold: float | None, quiet: bool) -> Form:
    from frostline.bundles.prediction_files import Form
    from frostline.stats import thresholds

    if precision is not None:
        row = thresholds.for_precision(model.about.thresholds, precision)
        threshold = row["threshold"]
        if not quiet:
            typer.echo(
                f"unsure below {threshold:.4f}: {100 * row['kept']:.1f} % of the validation photos stand above, "
                f"{100 * row['right']:.1f} % of them right (at least {100 * row['lower']:.1f} % with 95 % confidence)",
                err=True,
            )
    return Form(model.classes, top, threshold)


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
    from frostline.cli.console import table
    from frostline.evidence.explanations import pictures

    with progress_bar(quiet) as progress:
        document = pictures(_load(bundle, "auto"), photos, Path(out), name, progress)
    for skip in document["skipped"]:
        typer.echo(f"skipped {skip['path']}: {skip['why']}", err=True)
    if as_json:
        typer.echo(json.dumps(document, ensure_ascii=False))
    elif not quiet:
        shown = [
            {"photo": p["path"], "predicted": p["predicted"], "true": p["true"], "pictures": p["pictures"]}
            for p in document["photos"]
        ]
        table(shown)


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
    if as_json:
        typer.echo(json.dumps({"photos": len(predictions), **figures, "skipped": listed}, ensure_ascii=False))
    elif not quiet:
        _print_figures(figures, len(predictions), listed)


def _print_figures(figures: dict[str, Any], count: int, skipped: list[Skipped]) -> None:
    from rich import box
    from rich.table import Table

    from frostline import wording
    from frostline.stats.class_balance import unequal

    screen = console()
    screen.print(
        f"{wording.headline(figures, unequal(row['support'] for row in figures['per_class']))} on {count:,} photos; "
        f"macro F1 {figures['macro_f1']:.3f}, calibration error {figures['ece_shipped']:.3f}"
    )
    if "prior" in figures:
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in figures["prior"].items())
        screen.print(f"Class shares assumed: {shares}", markup=False, soft_wrap=True)
    table = Table("class", "precision", "recall", "F1", "photos", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in figures["per_class"]:
        cells = (f"{row[k]:.3f}" for k in ("precision", "recall", "f1"))
        table.add_row(row["class"].replace("[", "\\["), *cells, str(row["support"]))
    screen.print(table)
    print_skipped(skipped, screen)
