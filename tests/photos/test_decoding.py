"""Photos in: every format and mode by the stated rules, every broken file refused with a reason."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from frostline.errors import ConfigError, PhotoError
from frostline.photos.decoding import MAX_BYTES, Transform, View, prepare, thumbnail
from support import photos

SMALL = Transform(size=16)
GOOD = {kind: photos.photo(3, kind) for kind in photos.FORMATS}
GOOD |= {
    "progressive": photos.encoded(photos.picture(3), "JPEG", progressive=True),
    "palette": photos.encoded(photos.picture(3).quantize(32), "PNG"),
    "interlaced GIF": photos.encoded(photos.picture(3), "GIF", interlace=1),
    "lossless WebP": photos.encoded(photos.picture(3), "WEBP", lossless=True),
    "deflated TIFF": photos.encoded(photos.picture(3), "TIFF", compression="tiff_adobe_deflate"),
    "LZW TIFF": photos.encoded(photos.picture(3), "TIFF", compression="tiff_lzw"),
    "HEIC": photos.heic(photos.picture(3)),
    "AVIF": photos.encoded(photos.picture(3), "AVIF", quality=95),
}


def colour(data: bytes) -> list[int]:
    """The one colour of a photo of one colour."""
    pixels = prepare(data, SMALL).reshape(-1, 3)
    assert (np.ptp(pixels.astype(int), axis=0) <= 4).all(), "expected one colour"
    return [int(v) for v in pixels[0]]


def flat(mode: str, value: object) -> Image.Image:
    return Image.new(mode, (20, 30), value)  # type: ignore[arg-type]


# --- formats and modes


@pytest.mark.parametrize("kind", GOOD)
def test_every_format_gives_the_same_photo(kind: str) -> None:
    pixels = prepare(GOOD[kind], SMALL)
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    wanted = np.asarray(photos.picture(3).resize((16, 16), Image.Resampling.BILINEAR)).astype(int)
    rough = 16 if kind in ("GIF", "palette", "interlaced GIF") else 4  # few colours
    assert abs(pixels - wanted).mean() < rough


RGBA_RED = (255, 0, 0, 51)  # a fifth of red over white: 255, 204, 204


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (photos.encoded(flat("L", 77), "PNG"), [77, 77, 77]),
        (photos.encoded(flat("1", 1), "PNG"), [255, 255, 255]),
        (photos.encoded(flat("1", 0), "TIFF"), [0, 0, 0]),
        (photos.encoded(flat("RGBA", RGBA_RED), "PNG"), [255, 204, 204]),
        (photos.encoded(flat("RGBA", RGBA_RED), "TIFF"), [255, 204, 204]),
        (photos.encoded(flat("RGBA", RGBA_RED), "WEBP", lossless=True), [255, 204, 204]),
        (photos.encoded(flat("RGBA", (9, 9, 9, 0)), "PNG"), [255, 255, 255]),
        (photos.encoded(flat("LA", (0, 51)), "PNG"), [204, 204, 204]),
        (photos.encoded(flat("RGB", (10, 20, 30)), "PNG", transparency=(10, 20, 30)), [255, 255, 255]),
        (photos.encoded(flat("L", 40), "PNG", transparency=40), [255, 255, 255]),
        (photos.encoded(flat("L", 40), "PNG", transparency=41), [40, 40, 40]),
        (photos.encoded(flat("CMYK", (0, 255, 255, 0)), "JPEG"), [255, 0, 0]),
        (photos.encoded(flat("CMYK", (0, 0, 0, 255)), "TIFF"), [0, 0, 0]),
        (photos.encoded(flat("YCbCr", (128, 128, 128)), "JPEG"), [128, 128, 128]),
        (photos.encoded(flat("I;16", 257 * 100), "PNG"), [100, 100, 100]),
        (photos.encoded(flat("I;16", 257 * 100), "TIFF"), [100, 100, 100]),
        (photos.encoded(flat("I;16", 257 * 100 + 129), "TIFF"), [101, 101, 101]),
        (photos.encoded(flat("I;16", 65535), "PNG"), [255, 255, 255]),
        (photos.encoded(flat("I;16", 200), "PNG"), [1, 1, 1]),
        (photos.encoded(flat("I", 200), "TIFF"), [200, 200, 200]),
        (photos.encoded(flat("I", 257 * 90), "TIFF"), [90, 90, 90]),
        (photos.encoded(flat("F", 0.2), "TIFF"), [51, 51, 51]),
        (photos.encoded(flat("F", 130.2), "TIFF"), [130, 130, 130]),
        (photos.encoded(flat("F", 257 * 90.0), "TIFF"), [90, 90, 90]),
        (photos.encoded(flat("F", -3.0), "TIFF"), [0, 0, 0]),
    ],
)
def test_modes_follow_the_stated_rules(data: bytes, wanted: list[int]) -> None:
    np.testing.assert_allclose(colour(data), wanted, atol=2)


def test_palettes_with_transparency_lie_over_white() -> None:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([0, 0, 0, 200, 0, 0, 0, 0, 200])
    assert colour(photos.encoded(image, "PNG")) == [200, 0, 0]
    assert colour(photos.encoded(image, "GIF", transparency=1)) == [255, 255, 255]
    assert colour(photos.encoded(image, "PNG", transparency=b"\xff\x00\xff")) == [255, 255, 255]
    assert colour(photos.encoded(image, "PNG", transparency=b"\x00\xff\xff")) == [200, 0, 0]


def test_16_bit_grey_is_scaled_and_its_transparent_level_is_white() -> None:
    ramp = np.linspace(0, 65535, 256 * 16).reshape(16, 256).astype(np.uint16)
    pixels = prepare(photos.encoded(Image.fromarray(ramp), "PNG"), Transform(size=16))
    assert pixels[0, 0, 0] < 3
    assert pixels[-1, -1, 0] > 252
    data = bytearray(photos.encoded(flat("I;16", 5000), "PNG"))
    place = data.index(b"IDAT") - 4
    data[place:place] = photos.chunk(b"tRNS", struct.pack(">H", 5000))
    assert colour(bytes(data)) == [255, 255, 255]


def test_floats_out_of_range_are_stretched_and_nan_is_the_smallest() -> None:
    values = np.full((16, 16), -1000.0, np.float32)
    values[:, 8:] = 3000.0
    values[0:8, 0:8] = np.nan
    pixels = prepare(photos.encoded(Image.fromarray(values), "TIFF"), SMALL)
    assert (pixels[:, :8] == 0).all()
    assert (pixels[:, 8:] == 255).all()
    with pytest.raises(PhotoError, match="finite"):
        prepare(photos.encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"), SMALL)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_frame_counts(kind: str) -> None:
    red, blue = flat("RGB", (250, 0, 0)), flat("RGB", (0, 0, 250))
    data = photos.encoded(red, kind, save_all=True, append_images=[blue, blue])
    np.testing.assert_allclose(colour(data), [250, 0, 0], atol=8)


def test_mpo_as_phones_write_it() -> None:
    data = photos.encoded(flat("RGB", (250, 0, 0)), "MPO", save_all=True, append_images=[flat("RGB", (0, 0, 250))])
    np.testing.assert_allclose(colour(data), [250, 0, 0], atol=4)


def test_colour_profiles_are_ignored() -> None:
    image = photos.picture(5)
    plain, tagged = photos.encoded(image, "PNG"), photos.encoded(image, "PNG", icc_profile=b"nonsense" * 20)
    np.testing.assert_array_equal(prepare(plain, SMALL), prepare(tagged, SMALL))


def test_a_photo_of_one_pixel_is_a_photo() -> None:
    assert colour(photos.encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")) == [1, 2, 3]
    assert thumbnail(photos.encoded(Image.new("RGB", (1, 1)), "PNG"), 50).size == (1, 1)
    for shape in ((1, 5000), (5000, 1)):
        for resize in ("squash", "crop"):
            assert prepare(photos.photo(0, "JPEG", *shape), Transform(8, resize), View(0, 1)).shape == (8, 8, 3)


# --- orientation

STORED = {  # how a camera that notes this orientation has stored an upright photo
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("number", STORED)
@pytest.mark.parametrize(
    ("kind", "options", "width"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}, 64),
        ("JPEG", {"quality": 95}, 640),  # large enough to be decoded at 1/8
        ("PNG", {}, 64),
        ("WEBP", {"lossless": True}, 64),
        ("TIFF", {}, 64),
        ("TIFF", {"compression": "tiff_lzw"}, 64),
    ],
)
def test_orientation_is_honoured(kind: str, options: dict[str, object], width: int, number: int) -> None:
    upright = photos.picture(4, 64, 40).resize((width, width * 5 // 8), Image.Resampling.BICUBIC)
    turn = STORED[number]
    exif = Image.Exif()
    exif[0x0112] = number
    data = photos.encoded(upright.transpose(turn) if turn is not None else upright, kind, exif=exif, **options)
    plain = photos.encoded(upright, "PNG")
    for transform in (Transform(16), Transform(16, "crop")):
        difference = prepare(data, transform).astype(int) - prepare(plain, transform)
        assert abs(difference).mean() < 2.5
    assert thumbnail(data, 32).size == (32, 20)


BAD_EXIF = [
    b"Exif\0\0",
    b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\xff\xff\xff\xff\xff" * 3,
    b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0",  # orientation 99
    b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x02\0\0\0\x01abcd\x01\x1a\0\x05\0\0\0\x01\0\0\xff\xff",  # a letter
    b"Exif\0\0" + bytes(range(256)),
]


@pytest.mark.parametrize("exif", BAD_EXIF)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_means_upright_and_nobody_is_warned(
    kind: str, exif: bytes, recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]
) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    image = photos.picture(6)
    plain, damaged = photos.encoded(image, kind, **options), photos.encoded(image, kind, exif=exif, **options)
    np.testing.assert_array_equal(prepare(plain, SMALL), prepare(damaged, SMALL))
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


def test_warnings_stay_silent_in_threads_and_when_they_are_errors() -> None:
    script = (
        "import photos.test_decoding as t\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "data = [t.photos.encoded(t.photos.picture(6), 'JPEG', exif=e) for e in t.BAD_EXIF] * 20\n"
        "with ThreadPoolExecutor(2) as pool:\n"
        "    results = list(pool.map(lambda d: t.prepare(d, t.SMALL).tobytes(), data))\n"
        "assert len(set(results)) == 1\n"
    )
    path = [str(p) for p in sys.path if p]
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys; sys.path[:0] = {path!r}\n{script}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


# --- geometry


def thirds() -> bytes:
    """300 x 100: red, green, blue."""
    image = Image.new("RGB", (300, 100), (0, 255, 0))
    image.paste((255, 0, 0), (0, 0, 100, 100))
    image.paste((0, 0, 255), (200, 0, 300, 100))
    return photos.encoded(image, "PNG")


def test_squash_keeps_the_whole_photo_and_crop_its_centre() -> None:
    squashed = prepare(thirds(), Transform(30))
    assert squashed[15, 2].tolist() == [255, 0, 0]
    assert squashed[15, 15].tolist() == [0, 255, 0]
    assert squashed[15, 27].tolist() == [0, 0, 255]
    assert (prepare(thirds(), Transform(30, "crop")) == [0, 255, 0]).all()


def test_crop_is_resize_to_256_and_cut_224() -> None:
    image = photos.picture(8, 512, 384)
    scaled = image.resize((341, 256), Image.Resampling.BILINEAR).crop((58, 16, 58 + 224, 16 + 224))
    pixels = prepare(photos.encoded(image, "PNG"), Transform(224, "crop"))
    assert abs(pixels.astype(int) - np.asarray(scaled)).mean() < 2


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_a_large_jpeg_decoded_smaller_looks_the_same(resize: str) -> None:
    image = photos.picture(9, 2400, 1600)
    transform = Transform(64, resize)  # type: ignore[arg-type]
    large = photos.encoded(image, "JPEG", quality=95)
    whole = photos.encoded(Image.open(io.BytesIO(large)), "PNG", compress_level=1)
    for view in (None, View(0, 1)):
        if view:  # another file has other views: only the clean one can be compared
            assert prepare(large, transform, view).shape == (64, 64, 3)
            continue
        assert abs(prepare(large, transform).astype(int) - prepare(whole, transform)).max() <= 6


def test_thumbnails_keep_the_shape_and_never_grow() -> None:
    assert thumbnail(photos.photo(0, "JPEG", 900, 600), 90).size == (90, 60)
    assert thumbnail(photos.photo(0, "PNG", 60, 90), 30).size == (20, 30)
    small = thumbnail(photos.photo(0, "GIF", 60, 40), 500)
    assert (small.size, small.mode) == ((60, 40), "RGB")


# --- views


def test_view_0_is_the_clean_photo() -> None:
    data = photos.photo(1)
    np.testing.assert_array_equal(prepare(data, SMALL), prepare(data, SMALL, View(7, 0)))


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_views_depend_on_seed_index_and_bytes_alone(resize: str) -> None:
    transform = Transform(16, resize)  # type: ignore[arg-type]
    data = photos.photo(1)
    keys = [(seed, index) for seed in (0, 1, -5) for index in (1, 2, 3)]
    with ThreadPoolExecutor(2) as pool:
        first = list(pool.map(lambda key: prepare(data, transform, View(*key)).tobytes(), keys))
        again = list(pool.map(lambda key: prepare(data, transform, View(*key)).tobytes(), reversed(keys)))
    assert first == again[::-1]
    assert len(set(first)) == len(keys)
    # The same pixels in other bytes: another window
    assert prepare(data + b"\0", transform, View(0, 1)).tobytes() != first[0]


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_views_show_half_to_all_of_the_photo_in_a_like_shape(resize: str) -> None:
    """A photo of 48 x 32 squares: how many stand in a row and in a column of a view is the window's size."""
    board = np.kron(np.indices((32, 48)).sum(0) % 2 * 255, np.ones((12, 12))).astype(np.uint8)
    data = photos.encoded(Image.fromarray(board), "PNG")
    transform = Transform(512, resize)  # type: ignore[arg-type]
    areas, shapes, flips, light = [], [], 0, []
    for index in range(1, 61):
        view = prepare(data, transform, View(3, index)).astype(int).mean(2)
        dark = view > (view.min() + view.max()) / 2
        across, down = (int(np.median(np.abs(np.diff(dark.astype(int), axis=axis)).sum(axis))) for axis in (1, 0))
        areas.append((across + 0.5) * (down + 0.5) / (48 * 32))
        shapes.append(across / down)
        light.append(view.max())
    assert 0.45 <= min(areas) < 0.6
    assert (0.85 if resize == "squash" else 0.7) < max(areas) <= 1.01
    square = 1.5 if resize == "squash" else 1.0
    assert square * 0.7 <= min(shapes) < max(shapes) <= square * 1.43
    assert max(shapes) / min(shapes) > 1.3
    assert len(set(light)) > 1
    # Flips, on a photo that is dark on the left
    ramp = photos.encoded(Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (64, 1))), "PNG")
    for index in range(1, 61):
        view = prepare(ramp, SMALL, View(3, index)).astype(int)
        flips += bool(view[:, 0].mean() > view[:, -1].mean())
    assert 18 <= flips <= 42


