"""How fast a bundle and its artefacts are on this machine, from image file to probabilities."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import frostline
from frostline import documents
from frostline.bundles import bundle as bundles
from frostline.exports import exporter, proof
from frostline.files import write_json, write_text
from frostline.networks import engine
from frostline.parallel import thread_count
from frostline.photos.loading import pixels
from frostline.photos.manifest import Photo
from frostline.progress import Progress
from frostline.reports.svg import COLOURS, Canvas

PHOTOS = 100
FILE, PICTURE = "bench.json", "bench.svg"


def bench(
    folder: str | Path,
    artefacts: Sequence[str | Path] = (),
    out: str | Path | None = None,
    *,
    data: str | Path = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a bundle and its artefacts, one after the other; returns what bench.json holds.

    Latency is of one photo at a time, from the file to its probabilities (median and 95th percentile); throughput is
    photos/s over all of them, with every core. The first three photos of each are not counted. Other work on the
    machine shows in the figures.

    Parameters
    ----------
    artefacts
        Folders of exports; none: all that stand beside the bundle.
    out
        Gets bench.json and bench.svg; None: nothing is written.
    data
        Labelled photos; empty: those of the bundle's run. At most 100 are used.

    Raises
    ------
    BundleError, DataError, RunError
        See the errors' own words.
    """
    progress = progress or Progress(quiet=True)
    source = Path(folder)
    model = bundles.load(source)
    photos = exporter.gather(source, model, data)
    chosen = photos.proof[:: max(1, len(photos.proof) // PHOTOS)][:PHOTOS]
    files = [photos.root / p.path for p in chosen]
    rows = [_bundle(model, chosen, photos.root, source, progress)]
    for place in map(Path, artefacts or beside(source)):
        exported = documents.read(place, documents.Export)
        if exported.get("status") != "proved":
            progress.say(f"{place} is left out: its proof failed")
            continue
        name = f"{exported['format']}{' int8' if exported['int8'] else ''}"
        task = progress.task(f"Measuring {name}")
        result = proof.run_on(place / exported["example"], files, timed=len(files))
        task.finish()
        rows.append(_row(name, result.file_ms, result.throughput, exported["size_bytes"], str(place)))
    document = {
        "frostline": frostline.__version__,
        "bundle": str(source),
        "photos": len(files),
        "machine": {"processor": engine.processor(), "cores": thread_count()},
        "rows": rows,
    }
    if out:
        write_json(Path(out) / FILE, document)
        write_text(Path(out) / PICTURE, picture(rows))
    return document


def beside(source: Path) -> list[Path]:
    """The exports that stand beside a bundle, by name."""
    return sorted(file.parent for file in source.resolve().parent.glob(f"*/{exporter.FILE}"))


def _bundle(
    model: bundles.Bundle, photos: Sequence[Photo], root: Path, source: Path, progress: Progress
) -> dict[str, Any]:
    task = progress.task("Measuring the bundle", len(photos))
    spent = []
    for photo in photos:
        started = time.perf_counter()
        found = pixels(root / photo.path, model.transform)
        if isinstance(found, np.ndarray):
            model.probabilities(found[None])
            spent.append(1000 * (time.perf_counter() - started))
    started = time.perf_counter()
    proof.bundle_probabilities(model, photos, root, task)
    throughput = len(photos) / (time.perf_counter() - started)
    task.finish()
    name = f"bundle ({engine.settle('auto')})"
    return _row(name, spent, throughput, (source / "model.safetensors").stat().st_size, str(source))


def _row(name: str, spent: Sequence[float], throughput: float, size: int, where: str) -> dict[str, Any]:
    counted = np.array(spent[3:] or spent)
    return {
        "name": name,
        "latency_ms": round(float(np.median(counted)), 3),
        "latency_p95_ms": round(float(np.quantile(counted, 0.95)), 3),
        "throughput": round(throughput, 1),
        "size_bytes": size,
        "folder": where,
    }


def picture(rows: Sequence[dict[str, Any]]) -> str:
    """Photos/s, latency and size of each, as bars in an SVG file."""
    panels = (("throughput", "photos/s", 1.0, 0), ("latency_ms", "ms, one photo", 1.0, 1), ("size_bytes", "MB", 1e6, 1))
    left, wide, step = 130, 170, 26
    height = 44 + step * len(rows)
    canvas = Canvas(
        left + 190 * len(panels), height, "Photos per second, latency and size of a bundle and its artefacts"
    )
    for i, row in enumerate(rows):
        canvas.text(left - 10, 46 + step * i, row["name"], "strong", "end")
    for k, (key, title, unit, digits) in enumerate(panels):
        x = left + 190 * k
        most = max(row[key] for row in rows) / unit or 1.0
        canvas.text(x, 18, title, "soft")
        canvas.line(x, 28, x, height - 8, "rule")
        for i, row in enumerate(rows):
            value = row[key] / unit
            length = (wide - 50) * value / most
            canvas.draw("rect", x=x, y=35 + step * i, width=length, height=14, fill=COLOURS[k])
            canvas.text(x + length + 5, 46 + step * i, f"{value:.{digits}f}")
    return canvas.render(alone=True)
