"""The built-in sample: flowers rendered by code, for a first try without photos of one's own, and for tests.

Every picture is rendered by code: petals are curved sheets in space, cut into quads, turned to a viewpoint, lit, and
painted from back to front over a drawn background. Five classes whose shape tells them apart; colours, places, light,
blur, scale, neighbours and leaves in front are shared between them (some likelier than others), so that colour alone
does not carry a network far. About two in a hundred are nearly unreadable, as in any real folder. Figures measured on
it say nothing about real photos.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import cos, pi, sin
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from frostline import documents
from frostline.cache.folder import SAMPLE_MARKER
from frostline.errors import ConfigError, RunError, nearest
from frostline.files import disk_errors, replacing, write_json, write_text

CLASSES = ("daisy", "dandelion", "rose", "sunflower", "tulip")
SIZES = ((320, 240), (240, 320), (300, 300), (320, 214), (214, 320), (270, 270))
MARKER = SAMPLE_MARKER
RECIPE = 1  # raise it when the same (label, index, seed) would no longer give the same picture
QUALITY = 88
OVER = 2  # pixels of the canvas per pixel of the photo: edges are smoothed by averaging

README = """# Rendered by code: not real photographs

frostline drew these pictures of five kinds of flowers itself, so that it can be tried without any photos. They show how
a study runs and what its report looks like. **No accuracy measured on them says anything about real photos**; don't
cite it as if it did.

Seed {seed}, {per_class} pictures in each of {classes}; the same seed gives the same pictures.
"""

Array = NDArray[np.float64]
Rng = np.random.Generator
Colour = tuple[int, int, int]

PALETTE: dict[str, tuple[Colour, Colour]] = {  # colour name: at the tip, at the base
    "white": ((244, 242, 236), (222, 226, 200)),
    "cream": ((246, 232, 178), (236, 214, 120)),
    "yellow": ((250, 208, 36), (236, 160, 16)),
    "orange": ((244, 146, 40), (216, 84, 16)),
    "pink": ((240, 150, 182), (206, 84, 130)),
    "red": ((204, 32, 44), (132, 12, 26)),
    "purple": ((164, 84, 176), (96, 38, 120)),
}
# Every colour stands in several classes: colour alone must not tell them apart.
COLOURS: dict[str, dict[str, float]] = {
    "daisy": {"white": 0.6, "pink": 0.16, "yellow": 0.08, "purple": 0.06, "orange": 0.04, "red": 0.03, "cream": 0.03},
    "dandelion": {"yellow": 0.76, "orange": 0.1, "cream": 0.08, "white": 0.04, "pink": 0.02},
    "rose": {"red": 0.36, "pink": 0.34, "white": 0.1, "yellow": 0.07, "orange": 0.05, "cream": 0.04, "purple": 0.04},
    "sunflower": {"yellow": 0.44, "orange": 0.38, "cream": 0.07, "red": 0.07, "white": 0.02, "pink": 0.02},
    "tulip": {"purple": 0.24, "red": 0.22, "yellow": 0.17, "orange": 0.14, "pink": 0.12, "white": 0.07, "cream": 0.04},
}
# Where each class mostly grows, in the order of GROUNDS: a weak hint, as in real photos; every class stands everywhere.
PLACES: dict[str, tuple[float, ...]] = {
    "daisy": (0.3, 0.08, 0.14, 0.08, 0.2, 0.2),
    "dandelion": (0.44, 0.16, 0.08, 0.04, 0.16, 0.12),
    "rose": (0.06, 0.06, 0.08, 0.22, 0.24, 0.34),
    "sunflower": (0.1, 0.06, 0.46, 0.1, 0.12, 0.16),
    "tulip": (0.14, 0.28, 0.08, 0.2, 0.2, 0.1),
}
GREENS: tuple[Colour, ...] = ((58, 98, 40), (84, 124, 50), (44, 84, 52), (108, 136, 64), (72, 104, 72), (36, 66, 34))


# --- folder -----------------------------------------------------------------------------------------------------------


def render(
    folder: Path,
    *,
    per_class: int = 120,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
) -> Path:
    """Fill `folder` with one folder of JPEG photos per class and a README that says they are rendered; return `folder`.

    Each photo depends on (seed, class, index) alone, so a larger `per_class` keeps the photos of a smaller one. A
    complete folder with the same parameters is left as it is; an interrupted one is completed. `on_step(done, total)`
    is called after each photo. Costs about 20 ms a photo on one core.

    Raises
    ------
    ConfigError
        `per_class` is below 1 or `seed` below 0.
    RunError
        The folder holds something else, or can't be written.
    """
    if per_class < 1:
        raise ConfigError(f"per_class is {per_class}, expected at least 1 photo in each class")
    if seed < 0:
        raise ConfigError(f"seed is {seed}, expected 0 or more")
    wanted = {"recipe": RECIPE, "seed": seed, "per_class": per_class, "classes": list(CLASSES)}
    found = _marker(folder)
    if found == {**wanted, "complete": True} and not _missing(folder, per_class):
        return folder
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if any(found.get(key) != wanted[key] for key in ("recipe", "seed")):
        _clear(folder, keep=0)
    write_json(folder / MARKER, {**wanted, "complete": False})
    write_text(folder / "README.md", README.format(seed=seed, per_class=per_class, classes=", ".join(CLASSES)))
    _clear(folder, keep=per_class)
    missing = _missing(folder, per_class)
    total = per_class * len(CLASSES)
    for done, (label, index) in enumerate(missing, start=total - len(missing) + 1):
        picture = photo(label, index, seed)
        with replacing(_path(folder, label, index)) as temporary:
            picture.save(temporary, "JPEG", quality=QUALITY)
        if on_step is not None:
            on_step(done, total)
    write_json(folder / MARKER, {**wanted, "complete": True})
    return folder


def _path(folder: Path, label: str, index: int) -> Path:
    return folder / label / f"{label}-{index:04d}.jpg"


def _missing(folder: Path, per_class: int) -> list[tuple[str, int]]:
    """Photos still to be drawn, class after class within each index, so that a partial folder is balanced too."""
    return [(label, i) for i in range(per_class) for label in CLASSES if not _path(folder, label, i).is_file()]


def _marker(folder: Path) -> dict[str, object]:
    """The marker file in `folder`; {} when the folder is new or empty. Raises RunError when it holds something else."""
    if not folder.exists():
        return {}
    if not folder.is_dir():
        raise RunError(f"{folder} is a file, expected a folder for the sample: choose another place")
    with suppress(OSError, RunError):
        found = documents.read_object(folder / MARKER)
        if {"recipe", "seed", "per_class"} <= found.keys():
            return found
    with disk_errors(folder):
        others = [item.name for item in folder.iterdir() if not item.name.startswith(MARKER) and not _temporary(item)]
    if others:
        raise RunError(f"{folder} holds {others[0]!r}, which is not frostline's sample: choose an empty or new folder")
    return {}


def _temporary(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".tmp")


def _clear(folder: Path, keep: int) -> None:
    """Remove the sample's own photos from number `keep` on, and what a killed run left half written; nothing else."""
    for label in CLASSES:
        for path in (folder / label).glob("*"):
            number = re.fullmatch(rf"{label}-(\d{{4,}})\.jpg", path.name)
            if (number and int(number[1]) >= keep) or (_temporary(path) and label in path.name):
                with disk_errors(path):
                    path.unlink(missing_ok=True)


