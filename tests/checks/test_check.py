"""frostline check: what it finds in a folder of planted faults, what it writes, and that nothing makes it stop."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFilter

from frostline.checks.check import SURE
from frostline.checks.kinds import KINDS
from frostline.photos.corrections import clean, read
from frostline.photos.scan import scan
from support.commands import call, document, must, table
from support.photos import encoded, photo, picture, scene, textured, write_broken, write_folder


def found(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [f for f in document["findings"] if f["kind"] == kind]


def paths(document: dict[str, Any], kind: str) -> set[str]:
    return {path for f in found(document, kind) for path in f["paths"]}


def checked(data: Path, out: Path, *options: object) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        must("check", data, "--out", out, "--json", "--image-size", 64, "--backbone", "mobilenet_v2", *options).out
    )
    return document


@pytest.fixture(scope="module")
def faulty(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Path]:
    """Good photos with one fault of each kind that a single photo can have; the document; the folder around them."""
    base = tmp_path_factory.mktemp("faulty")
    data = write_folder(base / "photos", ("oak", "beech"), 8)
    oak = data / "oak"
    write_broken(data / "beech")
    shutil.copy(oak / "oak 1.jpeg", oak / "twin.jpeg")
    shutil.copy(oak / "oak 2.png", data / "beech" / "stray.png")
    big = picture(77, 300, 200)
    (oak / "dark.jpg").write_bytes(encoded(big.point(lambda v: v // 12)))
    (oak / "bright.jpg").write_bytes(encoded(big.point(lambda v: 230 + v // 12)))
    (oak / "blurred.jpg").write_bytes(encoded(big.filter(ImageFilter.GaussianBlur(8))))
    (oak / "empty.png").write_bytes(encoded(Image.new("RGB", (200, 200), (90, 120, 90)), "PNG"))
    (oak / "tiny.png").write_bytes(photo(78, "PNG", 20, 20))
    (oak / "named.png").write_bytes(photo(79, "JPEG", 100, 100))
    return data, checked(data, base / "out", "--write", base / "exclude.csv"), base


def test_faults_of_single_photos(faulty: tuple[Path, dict[str, Any], Path]) -> None:
    data, document, _ = faulty
    assert paths(document, "dark") == {"oak/dark.jpg"}
    assert paths(document, "bright") == {"oak/bright.jpg"}
    assert paths(document, "empty") == {"oak/empty.png"}
    assert "oak/blurred.jpg" in paths(document, "blurred")
    assert "oak/tiny.png" in paths(document, "tiny")
    assert "oak/named.png" in paths(document, "extension")
    assert paths(document, "twins") == {"oak/oak 1.jpeg", "oak/twin.jpeg"}
    assert paths(document, "conflict") == {"oak/oak 2.png", "beech/stray.png"}
    assert paths(document, "unreadable") == {p.relative_to(data).as_posix() for p in data.glob("beech/broken*")}
    assert all(f["detail"] for f in found(document, "unreadable"))
    order = [f["kind"] for f in document["findings"]]
    assert order.index("conflict") < order.index("unreadable") < order.index("twins")
    assert all(0 <= f["confidence"] <= 1 and f["advice"] for f in document["findings"])
    assert len(document["lines"]) == 3


def test_what_is_written(faulty: tuple[Path, dict[str, Any], Path]) -> None:
    _, document, base = faulty
    assert {p.name for p in (base / "out").iterdir()} == {"check.json", "check.csv", "check.html"}
    assert json.loads((base / "out" / "check.json").read_text(encoding="utf-8")) == document
    rows = table(base / "out" / "check.csv")
    assert {r["path"] for r in rows if r["kind"] == "conflict"} == paths(document, "conflict")
    excluded = {r["path"]: r["action"] for r in table(base / "exclude.csv")}
    assert not set(excluded) & paths(document, "unreadable")  # every study leaves those out as it is
    assert set(excluded) & paths(document, "conflict")
    assert set(excluded.values()) == {"exclude"}
    assert not set(excluded) & (paths(document, "twins") | paths(document, "dark"))


def test_the_page_shows_confidence_beside_estimates_and_none_beside_facts(
    faulty: tuple[Path, dict[str, Any], Path],
) -> None:
    _, document, base = faulty
    page = (base / "out" / "check.html").read_text(encoding="utf-8")
    told = {finding["kind"] for finding in document["findings"]}
    assert {"conflict", "unreadable", "twins", "dark"} <= told
    for kind in told:
        section = page.partition(f'<section id="{kind.replace(" ", "-")}"')[2].partition("</section>")[0]
        assert section
        assert ('title="confidence"' in section) == (not KINDS[kind].certain)


def test_the_folder_stays_as_it_was(tmp_path: Path, pretrained: Path) -> None:
    data = write_folder(tmp_path / "photos", ("oak", "beech"), 4)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in data.rglob("*") if p.is_file()}
    checked(data, tmp_path / "out", "--write", tmp_path / "exclude.csv")
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in data.rglob("*") if p.is_file()} == before


@pytest.fixture(scope="module")
def mislabelled(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Two classes of textures, five of one in the other's folder, and two pictures of something else; the document."""
    base = tmp_path_factory.mktemp("mislabelled")
    for kind, name in enumerate(("flat", "steep")):
        folder = base / "photos" / name
        folder.mkdir(parents=True)
        for i in range(40):
            (folder / f"{i}.png").write_bytes(encoded(textured(6 * kind, 100 * kind + i), "PNG"))
    for i in range(5):
        (base / "photos" / "flat" / f"wrong {i}.png").write_bytes(encoded(textured(6, 900 + i), "PNG"))
    for i in range(2):
        (base / "photos" / "steep" / f"odd {i}.png").write_bytes(encoded(scene(i, 64), "PNG"))
    return base / "photos", checked(base / "photos", base / "out", "--write", base / "exclude.csv")


