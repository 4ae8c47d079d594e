"""What a bundle tells of the photos that it has seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from frostline.bundles import seen
from frostline.errors import BundleError
from frostline.photos.manifest import Photo


def photo(number: int, group: str = "") -> Photo:
    return Photo(f"{number}.jpg", "a", "", f"{number:064x}"[::-1], group)


def test_photos_and_groups_are_known_again(tmp_path: Path) -> None:
    data = seen.to_bytes([photo(1, "plant 1"), photo(2)], [photo(3, "plant 3")])
    (tmp_path / seen.FILE).write_bytes(data)
    told = seen.describe(data, 2, 1)
    found = seen.read(tmp_path / seen.FILE, told["sha256"])
    asked = [photo(1), photo(3), photo(4, "plant 1"), photo(5, "plant 9"), photo(6)]
    assert found.trained_on(asked).tolist() == [True, False, False, False, False]
    assert found.validated_on(asked).tolist() == [False, True, False, False, False]
    assert found.of_known_groups(asked).tolist() == [False, False, True, False, False]


def test_a_list_that_is_damaged_or_gone_is_refused_in_a_line(tmp_path: Path) -> None:
    data = seen.to_bytes([photo(1)], [])
    (tmp_path / seen.FILE).write_bytes(data[:-1])
    with pytest.raises(BundleError, match=r"SHA-256 is not the one in bundle\.json"):
        seen.read(tmp_path / seen.FILE, seen.describe(data, 1, 0)["sha256"])
    (tmp_path / seen.FILE).write_bytes(b"no tensors")
    with pytest.raises(BundleError, match="copy the bundle again"):
        seen.read(tmp_path / seen.FILE, seen.describe(b"no tensors", 1, 0)["sha256"])
    with pytest.raises(BundleError, match="copy the whole bundle folder"):
        seen.read(tmp_path / "none", "")
