"""The report in a real browser: what can be pointed at, opened, filtered, reached by keyboard, read aloud and
printed.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from frostline.reports import gallery, record, study_page
from support.commands import table
from support.reports import Visit, load, make_run, read, save

GRID = [[min(255, 40 * x + 20 * y) for x in range(7)] for y in range(5)]


def full_run(folder: Path, **changes: Any) -> Path:
    """A run with every optional part that a report can show."""
    run = make_run(folder, **changes)
    study = load(run)
    bins = [{"confidence": c, "accuracy": c - 0.1, "count": 20, "ci": [c - 0.2, c]} for c in (0.5, 0.7, 0.9)]
    for row in study["strategies"]:
        row["reliability"] = {"before": bins, "after": bins}
        off = {"debiased": 0.081, "ci": [0.05, 0.115], "p_value": 0.008, "tendency": "underconfident"}
        row["calibration"] = {"before": {**off, "confidence_right": 0.861, "confidence_wrong": 0.49}}
        row["robustness"] = {
            "photos": 40, "clean": row["accuracy"], "worst": "noise",
            "causes": [
                {
                    "cause": cause, "title": title, "mean_drop": drop,
                    "accuracy": [0.8, 0.7, 0.6, 0.5, 0.4], "ci": [[0.3, 0.9]] * 5,
                }
                for cause, title, drop in (("dark", "Darkness", 0.1), ("noise", "Noise", 0.31))
            ],
        }  # fmt: skip
    measured = {"wrong_median": 0.2, "right_median": 0.5, "effect": -0.4}
    darker = {"p_value": 0.001, "p_corrected": 0.004, "verdict": "wrong photos are darker"}
    study["error_causes"] = {
        "fine-tuned": [
            {"measure": "brightness", **measured, **darker},
            {"measure": "sharpness", **measured, "p_value": 0.4, "verdict": "no difference shown"},
        ]
    }
    study["dataset"]["check"] = {"lines": ["3 labels look doubtful.", "2 near-twins.", "Classes are even."]}
    rows = table(run / "frozen" / "predictions.csv")
    places = [{"path": row["path"], "class": row["true"]} for row in rows[3:5]]
    study["dataset"]["near_twins"] = {"groups": [[p["path"] for p in places]], "photos": 2, "across_classes": [places]}
    save(run, study)
    shown = [
        {**{k: row[k] for k in ("path", "true", "predicted")}, "maps": {"predicted": GRID, "true": GRID}}
        for row in rows[:3]
    ]
    told = {"deletion": 0.31, "insertion": 0.72, "random_deletion": 0.55, "random_insertion": 0.5, "photos": 32}
    explained = {"method": "HiResCAM", "layer": "features.18", "photos": shown, "faithfulness": told}
    (run / "fine-tuned" / "explanations.json").write_text(json.dumps(explained), encoding="utf-8")
    with (run / "photo_measures.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(
            [["path", "class", "brightness"], *([r["path"], r["true"], i / 20] for i, r in enumerate(rows))]
        )
    return run


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study_page.build(full_run(tmp_path_factory.mktemp("full"), each=20))


# ---------------------------------------------------------------- what it says


def test_optional_parts_appear_when_they_are_there(tmp_path: Path, page: Path) -> None:
    told, plain = read(page), read(study_page.build(make_run(tmp_path)))
    for sentence in (
        "Calibration: does confidence match accuracy?", "What do the real errors have in common?",
        "wrong photos are darker",
        "fine-tuned none 0.081 0.050 to 0.115 p = 0.008 underconfident 86.1 % 49.0 %",
        "HiResCAM at features.18. 3 of 3 photos.", "random areas 0.550; lower is better", "3 labels look doubtful.",
        "Near-duplicates: 1", "Largest loss under corruption: noise With this corruption fine-tuned loses 31 points",
        "Photo is",
    ):  # fmt: skip
        assert sentence in told, sentence
    for sentence in ("Calibration: does", "What do the real errors", "Heat maps", "Near-duplicates", "Largest loss"):
        assert sentence not in plain
    causes = re.findall(r"Accuracy under (\w+), by severity", page.read_text(encoding="utf-8"))
    assert causes == ["Noise", "Darkness"]  # the one that hurts most first


def test_a_failed_explanation_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run / "frozen" / "explanations.json").write_text(
        '{"method": "x", "photos": [], "failure": "no grid"}', encoding="utf-8"
    )
    assert "No heat maps: no grid" in read(study_page.build(run))


@pytest.mark.parametrize(
    ("stops", "said"), [(True, "early stopping, the temperature and"), (False, "are too few for early stopping")]
)
def test_what_validation_photos_decided_is_told(tmp_path: Path, stops: bool, said: str) -> None:
    run = make_run(tmp_path)
    assert "Rigorous protocol: early stopping, the temperature and" in read(
        study_page.build(run)
    )  # an older run doesn't tell
    save(run, {**load(run), "validation_stops": stops, "loss": "robust"})
    page = read(study_page.build(run))
    assert said in page
    assert "robust loss" in page


def next_steps(run: Path) -> str:
    return read(study_page.build(run)).partition("What to do next")[2].partition("Strategies compared")[0]


def test_what_to_do_next_follows_the_figures(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    study = load(run)
    pair = study["comparisons"][0]
    pair |= {"difference": 0.031, "ci": [0.012, 0.05], "p_value": 0.002}
    for row in study["strategies"][2]["per_class"]:
        row["recall"] = 0.86
    study["strategies"][2]["history"][3] |= {"train_accuracy": 0.93, "val_accuracy": 0.92}
    save(run, study)
    said = next_steps(run)
    assert "Use fine-tuned The lower end of its accuracy's interval is 89.1 %" in said
    assert "Try to unfreeze more layers Unfreezing helps: fine-tuned against frozen, +3.1 points of accuracy" in said
    assert "Before labelling more photos, forecast the gain" in said
    assert (
        "7 labels may be wrong: review them 1 photo has two different labels and 6 photos are wrong in every strategy"
        in said
    )
    fifth = -(-study["dataset"]["photos"] // 5)
    for doubted, loss, told in ((fifth - 1, "", False), (fifth, "", True), (fifth, "robust", False)):
        save(run, {**study, "loss": loss, "dataset": {**study["dataset"], "check": {"kinds": {"label": doubted}}}})
        assert ("--loss robust gives them less weight" in next_steps(run)) == told
        assert ("Review the labels" in next_steps(run)) == told
    for called, title in (
        (0, "1 label may be wrong: review it 1 photo has two different labels and 6 photos are wrong in every"),
        (
            4,
            "4 labels are likely wrong: review them 4 labels are likely wrong (about 1 of these by chance), 1 photo",
        ),
    ):  # where the check judged the labels, its number is told
        checked = {"kinds": {"label": called}, "chance": {"called": called, "called_by_chance": 0.8}}
        checked["command"] = "frostline check them --image-size 128"
        save(run, {**study, "dataset": {**study["dataset"], "check": checked}})
        said = next_steps(run)
        assert title in said and "frostline check them --image-size 128" in said
        assert ("No label stands out in the check" in said) == (called == 0)
    pair |= {"ci": [-0.012, 0.05], "p_value": 0.2}
    study["strategies"][2]["history"][3]["train_accuracy"] = 0.99
    study["strategies"][2]["per_class"][1]["recall"] = 0.5
    study["strategies"][2] |= {
        "calibration_error": 0.09,
        "calibration_error_ci": [0.04, 0.13],
        "accuracy_ci": [0.80, 0.93],
    }
    for row in study["strategies"][2]["per_class"]:
        row["support"] = 100
    save(run, study)
    said = next_steps(run)
    assert "Use fine-tuned with care" in said and "its recall for rose is only 50.0 %" in said
    assert "Whether unfreezing helps can't be told yet Whether unfreezing helps can't be told: fine-tuned" in said
    assert "Label more photos, rose first The training accuracy of fine-tuned is 7 points above" in said
    assert "The confidence of fine-tuned is not calibrated" in said
    assert "Use a larger test set The 95 % CI is 13 points wide" in said


# ---------------------------------------------------------------- what can be done in it


def test_figures_show_under_the_pointer(page: Path, chromium: Any) -> None:
    with Visit(chromium, page, viewport={"width": 1280, "height": 900}) as visit:
        tip = visit.page.locator("#tip")
        visit.page.locator("#curves .band").nth(2).hover()
        assert tip.inner_text().splitlines() == ["epoch 3", "training 83.3 %", "validation 76.7 %"]
        visit.page.locator("#confusion td").first.hover()
        assert "23 of true daisy" in tip.inner_text()
        visit.page.mouse.move(2, 2)
        assert not tip.is_visible()


def test_a_cell_opens_its_photos_and_escape_closes(page: Path, chromium: Any) -> None:
    with Visit(chromium, page) as visit:
        matrix = visit.page.locator("table.matrix[data-strategy=frozen]")
        cell = matrix.get_by_label(re.compile("truly daisy, predicted rose"))
        cell.click()
        sheet = visit.page.locator("dialog")
        assert sheet.locator("h2").inner_text() == "daisy taken for rose"
        assert sheet.locator(".tile").count() == 10  # every second daisy
        sheet.locator(".tile").first.click()
        one = visit.page.locator("dialog.one")
        assert one.locator("tbody tr").count() == 3
        assert "✕ wrong" in one.inner_text()
        visit.page.keyboard.press("Escape")
        one.wait_for(state="detached")  # a dialog tells that it was closed in a task of its own
        assert visit.page.locator("dialog").count() == 1
        visit.page.keyboard.press("Escape")
        sheet.wait_for(state="detached")
        assert cell.evaluate("cell => cell === document.activeElement")
        cell.click()
        visit.page.get_by_text("Filter further in the gallery").click()
        assert visit.page.locator(".found").inner_text() == "10 of 60 photos match."
        assert visit.said == []


def test_arrow_keys_move_in_a_matrix_which_is_one_stop_for_tab(page: Path, chromium: Any) -> None:
    with Visit(chromium, page) as visit:
        matrix = visit.page.locator("table.matrix").first
        assert matrix.locator("button[tabindex='0']").count() == 1
        matrix.locator("button").first.focus()
        focused = "document.activeElement.getAttribute('aria-label')"
        for key, expected in (
            ("ArrowRight", "truly daisy, predicted rose"), ("ArrowDown", "truly rose, predicted rose"),
            ("End", "truly rose, predicted tulip"), ("ArrowRight", "truly rose, predicted tulip"),
            ("ArrowUp", "truly daisy, predicted tulip"), ("Home", "truly daisy, predicted daisy"),
        ):  # fmt: skip
            visit.page.keyboard.press(key)
            assert visit.page.evaluate(focused).endswith(expected)
        assert visit.page.locator("#tip").is_visible()
        assert matrix.locator("button[tabindex='0']").count() == 1
        visit.page.keyboard.press("Enter")
        assert visit.page.locator("dialog[open]").count() == 1


def chosen(visit: Visit) -> list[str]:
    return [
        label.lower() for label in visit.page.locator("#gallery .tile").evaluate_all("all => all.map(t => t.ariaLabel)")
    ]


def test_the_gallery_filters_and_counts(page: Path, chromium: Any) -> None:
    with Visit(chromium, page) as visit:
        form, found = visit.page.locator("#gallery form"), visit.page.locator(".found")
        assert found.inner_text() == "60 of 60 photos match; 48 shown."
        visit.page.get_by_role("button", name="Show 12 more").click()
        assert visit.page.locator("#gallery .tile").count() == 60
        assert found.inner_text() == "60 of 60 photos match."
        form.locator("[name=answer]").select_option("wrong")
        assert found.inner_text() == "30 of 60 photos match."
        form.locator("[name=true]").select_option(label="rose")
        assert found.inner_text() == "10 of 60 photos match."
        assert all("truly rose, predicted tulip" in label for label in chosen(visit))
        form.locator("[name=predicted]").select_option(label="daisy")
        assert found.inner_text() == "0 of 60 photos match."
        assert visit.page.get_by_text("No photos match.").is_visible()
        form.get_by_role("button", name="Show all").click()
        assert found.inner_text() == "60 of 60 photos match; 48 shown."
        form.locator("[name=high]").fill("95")
        sure = [float(re.search(r"with ([\d.]+)", label)[1]) for label in chosen(visit)]  # type: ignore[index]
        assert sure and max(sure) <= 95 and found.inner_text().startswith("11 of 60")
        form.locator("[name=low]").fill("97")
        assert form.locator("[name=high]").input_value() == "97"
        form.get_by_role("button", name="Show all").click()
        form.locator("[name=measure]").select_option(label="among the darkest fifth")
        assert found.inner_text() == "12 of 60 photos match."
        form.locator("[name=order]").select_option("unsure")
        sure = [float(re.search(r"with ([\d.]+)", label)[1]) for label in chosen(visit)]  # type: ignore[index]
        assert sure == sorted(sure)
        assert visit.said == []


def test_the_gallery_follows_the_strategy(tmp_path: Path, chromium: Any) -> None:
    run = make_run(tmp_path)
    file = run / "frozen" / "predictions.csv"
    rows = [list(row.values()) for row in table(file)]
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(
            [
                ["path", "true", "predicted", "confidence"],
                *([path, true, true, sure] for path, true, _, sure, *_ in rows),
            ]
        )
    with Visit(chromium, study_page.build(run)) as visit:
        form, found = visit.page.locator("#gallery form"), visit.page.locator(".found")
        form.locator("[name=answer]").select_option("wrong")
        assert found.inner_text() == "6 of 12 photos match."
        form.locator("[name=strategy]").select_option(label="frozen")
        assert found.inner_text() == "0 of 12 photos match."
        form.locator("[name=answer]").select_option("differ")
        assert found.inner_text() == "6 of 12 photos match."
        form.locator("[name=answer]").select_option("all")
        assert found.inner_text() == "0 of 12 photos match."


# ---------------------------------------------------------------- for everyone


@pytest.mark.parametrize(("width", "scheme"), [(375, "dark"), (1280, "light")])
def test_axe_finds_nothing_serious(page: Path, chromium: Any, width: int, scheme: str) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    ).Axe()
    with Visit(chromium, page, viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True) as visit:
        visit.page.locator("details").evaluate_all("all => all.forEach(part => part.open = true)")
        found = axe.run(visit.page).response["violations"]
        visit.page.locator("#gallery .tile").first.click()
        found += axe.run(visit.page).response["violations"]
        grave = [v for v in found if v["impact"] in ("serious", "critical")]
        assert [(v["id"], v["nodes"][0]["html"][:200], v["nodes"][0]["failureSummary"]) for v in grave] == []
        assert visit.overflow() == 0


def test_it_prints_all_its_sections(page: Path, chromium: Any, tmp_path: Path) -> None:
    with Visit(chromium, page) as visit:
        pdf = visit.page.pdf(path=tmp_path / "report.pdf", format="A4")
        assert pdf.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", pdf)) > 4
        visit.page.emulate_media(media="print")
        visit.page.set_viewport_size({"width": 718, "height": 1000})
        assert visit.overflow() == 0
        for hidden in (".toc", ".filters", "#tip"):
            assert not visit.page.locator(hidden).is_visible()
        assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_names_that_turn_the_writing_about_stay_in_their_place(tmp_path: Path, chromium: Any) -> None:
    names = ["ab\u202egpj.exe", "</script><!--", "日本 \u200f\"'&"]
    run = full_run(tmp_path, classes=names)
    with Visit(chromium, study_page.build(run), viewport={"width": 375, "height": 800}) as visit:
        options = visit.page.locator("[name=true] option").all_inner_texts()
        assert options[1:] == names
        visit.page.locator("table.matrix button").nth(1).click()
        assert visit.page.locator("dialog h2").inner_text() == f"{names[0]} taken for {names[1]}"
        assert visit.overflow() == 0
        assert visit.said == []


def test_nine_hundred_photos_stay_below_15_megabytes(tmp_path: Path) -> None:
    run = make_run(tmp_path, names=("frozen",), each=3)
    rng = np.random.default_rng(0)
    # as busy as photos get: noise at four pixels a speck costs more bytes than any real photo
    for file in (tmp_path / "photos").glob("*/*"):
        speckled = Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)).resize(
            (640, 480), Image.Resampling.BICUBIC
        )
        speckled.save(file, "JPEG", quality=90)
    found = gallery.contents(record.read(run), gallery.Pictures())
    assert len(found["pictures"]) == 9
    assert 900 * sum(map(len, found["pictures"])) / 9 < 15_000_000
