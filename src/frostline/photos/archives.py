"""Archives of photos: zip and tar (plain, gz, bz2, xz). Nothing is ever written outside the folder of destination.

A member is left out and listed when its path is absolute, has a drive letter or leads upwards, when it is a link or a
device, when it is encrypted, damaged or larger than any photo may be. Only regular files are written, and only the
folders that they need are made, so no member can redirect another. An archive is refused as a whole when it is none, or
when it would unpack to a hundred times its size (a "zip bomb"; photos hardly shrink).

The same rules hold for zip and tar on every system. That is why the extraction filters of the standard library are not
used: `tarfile.data_filter` takes "/a.jpg" for "a.jpg" and keeps links that stay inside; `ZipFile.extract` renames in
silence.
"""

from __future__ import annotations

import errno
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from frostline.errors import DataError, one_line
from frostline.files import sha256
from frostline.photos.decoding import too_large
from frostline.photos.names import is_litter, printable, unusable
from frostline.progress import Progress

MAX_MEMBERS = 1_000_000
MAX_RATIO = 100
"""An archive of over a gigabyte of files may hold so many times its own bytes, no more."""

_FREE = 1_000_000_000  # bytes below which no ratio is looked at: flat drawings shrink a lot
_CHUNK = 1 << 20
# the readers of the standard library raise all of these on damaged files
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    LookupError,
    ArithmeticError,
)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")


@dataclass(frozen=True)
class _Member:
    """One file in an archive."""

    name: str  # as the archive has it
    size: int
    key: zipfile.ZipInfo | tarfile.TarInfo
    fault: str  # why it is not unpacked; "": it is

    @property
    def path(self) -> str:
        """Relative, with single slashes."""
        return "/".join(part for part in self.name.replace("\\", "/").split("/") if part not in ("", "."))


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or a tar, told by its first bytes and not by its name."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError:
        return False
    packed = head.startswith(_MAGIC) and bool(re.search(r"\.(tar\.\w+|t[gbx]z2?|taz)$", path.name.lower()))
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")) or head[257:262] == b"ustar" or packed


class Archive:
    """A zip or tar file that holds photos. `notes`: unpack read-me files and licences too."""

    def __init__(self, path: Path, *, notes: bool = False) -> None:
        self.path, self._notes = path, notes
        with path.open("rb") as file:
            self._zip = file.read(2) == b"PK"

    @property
    def name(self) -> str:
        """The file's name."""
        return printable(self.path.name)

    def digest(self) -> str:
        """SHA-256 of the file (1 GB/s)."""
        try:
            return sha256(self.path)
        except OSError as error:
            raise DataError(f"can't read {self._shown}: {error.strerror}") from error

    def size(self) -> int:
        """Bytes of the files that will be unpacked, by their headers. Raises DataError, as `unpack` does."""
        return sum(member.size for member in self._listing[0] if not member.fault)

    def unpack(self, folder: Path, progress: Progress) -> list[tuple[str, str]]:
        """Write the files into `folder`; returns those left out: (path, why).

        Raises
        ------
        DataError
            It is no archive, a bomb, or has too many members.
        OSError
            The disk is full.
        """
        members, end = self._listing
        left = [(member.name, member.fault) for member in members if member.fault]
        good = [member for member in members if not member.fault]
        task = progress.task(f"Unpacking {self.name}", sum(member.size for member in good), unit="B")
        try:
            with self._opened() as open_:
                for number, member in enumerate(good):
                    try:
                        fault = _write(folder / member.path, _blocks(open_, member), task.advance)
                    except _BROKEN as error:
                        fault = f"damaged: {one_line(error)}"
                        if not self._zip:  # the rest of the stream is lost too; to search it means to read all again
                            left += [(later.name, fault) for later in good[number:]]
                            break
                    if fault:
                        left.append((member.name, fault))
        finally:
            task.finish()
        return [*left, ("", end)] if end else left

    @property
    def _shown(self) -> str:
        return printable(str(self.path))

    @cached_property
    def _listing(self) -> tuple[list[_Member], str]:
        """The files in it (without litter) in the archive's order; and what is wrong with its end, else ""."""
        found: list[_Member] = []
        total, seen = 0, set[str]()
        try:
            for member in self._listed():
                total += member.size
                self._refuse_bombs(total, len(found))
                if self._passed_over(member.path):
                    continue
                if not member.fault and member.path in seen:
                    member = _Member(member.name, member.size, member.key, "stands in the archive twice")
                seen.add(member.path)
                found.append(member)
        except (*_BROKEN, OSError, RuntimeError) as error:
            if not found:
                why = f"can't be opened as an archive: {one_line(error)}; is it whole? Fetch or pack it again"
                raise DataError(f"{self._shown} {why}") from error
            return found, f"the archive is damaged after {len(found)} files: {one_line(error)}"
        return found, ""

    def _passed_over(self, path: str) -> bool:
        parts = path.split("/")
        if self._notes:
            return any(part.startswith(".") or part.lower() == "__macosx" for part in parts if part != "..")
        return any(is_litter(part) for part in parts if part != "..")

    def _refuse_bombs(self, total: int, count: int) -> None:
        packed = max(self.path.stat().st_size, 1)
        if count > MAX_MEMBERS:
            raise DataError(f"{self._shown} holds over {MAX_MEMBERS:,} files: unpack it yourself and give the folder")
        if total > _FREE and total > MAX_RATIO * packed:
            raise DataError(
                f"{self._shown} would unpack from {packed / 1e6:,.1f} MB to over {total / 1e6:,.0f} MB: "
                "a bomb, since photos don't shrink"
            )

    def _listed(self) -> Iterator[_Member]:
        if self._zip:
            with zipfile.ZipFile(self.path) as archive:
                for info in archive.infolist():
                    if not info.is_dir():
                        name = _zip_name(info)
                        yield _Member(name, info.file_size, info, _fault(name, info.file_size) or _zip_fault(info))
        else:
            with tarfile.open(self.path) as tar:
                for entry in tar:
                    if not entry.isdir():
                        fault = _fault(entry.name, entry.size) or _tar_fault(entry)
                        yield _Member(entry.name, entry.size, entry, fault)

    @contextmanager
    def _opened(self) -> Iterator[Callable[[_Member], IO[bytes]]]:
        """What opens a member."""
        if self._zip:
            with zipfile.ZipFile(self.path) as archive:
                yield lambda member: archive.open(member.key)  # type: ignore[arg-type]
        else:
            with tarfile.open(self.path) as tar:
                yield lambda member: tar.extractfile(member.key)  # type: ignore[arg-type,misc,return-value]


