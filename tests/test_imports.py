"""What starts at once: nothing heavy is imported before it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
    code = f"import sys\nfrom frostline.cli.main import main\nsys.argv[1:] = {arguments}\ntry:\n    main()\nexcept SystemExit:\n    pass"
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
        f"import sys\nfrom frostline.cli.main import app\nsys.argv[1:] = {arguments}\nassert not app(standalone_mode=False)"
    )
    assert "torch" in found
    assert not {"torch._dynamo", "torchvision", "timm"} & found  # each a second and more


def test_a_bundle_that_its_study_compiled_classifies_without_torch(run: Run, tmp_path: Path) -> None:
    photo = next(p for p in (run.data / "class 10").iterdir() if p.name.startswith("class 10 1."))
    code = f"import frostline\n(one,) = frostline.predict({str(run.out / 'frozen' / 'bundle')!r}, [{str(photo)!r}])\nassert one.confidence"
    assert imported(code) == set()
