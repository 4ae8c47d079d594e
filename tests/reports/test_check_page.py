"""check.html: decisions by mouse and keyboard, saved as a list that a study takes; photos and names that mean harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.commands import must, ordinary_user, table
from support.photos import FORMATS, encoded, photo, picture, write_broken, write_folder
from support.reports import Visit

NASTY = "<img src=x onerror=document.title='hit'>"


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Photos in classes and under names that mean harm, a dark one in each class, and what the check left."""
    base = tmp_path_factory.mktemp("page")
    data = write_folder(base / "photos", ("oak", f'"{NASTY.replace("/", "")}'), 4)
    for number, folder in enumerate(sorted(data.iterdir())):
        dark = encoded(picture(50 + number, 200, 150).point(lambda v: v // 12))
        (folder / f'dark, "{number}"\n{NASTY}.jpg').write_bytes(dark)
    none = base / "weights.pth"
    none.write_bytes(b"")
    must("check", data, "--out", base / "out", "--backbone", "mobilenet_v2", "--weights", none, "--quiet")
    return data, base / "out"


def test_decisions_are_saved_as_a_list(left: tuple[Path, Path], tmp_path: Path, chromium: Any) -> None:
    data, out = left
    with Visit(chromium, out / "check.html", viewport={"width": 390, "height": 800}) as visit:
        page = visit.page
        assert "hit" not in page.title()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        sets = page.locator("#dark fieldset[data-path]")
        assert sets.count() == 2
        sets.nth(0).get_by_label("leave out").check()
        radio = sets.nth(1).get_by_label("keep")  # the second by keyboard alone
        radio.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert page.locator("#said").inner_text() == "1 to leave out, 1 to relabel"
        with page.expect_download() as download:
            page.get_by_role("button", name="Save exclude.csv").click()
        assert download.value.suggested_filename == "exclude.csv"
        download.value.save_as(tmp_path / "exclude.csv")
    rows = table(tmp_path / "exclude.csv")
    names = {p.relative_to(data).as_posix() for p in data.rglob("dark*")}
    assert {row["path"] for row in rows} == names
    assert {row["action"] for row in rows} == {"exclude", "relabel"}
    assert next(row["label"] for row in rows if row["action"] == "relabel") in {p.name for p in data.iterdir()}


# ---- nothing makes it stop -------------------------------------------------------------------------------------------


def test_a_corpus_of_broken_files(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_folder(open_folder / "photos", ("oak", "beech"), 3)
    broken = {p.relative_to(data).as_posix() for p in write_broken(data / "oak")}
    for kind in FORMATS:
        whole = photo(5, kind, 240, 160)
        for tenth in range(10):
            (data / "beech" / f"{kind} {tenth}.jpg").write_bytes(whole[: len(whole) * tenth // 10])
            broken.add(f"beech/{kind} {tenth}.jpg")
    (data / "oak" / "loop").symlink_to(data / "oak")
    (data / "oak" / "nowhere.jpg").symlink_to(data / "missing.jpg")
    locked = data / "oak" / "locked.jpg"
    locked.write_bytes(photo(9))
    locked.chmod(0)
    (data / "oak" / "new\nline \"quoted\", 'x'.jpg").write_bytes(photo(10))
    none = open_folder / "weights.pth"
    none.write_bytes(b"")
    out = open_folder / "out"
    for folder in (out, open_folder / "cache"):
        folder.mkdir()
        folder.chmod(0o777)
    monkeypatch.setenv("FROSTLINE_CACHE", str(open_folder / "cache"))
    options = ("--out", out, "--backbone", "mobilenet_v2", "--weights", none, "--json")
    with ordinary_user():
        document = json.loads(must("check", data, *options).out)
    listed = {p for f in document["findings"] if f["kind"] == "unreadable" for p in f["paths"]}
    assert broken | {"oak/loop", "oak/nowhere.jpg", "oak/locked.jpg"} == listed
    assert document["photos"] == 7


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(FORMATS),
    edits=st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=8)), max_size=6),
)
def test_mutated_headers(tmp_path: Path, kind: str, edits: list[tuple[int, bytes]]) -> None:
    """Each mutated file is either looked at or listed, and nothing else happens."""
    data = tmp_path / "photos"
    if not data.exists():
        write_folder(data, ("oak", "beech"), 2)
        (tmp_path / "weights.pth").write_bytes(b"")
    content = bytearray(photo(3, kind))
    for place, patch in edits:
        content[place : place + len(patch)] = patch
    (data / "oak" / "mutant.jpg").write_bytes(content)
    options = ("--out", tmp_path / "out", "--backbone", "mobilenet_v2", "--weights", tmp_path / "weights.pth", "--json")
    document = json.loads(must("check", data, *options).out)
    listed = {p for f in document["findings"] if f["kind"] == "unreadable" for p in f["paths"]}
    assert document["photos"] == 4 + ("oak/mutant.jpg" not in listed)