# --- photo ------------------------------------------------------------------------------------------------------------


def photo(label: str, index: int, seed: int) -> Image.Image:
    """The RGB picture number `index` of class `label`, fully determined by the three arguments.

    Raises
    ------
    ConfigError
        `label` is none of `CLASSES`, or a number is below 0.
    """
    if label not in CLASSES:
        raise ConfigError(f"no sample class {label!r}{nearest(label, CLASSES)}")
    if index < 0 or seed < 0:
        raise ConfigError(f"index {index} and seed {seed} of a sample photo must be 0 or more")
    rng = np.random.default_rng([seed, CLASSES.index(label), index])
    width, height = SIZES[rng.integers(len(SIZES))]
    unreadable = rng.random() < 0.02
    light = _light(rng)
    canvas = _background(rng, width, height, PLACES[label], light)
    canvas = canvas.resize((width * OVER, height * OVER), Image.Resampling.BILINEAR)
    _flowers(rng, canvas, label, light)
    if rng.random() < 0.33:
        _leaves_in_front(rng, canvas, light)
    picture = canvas.reduce(OVER)
    if rng.random() < 0.3:
        picture = _blurred_in_front(rng, picture, light)
    return _camera(rng, picture, unreadable)


@dataclass(frozen=True)
class _Light:
    """The light: a unit vector towards it (right, up, viewer), and how much of it falls on flower and ground."""

    direction: Array
    ambient: float
    diffuse: float
    ground: float

    def on(self, colour: Colour | Array) -> Array:
        """The colour of a thing on the ground under this light."""
        return np.asarray(colour, dtype=np.float64) * self.ground


def _light(rng: Rng) -> _Light:
    kind = rng.choice(["soft", "sun", "backlit", "dark"], p=[0.45, 0.35, 0.12, 0.08])
    direction = np.array([rng.normal(0, 0.7), rng.uniform(0.1, 1.0), rng.uniform(0.25, 1.0)])
    direction /= np.linalg.norm(direction)
    ambient, diffuse, ground = {
        "soft": (0.66, 0.42, 0.85),
        "sun": (0.40, 0.80, 0.95),
        "backlit": (0.40, 0.24, 1.15),
        "dark": (0.30, 0.40, 0.36),
    }[str(kind)]
    return _Light(direction, ambient, diffuse * rng.uniform(0.85, 1.1), ground * rng.uniform(0.75, 1.1))


def _flowers(rng: Rng, canvas: Image.Image, label: str, light: _Light) -> None:
    """Draw the photo's subject: one flower, or a few of the same kind and mostly one colour, the largest last."""
    width, height = canvas.size
    count = int(rng.choice([1, 2, 3, 4], p=[0.72, 0.16, 0.08, 0.04]))
    share = 0.98 - 0.7 * rng.beta(0.9, 2.9) if count == 1 else rng.uniform(0.3, 0.6)  # of the shorter side
    radius = share * min(width, height) / 2
    colour = _pick(rng, COLOURS[label])
    places: list[tuple[float, float]] = []
    for number in range(count):
        free = 0.7 - 0.55 * share  # large flowers stand near the middle, or they would be cut too much
        x, y = (0.5 + free * rng.uniform(-0.5, 0.5)) * width, (0.48 + free * rng.uniform(-0.5, 0.42)) * height
        for _ in range(6):
            if all((x - a) ** 2 + (y - b) ** 2 > (1.5 * radius) ** 2 for a, b in places):
                break
            x, y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.85) * height
        places.append((x, y))
        size = radius * (1.0 if number == count - 1 else rng.uniform(0.55, 0.95))
        own = colour if rng.random() < 0.85 else _pick(rng, COLOURS[label])
        _flower(rng, canvas, label, own, (x, y), size, light)


