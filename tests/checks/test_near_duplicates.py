"""Near-duplicates: copies of a photo are found, look-alikes are not; they never straddle a split, and a run says so."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

import frostline
from frostline.checks import near_duplicates
from frostline.errors import DataError
from frostline.photos.manifest import Manifest, Photo
from frostline.photos.scan import scan
from frostline.photos.split import leaks, make_split, overlap, together
from support import photos
from support.commands import SMALL, call, document, must, table
from support.prepared import prepared_run

CLASSES = ("ash", "birch")


def cropped(photo: Image.Image, share: float, x: float, y: float) -> Image.Image:
    width, height = round(photo.width * share), round(photo.height * share)
    left, top = round((photo.width - width) * x), round((photo.height - height) * y)
    return photo.crop((left, top, left + width, top + height))


COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    "resized": lambda p: photos.encoded(p.resize((p.width // 2, p.height // 2)), quality=90),
    "quality 40": lambda p: photos.encoded(p, quality=40),
    "cropped, middle": lambda p: photos.encoded(cropped(p, 0.9, 0.5, 0.5), quality=90),
    "cropped, corner": lambda p: photos.encoded(cropped(p, 0.9, 1, 0.3), quality=90),
    "mirrored": lambda p: photos.encoded(p.transpose(Image.Transpose.FLIP_LEFT_RIGHT), quality=90),
    "brighter": lambda p: photos.encoded(ImageEnhance.Brightness(p).enhance(1.25), quality=90),
    "darker": lambda p: photos.encoded(ImageEnhance.Brightness(p).enhance(0.6), "PNG"),
}


def write(root: Path, name: str, data: bytes) -> str:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return name


def scenes(root: Path, each: int, first: int = 0, classes: tuple[str, ...] = CLASSES) -> Path:
    for number, label in enumerate(classes):
        for i in range(each):
            seed = first + number * each + i
            write(root, f"{label}/{seed}.jpg", photos.encoded(photos.scene(seed), quality=92))
    return root


def groups_of(root: Path) -> list[set[str]]:
    return [set(group.paths) for group in near_duplicates.find(scan(root))]


# --- finding


def test_copies_of_every_kind_are_found_and_nothing_else(tmp_path: Path) -> None:
    scenes(tmp_path, 20)
    expected = set()
    for number, (kind, copy) in enumerate(COPIES.items()):
        data = (tmp_path / "ash" / f"{number}.jpg").read_bytes()
        name = write(tmp_path, f"ash/{kind}.{'png' if kind == 'darker' else 'jpg'}", copy(Image.open(io.BytesIO(data))))
        expected.add(frozenset({f"ash/{number}.jpg", name}))
    found = near_duplicates.find(scan(tmp_path))
    assert {frozenset(group.paths) for group in found} == expected
    kinds = {kind: group.kind for group in found for kind in COPIES if any(kind in path for path in group.paths)}
    assert kinds["mirrored"] == "mirrored"
    assert kinds["cropped, middle"] == kinds["cropped, corner"] == "cropped"
    assert kinds["resized"] == kinds["quality 40"] == kinds["darker"] == "resized or recompressed"
    assert all(0.6 <= group.confidence <= 1 for group in found)


def test_many_copies_of_one_photo_are_one_group(tmp_path: Path) -> None:
    """More of them than candidates are looked at: copies must not hide their photo from one another."""
    scenes(tmp_path, 12)
    original = photos.scene(3)
    for i in range(8):
        write(
            tmp_path, f"ash/crop {i}.jpg", photos.encoded(cropped(original, 0.9, i % 3 / 2, i // 3 / 2), quality=70 + i)
        )
        write(tmp_path, f"ash/small {i}.jpg", photos.encoded(original.resize((80 + i, 80 + i)), quality=70 + i))
    assert [len(group) for group in groups_of(tmp_path)] == [17]


def test_names_and_the_order_of_files_do_not_matter(tmp_path: Path) -> None:
    scenes(tmp_path / "a", 8)
    write(tmp_path / "a", "birch/copy.jpg", COPIES["mirrored"](photos.scene(2)))
    files = sorted((tmp_path / "a").rglob("*.jpg"))
    for number, path in enumerate(reversed(files)):
        write(tmp_path / "b", f"{path.parent.name}/x{number}.jpg", path.read_bytes())
    digests = [
        {frozenset(photo.sha256 for photo in group.photos) for group in near_duplicates.find(scan(tmp_path / side))}
        for side in ("a", "b")
    ]
    assert digests[0] == digests[1]
    assert len(digests[0]) == 1


def test_bytes_classes_and_splits_are_told(tmp_path: Path) -> None:
    scenes(tmp_path / "train", 6)
    scenes(tmp_path / "test", 6, first=100)
    data = (tmp_path / "train/ash/0.jpg").read_bytes()
    write(tmp_path, "train/birch/same.jpg", data)
    write(tmp_path, "test/birch/small.jpg", COPIES["resized"](photos.scene(0)))
    (group,) = near_duplicates.find(scan(tmp_path))
    assert group.paths == ("test/birch/small.jpg", "train/ash/0.jpg", "train/birch/same.jpg")
    assert group.classes == ("birch", "ash", "birch")
    assert tuple(photo.split for photo in group.photos) == ("test", "train", "train")
    assert group.across_classes
    assert {link.kind for link in group.links} == {"same bytes", "resized or recompressed"}
    others = Manifest(tmp_path, [photo for photo in scan(tmp_path).photos if photo.split == "test"])
    mine = Manifest(tmp_path, [photo for photo in scan(tmp_path).photos if photo.split == "train"])
    (across,) = near_duplicates.find(mine, others=others)
    assert len(across.indices) == 3
    assert max(across.indices) >= len(mine.photos)


def test_textures_are_not_near_duplicates_of_their_kind(tmp_path: Path) -> None:
    for kind in range(3):
        for i in range(25):
            write(tmp_path, f"kind {kind}/{i}.png", photos.encoded(photos.textured(kind, 100 * kind + i), "PNG"))
    down, across = np.mgrid[:96, :96]
    for i in range(25):  # clean stripes: any two lie over each other once moved
        rng = np.random.default_rng(i)
        wave = np.sin(across * rng.uniform(0.5, 1) + rng.uniform(0, 6.3))
        grey = (128 + 100 * np.sign(wave) * 0.7 + rng.normal(0, 3, down.shape)).clip(0, 255).astype(np.uint8)
        write(tmp_path, f"stripes/{i}.png", photos.encoded(Image.fromarray(grey), "PNG"))
    assert sum(len(group) for group in groups_of(tmp_path)) <= 6  # of 25 stripes a few are the same by chance


def test_near_uniform_pictures_have_no_near_duplicates(tmp_path: Path) -> None:
    for i in range(30):
        rng = np.random.default_rng(i)
        flat = np.full((90, 120, 3), 100 + i, float) + rng.normal(0, 1, (90, 120, 3)) + np.linspace(0, i, 120)[:, None]
        write(tmp_path, f"{CLASSES[i % 2]}/{i}.jpg", photos.encoded(Image.fromarray(flat.astype(np.uint8)), quality=85))
    write(tmp_path, "ash/flat copy.jpg", (tmp_path / "ash/0.jpg").read_bytes())
    assert groups_of(tmp_path) == [{"ash/0.jpg", "ash/flat copy.jpg"}]


def test_a_common_background_does_not_make_near_duplicates(tmp_path: Path) -> None:
    """Parts on one bench: the bench agrees in all of them, the parts don't."""
    bench = np.asarray(photos.scene(999, 128)).astype(float)
    for i in range(60):
        picture = bench + np.random.default_rng(i).normal(0, 2, bench.shape)
        x, y = np.random.default_rng(1000 + i).integers(8, 70, 2)
        picture[y : y + 48, x : x + 48] = np.asarray(photos.scene(i, 48))
        write(
            tmp_path,
            f"{CLASSES[i % 2]}/{i}.png",
            photos.encoded(Image.fromarray(picture.clip(0, 255).astype(np.uint8)), "PNG"),
        )
    data = (tmp_path / "ash/4.png").read_bytes()
    write(tmp_path, "ash/copy.jpg", photos.encoded(Image.open(io.BytesIO(data)), quality=60))
    assert groups_of(tmp_path) == [{"ash/4.png", "ash/copy.jpg"}]


