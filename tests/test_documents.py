"""The types of study.json and its kin: what is written fits them, the published schemas are theirs, damage is one
line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frostline import documents
from frostline.documents import Bundle, Study
from frostline.errors import RunError
from support.commands import document
from support.runs import Run

DOCS = Path(__file__).parents[1] / "docs"


def test_the_published_schemas_are_those_of_the_types(tmp_path: Path) -> None:
    written = documents.write_schemas(tmp_path)
    assert len(written) == 6
    for file in written:
        assert (DOCS / file.name).read_text(encoding="utf-8") == file.read_text(encoding="utf-8"), "run `make schemas`"


def test_a_study_and_its_bundles_are_what_their_types_say(run: Run) -> None:
    assert documents.problems(Study, document(run.out)) == []
    for name in ("baseline", "frozen", "fine-tuned"):
        assert documents.problems(Bundle, documents.read(run.out / name / "bundle", Bundle)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": "3"}, "seed: Input should be a valid integer"),
        ({"status": "done"}, "status: Input should be 'running', 'stopped' or 'finished'"),
        ({"mood": 1}, "mood: Extra inputs are not permitted"),
    ],
)
def test_what_does_not_fit_is_named(run: Run, change: dict[str, Any], said: str) -> None:
    assert documents.problems(Study, {**document(run.out), **change}) == [said]


def test_a_missing_key_and_an_interval_of_three_are_named(run: Run) -> None:
    study = document(run.out)
    del study["answer"]
    study["strategies"][0]["accuracy_ci"] = [0.1, 0.2, 0.3]
    said = documents.problems(Study, study)
    assert any(line.startswith("answer: Field required") for line in said)
    assert any(line.startswith("strategies.0.accuracy_ci: ") for line in said)


def test_a_document_that_does_not_fit_is_not_written_by_the_suite(tmp_path: Path, run: Run) -> None:
    with pytest.raises(TypeError, match=r"study\.json .*mood"):
        documents.write(tmp_path, Study, {**document(run.out), "mood": 1})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_is_read_again(tmp_path: Path, run: Run) -> None:
    study = documents.read(run.out, Study)
    documents.write(tmp_path, Study, study)
    assert documents.read(tmp_path, Study) == study


def test_a_folder_without_one_is_told_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no study\.json: give the --out of a frostline study$"):
        documents.read(tmp_path, Study)


@given(st.binary(max_size=60))
def test_damage_is_one_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "study.json").write_bytes(content)
    try:
        whole = isinstance(json.loads(content), dict)
    except ValueError:
        whole = False
    if whole:
        assert isinstance(documents.read(folder, Study), dict)
        return
    with pytest.raises(RunError) as told:
        documents.read(folder, Study)
    assert "study.json" in str(told.value)
    assert len(str(told.value).splitlines()) == 1


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text('{"seconds": NaN, "seed": Infinity}', encoding="utf-8")
    assert dict(documents.read(tmp_path, Study)) == {"seconds": None, "seed": None}
