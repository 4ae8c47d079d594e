"""The data of a run without its training: what a study says of its photos before a network is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import frostline
from frostline.documents.shared import Dataset
from frostline.progress import Progress
from frostline.studies.document import begin
from frostline.studies.run_folder import held, start
from frostline.training.prepare import Prepared
from support.commands import table


@dataclass(frozen=True)
class PreparedRun:
    """A run up to its first strategy."""

    prepared: Prepared
    dataset: Dataset
    """As study.json has it."""
    manifest: list[dict[str, str]]
    """The rows of manifest.csv."""

    @property
    def split(self) -> dict[str, str]:
        """The part of each photo, by path."""
        return {row["path"]: row["split"] for row in self.manifest}

    @property
    def why(self) -> dict[str, str]:
        """Why a photo was left out, by path."""
        return {skip["path"]: skip["why"] for skip in self.dataset["skipped"]}


def prepared_run(data: Path, out: Path, **settings: Any) -> PreparedRun:
    """Do what a study of the photos in `data` does before it trains; its folder is `out`."""
    config = frostline.configure(data, strategies="baseline", epochs=1, image_size=64, **settings)
    with held(out):
        prepared, _ = start(out, config, None, Progress(quiet=True))
    return PreparedRun(prepared, begin(prepared)["dataset"], table(out / "manifest.csv"))
