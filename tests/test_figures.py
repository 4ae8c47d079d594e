"""Every figure in README.md and docs/*.md was measured by a command: it stands in docs/figures.toml, or it is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import figures

    return figures


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """README and docs, to be spoilt, with one block of figures whatever the real ones hold."""
    shutil.copy(ROOT / "README.md", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "docs" / "figures" / "one.md.j2").write_text('Frozen: {{ m.one["values"].accuracy | percent }}.\n')
    with (tmp_path / "README.md").open("a") as file:
        file.write("\n<!-- figures: one -->\n<!-- /figures -->\n")
    return tmp_path


@pytest.fixture
def recorded(figures: ModuleType, copy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(figures, "commit", lambda _: "0123abc")
    figures.record("one", "frostline study photos/", {"accuracy": 0.91234}, loads=[0.2], root=copy)
    assert list(figures.problems(copy)) == []
    return copy


def test_no_figure_of_readme_and_docs_was_measured_by_nobody(figures: ModuleType) -> None:
    assert list(figures.problems(ROOT)) == []


def test_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < 1500


PLANTED = {
    "Accuracy is 97.3 % on flowers.": "97.3 %",
    "A run takes 26 s.": "26 s",
    "It is ahead by +1.7 points.": "+1.7 points",
    "The calibration error is 0.099.": "0.099",
    "It serves 186 photos/s.": "186 photos/s",
    "It takes 415 MB.": "415 MB",
    "Five times as fast; really 3.4 times.": "3.4 times",
    "It was tried on 28,842 photos.": "28,842",
    "| frozen | 91.0 % (88.9 to 92.8) |": "91.0 %",
}


@pytest.mark.parametrize(("sentence", "figure"), PLANTED.items())
@pytest.mark.parametrize("document", ["README.md", "docs/guide.md"])
def test_a_figure_that_somebody_types_is_found(
    figures: ModuleType, recorded: Path, sentence: str, figure: str, document: str
) -> None:
    with (recorded / document).open("a", encoding="utf-8") as file:
        file.write(f"\n{sentence}\n")
    assert f"{document}: {figure} stands in no measurement" in list(figures.problems(recorded))


def test_a_figure_that_somebody_changes_in_a_block_is_found_and_made_good(figures: ModuleType, recorded: Path) -> None:
    readme = recorded / "README.md"
    assert "Frozen: 91.2 %." in readme.read_text(encoding="utf-8")
    readme.write_text(readme.read_text(encoding="utf-8").replace("91.2 %", "93.2 %"), encoding="utf-8")
    assert list(figures.problems(recorded)) == ["README.md: not as docs/figures.toml has it; make figures"]
    figures.fill(recorded)
    assert list(figures.problems(recorded)) == []


def test_a_template_holds_no_figure_of_its_own(figures: ModuleType, recorded: Path) -> None:
    (recorded / "docs" / "figures" / "one.md.j2").write_text("Frozen: 93.2 %.\n")
    figures.fill(recorded)
    assert list(figures.problems(recorded)) == ["one.md.j2: 93.2 % is written into the template"]


def test_a_picture_that_no_measurement_has_drawn_is_found(figures: ModuleType, recorded: Path) -> None:
    (recorded / "docs" / "speed.svg").write_text("<svg/>")
    assert list(figures.problems(recorded)) == ["docs/speed.svg: drawn by no measurement of docs/figures.toml"]


def test_a_measurement_tells_command_day_commit_machine_and_versions(figures: ModuleType, recorded: Path) -> None:
    table = figures.load(recorded)["measured"]["one"]
    assert set(figures.NEEDED) <= set(table)
    assert {"cpu", "cores", "flags"} <= set(table["machine"])
    assert {"frostline", "python", "torch"} <= set(table["versions"])
    text = (recorded / "docs" / "figures.toml").read_text(encoding="utf-8")
    (recorded / "docs" / "figures.toml").write_text(text.replace('commit = "0123abc"', 'state = "0123abc"'))
    assert "one: commit is missing" in list(figures.problems(recorded))


@pytest.mark.parametrize("phrase", ["version 7.0", "seven"])
def test_what_is_allowed_without_a_measurement_stands_somewhere_and_is_a_figure(
    figures: ModuleType, recorded: Path, phrase: str
) -> None:
    file = recorded / "docs" / "figures.toml"
    file.write_text(file.read_text(encoding="utf-8").replace("[plain]\n", f'[plain]\n"{phrase}" = "?"\n'))
    assert any(problem.startswith(f"[plain] {phrase}") for problem in figures.problems(recorded))


def test_each_command_that_is_named_is_there() -> None:
    """Of each measurement and each document that a command writes: the script exists."""
    import tomllib

    document: dict[str, Any] = tomllib.loads((ROOT / "docs" / "figures.toml").read_text(encoding="utf-8"))
    commands = [t["command"] for t in document["measured"].values()] + list(document["written"].values())
    scripts = [word for command in commands for word in command.split() if word.endswith(".py")]
    assert all((ROOT / script).is_file() for script in scripts)
    assert all(command.split()[0] in ("frostline", "make", "python") for command in commands)


def test_the_speed_of_a_busy_machine_is_not_recorded(
    figures: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import race

    def publish(load: float, repeats: int) -> list[tuple[object, ...]]:
        kept: list[tuple[object, ...]] = []
        keep: Callable[..., None] = lambda *given, **_: kept.append(given)  # noqa: E731
        monkeypatch.setattr(figures, "record", keep)
        one = {"race": race.RACES[0].name, "exit": 0, "peak_mb": 900.0, "load_before": load, "events": []}
        runs = [
            {**one, "who": who, "turn": turn, "seconds": seconds + turn}
            for turn in range(repeats)
            for who, seconds in (("frostline", 10.0), (race.RACES[0].peer, 20.0))
        ]
        document = {"runs": runs, "versions": {}, "settings": {"photos": 500}}
        race.publish(document, "python benchmarks/race.py --record")
        return kept

    ((name, _, values),) = publish(load=0.5, repeats=3)
    assert name == "speed"
    assert values["rows"][0]["ours"] == [11.0, 10.0, 12.0]
    assert values["rows"][0]["peer"] == "PyTorch and scikit-learn"  # an expert's first
    for load, repeats in ((9.0, 3), (0.5, 2)):
        with pytest.raises(SystemExit, match="not recorded"):
            publish(load, repeats)
