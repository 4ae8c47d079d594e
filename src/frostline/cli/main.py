"""The command line: a thin map from verbs to library functions. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import gc
import io
import os
import sys
from typing import Annotated

import typer

import frostline
from frostline.cli.export import bench, export, push
from frostline.cli.photos import check, data
from frostline.cli.predict import evaluate, explain, predict
from frostline.cli.report import compare, report
from frostline.cli.resources import backbones, cache, weights
from frostline.cli.runs import resumable
from frostline.cli.serve import serve
from frostline.cli.study import fit, robustness, study
from frostline.cli.sweep import sweep
from frostline.errors import FrostlineError

COMMANDS = (
    check,
    study,
    fit,
    sweep,
    robustness,
    predict,
    explain,
    evaluate,
    export,
    bench,
    push,
    serve,
    report,
    compare,
    backbones,
    weights,
    cache,
    data,
)
"""In the order in which --help lists them. A new command is a function in a file of this folder, and a line here."""

app = typer.Typer(
    help="Train from scratch, freeze a pretrained network, or fine-tune its upper layers? Measured on your own photos.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in COMMANDS:
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"frostline {frostline.__version__}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
) -> None:
    pass


STOPPED = 130
"""Exit status after Ctrl-C, as shells have it."""


def run() -> None:
    """`main` for a process of its own.

    At its end Python looks through all objects that are left, a second after a study: `gc.freeze` avoids it.
    """
    try:
        main()
    finally:
        gc.freeze()


def main() -> None:
    """Run the command line: a user's mistake is one line on stderr and exit 1, Ctrl-C is exit 130."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = app(standalone_mode=False)
    except FrostlineError as error:
        _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        status = STOPPED
    except BrokenPipeError:  # the reader of stdout has had enough
        sys.stdout = None
        sys.exit(0)
    except OSError as error:
        _fail(_refusal(error))
    except Exception as error:
        if not type(error).__module__.startswith(("click", "typer")):
            raise
        words = error.format_message() if hasattr(error, "format_message") else str(error)
        _fail(words, code=2)
    if status == STOPPED:  # typer's own answer to Ctrl-C inside a command
        hint = "; nothing that was finished is lost: go on with --resume" if resumable() else ""
        print(f"stopped{hint}", file=sys.stderr)  # noqa: T201
    sys.exit(status if isinstance(status, int) else 0)


def _refusal(error: OSError) -> str:
    """What the operating system would not do, and with which file where that is known."""
    from frostline.photos.names import printable

    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        return f"the system refused to read or write: {reason}"
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
    return f"can't read or write {printable(name)}: {reason}"


def _fail(message: str, code: int = 1) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    sys.exit(code)
