"""Export a bundle as a model that runs without frostline. It is only kept if it is proved to predict what the bundle
predicts.

bundle -> network with all that is around it -> artefact + example -> proof, from image file to label -> export.json
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

import frostline
from frostline import documents
from frostline.bundles import bundle as bundles
from frostline.bundles import card
from frostline.bundles.bundle import Bundle
from frostline.documents.bundle import ExportedModel
from frostline.errors import BundleError, ConfigError, DataError, PhotoError, RunError, nearest
from frostline.exports import example_code, formats, proof
from frostline.files import replacing, write_text
from frostline.networks import engine
from frostline.parallel import thread_count
from frostline.photos import manifest, scan
from frostline.photos.decoding import Pixels
from frostline.photos.loading import pixels
from frostline.photos.manifest import Photo
from frostline.progress import Progress

if TYPE_CHECKING:  # PyTorch is imported only once something is written
    from frostline.exports.artefact import Spec

FILE = "export.json"


class Photos(NamedTuple):
    """Photos of a bundle's own run, or of a folder that was given."""

    root: Path
    proof: list[Photo]
    """From file to label on these."""
    training: list[Photo]
    """Int8 is calibrated on some of these."""
    what: str
    """In words: which photos the proof is on."""


def export(
    folder: str | Path,
    form: str = "onnx",
    out: str | Path | None = None,
    *,
    int8: bool = False,
    data: str | Path = "",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> documents.Export:
    """Export a bundle and prove that the artefact says the same; returns what export.json holds.

    Parameters
    ----------
    form
        ``onnx``, ``openvino``, ``torch`` or ``litert``.
    out
        The artefact's folder; None: beside the bundle, named after the format.
    data
        Labelled photos for the proof (and, a third of them, for int8); empty: the photos of the run that made the
        bundle that it was not trained on, validation photos first.

    Raises
    ------
    BundleError, ConfigError, DataError, MissingExtraError
        See the errors' own words.
    RunError
        The proof failed: then nothing but export.json is left at `out`; or `out` holds something already.
    """
    progress = progress or Progress(quiet=True)
    source, kind = Path(folder), formats.chosen(form, int8=int8)
    target = Path(out) if out else source.parent / f"{form}{'-int8' if int8 else ''}"
    _check_free(target, overwrite=overwrite)
    model = bundles.load(source, "onnx")
    photos = gather(source, model, data)

    with replacing(target) as temporary:
        temporary.mkdir()
        # -- write it
        calibration = _calibration(photos, model, progress) if int8 else []
        task = progress.task(f"Writing {form}{' in int8' if int8 else ''}")
        spec = _write(kind, model, calibration, temporary, int8=int8)
        task.finish()

        # -- and prove it
        about = _described(temporary, form, kind, spec, source, photos)
        document = _proved(about, temporary, model, photos, progress)
        if document["why"]:
            shutil.rmtree(temporary)
            temporary.mkdir()
        else:
            write_text(temporary / "README.md", card.exported(document, source))
        documents.write(temporary, documents.Export, document)
        if target.exists():
            shutil.rmtree(target)
    if document["why"]:
        raise RunError(f"the {form} export is not kept: {document['why']}; the figures are in {target / FILE}")
    return document


def _write(kind: formats.Form, model: Bundle, calibration: list[Pixels], folder: Path, *, int8: bool) -> Spec:
    """Write the artefact and its example."""
    from frostline.exports.artefact import Core, Spec

    spec = Spec(model.about, int8, kind.whole_photo)
    kind.write(formats.Order(Core(model.about, model.parts), spec, calibration), folder)
    text = example_code.write(kind.example, kind.file, model.transform, whole_photo=kind.whole_photo)
    write_text(folder / "example.py", text)
    return spec


def _check_free(target: Path, *, overwrite: bool) -> None:
    """Refuse to write over what is no export, and over an export unless that is wanted."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (target / FILE).is_file():
        raise ConfigError(f"--out {target}: there is something else already; give a new folder")
    if documents.read(target, documents.Export).get("status") == "proved" and not overwrite:
        raise ConfigError(f"--out {target} holds an export already: give --overwrite, or another folder")


# ---- photos ----------------------------------------------------------------------------------------------------------


def gather(source: Path, model: Bundle, data: str | Path = "") -> Photos:
    """The photos to prove an artefact on.

    Raises
    ------
    DataError
        There are none: the run's are gone, or the folder given has other classes.
    """
    refit = bool(model.about.figures.get("refit"))
    return _of_folder(Path(data), model.classes) if data else _of_run(source, refit)


def _of_run(source: Path, refit: bool) -> Photos:
    """The run's validation photos, or its test photos where the model was trained on the others too: nothing is chosen
    here."""
    run = source.resolve().parents[1]
    table = run / "manifest.csv"
    if not table.is_file():
        raise DataError(
            f"{source} does not stand in its run folder, so no photos are known to prove the export on: "
            "give some with --data FOLDER"
        )
    root, elsewhere = _roots(run)
    listed = manifest.read(table, root).photos
    parts = {name: [p for p in listed if p.split == name] for name in ("train", "validation", "test")}
    if elsewhere is not None:  # the run was asked about another folder
        parts["test"] = [replace(p, path=str(elsewhere / p.path)) for p in parts["test"]]
    name = "validation" if parts["validation"] and not (refit and parts["test"]) else "test"
    if not parts[name] or not (root / parts[name][0].path).is_file():
        raise DataError(f"the photos of {run} are no longer in {root}: give some with --data FOLDER")
    return Photos(root, parts[name], parts["train"], f"the run's {name} photos")


def _roots(run: Path) -> tuple[Path, Path | None]:
    """Where a run's photos are, and those of the folder that it was asked about, if there was one: they are unpacked
    again where they came packed and the cache let them go.
    """
    file = next((run / name for name in ("study.json", "sweep.json") if (run / name).is_file()), None)
    try:
        dataset = documents.read_object(file)["dataset"] if file else {}
        root, elsewhere = Path(dataset["root"]), dataset.get("test_root")
    except (OSError, RunError, LookupError, TypeError):
        raise DataError(f"{run} does not tell where its photos are: give some with --data FOLDER") from None
    scan.restore(dataset)
    return root, Path(elsewhere).resolve() if elsewhere else None


def _of_folder(data: Path, classes: list[str]) -> Photos:
    found = scan.scan(data, least_classes=1)
    if strange := [c for c in found.classes if c not in classes]:
        raise DataError(
            f"{data} has a class '{strange[0]}' that the bundle does not know{nearest(strange[0], classes)}"
        )
    aside = found.photos[::3]  # every third, of every class
    rest = [p for i, p in enumerate(found.photos) if i % 3]
    return Photos(found.root, rest or found.photos, aside, f"photos of {data}")


def _calibration(photos: Photos, model: Bundle, progress: Progress) -> list[Pixels]:
    """Prepared photos to calibrate on: training photos, chosen by lot; the same ones each time."""
    from frostline.exports.int8 import PHOTOS

    order = np.random.default_rng(0).permutation(len(photos.training))
    task = progress.task("Reading photos to calibrate on", min(PHOTOS, len(order)))
    chosen: list[Pixels] = []
    for i in order:
        if len(chosen) == PHOTOS:
            break
        found = pixels(photos.root / photos.training[i].path, model.transform)
        if not isinstance(found, PhotoError):
            chosen.append(found)
            task.advance(1)
    task.finish()
    if not chosen:
        raise DataError("there are no training photos to calibrate int8 on: give labelled photos with --data FOLDER")
    return chosen


# ---- proof -----------------------------------------------------------------------------------------------------------


def _described(folder: Path, form: str, kind: formats.Form, spec: Spec, source: Path, photos: Photos) -> ExportedModel:
    files = [folder / name for name in (kind.file, *kind.also)]
    digest = hashlib.sha256((folder / kind.file).read_bytes()).hexdigest()
    about = spec.about
    return {
        "frostline": frostline.__version__,
        "format": form,
        "int8": spec.int8,
        "file": kind.file,
        "also": list(kind.also),
        "sha256": digest,
        "size_bytes": sum(f.stat().st_size for f in files),
        "example": "example.py",
        "classes": about.classes,
        "transform": about.transform,
        "temperature": about.temperature,
        "strategy": about.strategy,
        "backbone": about.backbone,
        "bundle_bytes": (source / "model.safetensors").stat().st_size,
        "proved_on": photos.what,
        "machine": {"processor": engine.processor(), "cores": thread_count()},
    }


def _proved(about: ExportedModel, folder: Path, model: Bundle, photos: Photos, progress: Progress) -> documents.Export:
    """export.json: the model, the proof's figures, and why it fails (empty where it holds).

    The contract is with the bundle in float32 (`--engine onnx`), the arithmetic of the artefact. Where this machine
    runs bundles in bfloat16, the agreement with that is stated beside it: there the bundle rounds, not the artefact.
    """
    files = [photos.root / p.path for p in photos.proof]
    labels = np.array([model.classes.index(p.label) for p in photos.proof])
    task = progress.task("Predictions of the bundle", len(files))
    reference = proof.bundle_probabilities(model, photos.proof, photos.root, task)
    task.finish()
    task = progress.task(f"Predictions of the artefact for {len(files)} photos")
    result = proof.run_on(folder / "example.py", files)
    task.finish()
    figures = proof.compare(result, reference, labels)
    why = proof.failure(result, figures, model.classes, int8=about["int8"])
    rest = {"engine": engine.signature("onnx"), "status": "failed" if why else "proved", "why": why}
    document = cast("documents.Export", {**about, **figures, **rest})
    if engine.settle("auto") != "onnx" and figures["unreadable"] == 0:
        here = bundles.load(_folder(model), "auto")
        task = progress.task("Predictions of the bundle as it runs here", len(files))
        as_run = proof.compare(result, proof.bundle_probabilities(here, photos.proof, photos.root, task), labels)
        task.finish()
        document["as_run_here"] = {
            "engine": engine.signature(engine.settle("auto")),
            "agreement": as_run["agreement"],
            "largest_difference": as_run["largest_difference"],
            "bundle_accuracy": as_run["bundle_accuracy"],
            "accuracy_change": as_run["accuracy_change"],
            "accuracy_change_ci": as_run["accuracy_change_ci"],
        }
    return document


def _folder(model: Bundle) -> Path:
    if model.folder is None:
        raise BundleError("a bundle in memory can't be exported: save it first")
    return model.folder