def _pick(rng: Rng, weights: dict[str, float]) -> str:
    return str(rng.choice(list(weights), p=list(weights.values())))


# --- flower -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Mesh:
    """Quads in space: corners (n, 4, 3), right-handed with z along the flower's axis; colours (n, 3) in 0..255."""

    corners: Array
    colours: Array


def _join(meshes: list[_Mesh]) -> _Mesh:
    return _Mesh(np.concatenate([m.corners for m in meshes]), np.concatenate([m.colours for m in meshes]))


def _flower(
    rng: Rng, canvas: Image.Image, label: str, colour: str, place: tuple[float, float], radius: float, light: _Light
) -> None:
    """Draw one flower with its stem: `place` is the centre of its head and `radius` its size, both in canvas pixels."""
    tilt = rng.beta(1.3, 2.0) * 1.65 if label != "tulip" else 1.75 - rng.beta(1.5, 2.2) * 1.6
    roll = rng.normal(0, 0.35)
    fine = 0 if radius < 40 else 1 if radius < 100 else 2
    mesh = BUILDERS[label](rng, _petal_colours(rng, colour), fine)
    turn = _rotation(rng.uniform(0, 2 * pi), tilt, roll)
    axis = turn @ np.array([0.0, 0.0, 1.0])
    _stem(rng, canvas, place, axis, radius, label, light)
    _paint(canvas, mesh, turn, place, radius, light)


def _petal_colours(rng: Rng, name: str) -> tuple[Array, Array]:
    tip, base = (np.array(c, dtype=np.float64) for c in PALETTE[name])
    cast = rng.normal(1.0, 0.05, 3) * rng.uniform(0.88, 1.06)
    if rng.random() < 0.12:  # two-coloured petals: edged, or with a bright throat
        other = np.array(PALETTE[str(rng.choice(list(PALETTE)))][0], dtype=np.float64)
        base = 0.35 * base + 0.65 * other
    return tip * cast, base * cast


def _rotation(spin: float, tilt: float, roll: float) -> Array:
    """Turn about the flower's axis, tip that axis from the viewer (0) to the image's top (pi / 2), roll the image."""
    a = np.array([[cos(spin), -sin(spin), 0], [sin(spin), cos(spin), 0], [0, 0, 1]])
    b = np.array([[1, 0, 0], [0, cos(tilt), sin(tilt)], [0, -sin(tilt), cos(tilt)]])
    c = np.array([[cos(roll), -sin(roll), 0], [sin(roll), cos(roll), 0], [0, 0, 1]])
    return np.asarray(c @ b @ a, dtype=np.float64)


def _paint(
    canvas: Image.Image, mesh: _Mesh, turn: Array, place: tuple[float, float], radius: float, light: _Light
) -> None:
    """Turn, light and draw a mesh, far quads first (painter's order). About 7 microseconds a quad."""
    seen = mesh.corners @ turn.T  # (n, 4, 3): right, up, towards the viewer
    normal = np.cross(seen[:, 2] - seen[:, 0], seen[:, 3] - seen[:, 1])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    normal *= np.where(normal[:, 2:] < 0, -1.0, 1.0)  # a petal has two sides
    shade = light.ambient + light.diffuse * np.clip(normal @ light.direction, 0, None)
    colours = np.clip(mesh.colours * shade[:, None], 0, 255).astype(np.int64)
    depth = seen[:, :, 2].mean(axis=1)
    grow = radius * (1 + 0.12 * seen[:, :, 2])  # a little perspective
    flat = np.stack([place[0] + grow * seen[:, :, 0], place[1] - grow * seen[:, :, 1]], axis=-1).reshape(-1, 8)
    order = np.argsort(depth, kind="stable")
    inks = colours[:, 0] | colours[:, 1] << 8 | colours[:, 2] << 16
    draw = ImageDraw.Draw(canvas)
    for points, ink in zip(flat[order].tolist(), inks[order].tolist(), strict=True):
        draw.polygon(points, fill=ink)


def _stem(
    rng: Rng, canvas: Image.Image, place: tuple[float, float], axis: Array, radius: float, label: str, light: _Light
) -> None:
    """A bent stem from the head to the lower edge, sometimes with leaves of its own."""
    low = 0.6 if label == "tulip" else 0.1  # the stem begins under the head
    x, y = place[0] - low * radius * axis[0], place[1] + low * radius * axis[1]
    thick = max(2.0, radius * rng.uniform(0.06, 0.12))
    green = light.on(GREENS[rng.integers(len(GREENS))]) * rng.uniform(0.8, 1.15)
    height = canvas.height
    mid = (x - axis[0] * radius * 1.3, y + abs(axis[1]) * radius * 1.3 + 0.25 * (height - y))
    end = (mid[0] + rng.normal(0, 0.25) * radius, height + 20.0)
    t = np.linspace(0, 1, 12)[:, None]
    curve = (1 - t) ** 2 * np.array([[x, y]]) + 2 * t * (1 - t) * np.array([mid]) + t**2 * np.array([end])
    draw = ImageDraw.Draw(canvas)
    draw.line(curve.ravel().tolist(), fill=_ink(green * 0.8), width=int(thick), joint="curve")
    draw.line((curve - [thick * 0.2, 0]).ravel().tolist(), fill=_ink(green), width=max(1, int(thick * 0.5)))
    for _ in range(int(rng.integers(0, 3))):
        at = curve[rng.integers(3, 11)]
        broad = rng.uniform(0.12, 0.3) if label != "tulip" else rng.uniform(0.08, 0.2)
        _leaf(rng, draw, (at[0], at[1]), radius * rng.uniform(0.6, 1.7), broad, rng.normal(pi / 2, 0.9), green)