def test_a_photo_that_can_not_be_decoded_is_left_out(tmp_path: Path) -> None:
    scenes(tmp_path, 3)
    photos.write_broken(tmp_path / "ash")
    assert groups_of(tmp_path) == []
    (tmp_path / "lonely" / "one").mkdir(parents=True)
    assert near_duplicates.find(Manifest(tmp_path, [])) == []


# --- the split


@st.composite
def tied(draw: st.DrawFn) -> tuple[Manifest, list[list[int]]]:
    counts = draw(st.lists(st.integers(12, 40), min_size=2, max_size=4))
    labels = [f"class {k}" for k, n in enumerate(counts) for _ in range(n)]
    listed = [Photo(f"{label}/{i}.jpg", label, "", f"{i:064x}") for i, label in enumerate(labels)]
    starts = np.cumsum([0, *counts])
    ties = []
    for low, high in itertools.pairwise(starts.tolist()):  # three photos of each class stay free
        some = st.lists(st.integers(low + 3, high - 1), min_size=2, max_size=4, unique=True)
        ties += draw(st.lists(some, max_size=4))
    return Manifest(Path("nowhere"), listed), ties


@settings(deadline=None, max_examples=60)
@given(tied(), st.sampled_from(["tutorial", "rigorous"]), st.integers(0, 2**31))
def test_tied_photos_never_straddle(case: tuple[Manifest, list[list[int]]], protocol: str, seed: int) -> None:
    manifest, ties = case
    split = make_split(manifest, protocol, seed, ties=ties)  # type: ignore[arg-type]
    part = split.names()
    for group in together(manifest.photos, ties):
        assert len({part[i] for i in group}) == 1
    for name in set(part):
        assert {p.label for p, where in zip(manifest.photos, part, strict=True) if where == name} == set(
            manifest.classes
        )
    assert sorted(np.concatenate([split.train, split.validation, split.test]).tolist()) == list(range(len(part)))
    assert make_split(manifest, protocol, seed, ties=reversed(ties)).names() == part  # type: ignore[arg-type]


