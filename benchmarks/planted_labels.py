"""Label errors, shortcuts and leaks planted into a copy of a set of photos, and how many `frostline check` finds.

    python benchmarks/planted_labels.py [DATA] [--share 0.03] [--seed 0] [--backbone A+B] [--image-size 288] [--out F]
    python benchmarks/planted_labels.py [DATA] --only labels --keep      # right labels that are hard stay in

DATA is a folder of class folders; without it the built-in sample is used. It is only read: the copies are temporary
folders of links.

**labels**: DATA is checked once, and the photos whose label it doubts already are left out (they may be real), unless
`--keep` says that all labels are right. Of the rest `--share` get another class, drawn at random; the copy is checked.
Recall is the share of these that are called, precision that of those called that were planted; `told` is what the check
says of its precision. **shortcut**: one class gets a border, another size, another format.
**leak**: some photos stand in `train` and, byte for byte or recompressed at quality 40, in `test`.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from frostline.checks import check
from frostline.checks.examine import NETWORKS
from frostline.documents import Check
from frostline.photos import sample
from frostline.photos.scan import scan
from frostline.progress import Progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?")
    parser.add_argument("--share", type=float, default=0.03)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backbone", default=NETWORKS)
    parser.add_argument("--image-size", type=int, default=0)
    parser.add_argument("--only", choices=["labels"])
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--out")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Progress() as progress:
        data = Path(given.data) if given.data else sample.render(Path(folder) / "sample")

        def look(photos: Path) -> Check:
            return check.check(photos, backbone=given.backbone, image_size=given.image_size, progress=progress)

        found = {"labels": labels(data, Path(folder), given.share, given.seed, given.keep, look)}
        if not given.only:
            found["shortcuts"] = {name: shortcut(data, Path(folder), name, look) for name in CHANGES}
            found["leaks"] = leaks(data, Path(folder), given.seed, look)
    text = json.dumps(found, indent=1)
    print(text)
    if given.out:
        Path(given.out).write_text(text + "\n", encoding="utf-8")


Look = Callable[[Path], Check]


def paths(document: Check, *kinds: str) -> set[str]:
    return {path for f in document["findings"] if f["kind"] in kinds for path in f["paths"]}


def linked(target: Path, source: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source.resolve())


def labels(data: Path, folder: Path, share: float, seed: int, keep: bool, look: Look) -> dict[str, Any]:
    listed = scan(data)
    doubts = () if keep else ("label", "hard", "junk", "unusual", "conflict", "placeholder")
    doubted = paths(look(data), "unreadable", *doubts)
    clean = [p for p in listed.photos if p.path not in doubted]
    rng = np.random.default_rng(seed)
    chosen = set(rng.choice(len(clean), round(share * len(clean)), replace=False).tolist())
    planted = set()
    for i, photo in enumerate(clean):
        others = [c for c in listed.classes if c != photo.label]
        label = others[rng.integers(len(others))] if i in chosen else photo.label
        name = f"{label}/{i} {Path(photo.path).name}"
        linked(folder / "labels" / name, data / photo.path)
        if i in chosen:
            planted.add(name)
    document = look(folder / "labels")
    called, told = paths(document, "label"), document["chance"] or {}
    found = len(called & planted)
    return {
        "photos": len(clean),
        "left_out": len(listed.photos) - len(clean),
        "planted": len(planted),
        "called": len(called),
        "recall": round(found / len(planted), 3) if planted else None,
        "precision": round(found / len(called), 3) if called else None,
        "told": {key: told.get(key) for key in ("precision", "precision_ci", "share_wrong", "hard", "hard_by_chance")},
    }


CHANGES: dict[str, tuple[str, Callable[[Image.Image], Image.Image]]] = {
    "border": ("JPEG", lambda photo: ImageOps.expand(photo, 8, (250, 250, 250))),
    "size": ("JPEG", lambda photo: photo.resize((256, 256))),
    "format": ("PNG", lambda photo: photo),
}


def shortcut(data: Path, folder: Path, name: str, look: Look) -> dict[str, Any]:
    listed, (form, change) = scan(data), CHANGES[name]
    changed = listed.classes[0]
    for i, photo in enumerate(listed.photos):
        target = folder / name / photo.label / f"{i}.photo"
        if photo.label != changed:
            linked(target, data / photo.path)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(data / photo.path) as picture:
            change(picture.convert("RGB")).save(target, form)
    called = [f for f in look(folder / name)["findings"] if f["kind"] == "shortcut"]
    return {"class": changed, "called": [{"classes": f["classes"], "detail": f["detail"]} for f in called]}


def leaks(data: Path, folder: Path, seed: int, look: Look) -> dict[str, Any]:
    listed = scan(data)
    order = np.random.default_rng(seed).permutation(len(listed.photos)).tolist()
    planted = set()
    for place, i in enumerate(order):
        photo = listed.photos[i]
        part = "test" if place % 5 == 0 else "train"
        linked(folder / "leaks" / part / photo.label / f"{i}.jpg", data / photo.path)
        if part == "train" and place % 100 < 2:
            target = folder / "leaks" / "test" / photo.label / f"copy of {i}.jpg"
            planted.add(f"test/{photo.label}/copy of {i}.jpg")
            if place % 2:
                linked(target, data / photo.path)
            else:
                with Image.open(data / photo.path) as picture:
                    stream = io.BytesIO()
                    picture.convert("RGB").save(stream, "JPEG", quality=40)
                target.write_bytes(stream.getvalue())
    found = paths(look(folder / "leaks"), "leak", "near leak")
    return {"planted": len(planted), "found": len(planted & found)}


if __name__ == "__main__":
    main()
