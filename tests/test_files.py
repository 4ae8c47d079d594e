"""Files are written whole or not at all, in the form that was agreed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from frostline.errors import RunError
from frostline.files import replacing, sha256, write_csv, write_json, write_text


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "table.csv"

    def rows() -> Iterator[list[object]]:
        yield [1, "a"]
        if path.exists():
            raise KeyboardInterrupt
        yield [2, "b"]

    write_csv(path, ["number", "letter"], rows())
    with pytest.raises(KeyboardInterrupt):
        write_csv(path, ["number", "letter"], rows())
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"loss": math.nan})
    assert path.read_bytes() == b"number,letter\n1,a\n2,b\n"
    assert [p.name for p in path.parent.iterdir()] == ["table.csv"]


def test_cells_that_csv_quotes_come_back(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", ["a", "b"], [["x,y", 'say "ü"'], ["two\nlines", None]])
    assert (tmp_path / "t.csv").read_bytes() == 'a,b\n"x,y","say ""ü"""\n"two\nlines",\n'.encode()


def test_text_has_unix_line_ends_and_a_known_digest(tmp_path: Path) -> None:
    write_text(tmp_path / "t.txt", "ü\n")
    assert (tmp_path / "t.txt").read_bytes() == b"\xc3\xbc\n"
    assert sha256(tmp_path / "t.txt") == "599c7c0c70071ddf9568a4b07213a61a06ddb301f494a3477c69aaf04c1ad1cd"


def test_a_place_that_can_not_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"can't write .*: .*; choose another place"):
        write_text(tmp_path / "file" / "t.txt", "")


def test_a_folder_takes_its_place_in_one_step(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "folder") as temporary:
        temporary.mkdir()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with replacing(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "a").touch()
    assert (tmp_path / "folder" / "a").exists()
