"""A bundle in use: the run's own predictions again, any list of photos, bad files listed and never fatal."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import tracemalloc
from pathlib import Path

import pytest

import frostline
from frostline.networks.engine import MANY
from frostline.photos.decoding import MAX_BYTES
from frostline.photos.manifest import Skip
from support.commands import call, document, must, ordinary_user, table
from support.photos import BROKEN, photo, write_broken
from support.runs import CLASSES, Run


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("strategy", ["baseline", "frozen", "fine-tuned"])
def test_a_reloaded_bundle_gives_the_runs_predictions_to_the_last_digit(run: Run, strategy: str) -> None:
    wanted = table(run.out / strategy / "predictions.csv")
    paths = [str(run.data / row["path"]) for row in reversed(wanted)]  # other neighbours in the batch
    said = must(
        "predict",
        run.out / strategy / "bundle",
        "-",
        stdin="\n".join(paths),
    )
    got = {row.pop("path"): row for row in rows(said.out)}
    for row in wanted:
        expected = {**row, "true": got[str(run.data / row["path"])]["true"]}
        del expected["path"]
        assert got[str(run.data / row["path"])] == expected


def test_a_bundle_works_from_another_place(run: Run, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(run.out / "baseline" / "bundle", moved)
    one = run.data / "class 10" / "class 10 1.jpeg"
    assert must("predict", moved, one).out == must("predict", run.out / "baseline" / "bundle", one).out


def test_a_folder_gives_every_photo_its_row_and_lists_the_rest(run: Run, tmp_path: Path) -> None:
    bundle, out = run.out / "baseline" / "bundle", tmp_path / "p.csv"
    said = must("predict", bundle, run.data, "--out", out)
    found = table(out)
    assert said.out == ""
    listed = [line for line in said.err.splitlines() if line.startswith("skipped ")]
    assert len(listed) == len(BROKEN) == len(run.broken)
    assert all(any(path in line for line in listed) for path in run.broken)
    assert len(found) == document(run.out)["dataset"]["photos"]
    assert {row["true"] for row in found} == set(CLASSES)
    assert all(Path(row["path"]).parent.name == row["true"] for row in found)
    assert list(found[0]) == ["path", "true", "predicted", "confidence", *(f"p_{c}" for c in CLASSES)]


def test_true_stays_empty_where_the_folder_is_no_class(run: Run, tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "1.jpg").write_bytes(photo(5))
    (row,) = rows(must("predict", run.out / "baseline" / "bundle", tmp_path).out)
    assert (row["path"], row["true"]) == (str(tmp_path / "holiday" / "1.jpg"), "")


def test_files_on_the_command_line_and_on_stdin_as_jsonl(run: Run, tmp_path: Path) -> None:
    bundle = run.out / "baseline" / "bundle"
    good = [tmp_path / "b.jpg", tmp_path / "ü a.png"]
    good[0].write_bytes(photo(1))
    good[1].write_bytes(photo(2, "PNG"))
    bad = [tmp_path / "none.jpg", *write_broken(tmp_path / "broken")[:2]]
    mixed = [good[0], *bad, good[1]]
    said = must("predict", bundle, *mixed, "--json")
    found = [json.loads(line) for line in said.out.splitlines()]
    assert [row["path"] for row in found] == [str(p) for p in good]
    for row in found:
        assert list(row["probabilities"]) == CLASSES
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert row["confidence"] == max(row["probabilities"].values()) == row["probabilities"][row["predicted"]]
        assert row["true"] == ""
    assert "none.jpg: no such file" in said.err
    listed = must(
        "predict",
        bundle,
        stdin="".join(f"{p}\r\n\n" for p in mixed),
    ).out
    assert [row["path"] for row in rows(listed)] == [str(p) for p in good]
    must("predict", bundle, *mixed, "--out", tmp_path / "x.jsonl")
    lines = (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == found


def test_quiet_says_nothing_when_nothing_is_wrong(run: Run, tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(photo(5))
    said = must("predict", run.out / "baseline" / "bundle", tmp_path, "--quiet")
    assert said.err == ""
    assert len(rows(said.out)) == 1


def test_names_that_are_not_utf8_are_classified_and_written_escaped(run: Run, tmp_path: Path) -> None:
    bundle = run.out / "baseline" / "bundle"
    odd = [os.fsencode(tmp_path) + name for name in (b"/caf\xe9.jpg", b"/a\rb.jpg")]
    try:
        for number, name in enumerate(odd):
            Path(os.fsdecode(name)).write_bytes(photo(number))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (tmp_path / "z.jpg").write_bytes(photo(9))
    given = [str(tmp_path / "z.jpg"), *map(os.fsdecode, odd)]
    written = [str(tmp_path / name) for name in ("z.jpg", r"caf\xe9.jpg", r"a\rb.jpg")]
    must("predict", bundle, *given, "--out", tmp_path / "p.csv")
    assert [row["path"] for row in table(tmp_path / "p.csv")] == written
    must("predict", bundle, *given, "--out", tmp_path / "p.jsonl")
    lines = (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["path"] for line in lines] == written
    listed = os.fsencode(given[0]) + b"\n" + odd[0] + b"\n/none/\xff.jpg\n/nul\0.jpg\n"
    said = must("predict", bundle, "--out", tmp_path / "q.csv", stdin=listed)
    assert [row["path"] for row in table(tmp_path / "q.csv")] == written[:2]
    assert r"skipped /none/\xff.jpg: no such file" in said.err
    assert r"skipped /nul\x00.jpg: unreadable" in said.err
    assert [p.path for p in frostline.predict(bundle, given)] == given  # as the system knows them


def test_paths_are_written_as_they_were_given(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(photo(1))
    monkeypatch.chdir(tmp_path)
    bundle = run.out / "baseline" / "bundle"
    given = ["./a.jpg", ".//a.jpg", ""]  # as `find .` lists them; no text is no folder
    listed, doubled, empty = frostline.predict(bundle, given)
    assert [listed.path, doubled.path, empty.path] == given
    assert isinstance(empty, Skip)
    must("predict", bundle, given[0], "--out", "p.csv")
    kept = json.loads(must("predict", bundle, given[0], "--out", "p.csv", "--resume", "--json").out)
    assert (kept["classified"], kept["kept"]) == (0, 1)


def test_a_huge_file_is_refused_before_it_is_read(run: Run, tmp_path: Path) -> None:
    with (tmp_path / "film.jpg").open("wb") as stream:
        stream.truncate(MAX_BYTES + 1024**2)  # sparse: takes no room
    model = frostline.load(run.out / "baseline" / "bundle")
    tracemalloc.start()
    try:
        (skip,) = frostline.predict(model, [tmp_path])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert skip.why == "too large: 513 MiB, at most 512 MiB"
    assert peak < 50_000_000  # bytes


def test_what_can_not_be_entered_or_is_a_link_is_listed(run: Run, open_folder: Path) -> None:
    data = open_folder / "data"
    for name in ("a", "b", "c"):
        (data / name).mkdir(parents=True)
        (data / name / "1.jpg").write_bytes(photo(3))
    (data / "again").symlink_to(data)
    model = frostline.load(run.out / "baseline" / "bundle")
    paths = [data, data / "b" / "1.jpg", data / "b", data / ("x" * 300)]
    list(frostline.predict(model, paths))  # so that all modules are imported by the user who may
    (data / "b").chmod(0)
    with ordinary_user():
        found = list(frostline.predict(model, paths))
    (data / "b").chmod(0o755)
    skips = {Path(s.path).relative_to(data).as_posix(): s.why for s in found if hasattr(s, "why")}
    assert skips == {
        "again": "a link to a folder is not followed: name that folder itself",
        "b": "folder can't be read: Permission denied",
        "b/1.jpg": "unreadable: Permission denied",
        "x" * 300: "unreadable: File name too long",
    }
    assert [p.path for p in found if hasattr(p, "predicted")] == [str(data / n / "1.jpg") for n in ("a", "c")]


def test_the_suffix_decides_and_json_sums_up(run: Run, tmp_path: Path) -> None:
    bundle, none = run.out / "baseline" / "bundle", tmp_path / "none.jpg"
    (tmp_path / "1.jpg").write_bytes(photo(5))
    for name in ("x.csv", "x.jsonl"):
        out = tmp_path / name
        said = must("predict", bundle, tmp_path / "1.jpg", none, "--json", "--out", out)
        skipped = [{"path": str(none), "why": "no such file"}]
        assert json.loads(said.out) == {"out": str(out), "classified": 1, "skipped": skipped}
    (row,) = table(tmp_path / "x.csv")
    (line,) = (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()
    assert row["path"] == json.loads(line)["path"] == str(tmp_path / "1.jpg")
    assert row["predicted"] == json.loads(line)["predicted"]


@pytest.mark.parametrize("flags", [(), ("--quiet",), ("--json",)])
def test_nothing_classified_is_an_error(run: Run, tmp_path: Path, flags: tuple[str, ...]) -> None:
    bundle, out = run.out / "baseline" / "bundle", tmp_path / "p.csv"
    out.write_text("before", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    broken = write_broken(tmp_path / "broken")
    missing = call("predict", bundle, tmp_path / "none.jpg", "--out", out, *flags)
    assert "all 1 left out" in missing.error
    assert f"skipped {tmp_path / 'none.jpg'}: no such file" in missing.err
    bad = call("predict", bundle, tmp_path / "broken", "--out", out, *flags)
    assert f"all {len(broken)} left out" in bad.error
    assert bad.err.count("skipped ") == len(broken)
    assert "there are none" in call("predict", bundle, tmp_path / "empty", "--out", out, *flags).error
    assert "there are none" in call("predict", bundle, "--out", out, *flags, stdin="\n").error
    assert out.read_text(encoding="utf-8") == "before"


def test_a_photo_gets_the_same_numbers_in_any_company(run: Run, tmp_path: Path) -> None:
    bundle = run.out / "fine-tuned" / "bundle"
    (tmp_path / "in").mkdir()
    many = MANY + 7  # enough for several at a time, and an odd rest
    for number in range(many):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(photo(700 + number % 60))
    together = rows(must("predict", bundle, tmp_path / "in").out)
    assert [Path(row["path"]).stem for row in together] == [str(n) for n in range(many)]  # natural order
    for number in range(60, many):  # the same photo, one by one or among several
        assert together[number] | {"path": ""} == together[number % 60] | {"path": ""}
    for number in (0, many - 1):
        assert rows(must("predict", bundle, tmp_path / "in" / f"{number}.jpg").out) == [together[number]]


def test_evaluate_agrees_with_the_study(tested: Run, tmp_path: Path) -> None:
    (row,) = document(tested.out)["strategies"]
    other = Path(tested.options[1])
    clean = tmp_path / "clean"
    shutil.copytree(other, clean)
    for twin in clean.glob("*/copy *.jpg"):
        twin.unlink()
    said = must("evaluate", tested.out / "frozen" / "bundle", clean, "--json", "--out", tmp_path / "p.csv")
    found = json.loads(said.out)
    assert found["photos"] == document(tested.out)["dataset"]["test"]
    assert [s["path"] for s in found["skipped"]] == tested.broken
    for name in ("accuracy", "macro_f1", "log_loss", "confusion", "per_class", "temperature"):
        assert found[name] == row[name], name
    assert (tmp_path / "p.csv").read_bytes() == (tested.out / "frozen" / "predictions.csv").read_bytes()


def test_evaluate_on_photos_that_were_trained_on_says_so(tested: Run, tmp_path: Path) -> None:
    bundle = tested.out / "frozen" / "bundle"
    manifest = table(tested.out / "manifest.csv")
    rows = [row for row in manifest if row["split"] == "train" and (tested.data / row["path"]).exists()]
    for row in rows:
        target = tmp_path / "known" / row["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tested.data / row["path"], target)
    said = must("evaluate", bundle, tmp_path / "known").out
    assert f"{len(rows)} of these {len(rows)} photos were trained on: the figures say nothing about new photos." in said

    new = tmp_path / "known" / rows[0]["label"]
    for number in range(3):
        (new / f"new {number}.jpg").write_bytes(photo(90_000 + number))
    found = json.loads(must("evaluate", bundle, tmp_path / "known", "--json", "--quiet").out)
    assert (found["trained_on"], found["validated_on"], found["known_groups"]) == (len(rows), 0, 0)
    assert found["photos"] == found["unseen"] == 3
    assert found["all"]["photos"] == len(rows) + 3
    assert sum(row["support"] for row in found["per_class"]) == 3
    assert "the figures are of the other 3" in found["seen_words"]


def test_evaluate_refuses_a_class_that_the_bundle_does_not_know(run: Run, tmp_path: Path) -> None:
    (tmp_path / "class 3").mkdir()
    (tmp_path / "class 3" / "1.jpg").write_bytes(photo(5))
    assert "'class 3'" in call("evaluate", run.out / "baseline" / "bundle", tmp_path).error


def test_what_is_no_bundle_is_told(run: Run, tmp_path: Path) -> None:
    one = run.data / "class 10" / "class 10 1.jpeg"
    assert "is not a bundle" in call("predict", tmp_path, one).error
    assert f"did you mean {run.out / 'frozen' / 'bundle'}?" in call("predict", run.out / "frozen", one).error
    assert "is not a bundle" in call("evaluate", tmp_path / "none", run.data).error
    damaged = tmp_path / "damaged"
    shutil.copytree(run.out / "baseline" / "bundle", damaged)
    model = bytearray((damaged / "model.safetensors").read_bytes())
    model[-1] ^= 1
    (damaged / "model.safetensors").write_bytes(model)
    assert "SHA-256" in call("predict", damaged, one).error
    (damaged / "bundle.json").write_text("{", encoding="utf-8")
    assert "damaged" in call("predict", damaged, one).error
    assert ".jsonl" in call("predict", run.out / "baseline" / "bundle", one, "--out", tmp_path / "x.txt").error
    assert "'onx'" in call("predict", run.out / "baseline" / "bundle", one, "--engine", "onx").error


def test_the_api_gives_the_same(run: Run) -> None:
    wanted = table(run.out / "baseline" / "predictions.csv")[0]
    file = run.data / wanted["path"]
    bad = run.data / run.broken[0]
    bundle = run.out / "baseline" / "bundle"
    for _ in range(2):  # the module of the same name must not take the function's place
        first, second = frostline.predict(bundle, [file, bad])
    assert f"{first.confidence:.6f}" == wanted["confidence"]
    assert first.predicted == wanted["predicted"]
    assert second.path == str(bad)
    assert second.why
    assert [p.predicted for p in frostline.predict(frostline.load(bundle), [file])] == [wanted["predicted"]]
