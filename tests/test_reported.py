"""benchmarks/reported.py: from run folders to docs/figures.toml to README. The runs are those of version 0.1.0."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
OLD = Path(__file__).parent / "version_0_1_0"
SAID = """
strategy    accuracy       95 % CI
──────────────────────────────────
baseline      60.0 %  51.1 to 68.3

{answer}

accuracy by corruption  frozen
──────────────────────────────
none                    91.7 %

Report: runs/sample/report.html
""".format(answer="Freeze the pretrained network and train a head. " * 4)


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The module, at work on a README of its own with a block for each template."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import figures
    import reported

    shutil.copytree(ROOT / "docs" / "figures", tmp_path / "docs" / "figures")
    (tmp_path / "docs" / "figures.toml").write_text('[plain]\n"95 % CI" = "what the interval is"\n')
    names = ("sample", "presets", "verdicts", "claims", "tutorial")
    (tmp_path / "README.md").write_text("\n".join(f"<!-- figures: {n} -->\n<!-- /figures -->" for n in names))
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    monkeypatch.setattr(figures, "commit", lambda _: "0123abc")
    monkeypatch.setattr(figures, "fill", lambda _: None)  # until all are there
    monkeypatch.setattr(reported, "photograph", lambda _, picture: picture.write_bytes(b"a picture"))
    return reported


def test_what_runs_have_measured_stands_in_readme(reported: ModuleType, tmp_path: Path) -> None:
    runs = {"sample": OLD / "seeds" / "seed-0", "claims": OLD / "seeds" / "seed-0"}
    runs |= dict.fromkeys(("flowers-balanced", "insects-balanced", "tutorial"), OLD / "seeds")
    for name, old in runs.items():
        folder = tmp_path / "runs" / name
        shutil.copytree(old, folder)
        (folder / "said.txt").write_text(SAID, encoding="utf-8")
        (folder.parent / f"{name}.starts.json").write_text('[{"commit": "0123abc", "load": 7.2}]')
        reported.record(name, reported.ROWS[name], reported.ROWS[name].data, folder, root=tmp_path)
    import figures

    text = figures._filled((tmp_path / "README.md").read_text(encoding="utf-8"), tmp_path)
    over_seeds = json.loads((OLD / "seeds" / "seeds.json").read_text(encoding="utf-8"))
    for row in over_seeds["strategies"]:
        assert f"{100 * row['mean']:.1f} %" in text
    for claim in json.loads((OLD / "seeds" / "seed-0" / "study.json").read_text(encoding="utf-8"))["claims"]:
        assert f"| {claim['claim']} | {claim['measured']} | {claim['verdict']} |" in text
        assert f"| {claim['claim']} | {claim['verdict']} |" in text
    assert "baseline      60.0 %  51.1 to 68.3\n\nFreeze the pretrained network" in text
    assert "accuracy by corruption" not in text
    assert "with other jobs beside (load average at a start up to 7)" in text
    assert max(len(line) for line in text.partition("```")[2].partition("```")[0].splitlines()) <= 120
    assert "`frostline study runs/halves/report.csv --strategies frozen,fine-tuned --seeds 2" in text
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    assert list(figures.problems(tmp_path)) == []
