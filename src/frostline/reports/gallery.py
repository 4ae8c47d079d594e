"""The photos in a report: a small picture of each, the predictions of each strategy, and what was measured on it.

Every photo reported on has a row; up to `PICTURES` of them have a picture, wrongly classified ones first.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from frostline.bundles.heat_maps import coloured
from frostline.errors import PhotoError
from frostline.parallel import thread_count
from frostline.photos.decoding import thumbnail
from frostline.photos.loading import decoded
from frostline.reports.record import Record, Row
from frostline.stats.predictions import Prediction

SIZE = 160  # pixels, the longer side: about 5 kB of JPEG, so 900 photos stay below 7 MB in a page
PICTURES, WHILE_RUNNING = 1500, 60
MOST_ROWS = 20_000  # a row costs about 100 bytes
_QUALITY = 72

_ENDS = {
    "brightness": ("darkest", "brightest"),
    "extreme_lighting": ("most ordinarily lit", "most extremely lit"),
    "contrast": ("flattest", "most contrasty"),
    "colour_cast": ("most neutral", "most tinted"),
    "saturation": ("palest", "most colourful"),
    "sharpness": ("blurriest", "sharpest"),
    "subject_size": ("smallest-subject", "largest-subject"),
    "off_centre": ("most centred", "most off-centre"),
    "resolution": ("lowest-resolution", "highest-resolution"),
}


class Pictures:
    """Small pictures by path, each made once and in threads; what can't be read any more is listed in `missing`."""

    def __init__(self) -> None:
        self.found: dict[Path, str] = {}
        self.missing: dict[Path, str] = {}

    def add(self, root: Path, paths: Iterable[str]) -> None:
        """Make the pictures of photos below `root`: about 4 ms each on one core, and little memory however many there
        are."""
        wanted = [(root / path, path) for path in dict.fromkeys(paths)]
        wanted = [(file, path) for file, path in wanted if file not in self.found and file not in self.missing]
        with ThreadPoolExecutor(thread_count()) as pool:
            for (file, path), data in zip(wanted, pool.map(lambda pair: _picture(pair[0]), wanted), strict=True):
                if data is None:
                    self.missing[file] = path
                else:
                    self.found[file] = data

    def get(self, root: Path, path: str) -> str | None:
        """Base64 of a JPEG; None: there is none."""
        return self.found.get(root / path)


def _picture(file: Path) -> str | None:
    picture = decoded(file, lambda data: thumbnail(data, SIZE))
    return None if isinstance(picture, PhotoError) else _encoded(picture, "JPEG", quality=_QUALITY)


def _encoded(picture: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, optimize=True, **options)
    return base64.b64encode(buffer.getvalue()).decode()


# ---- all photos ------------------------------------------------------------------------------------------------------


def contents(record: Record, pictures: Pictures) -> Row:
    """What the page's script gets of a run; see `album`."""
    most = WHILE_RUNNING if record.study.get("status") == "running" else PICTURES
    looks = {s["name"]: s["colour"] for s in record.strategies}
    said = {name: {p.path: p for p in rows} for name, rows in record.predictions.items()}
    found = album(said, looks, record.classes, record.measures, lambda path: (record.root, path), pictures, most)
    return {**found, "total": len(next(iter(said.values()), ()))}


def album(
    said: Mapping[str, Mapping[str, Prediction]],
    looks: Mapping[str, str],
    classes: Sequence[str],
    measures: Mapping[str, Mapping[str, float]],
    where: Callable[[str], tuple[Path, str]],
    pictures: Pictures,
    most: int,
) -> Row:
    """{"classes", "strategies", "measures", "photos", "pictures"} of the photos that all strategies classified.

    A photo is [path, class, [[predicted, confidence in tenths of a percent], ..] a strategy, picture or -1, [fifth
    0..4 or -1 a measure]]; classes are indices, as everywhere in it.

    Parameters
    ----------
    said
        By strategy, then by photo.
    looks
        The colour of each strategy.
    where
        The folder of a photo, and its path in there.
    most
        How many get a picture.
    """
    rows = judged(said)[:MOST_ROWS]
    labels = list(dict.fromkeys([*classes, *(label for row in rows for label in (row["true"], *row["guesses"]))]))
    place = {label: index for index, label in enumerate(labels)}
    homes: dict[Path, list[str]] = {}
    for row in rows[:most]:
        root, path = where(row["path"])
        homes.setdefault(root, []).append(path)
    for root, paths in homes.items():
        pictures.add(root, paths)
    shown, photos = [], []
    fifths = [(key, _fifths(values, [row["path"] for row in rows])) for key, values in measures.items()]
    for index, row in enumerate(rows):
        picture = pictures.get(*where(row["path"])) if index < most else None
        if picture:
            shown.append(picture)
        answers = [[place[g], round(1000 * c)] for g, c in zip(row["guesses"], row["confidences"], strict=True)]
        own = [values.get(row["path"], -1) for _, values in fifths]
        photos.append([where(row["path"])[1], place[row["true"]], answers, len(shown) - 1 if picture else -1, own])
    return {
        "classes": labels,
        "strategies": [{"name": name, "colour": looks[name]} for name in said],
        "measures": [{"title": _title(key), "ends": _ends(key)} for key, _ in fifths],
        "photos": photos,
        "pictures": shown,
    }


