"""Photos for tests: good ones in every format, folders of them, and broken ones of many kinds."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FLOWERS = Path(__file__).parents[3] / "shared" / "flowers"
needs_flowers = pytest.mark.skipif(
    not FLOWERS.is_dir(), reason="the shared flower photos are not beside the repository"
)

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")


def picture(seed: int = 0, width: int = 60, height: int = 40) -> Image.Image:
    """A smooth colourful RGB picture with some noise; another seed gives another one."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray(np.clip(pixels + rng.integers(-12, 13, pixels.shape), 0, 255).astype(np.uint8))


def scene(seed: int, side: int = 160) -> Image.Image:
    """A picture with detail of all sizes, as photos have: another seed, another one."""
    rng = np.random.default_rng(seed)
    layers = np.zeros((side, side, 3))
    for cells in (4, 9, 20, 45, 90):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        layers += np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC), dtype=float) * cells**-0.5
    layers -= layers.min()
    return Image.fromarray((layers * 255 / layers.max()).astype(np.uint8))


def textured(kind: int, seed: int, side: int = 64) -> Image.Image:
    """A grating in noise; kinds differ in its direction alone, and each picture's own direction strays: neighbours
    look alike.
    """
    rng = np.random.default_rng(seed)
    angle = np.deg2rad(14 * kind + rng.normal(0, 8))
    down, across = np.mgrid[:side, :side] * (2 * np.pi / 12)
    wave = np.sin(np.cos(angle) * across + np.sin(angle) * down + rng.uniform(0, 2 * np.pi))
    grey = 128 + 50 * wave[..., None] + rng.normal(0, 60, (side, side, 3))
    return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def photo(seed: int = 0, kind: str = "JPEG", width: int = 60, height: int = 40) -> bytes:
    """The bytes of a good photo."""
    return encoded(picture(seed, width, height), kind)


def heic(image: Image.Image, **options: object) -> bytes:
    """A photo as iPhones write it."""
    import pillow_heif

    stream = io.BytesIO()
    pillow_heif.from_pillow(image).save(stream, quality=95, **options)
    return stream.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG of RGB with this header, these chunks and no pixels but what they hold."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def _bomb_text() -> bytes:
    return png(4, 4, chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(8_000_000))), chunk(b"IDAT", b""))


def _bad_crc() -> bytes:
    data = bytearray(photo(kind="PNG"))
    data[-40] ^= 0xFF
    return bytes(data)


def _patched(kind: str, offset: int, body: bytes) -> bytes:
    data = bytearray(photo(kind=kind))
    data[offset : offset + len(body)] = body
    return bytes(data)


def _jpeg_bomb() -> bytes:
    data = photo()
    frame = data.index(b"\xff\xc0")
    return data[: frame + 5] + struct.pack(">HH", 60000, 60000) + data[frame + 9 :]


def _tenths(kind: str, tenths: int) -> bytes:
    data = photo(0, kind, 240, 160)
    return data[: len(data) * tenths // 10]


def _zero_tail(kind: str) -> bytes:
    return _tenths(kind, 5).ljust(len(_tenths(kind, 10)), b"\0")


# kind of damage -> (bytes, what the reason has to hold)
BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty file"),
    "zeros": (bytes(4096), "zero bytes"),
    "text": (b"these are no pixels\n" * 40, "unknown format"),
    "html": (b"\n<!DOCTYPE html><html><body>404 Not Found</body></html>", "HTML"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    "noise": (np.random.default_rng(1).bytes(5000), "unknown format"),
    "pdf": (b"%PDF-1.7\n" + bytes(100), "PDF"),
    "zip": (b"PK\x03\x04" + bytes(100), "ZIP"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(100), ""),
    "avif": (b"\0\0\0\x18ftypavif" + bytes(100), ""),
    "video": (b"\0\0\0\x18ftypisom" + bytes(100), "video"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "unknown format"),
    "half a jpeg": (_tenths("JPEG", 5), "truncated"),
    "half a png": (_tenths("PNG", 5), "truncated"),
    "half a webp": (_tenths("WEBP", 5), "truncated"),
    "half a bmp": (_tenths("BMP", 5), "truncated"),
    "half a tiff": (_tenths("TIFF", 5), "truncated"),
    "half a gif": (_tenths("GIF", 5), "truncated"),
    "jpeg, tail of zeros": (_tenths("JPEG", 5) + bytes(9000), "truncated"),
    "webp, tail of zeros": (_zero_tail("WEBP"), "truncated"),
    "jpeg, header only": (photo()[:20], ""),
    "png, wrong checksum": (_bad_crc(), "damaged"),
    "png, no pixels": (png(10, 10), ""),
    "png, text bomb": (_bomb_text(), ""),
    "png bomb": (png(30000, 30000, chunk(b"IDAT", b"")), "too many pixels: 30000x30000, at most 100 million"),
    "jpeg bomb": (_jpeg_bomb(), "too many pixels: 60000x60000"),
    "bmp bomb": (_patched("BMP", 18, struct.pack("<ii", 20000, 20000)), "too many pixels: 20000x20000"),
    "gif bomb": (_patched("GIF", 6, struct.pack("<HH", 65000, 65000)), "too many pixels"),
    "webp of no kind": (b"RIFF\x10\0\0\0WEBPXXXX" + bytes(40), "damaged"),
}


def write_folder(root: Path, classes: Mapping[str, int] | Iterable[str], each: int = 6, first_seed: int = 0) -> Path:
    """Class folders of different good photos: ``{"rose": 3, "tulip": 5}``, or names, `each` times; returns root."""
    numbers = classes if isinstance(classes, Mapping) else dict.fromkeys(classes, each)
    seed = first_seed
    for name, number in numbers.items():
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(number):
            kind = FORMATS[i % len(FORMATS)] if i else "JPEG"
            (folder / f"{name.replace(os.sep, '_')} {i + 1}.{kind.lower()}").write_bytes(photo(seed, kind))
            seed += 1
    return root


def write_broken(folder: Path, each: int = 1) -> list[Path]:
    """Broken photos of every kind, under the names of photos; returns their paths. `each` > 1 repeats the kinds."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(each):
        for kind, (data, _) in BROKEN.items():
            path = folder / f"broken {kind} {number}.jpg"
            path.write_bytes(data)
            paths.append(path)
    return paths
