"""The model card that every bundle carries, in the Hugging Face format: YAML front matter, then Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from frostline import documents, wording
from frostline.bundles.about import About, licences_of
from frostline.config import Config
from frostline.documents import Export
from frostline.documents.strategy import RobustnessFigures
from frostline.errors import RunError
from frostline.networks import timm_weights
from frostline.networks.licences import licence, named
from frostline.stats.class_balance import unequal
from frostline.stats.metrics import shown_on

_TEMPLATES = Path(__file__).parent / "templates"
_LIMITS = "\n## Limits"
"""Where in a card the sections of what came later go."""


def write(about: About, config: Config, counts: Mapping[str, int]) -> str:
    """The card's text: what the model is, how to use it, its figures and its limits.

    Parameters
    ----------
    counts
        Photos of each class.
    """
    row = {"name": about.strategy, "freeze_line": about.line, "layers": about.layers, **about.figures}
    frozen, layers = wording.frozen_layers(row)
    return _filled(
        "card.md.j2",
        about=about,
        frozen=frozen,
        layers=layers,
        unfrozen=wording.unfrozen(row),
        figures=about.figures,
        config=config,
        counts=counts,
        unequal=unequal(counts.values()),
        metrics=shown_on("card", unequal(counts.values())),
        robust=any(s.name == about.strategy and s.recipe.robust for s in config.strategies),
        start=_start(about),
        origins=about.pretrained_weights,
        licences=licences_of(about),
    )


def _start(about: About) -> str:
    """What training started from."""
    return timm_weights.in_words(about.pretrained_weights) if about.weights == "pretrained" else "random weights"


def published(source: Path) -> str:
    """The card of a bundle in its run folder, with what was measured later: robustness, and the proofs of its
    exports."""
    sections = []
    if found := _robustness(source):
        severities = len(found["causes"][0]["accuracy"])
        sections.append(_filled("robustness.md.j2", found=found, severities=severities))
    for file in sorted(source.resolve().parent.glob("*/export.json")):
        export = _export(file.parent)
        if export is not None and export.get("status") == "proved":
            sections.append(artefact(export))
    return _extended(source, sections)


def exported(export: Mapping[str, object], source: Path) -> str:
    """The card of an exported model: that of the bundle in `source`, and what its proof found."""
    return _extended(source, [artefact(export)])


def artefact(export: Mapping[str, object]) -> str:
    """The section on one exported model, from its export.json."""
    return _filled("artefact.md.j2", export=export)


def _extended(source: Path, sections: list[str]) -> str:
    """The card of the bundle in `source` with more sections before its limits; empty where it has no card."""
    try:
        own = (source / "README.md").read_text(encoding="utf-8")
    except OSError:
        own = ""
    before, limits, after = own.partition(_LIMITS)
    return "\n\n".join(part.rstrip() for part in (before, *sections) if part.strip()) + f"\n{limits}{after}"


def _robustness(source: Path) -> RobustnessFigures | None:
    """What the run measured on corrupted photos with the bundle's strategy."""
    strategy, run = source.resolve().parent.name, source.resolve().parents[1]
    try:
        rows = documents.read(run, documents.Study)["strategies"]
    except (RunError, KeyError):
        return None
    found = next((row.get("robustness") for row in rows if row.get("name") == strategy), None)
    return found if found and found.get("causes") else None


def _export(folder: Path) -> Export | None:
    try:
        return documents.read(folder, Export)
    except RunError:
        return None


def _filled(name: str, **values: object) -> str:
    """A template of this folder, filled in. Markdown is no HTML, so nothing is escaped by itself: `cell` does it for
    names."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(  # noqa: S701 - see above
        loader=FileSystemLoader(_TEMPLATES), trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"json": json.dumps, "cell": _cell, "licence": licence, "named_licence": named}
    environment.filters |= {f.__name__: f for f in (wording.percent, wording.span, wording.decimal)}
    return environment.get_template(name).render(**values)


def _cell(text: str) -> str:
    """A name from outside as one cell of a table."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
