"""CONTRIBUTING.md is short, and what it names exists: a newcomer follows it word by word."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "src" / "frostline"
QUOTED = sorted(set(re.findall(r"`([\w./]+)`", GUIDE)))
TABLES = re.findall(r"`([A-Z_]+)` in `([\w/]+\.py)`", GUIDE)


def test_the_guide_and_its_picture_stay_short() -> None:
    assert len(GUIDE.splitlines()) < 60
    picture = GUIDE.partition("```mermaid")[2].partition("```")[0]
    boxes = set(re.findall(r"\w+", re.sub(r'\[".*"\]|graph TD', "", picture)))
    assert 5 < len(boxes) <= 15
    assert all((PACKAGE / name).is_dir() for name in boxes - {"root"})


@pytest.mark.parametrize("path", [name for name in QUOTED if "/" in name and not name.startswith("..")])
def test_each_file_and_folder_that_it_names_exists(path: str) -> None:
    assert any((base / path).exists() for base in (ROOT, PACKAGE)), path


def test_each_folder_of_the_package_stands_on_the_map() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert {f"{name}/" for name in folders} <= set(QUOTED)


@pytest.mark.parametrize(("table", "path"), TABLES)
def test_each_table_to_which_a_row_is_added_stands_in_the_file_that_it_names(table: str, path: str) -> None:
    defined = set()
    for statement in ast.parse((PACKAGE / path).read_text(encoding="utf-8")).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        defined |= {target.id for target in targets if isinstance(target, ast.Name)}
    assert table in defined
