"""benchmarks/halves.py: constants are chosen within one half of the photos, and figures are reported on the other."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from frostline.photos.scan import scan
from frostline.photos.split import make_split
from support import photos
from support.commands import table

EACH, TEST = 24, 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of photos; a few in four versions each: as they are, byte for byte again, smaller and mirrored."""
    root = tmp_path_factory.mktemp("photos")
    for number, label in enumerate(("ash", "birch")):
        (root / label).mkdir()
        for i in range(EACH):
            scene = photos.scene(100 * number + i)
            (root / label / f"{i}.jpg").write_bytes(photos.encoded(scene, quality=92))
            if i < 5:
                shutil.copy(root / label / f"{i}.jpg", root / label / f"{i} again.jpg")
                (root / label / f"{i} small.jpg").write_bytes(photos.encoded(scene.resize((80, 80)), quality=90))
                mirrored = scene.transpose(photos.Image.Transpose.FLIP_LEFT_RIGHT)
                (root / label / f"{i} mirrored.png").write_bytes(photos.encoded(mirrored, "PNG"))
    return root


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import halves

    return halves


def parts(folder: Path) -> dict[str, set[str]]:
    """Names of the photos, with their classes, by what the tables say of them."""
    names: dict[str, set[str]] = {"A": set(), "train": set(), "test": set()}
    for part, name in (("A", "choose.csv"), ("", "report.csv")):
        for row in table(folder / name):
            names[part or row["split"]].add("/".join(Path(row["path"]).parts[-2:]))
    return names


def test_no_photo_of_the_half_to_choose_on_is_reported_and_what_is_alike_stays_together(
    folder: Path, halves: object, tmp_path: Path
) -> None:
    counts = halves.split(folder, tmp_path, TEST)
    found = parts(tmp_path)
    everything = {"/".join(path.parts[-2:]) for path in folder.glob("*/*")}
    assert found["A"].isdisjoint(found["test"])
    assert found["train"] | found["test"] == everything
    assert found["train"].isdisjoint(found["test"])
    assert counts["half A"] + counts["half B"] == len(everything)
    assert abs(counts["half A"] - counts["half B"]) < len(everything) / 2  # 48 coins, and no thumb on the scale
    assert Counter(name.split("/")[0] for name in found["test"]) == {"ash": TEST / 2, "birch": TEST / 2}
    for label in ("ash", "birch"):
        for i in range(5):
            alike = {f"{label}/{i}{kind}" for kind in (".jpg", " again.jpg", " small.jpg", " mirrored.png")}
            for part in ("A", "test"):
                assert alike <= found[part] or alike.isdisjoint(found[part]), (part, alike)


def test_names_order_and_other_runs_change_nothing(folder: Path, halves: object, tmp_path: Path) -> None:
    """The same bytes under other names, in another order, fall into the same parts."""
    renamed, was = tmp_path / "renamed", {}
    files = sorted(folder.glob("*/*"), key=lambda file: file.name[::-1])
    for number, file in enumerate(files):
        target = renamed / file.parent.name / f"{number}{file.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
        was[f"{file.parent.name}/{target.name}"] = f"{file.parent.name}/{file.name}"
    for name, root in (("one", folder), ("two", folder), ("other", renamed)):
        halves.split(root, tmp_path / name, TEST)
    one, two, other = (parts(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    back = {part: {was[name] for name in names} for part, names in other.items()}
    digests = {f"{p.label}/{Path(p.path).name}": p.sha256 for p in scan(folder).photos}
    for part, names in one.items():  # byte-identical photos may change places with each other alone
        assert Counter(digests[n] for n in names) == Counter(digests[n] for n in back[part])


def test_frostline_reads_both_tables_and_cuts_its_validation_set_by_seed(
    folder: Path, halves: object, tmp_path: Path
) -> None:
    halves.split(folder, tmp_path, TEST)
    chosen, reported = scan(tmp_path / "choose.csv"), scan(tmp_path / "report.csv")
    assert not any(photo.split for photo in chosen.photos)
    splits = [make_split(reported, "rigorous", seed) for seed in (0, 1)]
    tests = [{reported.photos[i].path for i in split.test} for split in splits]
    assert tests[0] == tests[1]
    assert len(tests[0]) == TEST
    assert set(splits[0].validation.tolist()) != set(splits[1].validation.tolist())


def test_a_half_that_is_too_small_for_the_test_set_is_said_in_one_line(
    folder: Path, halves: object, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="too few photos for that test set"):
        halves.split(folder, tmp_path, 70)


def test_constants_are_not_tried_on_a_table_with_photos_that_are_reported(
    folder: Path, halves: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import choose

    halves.split(folder, tmp_path, TEST)
    monkeypatch.setattr("sys.argv", ["choose.py", str(tmp_path / "report.csv"), str(tmp_path / "runs")])
    with pytest.raises(SystemExit, match=r"expected choose\.csv, where no photo is reported on"):
        choose.main()


def test_the_table_of_constants_holds_each_against_todays(
    halves: object, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From predictions as runs leave them: the second of two cells is right on four photos in twenty more."""
    import choose

    frozen = [cell for cell in choose.CELLS if cell.strategy == "frozen"][:2]
    for cell, right in zip(frozen, (12, 16), strict=True):
        for seed in (choose.FIRST_SEED, choose.FIRST_SEED + 1):
            run = tmp_path / choose._slug(cell) / f"seed-{seed}" / "frozen"
            run.mkdir(parents=True)
            for name, first in (("predictions.csv", 0), ("validation.csv", 10)):
                predicted = ["ash" if i < right else "birch" for i in range(first, first + 10)]
                rows = [
                    f"{first + i}.jpg,ash,{p},0.7,{0.7 if p == 'ash' else 0.3},0.5" for i, p in enumerate(predicted)
                ]
                (run / name).write_text("\n".join(["path,true,predicted,confidence,p_ash,p_birch", *rows]) + "\n")
    (tmp_path / "choose.csv").write_text("path,label\n")
    monkeypatch.setattr("sys.argv", ["choose.py", str(tmp_path / "choose.csv"), str(tmp_path), "--table"])
    choose.main()
    today, other = capsys.readouterr().out.splitlines()[2:]
    assert today == f"| {frozen[0].name} | 2 | 60.0 | 0.696 | today's |"
    assert other.startswith(f"| {frozen[1].name} | 2 | 80.0 | 0.526 | +20.0 (")
