"""From the bytes of a photo to pixels, by stated rules.

Every photo ends up as upright 8-bit RGB. The rules:

=====================  ==============================================================================================
what                   rule
=====================  ==============================================================================================
format                 JPEG (also MPO, as phones write it), PNG, WebP, BMP, TIFF, GIF, AVIF where Pillow has it, HEIC
                       with the extra `heic`; told apart by their first bytes, never by the file's name; no other
                       decoder is ever reached
too large              over `MAX_BYTES` bytes, or `MAX_PIXELS` pixels by the header: refused before decoding
truncated, damaged     refused: half a photo is never filled up with grey. (Damage inside the pixels of a JPEG that
                       is whole up to its end mark can't be told from a strange photo, nor zeros at the end of a
                       BMP or TIFF from black pixels.)
frames, pages          the first one
16-bit colour          the upper 8 bits of each channel (Pillow reads it so)
16-bit grey            divided by 257, rounded
32-bit integer, float  a float photo within 0..1 times 255; either kind within 0..255 as it is, within 0..65535
                       divided by 257, else stretched from its smallest to its largest value; NaN is the smallest
transparency           laid over white, in any mode (alpha channel, palette, one transparent colour)
CMYK, YCCK, YCbCr      Pillow's conversion
grey, black and white  the one channel three times
ICC profile            ignored
EXIF orientation       applied, also to PNG, WebP and TIFF; a damaged one counts as upright. HEIC and AVIF have turns of
                       their own, which count in its place
=====================  ==============================================================================================

Then the photo is brought to size x size, bilinear or bicubic, with antialiasing: ``squash`` takes the whole photo,
whatever its shape; ``crop`` takes the central square whose side is `crop_pct` of the shorter side (224/256 gives the
usual "resize to 256, cut 224" in one step, for any size).

Cost: a JPEG of over twice the needed size is decoded at 1/2, 1/4 or 1/8 by its own DCT, never below twice the needed
size, and what is still over three times the needed size is first box-averaged by a whole number. All functions may be
called from many threads at once; Pillow lets go of the interpreter's lock while it decodes.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageFile, features
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from frostline.config import Resize
from frostline.documents.bundle import TransformFigures
from frostline.errors import ConfigError, MissingExtraError, PhotoError, one_line

MAX_PIXELS = 100_000_000
"""Photos of more pixels are refused: 100 million take 400 MB once decoded."""

MAX_BYTES = 512 * 1024**2
"""Files of more bytes are refused, and never read into memory by `scan`."""

Pixels = npt.NDArray[np.uint8]
"""Of shape (height, width, 3), RGB."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Interpolation = Literal["bilinear", "bicubic"]
Box = tuple[float, float, float, float]  # left, top, right, bottom as fractions of the upright photo

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_DRAFT_GAP = 2  # a JPEG is decoded at no less than this many times the needed size
_REDUCING_GAP = 3.0  # Pillow: "close to fair resampling"
_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)

_QUIET = ("ignore", None, Warning, re.compile(r"(PIL|pillow_heif)\."), 0)  # as `warnings.filters` holds it

# Some of Pillow's modules log to the "last resort" handler, i.e. stderr, when nobody has set logging up.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def too_large(size: int) -> str:
    """Why a file of `size` bytes is refused; "" when it is not."""
    return f"too large: {size / 1024**2:.0f} MiB, at most {MAX_BYTES // 1024**2} MiB" if size > MAX_BYTES else ""


