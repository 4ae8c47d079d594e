"""The page about a study over several seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import stats

from frostline import documents
from frostline.documents import Seeds
from frostline.errors import RunError
from frostline.files import write_text
from frostline.reports import html, svg, sweep_charts
from frostline.stats import decision

FILE, TABLE, PICTURE = "seeds.json", "seeds.csv", "seeds.svg"


def read(folder: Path) -> Seeds:
    """The seeds.json of a folder.

    Raises
    ------
    RunError
        There is none, or it is damaged.
    """
    document = documents.read(Path(folder), Seeds)
    if not document.get("seeds"):
        raise RunError(f"{Path(folder) / FILE} is damaged: it lists no seeds")
    return document


def build(run: Path) -> Path:
    """Draw the picture and write the page anew from the seeds.json in `run`; returns the page's path.

    Raises
    ------
    RunError
        seeds.json is missing or damaged, or fewer than two seeds have ended.
    """
    document = read(run)
    if not document["strategies"]:
        raise RunError(f"{run}: fewer than two seeds have ended, so there is nothing to report yet: --resume the study")
    return draw(run, document)


def draw(folder: Path, document: Seeds) -> Path:
    """Draw the picture of a study over several seeds; returns its path."""
    signs = svg.looks([row["name"] for row in document["strategies"]])
    rows = [
        {**row, **dict(zip(("colour", "shape"), signs[row["name"]], strict=True))} for row in document["strategies"]
    ]
    figure = sweep_charts.seeds(document["strategies"])
    write_text(folder / PICTURE, figure.file())
    ended = len(document["runs"])
    factors = np.sqrt((ended - 1) / stats.chi2.ppf((0.975, 0.025), ended - 1))
    page = html.template("seeds.html.j2").render(
        study=document,
        dataset=document["dataset"],
        strategies=rows,
        best=_shipped(document),
        figure=figure,
        spread_factors=[float(f) for f in factors],
        sections=[("strategies", "Strategies"), ("covers", "What the intervals cover"), ("seeds", "The seeds")],
        **html.furniture(),
    )
    return html.write(folder / html.PAGE, page)


def _shipped(document: Seeds) -> str:
    """The strategy of the answer; documents of older versions hold no decision, and it was the mean accuracy's."""
    if "decision" in document:
        return document["decision"]["ship"]["model"]
    return decision.best_over_seeds(document["strategies"])["name"]
