"""What predict writes: the same rows in every format, on disk as they come, and gone on with after a stop."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

import frostline
from support.commands import SOURCES, call, must, spawn, table
from support.photos import photo
from support.runs import CLASSES, Run


@pytest.fixture
def many(tmp_path: Path) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(9):
        (folder / f"{number}.jpg").write_bytes(photo(number))
    (folder / "5 broken.jpg").write_bytes(b"no photo")
    return folder


def bundle_of(run: Run) -> Path:
    return run.out / "baseline" / "bundle"


def test_the_likeliest_classes_are_named_in_every_format(run: Run, many: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        must("predict", bundle_of(run), many, "--out", tmp_path / name, "--top", 2, "--threshold", 0.4)
    rows = table(tmp_path / "a.csv")
    tops = ["top1", "top1_confidence", "top2", "top2_confidence"]
    assert list(rows[0]) == ["path", "true", "predicted", "confidence", *(f"p_{c}" for c in CLASSES), "unsure", *tops]
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    typed = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert len(rows) == len(lines) == len(typed) == 9
    for row, line, other in zip(rows, lines, typed, strict=True):
        assert row["top1"] == row["predicted"] == line["top"][0]["class"] == other["top1"]
        assert float(row["top1_confidence"]) == float(row["confidence"]) == other["confidence"]
        second = sorted(line["probabilities"], key=lambda name: -line["probabilities"][name])[1]
        assert second == row["top2"] == line["top"][1]["class"]
        assert (row["unsure"] == "true") is line["unsure"] is other["unsure"]
        assert {name: str(value) for name, value in row.items() if name in ("path", "true")} == {
            name: other[name] for name in ("path", "true")
        }
    assert "expected 1 to 3" in call("predict", bundle_of(run), many, "--top", 4).error


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_stopped_run_goes_on_with_what_it_had(run: Run, many: Path, tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    out, options = tmp_path / name, ("--top", 1)
    must("predict", bundle_of(run), many, "--out", out, *options)
    whole = out.read_bytes()
    as_text = tmp_path / ("b.jsonl" if name.endswith("jsonl") else "b.csv")
    must("predict", bundle_of(run), many, "--out", as_text, *options)
    text = as_text.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    for cut in (len("".join(lines[:4])), len("".join(lines[:4])) + 30, len(text) - 1, len(text), 0, 20):
        out.unlink()
        part = tmp_path / f"{name}.part"
        part.write_text(text[:cut], encoding="utf-8")
        said = must("predict", bundle_of(run), many, "--out", out, "--resume", *options, "--json")
        assert out.read_bytes() == whole, cut
        assert not part.exists()
        found = json.loads(said.out)
        assert found["classified"] + found["kept"] == 9
        assert [Path(skip["path"]).name for skip in found["skipped"]] == ["5 broken.jpg"]
        if cut > 100:
            assert found["kept"] >= 3
    (many / "new.jpg").write_bytes(photo(77))
    must("predict", bundle_of(run), many, "--out", out, "--resume", *options)  # of a finished one the rest
    must("predict", bundle_of(run), many, "--out", as_text, *options)
    fresh = tmp_path / f"fresh-{name}"
    must("predict", bundle_of(run), many, "--out", fresh, *options)
    assert out.read_bytes() == fresh.read_bytes()
    assert "other options" in call("predict", bundle_of(run), many, "--out", out, "--resume").error
    assert out.read_bytes() == fresh.read_bytes()


def test_a_killed_run_loses_one_row_at_most(run: Run, many: Path, tmp_path: Path) -> None:
    for number in range(1500):
        (many / f"link {number}.jpg").symlink_to(many / "1.jpg")
    out, part = tmp_path / "a.csv", tmp_path / "a.csv.part"
    out.write_text("before", encoding="utf-8")
    process = spawn("predict", bundle_of(run), many, "--out", out, "--quiet")
    while not part.exists() or part.stat().st_size < 5000:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert out.read_text(encoding="utf-8") == "before"
    there = part.read_bytes().count(b"\n") - 1
    said = must("predict", bundle_of(run), many, "--out", out, "--resume", "--quiet", "--json")
    assert json.loads(said.out)["kept"] == there
    assert len(table(out)) == len({row["path"] for row in table(out)}) == 1509


def test_another_bundle_does_not_go_on_with_the_rows(run: Run, many: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    must("predict", run.out / "frozen" / "bundle", many, "--out", out)
    before = out.read_bytes()
    assert "by another bundle" in call("predict", bundle_of(run), many, "--out", out, "--resume").error
    assert out.read_bytes() == before


def test_resume_asks_for_what_it_needs(run: Run, many: Path, tmp_path: Path) -> None:
    assert "--out" in call("predict", bundle_of(run), many, "--resume").error
    options = ("--out", tmp_path / "a.csv", "--resume", "--prior", "estimate")
    assert "estimate" in call("predict", bundle_of(run), many, *options).error
    (tmp_path / "a.jsonl.part").write_text("[]\n", encoding="utf-8")
    assert "another --out" in call("predict", bundle_of(run), many, "--out", tmp_path / "a.jsonl", "--resume").error


@pytest.mark.skipif(os.name == "nt", reason="no such names there")
def test_a_list_between_zero_bytes_takes_any_name(run: Run, tmp_path: Path) -> None:
    odd = [tmp_path / "a\nb.jpg", tmp_path / " c .jpg"]
    for number, path in enumerate(odd):
        path.write_bytes(photo(number))
    listed = b"\0".join(map(os.fsencode, odd))
    for stdin in (listed, listed + b"\0"):
        must("predict", bundle_of(run), "-0", "--out", tmp_path / "x.csv", stdin=stdin)
        assert [row["path"] for row in table(tmp_path / "x.csv")] == [str(p) for p in odd]
    must("predict", bundle_of(run), "-0", "--out", tmp_path / "x.csv", "--resume", stdin=listed)
    assert len(table(tmp_path / "x.csv")) == 2
    assert "stdin" in call("predict", bundle_of(run), odd[0], "-0").error


def test_a_list_is_read_as_it_comes(run: Run, many: Path) -> None:
    """The first answer is there before the list has ended."""
    command = [sys.executable, "-m", "frostline", "predict", str(bundle_of(run)), "-0", "--quiet", "--json"]
    settings = {**os.environ, "PYTHONPATH": SOURCES, "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=settings, stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write((os.fsencode(many / "1.jpg") + b"\0") * 200)
        process.stdin.flush()
        first = json.loads(process.stdout.readline())
        assert first["path"] == str(many / "1.jpg")
        process.stdin.close()
        assert len(process.stdout.read().splitlines()) == 199
    assert process.returncode == 0


def test_memory_stays_flat_over_an_endless_list(run: Run, many: Path) -> None:
    model = frostline.load(bundle_of(run))
    endless = frostline.predict(model, itertools.repeat(many / "1.jpg"))
    tracemalloc.start()
    try:
        sum(1 for _ in itertools.islice(endless, 300))
        before, _ = tracemalloc.get_traced_memory()
        sum(1 for _ in itertools.islice(endless, 1000))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 250_000  # bytes; 1,000 results would take more
