"""The table of findings: each kind is found in photos that have it, and any set of photos gives findings in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostline.checks import check, kinds
from frostline.checks.examine import Examined
from frostline.checks.kinds import KINDS, Finding
from frostline.checks.near_duplicates import DuplicateGroup, Link
from frostline.photos.manifest import Manifest, Photo, Skip


def listed(*rows: tuple[str, str, str, str], skipped: tuple[Skip, ...] = ()) -> Manifest:
    """A manifest of (path, class, part, bytes)."""
    return Manifest(Path("nowhere"), [Photo(*row) for row in rows], list(skipped))


def near(manifest: Manifest, *indices: int) -> DuplicateGroup:
    link = Link(indices[0], indices[1], "cropped", 0.8)
    return DuplicateGroup(indices, tuple(manifest.photos[i] for i in indices), (link,))


@pytest.mark.parametrize(
    ("parts", "classes", "kind"),
    [
        (("train", "test"), ("oak", "oak"), "leak"),
        (("train", "test"), ("oak", "beech"), "leak"),  # the leak is worse
        (("", ""), ("oak", "beech"), "conflict"),
        (("", ""), ("oak", "oak"), "twins"),
    ],
)
def test_duplicates_by_part_and_class(parts: tuple[str, str], classes: tuple[str, str], kind: str) -> None:
    same = listed(("a.jpg", classes[0], parts[0], "1"), ("b.jpg", classes[1], parts[1], "1"))
    (finding,) = kinds.find(Examined(same))
    assert (finding.kind, finding.paths, finding.classes, finding.confidence) == (
        kind,
        ["a.jpg", "b.jpg"],
        [*classes],
        1,
    )
    alike = listed(("a.jpg", classes[0], parts[0], "1"), ("b.jpg", classes[1], parts[1], "2"))
    (finding,) = kinds.find(Examined(alike, near=[near(alike, 0, 1)]))
    assert (finding.kind, finding.paths, finding.confidence) == (f"near {kind}", ["a.jpg", "b.jpg"], 0.8)
    assert finding.detail == ("cropped, in test and train" if kind == "leak" else "cropped")


@pytest.mark.parametrize("classes", ["oak beech ash", "oak oak beech beech"])
@pytest.mark.parametrize("parts", [("",), ("train", "test")])
@pytest.mark.parametrize("alike", [False, True])
def test_a_picture_that_stands_for_several_classes_is_a_placeholder(
    classes: str, parts: tuple[str, ...], alike: bool
) -> None:
    rows = [
        (f"{i}.jpg", label, parts[i % len(parts)], str(i) if alike else "1") for i, label in enumerate(classes.split())
    ]
    photos = listed(*rows)
    groups = [near(photos, *range(len(rows)))] if alike else []
    (finding,) = kinds.find(Examined(photos, near=groups))
    assert (finding.kind, finding.paths, finding.suggested) == ("placeholder", [row[0] for row in rows], None)
    assert {d.path for d in check.decisions([finding])} == {row[0] for row in rows}
    assert {d.action for d in check.decisions([finding])} == {"exclude"}


def test_of_a_set_packed_inside_itself_one_copy_of_each_photo_is_kept() -> None:
    rows = [(f"{label}/{i}.jpg", label, "", f"{label} {i}") for label in ("oak", "beech", "ash") for i in range(6)]
    again = [(f"trees/{path}", "trees", "", content) for path, _, _, content in rows]
    found = kinds.find(Examined(listed(*rows, *again)))
    assert {f.kind for f in found} == {"conflict"}
    assert {d.path for d in check.decisions(found)} == {row[0] for row in again}


@pytest.mark.parametrize(("small", "told"), [(10, False), (9, True)])
def test_classes_are_unequal_from_three_times_on(small: int, told: bool) -> None:
    rows = [(f"{i}.jpg", "oak" if i < 30 else "beech", "", str(i)) for i in range(30 + small)]
    found = kinds.find(Examined(listed(*rows)))
    assert [f.kind for f in found] == ["unequal"] * told
    if told:
        assert found[0].classes == ["beech", "oak"]
        assert found[0].detail == "30 photos of oak, 9 of beech"


def test_files_that_are_left_out() -> None:
    (finding,) = kinds.find(Examined(listed(skipped=(Skip("a/x.jpg", "empty file"),))))
    assert (finding.kind, finding.paths, finding.detail) == ("unreadable", ["a/x.jpg"], "empty file")


# ---- what features tell ----------------------------------------------------------------------------------------------


def two_classes(each: int = 40) -> tuple[list[tuple[str, str, str, str]], np.ndarray]:
    """Rows of a manifest of two classes, and features (2 * each, 16) that tell them apart."""
    rng = np.random.default_rng(0)
    rows = [(f"{i}.jpg", "oak" if i < each else "beech", "", str(i)) for i in range(2 * each)]
    centre = np.where(np.arange(2 * each) < each, 4, -4)[:, None] * np.ones(16)
    return rows, (centre + rng.normal(size=(2 * each, 16))).astype(np.float32)


def test_a_wrong_label_and_a_photo_unlike_any_class() -> None:
    rows, features = two_classes()
    for i in (3, 4):
        rows[i] = (f"{i}.jpg", "beech", "", str(i))
    features[70] = -40
    found = kinds.find(Examined(listed(*rows), features=features))
    label, other, junk = found
    assert {(f.kind, *f.paths, *f.classes, f.suggested) for f in (label, other)} == {
        ("label", f"{i}.jpg", "beech", "oak") for i in (3, 4)
    }
    assert label.detail.startswith("Cross-validated prediction: oak (")
    assert label.detail.endswith(" %). Label: beech.")
    assert (junk.kind, junk.paths, junk.suggested) == ("junk", ["70.jpg"], None)
    assert junk.confidence == 1
    assert {d.path for d in check.decisions(found)} <= {"3.jpg", "4.jpg"}


def test_one_contradicted_label_of_eighty_may_be_chance() -> None:
    """Predictions are 98 % sure: two of eighty right labels would be contradicted."""
    rows, features = two_classes()
    rows[3] = ("3.jpg", "beech", "", "3")
    (hard,) = kinds.find(Examined(listed(*rows), features=features))
    assert (hard.kind, hard.paths, hard.suggested) == ("hard", ["3.jpg"], "oak")
    assert check.decisions([hard]) == []


def test_only_almost_sure_label_errors_are_left_out_unseen() -> None:
    found = [Finding("label", [f"{c}.jpg"], ["beech"], c, "oak") for c in (1.0, check.SURE, check.SURE - 0.001)]
    assert [(d.path, d.action, d.label, d.why) for d in check.decisions(found)] == [
        ("1.0.jpg", "exclude", "", "likely oak, not beech"),
        ("0.98.jpg", "exclude", "", "likely oak, not beech"),
    ]


@pytest.mark.parametrize(("clear", "out"), [(True, {"wrong.jpg"}), (False, {"5.jpg", "wrong.jpg"})])
def test_a_photo_in_two_classes_is_left_out_of_the_wrong_one_or_of_both(clear: bool, out: set[str]) -> None:
    rows, features = two_classes()
    rows.append(("wrong.jpg", "beech", "", "5"))
    if not clear:
        features[5] = 0
    found = kinds.find(Examined(listed(*rows), features=np.concatenate([features, features[5:6]])))
    conflict = next(f for f in found if f.kind == "conflict")
    assert conflict.suggested == ("oak" if clear else None)
    assert ("cross-validated prediction: oak (" in conflict.detail) == clear
    assert {d.path for d in check.decisions(found)} == out
    assert all(d.why == "the same photo in oak and beech" for d in check.decisions(found))


def test_one_class_has_no_wrong_labels_but_may_hold_odd_photos() -> None:
    _, features = two_classes()
    features = features[:40].copy()
    features[7] = -20
    rows = [(f"{i}.jpg", "oak", "", str(i)) for i in range(40)]
    assert {(f.kind, *f.paths) for f in kinds.find(Examined(listed(*rows), features=features))} == {("junk", "7.jpg")}


# ---- any photos ------------------------------------------------------------------------------------------------------


@st.composite
def photos(draw: st.DrawFn) -> Examined:
    count = draw(st.integers(0, 30))
    some = st.lists(st.integers(0, 2), min_size=count, max_size=count)
    labels, parts, contents = draw(some), draw(some), draw(st.lists(st.integers(0, 40), min_size=count, max_size=count))
    rows = [
        (f"{i}.jpg", f"class {label}", ("", "train", "test")[part], str(content))
        for i, (label, part, content) in enumerate(zip(labels, parts, contents, strict=True))
    ]
    skipped = tuple(Skip(f"bad {i}.jpg", "empty file") for i in range(draw(st.integers(0, 2))))
    features = np.random.default_rng(draw(st.integers(0, 99))).normal(size=(count, 4)).astype(np.float32)
    manifest = listed(*rows, skipped=skipped)
    different = [i for i in range(1, count) if contents[i] != contents[0]]
    groups = [near(manifest, 0, different[0])] if different and draw(st.booleans()) else []
    return Examined(manifest, features=features if draw(st.booleans()) else None, near=groups)


@settings(deadline=None, max_examples=80)
@given(photos())
def test_any_photos_give_findings_in_order(examined: Examined) -> None:
    found = kinds.find(examined)
    order = [(list(KINDS).index(f.kind), -f.confidence) for f in found]
    assert order == sorted(order)
    there = {p.path: p.label for p in examined.photos.photos}
    for f in found:
        assert 0 <= f.confidence <= 1
        assert f.suggested is None or f.suggested in examined.photos.classes
        if f.kind == "unreadable":
            assert set(f.paths) <= {skip.path for skip in examined.photos.skipped}
        else:
            assert [there[path] for path in f.paths] == f.classes or not f.paths
    assert len({(f.kind, *f.paths, *f.classes) for f in found}) == len(found)
    lines = check.lines(found, len(there), judged=True)
    assert [line.split(":")[0] for line in lines] == ["Files", "Labels", "Photos"]
    decided = check.decisions(found)
    assert len({d.path for d in decided}) == len(decided)
    assert {d.action for d in decided} <= {"exclude"}
    assert {d.path for d in decided} <= {
        p for f in found if f.kind in ("conflict", "label", "placeholder") for p in f.paths
    }


def test_the_summary_counts_every_kind() -> None:
    for kind, about in KINDS.items():
        some = [Finding(kind, [f"{i}.jpg"], ["oak"], 1.0, "beech", "what was measured") for i in range(2)]
        (line,) = [line for line in check.lines(some, 9, judged=True) if line.startswith(about.line)]
        assert (f"2 {about.counted[1]}" if about.counted else "what was measured; what was measured") in line


def test_a_study_s_quick_check_says_what_it_did_not_do() -> None:
    rows = [(f"{i}.jpg", "oak" if i < 9 else "beech", "", str(i)) for i in range(11)]
    seen = check.quick(listed(*rows, ("copy.jpg", "oak", "", "0")), None)
    assert seen["kinds"] == {"twins": 1, "unequal": 1}
    assert seen["lines"] == [
        "Files: 1 group of duplicates (12 usable photos).",
        "Labels: not judged, no pretrained network is among the strategies.",
        "Photos: 10 photos of oak, 2 of beech; frostline check lists all findings, and looks at light, sharpness and "
        "shortcuts.",
    ]
    assert seen["labels"] == []