def _whorl(
    rng: Rng,
    angles: Array,
    colours: tuple[Array, Array],
    *,
    length: float | Array,
    base: float | Array = 0.0,
    height: float | Array = 0.0,
    slope: tuple[float | Array, float | Array] = (0.1, 0.0),
    half: float | Array = 0.15,
    shape: tuple[float, float] = (0.5, 0.7),
    tip: float = 0.2,
    cup: float = 0.0,
    wrap: bool = False,
    grid: tuple[int, int] = (5, 2),
    wild: float = 0.1,
    deep: float = 0.72,
) -> _Mesh:
    """One petal for each of `angles`: a sheet that leaves the axis at radius `base`, at the angles `slope` (start,
    end).

    `half` is the half width, a length, or an angle about the axis when `wrap`; `shape` = (fullness at the base, at the
    tip) of its outline, smaller is fuller; `tip` > 0 rounds or points the end; `cup` lifts the edges; `wild` is how
    much petals differ; `deep` is the light that reaches their base. What may differ from petal to petal can be an array
    (n, 1, 1). Returns grid[0] * grid[1] quads for each petal.
    """
    n, (steps, lanes) = len(angles), grid
    vary = 1 + wild * rng.normal(0, 1, (3, n, 1, 1)).clip(-2, 2)
    t = (1 - (1 - np.linspace(0, 1, steps + 1)) ** 1.4)[None, :, None]  # finer towards the tip, whose outline is seen
    v = np.linspace(-1, 1, lanes + 1)[None, None, :]
    along = t * (1 - tip * np.abs(v) ** 1.6)
    start = slope[0] + wild * rng.normal(0, 0.8, (n, 1, 1))
    bend = slope[1] - slope[0] + wild * rng.normal(0, 1.2, (n, 1, 1))
    bend = np.where(np.abs(bend) < 1e-3, 1e-3, bend)
    reach = length * vary[0]
    out = base + reach * (np.sin(start + bend * along) - np.sin(start)) / bend
    up = height - reach * (np.cos(start + bend * along) - np.cos(start)) / bend
    outline = (t + 0.03) ** shape[0] * (1.03 - t) ** shape[1]
    outline = outline / outline.max()
    up = up + rng.uniform(-0.02, 0.02, (n, 1, 1))  # settles which of two overlapping petals lies above
    turn = angles[:, None, None] + wild * rng.normal(0, 0.3, (n, 1, 1))
    across = v * half * vary[1] * outline
    up = up + cup * v**2 * half * outline * (1 if not wrap else 0)
    if wrap:
        x, y = out * np.cos(turn + across), out * np.sin(turn + across)
    else:
        x, y = out * np.cos(turn) - across * np.sin(turn), out * np.sin(turn) + across * np.cos(turn)
    points = np.stack([x, y, np.broadcast_to(up, x.shape)], axis=-1)
    return _Mesh(_quads(points), _tints(vary, colours, steps, lanes, deep))


def _quads(points: Array) -> Array:
    """Corners (n * rows * columns, 4, 3) of the quads between grid points (n, rows + 1, columns + 1, 3)."""
    corners = [points[:, :-1, :-1], points[:, :-1, 1:], points[:, 1:, 1:], points[:, 1:, :-1]]
    return np.stack(corners, axis=3).reshape(-1, 4, 3)


def _tints(vary: Array, colours: tuple[Array, Array], steps: int, lanes: int, deep: float) -> Array:
    """Colours of n petals' quads, from base to tip, petals differing a little, with a vein along the middle."""
    n = vary.shape[1]
    t = ((np.arange(steps) + 0.5) / steps)[None, :, None, None]
    v = ((np.arange(lanes) + 0.5) / lanes * 2 - 1)[None, None, :, None]
    mixed = colours[1] + (colours[0] - colours[1]) * t**0.6
    depth = deep + (1 - deep) * np.minimum(1, t * 1.5)  # less light reaches the base
    tints = mixed * depth * (1 + 0.04 * np.sign(v)) * vary[2].clip(0.75, 1.2)[..., None] ** 0.6
    return np.broadcast_to(tints, (n, steps, lanes, 3)).reshape(-1, 3)


def _ring(rng: Rng, count: int, jitter: float = 0.25) -> Array:
    step = 2 * pi / count
    return (np.arange(count) + rng.uniform(0, 1) + rng.normal(0, jitter, count)) * step


def _disc(rng: Rng, radius: float, dome: float, rings: list[Colour], count: int, height: float = 0.03) -> _Mesh:
    """A flower's centre: florets in a spiral of the golden angle on a dome; `rings` are colours from the middle out."""
    k = (np.arange(count) + 0.5) / count
    r, angle = radius * np.sqrt(k), np.arange(count) * 2.399963
    z = height + dome * radius * (1 - k)
    centre = np.stack([r * np.cos(angle), r * np.sin(angle), z], axis=-1)
    size = radius * 1.9 / np.sqrt(count)
    out = np.stack([np.cos(angle), np.sin(angle), -dome * np.sqrt(k)], axis=-1) * size
    side = np.stack([-np.sin(angle), np.cos(angle), 0 * angle], axis=-1) * size
    florets = np.stack([centre + out, centre + side, centre - out, centre - side], axis=1)
    at = np.linspace(0, 1, len(rings))
    colours = np.stack([np.interp(np.sqrt(k), at, [c[i] for c in rings]) for i in range(3)], axis=-1)
    colours *= rng.uniform(0.72, 1.12, (count, 1))
    return _Mesh(florets, colours)