def test_wrong_labels_are_ranked_first(mislabelled: tuple[Path, dict[str, Any]]) -> None:
    _, document = mislabelled
    label_errors = found(document, "label")
    planted = [f for f in label_errors if "wrong" in f["paths"][0]]
    assert "wrong" in label_errors[0]["paths"][0]
    assert len(planted) >= 4
    assert len(planted) / len(label_errors) >= 0.7
    assert all(f["suggested"] == "steep" and f["classes"] == ["flat"] for f in planted)
    assert all(f["detail"].startswith("Cross-validated prediction: steep (") for f in planted)
    confidences = [f["confidence"] for f in label_errors]
    assert confidences == sorted(confidences, reverse=True)
    assert f"{len(label_errors)} labels are likely wrong" in document["lines"][1]


def test_photos_unlike_any_class_are_told(mislabelled: tuple[Path, dict[str, Any]]) -> None:
    _, document = mislabelled
    assert {"steep/odd 0.png", "steep/odd 1.png"} <= paths(document, "junk")
    assert len(paths(document, "junk")) <= 5


def test_the_same_photos_give_the_same_document(mislabelled: tuple[Path, dict[str, Any]]) -> None:
    data, document = mislabelled
    again = checked(data, data.parent / "again")
    for changing in ("created", "seconds"):
        del again[changing]
    assert again == {key: value for key, value in document.items() if key in again}


def test_the_list_is_one_that_a_study_takes(mislabelled: tuple[Path, dict[str, Any]]) -> None:
    data, document = mislabelled
    decided = read(data.parent / "exclude.csv")
    assert [d.path for d in decided] == [d["path"] for d in document["decisions"]]
    sure = {f["paths"][0] for f in found(document, "label") if f["confidence"] >= SURE}
    assert {d.path for d in decided} == sure
    kept, _ = clean(scan(data), decided, "exclude.csv")
    assert {photo.path for photo in scan(data).photos} - {photo.path for photo in kept.photos} == sure


