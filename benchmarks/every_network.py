"""Does everything work with every network that frostline names? One small data set, each command once.

    python benchmarks/every_network.py                              # all networks of the short list, and five others
    python benchmarks/every_network.py --only mobilenet_v2,swin     # names that begin so
    python benchmarks/every_network.py --out docs/every-network.md

Weights are random (no hub is needed) and come as a file of safetensors, so accuracies mean nothing and are not shown.
On 24 drawn photos, with each network: `check`, `study` of frozen and fine-tuned with the default line, `predict`,
`explain`, `export` to ONNX with its proof, `serve` with one photo. Then the fine-tuned bundle is held beside the
weights that it began with: what is above the line, and nothing else, has changed, so a norm below it is bit for bit
what it was. The two sides of the line compute, bit for bit in float32, what the whole network does.

The exit status is 0 where all of it works with all networks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file

from frostline.networks import backbone, freeze_line, short_list
from frostline.photos import sample

Run = Callable[..., str]
"""Runs a command of frostline's and gives back its stdout; raises where it fails."""

OTHERS = (
    "regnety_004",
    "vit_tiny_patch16_224",
    "convnext_atto",
    "swin_tiny_patch4_window7_224",
    "deit3_small_patch16_224",
)
NAMES = (*(row.name for row in short_list.NAMED), *OTHERS)
CLASSES, EACH = ("rose", "tulip"), 12


class BrokenError(Exception):
    """What does not hold."""


def holds(true: bool, otherwise: str) -> None:
    if not true:
        raise BrokenError(otherwise)


@dataclass(frozen=True)
class Found:
    """A network that went through everything."""

    name: str
    side: int
    """Of the photos of the study, pixels."""
    line: str
    """The first layer above the default line."""
    trained: float
    """Share of the backbone's parameters above the line."""
    proved: str
    """What the proof of the export says."""
    seconds: float

    def row(self) -> str:
        """Of the table."""
        return f"| `{self.name}` | {self.side} | `{self.line}` | {100 * self.trained:.1f} % | {self.proved} |"


TITLE = (
    "# Every network, the whole way\n\n"
    "`python benchmarks/every_network.py --out docs/every-network.md`: random weights from a file, 24 drawn photos; "
    "check, study, predict, explain,\nexport to ONNX, serve. Accuracies mean nothing here and are left out.\n"
)
HEADING = (
    "| network | photos, pixels | first layer that is trained | share of the parameters | proof of the ONNX file |\n"
    "| --- | --- | --- | --- | --- |"
)