def judged(said: Mapping[str, Mapping[str, Prediction]]) -> list[Row]:
    """One row for each photo that all strategies classified: most often wrong first, then by falling confidence."""
    sides = list(said.values())
    rows = []
    for path, row in sides[0].items() if sides else ():
        if all(path in other for other in sides):
            own = [other[path] for other in sides]
            wrong = sum(not p.correct for p in own)
            sure = max((p.confidence for p in own if not p.correct), default=0.0)
            answers = {"guesses": [p.predicted for p in own], "confidences": [p.confidence for p in own]}
            rows.append({"path": path, "true": row.true, **answers, "wrong": wrong, "order": (-wrong, -sure, path)})
    return sorted(rows, key=lambda row: row["order"])


def _fifths(values: Mapping[str, float], paths: Sequence[str]) -> dict[str, int]:
    """Which fifth of the photos each belongs to by a measure: 0 the lowest, 4 the highest; equals stay together."""
    here = {path: values[path] for path in paths if path in values}
    if not here:
        return {}
    edges = np.quantile(list(here.values()), (0.2, 0.4, 0.6, 0.8))
    return {path: int(np.searchsorted(edges, value)) for path, value in here.items()}


def _title(key: str) -> str:
    return key.replace("_", " ")


def _ends(key: str) -> tuple[str, str]:
    low, high = _ENDS.get(key, (f"lowest-{_title(key)}", f"highest-{_title(key)}"))
    return f"{low} fifth", f"{high} fifth"


# ---- chosen photos ---------------------------------------------------------------------------------------------------


def tile(record: Record, pictures: Pictures, row: Row) -> Row:
    """A row with its picture and bare file name."""
    return {**row, "picture": pictures.get(record.root, row["path"]), "file": PurePosixPath(row["path"]).name}


def always_wrong(record: Record, pictures: Pictures, most: int) -> Row:
    """Photos that every strategy got wrong: the first to check for wrong labels. Needs two strategies or more."""
    said = {name: {p.path: p for p in rows} for name, rows in record.predictions.items()}
    rows = [row for row in judged(said) if row["wrong"] == len(said)] if len(said) > 1 else []
    pictures.add(record.root, [row["path"] for row in rows[:most]])
    return {"tiles": [tile(record, pictures, row) for row in rows[:most]], "total": len(rows)}


def conflicts(record: Record, pictures: Pictures, most: int) -> list[Row]:
    """Photos that stand in several classes: their places, and a picture of the first few."""
    root = Path(record.dataset.get("root") or record.run)
    groups = [group for group in record.dataset.get("conflicts") or [] if group]
    pictures.add(root, [group[0]["path"] for group in groups[:most]])
    return [
        {
            "group": group,
            "classes": [place["class"] for place in group],
            "shown": index < most,
            "picture": pictures.get(root, group[0]["path"]),
        }
        for index, group in enumerate(groups)
    ]


def lookalikes(record: Record, pictures: Pictures, most: int) -> list[Row]:
    """Groups of near-duplicates that span several classes, the first few, with a picture of up to four of each."""
    root = Path(record.dataset.get("root") or record.run)
    near = record.dataset.get("near_twins") or {}
    groups = [group[:4] for group in (near.get("across_classes") or [])[:most] if group]
    pictures.add(root, [place["path"] for group in groups for place in group])
    return [
        {"places": [{**place, "picture": pictures.get(root, place["path"])} for place in group]} for group in groups
    ]


# ---- explanations ----------------------------------------------------------------------------------------------------

_ENLARGED = 8


def explained(record: Record, pictures: Pictures, most: int) -> list[Row]:
    """For each strategy with explanations: photos, each with the maps of the predicted and of the true class."""
    found = []
    for name, value in record.explanations.items():
        photos = [photo for photo in value.get("photos") or [] if _is_explained(photo)]
        photos.sort(key=lambda photo: photo.get("true") == photo.get("predicted"))  # wrong ones first; stable
        pictures.add(record.root, [photo["path"] for photo in photos[:most]])
        tiles = [
            {
                **tile(record, pictures, photo),
                "heats": {side: heat(grid) for side, grid in photo["maps"].items() if grid},
            }
            for photo in photos[:most]
        ]
        about = {key: value.get(key) or "" for key in ("method", "layer", "failure")}
        faithfulness = value.get("faithfulness") or {}
        found.append({"name": name, **about, "tiles": tiles, "total": len(photos), "faithfulness": faithfulness})
    return found


def _is_explained(photo: Any) -> bool:
    return isinstance(photo, dict) and isinstance(photo.get("path"), str) and isinstance(photo.get("maps"), dict)


def heat(grid: Sequence[Sequence[int]]) -> str:
    """A map of rows of 0..255 as a transparent picture to lay over the photo: base64 of a PNG, smooth, 1 to 3 kB."""
    coarse = Image.fromarray(np.clip(np.asarray(grid, dtype=float), 0, 255).astype(np.uint8))
    wide, tall = (_ENLARGED * side for side in coarse.size)
    share = np.asarray(coarse.resize((wide, tall), Image.Resampling.BICUBIC), dtype=float) / 255
    pixels = np.dstack([coloured(share), 255 * (0.1 + 0.75 * share)]).astype(np.uint8)
    return _encoded(Image.fromarray(pixels).quantize(64), "PNG")
