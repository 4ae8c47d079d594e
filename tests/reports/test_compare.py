"""Runs side by side: paired on shared photos, leaks told and left out, and what --format md and --figures leave."""

from __future__ import annotations

import csv
import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from frostline.errors import ConfigError, RunError
from frostline.reports import compare
from support.commands import call, must, table
from support.reports import Visit, load, make_run, save


def numbered(run: Path, splits: dict[int, str] | None = None, start: int = 0) -> Path:
    """Give the run's photos digests of their own, counted from `start`, and other splits."""
    rows = table(run / "manifest.csv")
    with (run / "manifest.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        for i, row in enumerate(rows):
            writer.writerow({**row, "sha256": f"{start + i:064x}", "split": (splits or {}).get(i, row["split"])})
    return run


def answer(run: Path, name: str, right: set[int]) -> None:
    """Let a strategy be right about these photos alone."""
    rows = table(run / name / "predictions.csv")
    with (run / name / "predictions.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        for i, row in enumerate(rows):
            other = next(r["true"] for r in rows if r["true"] != row["true"])
            writer.writerow({**row, "predicted": row["true"] if i in right else other})


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    one, other = (numbered(make_run(tmp_path / name, each=20)) for name in ("first", "second"))
    answer(one, "fine-tuned", set(range(30)))
    answer(other, "fine-tuned", set(range(50)))
    return one, other


def test_the_difference_is_paired_on_shared_photos(two: tuple[Path, Path]) -> None:
    found = compare.compare(two)
    (pair,) = found["pairs"]
    assert (pair["a"], pair["b"], pair["shared"]) == ("second/run: fine-tuned", "first/run: fine-tuned", 60)
    assert pair["difference"] == pytest.approx(20 / 60)
    assert pair["accuracy"] == pytest.approx([50 / 60, 30 / 60])
    assert 0.2 < pair["ci"][0] < 20 / 60 < pair["ci"][1] < 0.5
    assert pair["p_value"] == pytest.approx(0.5**20)
    assert found["warnings"] == []
    assert found["answer"] == pair["verdict"]


def test_photos_are_told_by_their_bytes_not_by_their_names(two: tuple[Path, Path]) -> None:
    other = two[1]
    moved = {row["path"]: f"elsewhere/{i}.jpg" for i, row in enumerate(table(other / "manifest.csv"))}
    for file in (other / "manifest.csv", *other.glob("*/predictions.csv")):
        rows = table(file)
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows({**row, "path": moved[row["path"]]} for row in rows)
    assert compare.compare(two)["pairs"][0]["shared"] == 60
    numbered(other, start=10)  # 50 photos in common, of which 10 at each end of a class bear another label
    pair = compare.compare(two)["pairs"][0]
    assert (pair["shared"], pair["labelled_differently"]) == (30, 20)


def test_without_digests_path_and_label_decide(two: tuple[Path, Path]) -> None:
    for run in two:
        rows = table(run / "manifest.csv")
        with (run / "manifest.csv").open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows(
                [["path", "label", "split"], *([r["path"], r["label"], r["split"]] for r in rows)]
            )
    assert compare.compare(two)["pairs"][0]["shared"] == 60


def test_a_leak_is_told_and_left_out(two: tuple[Path, Path]) -> None:
    other = two[1]
    numbered(other, {0: "train", 1: "train", 2: "validation"})
    found = compare.compare(two)
    (pair,) = found["pairs"]
    assert pair["shared"] == 57
    assert pair["trained_on"] == {"first/run: fine-tuned on second/run": 2}
    assert any(
        "2 photos that first/run: fine-tuned reports on are training photos of second/run (a leak)" in w
        for w in found["warnings"]
    )
    numbered(other, dict.fromkeys(range(40), "train"))
    assert any("share only 20 photos" in w for w in compare.compare(two)["warnings"])
    numbered(other, dict.fromkeys(range(60), "train"))
    (pair,) = compare.compare(two)["pairs"]
    assert (pair["shared"], pair["difference"], pair["p_value"]) == (0, None, None)
    assert "share no photo" in pair["verdict"]


def test_settings_and_classes_that_differ_are_listed(two: tuple[Path, Path]) -> None:
    other = two[1]
    text = (other / "config.toml").read_text(encoding="utf-8")
    (other / "config.toml").write_text(
        text.replace("seed = 7", 'seed = 8\npreset = "best"') + "epochs = 3\n", encoding="utf-8"
    )
    study = load(other)
    study["dataset"]["classes"] = ["daisy", "rose", "lily"]
    save(other, study)
    found = compare.compare(two)
    settings = {row["setting"]: row["values"] for row in found["settings"]}
    assert settings["seed"] == [7, 8]
    assert settings["preset"] == [None, "best"]
    assert settings["fine-tuned.epochs"] == [None, 3]
    assert "data" in settings
    assert any("has other classes than first/run: lily, tulip" in w for w in found["warnings"])


def test_strategies_are_chosen(two: tuple[Path, Path]) -> None:
    assert [row["strategy"] for row in compare.compare(two, strategy="frozen")["chosen"]] == ["frozen", "frozen"]
    every = compare.compare(two, every=True)
    assert len(every["chosen"]) == 6 and len(every["pairs"]) == 15
    assert (
        every["answer"]
        == next(p for p in every["pairs"] if "fine-tuned" in p["a"] and "fine-tuned" in p["b"])["verdict"]
    )
    with pytest.raises(ConfigError, match=r"--strategy frosen: .* did you mean 'frozen'"):
        compare.compare(two, strategy="frosen")
    with pytest.raises(ConfigError, match="is given twice"):
        compare.compare([two[0], two[0]])
    with pytest.raises(ConfigError, match="expected two or more"):
        compare.compare(two[:1])
    shutil.rmtree(two[1] / "fine-tuned")
    save(two[1], {**load(two[1]), "strategies": []})
    with pytest.raises(RunError, match="no strategy has ended"):
        compare.compare(two)


def test_the_command_prints_and_leaves_a_page(two: tuple[Path, Path], tmp_path: Path, chromium: Any) -> None:
    said = must("compare", *two).out
    assert "second/run: fine-tuned beats first/run: fine-tuned by 33.3 points" in said.replace("\n", " ")
    assert re.search(r"Settings that differ:\n  data: \S+first/photos \| \S+second/photos\n", said)
    out = tmp_path / "both"
    told = json.loads(must("compare", *two, "--out", out, "--json").out)
    assert told == json.loads((out / "compare.json").read_text(encoding="utf-8"))
    assert must("compare", *two, "--quiet").out == ""
    assert "no study.json" in call("compare", two[0], tmp_path / "nothing").error
    with Visit(chromium, out / "compare.html", viewport={"width": 375, "height": 800}) as visit:
        assert visit.overflow() == 0
        visit.page.locator("[name=answer]").select_option("differ")
        assert visit.page.locator(".found").inner_text() == "20 of 60 photos match."
        visit.page.locator("#gallery .tile").first.click()
        assert visit.page.locator("dialog tbody tr").count() == 2
        assert visit.said == []


# ---------------------------------------------------------------- for papers


def test_figures_and_their_numbers(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    told = json.loads(must("report", run, "--figures", "--json").out)
    written = sorted(p.name for p in (run / "figures").iterdir())
    assert sorted(Path(p).name for p in told["figures"]) == written
    assert {p.rsplit(".")[0] for p in written} >= {
        "accuracy",
        "differences",
        "curve-loss-fine-tuned",
        "confusion-frozen",
        "classes-f1",
        "cost",
    }
    for name in {p.rsplit(".")[0] for p in written}:
        picture = ET.parse(run / "figures" / f"{name}.svg").getroot()  # noqa: S314 -- our own file
        assert picture.get("aria-label")
        assert table(run / "figures" / f"{name}.csv")
        assert "var(--" not in (run / "figures" / f"{name}.svg").read_text(encoding="utf-8")
    rows = table(run / "figures" / "accuracy.csv")
    assert rows[2] == {"strategy": "fine-tuned", "accuracy": "0.9123", "low": "0.8913", "high": "0.9303"}
    assert "91.2 %" in (run / "figures" / "accuracy.svg").read_text(encoding="utf-8")
    cells = {(r["true"], r["predicted"]): r["photos"] for r in table(run / "figures" / "confusion-frozen.csv")}
    assert cells["daisy", "daisy"] == "23" and cells["daisy", "rose"] == "3"


def test_markdown_holds_the_tables_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    run = make_run(tmp_path, claims=[{"claim": "a | b <script> *c*", "measured": "it\ndid", "verdict": "holds"}])
    assert must("report", run, "--format", "md").out.startswith(f"Report: {run / 'report.md'}")
    text = (run / "report.md").read_text(encoding="utf-8")
    assert "**Fine-tune: accuracy 91.2\u00a0% (95\u00a0%\u00a0CI 89.1\u00a0to\u00a093.0).**" in text
    assert "| fine-tuned − frozen | +2.9 | −0.1 to 5.2 |" in text
    assert "| a \\| b \\<script\\> \\*c\\* | holds | it did |" in text
    links = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert len(links) > 10 and all((run / link).is_file() for link in links)
    assert len(set(links)) == len(links) == len(list((run / "figures").glob("*.svg")))
    for line in text.splitlines():
        assert not line.startswith("|") or line.endswith("|")


def test_formats_are_checked(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert "--format pdf: expected html or md" in call("report", run, "--format", "pdf").error
    (run / "sweep.json").write_text("{}", encoding="utf-8")
    assert "--figures are for studies" in call("report", run, "--figures").error
