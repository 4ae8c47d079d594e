"""From the body of a request to the photos in it, never holding more than the limits allow.

Three forms: the photo itself (``image/...`` or ``application/octet-stream``), the quickest; a form with any number of files
(``multipart/form-data``), as browsers and curl send them; addresses (``application/json``), where the server was told to allow them.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from frostline.photos.names import printable
from frostline.serving.limits import ApiError, Limits, busy, too_large

# What is wrong with a form is told to its sender; the log's "last resort", stderr, need not hear of it.
logging.getLogger("python_multipart").addHandler(logging.NullHandler())
logging.getLogger("python_multipart").propagate = False

_LONGEST_NAME = 200
_FIELDS = 64  # parts of a form that are no files


@dataclass(frozen=True)
class Upload:
    """One photo of a request, or why it is not one."""

    name: str
    """As its sender calls it, printable; empty where it has none."""
    data: bytes
    fault: ApiError | None = None


class Budget:
    """Bytes of all requests that are not answered yet."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    @contextmanager
    def request(self) -> Iterator[Share]:
        """One request's share, which is given back at its end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.held -= share.held

    def take(self, count: int) -> None:
        """Raises ApiError where there is no room for so many more."""
        if self.held + count > self._most:
            raise busy("the server is holding as many uploads as it can: try again in a second")
        self.held += count


class Share:
    """What one request holds."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.held = 0

    def take(self, count: int) -> None:
        """See `Budget.take`."""
        self._budget.take(count)
        self.held += count


async def photos(request: Request, limits: Limits, share: Share) -> list[Upload]:
    """The photos in a request's body.

    Raises
    ------
    ApiError
        Nothing in it can be used: of another kind, too large, too slow, cut short, or no form.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind.startswith(b"image/") or kind == b"application/octet-stream":
        data = await _whole(request, limits, share, limits.bytes, "this file")
        if not data:
            raise ApiError(422, "empty", "the body is empty: expected a photo")
        return [Upload("", data)]
    if kind == b"multipart/form-data":
        return await _form(request, options.get(b"boundary", b""), limits, share)
    raise ApiError(
        415,
        "wrong_type",
        f"can't read a body of type '{printable(kind.decode('latin-1'))[:80]}': send a photo as image/jpeg, or a form with files "
        "(multipart/form-data)",
    )


async def addresses(request: Request, limits: Limits, share: Share) -> list[str]:
    """The addresses in a JSON body: ``{"urls": [...]}``. Raises ApiError."""
    try:
        document: Any = json.loads(await _whole(request, limits, share, 64 * 1024, "this list"))
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "bad_json", "the body is not JSON") from error
    urls = document.get("urls") if isinstance(document, dict) else None
    if not isinstance(urls, list) or not urls or not all(isinstance(url, str) for url in urls):
        raise ApiError(422, "bad_json", 'expected {"urls": ["https://..."]}')
    if len(urls) > limits.files:
        raise _too_many(limits)
    return urls


def is_json(request: Request) -> bool:
    """Whether a body is said to be JSON."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


# ---- the bytes -------------------------------------------------------------------------------------------------------


async def _whole(request: Request, limits: Limits, share: Share, most: int, what: str) -> bytes:
    pieces: list[bytes] = []
    await _receive(request, limits, share, most, what, pieces.append)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def _receive(
    request: Request, limits: Limits, share: Share, most: int, what: str, take: Callable[[bytes], object]
) -> None:
    """Hand the body over as it comes, counted and timed."""
    if (said := _content_length(request)) is not None and said > most:
        raise too_large(what, most)
    count = 0
    try:
        async with asyncio.timeout(limits.seconds):
            async for piece in request.stream():
                count += len(piece)
                if count > most:
                    raise too_large(what, most)
                share.take(len(piece))
                if piece:
                    take(piece)
    except TimeoutError as error:
        raise ApiError(
            408,
            "too_slow",
            f"the upload took longer than {limits.seconds:g} s: send a smaller photo",
            {"Connection": "close"},
        ) from error
    except ClientDisconnect as error:
        raise ApiError(400, "cut_short", "the upload was broken off") from error


def _content_length(request: Request) -> int | None:
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None


# ---- forms -----------------------------------------------------------------------------------------------------------


class _Form:
    """The files of a form, put together as its bytes come."""

    def __init__(self, boundary: bytes, limits: Limits) -> None:
        self.uploads: list[Upload] = []
        self.ended = False
        self._limits = limits
        self._others = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_begin": self._header_begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._finish,
            },
        )

    def write(self, piece: bytes) -> None:
        self._parser.write(piece)

    def _begin(self) -> None:
        self._name: str | None = None
        self._pieces: list[bytes] = []
        self._size = 0

    def _header_begin(self) -> None:
        self._field, self._value = b"", b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            if b"filename" in options or options.get(b"name") in (b"file", b"files", b"photo", b"photos"):
                self._name = options.get(b"filename", b"").decode("utf-8", "replace")

    def _headers_finished(self) -> None:
        if self._name is None:
            self._others += 1
        if len(self.uploads) + (self._name is not None) > self._limits.files or self._others > _FIELDS:
            raise _too_many(self._limits)

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._name is not None and self._size <= self._limits.bytes:
            self._pieces.append(data[start:end])

    def _end(self) -> None:
        if self._name is None:
            return
        name = printable(self._name)[:_LONGEST_NAME]
        if self._size > self._limits.bytes:
            self.uploads.append(Upload(name, b"", too_large("this file", self._limits.bytes)))
        else:
            self.uploads.append(Upload(name, b"".join(self._pieces)))

    def _finish(self) -> None:
        self.ended = True


async def _form(request: Request, boundary: bytes, limits: Limits, share: Share) -> list[Upload]:
    try:
        if not boundary:
            raise FormParserError("it names no boundary")
        form = _Form(boundary, limits)
        await _receive(request, limits, share, limits.request_bytes, "this request", form.write)
    except FormParserError as error:
        raise ApiError(400, "bad_form", f"the form can't be read: {printable(str(error))[:200]}") from error
    if not form.ended:
        raise ApiError(400, "bad_form", "the form can't be read: its end is missing")
    if not form.uploads:
        raise ApiError(422, "no_photo", "there is no file in this form: name the field 'file'")
    return form.uploads


def _too_many(limits: Limits) -> ApiError:
    return ApiError(413, "too_many_files", f"at most {limits.files} photos are taken in one request")
