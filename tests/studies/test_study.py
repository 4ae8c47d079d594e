"""The study through the command line: what it leaves, what it counts, and that neither a kill nor a repeat changes a
figure.
"""

from __future__ import annotations

import csv
import math
import shutil
import signal
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from frostline import wording
from support.commands import SMALL, call, document, events, figures, must, spawn, stop_when, table
from support.photos import photo, write_folder
from support.prepared import prepared_run
from support.runs import CLASSES, EACH, EPOCHS, Run

STRATEGIES = ["baseline", "frozen", "fine-tuned"]
QUICK = ("--strategies", "baseline", "--epochs", "1", *SMALL)


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())


def contract(*strategies: str, validation: bool = True) -> list[str]:
    """The files of a finished run; `validation`: its validation photos are others than those reported on."""
    several = len(strategies) > 1  # then what makes photos hard is measured too
    top = ["config.toml", "manifest.csv", "study.json", "report.html", "log.jsonl"]
    top += ["photo_measures.csv"] if several else []
    each = [
        *(["robustness.csv"] if several else []),
        "history.csv",
        "validation_by_epoch.npz",
        "predictions.csv",
        *(["validation.csv"] if validation else []),
        *(["explanations.json"] if len(strategies) > 1 else []),
        *(
            f"bundle/{n}"
            for n in ("model.safetensors", "bundle.json", "README.md", "neighbours.safetensors", "seen.safetensors")
        ),
    ]
    return sorted([*top, *(f"{s}/{name}" for s in strategies for name in each)])


@pytest.mark.smoke
def test_a_study_from_scratch_needs_no_weights_and_leaves_a_whole_run(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "photos", ["rose", "tulip"], 12)
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    process = spawn(
        "study", data, "--out", tmp_path / "run", *QUICK, FROSTLINE_CACHE=str(tmp_path / "cache"), **nowhere
    )
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "error" not in err.lower()
    assert f"Report: {tmp_path / 'run' / 'report.html'}" in out
    assert files(tmp_path / "run") == contract("baseline")
    found = document(tmp_path / "run")
    assert found["status"] == "finished"
    assert found["dataset"]["train"] + found["dataset"]["validation"] + found["dataset"]["test"] == 24


# ---- what a run leaves -----------------------------------------------------------------------------------------------


def test_a_run_folder_holds_the_contracts_files_and_nothing_else(run: Run) -> None:
    assert files(run.out) == contract(*STRATEGIES, validation=False)


def test_every_file_of_a_run_has_the_same_rights(run: Run) -> None:
    modes = {p.stat().st_mode & 0o777 for p in run.out.rglob("*") if p.is_file()}
    assert len(modes) == 1