def _sepals(rng: Rng, count: int, length: float, slope: float, height: float, half: float = 0.13) -> _Mesh:
    green = np.array(GREENS[rng.integers(4)], dtype=np.float64)
    return _whorl(
        rng,
        _ring(rng, count),
        (green * 1.1, green * 0.8),
        length=length,
        slope=(slope, slope + 0.4),
        height=height,
        half=half,
        shape=(0.3, 1.0),
        grid=(3, 2),
        wild=0.15,
    )


def _daisy(rng: Rng, colours: tuple[Array, Array], fine: int) -> _Mesh:
    """One to three rings of narrow, mostly blunt petals about a small dome."""
    centre = rng.uniform(0.16, 0.4)
    rise = rng.normal(0.08, 0.3)
    count = int(rng.integers(11, 26))
    blunt = rng.uniform(0.1, 0.4) if rng.random() < 0.72 else rng.uniform(0.5, 1.0)
    shape, half = (0.35, blunt), rng.uniform(1.5, 2.5) / count
    layers = int(rng.choice([1, 2, 3], p=[0.5, 0.34, 0.16]))
    parts = [_sepals(rng, 8, centre * 1.5, 0.2, -0.12)]
    parts.extend(
        _whorl(
            rng,
            _ring(rng, count),
            colours,
            length=(1 - centre * 0.7) * (1 - 0.2 * layer),
            base=centre * 0.7,
            height=0.03 * layer,
            slope=(rise + 0.2 * layer, rise - rng.uniform(-0.2, 0.6)),
            half=half,
            shape=shape,
            tip=0.08,
            cup=rng.uniform(-0.3, 0.5),
            grid=(3 + 2 * fine, 2),
            wild=rng.uniform(0.04, 0.11),
        )
        for layer in range(layers)
    )
    middle: list[list[Colour]] = [
        [(232, 182, 40), (226, 160, 20), (170, 110, 16)],
        [(190, 190, 60), (236, 190, 36), (200, 130, 20)],
        [(96, 62, 30), (120, 70, 24), (190, 130, 36)],
    ]
    rings = middle[rng.choice(3, p=[0.6, 0.22, 0.18])]
    parts.append(_disc(rng, centre, rng.uniform(0.25, 0.7), rings, 90 if fine else 40))
    return _join(parts)


def _sunflower(rng: Rng, colours: tuple[Array, Array], fine: int) -> _Mesh:
    """One to three rings of mostly pointed petals about a wide seed disc."""
    centre = rng.uniform(0.25, 0.54)
    rise = rng.normal(0.12, 0.25)
    count = int(rng.integers(13, 27))
    parts = [_sepals(rng, 13, centre + 0.3, 0.0, -0.1)]
    layers = int(rng.choice([1, 2, 3], p=[0.2, 0.5, 0.3]))
    parts.extend(
        _whorl(
            rng,
            _ring(rng, count),
            colours,
            length=(1 - centre * 0.8) * (1 - 0.13 * layer),
            base=centre * 0.8,
            height=0.03 * layer,
            slope=(rise + 0.18 * layer, rise - rng.uniform(-0.4, 0.5)),
            half=rng.uniform(1.9, 2.8) / count,
            shape=(0.4, rng.uniform(0.45, 1.1)),
            tip=0.1,
            cup=rng.uniform(0, 0.6),
            grid=(3 + 2 * fine, 2),
            wild=0.1,
        )
        for layer in range(layers)
    )
    middle: list[list[Colour]] = [
        [(70, 60, 26), (58, 36, 20), (92, 54, 22), (150, 96, 26)],
        [(128, 140, 60), (120, 96, 36), (70, 42, 20), (120, 80, 24)],
        [(170, 168, 70), (208, 160, 40), (190, 120, 24), (150, 92, 20)],
        [(50, 32, 26), (40, 24, 20), (56, 34, 22), (80, 48, 24)],
    ]
    rings = middle[rng.choice(4, p=[0.35, 0.27, 0.18, 0.2])]
    parts.append(_disc(rng, centre, rng.uniform(0.05, 0.35), rings, 210 if fine else 70, height=0.05))
    return _join(parts)


def _dandelion(rng: Rng, colours: tuple[Array, Array], fine: int) -> _Mesh:
    """A cushion of very many straps without a clear centre; a quarter are balls of seeds."""
    if rng.random() < 0.26:
        return _seed_ball(rng, fine)
    parts = [_sepals(rng, 12, 0.55, rng.uniform(-0.6, 0.6), -0.2, half=0.06)]
    full = rng.uniform(0.55, 1.15)
    for layer, (reach, slope) in enumerate(
        ((1.0, 0.0), (0.93, 0.25), (0.8, 0.55), (0.62, 0.85), (0.42, 1.15), (0.25, 1.4))
    ):
        parts.append(
            _whorl(
                rng,
                _ring(rng, int((46 - 6 * layer) * full * (1 if fine else 0.6)), 0.5),
                (colours[0], colours[1] * (0.95 - 0.04 * layer)),
                length=reach,
                slope=(slope + 0.1, slope - 0.35),
                height=-0.08 + 0.02 * layer,
                half=0.05 if fine else 0.075,
                shape=(0.2, 0.15),
                tip=0.03,
                grid=(3, 1),
                wild=0.16,
            )
        )
    return _join(parts)


