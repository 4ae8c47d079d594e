"""The options of the commands. Those of a run come from `frostline.config`: a new one is said there alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal, get_origin, get_type_hints

import typer

from frostline.config import EngineKind, settings
from frostline.fields import Field

PHOTOS = (
    "Folder of class folders, or with train/ and test/; table (CSV, TSV, JSON lines, Parquet: "
    "path,label[,split][,group]); archive (zip, tar); data set saved by Hugging Face's datasets"
)
"""The forms that photos may have."""

_HELP = {name: field.help for name, field in settings().items()}

Json = Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout, all else on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, no words; errors only.")]
Seed = Annotated[int, typer.Option(help=_HELP["seed"])]
Weights = Annotated[str, typer.Option(help=_HELP["weights"])]
ImageSize = Annotated[int, typer.Option(help=_HELP["image_size"])]
Engine = Annotated[EngineKind, typer.Option(help=_HELP["engine"], parser=str)]  # the library checks the choice
Prior = Annotated[
    str,
    typer.Option(
        help="How often each class is expected: train, equal, estimate (from these photos), rose=0.7,tulip=0.3 or a "
        "CSV (class,share). Default: as trained."
    ),
]


# ---- the options of every command that leaves a run folder -----------------------------------------------------------


@dataclass(frozen=True)
class RunOptions:
    """What was asked of a command that leaves a run folder."""

    context: typer.Context
    data: Annotated[str, typer.Argument(help=f"{PHOTOS}. None: built-in sample.")] = ""
    out: Annotated[str, typer.Option("--out", help="Run folder. Default: runs/NAME.")] = ""
    configuration: Mapping[str, Any] = field(default_factory=dict)
    """What `frostline.configure` takes: here stand a command's own options, then those of the configuration."""
    cache_limit: Annotated[
        str,
        typer.Option(
            help="What the cache may hold, e.g. 20GB; stores unused for longest go. Default: FROSTLINE_CACHE_LIMIT."
        ),
    ] = ""
    settings: Annotated[
        str, typer.Option("--config", help="A run's config.toml, in place of all options but --out.")
    ] = ""
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")] = False
    as_json: Json = False
    quiet: Quiet = False


def run_options(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a run, which come to it as one `RunOptions`, its first parameter.

    The options are the fields of `RunOptions` and all settings of the configuration, less those in `without`. The other
    parameters of the command are options of its own; one that is named like a setting takes its place.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = dict(list(inspect.signature(command, eval_str=True).parameters.items())[1:])
        taken = [name for name in settings() if name not in own and name not in without]
        shared = [name for name in _SHARED if name not in without and name != "context"]

        def run(**values: Any) -> None:
            configuration = {name: values.pop(name) for name in taken}
            asked = RunOptions(values.pop("context"), configuration=configuration, **{n: values.pop(n) for n in shared})
            command(asked, **values)

        place = shared.index("out") + 1
        listed = [_SHARED[name] for name in ("context", *shared[:place])] + list(own.values())
        listed += [_parameter(name, settings()[name]) for name in taken] + [_SHARED[name] for name in shared[place:]]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        signature = inspect.Signature([p.replace(kind=p.KEYWORD_ONLY) for p in listed])
        run.__signature__ = signature  # type: ignore[attr-defined]
        return run

    return decorate


def _parameter(name: str, field: Field) -> inspect.Parameter:
    """A setting as typer takes it. Choices and lists are text here: the configuration checks them."""
    several = isinstance(field.default, tuple)
    kind = str if several or get_origin(field.hint) is Literal else field.hint
    default = ",".join(field.default) if several else field.default
    annotation = Annotated[kind, typer.Option(help=field.help)]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _shared() -> dict[str, inspect.Parameter]:
    """The fields of `RunOptions` that are options themselves."""
    hints = get_type_hints(RunOptions, include_extras=True)
    parameters = inspect.signature(RunOptions).parameters
    return {
        f.name: parameters[f.name].replace(annotation=hints[f.name])
        for f in fields(RunOptions)
        if f.name != "configuration"
    }


_SHARED = _shared()