def share(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def amount(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0


def test_study_json_has_every_field_of_the_contract(run: Run) -> None:
    found = document(run.out)
    assert found["frostline"] == "0.1.0"
    assert (found["status"], found["seed"], found["protocol"], found["reported_on"]) == (
        "finished", 3, "tutorial", "validation",
    )  # fmt: skip
    assert found["created"].startswith("20")
    assert found["answer"] == found["decision"]["ship"]["words"]
    about = found["decision"]["unfreezing"]
    assert (about["unfrozen"], about["frozen"], about["comparisons"]) == ("fine-tuned", "frozen", 3)
    assert about["p_corrected"] == found["comparisons"][0]["p_corrected"]
    assert found["answer_detail"].startswith(f"{about['words']} Each model was trained once")
    assert amount(found["seconds"])
    assert set(found["machine"]) >= {"cpu", "cores", "python", "torch", "platform"}
    dataset = found["dataset"]
    assert dataset["classes"] == CLASSES
    assert dataset["root"] == str(run.data.resolve())
    assert dataset["test_root"] is None
    assert dataset["sample"] is False
    assert [row["name"] for row in found["strategies"]] == STRATEGIES
    for row in found["strategies"]:
        check_row(row)
    pairs = [("fine-tuned", "frozen"), ("fine-tuned", "baseline"), ("frozen", "baseline")]
    assert [(c["a"], c["b"]) for c in found["comparisons"]] == pairs
    for comparison in found["comparisons"]:
        assert -1 <= comparison["ci"][0] <= comparison["difference"] <= comparison["ci"][1] <= 1
        assert share(comparison["p_value"])
        assert comparison["a"] in comparison["verdict"]
        assert comparison["b"] in comparison["verdict"]
    assert len(found["claims"]) == 7
    assert all(
        c["claim"] and c["measured"] and c["verdict"] and isinstance(c["figures"], dict) for c in found["claims"]
    )


def check_row(row: dict[str, Any]) -> None:
    for name in ("accuracy", "macro_f1", "ece", "ece_calibrated"):
        assert share(row[name]), name
    assert 0 <= row["accuracy_ci"][0] <= row["accuracy"] <= row["accuracy_ci"][1] <= 1
    assert amount(row["log_loss"])
    assert row["temperature"] > 0
    assert row["image_size"] == 64
    assert 0 <= row["freeze_line"] <= row["layers"]
    assert 0 < row["parameters"]["trainable"] <= row["parameters"]["total"]
    assert [c["class"] for c in row["per_class"]] == CLASSES
    for each in row["per_class"]:
        assert all(share(each[name]) for name in ("precision", "recall", "f1"))
        assert isinstance(each["support"], int)
    assert len(row["confusion"]) == len(CLASSES)
    assert [sum(line) for line in row["confusion"]] == [c["support"] for c in row["per_class"]]
    assert [epoch["epoch"] for epoch in row["history"]] == [*range(1, EPOCHS + 1)]
    for epoch in row["history"]:
        assert all(amount(epoch[name]) for name in ("train_loss", "val_loss", "seconds"))
        assert all(share(epoch[name]) for name in ("train_accuracy", "val_accuracy"))
    assert all(amount(row["seconds"][name]) for name in ("prefix", "train", "evaluate", "total"))
    assert row["peak_rss_mb"] > 50


def test_the_lines_and_the_trainable_parameters_are_the_tutorials(run: Run) -> None:
    rows = {row["name"]: row for row in document(run.out)["strategies"]}
    assert rows["baseline"]["freeze_line"] == 0
    assert rows["frozen"]["freeze_line"] == rows["frozen"]["layers"]
    assert rows["fine-tuned"]["freeze_line"] == rows["fine-tuned"]["layers"] - 6
    # 1280 x 128 + 128 for the hidden layer, 128 x 3 + 3 for three classes; 720,000 in the last six layers
    assert rows["frozen"]["parameters"]["trainable"] == 1280 * 128 + 128 + 128 * 3 + 3
    assert rows["fine-tuned"]["parameters"]["trainable"] - rows["frozen"]["parameters"]["trainable"] == 720_000
    told = (
        f"fine-tuned trains {rows['fine-tuned']['parameters']['trainable']:,} parameters: the head and 32 % of the "
        "backbone (features.17 in part, features.18)."
    )
    pages = [
        run.said.out,
        *((run.out / f).read_text(encoding="utf-8") for f in ("report.html", "fine-tuned/bundle/README.md")),
    ]
    assert all(told in " ".join(page.replace("\u00a0", " ").split()) for page in pages)
    assert rows["fine-tuned"]["head_history"] == rows["frozen"]["history"]  # it starts from that head


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_figures_are_those_of_predictions_csv(run: Run, strategy: str) -> None:
    row = next(r for r in document(run.out)["strategies"] if r["name"] == strategy)
    with (run.out / strategy / "predictions.csv").open(encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == ["path", "true", "predicted", "confidence", *(f"p_{c}" for c in CLASSES)]
    predictions = table(run.out / strategy / "predictions.csv")
    true, predicted = [p["true"] for p in predictions], [p["predicted"] for p in predictions]
    shares = np.array([[float(p[f"p_{c}"]) for c in CLASSES] for p in predictions])
    assert np.allclose(shares.sum(1), 1, atol=1e-5)
    assert [float(p["confidence"]) for p in predictions] == shares.max(1).tolist()
    assert [CLASSES[i] for i in shares.argmax(1)] == predicted
    assert row["accuracy"] == pytest.approx(sk.accuracy_score(true, predicted), abs=1e-12)
    assert row["macro_f1"] == pytest.approx(sk.f1_score(true, predicted, labels=CLASSES, average="macro"), abs=1e-12)
    place = [CLASSES.index(t) for t in true]
    # six digits: each probability is off by at most 5e-7
    assert row["log_loss"] == pytest.approx(-np.log(shares[range(len(place)), place]).mean(), abs=1e-4)
    assert row["confusion"] == sk.confusion_matrix(true, predicted, labels=CLASSES).tolist()
    table_of = sk.precision_recall_fscore_support(true, predicted, labels=CLASSES, zero_division=0.0)
    for name, column in zip(("precision", "recall", "f1", "support"), table_of, strict=True):
        assert [c[name] for c in row["per_class"]] == pytest.approx(column.tolist(), abs=1e-12)
    assert row["history"][-1]["val_accuracy"] == pytest.approx(row["accuracy"], abs=0.15)  # bfloat16 against float32


def test_history_csv_is_the_history_of_study_json(run: Run) -> None:
    for row in document(run.out)["strategies"]:
        lines = table(run.out / row["name"] / "history.csv")
        assert [{k: float(v) for k, v in line.items()} for line in lines] == [
            {k: pytest.approx(v, abs=1e-6) for k, v in epoch.items()} for epoch in row["history"]
        ]


def test_the_run_folder_holds_the_whole_configuration(run: Run) -> None:
    settings = tomllib.loads((run.out / "config.toml").read_text(encoding="utf-8"))
    assert (settings["protocol"], settings["seed"], settings["image_size"]) == ("tutorial", 3, 64)
    assert [s["name"] for s in settings["strategies"]] == STRATEGIES
    assert all(s["recipe"]["epochs"] == EPOCHS for s in settings["strategies"])


# ---- photos that are none, twins, and photos in two classes ----------------------------------------------------------


def test_broken_photos_are_listed_everywhere_and_counted_nowhere(run: Run) -> None:
    dataset = document(run.out)["dataset"]
    assert sorted(s["path"] for s in dataset["skipped"]) == run.broken
    assert all(s["why"] for s in dataset["skipped"])
    good = len(CLASSES) * EACH + 2
    assert dataset["photos"] == good
    assert dataset["counts"] == {"class 2": EACH, "class 10": EACH + 1, "Tulpe ü": EACH + 1}
    assert dataset["train"] + dataset["validation"] == good
    rows = table(run.out / "manifest.csv")
    parts = Counter(row["split"] for row in rows)
    assert (parts["train"], parts["validation"], parts["test"]) == (dataset["train"], dataset["validation"], 0)
    assert not {row["path"] for row in rows} & set(run.broken)
    for strategy in STRATEGIES:
        reported = [p["path"] for p in table(run.out / strategy / "predictions.csv")]
        assert reported == [row["path"] for row in rows if row["split"] == "validation"]
    report = (run.out / "report.html").read_text(encoding="utf-8")
    assert [path for path in run.broken if path.removeprefix("class 2/") not in report] == []
    assert f"{len(run.broken)} left out" in run.said.out
    assert sum(f"  {path}: " in run.said.out for path in run.broken) >= 20


def test_twins_stay_together_and_a_photo_in_two_classes_is_reported(run: Run) -> None:
    dataset = document(run.out)["dataset"]
    conflict = [
        {"path": "class 2/class 2 2.png", "class": "class 2"},
        {"path": "Tulpe ü/stray.png", "class": "Tulpe ü"},
    ]
    assert dataset["conflicts"] == [conflict]
    assert sorted(sorted(group) for group in dataset["twins"]) == [
        ["Tulpe ü/stray.png", "class 2/class 2 2.png"],
        ["class 10/class 10 1.jpeg", "class 10/twin.jpg"],
    ]
    parts: dict[str, set[str]] = {}
    for row in table(run.out / "manifest.csv"):
        parts.setdefault(row["sha256"], set()).add(row["split"])
    assert [digest for digest, names in parts.items() if len(names) > 1] == []
    assert "in two classes" in run.said.out
    assert "stray.png" in (run.out / "report.html").read_text(encoding="utf-8")


# ---- the same again --------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_from_an_empty_cache_and_another_does_not(
    run: Run, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / "cache"))
    again = tmp_path / "again"
    must("study", run.data, "--out", again, *run.options, "--weights", pretrained)
    for strategy in STRATEGIES:
        name = f"{strategy}/predictions.csv"
        assert (again / name).read_bytes() == (run.out / name).read_bytes()
    assert figures(again) == figures(run.out)
    assert document(again)["comparisons"] == document(run.out)["comparisons"]

    other = tmp_path / "other"
    options = [*run.options]
    options[options.index("--seed") + 1] = "4"
    must("study", run.data, "--out", other, *options, "--strategies", "frozen", "--weights", pretrained)
    assert (other / "frozen/predictions.csv").read_bytes() != (run.out / "frozen/predictions.csv").read_bytes()
    assert table(other / "manifest.csv") != table(run.out / "manifest.csv")


def in_training(strategy: str) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["event"] == "epoch" and event["strategy"] == strategy


def test_killed_in_each_strategy_and_resumed_it_ends_with_the_same_figures(run: Run, tmp_path: Path) -> None:
    out, finished = tmp_path / "killed", []
    for strategy in ("frozen", "fine-tuned", "baseline"):  # the order in which they run
        process = spawn("study", run.data, "--out", out, *run.options, "--resume", "--quiet")
        assert stop_when(process, out, in_training(strategy), signal.SIGKILL) == -signal.SIGKILL
        process.communicate()
        assert document(out)["status"] == "running"
        assert [row["name"] for row in document(out)["strategies"]] == sorted(finished, key=STRATEGIES.index)
        finished.append(strategy)
        if len(finished) == 2:
            bundle = out / "frozen" / "bundle" / "model.safetensors"
            before = bundle.stat().st_mtime_ns
    said = must("study", run.data, "--out", out, *run.options, "--resume")
    assert "frozen: finished before, kept" in said.err
    assert bundle.stat().st_mtime_ns == before
    assert figures(out) == figures(run.out)
    assert document(out)["comparisons"] == document(run.out)["comparisons"]
    for strategy in STRATEGIES:
        for name in ("predictions.csv", "bundle/model.safetensors"):
            assert (out / strategy / name).read_bytes() == (run.out / strategy / name).read_bytes()
    epochs = Counter((e["strategy"], e["epoch"]) for e in events(out) if e["event"] == "epoch")
    assert epochs == {(s, e): 1 for s in STRATEGIES for e in range(1, EPOCHS + 1)}
    assert [e["strategy"] for e in events(out) if e["event"] == "finished"] == ["frozen", "fine-tuned", "baseline"]
    assert files(out) == contract(*STRATEGIES, validation=False)


def test_ctrl_c_tells_how_to_go_on_and_the_run_goes_on(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "photos", ["rose", "tulip"], 12)
    out, options = tmp_path / "run", ("--strategies", "baseline", "--epochs", "60", "--protocol", "tutorial", *SMALL)
    process = spawn("study", data, "--out", out, *options)
    assert stop_when(process, out, in_training("baseline"), signal.SIGINT) == 130
    said, err = process.communicate()
    assert "Traceback" not in err
    assert "--resume" in err.splitlines()[-1]
    assert said.splitlines()[0] == "Stopped while training baseline."
    assert said.splitlines()[-1] == f"Report: {out / 'report.html'}"
    found = document(out)
    assert (found["status"], found["stopped"], found["answer"]) == ("stopped", "while training baseline", "")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<b>Stopped</b> while training baseline. Not finished: baseline; nothing is said of it here." in page
    assert "Still running" not in page
    assert call("study", data, "--out", out, *options).error.endswith("or choose another --out")
    must("study", "--out", out, "--resume")  # the run folder knows its photos
    assert Counter(e["epoch"] for e in events(out) if e["event"] == "epoch") == dict.fromkeys(range(1, 61), 1)
    assert files(out) == contract("baseline", validation=False)
    last = document(out)
    assert last["status"] == "finished"
    assert "stopped" not in last
    assert last["sittings"][0] == found["seconds"]
    assert last["seconds"] == pytest.approx(sum(last["sittings"]))
    assert len(last["sittings"]) == 2
    assert last["seconds"] > sum(epoch["seconds"] for epoch in last["strategies"][0]["history"])
    page = (out / "report.html").read_text(encoding="utf-8")
    took = wording.duration(last["seconds"]).replace(" ", "\u00a0")
    assert f"The whole study took {took}. That is the sum of its 2 sittings." in page


def test_a_finished_run_resumes_to_itself(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(run.out, out)
    must("study", run.data, "--out", out, *run.options, "--resume")
    assert figures(out) == figures(run.out)
    assert [e["event"] for e in events(out)][-4:] == ["start", "cost", "photos", "end"]


# ---- parts that the data set gives, and other folders to report on ---------------------------------------------------


def test_another_folder_is_reported_on_less_the_twins_of_photos_trained_on(tested: Run) -> None:
    found = document(tested.out)
    other = Path(tested.options[1])
    dataset = found["dataset"]
    assert found["reported_on"] == "test"
    assert dataset["test_root"] == str(other.resolve())
    assert dataset["photos"] == len(CLASSES) * EACH == dataset["train"] + dataset["validation"]
    assert dataset["test"] == len(CLASSES) * 5
    why = {Path(s["path"]).relative_to(other).as_posix(): s["why"] for s in dataset["skipped"]}
    assert set(why) == {"class 10/copy 0.jpg", "class 2/copy 1.jpg", *tested.broken}
    assert "class 10/class 10 1.jpeg" in why["class 10/copy 0.jpg"]
    (row,) = found["strategies"]
    assert sum(map(sum, row["confusion"])) == dataset["test"]
    reported = [p["path"] for p in table(tested.out / "frozen" / "predictions.csv")]
    assert len(reported) == dataset["test"]
    assert all((other / path).is_file() for path in reported)
    assert row["log_loss"] != row["log_loss_uncalibrated"]  # a temperature was fitted, on validation photos


def test_train_validation_and_test_folders_are_used_as_they_are(tmp_path: Path) -> None:
    data = tmp_path / "parts"
    for number, (part, each) in enumerate({"train": 9, "val": 3, "test": 4}.items()):
        write_folder(data / part, ["rose", "tulip"], each, first_seed=100 * number)
    run = prepared_run(data, tmp_path / "run")
    assert [run.dataset["train"], run.dataset["validation"], run.dataset["test"]] == [18, 6, 8]
    assert run.prepared.reported_on == "test"
    reported = [p.path for p in run.prepared.reported()]
    assert len(reported) == 8
    assert {path.split("/")[0] for path in reported} == {"test"}


def test_a_csv_with_splits_is_used_as_it_is(tmp_path: Path) -> None:
    write_folder(tmp_path / "pool", ["a"], 18)
    paths = sorted((tmp_path / "pool" / "a").iterdir())
    split = ["train"] * 10 + ["val"] * 4 + ["test"] * 4
    lines = [f"pool/a/{p.name},{['yes', 'no'][i % 2]},{split[i]}" for i, p in enumerate(paths)]
    (tmp_path / "photos.csv").write_text("\n".join(["path,label,split", *lines]), encoding="utf-8")
    dataset = prepared_run(tmp_path / "photos.csv", tmp_path / "run").dataset
    assert [dataset["train"], dataset["validation"], dataset["test"]] == [10, 4, 4]
    assert dataset["counts"] == {"no": 9, "yes": 9}


def test_photos_that_changed_are_not_resumed_with(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "photos", ["rose", "tulip"], 12)
    must("study", data, "--out", tmp_path / "run", *QUICK)
    before = (tmp_path / "run" / "manifest.csv").read_bytes()
    (data / "rose" / "new.jpg").write_bytes(photo(999))
    error = call("study", data, "--out", tmp_path / "run", *QUICK, "--resume").error
    assert str(data) in error
    assert "--out" in error
    assert (tmp_path / "run" / "manifest.csv").read_bytes() == before
    assert files(tmp_path / "run") == contract("baseline")


def test_the_api_refuses_resumes_and_overwrites(tmp_path: Path) -> None:
    import frostline

    data = write_folder(tmp_path / "photos", ["rose", "tulip"], 12)
    config = frostline.configure(data, strategies=["baseline"], epochs=1, image_size=64)
    rows: list[str] = []
    first = frostline.study(config, tmp_path / "run", on_row=lambda row, _: rows.append(row["name"]))
    assert rows == ["baseline"]
    with pytest.raises(frostline.FrostlineError, match="holds a run already"):
        frostline.study(config, tmp_path / "run")
    (tmp_path / "run" / "baseline" / "predictions.csv").rename(tmp_path / "kept.csv")  # nothing is left that needs them
    assert frostline.study(config, tmp_path / "run", existing="resume")["strategies"] == first["strategies"]
    (tmp_path / "kept.csv").rename(tmp_path / "run" / "baseline" / "predictions.csv")
    (tmp_path / "run" / "baseline" / "old").touch()
    frostline.study(config, tmp_path / "run", existing="overwrite")
    assert files(tmp_path / "run") == contract("baseline")
    assert [e["event"] for e in events(tmp_path / "run")].count("start") == 1


# ---- what must not be lost or leak -----------------------------------------------------------------------------------

SCRATCH = (*QUICK, "--protocol", "tutorial")


def test_an_overwrite_that_can_not_begin_leaves_the_old_run(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", ["a", "b"], 6)
    must("study", data, "--out", tmp_path / "run", *SCRATCH)
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    call("study", tmp_path / "no such folder", "--out", tmp_path / "run", "--overwrite", *SCRATCH).error  # noqa: B018
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before
    must("study", data, "--out", tmp_path / "run", "--overwrite", "--seed", "9", *SCRATCH)
    assert document(tmp_path / "run")["seed"] == 9


def test_a_given_test_photo_is_not_trained_on(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_folder(data / "train", ["a", "b"], 10)
    write_folder(data / "val", ["a", "b"], 3, first_seed=100)
    write_folder(data / "test", ["a", "b"], 3, first_seed=200)
    tested = next((data / "test" / "a").iterdir())
    shutil.copy(tested, data / "train" / "a" / "leak.jpg")
    shutil.copy(next((data / "val" / "b").iterdir()), data / "train" / "b" / "watched.jpg")
    run = prepared_run(data, tmp_path / "run")
    assert (run.dataset["train"], run.dataset["validation"], run.dataset["test"]) == (20, 6, 6)
    why = run.why
    assert set(why) == {"train/a/leak.jpg", "train/b/watched.jpg"}
    assert why["train/a/leak.jpg"].startswith("the same photo stands in test: test/a/")


def test_a_class_without_a_readable_photo_is_left_out_and_listed(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", ["a", "b"], 6)
    (data / "c").mkdir()
    (data / "c" / "notes.txt").write_text("no photo")
    dataset = prepared_run(data, tmp_path / "run", protocol="tutorial").dataset
    assert dataset["classes"] == ["a", "b"]
    assert {"path": "c", "why": "class left out: none of its 1 files could be read"} in dataset["skipped"]
    other = write_folder(tmp_path / "other", ["a", "b", "c"], 3, first_seed=300)
    said = call("study", data, "--out", tmp_path / "run 2", "--test", other, *SCRATCH)
    assert "has a class 'c'" in said.error


def test_a_run_is_not_resumed_with_other_test_photos(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", ["a", "b"], 8)
    other = write_folder(tmp_path / "other", ["a", "b"], 3, first_seed=300)
    options = ("--test", other, "--out", tmp_path / "run", *SCRATCH)
    must("study", data, *options)
    assert [row["split"] for row in table(tmp_path / "run" / "manifest.csv")].count("test") == 6
    next((other / "a").iterdir()).unlink()
    assert "are not those that" in call("study", data, *options, "--resume").error


def test_fine_tuned_alone_is_what_it_is_in_a_study(run: Run, tmp_path: Path, pretrained: Path) -> None:
    must("study", run.data, "--out", tmp_path / "run", *run.options, "--strategies", "fine-tuned")
    alone, beside = (out / "fine-tuned" / "predictions.csv" for out in (tmp_path / "run", run.out))
    assert alone.read_bytes() == beside.read_bytes()


def test_resume_without_a_run_and_options_that_a_file_overrules_are_refused(run: Run, tmp_path: Path) -> None:
    assert "no run to go on with" in call("study", "--resume", "--out", tmp_path / "none").error
    said = call("study", "--config", run.out / "config.toml", "--seed", "4", "--out", tmp_path / "none")
    assert "--seed can't be given with --config" in said.error
    assert "is fine-tuned" in call("study", run.data, "--line", "top-2", "--out", tmp_path / "none", *SCRATCH).error
