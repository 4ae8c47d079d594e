"""The limits of a server, and how it refuses: every refusal is an `ApiError`, JSON of one shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from frostline.errors import ConfigError, PhotoError

MIB = 1024**2


@dataclass(frozen=True)
class Limits:
    """How much one client, and all clients together, may ask of a server. Raises ConfigError for a limit below 1."""

    bytes: int = 20 * MIB
    """Most bytes of one photo's file."""
    pixels: int = 50_000_000
    """Most pixels of one photo, read from its header: 50 million take 150 MB once decoded."""
    files: int = 32
    """Most photos in one request."""
    seconds: float = 30.0
    """Time for a request's body to arrive, and for a photo to be fetched from its address."""
    queue: int = 256
    """Most photos that wait or are being classified; further ones are refused with 503."""
    connections: int = 512
    """Most connections open at a time; requests on further ones are refused with 503."""
    waiting_bytes: int = 512 * MIB
    """Most bytes of all requests that are not answered yet; further ones are refused with 503."""
    header_seconds: float = 10.0
    """Time for a request's header to arrive."""
    header_bytes: int = 64 * 1024
    """Most bytes of a request's header."""

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
        """Most bytes of one request, with 1 MiB for what a form adds to its photos."""
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

    def to_dict(self) -> dict[str, dict[str, str]]:
        """Its JSON form."""
        return {"error": {"code": self.code, "message": self.message}}


INTERNAL_ERROR = ApiError(500, "internal", "an error in the server; the reason is in its log")


def busy(message: str, seconds: int = 1) -> ApiError:
    """The server has no room now; the client may try again after so many `seconds`."""
    return ApiError(503, "busy", message, {"Retry-After": str(seconds)})


def too_large(what: str, most: int) -> ApiError:
    """`what` has more than `most` bytes."""
    return ApiError(413, "too_large", f"{what} is too large: at most {_size(most)} are accepted")


def _size(count: int) -> str:
    return f"{count / MIB:.3g} MiB" if count >= MIB else f"{count:,} bytes"


_BY_START_OF_MESSAGE = (
    ("too large", 413, "too_large"),
    ("too many pixels", 413, "too_many_pixels"),
    ("not enough memory", 413, "too_many_pixels"),
    ("empty", 422, "empty"),
    ("truncated", 422, "truncated"),
    ("not a photo", 415, "not_a_photo"),
)


def photo_refusal(error: PhotoError) -> ApiError:
    """The refusal that tells a client why its photo can't be decoded."""
    why = str(error)
    message = f"this file can't be used: {why}"
    for start, status, code in _BY_START_OF_MESSAGE:
        if why.startswith(start):
            return ApiError(status, code, message)
    if "not supported" in why:
        return ApiError(415, "unsupported", message)
    return ApiError(422, "damaged", message)