def _fault(name: str, size: int) -> str:
    """Why a member of this name and size is not unpacked."""
    path = name.replace("\\", "/")
    if path.startswith("/") or re.match(r"[A-Za-z]:", path) or ".." in path.split("/"):
        return "its path leads out of the archive"
    if "\0" in name:
        return "the name holds a zero byte"
    return too_large(size) or unusable(name)


def _tar_fault(entry: tarfile.TarInfo) -> str:
    if entry.issym() or entry.islnk():
        return "a link"
    return "" if entry.isreg() else "not a regular file"


def _zip_fault(info: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(info.external_attr >> 16)  # Unix's mode; 0 where another system packed it
    if kind == stat.S_IFLNK:
        return "a link"
    if kind not in (0, stat.S_IFREG):
        return "not a regular file"
    return "encrypted: unpack it with its password and give the folder" if info.flag_bits & 0x1 else ""


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The name. Python reads one without the mark of UTF-8 as cp437, though many packers write UTF-8 without it."""
    name = info.orig_filename
    if info.flag_bits & 0x800:
        return name
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        return name


def _write(target: Path, blocks: Iterator[bytes], advance: Callable[[int], None]) -> str:
    """Write one member; returns why that could not be, or "". A part of a file is never left."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as undo, target.open("xb") as out:
            undo.callback(target.unlink)
            for block in blocks:
                out.write(block)
                advance(len(block))
            undo.pop_all()
    except RuntimeError as error:  # a packing method, or an encryption, that Python does not know
        return f"can't be unpacked: {one_line(error)}"
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        return "another file of the archive has its place (here capitals may make no difference)"
    except OSError as error:
        if error.errno in _FULL:
            raise
        return f"can't be written: {error.strerror}"
    return ""


def _blocks(open_: Callable[[_Member], IO[bytes]], member: _Member) -> Iterator[bytes]:
    """A member's bytes, at most as many as its header says. Raises one of `_BROKEN` when bytes are missing or wrong."""
    try:
        with open_(member) as source:
            while block := source.read(_CHUNK):
                yield block
    except (
        OSError
    ) as error:  # bz2's way to say that its data is damaged, and the system's that a place is before the file
        raise EOFError(one_line(error)) from error