def test_a_shortcut_is_named_and_none_where_there_is_none(tmp_path: Path, pretrained: Path) -> None:
    data = write_folder(tmp_path / "photos", ("oak", "beech", "ash"), 20)
    assert not found(checked(data, tmp_path / "out"), "shortcut")
    for i, file in enumerate(sorted((data / "ash").iterdir())):
        file.write_bytes(photo(300 + i, "JPEG", 90, 70))
    shortcuts = found(checked(data, tmp_path / "again"), "shortcut")
    assert any(f["classes"] == ["ash"] and "size in pixels" in f["detail"] for f in shortcuts)


def test_the_same_photo_in_two_parts(tmp_path: Path, pretrained: Path) -> None:
    write_folder(tmp_path / "photos" / "train", ("oak", "beech"), 6)
    write_folder(tmp_path / "photos" / "test", ("oak", "beech"), 3, first_seed=100)
    shutil.copy(
        tmp_path / "photos" / "train" / "oak" / "oak 1.jpeg", tmp_path / "photos" / "test" / "oak" / "again.jpeg"
    )
    document = checked(tmp_path / "photos", tmp_path / "out")
    assert paths(document, "leak") == {"train/oak/oak 1.jpeg", "test/oak/again.jpeg"}
    assert document["findings"][0]["kind"] == "leak"


# ---- without a network: what can be said by bytes, pixels and names --------------------------------------------------


@pytest.fixture
def blind(tmp_path: Path) -> tuple[str, Path]:
    """The option of weights that don't fit, so no network sees the photos and a check takes no time."""
    (tmp_path / "weights.pth").write_bytes(b"not these")
    return "--weights", tmp_path / "weights.pth"


def test_without_weights_the_rest_is_examined(tmp_path: Path, blind: tuple[str, Path]) -> None:
    data = write_folder(tmp_path / "photos", ("oak", "beech"), 6)
    (data / "oak" / "broken.jpg").write_bytes(b"no photo")
    document = checked(data, tmp_path / "out", *blind)
    assert "labels were not judged" in document["notes"][0]
    assert document["lines"][1] == "Labels: not judged."
    assert paths(document, "unreadable") == {"oak/broken.jpg"}


