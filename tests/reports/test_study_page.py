"""The report: figures as people read them, no network, nothing injected, and a page at every stage of a run."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from frostline import wording
from frostline.errors import RunError
from frostline.reports import markdown, study_page
from support.reports import (
    ACCURACY,
    FLOWERS,
    Visit,
    load,
    make_run,
    read,
    save,
)

# ---------------------------------------------------------------- what it says


def test_every_figure_is_there_as_people_read_it(tmp_path: Path) -> None:
    page = study_page.build(make_run(tmp_path))
    assert page == tmp_path / "run" / "report.html"
    text = read(page)
    for expected in (
        "Fine-tune: accuracy 91.2 % (95 % CI 89.1 to 93.0).",
        "Figures are on 12 test photos in 3 classes.",
        "89.1 to 93.0",
        "11,169,605",
        "164,613",
        "884,613",
        "11.2 M of 11.2 M parameters trained",
        "885 k of 2.4 M parameters trained",
        "133 of 139",
        "2 min 14 s",
        "The whole study took 6 min 43 s.",
        "1.8 GB",
        "fine-tuned beats frozen by 2.9 points, 95 % CI −0.1 to 5.2",
        "+2.9 points (−0.1 to 5.2), p = 0.034",
        "Kept: epoch 7 (epoch 4 of fine-tuning, after 3 of the head)",
        "+2.9",  # the change of a class from frozen to fine-tuned
        "+24.1",  # and from baseline to fine-tuned
        "rose/torn.jpg truncated: half of it is missing",
        "class 0/a.jpg = class 0/b.jpg",
        "daisy / rose",
        "Training from scratch overfits. ✓ holds Measured: It did.",
        "Left out: 1",
        "seed = 7",
        "daisy taken for rose (3)",
    ):
        assert expected in text, expected


def test_what_a_line_leaves_to_train_is_told_as_the_line_counts_it(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    study = load(run)
    row = next(row for row in study["strategies"] if row["name"] == "fine-tuned")
    row["unfrozen"] = {
        "line": "30%", "frozen_layers": 100, "layers": 104, "head": 164_613, "backbone": 720_000, "share": 0.3238,
        "blocks": ["features.17", "features.18"], "partly": ["features.17"],
    }  # fmt: skip
    save(run, study)
    text = read(study_page.build(run))
    assert "100 of 104" in text
    told = "fine-tuned trains 884,613 parameters: the head and 32 % of the backbone (features.17 in part, features.18)."
    assert told in text
    assert "133 of 139" not in text
    assert "100 of 104" in markdown.build(run).read_text(encoding="utf-8")


def test_the_picture_of_a_window_and_of_norms_shows_what_is_trained(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    study = load(run)
    row = next(row for row in study["strategies"] if row["name"] == "fine-tuned")
    usual = {
        "line": "65%", "frozen_layers": 80, "layers": 104, "head": 164_613, "backbone": 806_080, "share": 0.3625,
        "blocks": ["features.15", "features.16"], "partly": [],
    }  # fmt: skip
    ways = {
        "80 of 104 layers frozen below the line, 14 trained above it, 10 frozen above those, and the head": {
            "upper_line": "30%", "frozen_above": 10,
        },
        "80 of 104 layers frozen below the line, norms and biases of 24 trained above it, and the head": {
            "trains": "norms",
        },
        "80 of 104 layers frozen below the line, low-rank adapters of 24 trained above it, and the head": {
            "trains": "lora", "rank": 8,
        },
    }  # fmt: skip
    for label, more in ways.items():
        row["unfrozen"] = {**usual, **more}
        save(run, study)
        assert f'aria-label="fine-tuned: {label}"' in study_page.build(run).read_text(encoding="utf-8")


def test_it_says_which_photos_were_watched_and_which_were_rendered(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    plain = read(study_page.build(run))
    study = load(run)
    study |= {"protocol": "tutorial", "reported_on": "validation"}
    study["dataset"]["sample"] = True
    save(run, study)
    told = read(study_page.build(run))
    for sentence in ("were also used to monitor training", "images are synthetic"):
        assert sentence in told
        assert sentence not in plain
    assert "Figures are on 20 validation photos" in told
    assert "Preset" in plain and "Preset" not in told


def test_a_rendered_test_folder_is_told_too(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    study = load(run)
    study["dataset"]["test_sample"] = True
    save(run, study)
    assert "The test images are synthetic, rendered by code." in read(study_page.build(run))


def test_one_command_repeats_every_setting(tmp_path: Path) -> None:
    run = make_run(tmp_path / "two words")
    text = read(study_page.build(run))
    assert f"frostline study --config '{run}/config.toml' --out '{run}-again'" in text
    assert f"rebuilt with frostline report '{run}'" in text
    assert not re.search(r"--(strategies|protocol|preset|seed|epochs|backbone|line|weights)\b", text)
    (run / "config.toml").unlink()
    assert "frostline study" not in read(study_page.build(run))


def test_the_pass_that_all_share_is_counted_once(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    study = load(run)
    study["strategies"][2]["head_history"] = study["strategies"][1]["history"]
    save(run, study)
    text = read(study_page.build(run))
    assert "frozen shared 2 min 14 s 3.1 s 1.8 GB" in text
    assert text.count("14 s") == text.count("2 min 14 s") + 1  # the shared pass
    assert "shared by all 14 s" in text
    assert "2 min 31 s" not in text  # pass, training and evaluation of one strategy: three such rows would not add up
    assert "fine-tuned starts from the head of frozen, trained once for both" in text


@pytest.mark.parametrize(
    ("verdict", "sign"),
    [
        ("supported", "✓"),
        ("contradicted", "✕"),
        ("not enough photos", "?"),
        ("holds", "✓"),
        ("does not hold", "✕"),
        ("not enough photos to say", "?"),
        ("not enough epochs to say", "?"),
    ],
)
def test_verdicts_are_said_in_words(tmp_path: Path, verdict: str, sign: str) -> None:
    claims = [{"claim": "It <b>overfits</b>.", "measured": "a change of -0.012 to +0.019", "verdict": verdict}]
    text = read(study_page.build(make_run(tmp_path, claims=claims)))
    assert f"It <b>overfits</b>. {sign} {verdict} Measured: a change of −0.012 to +0.019." in text


def test_claims_that_were_not_tested_are_listed_with_the_command_that_tests_them(tmp_path: Path) -> None:
    claims = [
        {"claim": "It overfits.", "measured": "It did", "verdict": "supported", "p_corrected": 0.012},
        {"claim": "It pays.", "measured": "no curve", "verdict": "not tested in this run", "tested_by": "frostline x"},
        {"claim": "It sharpens.", "measured": "needs frozen", "verdict": "not measured"},
    ]
    text = read(study_page.build(make_run(tmp_path, claims=claims)))
    assert "It overfits. ✓ supported Measured: It did. After correction p = 0.012." in text
    assert "It pays. Why: no curve. Test it with frostline x" in text
    assert "It sharpens. Why: needs frozen." in text
    assert "Transfer Learning in Convolutional Neural Networks: Frozen vs Fine-Tuning" in text


def test_the_strategy_that_validation_prefers_leads(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    study = load(run)
    for row, accuracy in zip(study["strategies"], (0.7, 0.9, 0.8), strict=True):
        row["validation_accuracy"] = accuracy
    save(run, study)
    page = study_page.build(run).read_text(encoding="utf-8")
    lead = re.findall(r'<tr class="lead"><th scope="row"><svg.*?</svg><bdi>([\w-]+)</bdi></th>', page)
    assert lead == ["frozen"]  # though fine-tuned is ahead on the photos reported on


def rows_of(page: Path) -> dict[str, Any]:
    """What the page's script gets about the photos."""
    found = re.search(r'id="photo-rows">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    rows: dict[str, Any] = json.loads(found[1])
    return rows


def pictures_of(page: Path) -> list[str]:
    """The gallery's pictures, base64."""
    found = re.search(r'id="photo-pictures">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    return list(json.loads(found[1])) if found else []


def test_every_photo_is_there_and_those_beyond_the_cap_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, each=20)  # 60 photos, 30 wrong
    page = study_page.build(run)
    assert len(rows_of(page)["photos"]) == len(pictures_of(page)) == 60
    assert "All 60 photos reported on." in read(page)
    assert "24 of 30 shown, most confident first" in read(page)  # wrong in every strategy
    monkeypatch.setattr("frostline.reports.gallery.PICTURES", 40)
    page = study_page.build(run)
    photos = rows_of(page)["photos"]
    assert len(photos) == 60 and len(pictures_of(page)) == 40
    assert [photo[3] for photo in photos] == [*range(40), *[-1] * 20]
    assert all(photo[2][0][0] != photo[1] for photo in photos[:30])  # the wrong ones have a picture
    assert "40 of them have a picture, wrongly classified ones first" in read(page)


def test_a_photo_of_many_strategies_is_stored_once(tmp_path: Path) -> None:
    one = study_page.build(make_run(tmp_path / "one", names=("frozen",)))
    three = study_page.build(make_run(tmp_path / "three"))
    assert len(pictures_of(one)) == len(pictures_of(three)) == 12
    assert [len(photo[2]) for photo in rows_of(three)["photos"]] == [3] * 12


def test_figures_that_are_undefined_are_dashes(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    study = load(run)
    study["strategies"][0] |= {"accuracy": None, "accuracy_ci": None, "log_loss": None, "history": [], "per_class": []}
    study["strategies"][1]["per_class"][0] |= {"recall": None, "f1": None}
    study["comparisons"][0] |= {"p_value": None, "ci": [None, None]}
    del study["strategies"][2]["seconds"], study["strategies"][2]["layers"], study["machine"]
    save(run, study)
    text = read(study_page.build(run))
    assert "baseline – – 0.667 –" in text
    assert "(–), p unknown" in text
    assert "No epochs were recorded." in text
    assert "None" not in text and "nan" not in text


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (wording.percent(0.91234), "91.2 %"),
        (wording.percent(None), "–"),
        (wording.percent(float("nan")), "–"),
        (wording.points(-0.013), "−1.3"),
        (wording.points(-0.00001), "0.0"),
        (wording.change(0.0004), "0.000"),
        (wording.short(999_600), "1.0 M"),
        (wording.short(11_169_605), "11.2 M"),
        (wording.short(884_613), "885 k"),
        (wording.duration(3.14), "3.1 s"),
        (wording.duration(59.7), "1 min"),
        (wording.duration(134), "2 min 14 s"),
        (wording.duration(7263), "2 h 1 min"),
        (wording.p_value(0), "p < 0.001"),
        (wording.gigabytes(2564.3), "2.6 GB"),
        (wording.gigabytes(None), "–"),
        (wording.tied("fine-tuned: 1e-4, -0.5 to -0.1 (-2 points)"), "fine-tuned: 1e-4, −0.5 to −0.1 (−2 points)"),
        (wording.moment("2026-03-04T10:22:31+00:00"), "4 March 2026, 10:22 UTC"),
        (wording.moment("yesterday"), "yesterday"),
    ],
)
def test_numbers_for_people(said: str, expected: str) -> None:
    assert said.replace("\u00a0", " ") == expected