def test_a_class_of_duplicates_alone_is_told_with_the_way_out() -> None:
    manifest = Manifest(Path("x"), [Photo(f"{c}/{i}.jpg", c, "", f"{c}{i}") for c in "ab" for i in range(4)])
    make_split(manifest, "rigorous", 0)
    with pytest.raises(DataError, match=r"'a' has 4 photos, only 1 of them different .*--twins bytes"):
        make_split(manifest, "rigorous", 0, ties=[[0, 1, 2, 3]])


def test_near_duplicates_across_given_parts_leave_the_part_asked_less() -> None:
    listed = [
        Photo(f"{i}.jpg", "ab"[i % 2], part, str(i))
        for i, part in enumerate(["train"] * 6 + ["validation"] * 2 + ["test"] * 2)
    ]
    manifest = Manifest(Path("x"), listed)
    said = {skip.path: skip.why for skip in leaks(manifest, [[0, 6], [7, 9], [1, 2]])}
    assert said == {
        "0.jpg": "a near-duplicate of it stands in validation: 6.jpg",
        "7.jpg": "a near-duplicate of it stands in test: 9.jpg",
    }
    other = Manifest(Path("y"), [Photo("n.jpg", "a", "", "n"), Photo("m.jpg", "a", "", "3")])
    assert {s.path: s.why for s in overlap(manifest, other, [[2, 10]])} == {
        "n.jpg": "a near-duplicate of it is trained on: 2.jpg",
        "m.jpg": "the same photo is trained on: 3.jpg",
    }


# --- a run

QUICK = ("--strategies", "frozen", "--epochs", "1", *SMALL)