def _seed_ball(rng: Rng, fine: int) -> _Mesh:
    """Seeds on thin rays, each with a star of hairs; sometimes the wind has taken a part of them."""
    n = int(rng.uniform(90, 150) if fine else 60)
    k = (np.arange(n) + 0.5) / n
    lift, angle = 1 - 1.85 * k, np.arange(n) * 2.399963 + rng.normal(0, 0.08, n)
    ring = np.sqrt(1 - lift**2)
    out = np.stack([ring * np.cos(angle), ring * np.sin(angle), lift], axis=-1)
    if rng.random() < 0.35:
        out = out[out @ (out[rng.integers(len(out))]) < rng.uniform(0.0, 0.7)]
    side = np.cross(out, np.array([0.31, 0.2, 0.93]))
    side /= np.linalg.norm(side, axis=1, keepdims=True) + 1e-9
    other = np.cross(out, side)
    pale = np.array([236.0, 236, 230]) * rng.uniform(0.85, 1.02)
    parts = [_thin(out * 0.12, out * 0.8, side * 0.007, pale * 0.8)]
    for i in range(6 if fine else 4):
        hair = side * cos(i * pi / 3) + other * sin(i * pi / 3)
        tips = out * 0.93 + hair * rng.uniform(0.13, 0.2, (len(out), 1))
        across = np.cross(hair, out) * (0.011 if fine else 0.02)
        parts.append(_thin(out * 0.78, tips, across, pale))
    parts.append(_disc(rng, 0.16, 0.8, [(96, 84, 52), (70, 56, 36)], 40))
    return _join(parts)


def _thin(start: Array, end: Array, across: Array, colour: Array) -> _Mesh:
    """Straight hairs from start to end (n, 3), `across` wide to each side."""
    corners = np.stack([start - across, start + across, end + across, end - across], axis=1)
    return _Mesh(corners, np.broadcast_to(colour, (len(start), 3)))


def _rose(rng: Rng, colours: tuple[Array, Array], fine: int) -> _Mesh:
    """Broad petals in a spiral about the axis: upright and closing within, opening and curling outwards."""
    opened = rng.uniform(0.05, 1.0)
    n = int(rng.integers(13, 27))
    f = ((np.arange(n) + 0.5) / n)[:, None, None]
    angles = 2.399963 * np.arange(n) + rng.normal(0, 0.12, n)
    petals = _whorl(
        rng,
        angles,
        (colours[0], colours[1] * 0.72),
        length=0.5 + 0.45 * f,
        base=0.02 + 0.24 * f**0.9,
        slope=(1.5 - (0.25 + 0.75 * opened) * f, 1.85 - (0.9 + 1.5 * opened) * f**1.2),
        half=1.5 - 0.75 * f,
        shape=(0.05, 0.12),
        tip=0.16,
        height=0.1 - 0.14 * f,
        wrap=True,
        grid=((4, 4), (6, 5), (8, 7))[fine],
        wild=0.07,
        deep=0.42,
    )
    sepals = _sepals(rng, 5, 0.6, -0.1 + 0.5 * (1 - opened), -0.05, half=0.12)
    return _shrunk(_join([sepals, petals]), 0.95)


def _tulip(rng: Rng, colours: tuple[Array, Array], fine: int) -> _Mesh:
    """A cup of six petals in two whorls, from closed to wide open."""
    opened = rng.beta(1.1, 2.8)
    grid = ((5, 4), (7, 6), (10, 8))[fine]
    start, end = 0.55 - 0.15 * opened, 1.85 - 1.0 * opened
    pointed, shape = rng.uniform(0.2, 0.45), (0.12, rng.uniform(0.3, 0.6))
    angles = _ring(rng, 3, 0.04)
    parts: list[_Mesh] = []
    whorls = (2, 1, 0) if rng.random() < 0.2 else (1, 0)  # some are double
    parts.extend(
        _whorl(
            rng,
            angles + inner * pi / 3,
            (colours[0] * (1 - 0.1 * inner), colours[1]),
            length=1.55 - 0.08 * inner,
            base=0.06,
            slope=(start + 0.12 * inner, end + 0.1 * inner),
            half=rng.uniform(0.85, 1.05),
            shape=shape,
            tip=pointed,
            height=-0.75,
            wrap=True,
            grid=grid,
            wild=0.05,
        )
        for inner in whorls
    )
    dark = np.array([60.0, 50, 30])
    parts.append(
        _whorl(rng, _ring(rng, 6), (dark, dark), length=0.55, slope=(1.2, 1.4), half=0.04, height=-0.7, grid=(2, 1))
    )
    return _shrunk(_join(parts), 0.95)


def _shrunk(mesh: _Mesh, extent: float) -> _Mesh:
    """The mesh scaled so that its farthest corner lies `extent` from the origin, its middle moved there."""
    middle = np.array([0, 0, (mesh.corners[..., 2].max() + mesh.corners[..., 2].min()) / 2])
    corners = mesh.corners - middle
    return _Mesh(corners * (extent / np.linalg.norm(corners, axis=-1).max()), mesh.colours)


BUILDERS: dict[str, Callable[[Rng, tuple[Array, Array], int], _Mesh]] = {
    "daisy": _daisy,
    "dandelion": _dandelion,
    "rose": _rose,
    "sunflower": _sunflower,
    "tulip": _tulip,
}


# --- surroundings -----------------------------------------------------------------------------------------------------


def _ink(colour: Array) -> Colour:
    red, green, blue = np.clip(colour, 0, 255).astype(int).tolist()
    return red, green, blue


