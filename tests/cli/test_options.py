"""The options of the commands: said once, in the configuration, and checked alike by every command that has one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from frostline.cli.options import RunOptions, run_options
from frostline.config import Config, configure, settings
from frostline.recipes import strategy
from support.commands import call, must
from support.photos import write_folder

FLAGS = {"out", "cache-limit", "config", "resume", "overwrite", "json", "quiet", "help"}
SETTINGS = {name.replace("_", "-") for name in settings()}


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("study", FLAGS | SETTINGS | {"seeds"}),
        ("fit", FLAGS - {"config"} | SETTINGS - {"strategies", "robustness", "learning-curve"} | {"strategy"}),
        ("sweep", FLAGS | SETTINGS - {"explain", "robustness", "learning-curve"} | {"lines", "photos", "repeats"}),
    ],
)
def test_every_setting_is_an_option(command: str, options: set[str]) -> None:
    assert set(re.findall(r"^  --([a-z-]+) ", must(command, "--help").out, re.MULTILINE)) == options


def test_help_shows_a_settings_own_text_and_default() -> None:
    shown = " ".join(must("study", "--help").out.split())
    for name, setting in settings().items():
        assert re.sub(r"\s+", "", setting.help) in re.sub(r"\s+", "", shown), name
    for default in ("balanced", "float16", "baseline,frozen,fine-tuned"):
        assert f"[default:{default}]" in re.sub(r"\s+", "", shown)


def asked(*arguments: str, without: tuple[str, ...] = ()) -> tuple[RunOptions, dict[str, Any]]:
    """What a command with the options of a run, two of its own and less those in `without` is called with."""
    found: list[tuple[RunOptions, dict[str, Any]]] = []
    app = typer.Typer()

    @app.command()
    @run_options(*without)
    def command(
        asked: RunOptions,
        extra: Annotated[int, typer.Option(help="One of its own.")] = 1,
        twins: Annotated[str, typer.Option(help="In a setting's place.")] = "own",
    ) -> None:
        """A command."""
        found.append((asked, {"extra": extra, "twins": twins}))

    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return found[0]


def test_without_options_a_command_is_called_with_the_defaults_of_the_configuration() -> None:
    run, own = asked()
    assert (run.data, run.out, run.resume, own) == ("", "", False, {"extra": 1, "twins": "own"})
    assert configure("photos", **run.configuration) == configure("photos")


def test_options_reach_the_command_in_three_groups() -> None:
    run, own = asked("photos", "--seed", "3", "--extra", "2", "--twins", "x", "--strategies", "frozen", "--quiet")
    assert (run.data, run.quiet, own) == ("photos", True, {"extra": 2, "twins": "x"})
    assert configure("photos", **run.configuration) == configure("photos", seed=3, strategies=["frozen"])


def test_an_option_left_out_of_a_command_keeps_its_default() -> None:
    run, _ = asked(without=("settings", "robustness"))
    assert run.settings == ""
    assert "robustness" not in run.configuration


# ---- checks ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("good"), ["rose", "tulip"], 4)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--engine", "onx", "unknown engine 'onx'; did you mean 'onnx'?"),
        ("--image-size", "8", "image size 8: expected 32 to 1024 pixels, or 0 for the network's own"),
        ("--seed", "-1", "seed -1: expected 0 or more"),
    ],
)
@pytest.mark.parametrize("command", ["study", "fit", "sweep", "check"])
def test_an_option_is_checked_alike_by_every_command(
    good: Path, tmp_path: Path, command: str, option: str, value: str, says: str
) -> None:
    assert says in call(command, good, "--out", tmp_path / "out", option, value).error
    assert not (tmp_path / "out").exists()


def test_the_sample_takes_no_negative_seed(tmp_path: Path) -> None:
    error = call("data", "sample", tmp_path / "x", "--per-class", "1", "--seed", "-1").error
    assert error == "error: seed -1: expected 0 or more"


@pytest.mark.parametrize("command", ["study", "sweep"])
def test_options_that_a_file_would_overrule_are_refused(tmp_path: Path, command: str) -> None:
    file = tmp_path / "config.toml"
    Config("photos", (strategy("frozen"),)).to_toml(file)
    given = call(command, "photos", "--config", file, "--seed", "3", "--image-size", "64", "--quiet").error
    assert "--seed, --image-size, DATA can't be given with --config" in given
    assert f"{file} says everything" in given
    resumed = call(command, "--out", tmp_path, "--resume", "--epochs", "3").error
    assert "--epochs can't be given with --resume without DATA" in resumed


def test_there_must_be_a_run_to_go_on_with(tmp_path: Path) -> None:
    assert "no --out given, so it holds no run to go on with; give DATA" in call("study", "--resume").error
    assert f"--resume: {tmp_path} holds no run" in call("study", "--resume", "--out", tmp_path).error
