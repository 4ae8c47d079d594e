"""The public names, and what starts at once: nothing heavy is imported before it is needed."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import frostline
from support.photos import write_folder
from support.runs import Run

HEAVY = {"torch", "torch._dynamo", "torchvision", "timm", "scipy", "sklearn"}


def imported(code: str) -> set[str]:
    """The heavy packages that a new process has imported after `code`."""
    program = f"{code}\nimport sys\nprint('heavy:', *sorted({HEAVY} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.rpartition("heavy:")[2].split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["study", "--help"], ["cache", "list"]])
def test_the_command_line_starts_without_torch(arguments: list[str]) -> None:
    code = (
        f"import sys\nfrom frostline.cli.main import main\nsys.argv[1:] = {arguments}\n"
        "try:\n    main()\nexcept SystemExit:\n    pass"
    )
    assert imported(code) == set()


def test_the_package_is_imported_without_torch() -> None:
    assert imported("import frostline\nassert frostline.__version__") == set()


def test_a_frozen_run_imports_no_compiler_of_torch(run: Run, tmp_path: Path) -> None:
    arguments = [
        "study",
        str(run.data),
        "--strategies",
        "frozen",
        "--preset",
        "fast",
        "--epochs",
        "1",
        "--image-size",
        "64",
    ]
    arguments += ["--protocol", "tutorial", "--out", str(tmp_path / "run"), "--quiet"]
    found = imported(
        f"import sys\nfrom frostline.cli.main import app\nsys.argv[1:] = {arguments}\n"
        "assert not app(standalone_mode=False)"
    )
    assert "torch" in found
    assert not {"torch._dynamo", "torchvision", "timm"} & found  # each a second and more


def test_a_bundle_that_its_study_compiled_classifies_without_torch(run: Run, tmp_path: Path) -> None:
    photo = next(p for p in (run.data / "class 10").iterdir() if p.name.startswith("class 10 1."))
    bundle = str(run.out / "frozen" / "bundle")
    code = f"import frostline\n(one,) = frostline.predict({bundle!r}, {str(photo)!r})\nassert one.confidence"
    assert imported(code) == set()


# ---- the public names ------------------------------------------------------------------------------------------------


def test_the_public_names_are_these() -> None:
    assert frostline.__all__ == ["Config", "FrostlineError", "configure", "load", "predict", "study"]
    assert frostline.__all__ == sorted(frostline.__all__)
    assert {*frostline.__all__, "__version__"} <= set(dir(frostline))
    for name in frostline.__all__:
        assert getattr(frostline, name).__name__ == name
    with pytest.raises(AttributeError, match="public names: Config, FrostlineError, configure"):
        frostline.sutdy  # type: ignore[attr-defined]  # noqa: B018


def test_a_folder_is_a_module_and_a_verb_a_function() -> None:
    assert isinstance(importlib.import_module("frostline.studies"), ModuleType)
    importlib.import_module("frostline.studies.study")
    importlib.import_module("frostline.bundles.predict")
    assert callable(frostline.study)
    assert callable(frostline.predict)


def test_one_path_is_one_photo(run: Run) -> None:
    bundle = run.out / "baseline" / "bundle"
    path = next(p for p in (run.data / "class 10").iterdir() if p.name.startswith("class 10 1."))
    listed = list(frostline.predict(bundle, [path]))
    assert list(frostline.predict(str(bundle), str(path))) == list(frostline.predict(bundle, path)) == listed
    folder = list(frostline.predict(bundle, path.parent))
    assert [one.path for one in folder] == [one.path for one in frostline.predict(bundle, [path.parent])]
    (missing,) = frostline.predict(bundle, "nowhere.jpg")
    assert missing.path == "nowhere.jpg"


@pytest.mark.parametrize("paths", [None, 3, b"a.jpg"])
def test_what_is_no_path_is_told(run: Run, paths: object) -> None:
    with pytest.raises(frostline.FrostlineError, match=r"^paths is .*: expected a path$"):
        frostline.predict(run.out / "baseline" / "bundle", paths)  # type: ignore[arg-type]
    with pytest.raises(frostline.FrostlineError, match=r"^a photo is 3 \(int\): expected a path$"):
        list(frostline.predict(run.out / "baseline" / "bundle", [3]))  # type: ignore[list-item]
    with pytest.raises(frostline.FrostlineError, match=r"^bundle is .*: expected a path$"):
        frostline.load(["a", "b"])  # type: ignore[arg-type]


def test_a_study_takes_the_path_of_photos_or_says_what_it_wants(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "photos", ["rose"], 3)
    for given in (data, str(data)):
        with pytest.raises(frostline.FrostlineError, match="only one class"):
            frostline.study(given, str(tmp_path / "run"))
    for given, out, says in (
        (3, tmp_path / "run", "data is 3 .int.: expected text or a path"),
        (data, None, "out is None .NoneType.: expected a path"),
    ):
        with pytest.raises(frostline.FrostlineError, match=f"^{says}$"):
            frostline.study(given, out)  # type: ignore[arg-type]
    with pytest.raises(frostline.FrostlineError, match="existing is 'resum': expected refuse, resume, overwrite"):
        frostline.study(data, tmp_path / "run", existing="resum")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()
