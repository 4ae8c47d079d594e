"""Public sets of photos that can be fetched: checked by SHA-256, unpacked into a folder, their licence shown.

A partial download stays in the cache folder (``downloads/``), so a fetch that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from frostline.cache import download, sizes, upkeep
from frostline.cache.folder import cache_dir
from frostline.documents.shared import Skipped
from frostline.errors import ConfigError, DataError, RunError
from frostline.files import disk_errors, replacing
from frostline.photos.archives import Archive
from frostline.photos.names import is_litter, natural, printable
from frostline.progress import Progress

LICENCE = "LICENSE.txt"


@dataclass(frozen=True)
class PublicSet:
    """An archive of class folders with a licence in it."""

    name: str
    urls: tuple[str, ...]
    filename: str
    sha256: str
    size: int
    """Bytes of the archive."""
    licence: str
    """In a few words; the archive's own text is unpacked with the photos."""

    @property
    def title(self) -> str:
        """For messages."""
        return f"photos '{self.name}'"


KNOWN: dict[str, PublicSet] = {
    # size and SHA-256 as TensorFlow Datasets has them (tensorflow/datasets, url_checksums/tf_flowers.txt)
    "flowers": PublicSet(
        name="flowers",
        urls=("https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz",),
        filename="flower_photos.tgz",
        sha256="4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
        size=228_813_984,
        licence="Creative Commons Attribution (CC BY 2.0), each photo by the photographer that LICENSE.txt names",
    )
}


class Fetched(TypedDict):
    """What `fetch` brought, as ``frostline data flowers --json`` prints it."""

    folder: str
    photos: int
    classes: dict[str, int]
    """Photos of each class."""
    licence: str
    licence_text: str
    """How the licence begins."""
    licence_file: str | None
    left_out: list[Skipped]


def fetch(wanted: PublicSet, folder: Path, *, url: str = "", progress: Progress | None = None) -> Fetched:
    """Fetch a set of photos and unpack it into `folder`, which appears in one step.

    Parameters
    ----------
    folder
        A new or empty folder.
    url
        A mirror of the archive, to be asked before the publisher; the bytes must be the same.

    Raises
    ------
    ConfigError
        `folder` holds something.
    DataError
        No source has the archive, or it can't be unpacked.
    RunError
        No room, or nothing can be written there.
    """
    progress = progress or Progress(quiet=True)
    shown = printable(str(folder))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{shown} holds something already: give a new or an empty folder")
    progress.say(f"{wanted.title}: {wanted.size / 1e6:,.0f} MB. Licence: {wanted.licence}")
    target = cache_dir() / "downloads" / wanted.filename
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if not download.holds(wanted, target):
            upkeep.make_room(wanted.size - download.size(download.part_of(target)), [], sizes.limit(), what="photos")
            _bring(wanted, target, url, progress)
    left = _unpack(target, folder, progress)
    target.unlink(missing_ok=True)
    classes = {
        place.name: sum(not is_litter(file.name) for file in place.iterdir())
        for place in sorted(folder.iterdir(), key=lambda place: natural(place.name))
        if place.is_dir()
    }
    licence = folder / LICENCE
    return {
        "folder": str(folder),
        "photos": sum(classes.values()),
        "classes": classes,
        "licence": wanted.licence,
        "licence_text": _beginning(licence),
        "licence_file": str(licence) if licence.is_file() else None,
        "left_out": [{"path": printable(path), "why": why} for path, why in left],
    }


def _bring(wanted: PublicSet, target: Path, url: str, progress: Progress) -> None:
    sources = [download.Url(place) for place in ([url] if url else []) + list(wanted.urls)]
    try:
        download.bring(wanted, target, sources, progress)
    except download.NoSourceError as error:
        raise DataError(
            f"{wanted.title} can't be fetched; tried {error}. Give the command again to go on, "
            "name a mirror with --url, set HTTPS_PROXY to your proxy, or fetch the archive by other means: "
            "frostline takes .tgz files as they are"
        ) from error


def _unpack(archive: Path, folder: Path, progress: Progress) -> list[tuple[str, str]]:
    """Unpack into `folder`, without the one folder that all files of the archive lie in."""
    if shutil.disk_usage(_there(folder)).free < Archive(archive).size():
        raise RunError(
            f"no room left on the disk for {printable(str(folder))}: free some space, or choose another place"
        )
    with replacing(folder) as temporary:
        temporary.mkdir()
        left = Archive(archive, notes=True).unpack(temporary, progress)
        tops = list(temporary.iterdir())
        if len(tops) == 1 and tops[0].is_dir():
            lifted = temporary.with_name(f"{temporary.name}.lifted")
            tops[0].rename(lifted)
            temporary.rmdir()
            lifted.rename(temporary)
        if folder.is_dir():
            folder.rmdir()  # empty; where systems don't replace a folder by a folder
    return left


def _there(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())


def _beginning(licence: Path) -> str:
    """The text of a licence before it lists the photos."""
    try:
        lines = licence.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    kept = []
    for line in lines[:20]:
        if ".jpg" in line:
            break
        kept.append(line.strip())
    return " ".join(line for line in kept if line)
