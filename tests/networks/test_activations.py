"""Photos through the frozen layers: rows are what the network gives, computed once, and never another's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frostline.cache.store import Key
from frostline.errors import RunError
from frostline.networks import backbone, freeze_line
from frostline.networks.activations import Tap, fill, tap
from frostline.networks.backbone import Backbone
from frostline.networks.compilation import Runtime
from frostline.photos import scan
from frostline.photos.decoding import prepare
from frostline.photos.manifest import Manifest
from frostline.progress import Progress
from support import photos as pictures

CPU = torch.device("cpu")
QUIET = Progress(True)


@pytest.fixture
def photos(tmp_path: Path) -> Manifest:
    for label, seeds in (("a", range(3)), ("b", range(3, 6))):
        (tmp_path / "data" / label).mkdir(parents=True)
        for seed in seeds:
            (tmp_path / "data" / label / f"{seed}.jpg").write_bytes(pictures.photo(seed))
    return scan.scan(tmp_path / "data")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of this test's own, that shares the compiled engines of the session."""
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def network(seed: int = 0, **changes: Any) -> Backbone:
    return backbone.build("test_resnet", "random", seed=seed, **{"image_size": 64, **changes})


def opened(built: Backbone, line: int, stored_as: Any = "float32", kind: Any = "torch") -> Tap:
    return tap(built, line, Runtime(kind), stored_as)


def test_rows_are_what_the_network_makes_of_each_photo(photos: Manifest, own_cache: Path) -> None:
    built = network()
    top = built.layer_count
    taps = [opened(built, line) for line in (0, top - 3, top)]
    assert fill(taps, photos, views=(0, 1), seed=7, runtime=Runtime("torch"), progress=QUIET) == []
    names = [Key.of(p.sha256, v, 7) for v in (0, 1) for p in photos.photos]
    at_zero, near_top, at_top = ([torch.from_numpy(a) for a in t.store.read(names)] for t in taps)
    clean = np.stack([prepare((photos.root / p.path).read_bytes(), built.transform) for p in photos.photos])
    assert np.array_equal(at_zero[0][:6], clean)
    assert (at_zero[0][6:] != at_zero[0][:6]).flatten(1).any(1).all()  # view 1 is another picture
    with torch.inference_mode():
        features = built.network(at_zero[0])
        assert torch.allclose(freeze_line.cut(built.traced, top).suffix(*at_top), features, atol=1e-5)
        assert torch.allclose(freeze_line.cut(built.traced, top - 3).suffix(*near_top), features, atol=1e-5)


def test_a_second_fill_computes_nothing(photos: Manifest, own_cache: Path) -> None:
    built = network()
    taps = [opened(built, built.layer_count), opened(built, 0)]
    fill(taps, photos, indices=[0, 1, 2, 3], runtime=Runtime("torch"), progress=QUIET)
    files = sorted((own_cache / "activations").glob("*/rows.bin"))
    assert len(files) == 2
    before = [(f.stat().st_mtime_ns, f.stat().st_size) for f in files]
    for photo in photos.photos[:4]:  # were one read again, it would come back as a Skip
        (photos.root / photo.path).write_bytes(b"no photo any more")
    reopened = [opened(network(), built.layer_count), opened(network(), 0)]
    assert fill(reopened, photos, indices=[0, 1, 2, 3], runtime=Runtime("torch"), progress=QUIET) == []
    assert [(f.stat().st_mtime_ns, f.stat().st_size) for f in files] == before
    assert fill(reopened, photos, runtime=Runtime("torch"), progress=QUIET) == []  # the two new ones alone
    assert [t.store.missing([Key.of(p.sha256, 0, 0) for p in photos.photos]) for t in reopened] == [[], []]


def test_whatever_shapes_a_row_has_a_store_of_its_own(own_cache: Path) -> None:
    built = network()
    top = built.layer_count
    opened(built, top)
    count = 1
    others = [
        (network(1), top, "float32", "torch"),
        (built, top - 1, "float32", "torch"),
        (built, top, "float16", "torch"),
        (built, top, "float32", "onnx"),
        (network(image_size=96), top, "float32", "torch"),
        (network(resize="crop"), top, "float32", "torch"),
        (built, 0, "float32", "torch"),
        (network(resize="crop"), 0, "float32", "torch"),
    ]
    for other, line, stored_as, kind in others:
        opened(other, line, stored_as, kind)
        count += 1
        assert len(list((own_cache / "activations").iterdir())) == count
    opened(network(), top)
    opened(network(1), 0, "float16")  # the photos themselves know no network
    assert len(list((own_cache / "activations").iterdir())) == count
    shaped = [f.parent for f in (own_cache / "activations").glob("*/about.json")]
    assert len(shaped) == count