@dataclass(frozen=True)
class Transform:
    """How a photo becomes the input of a network. Part of every bundle and export.

    `mean` and `std` are in units of 0..1 per channel (RGB); the engine's graph normalises with them, this module only
    resizes.

    Raises
    ------
    ConfigError
        A size below 1, an unknown `resize` or `interpolation`, a `std` that is not positive, or a `crop_pct` outside
        0..1.
    """

    size: int = 224
    """Side of the square in pixels."""
    resize: Resize = "squash"
    """"squash" (the whole photo) or "crop" (its central square)."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Interpolation = "bilinear"
    """How pixels are resampled."""
    crop_pct: float = 0.875
    """For "crop": the square's side as a share of the photo's shorter side, above 0 and at most 1."""

    def __post_init__(self) -> None:
        if type(self.size) is not int or self.size < 1:
            raise ConfigError(f"image size {self.size!r}: must be a whole number of pixels, at least 1")
        if self.resize not in get_args(Resize):
            raise ConfigError(f"resize {self.resize!r}: must be one of {', '.join(get_args(Resize))}")
        if self.interpolation not in get_args(Interpolation):
            known = ", ".join(get_args(Interpolation))
            raise ConfigError(f"interpolation {self.interpolation!r}: must be one of {known}")
        if not isinstance(self.crop_pct, int | float) or not 0 < self.crop_pct <= 1:
            raise ConfigError(f"crop_pct {self.crop_pct!r}: must be above 0 and at most 1")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
                raise ConfigError(f"{name} {values!r}: must be three numbers, one for each of red, green and blue")
        if min(self.std) <= 0:
            raise ConfigError(f"std {self.std!r}: must be above 0")

    def frame(self) -> Transform:
        """The part that changes pixels: without `mean` and `std`, and without `crop_pct` where no square is cut."""
        share = self.crop_pct if self.resize == "crop" else Transform.crop_pct
        return Transform(self.size, self.resize, interpolation=self.interpolation, crop_pct=share)

    def to_dict(self) -> TransformFigures:
        """The JSON form."""
        found = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        return cast(TransformFigures, found)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Transform:
        """The inverse of `to_dict`. Raises ConfigError when a key is missing, unknown or of a wrong kind.

        The keys other than size, resize, mean and std may be missing: older versions did not write them.
        """
        expected = {"size", "resize", "mean", "std"}
        if not isinstance(value, dict) or not expected <= set(value) <= {f.name for f in fields(cls)}:
            came = ", ".join(sorted(map(str, value))) if isinstance(value, dict) else repr(value)
            raise ConfigError(f"transform: came with {came or 'nothing'}, expected {', '.join(sorted(expected))}")
        try:
            mean, std = tuple(value["mean"]), tuple(value["std"])
        except TypeError as error:
            raise ConfigError("transform: mean and std must be lists of three numbers") from error
        return cls(**{**value, "mean": mean, "std": std})


@dataclass(frozen=True)
class View:
    """An augmented view of a photo: a pure function of (seed, index, the photo's bytes).

    Index 0 is the clean photo. Any other: a random window of 50-100 % of the photo's area, its shape 3:4 to 4:3 (for
    "squash" relative to the photo's own shape, so that views are squashed about as much as the clean photo is), a
    horizontal flip half of the time, brightness, contrast and saturation each times 0.8..1.2. `MIRROR` is not random:
    it is the clean photo with left and right exchanged.
    """

    seed: int
    index: int


MIRROR = -1
"""Index of the view that is the clean photo's mirror image."""


def prepare(data: bytes, transform: Transform, view: View | None = None, *, max_pixels: int = 0) -> Pixels:
    """Decode and resize a photo: uint8 array of shape (size, size, 3), RGB, 0..255.

    `data` is the whole file; one of more than `max_pixels` pixels (0: `MAX_PIXELS`) is refused by its header. Without
    a view (or with view 0) the clean photo. The colours of a view are changed after resizing: the same up to
    rounding, and 20 times cheaper on a large photo.

    Raises
    ------
    PhotoError
        Whatever is wrong with the bytes; the text is the reason alone.
    """
    rng = _view_rng(data, view) if view is not None and view.index > 0 else None
    with _readable(data):
        image, turn = _open(data, max_pixels)
        box = _window(image, turn, transform, rng)
        rgb = _pixels(image, turn, box, transform.size)
        size = (transform.size, transform.size)
        small = rgb.resize(size, _RESAMPLING[transform.interpolation], _scaled(box, rgb.size), _REDUCING_GAP)
        if rng is not None:
            small = _recoloured(small, rng)
        elif view is not None and view.index == MIRROR:
            small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.array(small)  # a copy: np.asarray would be read-only


def thumbnail(data: bytes, size: int) -> Image.Image:
    """A small upright RGB picture of a photo for galleries: its own shape, longer side at most `size` pixels.

    Raises PhotoError for whatever is wrong with the bytes. A smaller photo keeps its size.
    """
    with _readable(data):
        return _thumbnail(*_open(data), size)


def _thumbnail(
    image: ImageFile.ImageFile, turn: int, size: int, resampling: Image.Resampling = Image.Resampling.LANCZOS
) -> Image.Image:
    rgb = _pixels(image, turn, _WHOLE, size)
    scale = min(1.0, size / max(rgb.size))
    width, height = (max(1, round(side * scale)) for side in rgb.size)
    return rgb.resize((width, height), resampling, reducing_gap=_REDUCING_GAP)


class Glance(NamedTuple):
    """A thumbnail of a photo, and what its file says of it."""

    format: str
    """As Pillow names it: JPEG, PNG, ..."""
    width: int
    """Of the upright photo, pixels."""
    height: int
    camera: str
    """Maker and model by EXIF, "" where it names none."""
    small: Image.Image
    """As `thumbnail` gives it, but for the filter: box averages cost a third."""


def glance(data: bytes, size: int) -> Glance:
    """A thumbnail (longer side at most `size` pixels) and what the file says, from one decoding. Raises PhotoError."""
    with _readable(data):
        image, turn = _open(data)
        width, height = image.size if turn < 5 else image.size[::-1]
        form, camera = image.format or "", _camera(image)
        return Glance(form, width, height, camera, _thumbnail(image, turn, size, Image.Resampling.BOX))


# --- reading ---------------------------------------------------------------------------------------------------------

_READERS: tuple[tuple[tuple[bytes, ...], type[ImageFile.ImageFile]], ...] = (
    ((b"\xff\xd8\xff",), JpegImageFile),  # MPO too: its first photo is a plain JPEG
    ((b"\x89PNG\r\n\x1a\n",), PngImageFile),
    ((b"RIFF",), WebPImageFile),
    ((b"GIF87a", b"GIF89a"), GifImageFile),
    ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TiffImageFile),
    ((b"BM",), BmpImageFile),
)