def _clouds(rng: Rng, width: int, height: int, cells: int) -> NDArray[np.float32]:
    """Smooth noise (height, width) in about -1..1 with `cells` bumps along the longer side."""
    rows, columns = (max(2, round(cells * side / max(width, height))) for side in (height, width))
    small = Image.fromarray(rng.uniform(-1, 1, (rows, columns)).astype(np.float32))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def _background(rng: Rng, width: int, height: int, places: tuple[float, ...], light: _Light) -> Image.Image:
    """The background: ground, clutter and small flowers of any kind, mostly out of focus (then drawn at half size)."""
    kind = str(rng.choice(list(GROUNDS), p=places))
    sharp = kind != "bokeh" and rng.random() < 0.3
    if not sharp:
        width, height = width // 2, height // 2
    base, spread = GROUNDS[kind]
    start = light.on(base[rng.integers(len(base))])
    end = start * rng.uniform(0.6, 1.3) + rng.normal(0, 10, 3)
    t = np.linspace(0, 1, height)[:, None, None]
    field = start + (end - start) * t + spread * _clouds(rng, width, height, int(rng.integers(4, 9)))[..., None]
    if kind == "soil":
        field = field + 0.7 * spread * _clouds(rng, width, height, 70)[..., None]
    image = Image.fromarray(np.broadcast_to(field, (height, width, 3)).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    CLUTTER[kind](rng, draw, width, height, light)
    if kind != "wall" and rng.random() < 0.35:
        _foliage(rng, draw, width, height, light)
    if rng.random() < 0.3:
        for _ in range(int(rng.integers(1, 4))):  # small neighbours of any kind: a patch of colour proves nothing
            other = CLASSES[rng.integers(len(CLASSES))]
            at = (rng.uniform(0, width), rng.uniform(0.05, 0.95) * height)
            _flower(
                rng, image, other, _pick(rng, COLOURS[other]), at, min(width, height) * rng.uniform(0.03, 0.08), light
            )
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 1.2) if sharp else rng.uniform(0.7, 3.2)))


GROUNDS: dict[str, tuple[list[Colour], float]] = {
    "grass": ([(82, 116, 50), (60, 96, 44), (112, 132, 70)], 14.0),
    "soil": ([(104, 80, 58), (78, 62, 50), (136, 118, 96)], 26.0),
    "sky": ([(130, 172, 220), (176, 192, 206), (222, 200, 180)], 22.0),
    "wall": ([(176, 164, 150), (126, 80, 66), (202, 200, 196), (88, 96, 110), (190, 150, 110)], 9.0),
    "bokeh": ([(50, 66, 40), (74, 84, 60), (40, 46, 44), (110, 116, 84)], 24.0),
    "leaves": ([(46, 70, 38), (36, 56, 36), (70, 92, 50)], 14.0),
}


def _blades(rng: Rng, draw: ImageDraw.ImageDraw, width: int, height: int, light: _Light) -> None:
    for _ in range(int(rng.integers(50, 110))):
        x, y, tall = rng.uniform(0, width), rng.uniform(0.2, 1.15) * height, rng.uniform(0.15, 0.5) * height
        lean = rng.normal(0, 0.35) * tall
        green = light.on(GREENS[rng.integers(len(GREENS))]) * rng.uniform(0.8, 1.5)
        wide = rng.uniform(0.004, 0.012) * height
        points = [
            x - wide,
            y,
            x + lean * 0.4,
            y - tall * 0.6,
            x + lean,
            y - tall,
            x + lean * 0.4 + wide,
            y - tall * 0.6,
        ]
        draw.polygon([*points, x + wide, y], fill=_ink(green))


def _stones(rng: Rng, draw: ImageDraw.ImageDraw, width: int, height: int, light: _Light) -> None:
    for _ in range(int(rng.integers(5, 40))):
        x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.006, 0.035) * height
        tone = light.on((120, 108, 94)) * rng.uniform(0.5, 1.5)
        draw.ellipse((x - r, y - r * 0.7, x + r, y + r * 0.7), fill=_ink(tone * 0.7))
        draw.ellipse((x - r, y - r * 0.7, x + r * 0.7, y + r * 0.4), fill=_ink(tone))


def _skyline(rng: Rng, draw: ImageDraw.ImageDraw, width: int, height: int, light: _Light) -> None:
    if rng.random() < 0.6:
        level = rng.uniform(0.6, 0.95) * height
        xs = np.linspace(0, width, 14)
        ys = level + rng.normal(0, 0.04 * height, 14)
        points = np.stack([xs, ys], axis=-1).ravel().tolist()
        draw.polygon([*points, width, height, 0, height], fill=_ink(light.on((70, 92, 58)) * rng.uniform(0.7, 1.2)))


def _boards(rng: Rng, draw: ImageDraw.ImageDraw, width: int, height: int, light: _Light) -> None:
    if rng.random() < 0.5:
        step, dark = rng.uniform(0.1, 0.35) * height, _ink(light.on((70, 62, 56)))
        slant = rng.normal(0, 6)
        for i in range(int(height / step) + 1):
            y = (i + 0.4) * step
            draw.line((0, y, width, y + slant), fill=dark, width=int(rng.integers(1, 4)))


def _spots(rng: Rng, draw: ImageDraw.ImageDraw, width: int, height: int, light: _Light) -> None:
    tones = [*GREENS, *GREENS, (214, 204, 150), (236, 232, 214), *(c[0] for c in PALETTE.values())]
    for _ in range(int(rng.integers(10, 32))):
        x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.016, 0.1) * height
        tone = light.on(tones[rng.integers(len(tones))]) * rng.uniform(0.5, 0.95)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=_ink(tone))


