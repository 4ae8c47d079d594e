"""The figures of README.md and docs/*.md: they stand in docs/figures.toml, and nowhere else.

    python benchmarks/figures.py            # fill the figures into the documents again (make figures)
    python benchmarks/figures.py --check    # is a figure there that no command has measured? exit status 1, one a line

Scripts measure and `record` a table in docs/figures.toml: command, date, commit, machine, versions, values. A document
shows them between two comments, `<!-- figures: NAME -->` and `<!-- /figures -->`: what stands between is filled in from
the template docs/figures/NAME.md.j2, which holds no figure of its own. Everywhere else a number with a unit, with
decimals or with a thousands separator is an error, unless a phrase of `[plain]` in docs/figures.toml covers it: numbers
that nobody measured, such as a version or an option's value, each with what it is.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
import tomli_w

from frostline import wording
from frostline.files import write_text

ROOT = Path(__file__).resolve().parents[1]
HEAD = "# Written by the scripts of benchmarks/, but for [plain] and [written]; see benchmarks/figures.py.\n\n"
NEEDED = ("command", "date", "commit", "load", "machine", "versions", "values")
BLOCK = re.compile(r"(<!-- figures: ([\w-]+) -->\n)(.*?)(<!-- /figures -->)", re.DOTALL)
_UNITS = (
    "%|points?|s|ms|min|h|seconds?|minutes?|hours?|kB|MB|GB|TB|x|times|(?:photos|images|rows|requests)(?:/s| a second)"
)
FIGURE = re.compile(
    rf"(?<![\w.,/-])[-+±\u2212]?\d[\d,]*(?:\.\d+)?\s?(?:{_UNITS})(?![\w/])"  # a unit
    r"|(?<![\w.,/-])[-+±\u2212]?\d[\d,]*\.\d+(?![\w.]*\w)"  # decimals
    r"|(?<![\w.,/-])\d{1,3}(?:,\d{3})+(?![\w,])"  # thousands
)
_LINK = re.compile(r"\]\([^)]*\)")


# ---- what scripts write ----------------------------------------------------------------------------------------------


def load(root: Path = ROOT) -> dict[str, Any]:
    """docs/figures.toml."""
    return tomllib.loads((root / "docs" / "figures.toml").read_text(encoding="utf-8"))


def record(
    name: str, command: str, values: Mapping[str, Any], *, loads: Sequence[float], root: Path = ROOT, **more: object
) -> None:
    """Put a table into docs/figures.toml in place of the one of that name, and fill the documents again.

    Parameters
    ----------
    command
        Gives these values again.
    values
        Numbers, texts, and lists and tables of them.
    loads
        The machine's load average (1 min) when each measurement began: 0 is a quiet machine.
    more
        Further keys of the table, such as `date`, where it was measured before today.
    """
    document = load(root)
    document.setdefault("measured", {})[name] = {
        "command": command,
        "date": datetime.now(UTC).date(),
        "commit": commit(root),
        "load": [round(value, 1) for value in loads],
        "machine": machine(),
        "versions": versions(),
        **more,
        "values": _rounded(values),
    }
    write_text(root / "docs" / "figures.toml", HEAD + tomli_w.dumps(document))
    fill(root)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _rounded(one) for key, one in value.items() if one is not None}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


def commit(root: Path) -> str:
    """The commit that is measured, with a plus where files differ from it."""
    described = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(described, capture_output=True, text=True, check=True).stdout.strip()


def machine() -> dict[str, Any]:
    """The processor's name as lscpu has it, the widest of the instructions that decide about speed here, cores."""
    about = Path("/proc/cpuinfo")
    text = about.read_text(encoding="utf-8") if about.exists() else ""
    names = re.findall(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = set(" ".join(re.findall(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)[:1]).split())
    known = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": names[0] if names else platform.machine(),
        "flags": [flag for flag in known if flag in flags],
        "cores": cores,
        "system": platform.system(),
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that figures depend on most."""
    packages = ("torch", "openvino", "onnxruntime", "timm", "scikit-learn", "numpy", "pillow")
    found = {"frostline": metadata.version("frostline"), "python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


# ---- what documents read ---------------------------------------------------------------------------------------------


def documents(root: Path = ROOT) -> list[Path]:
    """README.md and the documents in docs/, but those that a command writes whole."""
    written = load(root).get("written", {})
    found = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    return [path for path in found if path.relative_to(root).as_posix() not in written]


def fill(root: Path = ROOT) -> None:
    """Fill the figures into every document."""
    for path in documents(root):
        text = path.read_text(encoding="utf-8")
        if (filled := _filled(text, root)) != text:
            write_text(path, filled)


def _filled(text: str, root: Path) -> str:
    measured = load(root).get("measured", {})
    return BLOCK.sub(lambda found: found[1] + _rendered(found[2], measured, root) + found[4], text)


def _rendered(name: str, measured: Mapping[str, Any], root: Path) -> str:
    folder = root / "docs" / "figures"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,  # noqa: S701  # Markdown
    )  # fmt: skip
    plain = {name: getattr(wording, name) for name in ("percent", "points", "span", "decimal", "count", "duration")}
    environment.filters |= {**plain, "p": wording.p_value, "where": where, "three": three}
    return environment.get_template(f"{name}.md.j2").render(m=measured)


def three(values: Sequence[float]) -> str:
    """Median, least and most: "28.1 (26.0 to 30.2)"."""
    return "{:,.1f} ({:,.1f} to {:,.1f})".format(*values)


def where(table: Mapping[str, Any]) -> str:
    """Of a table: the machine, the day, the commit, and what ran beside, in a line."""
    at = table["machine"]
    load = max(table["load"], default=0.0)
    flags = f" ({at['flags'][0]})" if at["flags"] else ""
    beside = (
        f", with other jobs beside (load average at a start up to {load:.0f})"
        if load >= BUSY
        else ", on a quiet machine"
    )
    return f"{at['cpu']}{flags}, {at['cores']} cores, {table['date']:%-d %B %Y}, commit {table['commit']}{beside}"


BUSY = 1.0
"""Load average before a measurement from which the machine was not quiet."""


# ---- what is wrong ---------------------------------------------------------------------------------------------------


def figures(text: str, plain: Sequence[str] = ()) -> list[str]:
    """The figures of a text outside its blocks that no phrase of `plain` covers."""
    left = _LINK.sub("]", BLOCK.sub("", text))
    for phrase in sorted(plain, key=len, reverse=True):
        left = re.sub(rf"(?<![\w.,]){re.escape(phrase)}(?!\w|[.,]\d)", "_", left)
    return [found[0].strip() for found in FIGURE.finditer(left)]


def problems(root: Path = ROOT) -> Iterator[str]:
    """Each figure that was not measured, and each other fault, in a line."""
    document = load(root)
    plain, measured = document.get("plain", {}), document.get("measured", {})
    whole = ""
    for path in documents(root):
        name, text = path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
        whole += text
        yield from (f"{name}: {figure} stands in no measurement" for figure in figures(text, list(plain)))
        if _filled(text, root) != text:
            yield f"{name}: not as docs/figures.toml has it; make figures"
    templates = sorted((root / "docs" / "figures").glob("*.md.j2"))
    for path in templates:
        text = re.sub(r"{[{%#].*?[}%#]}", "_", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        whole += text
        yield from (f"{path.name}: {figure} is written into the template" for figure in figures(text, list(plain)))
    yield from (f"[plain] {phrase}: stands nowhere" for phrase in plain if phrase not in whole)
    yield from (f"[plain] {phrase}: covers no figure" for phrase in plain if not figures(phrase))
    for name, table in measured.items():
        yield from (f"{name}: {key} is missing" for key in NEEDED if key not in table)
    yield from _picture_problems(root, document)


def _picture_problems(root: Path, document: Mapping[str, Any]) -> Iterator[str]:
    """Pictures show figures too: each is the one that a measurement has drawn, known by its digest."""
    known = {k: v for table in document.get("measured", {}).values() for k, v in table.get("pictures", {}).items()}
    for path in sorted(p for kind in ("png", "svg", "jpg", "webp") for p in (root / "docs").glob(f"*.{kind}")):
        name = path.relative_to(root).as_posix()
        if known.get(name) != digest(path):
            yield f"{name}: drawn by no measurement of docs/figures.toml"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository")
    options = parser.parse_args()
    if not options.check:
        fill(options.root)
        return
    found = list(problems(options.root))
    print("\n".join(found))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