_STRANGERS: tuple[tuple[int, tuple[bytes, ...], str], ...] = (
    (4, (b"ftyp",), "not a photo (a video)"),
    (4, (b"jP  ", b"JXL "), "JPEG 2000 and JPEG XL are not supported: convert it to JPEG"),
    (0, (b"\xff\x0a", b"\xff\x4f\xff\x51"), "JPEG 2000 and JPEG XL are not supported: convert it to JPEG"),
    (0, (b"8BPS",), "Photoshop files are not supported: convert it to JPEG"),
    (0, (b"%PDF",), "not a photo (a PDF)"),
    (0, (b"PK\x03\x04",), "not a photo (a ZIP archive)"),
)


def _open(data: bytes, max_pixels: int = 0) -> tuple[ImageFile.ImageFile, int]:
    """The opened photo and its EXIF orientation (1..8). All but JPEG are decoded already: JPEG may be drafted first."""
    if not data:
        raise PhotoError("empty file")
    if why := too_large(len(data)):
        raise PhotoError(why)
    # The classes and not Image.open: it warns of large photos, tries every decoder it knows, and reads MPO's index.
    stream = io.BytesIO(data)
    image = _reader(data)(stream)
    header = stream.tell()
    width, height = image.size
    most = max_pixels or MAX_PIXELS
    if width * height > most:
        raise PhotoError(f"too many pixels: {width}x{height}, at most {_millions(most)}")
    _check_tail(image, data, header)
    if not isinstance(image, JpegImageFile):
        image.load()  # TIFF turns itself upright here; PNG's EXIF may stand after the pixels
    return image, _orientation(image)


def _millions(count: int) -> str:
    return f"{count // 1_000_000} million" if count % 1_000_000 == 0 else f"{count:,}"


def _check_tail(image: ImageFile.ImageFile, data: bytes, start: int) -> None:
    """Refuse what a broken-off copy leaves: the full length, zeros from some point on. Decoders take them for pixels.

    `start`: where the header ends. Raw pixels (BMP, TIFF) can't be judged so: zeros are black.
    """
    cut = False
    if isinstance(image, JpegImageFile):
        cut = data.rfind(b"\xff\xd9", start) < 0  # the end mark, which can't occur inside the pixels
    elif isinstance(image, PngImageFile):
        with PngImageFile(io.BytesIO(data)) as second:  # `verify` uses it up
            second.verify()  # the checksums, which decoding passes over, and the end mark
    elif isinstance(image, WebPImageFile):
        end = int.from_bytes(data[4:8], "little") + 8
        cut = end > 1024 and not data[end - 512 : end].strip(b"\0")
    elif image.format in ("HEIF", "AVIF"):
        cut = _ends_in_zeros(data)
    if cut:
        raise PhotoError("truncated: the end is missing")