def _foliage(rng: Rng, draw: ImageDraw.ImageDraw, width: int, height: int, light: _Light) -> None:
    for _ in range(int(rng.integers(8, 36))):
        place = (rng.uniform(0, width), rng.uniform(0, height))
        green = light.on(GREENS[rng.integers(len(GREENS))]) * rng.uniform(0.6, 1.4)
        _leaf(rng, draw, place, rng.uniform(0.12, 0.45) * height, rng.uniform(0.1, 0.3), rng.uniform(0, 2 * pi), green)


CLUTTER: dict[str, Callable[[Rng, ImageDraw.ImageDraw, int, int, _Light], None]] = {
    "grass": _blades,
    "soil": _stones,
    "sky": _skyline,
    "wall": _boards,
    "bokeh": _spots,
    "leaves": _foliage,
}


def _leaf(
    rng: Rng,
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    length: float,
    broad: float,
    angle: float,
    green: Array,
) -> None:
    """A leaf of `length` pixels from `at`, growing at `angle` (0 = right); its halves catch the light differently."""
    t = np.linspace(0, 1, 8)
    bend = rng.normal(0, 0.25) * t**2
    edge = broad * np.sin(pi * t**0.75)
    turn = np.array([[cos(angle), -sin(angle)], [-sin(angle), -cos(angle)]]) * length
    rib, left, right = (np.stack([t, bend + sign * edge], axis=-1) @ turn.T + at for sign in (0, 1, -1))
    draw.polygon(np.concatenate([rib, left[::-1]]).ravel().tolist(), fill=_ink(green * 1.08))
    draw.polygon(np.concatenate([rib, right[::-1]]).ravel().tolist(), fill=_ink(green * 0.84))


def _leaves_in_front(rng: Rng, canvas: Image.Image, light: _Light) -> None:
    """Leaves and blades that cross the subject, from an edge of the picture inwards."""
    draw = ImageDraw.Draw(canvas)
    width, height = canvas.size
    for _ in range(int(rng.integers(1, 5))):
        side = rng.choice(["bottom", "left", "right"], p=[0.6, 0.2, 0.2])
        x = {"bottom": rng.uniform(0.05, 0.95), "left": -0.03, "right": 1.03}[str(side)] * width
        y = (1.03 if side == "bottom" else rng.uniform(0.25, 1.0)) * height
        angle = {"bottom": pi / 2, "left": 0.35, "right": pi - 0.35}[str(side)] + rng.normal(0, 0.35)
        green = light.on(GREENS[rng.integers(len(GREENS))]) * rng.uniform(0.8, 1.35)
        _leaf(rng, draw, (x, y), rng.uniform(0.3, 0.85) * height, rng.uniform(0.03, 0.16), angle, green)


def _blurred_in_front(rng: Rng, picture: Image.Image, light: _Light) -> Image.Image:
    """Something near the lens, far out of focus: drawn at a quarter of the size, since the blur hides it."""
    width, height = (side // 4 for side in picture.size)
    veil = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(veil)
    for _ in range(int(rng.integers(1, 4))):
        angle, at = rng.uniform(0.2, pi - 0.2), (rng.uniform(0, width), height * 1.05)
        t = np.array([at[0] + cos(angle) * height * 0.9, at[1] - sin(angle) * height * rng.uniform(0.4, 1.0)])
        draw.line((*at, float(t[0]), float(t[1])), fill=int(rng.integers(150, 245)), width=int(rng.integers(3, 12)))
    mask = veil.filter(ImageFilter.GaussianBlur(rng.uniform(1.5, 4.0))).resize(picture.size, Image.Resampling.BICUBIC)
    tone = GREENS[rng.integers(len(GREENS))] if rng.random() < 0.75 else PALETTE[str(rng.choice(list(PALETTE)))][0]
    return Image.composite(Image.new("RGB", picture.size, _ink(light.on(tone) * 1.1)), picture, mask)


# --- camera -----------------------------------------------------------------------------------------------------------


def _camera(rng: Rng, picture: Image.Image, unreadable: bool) -> Image.Image:
    """The effects of lens and sensor: blur, uneven light, colour cast, exposure, noise. About 4 ms."""
    blur = float(rng.choice([0.0, rng.uniform(0.3, 1.2), rng.uniform(1.2, 3.0)], p=[0.5, 0.35, 0.15]))
    exposure = rng.uniform(0.8, 1.18)
    grain = rng.uniform(1.0, 6.0)
    if unreadable:
        blur, exposure, grain = (rng.uniform(5, 8), exposure, grain) if rng.random() < 0.5 else (blur, 0.1, 14.0)
    if blur:
        picture = picture.filter(ImageFilter.GaussianBlur(blur))
    width, height = picture.size
    cast = (rng.normal(1, 0.045, 3) * exposure).astype(np.float32)
    dapple = 1 + rng.uniform(0.05, 0.3) * _clouds(rng, width, height, int(rng.integers(2, 6)))
    noise = rng.standard_normal((height, width), dtype=np.float32) * np.float32(grain)
    pixels = np.asarray(picture, dtype=np.float32) * (dapple[..., None] * cast) + noise[..., None]
    haze = np.float32(rng.uniform(0, 45) if rng.random() < 0.25 else 0.0)  # light straying into the lens
    pixels = haze + pixels * (1 - haze / 255)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