def photos(folder: Path) -> Path:
    """Draw the data set: (2 classes) x 12 photos."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(EACH):
            sample.photo(name, number, seed=0).save(folder / name / f"{number}.jpg", quality=90)
    return folder


def weights(name: str, folder: Path) -> Path:
    """A file of random weights."""
    torch.manual_seed(0)
    own = name == "mobilenet_v2"
    network = torchvision.models.mobilenet_v2() if own else timm.create_model(name, pretrained=False)
    file = folder / f"{name}.safetensors"
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, file)
    return file


def walk(name: str, data: Path, folder: Path, run: Run, size: int = 0, *study_options: str) -> Found:
    """All commands with one network, and what must hold of the bundle that they leave.

    Parameters
    ----------
    data
        As `photos` draws them.
    size
        Side of the photos, pixels; 0: what a study takes.
    study_options
        Further ones.

    Raises
    ------
    BrokenError
        Something does not hold; the message says what.
    """
    started = time.perf_counter()
    file = weights(name, folder)
    given = ("--backbone", name, "--weights", file, "--image-size", size)
    study = folder / "study"
    bundle = study / "fine-tuned" / "bundle"
    one = next((data / CLASSES[0]).iterdir())
    run("check", data, "--out", folder / "check", *given)
    run("study", data, "--out", study, *given, "--strategies", "frozen,fine-tuned", "--epochs", "1", *study_options)
    run("predict", bundle, data, "--out", folder / "predictions.csv")
    rows = (folder / "predictions.csv").read_text(encoding="utf-8").splitlines()
    holds(len(rows) == 1 + len(CLASSES) * EACH, f"{len(rows)} rows of predictions")
    run("explain", bundle, one, "--out", folder / "maps")
    holds(any(file.suffix in (".png", ".jpg") for file in (folder / "maps").rglob("*")), "no heat map")
    run("export", bundle, "--data", data, "--out", folder / "onnx")
    proof = json.loads((folder / "onnx" / "export.json").read_text(encoding="utf-8"))
    holds(proof["status"] == "proved", "the export is not proved")
    with serving(bundle) as url:
        answer = httpx.post(f"{url}/v1/predict", content=one.read_bytes(), headers={"Content-Type": "image/jpeg"})
        holds(answer.status_code == 200, answer.text)
    document = json.loads((study / "study.json").read_text(encoding="utf-8"))
    row = next(row for row in document["strategies"] if row["name"] == "fine-tuned")
    line, trained = compared(name, bundle, file)
    holds(0.1 <= trained <= 0.6, f"{100 * trained:.1f} % of the parameters are above the line")
    side = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))["transform"]["size"]
    holds(abs(row["unfrozen"]["share"] - trained) < 1e-3, "study.json tells another share")
    return Found(name, side, line, trained, told(proof), time.perf_counter() - started)


def told(proof: dict[str, Any]) -> str:
    """A proof in a few words."""
    return f"{proof['photos'] - proof['disagree']} of {proof['photos']} answers the same"


def compared(name: str, bundle: Path, file: Path) -> tuple[str, float]:
    """Hold the bundle beside the weights that it began with: (first layer above its line, share of the parameters
    above it)."""
    about = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    size, place = about["transform"]["size"], about["line"]
    built = backbone.build(name, "pretrained", image_size=size, path=file)
    before = {f"backbone.{k}": v for k, v in built.network.state_dict().items()}
    after = load_file(bundle / "model.safetensors")
    changed = {k for k, v in before.items() if not torch.equal(v, after[k])}
    parts = freeze_line.cut(built.traced, place)
    trained = {id(p) for p in parts.suffix.parameters()}
    learned = {f"backbone.{k}" for k, p in built.network.named_parameters() if id(p) in trained}
    holds(changed <= learned, f"changed though frozen: {sorted(changed - learned)[:3]}")
    holds(len(changed) > len(learned) / 2, f"{len(changed)} of {len(learned)} tensors above the line changed")
    batch = torch.randint(256, (2, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        holds(torch.equal(parts.suffix(*parts.prefix(batch)), built.network(batch)), "the two sides are not the whole")
    return built.lines.layers[place], built.lines.share(place)


@contextmanager
def serving(bundle: Path) -> Iterator[str]:
    """The address of a server of this bundle."""
    command = [sys.executable, "-m", "frostline", "serve", str(bundle), "--port", "0", "--json", "--no-token"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            line = server.stdout.readline() if server.stdout else ""
            if not line:
                raise BrokenError(f"the server stopped: {server.stderr.read() if server.stderr else ''}")
            yield json.loads(line)["url"].rstrip("/")
        finally:
            server.terminate()


def command(*arguments: object) -> str:
    """A command of frostline's in a process of its own; see `Run`."""
    said = [sys.executable, "-m", "frostline", *map(str, arguments)]
    done = subprocess.run(said, capture_output=True, text=True, check=False)
    holds(done.returncode == 0, f"{arguments[0]}: exit status {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="comma-separated: names that begin so")
    parser.add_argument("--out", default="", help="write the table to this Markdown file")
    options = parser.parse_args()
    names = [name for name in NAMES if name.startswith(tuple(options.only.split(",")))]
    rows, failed = [HEADING], 0
    with tempfile.TemporaryDirectory() as folder:
        data = photos(Path(folder) / "photos")
        for name in names:
            own = Path(folder) / name
            own.mkdir()
            try:
                found = walk(name, data, own, command)
            except Exception as error:  # the others are still worth knowing
                failed += 1
                print(f"{name}: {type(error).__name__}: {error}", flush=True)
            else:
                rows.append(found.row())
                print(f"{name}: all works, {found.seconds:.0f} s", flush=True)
    print("\n".join(rows))
    if options.out and not failed:
        Path(options.out).write_text("\n".join([TITLE, *rows]) + "\n", encoding="utf-8")
    print(f"{failed} of {len(names)} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