def _ends_in_zeros(data: bytes) -> bool:
    """Whether the pixels (the box "mdat") of a HEIC or AVIF file end in zeros."""
    place = 0
    while place + 8 <= len(data):
        size, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        if size == 1:  # the size follows, in eight bytes
            size = int.from_bytes(data[place + 8 : place + 16], "big")
        end = len(data) if size == 0 else place + size
        if size == 0 or size >= 8:
            if kind == b"mdat" and end - place > 1024 and not data[end - 512 : end].strip(b"\0"):
                return True
            place = end
        else:
            return False
    return False


def _reader(data: bytes) -> type[ImageFile.ImageFile]:
    for starts, reader in _READERS:
        if data.startswith(starts) and (reader is not WebPImageFile or data[8:12] == b"WEBP"):
            return reader
    if data[4:8] == b"ftyp" and (found := _boxed_reader(data)):
        return found
    for offset, marks, why in _STRANGERS:
        if data.startswith(marks, offset):
            raise PhotoError(why)
    if not data.strip(b"\0"):
        raise PhotoError("not a photo (nothing but zero bytes)")
    if data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise PhotoError("not a photo (HTML, SVG or other XML)")
    raise PhotoError("not a photo (unknown format)")


def _boxed_reader(data: bytes) -> type[ImageFile.ImageFile] | None:
    """The reader of AVIF or HEIC. Both use the container of videos (ISO base media); its brands tell them apart."""
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = [data[8:12], *(data[i : i + 4] for i in range(16, end - 3, 4))]
    if any(brand in (b"avif", b"avis") for brand in brands):
        if not features.check("avif"):
            raise PhotoError("AVIF needs a Pillow that reads it: pip install --upgrade pillow")
        from PIL.AvifImagePlugin import AvifImageFile

        return AvifImageFile
    if any(brand.startswith((b"hei", b"hev", b"mif1", b"msf1")) for brand in brands):
        try:
            from pillow_heif.as_plugin import HeifImageFile
        except ImportError as error:
            raise PhotoError(f"HEIC: {MissingExtraError('pillow-heif', 'heic')}") from error
        reader: type[ImageFile.ImageFile] = HeifImageFile
        return reader
    return None


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # EXIF is read by Pillow's TIFF reader, which fails in many ways on damaged EXIF: upright then
        return 1
    return value if value in range(1, 9) else 1


def _camera(image: Image.Image) -> str:
    try:
        exif = image.getexif()
        return " ".join(" ".join(str(exif.get(tag, "")) for tag in (0x010F, 0x0110)).replace("\0", " ").split())
    except Exception:  # as in `_orientation`
        return ""


@contextmanager
def _readable(data: bytes) -> Iterator[None]:
    """Turn whatever Pillow raises on bad bytes into a PhotoError, and silence its warnings about them.

    Pillow's readers raise over ten kinds of exceptions on damaged files, hence `Exception`. Its warnings are about
    metadata that is not used here. `warnings.catch_warnings` is not thread-safe, so a filter for the modules of Pillow
    is put in front and stays; again on each call, since others reset the list (pytest does for each test).
    """
    if not warnings.filters or warnings.filters[0] != _QUIET:
        warnings.filterwarnings("ignore", module=_QUIET[3].pattern)
    try:
        yield
    except PhotoError:
        raise
    except Image.DecompressionBombError as error:
        raise PhotoError(f"too many pixels: at most {MAX_PIXELS // 1_000_000} million") from error
    except MemoryError as error:
        raise PhotoError("not enough memory to decode it") from error
    except Exception as error:
        raise PhotoError(_reason(error, data)) from error


_CUT_SHORT = (
    "truncated",
    "not large enough",
    "not enough",
    "unpack",
    "unexpected end",
    "incomplete",
)