def test_nearly_the_same_photo(tmp_path: Path, blind: tuple[str, Path]) -> None:
    for number, name in enumerate(("oak", "beech")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(8):
            (tmp_path / "photos" / name / f"{i}.jpg").write_bytes(encoded(scene(8 * number + i), quality=92))
    (tmp_path / "photos" / "oak" / "small.jpg").write_bytes(encoded(scene(1).resize((80, 80)), quality=90))
    (tmp_path / "photos" / "oak" / "stray.jpg").write_bytes(encoded(scene(9), quality=40))
    document = checked(tmp_path / "photos", tmp_path / "out", *blind)
    assert paths(document, "near twins") == {"oak/1.jpg", "oak/small.jpg"}
    assert paths(document, "near conflict") == {"beech/1.jpg", "oak/stray.jpg"}
    assert {f["detail"] for f in document["findings"]} == {"resized or recompressed"}
    assert document["decisions"] == []  # which of the two is wrong is for people to say
    assert document["lines"][0] == "Files: 1 photo in two classes, 1 group of duplicates (18 usable photos)."
    for part in ("train", "test"):
        for name in ("oak", "beech"):
            (tmp_path / "parts" / part / name).mkdir(parents=True)
    for i, file in enumerate(sorted((tmp_path / "photos").rglob("[0-7].jpg"))):
        shutil.copy(file, tmp_path / "parts" / ("train" if i % 4 else "test") / file.parent.name / file.name)
    (tmp_path / "parts" / "test" / "oak" / "again.jpg").write_bytes(encoded(scene(1), quality=40))
    document = checked(tmp_path / "parts", tmp_path / "again", *blind)
    assert paths(document, "near leak") == {"train/oak/1.jpg", "test/oak/again.jpg"}
    assert document["findings"][0]["kind"] == "near leak"


@pytest.mark.parametrize("weights", ["none fit", "published"])
@pytest.mark.parametrize("good", [0, 1, 2, 4])
def test_damaged_folders(
    tmp_path: Path, blind: tuple[str, Path], good: int, weights: str, request: pytest.FixtureRequest
) -> None:
    """Nothing but broken files, and too few photos to train on: the check ends, and says so."""
    data = write_folder(tmp_path / "photos", {"oak": (good + 1) // 2, "beech": good // 2})
    broken = write_broken(data / "oak")
    if weights == "published":
        request.getfixturevalue("pretrained")
    document = checked(data, tmp_path / "out", *(blind if weights == "none fit" else ()))
    assert document["photos"] == good
    assert {p.relative_to(data).as_posix() for p in broken} == paths(document, "unreadable") - {
        "beech"
    }  # an empty class
    assert document["lines"][1] == "Labels: not judged."
    assert document["lines"][2].startswith("Photos: none can be read" if not good else "Photos: ")


def test_one_class(tmp_path: Path, pretrained: Path) -> None:
    data = write_folder(tmp_path / "photos", ("oak",), 12)
    document = checked(data, tmp_path / "out")
    assert document["classes"] == ["oak"]
    assert not {"label", "conflict", "shortcut", "unequal"} & set(document["summary"]["kinds"])
    assert document["lines"][1] == "Labels: not judged."


def test_what_is_printed(tmp_path: Path, blind: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_folder(tmp_path / "photos", {"oak": 21, "beech": 6})
    broken = write_broken(data / "oak")
    options = ("--backbone", "mobilenet_v2", *blind)
    shown = must("check", data, *options)
    assert f"Files that are left out ({len(broken)}). Replace the file by an intact copy" in shown.out
    assert f"... and {len(broken) - 10} more, in check.csv and check.html" in shown.out
    assert "Unequal classes (1). Add photos of the small classes, or train with --balance loss." in shown.out
    assert "beech, oak (21 photos of oak, 6 of beech)" in shown.out
    assert f"Report: {Path('runs') / 'photos-check' / 'check.html'}" in shown.out
    assert (tmp_path / "runs" / "photos-check" / "check.html").exists()
    quiet = must("check", data, *options, "--quiet")
    assert quiet.out + quiet.err == ""
    saved = must("check", data, *options, "--write", tmp_path / "exclude.csv")
    assert f"To leave out: 0 photos, in {tmp_path / 'exclude.csv'}" in saved.out
    assert (tmp_path / "exclude.csv").read_text(encoding="utf-8") == "path,action,label,why,confidence\n"


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    assert "no such" in call("check", tmp_path / "nothing").error
    (tmp_path / "empty").mkdir()
    assert "is empty" in call("check", tmp_path / "empty").error
    write_folder(tmp_path / "photos", ("oak", "beech"), 2)
    assert "is not a set of photos" in call("check", tmp_path / "photos" / "oak" / "oak 1.jpeg").error
    assert "--backbone" in call("check", tmp_path / "photos", "--weights", tmp_path / "w.pth").error
    assert ".csv" in call("check", tmp_path, "--write", tmp_path / "x.txt").error
    assert "did you mean 'onnx'" in call("check", tmp_path, "--engine", "onx").error


# ---- the list, and what a study makes of it --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cleaned(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """A study with a list of decisions: its folder, the list, and the options."""
    base = tmp_path_factory.mktemp("cleaned")
    data = write_folder(base / "photos", ("oak", "beech"), 14)
    names = sorted(p.relative_to(data).as_posix() for p in data.rglob("*.*"))
    rows = [(name, "exclude", "") for name in names[:6]] + [(names[7], "relabel", "oak")]
    file = base / "exclude.csv"
    file.write_text("path,action,label\n" + "".join(f"{','.join(row)}\n" for row in rows), encoding="utf-8")
    options = [str(data), "--strategies", "frozen", "--preset", "fast", "--image-size", "64"]
    must("study", *options, "--out", base / "run", "--exclude", file)
    must("study", *options, "--out", base / "plain")
    return base, file, options


def test_a_study_honours_the_list(cleaned: tuple[Path, Path, list[str]]) -> None:
    base, file, _ = cleaned
    run, plain = document(base / "run"), document(base / "plain")
    decided = {row["path"]: row for row in table(file)}
    used = {row["path"]: row["label"] for row in table(base / "run" / "manifest.csv")}
    assert not {p for p, row in decided.items() if row["action"] == "exclude"} & set(used)
    assert [used[p] for p, row in decided.items() if row["action"] == "relabel"] == ["oak"]
    assert run["dataset"]["cleaned"] == {"list": str(file), "left_out": 6, "relabelled": 1}
    assert {s["path"] for s in run["dataset"]["skipped"]} == {p for p, r in decided.items() if r["action"] == "exclude"}
    assert plain["dataset"]["cleaned"] is None
    assert "accuracy_as_given" not in plain["strategies"][0]


def test_with_and_without_are_of_the_same_photos(cleaned: tuple[Path, Path, list[str]]) -> None:
    base, _, _ = cleaned
    parts = {name: {r["path"]: r["split"] for r in table(base / name / "manifest.csv")} for name in ("run", "plain")}
    assert all(parts["plain"][path] == part for path, part in parts["run"].items())
    row = document(base / "run")["strategies"][0]
    asked = [path for path, part in parts["plain"].items() if part == "test"]
    assert row["photos_as_given"] == len(asked)
    assert 0 <= row["accuracy_as_given_ci"][0] <= row["accuracy_as_given"] <= row["accuracy_as_given_ci"][1] <= 1
    assert "with their original labels" in document(base / "run")["answer_detail"]


def test_another_list_is_noticed(cleaned: tuple[Path, Path, list[str]]) -> None:
    base, file, options = cleaned
    again = ["study", *options, "--out", base / "run", "--exclude"]
    other = base / "other.csv"
    other.write_bytes(file.read_bytes())
    must(*again, other, "--resume")
    other.write_text("path,action\n", encoding="utf-8")
    assert "differs in exclude" in call(*again, other, "--resume").error
    config = base / "run" / "config.toml"
    text = config.read_text(encoding="utf-8")
    (base / "config.toml").write_text(text.replace(str(file), str(other)), encoding="utf-8")
    changed = call("study", "--config", base / "config.toml", "--out", base / "third").error
    assert "not the list that the configuration was made with" in changed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,action\noak/oak 99.png,exclude\n", "did you mean 'oak/oak"),
        ("path,action,label\noak/oak 1.jpeg,relabel,beach\n", "did you mean 'beech'"),
        ("path,action\noak/oak 1.jpeg,remove\n", "unknown action 'remove'"),
        ("path,action,label\noak/oak 1.jpeg,relabel,\n", "needs a label"),
        ("path,action,label\noak/oak 1.jpeg,relabel,beech\noak/oak 1.jpeg,exclude,\n", "decided twice"),
        ("file,do\n", "must name the columns"),
        (None, "no such file"),
    ],
)
def test_a_list_that_does_not_fit(cleaned: tuple[Path, Path, list[str]], text: str | None, said: str) -> None:
    base, _, options = cleaned
    file = base / "wrong.csv"
    file.unlink(missing_ok=True)
    if text is not None:
        file.write_text(text, encoding="utf-8")
    assert said in call("study", *options, "--out", base / "wrong", "--exclude", file).error


def test_a_study_says_what_the_quick_check_found(cleaned: tuple[Path, Path, list[str]]) -> None:
    base, _, _ = cleaned
    check = document(base / "plain")["dataset"]["check"]
    assert [line.split(":")[0] for line in check["lines"]] == ["Files", "Labels", "Photos"]


@pytest.mark.parametrize(
    ("options", "said"), [(("--seed", "-1"), "seed -1"), (("--image-size", "100000"), "image size 100000")]
)
def test_numbers_out_of_range_are_told_before_any_work(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    assert said in call("check", write_folder(tmp_path / "photos", ["a", "b"], 2), *options).error
