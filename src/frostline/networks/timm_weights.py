"""Weights of timm's networks ahead of time: fetched from the hub or a mirror, or kept from a file; no import of timm.

They are looked for in this order: frostline's cache folder, the cache of the hub's client, a mirror
(``FROSTLINE_WEIGHTS_URL``), the hub. No digest of these files is shipped. The hub names each large file by its SHA-256
and a mirror has it beside the file, so a file that was damaged on its way is noticed.

The cache folder has ``weights/<architecture>.<tag>-<first 8 digits of its SHA-256>.safetensors`` (or ``.pth``). A
mirror has ``<architecture>.<tag>.safetensors``, and ``<architecture>.<tag>.safetensors.sha256`` as ``sha256sum``
writes it; the files of `weights.KNOWN` have their own names there.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frostline.cache import download
from frostline.cache.folder import cache_dir
from frostline.documents.shared import WeightsOrigin
from frostline.errors import ConfigError, WeightsError, one_line
from frostline.files import replacing, sha256
from frostline.networks import hub_cache, naming, timm_names
from frostline.networks.weights import KNOWN, writing
from frostline.progress import Progress

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True)
class Held:
    """A file of weights on this machine."""

    path: Path
    sha256: str
    source: str
    """Where it came from: a repository of the hub, or the file's name."""
    revision: str = ""
    """The commit of the hub's repository; empty where it didn't come from there."""

    def origin(self, name: str) -> WeightsOrigin:
        """What study.json and bundle.json say of it, for the network `name`."""
        return origin(name, self.source, self.sha256, self.revision)


@dataclass(frozen=True)
class _OnMirror:
    """A mirror's file, as `download` wants it described."""

    title: str
    filename: str
    sha256: str
    size: int


def origin(name: str, source: str, digest: str, revision: str = "") -> WeightsOrigin:
    """What study.json and bundle.json say of the weights that the network `name` started from."""
    licence = naming.licence_of(name)
    return {"network": name, "source": source, "revision": revision, "sha256": digest, "licence": licence}


def in_words(origins: Sequence[WeightsOrigin]) -> str:
    """What training started from: "published" are weights whose SHA-256 frostline knows, for others their place."""
    known = [o for o in origins if o["network"] in KNOWN and KNOWN[o["network"]].sha256 == o["sha256"]]
    if len(known) == len(origins):
        return f"published ImageNet weights (SHA-256 {', '.join(o['sha256'] for o in known)})"
    return " and ".join(map(_place_in_words, origins))


def _place_in_words(one: WeightsOrigin) -> str:
    if one["revision"]:
        return f"weights from the hub ({one['source']}, revision {one['revision']}), SHA-256 {one['sha256']}"
    return (
        f"weights from the file {one['source']}, SHA-256 {one['sha256']}, "
        "which frostline has not held against a publisher's"
    )


def given(name: str, path: Path) -> Held:
    """A file that the user gives.

    Raises
    ------
    WeightsError
        There is none.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise WeightsError(f"weights of {name}: {path} can't be read: it {what}; expected .safetensors or .pth")
    try:
        return Held(path, sha256(path), path.name)
    except OSError as error:
        raise WeightsError(f"weights of {name}: {path} can't be read: {error.strerror}") from error


def full_name(name: str) -> str:
    """architecture.tag, with timm's default tag where none is named."""
    architecture, _, tag = name.partition(".")
    tag = tag or timm_names.facts(architecture).tag
    return f"{architecture}.{tag}" if tag else architecture


def here(name: str, hub: str) -> Held | None:
    """The weights in frostline's cache folder, or in that of the hub's client; None where neither has them."""
    return _in_cache(name) or _from_client(hub)


def is_here(name: str, hub: str) -> bool:
    """Whether `here` would find them, told by the files' names alone."""
    return bool(_kept(name) or ("://" not in hub and hub and hub_cache.kept(hub)))


def fetch(name: str, hub: str, progress: Progress) -> Held:
    """The weights of one of timm's networks; `hub`: its repository, as timm has it.

    Raises
    ------
    WeightsError
        No place has them; the text says what was tried.
    """
    if found := here(name, hub):
        return found
    tried = []
    if mirror := os.environ.get("FROSTLINE_WEIGHTS_URL", "").rstrip("/"):
        try:
            return _from_mirror(name, mirror, progress)
        except download.SourceError as error:
            tried.append(f"{download.Url(mirror).label}: {error}")
            progress.say(f"{tried[-1]}; going on to the hub")
    if not hub:
        raise WeightsError(f"{name}: nobody has published weights that timm knows of; give a file with --weights PATH")
    try:
        return _from_url(name, hub, progress) if "://" in hub else _from_hub(name, hub, progress)
    except Exception as error:  # the hub's client raises a different family of errors in each version
        tried.append(f"timm's hub ({hub}): {one_line(error)}")
        raise no_weights(name, "; ".join(tried)) from error


def no_weights(name: str, tried: str) -> WeightsError:
    """The error for weights that no place has, with the ways out."""
    return WeightsError(
        f"no weights for '{name}' from {tried}; connect to the hub (HF_ENDPOINT or FROSTLINE_WEIGHTS_URL names a "
        f"mirror), give the file with --weights PATH, or choose one that the package index has: {', '.join(KNOWN)}"
    )


