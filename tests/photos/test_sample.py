"""The built-in sample: reproducible, complete, resumable, marked as rendered; it never deletes other files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frostline.errors import ConfigError, RunError
from frostline.photos.sample import CLASSES, MARKER, photo, render


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*/*.jpg")
    }


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(tmp_path_factory.mktemp("data") / "sample", per_class=3)


def test_class_folders_and_counts(sample: Path) -> None:
    assert CLASSES == ("daisy", "dandelion", "rose", "sunflower", "tulip")
    assert sorted(item.name for item in sample.iterdir() if item.is_dir()) == list(CLASSES)
    for label in CLASSES:
        assert [item.name for item in sorted((sample / label).iterdir())] == [f"{label}-{i:04d}.jpg" for i in range(3)]


def test_readme_says_rendered(sample: Path) -> None:
    text = (sample / "README.md").read_text(encoding="utf-8")
    assert "not real photographs" in text
    assert "says anything about real photos" in text


def test_photos_are_jpeg_of_several_sizes(sample: Path) -> None:
    sizes = set()
    for path in sample.glob("*/*.jpg"):
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert 200 <= min(image.size) <= max(image.size) <= 320
            sizes.add(image.size)
    assert len(sizes) >= 3


def test_same_seed_same_bytes_whatever_per_class(sample: Path, tmp_path: Path) -> None:
    small = digests(render(tmp_path / "small", per_class=1))
    full = digests(sample)
    assert len(small) == 5
    assert small == {name: full[name] for name in small}


def test_another_seed_gives_other_photos(sample: Path, tmp_path: Path) -> None:
    other = digests(render(tmp_path / "other", per_class=1, seed=1))
    assert not set(other.values()) & set(digests(sample).values())


def test_no_two_photos_alike(sample: Path) -> None:
    found = digests(sample)
    assert len(found) == len(set(found.values())) == 15


def test_photos_show_something(sample: Path) -> None:
    spread = [np.asarray(photo(label, i, 0)).std() for label in CLASSES for i in range(3)]
    assert np.median(spread) > 20


def test_photo_is_what_render_writes(sample: Path) -> None:
    with Image.open(sample / "tulip" / "tulip-0002.jpg") as image:
        saved = np.asarray(image.convert("RGB"), dtype=np.float64)
    drawn = np.asarray(photo("tulip", 2, 0), dtype=np.float64)
    assert saved.shape == drawn.shape
    assert np.abs(saved - drawn).mean() < 8  # JPEG loses a little of the grain


def test_complete_folder_is_left_alone(sample: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in sample.rglob("*")}
    steps: list[tuple[int, int]] = []
    assert render(sample, per_class=3, on_step=lambda done, total: steps.append((done, total))) == sample
    assert steps == []
    assert {path: path.stat().st_mtime_ns for path in sample.rglob("*")} == before


def test_interrupted_run_is_completed(sample: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    folder = tmp_path / "sample"
    with pytest.raises(KeyboardInterrupt):
        render(folder, per_class=3, on_step=stop)
    assert len(digests(folder)) == 7
    (folder / "rose" / ".rose-0009.jpg.123.tmp").write_bytes(b"half a photo of a killed run")
    steps: list[tuple[int, int]] = []
    render(folder, per_class=3, on_step=lambda done, total: steps.append((done, total)))
    assert steps == [(done, 15) for done in range(8, 16)]
    assert digests(folder) == digests(sample)
    assert not list(folder.rglob("*.tmp"))


def test_missing_photo_is_drawn_again(sample: Path, tmp_path: Path) -> None:
    folder = render(tmp_path / "sample", per_class=1)
    (folder / "daisy" / "daisy-0000.jpg").unlink()
    render(folder, per_class=1)
    assert digests(folder)["daisy/daisy-0000.jpg"] == digests(sample)["daisy/daisy-0000.jpg"]


def test_folder_grows_shrinks_and_changes_seed(sample: Path, tmp_path: Path) -> None:
    folder = render(tmp_path / "sample", per_class=1)
    render(folder, per_class=3)
    assert digests(folder) == digests(sample)
    render(folder, per_class=2)
    assert len(digests(folder)) == 10
    render(folder, per_class=1, seed=1)
    assert len(digests(folder)) == 5
    assert not set(digests(folder).values()) & set(digests(sample).values())


def test_foreign_folder_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "daisy").mkdir()
    mine = tmp_path / "daisy" / "daisy-0000.jpg"
    mine.write_bytes(b"my own photo")
    with pytest.raises(RunError, match="not frostline's sample: choose an empty or new folder"):
        render(tmp_path, per_class=1)
    assert mine.read_bytes() == b"my own photo"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["daisy", "daisy-0000.jpg"]


@pytest.mark.parametrize("text", ["", "{", "[]", '"sample"', "{}", '{"seed": 0}', "\udcff"])
def test_damaged_marker_never_costs_a_photo(tmp_path: Path, text: str) -> None:
    (tmp_path / MARKER).write_text(text, encoding="utf-8", errors="surrogateescape")
    (tmp_path / "rose").mkdir()
    mine = tmp_path / "rose" / "rose-0000.jpg"
    mine.write_bytes(b"my own photo")
    with pytest.raises(RunError, match="not frostline's sample"):
        render(tmp_path, per_class=1)
    assert mine.read_bytes() == b"my own photo"


def test_file_in_the_folders_place(tmp_path: Path) -> None:
    place = tmp_path / "sample"
    place.write_text("a file")
    with pytest.raises(RunError, match="is a file, expected a folder"):
        render(place, per_class=1)


@pytest.mark.parametrize(("per_class", "seed"), [(0, 0), (-3, 0), (1, -1)])
def test_numbers_out_of_range(tmp_path: Path, per_class: int, seed: int) -> None:
    with pytest.raises(ConfigError, match=r"expected (at least 1|0 or more)"):
        render(tmp_path / "sample", per_class=per_class, seed=seed)
    assert not (tmp_path / "sample").exists()


def test_unknown_class_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'tulip'"):
        photo("tulips", 0, 0)
    with pytest.raises(ConfigError, match="must be 0 or more"):
        photo("tulip", -1, 0)