@pytest.mark.parametrize("kind", ["openvino", "onnx"])
def test_a_row_does_not_depend_on_which_other_lines_were_asked(
    photos: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    """A bundle runs its own line alone and must give what its run gave. Compilers fuse some of the layers here."""
    built = network()
    lines = [1, *range(built.layer_count - 9, built.layer_count + 1)]
    names = [Key.of(p.sha256, 0, 0) for p in photos.photos]

    def filled(folder: str, *wanted: int) -> dict[int, list[np.ndarray]]:
        monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / folder))
        taps = [opened(built, line, kind=kind) for line in wanted]
        fill(taps, photos, runtime=Runtime(kind), progress=QUIET)
        return {t.line: t.store.read(names) for t in taps}

    together = filled("together", *lines)
    alone = {line: filled(f"line {line}", line)[line] for line in lines}
    differing = [n for n in lines if not all(map(np.array_equal, together[n], alone[n]))]
    assert differing == []


def test_views_and_seeds_have_rows_of_their_own(photos: Manifest) -> None:
    photo = photos.photos[0]
    assert Key.of(photo.sha256, 0, 1) == Key.of(photo.sha256, 0, 2)  # the clean view has no rng
    views = {Key.of(photo.sha256, view, seed) for view, seed in ((0, 1), (1, 1), (1, 2), (2, 1))}
    assert len(views) == 4
    assert len({str(Key.of(p.sha256, 0, 0)) for p in photos.photos}) == 6


def test_photos_that_can_not_be_decoded_are_listed(photos: Manifest, own_cache: Path) -> None:
    root = photos.root
    for kind in ("half a jpeg", "zeros"):
        (root / "a" / f"{kind}.jpg").write_bytes(pictures.BROKEN[kind][0])
    (root / "b" / "twin.jpg").write_bytes(pictures.BROKEN["zeros"][0])
    scanned = scan.scan(root)
    (root / "a" / "0.jpg").unlink()
    target = opened(network(), 0)
    skips = {s.path: s.why for s in fill([target], scanned, progress=QUIET)}
    assert set(skips) == {"a/half a jpeg.jpg", "a/zeros.jpg", "b/twin.jpg", "a/0.jpg"}
    assert "truncated" in skips["a/half a jpeg.jpg"]
    assert skips["a/0.jpg"] == "no such file"
    left = scanned.without(fill([target], scanned, progress=QUIET))  # told again, not forgotten
    assert len(left.photos) == 5
    assert target.store.missing([Key.of(p.sha256, 0, 0) for p in left.photos]) == []


def test_no_room_is_told_before_the_work_starts(
    photos: Manifest, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = opened(network(), 0)
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 50_000, 50_000))
    with pytest.raises(RunError, match="needs 0 MB, 0 MB are free; free some space, or set FROSTLINE_CACHE") as error:
        fill([target], photos, progress=QUIET)
    assert "\n" not in str(error.value)
    assert fill([target], photos, indices=[0, 1, 2, 3], progress=QUIET) == []  # 4 x 12,288 bytes do fit


def test_numbers_too_large_for_half_precision_are_stored_in_float32(photos: Manifest, own_cache: Path) -> None:
    """Random weights without the norms that training gives them: the numbers grow from block to block."""
    built = network()
    with torch.no_grad():
        first = next(m for m in built.network.modules() if isinstance(m, torch.nn.Conv2d))
        first.weight.mul_(1e9)
    grown = backbone.assemble("grown", built.network, built.transform)
    low = tap(grown, 1, Runtime("torch"), "float16")
    assert low.stored_as == "float32"
    assert fill([low], photos, runtime=Runtime("torch"), progress=Progress(quiet=True)) == []
    (rows,) = low.store.read([Key.of(p.sha256, 0, 0) for p in photos.photos])
    assert 65504 < np.abs(rows).max() < np.inf
    assert tap(built, 1, Runtime("torch"), "float16").stored_as == "float16"
