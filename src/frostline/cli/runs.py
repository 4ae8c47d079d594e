"""What the commands that leave a run folder share: the configuration of the run, and where it goes."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from frostline.cli.options import RunOptions
from frostline.config import SAMPLE, Config, configure
from frostline.errors import ConfigError

if TYPE_CHECKING:
    from frostline.progress import Progress
    from frostline.studies.run_folder import Existing


def given_options(context: typer.Context) -> list[str]:
    """The options that stand on the command line, by parameter."""
    return [n for n in context.params if str(context.get_parameter_source(n)).endswith("COMMANDLINE")]


def limit_cache(size: str) -> None:
    """Set the limit of the cache for this process. It is no part of the run: it changes no figure."""
    from frostline.cache import sizes

    if size:
        sizes.parse_size(size)
        os.environ[sizes.LIMIT_VARIABLE] = size


def from_file(asked: RunOptions) -> bool:
    """Whether a file says what to run (`--config`, or `--resume` without DATA), not the options."""
    return bool(asked.settings) or (asked.resume and not asked.data)


def configuration(asked: RunOptions, free: Collection[str] = ()) -> Config:
    """The configuration that the options make, or that a file holds.

    Options that a file would overrule are refused; `free` are a command's own options that go with a file.

    Raises
    ------
    ConfigError
        An option, or the file, can't be used.
    """
    if not from_file(asked):
        return configure(asked.data or SAMPLE, **asked.configuration)
    file = Path(asked.settings) if asked.settings else settings_in(asked.out)
    if not asked.settings and not (asked.out and file.exists()):
        raise ConfigError(
            f"--resume: {asked.out or 'no --out given, so it'} holds no run to go on with; give DATA to begin one"
        )
    free = {"out", "resume", "overwrite", "settings", "cache_limit", "as_json", "quiet", *free}
    if given := [n for n in given_options(asked.context) if n not in free]:
        names = ", ".join("DATA" if n == "data" else "--" + n.replace("_", "-") for n in given)
        why = "--config" if asked.settings else "--resume without DATA"
        raise ConfigError(f"{names} can't be given with {why}: {file} says everything")
    return Config.from_toml(file)


def settings_in(out: str) -> Path:
    """The config.toml of a run folder, or of the first of its seeds."""
    from frostline.reports import seeds_page
    from frostline.studies import seeds

    return seeds.settings(Path(out)) if out and (Path(out) / seeds_page.FILE).exists() else Path(out) / "config.toml"


def existing_run(asked: RunOptions) -> Existing:
    """What to do where the run folder holds a run already."""
    if asked.resume and asked.overwrite:
        raise ConfigError("--resume and --overwrite exclude each other: give one of them")
    return "resume" if asked.resume else "overwrite" if asked.overwrite else "refuse"


def run_folder(config: Config, asked: RunOptions, suffix: str = "") -> Path:
    """The folder that --out names, or runs/NAME with a `suffix`, which holds no run yet unless that is asked for."""
    if asked.out:
        return Path(asked.out)
    name = "sample" if config.data == SAMPLE else Path(config.data).resolve().stem.removesuffix(".tar")
    run = Path("runs") / f"{name}{suffix}"
    if existing_run(asked) != "refuse" or not run.exists():
        return run
    return next(p for n in range(2, 10**6) if not (p := run.with_name(f"{run.name}-{n}")).exists())


_announced: list[Path] = []


def resumable() -> bool:
    """Whether the run of this command, now stopped, has something to go on with: itself or one of its seeds began."""
    return any((run / "config.toml").exists() or any(run.glob("*/config.toml")) for run in _announced)


def announce(run: Path, progress: Progress) -> None:
    """Say where the run goes, and how to stop it and go on."""
    _announced[:] = [run]
    progress.say(f"Run folder {run}; stop with Ctrl-C, go on with --out {run} --resume")