def keep(name: str, path: Path) -> Held:
    """Copy a file that the user gives into frostline's cache folder, in one step.

    Raises
    ------
    WeightsError
        There is no such file, or the cache folder can't be written.
    """
    held = given(name, path)
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"weights of {name}: {path} is a '{path.suffix}' file, expected {' or '.join(SUFFIXES)}")
    target = _place(name, held.sha256, path.suffix)
    if path.resolve() != target.resolve():
        with writing(name, target), replacing(target) as temporary:
            shutil.copyfile(path, temporary)
            if sha256(temporary) != held.sha256:
                raise WeightsError(f"weights of {name}: {path} changed while it was copied: give the command again")
    for older in _kept(name):
        if older != target:
            older.unlink(missing_ok=True)
    return Held(target, held.sha256, target.name)


def status(name: str, hub: str) -> dict[str, Any]:
    """What a listing shows, as `weights.status` has it; `size` and `sha256` are those of the file at hand."""
    held = here(name, hub)
    mirror = os.environ.get("FROSTLINE_WEIGHTS_URL", "").rstrip("/")
    sources = [f"{download.Url(mirror).label}/{full_name(name)}.safetensors"] if mirror else []
    return {
        "name": name,
        "sha256": held.sha256 if held else None,
        "size": held.path.stat().st_size if held else None,
        "path": str(held.path) if held else None,
        "cached": "yes" if held else "no",
        "sources": [*sources, *([f"timm's hub ({hub})"] if hub else [])],
        "revision": (held.revision if held else "") or None,
        "licence": naming.licence_of(name) or None,
    }


# ---- the places ------------------------------------------------------------------------------------------------------


def _place(name: str, digest: str, suffix: str) -> Path:
    return cache_dir() / "weights" / f"{full_name(name)}-{digest[:8]}{suffix}"


def _kept(name: str) -> list[Path]:
    """Files in frostline's cache folder that are named as this network's."""
    pattern = re.compile(rf"{re.escape(full_name(name))}-[0-9a-f]{{8}}({'|'.join(map(re.escape, SUFFIXES))})")
    folder = cache_dir() / "weights"
    return [f for f in folder.iterdir() if pattern.fullmatch(f.name)] if folder.is_dir() else []


def _in_cache(name: str) -> Held | None:
    for file in sorted(_kept(name)):
        digest = sha256(file)
        if file.stem.endswith(digest[:8]):  # else damaged: another place has to give it
            return Held(file, digest, file.name)
    return None


def _from_client(hub: str) -> Held | None:
    """What the hub's client keeps. It names large files by their SHA-256, so a damaged one is noticed."""
    file = hub_cache.kept(hub) if hub and "://" not in hub else None
    if file is None:
        return None
    digest, named = sha256(file), file.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", named) and named != digest:
        raise WeightsError(f"{file} is damaged: its SHA-256 is {digest}, expected {named}; delete {file.resolve()}")
    return Held(file, digest, hub, file.parent.name)


def _from_hub(name: str, hub: str, progress: Progress) -> Held:
    """Through the hub's client, with its tokens and its cache: safetensors first."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    download.Url(constants.ENDPOINT).knock()  # the client itself would try for a minute
    disable_progress_bars()  # --quiet and --json leave no place for bars of others
    task = progress.task(f"Fetching {name} from timm's hub")
    try:
        for filename in hub_cache.FILENAMES:
            try:
                hf_hub_download(hub, filename)
                break
            except EntryNotFoundError:
                continue
    finally:
        task.finish()
    held = _from_client(hub)
    if held is None:
        raise ConfigError(f"its repository has neither {' nor '.join(hub_cache.FILENAMES)}")
    progress.say(f"weights of {name}: {hub} at {held.revision[:12]}, SHA-256 {held.sha256}")
    return held


def _from_url(name: str, url: str, progress: Progress) -> Held:
    """A file that timm knows at a publisher's address alone; its name mostly ends in digits of its SHA-256."""
    from torch.hub import download_url_to_file

    download.Url(url).knock()
    filename = url.rpartition("/")[2]
    digits = re.search(r"-([0-9a-f]{8,64})\.", filename)
    task = progress.task(f"Fetching {filename}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / filename
            download_url_to_file(url, str(file), digits[1] if digits else None, progress=False)
            return keep(name, file)
    finally:
        task.finish()


def _from_mirror(name: str, mirror: str, progress: Progress) -> Held:
    """The mirror's file, held against the digest that stands beside it."""
    file = f"{full_name(name)}.safetensors"
    text = download.Url(f"{mirror}/{file}.sha256").text()
    digest = text.split()[0].lower() if text.split() else ""
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise download.SourceError(f"{file}.sha256 holds no SHA-256")
    source = download.Url(f"{mirror}/{file}")
    target = _place(name, digest, ".safetensors")
    wanted = _OnMirror(f"weights of {name}", target.name, digest, source.length())
    with writing(name, target):
        try:
            download.bring(wanted, target, [source], progress)
        except download.NoSourceError as error:
            raise download.SourceError(error.tried[-1][1]) from error
    return Held(target, digest, target.name)
