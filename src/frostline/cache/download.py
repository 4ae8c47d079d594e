"""Files that are fetched, each known by its size and SHA-256: whatever place one comes from, the bytes are the same.

`bring` asks one source after the other. A download that breaks off goes on where it stopped, in this call or in the
next one. What has come is kept beside the target; once whole, with the right hash, it is renamed.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import filelock

from frostline.errors import one_line
from frostline.files import sha256
from frostline.progress import Progress

if TYPE_CHECKING:  # a tenth of a second to import: only when it is needed
    import httpx

T = TypeVar("T")

CONNECT_SECONDS = 5.0  # for one address; a name may have eight
ANSWER_SECONDS = 8.0  # for name, connection, redirects and the answer's first line together: an offline user's wait
READ_SECONDS = 30.0  # between two pieces of the file
ATTEMPTS = 5  # times that a broken download goes on where it stopped, in one call
CHUNK = 1 << 18  # bytes


class SourceError(Exception):
    """Why one source could not give the file."""


class NoSourceError(Exception):
    """No source has the file; `tried` holds each with the reason."""

    def __init__(self, tried: list[tuple[str, str]]) -> None:
        self.tried = tried
        super().__init__("; ".join(f"{label}: {reason}" for label, reason in tried))


class File(Protocol):
    """One file, by its content."""

    @property
    def title(self) -> str:
        """What it is, in words."""

    @property
    def filename(self) -> str:
        """A plain file name."""

    @property
    def sha256(self) -> str:
        """64 lower-case hex digits."""

    @property
    def size(self) -> int:
        """Bytes."""


class Source(Protocol):
    """A place that may hold a file."""

    @property
    def label(self) -> str:
        """The place, as a person would name it; without passwords."""

    def bring(self, file: File, part: Path, progress: Progress) -> None:
        """Leave the whole file at `part`; what stands there already is the beginning that an earlier try left.

        The caller verifies the hash. Raises SourceError with the reason, without the label.
        """


@dataclass(frozen=True)
class Url:
    """A file on a web server. Proxies and certificates are taken from the environment, as httpx reads it."""

    url: str

    @property
    def label(self) -> str:
        """The URL without user name and password."""
        return re.sub(r"//[^/@]*@", "//", self.url)

    def bring(self, file: File, part: Path, progress: Progress) -> None:
        """Download; a broken download goes on where it stopped, now or in the next call.

        The beginning may stem from another server or another day: only the hash tells whether the two fit, so when they
        don't, the file is fetched once more from its start.
        """
        resumed = size(part) > 0
        self._download(file, part, progress)
        if resumed and not holds(file, part):
            part.unlink(missing_ok=True)
            self._download(file, part, progress)

    def _download(self, file: File, part: Path, progress: Progress) -> None:
        import httpx

        if size(part) > file.size:
            part.unlink()
        if size(part) == file.size:
            return
        for attempt in range(ATTEMPTS):
            before = size(part)
            try:
                with self._answer(before) as response:
                    _receive(response, part, before, file.size, progress, file.filename)
                return
            except httpx.HTTPError as error:
                if attempt == ATTEMPTS - 1 or size(part) <= before:
                    raise SourceError(_reason(error)) from error
            except httpx.InvalidURL as error:
                raise SourceError(f"not a URL: {error}") from error

    def knock(self) -> None:
        """Raise SourceError, with the reason, when nobody answers there; an answer of any kind will do."""
        import httpx

        try:
            with self._answer(0):
                pass
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SourceError(_reason(error)) from error

    def text(self, most: int = 4096) -> str:
        """The beginning of a small text file; SourceError with the reason where there is none."""
        with self._found() as response:
            return next(response.iter_bytes(most), b"")[:most].decode("utf-8", errors="replace")

    def length(self) -> int:
        """Bytes of the file, as the server announces them; SourceError where there is none, or it doesn't say."""
        with self._found() as response:
            announced = response.headers.get("Content-Length", "")
            if not announced.isdigit():
                raise SourceError("the server does not say how long the file is")
            return int(announced)

    @contextmanager
    def _found(self) -> Iterator[httpx.Response]:
        """The server's answer, its body not yet read, where the file is there."""
        import httpx

        try:
            with self._answer(0) as response:
                if response.status_code != 200:
                    raise SourceError(f"HTTP {response.status_code} {response.reason_phrase}")
                yield response
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SourceError(_reason(error)) from error

    @contextmanager
    def _answer(self, start: int) -> Iterator[httpx.Response]:
        """The server's answer to a request for the file from byte `start`, its body not yet read."""
        import httpx

        headers = {"Accept-Encoding": "identity"}  # ranges and sizes are those of the file itself
        if start:
            headers["Range"] = f"bytes={start}-"
        timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        client = httpx.Client(follow_redirects=True, timeout=timeout)

        def send() -> httpx.Response:
            try:
                return client.send(client.build_request("GET", self.url, headers=headers), stream=True)
            except BaseException:
                client.close()
                raise

        def close(response: httpx.Response) -> None:
            response.close()
            client.close()

        response = _in_time(send, close, ANSWER_SECONDS)
        try:
            yield response
        finally:
            close(response)