# --- broken


def test_without_their_decoders_heic_and_avif_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setitem(sys.modules, "pillow_heif.as_plugin", None)
    monkeypatch.setattr("PIL.features.check", lambda _: False)
    with pytest.raises(PhotoError) as caught:
        prepare(GOOD["HEIC"], SMALL)
    assert str(caught.value) == "HEIC: this needs pillow-heif, which is not installed: pip install 'frostline[heic]'"
    with pytest.raises(PhotoError, match="pip install --upgrade pillow"):
        prepare(GOOD["AVIF"], SMALL)


def test_heic_and_avif_stand_upright_by_their_own_turns() -> None:
    wide = photos.picture(3, 48, 32)
    exif = Image.Exif()
    exif[0x0112] = 6
    wanted = np.asarray(wide.transpose(Image.Transpose.ROTATE_270).resize((16, 16), Image.Resampling.BILINEAR)).astype(
        int
    )
    for data in (photos.heic(wide, exif=exif.tobytes()), photos.encoded(wide, "AVIF", quality=95, exif=exif.tobytes())):
        assert abs(prepare(data, SMALL) - wanted).mean() < 5
        assert thumbnail(data, 48).size == (32, 48)


@pytest.mark.parametrize("kind", photos.BROKEN)
def test_broken_photos_are_refused_with_the_reason(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    data, reason = photos.BROKEN[kind]
    for use in (lambda: prepare(data, SMALL), lambda: thumbnail(data, 20), lambda: prepare(data, SMALL, View(0, 1))):
        with pytest.raises(PhotoError) as caught:
            use()
        text = str(caught.value)
        assert reason in text
        assert text == " ".join(text.split())  # one line
        assert 0 < len(text) <= 130
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("tenths", range(1, 10))
def test_truncated_photos_are_found_out(kind: str, tenths: int, capfd: pytest.CaptureFixture[str]) -> None:
    data = GOOD[kind]
    with pytest.raises(PhotoError):
        prepare(data[: len(data) * tenths // 10], SMALL)
    assert capfd.readouterr() == ("", "")
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@settings(deadline=None, max_examples=150)
@given(kind=st.sampled_from(sorted(GOOD)), place=st.floats(0, 1), filler=st.sampled_from([b"", bytes(3000)]))
def test_a_photo_cut_anywhere_is_refused_or_whole(kind: str, place: float, filler: bytes) -> None:
    data = GOOD[kind]
    try:
        pixels = prepare(data[: int(len(data) * place)] + filler, SMALL)
    except PhotoError:
        return
    if filler and kind not in ("JPEG", "progressive", "PNG", "palette"):
        return  # nothing marks the end of raw pixels (zeros are black), nor of so small a WebP or GIF
    np.testing.assert_array_equal(pixels, prepare(data, SMALL))


@settings(deadline=None, max_examples=300)
@given(
    kind=st.sampled_from(sorted(GOOD)),
    changes=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=8),
    in_header=st.booleans(),
)
def test_whatever_the_bytes_there_is_a_photo_or_a_reason(
    kind: str, changes: list[tuple[int, int]], in_header: bool
) -> None:
    data = bytearray(GOOD[kind])
    for place, value in changes:
        data[place % (min(len(data), 200) if in_header else len(data))] = value
    for use in (lambda: prepare(bytes(data), SMALL, View(0, 1)), lambda: thumbnail(bytes(data), 9)):
        try:
            use()
        except PhotoError as error:
            assert str(error)


@settings(deadline=None, max_examples=150)
@given(start=st.sampled_from([data[:n] for data in GOOD.values() for n in (4, 16, 40)]), rest=st.binary(max_size=300))
def test_a_good_start_and_any_rest(start: bytes, rest: bytes) -> None:
    try:
        prepare(start + rest, SMALL)
    except PhotoError as error:
        assert str(error)


def test_the_limit_on_pixels_is_ours_and_not_pillows(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """Pillow warns from a limit on and raises from twice the limit on: neither may reach anyone below our limit."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)  # the photos have 2400
    for kind in photos.FORMATS:
        prepare(GOOD[kind], SMALL, View(0, 1))
    monkeypatch.setattr("frostline.photos.decoding.MAX_PIXELS", 2399)
    for kind in photos.FORMATS:
        with pytest.raises(PhotoError, match="too many pixels: 60x40"):
            prepare(GOOD[kind], SMALL)
    assert not recwarn.list


def test_files_over_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_BYTES == 512 * 1024**2
    monkeypatch.setattr("frostline.photos.decoding.MAX_BYTES", 100)
    with pytest.raises(PhotoError, match="too large"):
        prepare(GOOD["PNG"], SMALL)


def test_decoding_in_threads_gives_the_same_pixels() -> None:
    data = [photos.photo(seed, kind) for seed in range(4) for kind in photos.FORMATS]
    broken = [data for data, _ in photos.BROKEN.values()]
    alone = [prepare(d, SMALL, View(1, 2)).tobytes() for d in data]
    barrier = threading.Barrier(2)

    def work(_: int) -> list[bytes]:
        barrier.wait(30)
        for bad in broken:
            with pytest.raises(PhotoError):
                prepare(bad, SMALL)
        return [prepare(d, SMALL, View(1, 2)).tobytes() for d in data]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, range(2))) == [alone, alone]


# --- the transform


def test_transform_goes_through_json_and_back() -> None:
    transform = Transform(192, "crop", (0.5, 0.4, 0.3), (0.1, 0.2, 0.3), "bicubic", 0.9)
    value = transform.to_dict()
    assert value == {
        "size": 192,
        "resize": "crop",
        "mean": [0.5, 0.4, 0.3],
        "std": [0.1, 0.2, 0.3],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
    }
    assert Transform.from_dict(value) == transform
    assert Transform.from_dict(Transform().to_dict()) == Transform()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"size": 0}, "image size 0"),
        ({"size": 2.5}, "image size 2.5"),
        ({"resize": "stretch"}, "resize 'stretch': must be one of squash, crop"),
        ({"mean": [0.5]}, "mean"),
        ({"mean": 3}, "mean and std"),
        ({"std": [0.1, 0.2, 0]}, "above 0"),
        ({"std": [0.1, 0.2, "x"]}, "three numbers"),
        ({"interpolation": "lanczos"}, "interpolation 'lanczos': must be one of bilinear, bicubic"),
        ({"crop_pct": 1.5}, "crop_pct 1.5: must be above 0 and at most 1"),
        ({"extra": 1}, "expected mean, resize, size, std"),
    ],
)
def test_wrong_transforms_are_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Transform.from_dict(Transform().to_dict() | change)


# --- real photos


@photos.needs_flowers
def test_real_photos_decode_at_any_size() -> None:
    paths = sorted(photos.FLOWERS.glob("*/*"))[::70]
    assert len(paths) > 40
    for path in paths:
        data = path.read_bytes()
        clean = prepare(data, Transform())
        assert clean.shape == (224, 224, 3)
        assert clean.std() > 5
        assert max(thumbnail(data, 96).size) == 96
        wanted = Image.open(io.BytesIO(data)).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
        assert abs(clean.astype(int) - np.asarray(wanted)).mean() < 1.5
