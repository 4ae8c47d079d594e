"""What the commands that leave a run folder share: its configuration and where it goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from frostline.errors import ConfigError

if TYPE_CHECKING:
    from frostline.config import Config
    from frostline.studies.run_folder import Existing


def given_options(context: typer.Context) -> list[str]:
    """The options that stand on the command line."""
    return [n for n in context.params if str(context.get_parameter_source(n)).endswith("COMMANDLINE")]


def limit_cache(size: str) -> None:
    """Like the folder itself, the limit belongs to the process and not to the run: it shapes no figure."""
    from frostline.cache import sizes

    if size:
        sizes.parse_size(size)
        os.environ[sizes.LIMIT_VARIABLE] = size


def configuration(context: typer.Context, data: str, out: str, settings: str, resume: bool, **options: Any) -> Config:
    """The configuration that the options make, or that a file holds; options that a file would overrule are refused."""
    from frostline.config import SAMPLE, Config, configure

    if not settings and not (resume and not data):
        return configure(data or SAMPLE, **options)
    file = Path(settings) if settings else settings_in(out)
    why = "--config" if settings else "--resume without DATA"
    if not settings and not (out and file.exists()):
        raise ConfigError(
            f"--resume: {out or 'no --out given, so it'} holds no run to go on with; give DATA to begin one"
        )
    free = {"out", "resume", "overwrite", "settings", "seeds", "cache_limit", "as_json", "quiet", "photos", "repeats"}
    if given := [n for n in given_options(context) if n not in free]:
        names = ", ".join("DATA" if n == "data" else "--" + n.replace("_", "-") for n in given)
        raise ConfigError(f"{names} can't be given with {why}: {file} says everything")
    return Config.from_toml(file)


def settings_in(out: str) -> Path:
    """The config.toml of a run folder, or of the first of its seeds."""
    from frostline.reports import seeds_page
    from frostline.studies import seeds

    return seeds.settings(Path(out)) if out and (Path(out) / seeds_page.FILE).exists() else Path(out) / "config.toml"


def existing_run(resume: bool, overwrite: bool) -> Existing:
    """What to do where the run folder holds a run already."""
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other: give one of them")
    return "resume" if resume else "overwrite" if overwrite else "refuse"


def run_folder(config: Config, out: str, existing: Existing) -> Path:
    """The folder that --out names, or runs/NAME."""
    from frostline.config import SAMPLE

    name = "sample" if config.data == SAMPLE else Path(config.data).resolve().stem.removesuffix(".tar")
    return Path(out) if out else unused(Path("runs") / name, existing)


def unused(run: Path, existing: Existing) -> Path:
    """`run`, or `run`-2, -3, ... so that a study without --out never meets an older one."""
    if existing != "refuse" or not run.exists():
        return run
    return next(p for n in range(2, 10**6) if not (p := run.with_name(f"{run.name}-{n}")).exists())
