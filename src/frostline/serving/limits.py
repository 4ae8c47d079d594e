"""What a server puts up with, and how it says no: every refusal is an `ApiError`, JSON of one shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from frostline.errors import ConfigError, PhotoError

MIB = 1024**2


@dataclass(frozen=True)
class Limits:
    """How much one caller, and all callers together, may ask of a server. Raises ConfigError for a limit below 1."""

    bytes: int = 20 * MIB
    """Of one photo's file."""
    pixels: int = 50_000_000
    """Of one photo, by its header: 50 million take 150 MB once decoded."""
    files: int = 32
    """Photos in one request."""
    seconds: float = 30.0
    """In which a request has to have arrived, and an address to have been fetched."""
    queue: int = 256
    """Photos that wait or are under way; more are turned away with 503."""
    connections: int = 512
    """Open at a time; more are turned away with 503."""
    waiting_bytes: int = 512 * MIB
    """Of requests that have arrived and are not answered yet; more are turned away with 503."""
    header_seconds: float = 10.0
    """In which a request's header has to have arrived."""
    header_bytes: int = 64 * 1024

    def __post_init__(self) -> None:
        names = {
            "bytes": "--max-bytes",
            "pixels": "--max-pixels",
            "files": "--max-files",
            "seconds": "--timeout",
            "queue": "--queue",
        }
        wrong = [f"{option} {getattr(self, name)}" for name, option in names.items() if not getattr(self, name) > 0]
        if wrong:
            raise ConfigError(f"{', '.join(wrong)}: expected more than 0")
        if self.files > self.queue:
            raise ConfigError(f"--max-files {self.files}: more than --queue {self.queue} can hold; raise --queue")

    @property
    def request_bytes(self) -> int:
        """Of one request in all, the seams between its photos included."""
        return min(self.files * self.bytes + MIB, self.waiting_bytes // 2)


@dataclass(eq=False)
class ApiError(Exception):
    """A refusal: ``{"error": {"code", "message"}}`` with an HTTP status."""

    status: int
    code: str
    """A word for programs; never changes."""
    message: str
    """A sentence for people."""
    headers: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Its JSON form."""
        return {"error": {"code": self.code, "message": self.message}}


def busy(message: str, seconds: int = 1) -> ApiError:
    """Turned away for now: the caller may come back after so many seconds."""
    return ApiError(503, "busy", message, {"Retry-After": str(seconds)})


def too_large(what: str, most: int) -> ApiError:
    """More bytes than are taken."""
    return ApiError(413, "too_large", f"{what} is too large: at most {_megabytes(most)} are taken")


def _megabytes(count: int) -> str:
    return f"{count / MIB:.3g} MiB" if count >= MIB else f"{count:,} bytes"


_KINDS = (
    ("too large", 413, "too_large"),
    ("too many pixels", 413, "too_many_pixels"),
    ("not enough memory", 413, "too_many_pixels"),
    ("empty", 422, "empty"),
    ("truncated", 422, "truncated"),
    ("not a photo", 415, "not_a_photo"),
)


def of_photo(error: PhotoError) -> ApiError:
    """Why a photo can't be classified, as an answer to its sender."""
    why = str(error)
    for start, status, code in _KINDS:
        if why.startswith(start):
            return ApiError(status, code, f"this file can't be used: {why}")
    unsupported = "not supported" in why
    return ApiError(
        415 if unsupported else 422, "unsupported" if unsupported else "damaged", f"this file can't be used: {why}"
    )