def _reason(error: Exception, data: bytes) -> str:
    text = one_line(error, 100)
    shorter = data[:4] == b"RIFF" and int.from_bytes(data[4:8], "little") + 8 > len(data)
    if shorter or isinstance(error, EOFError | IndexError) or any(mark in text.lower() for mark in _CUT_SHORT):
        return f"truncated: {text}"
    return f"damaged: {text}"


# --- geometry --------------------------------------------------------------------------------------------------------


def _view_rng(data: bytes, view: View) -> np.random.Generator:
    key = hashlib.sha256(f"{view.seed}:{view.index}:".encode() + hashlib.sha256(data).digest())
    return np.random.default_rng(int.from_bytes(key.digest(), "big"))


def _window(image: Image.Image, turn: int, transform: Transform, rng: np.random.Generator | None) -> Box:
    """The part of the upright photo that will fill the square."""
    width, height = image.size if turn < 5 else image.size[::-1]
    if rng is not None:
        return _random_window(rng, 1.0 if transform.resize == "squash" else height / width)
    if transform.resize == "squash":
        return _WHOLE
    side = transform.crop_pct * min(width, height)
    x, y = side / width / 2, side / height / 2
    return (0.5 - x, 0.5 - y, 0.5 + x, 0.5 + y)


def _random_window(rng: np.random.Generator, square: float) -> Box:
    """50-100 % of the area, shape 3:4 to 4:3 of a window `square` times as wide as high (in fractions of the photo).

    As torchvision does: ten tries, then the nearest shape that fits, which very long photos need.
    """
    for _ in range(10):
        area = rng.uniform(0.5, 1.0)
        shape = square * math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        width, height = math.sqrt(area * shape), math.sqrt(area / shape)
        if width <= 1 and height <= 1:
            break
    else:
        width, height = min(1.0, square * 4 / 3), min(1.0, 4 / 3 / square)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return (left, top, left + width, top + height)


def _scaled(box: Box, size: tuple[int, int]) -> Box:
    width, height = size
    left, top, right, bottom = box
    return (max(0.0, left * width), max(0.0, top * height), min(width, right * width), min(height, bottom * height))


def _recoloured(small: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The flip and the colours of a view; small: (size, size) RGB."""
    if rng.random() < 0.5:
        small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        small = kind(small).enhance(rng.uniform(0.8, 1.2))
    return small


# --- pixels ----------------------------------------------------------------------------------------------------------

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _pixels(image: ImageFile.ImageFile, turn: int, box: Box, size: int) -> Image.Image:
    """The whole photo, upright RGB; a JPEG possibly at 1/2, 1/4 or 1/8 when `box` still has 2 * `size` pixels then."""
    if isinstance(image, JpegImageFile):
        wide = math.ceil(_DRAFT_GAP * size / (box[2] - box[0]))
        high = math.ceil(_DRAFT_GAP * size / (box[3] - box[1]))
        image.draft(None, (wide, high) if turn < 5 else (high, wide))
    image.load()
    rgb = _rgb(image)
    return rgb.transpose(_TURNS[turn]) if turn in _TURNS else rgb


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        image = _eight_bits(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits or floats, shape (H, W), to 8 bits by the rules at the top."""
    if image.mode.startswith("I;16"):
        values, low, high = np.asarray(image).astype(np.float32), 0.0, 65535.0
    else:
        values = np.asarray(image)
        known = values[np.isfinite(values)]
        if not known.size:
            raise PhotoError("no pixel holds a finite number")
        low, high = _range(float(known.min()), float(known.max()), image.mode)
        values = np.nan_to_num(values.astype(np.float64), nan=known.min(), posinf=known.max(), neginf=known.min())
    grey = np.rint((values - low) * (255 / (high - low or 1))).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):  # PNG: one grey level that is transparent
        grey[values == clear] = 255
    return Image.fromarray(grey)


def _range(low: float, high: float, mode: str) -> tuple[float, float]:
    """The values that become 0 and 255."""
    for top in (1.0, 255.0, 65535.0) if mode == "F" else (255.0, 65535.0):
        if low >= 0 and high <= top:
            return 0.0, top
    return low, high