def test_a_study_keeps_near_duplicates_on_one_side_and_says_so(tmp_path: Path) -> None:
    data = scenes(tmp_path / "photos", 14)
    pairs = []
    for i in range(5):
        kind = list(COPIES)[i]
        pairs.append({f"ash/{i}.jpg", write(data, f"ash/copy {i}.jpg", COPIES[kind](photos.scene(i)))})
    pairs.append({"ash/9.jpg", write(data, "birch/stray.jpg", COPIES["mirrored"](photos.scene(9)))})
    options = ("--strategies", "frozen,fine-tuned", "--epochs", "1", "--robustness", "0", "--explain", "0", *SMALL)
    said = must("study", data, "--out", tmp_path / "run", *options)
    part = {row["path"]: row["split"] for row in table(tmp_path / "run" / "manifest.csv")}
    for pair in pairs:
        assert len({part[path] for path in pair}) == 1, pair
    found = document(tmp_path / "run")["dataset"]["near_twins"]
    assert [set(group) for group in found["groups"]] == sorted(pairs, key=lambda pair: [*part].index(sorted(pair)[0]))
    assert found["photos"] == 12
    assert [{photo["class"] for photo in group} for group in found["across_classes"]] == [{"ash", "birch"}]
    assert "Near-duplicates: 12 photos in 6 groups" in said.err
    naive = found["naive"]
    assert naive["ci"][0] <= naive["difference"] <= naive["ci"][1]
    assert naive["concerned"] > 0
    assert naive["accuracy_naive"] - naive["accuracy_safe"] == pytest.approx(naive["difference"], abs=1e-4)
    must("study", data, "--out", tmp_path / "run", "--resume", *options)
    assert document(tmp_path / "run")["dataset"]["near_twins"] == found


def test_the_tutorial_s_split_knows_of_no_near_duplicates_unless_asked() -> None:
    kinds = {p: frostline.configure("photos", protocol=p).twins for p in ("tutorial", "rigorous")}
    assert kinds == {"tutorial": "bytes", "rigorous": "near"}
    assert frostline.configure("photos", protocol="tutorial", twins="near").twins == "near"


def test_twins_bytes_lets_near_duplicates_part(tmp_path: Path) -> None:
    data = scenes(tmp_path / "photos", 8)
    for i in range(8):
        write(data, f"ash/copy {i}.jpg", COPIES["quality 40"](photos.scene(i)))
    run = prepared_run(data, tmp_path / "run", twins="bytes")
    part = run.split
    assert any(part[f"ash/{i}.jpg"] != part[f"ash/copy {i}.jpg"] for i in range(8))
    assert run.dataset["near_twins"]["groups"] == []
    assert "unknown twins 'close'" in call("study", data, "--out", tmp_path / "other", "--twins", "close", *QUICK).error


def test_near_duplicates_of_reported_photos_are_left_out_of_training(tmp_path: Path) -> None:
    scenes(tmp_path / "photos" / "train", 8)
    scenes(tmp_path / "photos" / "test", 4, first=50)
    write(tmp_path / "photos", "train/ash/leak.jpg", COPIES["cropped, middle"](photos.scene(51)))
    scenes(tmp_path / "new", 3, first=80)
    write(tmp_path / "new", "birch/known.jpg", COPIES["mirrored"](photos.scene(5)))
    run = prepared_run(tmp_path / "photos", tmp_path / "run", test=tmp_path / "new")
    assert {Path(path).name: why for path, why in run.why.items()} == {
        "leak.jpg": "a near-duplicate of it stands in test: test/ash/51.jpg",
        "known.jpg": "a near-duplicate of it is trained on: train/ash/5.jpg",
    }


@photos.needs_flowers
def test_near_duplicates_among_the_flowers() -> None:
    found = near_duplicates.find(scan(photos.FLOWERS))
    near = [group for group in found if group.kind != "same bytes"]
    assert 25 <= len(near) <= 40
    assert max(len(group.indices) for group in found) <= 6
    assert sum(group.across_classes for group in found) >= 4