def _in_time(open_: Callable[[], T], close: Callable[[T], object], seconds: float) -> T:
    """What `open_` gives; SourceError when that takes longer. Should it come later, it is closed.

    A name server or a firewall that swallows packets can hold a connection for a minute, past all of httpx's limits:
    they hold for each address, and not for names. So a thread opens it, and is left behind when it takes too long.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            result = open_()
        except Exception as error:  # handed over, whatever it is
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
        else:
            if future.set_running_or_notify_cancel():
                future.set_result(result)
            else:  # nobody waits any more
                close(result)

    threading.Thread(target=work, daemon=True, name="frostline-open").start()
    try:
        return future.result(seconds)
    except TimeoutError:
        if future.cancel():
            raise SourceError(f"no answer within {seconds:g} s") from None
        return future.result()  # it came in this very moment


def holds(file: File, path: Path) -> bool:
    """Whether `path` is this file, by size and SHA-256 (14 MB: 17 ms). False when it is not there or not readable."""
    try:
        return size(path) == file.size and sha256(path) == file.sha256
    except OSError:
        return False


def part_of(target: Path) -> Path:
    """Where the beginning of a file is kept that will stand at `target`."""
    return target.with_name(f".{target.name}.part")


def bring(file: File, target: Path, sources: Iterable[Source], progress: Progress) -> None:
    """Leave the file at `target`, from the first source that has it; nothing is fetched when it is there.

    Of several processes one fetches and the others wait.

    Raises
    ------
    NoSourceError
        No source has it.
    """
    with _locked(target.with_name(f".{target.name}.lock"), file, progress):
        if holds(file, target):  # another process has just brought it
            return
        tried = [(str(target), state(file, target))]
        if target.exists():
            progress.say(f"{target} {state(file, target)}: removed, fetching it again")
            target.unlink()
        part = part_of(target)
        for source in sources:
            try:
                source.bring(file, part, progress)
                _verify(file, part)
            except SourceError as error:
                tried.append((source.label, one_line(error)))
                progress.say(f"{source.label}: {tried[-1][1]}; going on to the next source")
                continue
            part.replace(target)  # one step: readers see no file or the whole one
            progress.say(f"{file.title}: {file.size / 1e6:.1f} MB from {source.label}, SHA-256 verified")
            return
    raise NoSourceError(tried)


def state(file: File, path: Path) -> str:
    """What stands at `path` in place of the file, in words."""
    if not path.exists():
        return "not there"
    if not path.is_file():
        return "not a file"
    return f"damaged (SHA-256 {sha256(path)[:16]}…, expected {file.sha256[:16]}…)"


@contextmanager
def _locked(path: Path, file: File, progress: Progress) -> Iterator[None]:
    """Hold the lock on one file; the system frees it when a process dies, however it dies."""
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        progress.say(f"{file.title}: waiting for another process that fetches them")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _verify(file: File, part: Path) -> None:
    if not holds(file, part):
        same = size(part) == file.size
        found = f"SHA-256 {sha256(part)[:16]}…" if same else f"{size(part):,} bytes"
        expected = f"{file.sha256[:16]}…" if same else f"{file.size:,}"
        part.unlink(missing_ok=True)
        raise SourceError(f"another file: {found}, expected {expected}")


def _receive(response: httpx.Response, part: Path, start: int, whole: int, progress: Progress, name: str) -> None:
    """Write the body to `part`, behind the `start` bytes that are there if the server goes on from them."""
    status = response.status_code
    if status not in (200, 206, 416):
        raise SourceError(f"HTTP {status} {response.reason_phrase}")
    have = start if status == 206 else 0
    total = have + int(response.headers.get("Content-Length", whole - have))
    goes_on = str(response.headers.get("Content-Range", "")).startswith(f"bytes {have}-")
    if status == 416 or total != whole or (have and not goes_on):
        part.unlink(missing_ok=True)
        what = "no rest" if status == 416 else "the wrong rest" if total == whole else f"{total:,} bytes"
        raise SourceError(f"another file: {what}, expected {whole:,} bytes")
    task = progress.task(f"Fetching {name}", whole, unit="B")
    try:
        task.advance(have)
        with part.open("ab" if have else "wb") as out:
            # given a size of blocks, httpx would lose what it has gathered when the line breaks
            for block in response.iter_raw():
                if out.tell() + len(block) > whole:  # a server that announces no length
                    raise SourceError(f"another file: more than the expected {whole:,} bytes")
                out.write(block)
                task.advance(len(block))
    finally:
        task.finish()


def size(path: Path) -> int:
    """Bytes of a file, 0 when there is none."""
    return path.stat().st_size if path.is_file() else 0


def _reason(error: Exception) -> str:
    """An error's kind and text; httpx raises some without text."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
