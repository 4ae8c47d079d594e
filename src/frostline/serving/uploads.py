"""The photos in the body of a request, never holding more of it than the limits allow.

A body has one of three forms: the photo itself (``image/...`` or ``application/octet-stream``), the quickest; a form
with any number of files (``multipart/form-data``), as browsers and curl send them; a list of addresses
(``application/json``), where the server is told to allow that.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from frostline.photos.names import printable
from frostline.serving.limits import MIB, ApiError, Limits, busy, too_large

# What is wrong with a form is answered to its sender; it need not appear on the server's stderr as well.
logging.getLogger("python_multipart").addHandler(logging.NullHandler())
logging.getLogger("python_multipart").propagate = False

_LONGEST_NAME = 200
_MOST_FIELDS = 64
"""Parts of a form that are no files; they are ignored."""
_LIST_BYTES = 64 * 1024
"""Of a list of addresses."""


@dataclass(frozen=True)
class Upload:
    """One photo of a request, or why it can't be used."""

    name: str
    """As its sender calls it, printable; empty where it has none."""
    data: bytes
    error: ApiError | None = None


class UploadMemory:
    """How many bytes of requests that are not answered yet may be held, and how many are."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    @contextmanager
    def reserved(self) -> Iterator[Reservation]:
        """A reservation for one request, given back at its end."""
        reservation = Reservation(self)
        try:
            yield reservation
        finally:
            self.held -= reservation.held

    def take(self, count: int) -> None:
        """Hold `count` bytes more. Raises ApiError where there is no room for them."""
        if self.held + count > self._most:
            raise busy("the server is holding as many uploads as it can: try again in a second")
        self.held += count


class Reservation:
    """The bytes that one request holds."""

    def __init__(self, memory: UploadMemory) -> None:
        self._memory = memory
        self.held = 0

    def take(self, count: int) -> None:
        """See `UploadMemory.take`."""
        self._memory.take(count)
        self.held += count


async def photos(request: Request, limits: Limits, reservation: Reservation) -> list[Upload]:
    """The photos in a request's body.

    Raises
    ------
    ApiError
        The body can't be used: of another type, too large, too slow, cut short, or not a form.
    """
    kind = _content_type(request)
    if kind.startswith("image/") or kind == "application/octet-stream":
        data = await _body(request, limits, reservation, limits.bytes, "this file")
        if not data:
            raise ApiError(422, "empty", "the body is empty: expected a photo")
        return [Upload("", data)]
    if kind == "multipart/form-data":
        return await _form(request, limits, reservation)
    raise ApiError(
        415,
        "wrong_type",
        f"can't read a body of type '{printable(kind)[:80]}': send a photo as image/jpeg, or a form with files "
        "(multipart/form-data)",
    )


async def addresses(request: Request, limits: Limits, reservation: Reservation) -> list[str]:
    """The addresses in a JSON body: ``{"urls": [...]}``. Raises ApiError."""
    try:
        document: object = json.loads(await _body(request, limits, reservation, _LIST_BYTES, "this list"))
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "bad_json", "the body is not JSON") from error
    urls = document.get("urls") if isinstance(document, dict) else None
    if not isinstance(urls, list) or not urls or not all(isinstance(url, str) for url in urls):
        raise ApiError(422, "bad_json", 'expected {"urls": ["https://..."]}')
    if len(urls) > limits.files:
        raise _too_many(limits)
    return urls


def is_json(request: Request) -> bool:
    """Whether the Content-Type of a body is JSON."""
    return _content_type(request) == "application/json"


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


# ---- the bytes -------------------------------------------------------------------------------------------------------


async def _body(request: Request, limits: Limits, reservation: Reservation, most: int, what: str) -> bytes:
    async with _arriving(limits), aclosing(_pieces(request, reservation, most, what)) as pieces:
        return b"".join([piece async for piece in pieces])


@asynccontextmanager
async def _arriving(limits: Limits) -> AsyncIterator[None]:
    """A body that is too slow or cut short becomes an ApiError."""
    try:
        async with asyncio.timeout(limits.seconds):
            yield
    except TimeoutError as error:
        message = f"the upload took longer than {limits.seconds:g} s: send a smaller photo"
        raise ApiError(408, "too_slow", message, {"Connection": "close"}) from error
    except ClientDisconnect as error:
        raise ApiError(400, "cut_short", "the upload was cut short") from error


async def _pieces(request: Request, reservation: Reservation, most: int, what: str) -> AsyncGenerator[bytes, None]:
    """The body as it arrives, counted. Raises ApiError before more than `most` bytes are held."""
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) > most:
        raise too_large(what, most)
    count = 0
    async for piece in request.stream():
        count += len(piece)
        if count > most:
            raise too_large(what, most)
        reservation.take(len(piece))
        yield piece


# ---- forms -----------------------------------------------------------------------------------------------------------


class _InMemoryForm(MultiPartParser):
    """Starlette's parser, which neither writes a photo to disk nor takes a form without an end for a whole one."""

    spool_max_size = 0  # no file is too large for memory: `_pieces` has counted its bytes before they come here

    def __init__(self, headers: Headers, pieces: AsyncGenerator[bytes, None], limits: Limits) -> None:
        stream = self._until_end(pieces)
        super().__init__(headers, stream, max_files=limits.files, max_fields=_MOST_FIELDS, max_part_size=MIB)
        self._ended = False

    def on_end(self) -> None:
        self._ended = True

    async def _until_end(self, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for piece in pieces:
            yield piece
        if not self._ended:
            raise MultiPartException("its end is missing")


async def _form(request: Request, limits: Limits, reservation: Reservation) -> list[Upload]:
    body = _pieces(request, reservation, limits.request_bytes, "this request")
    try:
        async with _arriving(limits), aclosing(body):
            form = await _InMemoryForm(request.headers, body, limits).parse()
    except MultiPartException as error:
        if error.message.startswith("Too many"):
            raise _too_many(limits) from error
        raise ApiError(400, "bad_form", f"the form can't be read: {printable(error.message)[:200]}") from error
    uploads = await _files(form, limits)
    if not uploads:
        raise ApiError(422, "no_photo", "there is no file in this form: send the photo as a file, in the field 'file'")
    return uploads


async def _files(form: FormData, limits: Limits) -> list[Upload]:
    """The files of a form; one that is too large has an error, and the others are still classified."""
    uploads = []
    for _, file in form.multi_items():
        if isinstance(file, UploadFile):
            name = printable(file.filename or "")[:_LONGEST_NAME]
            if (file.size or 0) > limits.bytes:
                uploads.append(Upload(name, b"", too_large("this file", limits.bytes)))
            else:
                uploads.append(Upload(name, await file.read()))
            await file.close()
    return uploads


def _too_many(limits: Limits) -> ApiError:
    return ApiError(413, "too_many_files", f"at most {limits.files} photos are accepted in one request")
