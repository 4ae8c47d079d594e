"""frostline check: what it finds in a folder of planted faults, what it writes, and that nothing makes it stop."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFilter

from support.commands import call, document, must, table
from support.photos import encoded, photo, picture, textured, write_broken, write_folder

KINDS = ("leak", "conflict", "shortcut", "label", "junk", "unreadable", "empty", "tiny", "dark", "bright", "blurred")


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
    """Good photos with one fault of each kind that a single photo can have; the document; the folder of what was written."""
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


def test_the_folder_stays_as_it_was(tmp_path: Path, pretrained: Path) -> None:
    data = write_folder(tmp_path / "photos", ("oak", "beech"), 4)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in data.rglob("*") if p.is_file()}
    checked(data, tmp_path / "out", "--write", tmp_path / "exclude.csv")
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in data.rglob("*") if p.is_file()} == before


def test_wrong_labels_are_ranked_first(tmp_path: Path, pretrained: Path) -> None:
    for kind, name in enumerate(("flat", "steep")):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for i in range(40):
            (folder / f"{i}.png").write_bytes(encoded(textured(6 * kind, 100 * kind + i), "PNG"))
    for i in range(5):
        (tmp_path / "photos" / "flat" / f"wrong {i}.png").write_bytes(encoded(textured(6, 900 + i), "PNG"))
    document = checked(tmp_path / "photos", tmp_path / "out")
    suspects = found(document, "label")
    called = [f for f in suspects if "wrong" in f["paths"][0]]
    assert "wrong" in suspects[0]["paths"][0]
    assert len(called) >= 4
    assert len(called) / len(suspects) >= 0.7
    assert all(f["suggested"] == "steep" and f["classes"] == ["flat"] for f in called)
    confidences = [f["confidence"] for f in suspects]
    assert confidences == sorted(confidences, reverse=True)


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


def test_without_weights_the_rest_is_looked_at(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "photos", ("oak", "beech"), 4)
    (data / "oak" / "broken.jpg").write_bytes(b"no photo")
    (tmp_path / "weights.pth").write_bytes(b"not these")
    document = checked(data, tmp_path / "out", "--weights", tmp_path / "weights.pth")
    assert "labels were not judged" in document["notes"][0]
    assert paths(document, "unreadable") == {"oak/broken.jpg"}


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    assert "no such" in call("check", tmp_path / "nothing").error
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
    assert "as they were given" in document(base / "run")["answer_detail"]


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
