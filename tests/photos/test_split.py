"""The split: stratified, disjoint, complete, the same for the same seed, and no duplicate in two parts."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from frostline.errors import DataError
from frostline.photos.manifest import Manifest, Photo
from frostline.photos.scan import scan
from frostline.photos.split import Protocol, Split, leaks, make_split, together
from support import photos


def digest(content: object) -> str:
    return hashlib.sha256(str(content).encode()).hexdigest()


def made(rows: Sequence[tuple[str, object, str]]) -> Manifest:
    """A manifest of (label, content, split) rows."""
    listed = [
        Photo(f"{label}/{i}.jpg", label, split, digest(content)) for i, (label, content, split) in enumerate(rows)
    ]
    return Manifest(Path("nowhere"), listed)


def plain(counts: dict[str, int], split: str = "", start: int = 0) -> list[tuple[str, object, str]]:
    return [(label, f"{label}{start + i}", split) for label, n in counts.items() for i in range(n)]


def parts_of(split: Split) -> dict[str, np.ndarray]:
    return {"train": split.train, "validation": split.validation, "test": split.test}


def straddling(manifest: Manifest, split: Split) -> list[list[Photo]]:
    """Groups of photos that belong together and stand in more than one part; only given parts can have them."""
    places: defaultdict[int, set[str]] = defaultdict(set)
    for name, part in parts_of(split).items():
        for index in part:
            places[int(index)].add(name)
    groups = [group for group in together(manifest.photos) if any(places[i] != places[group[0]] for i in group)]
    return [[manifest.photos[i] for i in group] for group in groups]


def check_sound(manifest: Manifest, split: Split, needed: Sequence[str]) -> None:
    everything = np.concatenate(list(parts_of(split).values()))
    assert sorted(everything.tolist()) == list(range(len(manifest.photos)))
    for name, part in parts_of(split).items():
        assert (np.diff(part) > 0).all()
        assert part.dtype == np.intp
        if name not in needed:
            assert not len(part)
    sides: defaultdict[str, set[str]] = defaultdict(set)
    for name, part in parts_of(split).items():
        for index in part:
            sides[manifest.photos[index].sha256].add(name)
    assert all(len(names) == 1 for names in sides.values())
    assert straddling(manifest, split) == []


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """2-5 classes, some of their photos twice, some of them in two classes; at least 3 different ones of each alone."""
    rows: list[tuple[str, object, str]] = []
    names = [f"class {i}" for i in range(draw(st.integers(2, 5)))]
    for name in names:
        number = draw(st.integers(3, 40))
        copies = draw(st.lists(st.integers(1, 4), min_size=number, max_size=number))
        rows += [(name, f"{name}{i}", "") for i, n in enumerate(copies) for _ in range(n)]
    for i in range(draw(st.integers(0, 6))):
        first, second = draw(st.lists(st.sampled_from(names), min_size=2, max_size=2, unique=True))
        rows += [(first, f"both {i}", ""), (second, f"both {i}", "")]
    return made(draw(st.permutations(rows)) if draw(st.booleans()) else rows)


NEEDED: dict[tuple[Protocol, bool], list[str]] = {
    ("tutorial", False): ["train", "validation"],
    ("tutorial", True): ["train", "validation"],
    ("rigorous", False): ["train", "validation", "test"],
    ("rigorous", True): ["train", "validation"],
}


@settings(deadline=None, max_examples=150)
@given(manifests(), st.sampled_from(sorted(NEEDED)), st.integers(0, 2**32))
def test_parts_are_disjoint_complete_and_hold_every_class(
    manifest: Manifest, key: tuple[Protocol, bool], seed: int
) -> None:
    protocol, external = key
    split = make_split(manifest, protocol, seed, external)
    check_sound(manifest, split, NEEDED[key])
    for part in NEEDED[key]:
        labels = {manifest.photos[i].label for i in parts_of(split)[part]}
        assert labels == set(manifest.classes)
    again = make_split(manifest, protocol, seed, external)
    for mine, other in zip(parts_of(split).values(), parts_of(again).values(), strict=True):
        np.testing.assert_array_equal(mine, other)


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(3, 200), min_size=2, max_size=5),
    st.integers(0, 99),
)
def test_without_duplicates_each_class_is_within_one_of_its_share(counts: dict[str, int], seed: int) -> None:
    manifest = made(plain(counts))
    for (protocol, external), parts in NEEDED.items():
        split = make_split(manifest, protocol, seed, external)
        shares = [0.65, 0.15, 0.2] if len(parts) == 3 else [0.8, 0.2]
        for part, share in zip(parts, shares, strict=True):
            tally = Counter(manifest.photos[i].label for i in parts_of(split)[part])
            for label, n in counts.items():
                # below 7 photos the rule of one in each part takes some from train
                assert abs(tally[label] - n * share) < (1 if n >= 7 else 2)
                assert tally[label] >= 1


@settings(deadline=None, max_examples=40)
@given(manifests(), st.randoms(use_true_random=False))
def test_names_and_order_of_files_do_not_matter(manifest: Manifest, shuffle: object) -> None:
    order = list(range(len(manifest.photos)))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    moved = Manifest(
        Path("elsewhere"),
        [Photo(f"renamed {i}", manifest.photos[i].label, "", manifest.photos[i].sha256) for i in order],
    )
    for protocol in ("tutorial", "rigorous"):
        one, other = make_split(manifest, protocol, 5), make_split(moved, protocol, 5)
        for mine, its in zip(parts_of(one).values(), parts_of(other).values(), strict=True):
            assert sorted(mine.tolist()) == sorted(order[i] for i in its)


def test_another_seed_gives_another_split_and_every_photo_its_turn() -> None:
    manifest = made(plain({"a": 40, "b": 40}))
    splits = [make_split(manifest, "rigorous", seed) for seed in range(60)]
    assert len({split.test.tobytes() for split in splits}) == 60
    turns = Counter(int(i) for split in splits for i in split.test)
    assert set(turns) == set(range(80))
    assert max(turns.values()) < 30  # 12 expected


def test_duplicates_are_not_always_trained_on() -> None:
    """A group goes to a part by chance, so the test photos resemble the rest in this too."""
    rows = [*plain({"a": 40, "b": 40}), ("a", "same", ""), ("a", "same", "")]
    tested = sum(80 in make_split(made(rows), "tutorial", seed).validation for seed in range(100))
    assert 5 <= tested <= 40


def test_groups_larger_than_a_part_still_leave_every_part_something() -> None:
    rows = [("a", group, "") for group in range(3) for _ in range(50)] + plain({"b": 3})
    for seed in range(20):
        manifest = made(rows)
        split = make_split(manifest, "rigorous", seed)
        check_sound(manifest, split, ["train", "validation", "test"])
        assert all({manifest.photos[i].label for i in part} == {"a", "b"} for part in parts_of(split).values())


# --- too few


def test_too_few_photos_name_every_class_and_the_way_out() -> None:
    manifest = made(plain({"rose": 1, "tulip": 30, "lily": 2}))
    with pytest.raises(DataError) as caught:
        make_split(manifest, "rigorous", 0)
    assert str(caught.value) == (
        "class 'lily' has 2 photos, class 'rose' has 1 photo; the rigorous protocol needs at least 3 different ones "
        "of each (train, validation, test): add photos, remove the class, or use --protocol tutorial (2)"
    )
    with pytest.raises(DataError) as caught:
        make_split(manifest, "tutorial", 0)
    assert str(caught.value) == (
        "class 'rose' has 1 photo; the tutorial protocol needs at least 2 different ones (train, validation): "
        "add photos or remove the class"
    )
    with pytest.raises(DataError, match="needs at least 2 different ones"):
        make_split(manifest, "rigorous", 0, external_test=True)


def test_copies_of_one_photo_count_as_one() -> None:
    manifest = made([("rose", "same", "")] * 5 + plain({"tulip": 9}))
    with pytest.raises(DataError, match=r"'rose' has 5 photos, only 1 of them different and its own; .* at least 2"):
        make_split(manifest, "tutorial", 0)


def test_photos_that_stand_in_two_classes_do_not_make_a_class() -> None:
    rows = [(label, i, "") for i in range(2) for label in ("rose", "tulip")] + plain({"tulip": 30})
    split = make_split(made(rows), "tutorial", 0)  # the smaller class gets them
    check_sound(made(rows), split, ["train", "validation"])
    with pytest.raises(DataError, match="class 'rose' has 2 photos; the rigorous"):
        make_split(made(rows), "rigorous", 0)


# --- given splits


def given_parts(**counts: int) -> Manifest:
    rows: list[tuple[str, object, str]] = []
    for i, (part, n) in enumerate(counts.items()):
        rows += plain({"a": n, "b": n}, part, 1000 * i)
    return made(rows)


def indices(manifest: Manifest, part: str) -> list[int]:
    return [i for i, photo in enumerate(manifest.photos) if photo.split == part]


def test_given_train_validation_test_are_used_as_given() -> None:
    manifest = given_parts(train=10, validation=5, test=4)
    for key in NEEDED:
        split = make_split(manifest, key[0], 3, key[1])
        for name, part in parts_of(split).items():
            assert part.tolist() == indices(manifest, name)


def test_rigorous_cuts_what_is_missing_from_train() -> None:
    manifest = given_parts(train=85, validation=30)
    split = make_split(manifest, "rigorous", 0)
    check_sound(manifest, split, ["train", "validation", "test"])
    assert split.validation.tolist() == indices(manifest, "validation")
    assert (len(split.train), len(split.test)) == (130, 40)

    manifest = given_parts(train=80, test=30)
    split = make_split(manifest, "rigorous", 0)
    check_sound(manifest, split, ["train", "validation", "test"])
    assert split.test.tolist() == indices(manifest, "test")
    assert (len(split.train), len(split.validation)) == (130, 30)

    manifest = given_parts(train=50)
    assert [len(part) for part in parts_of(make_split(manifest, "rigorous", 0)).values()] == [66, 14, 20]


def test_tutorial_with_given_parts() -> None:
    manifest = given_parts(train=20, test=10)
    split = make_split(manifest, "tutorial", 0)
    assert split.train.tolist() == indices(manifest, "train")
    assert split.test.tolist() == indices(manifest, "test")
    assert split.validation is split.test
    assert straddling(manifest, split) == []
    assert split.names() == ["train"] * 40 + ["test"] * 20

    manifest = given_parts(train=20, validation=10)
    split = make_split(manifest, "tutorial", 0)
    assert split.validation.tolist() == indices(manifest, "validation")
    assert not len(split.test)


def test_duplicates_across_given_parts_are_kept() -> None:
    rows = plain({"a": 30, "b": 30}, "train") + plain({"a": 8, "b": 8}, "validation", 100)
    rows += [("a", "same", "train"), ("a", "same", "validation"), ("b", "pair", "train"), ("b", "pair", "train")]
    manifest = made(rows)
    for seed in range(20):
        split = make_split(manifest, "rigorous", seed)
        assert split.validation.tolist() == indices(manifest, "validation")
        assert straddling(manifest, split) == [[manifest.photos[76], manifest.photos[77]]]
        assert 76 in split.train  # cutting it off for the test would leak to a second side
    assert len(straddling(manifest, make_split(manifest, "tutorial", 0))) == 1


def test_given_parts_that_can_not_be_used() -> None:
    rows = plain({"a": 9, "b": 1}, "train") + plain({"a": 4, "b": 4}, "validation", 50)
    with pytest.raises(DataError, match=r"class 'b' has 1 photo in train; the rigorous protocol needs at least 2"):
        make_split(made(rows), "rigorous", 0)
    rows = plain({"a": 9}, "train") + plain({"a": 4, "b": 4}, "validation", 50)
    with pytest.raises(DataError, match=r"class 'b' has 0 photos in train; the tutorial protocol needs at least one"):
        make_split(made(rows), "tutorial", 0)
    with pytest.raises(DataError, match="needs at least one"):
        make_split(made(plain({"a": 4, "b": 4}, "test")), "tutorial", 0)
    with pytest.raises(DataError, match="either every photo has one or none has"):
        make_split(made([*plain({"a": 4}, "train"), *plain({"b": 4})]), "tutorial", 0)


@settings(deadline=None, max_examples=60)
@given(
    manifests(),
    st.lists(st.sampled_from(["train", "train", "train", "validation", "test"]), min_size=1),
    st.integers(0, 99),
)
def test_given_splits_never_mix(manifest: Manifest, pattern: list[str], seed: int) -> None:
    marked = [Photo(p.path, p.label, pattern[i % len(pattern)], p.sha256) for i, p in enumerate(manifest.photos)]
    manifest = Manifest(manifest.root, marked)
    before = {
        digest for digest in {p.sha256 for p in marked} if len({p.split for p in marked if p.sha256 == digest}) > 1
    }
    try:
        split = make_split(manifest, "rigorous", seed)
    except DataError:
        assume(False)
    everything = np.concatenate(list(parts_of(split).values()))
    assert sorted(everything.tolist()) == list(range(len(marked)))
    for part in ("validation", "test"):
        if part in pattern and indices(manifest, part):
            assert parts_of(split)[part].tolist() == indices(manifest, part)
    assert {group[0].sha256 for group in straddling(manifest, split)} == before


# --- real photos


@photos.needs_flowers
def test_the_flowers_are_split_as_in_the_tutorial() -> None:
    manifest = scan(photos.FLOWERS)
    counts = manifest.counts()
    for seed in range(3):
        for (protocol, external), parts in NEEDED.items():
            split = make_split(manifest, protocol, seed, external)
            check_sound(manifest, split, parts)
            shares = [0.65, 0.15, 0.2] if len(parts) == 3 else [0.8, 0.2]
            for part, share in zip(parts, shares, strict=True):
                tally = Counter(manifest.photos[i].label for i in parts_of(split)[part])
                for label, n in counts.items():
                    assert abs(tally[label] - n * share) <= 1


# --- groups: the same plant, the same patient


def grouped(rows: Sequence[tuple[str, str, str]]) -> Manifest:
    """A manifest of different photos: (label, group, split) rows."""
    listed = [Photo(f"{label}/{i}.jpg", label, split, digest(i), group) for i, (label, group, split) in enumerate(rows)]
    return Manifest(Path("nowhere"), listed)


@st.composite
def patients(draw: st.DrawFn) -> Manifest:
    """2-4 classes; patients with 1-8 photos of one class or of several; at least 6 patients of each class alone."""
    names = [f"class {i}" for i in range(draw(st.integers(2, 4)))]
    rows = [
        (name, f"{name} {number}", "")
        for name in names
        for number in range(draw(st.integers(6, 12)))
        for _ in range(draw(st.integers(1, 8)))
    ]
    for number in range(draw(st.integers(0, 5))):
        rows += [(draw(st.sampled_from(names)), f"both {number}", "") for _ in range(draw(st.integers(2, 6)))]
    rows += [(name, "", "") for name in names for _ in range(draw(st.integers(0, 9)))]
    return grouped(draw(st.permutations(rows)))


@settings(deadline=None, max_examples=60)
@given(patients(), st.sampled_from(sorted(NEEDED)), st.integers(0, 2**32))
def test_no_group_is_on_two_sides_and_every_class_is_on_each(
    manifest: Manifest, key: tuple[Protocol, bool], seed: int
) -> None:
    split = make_split(manifest, key[0], seed, key[1])
    check_sound(manifest, split, NEEDED[key])
    sides: defaultdict[str, set[str]] = defaultdict(set)
    for name, part in parts_of(split).items():
        for index in part:
            sides[manifest.photos[index].group].add(name)
    assert all(len(names) == 1 for group, names in sides.items() if group)
    for part in NEEDED[key]:
        assert {manifest.photos[i].label for i in parts_of(split)[part]} == set(manifest.classes)


def test_patients_with_photos_of_every_class_are_shared_out() -> None:
    manifest = grouped([(label, f"p{n}", "") for n in range(9) for label in ("sick", "well") for _ in range(4)])
    split = make_split(manifest, "rigorous", 3)
    assert {name: len({manifest.photos[i].group for i in part}) for name, part in parts_of(split).items()}["train"] >= 4
    assert straddling(manifest, split) == []


def test_duplicates_join_groups_and_ties_join_what_they_name() -> None:
    rows = [(label, f"{label}{n // 2}", "") for label in "ab" for n in range(40)]
    manifest = grouped(rows)
    copy = Photo("a/copy.jpg", "a", "", manifest.photos[0].sha256, "a19")  # a photo of plant a0, as one of plant a19
    manifest = Manifest(manifest.root, [*manifest.photos, copy])
    for seed in range(5):
        split = make_split(manifest, "rigorous", seed, ties=[[38, 20], [20, 22]])
        names = split.names()
        assert len({names[i] for i in (0, 1, 38, 39, 80, 20, 21, 22, 23)}) == 1
        assert straddling(manifest, split) == []


def test_too_few_groups_are_one_line() -> None:
    manifest = grouped([("rose", f"bush {n % 2}", "") for n in range(30)] + [("tulip", "", "") for _ in range(30)])
    with pytest.raises(DataError) as caught:
        make_split(manifest, "rigorous", 0)
    assert str(caught.value).startswith(
        "class 'rose' has 30 photos, in only 2 groups of its own; the rigorous protocol needs at least 3 groups "
    )
    assert make_split(manifest, "tutorial", 0).names()


def test_groups_that_stand_in_given_parts_are_leaks() -> None:
    rows = [(label, f"{label}{part}{n}", part) for label in "ab" for part in ("train", "test") for n in range(4)]
    manifest = grouped([*rows, ("a", "atest1", "train"), ("b", "atest1", "train"), ("a", "atrain1", "")][:-1])
    listed = {skip.path: skip.why for skip in leaks(manifest)}
    assert listed == {
        "a/16.jpg": "another photo of its group 'atest1' stands in test: a/5.jpg",
        "b/17.jpg": "another photo of its group 'atest1' stands in test: a/5.jpg",
    }
    clean = manifest.without(leaks(manifest))
    assert leaks(clean) == []