def test_a_p_value_stays_on_one_line() -> None:
    assert wording.tied("by chance (p = 0.15)") == "by chance (p\u00a0=\u00a00.15)"


# ---------------------------------------------------------------- runs that are not whole


def test_it_grows_as_strategies_end(tmp_path: Path) -> None:
    run = make_run(tmp_path, names=(), status="running", answer=None, comparisons=[], claims=[])
    text = read(study_page.build(run))
    assert "No strategy has ended yet" in text
    assert "to come: baseline, frozen, fine-tuned" in text
    assert "rose/torn.jpg" in text
    run = make_run(tmp_path, names=("baseline",), status="running", answer=None, comparisons=[], claims=[])
    text = read(study_page.build(run))
    assert "First result, baseline: accuracy 67.1 % (95 % CI 65.0 to 68.9)." in text
    assert "1 strategy has ended so far; to come: frozen, fine-tuned" in text
    run = make_run(tmp_path, names=("baseline", "frozen"), status="running", answer=None, comparisons=[], claims=[])
    assert "So far frozen leads: accuracy 88.3 % (95 % CI 86.2 to 90.1)." in read(study_page.build(run))
    assert "Still running" not in read(study_page.build(make_run(tmp_path)))


def test_only_study_json_is_needed(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for name in ("config.toml", "manifest.csv", *(f"{s}/predictions.csv" for s in ACCURACY)):
        (run / name).unlink()
    text = read(study_page.build(run))
    assert "91.2 %" in text
    assert "config.toml" not in text
    assert "Photos it gets right and wrong" not in text


def test_photos_that_were_moved_get_a_placeholder_and_are_listed(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    gone, broken = sorted((tmp_path / "photos" / "class 1").iterdir())[:2]
    gone.unlink()
    broken.write_bytes(b"not a photo any more")
    text = read(study_page.build(run))
    assert "2 of the photos chosen for this page could not be read" in text
    for path in (gone, broken):
        assert f"class 1/{path.name}" in text.split("Photos that are no longer there")[1]
    shutil.rmtree(tmp_path / "photos")
    page = study_page.build(run)
    assert pictures_of(page) == []
    assert "photo moved" in read(page)


def test_photos_of_another_test_folder(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    study = load(run)
    study["dataset"]["test_root"] = str(tmp_path / "elsewhere")
    study["dataset"]["conflicts"] = []
    save(run, study)
    page = study_page.build(run)
    assert len(pictures_of(page)) == 12
    assert "no longer there" not in read(page)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("study.json", None, "no study.json in"),
        ("study.json", "{", "can't read .*study.json"),
        ("study.json", "[]", "is no study"),
        ("study.json", '{"dataset": {}, "strategies": [{}]}', "is no study"),
        ("manifest.csv", "a,b\n1,2\n", "no column path, label, split"),
        ("frozen/predictions.csv", "path,true,predicted,confidence\na,b,c,high\n", "confidence 'high' of a"),
        ("frozen/predictions.csv", "path,true\n", "no column predicted, confidence"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    run = make_run(tmp_path)
    (run / name).unlink()
    if content is not None:
        (run / name).write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=message) as caught:
        study_page.build(run)
    assert "\n" not in str(caught.value)


def test_a_report_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    before = study_page.build(run).read_bytes()
    (run / "manifest.csv").write_text("torn", encoding="utf-8")
    with pytest.raises(RunError):
        study_page.build(run)
    assert (run / "report.html").read_bytes() == before
    assert not list(run.glob(".*"))


def test_no_torch_is_loaded() -> None:
    code = "import sys, frostline.reports.study_page; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------- in a browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_it_opens_from_disk_and_fits(tmp_path: Path, chromium: Any, width: int, scheme: str) -> None:
    path = study_page.build(make_run(tmp_path))
    with Visit(chromium, path, viewport={"width": width, "height": 800}, color_scheme=scheme) as visit:
        assert (
            visit.page.locator("svg.fig").count() == 5 + 2 * 3
        )  # accuracy, differences, recall, F1, cost; two curves each
        assert visit.overflow() == 0
        assert visit.said == []
        assert [url for url in visit.asked if not url.startswith(("file:", "data:"))] == []
        assert visit.page.locator("#gallery .photo").count() == 12
        assert visit.page.eval_on_selector_all("img", "all => all.every(img => img.complete && img.naturalWidth)")
        assert visit.page.locator(".plot").first.bounding_box()["width"] > 200


def test_without_scripts_the_tables_hold_the_figures(tmp_path: Path, chromium: Any) -> None:
    path = study_page.build(make_run(tmp_path))
    with Visit(chromium, path, java_script_enabled=False) as visit:
        visit.page.locator("summary", has_text="Figures of these curves").first.click()
        cells = visit.page.locator("#curves table").first.inner_text()
        assert "90.0\u00a0%" in cells  # training accuracy of the last epoch, 1 - 0.5/5
        assert "0.240" in cells  # validation loss of the last epoch, 1.2/5
        assert visit.page.locator(".plot svg").first.is_visible()
        assert not visit.page.locator("#gallery").is_visible()
        assert visit.page.locator("noscript").count() == 1


def test_names_cannot_inject(tmp_path: Path, chromium: Any) -> None:
    hostile = [
        "<script>alert(1)</script>",
        "</script><img src=x onerror=alert(2)>",
        "\"'><svg onload=alert(3)>{{ 7*7 }}",
    ]
    run = make_run(tmp_path, classes=hostile, answer="<img src=x onerror=alert(4)>")
    study = load(run)
    study["strategies"][0] |= {"backbone": "<script>alert(5)</script>", "weights": "' onclick='alert(6)"}
    study["dataset"]["skipped"] = [
        {"path": "<iframe src='https://example.com'>", "why": "</td><script>alert(7)</script>"}
    ]
    study["dataset"]["name"] = "</title><script>alert(8)</script>"
    save(run, study)
    path = study_page.build(run)
    source = path.read_text(encoding="utf-8")
    assert "<script>alert" not in source
    assert "<img src=x" not in source
    assert source.count("<script") == source.count("</script>") == 3
    with Visit(chromium, path) as visit:
        assert visit.said == []
        assert visit.page.locator("script").count() == 3
        assert visit.page.locator("main iframe").count() == 0
        assert visit.page.locator('img:not([src^="data:image/"])').count() == 0
        assert hostile[0] in visit.page.locator("#confusion").inner_text()
        assert hostile[0] in visit.page.locator("#gallery").inner_text()
        assert "<script>" in visit.page.locator("#classes svg.fig").first.text_content()
        visit.page.locator("#gallery .tile").first.click()
        assert "<b>.jpg" in visit.page.locator("dialog h2").inner_text()
        assert visit.said == []


def test_an_injected_script_would_not_run(tmp_path: Path, chromium: Any) -> None:
    path = study_page.build(make_run(tmp_path))
    source = path.read_text(encoding="utf-8").replace("<main", "<script>document.title = 'taken over'</script><main", 1)
    path.write_text(source, encoding="utf-8")
    with Visit(chromium, path) as visit:
        assert visit.page.title() == "garden: frostline report"
        assert any("Content Security Policy" in said for said in visit.said)


def test_a_partial_run_draws_what_it_has(tmp_path: Path, chromium: Any) -> None:
    run = make_run(tmp_path, names=("frozen",), status="running", answer=None, comparisons=[], claims=[])
    with Visit(chromium, study_page.build(run), viewport={"width": 375, "height": 800}) as visit:
        assert visit.page.locator("svg.fig").count() == 5
        assert visit.overflow() == 0
        assert visit.said == []


@pytest.mark.skipif(not FLOWERS.is_dir(), reason="the shared flower photos are not beside the repository")
def test_real_photos_stay_small(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    found = [(p.relative_to(FLOWERS).as_posix(), p.parent.name) for p in sorted(FLOWERS.glob("*/*"))[::4]]
    study = load(run)
    study["dataset"]["root"] = str(FLOWERS)
    study["dataset"]["conflicts"] = []
    save(run, study)
    for turn, name in enumerate(ACCURACY):
        rows = [[path, true, "rose", 1 - (i * (turn + 7)) % 997 / 1000] for i, (path, true) in enumerate(found)]
        with (run / name / "predictions.csv").open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([["path", "true", "predicted", "confidence"], *rows])
    page = study_page.build(run)
    assert len(pictures_of(page)) == len(found) > 800
    assert page.stat().st_size < 15_000_000
    assert "no longer there" not in read(page)
