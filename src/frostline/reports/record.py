"""What a run folder holds, read for those who show it: report, figures, comparison. Optional parts are empty where
they are missing."""

from __future__ import annotations

import csv
import json
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from frostline import wording
from frostline.documents import Sweep, trained_alike
from frostline.errors import RunError
from frostline.reports.svg import looks
from frostline.stats import decision
from frostline.stats.predictions import Prediction, read_predictions

Row = dict[str, Any]
"""A part of a document of any version, finished or not: a key may be missing, and a figure null."""


@dataclass(frozen=True)
class Record:
    """A run as it was left: all strategies, some, or none."""

    run: Path
    study: Row
    """study.json; each strategy also has its "colour", "shape", "frozen_layers", "all_layers" and "frozen_share"."""
    settings: str
    """config.toml as text; empty when there is none."""
    config: Row
    """Its values; empty when it isn't TOML."""

    @property
    def strategies(self) -> list[Row]:
        """Rows of study.json, in its order."""
        rows: list[Row] = self.study["strategies"]
        return rows

    @property
    def dataset(self) -> Row:
        """What study.json tells of the photos."""
        value: Row = self.study["dataset"]
        return value

    @property
    def classes(self) -> list[str]:
        """In the order of matrices."""
        return list(self.dataset.get("classes") or [])

    @property
    def unequal(self) -> bool:
        """Whether macro recall stands first."""
        return bool(self.dataset.get("unequal"))

    @property
    def unfinished(self) -> bool:
        """Whether some strategies have not ended: the study is running, or was stopped before."""
        return self.study.get("status") in ("running", "stopped")

    @property
    def root(self) -> Path:
        """Where the photos reported on are."""
        return Path(self.dataset.get("test_root") or self.dataset.get("root") or self.run)

    @cached_property
    def best(self) -> Row | None:
        """The strategy of the study's answer, chosen on the validation set; None while no strategy has ended."""
        return decision.best_strategy(self.strategies, self.unequal)

    @cached_property
    def predictions(self) -> dict[str, list[Prediction]]:
        """By strategy that has ended: its predictions for the photos reported on, the most confident first; no
        probabilities."""
        return self._predictions("predictions.csv")

    @cached_property
    def validation(self) -> dict[str, list[Prediction]]:
        """The same for the validation photos, where those are not the ones reported."""
        return self._predictions("validation.csv")

    def _predictions(self, name: str) -> dict[str, list[Prediction]]:
        files = {s["name"]: self.run / s["name"] / name for s in self.strategies}
        read = {key: read_predictions(file, probabilities=False) for key, file in files.items() if file.exists()}
        return {key: sorted(rows, key=lambda p: -p.confidence) for key, rows in read.items() if rows}

    @cached_property
    def manifest(self) -> list[dict[str, str]]:
        """Rows of manifest.csv."""
        return read_csv(self.run / "manifest.csv", ("path", "label", "split"))

    @cached_property
    def explanations(self) -> dict[str, Row]:
        """By strategy: explanations.json."""
        found = {s["name"]: _read_json(self.run / s["name"] / "explanations.json") for s in self.strategies}
        return {name: value for name, value in found.items() if value}

    @cached_property
    def sweeps(self) -> dict[str, Sweep]:
        """By kind, "lines" or "photos": finished sweeps of the same photos that stand beside the run, as RUN-lines
        and RUN-photos."""
        found = {
            kind: _read_json(self.run.with_name(f"{self.run.name}-{kind}") / "sweep.json")
            for kind in ("lines", "photos")
        }
        return {kind: cast(Sweep, value) for kind, value in found.items() if self._is_own(kind, value)}

    def _is_own(self, kind: str, sweep: Row) -> bool:
        about, plan = sweep.get("dataset"), sweep.get("plan")
        return (
            sweep.get("status") == "finished"
            and isinstance(about, dict)
            and isinstance(plan, dict)
            and (about.get("root"), plan.get("kind")) == (self.dataset.get("root"), kind)
            and trained_alike(sweep, self.study)
        )

    @cached_property
    def measures(self) -> dict[str, dict[str, float]]:
        """By measure (brightness, sharpness, ..), then by path: photo_measures.csv. Values that are no numbers are
        left out."""
        rows = read_csv(self.run / "photo_measures.csv", ("path",))
        found: dict[str, dict[str, float]] = {}
        for row in rows:
            for key, text in row.items():
                value = _number(text) if key not in ("path", "class") else None
                if value is not None:
                    found.setdefault(key, {})[row["path"]] = value
        return found


def read(run: Path) -> Record:
    """Read a run folder; the larger parts are read when they are asked for.

    Raises
    ------
    RunError
        study.json is missing or isn't one, or config.toml can't be read; later, where a part can't be read or lacks
        its columns.
    """
    settings, config = _read_config(run / "config.toml")
    return Record(run, _read_study(run), settings, config)


def _read_study(run: Path) -> Row:
    path = run / "study.json"
    try:
        study = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except FileNotFoundError:
        raise RunError(f"no study.json in {run}: expected a run folder, as 'frostline study --out' leaves it") from None
    except (OSError, ValueError) as error:
        raise RunError(f"can't read {path}: {' '.join(str(error).split())}; resume or repeat the study") from error
    if not _is_study(study):
        raise RunError(
            f"{path} is no study: expected an object with 'dataset' and 'strategies', a list of named objects"
        )
    signs = looks([strategy["name"] for strategy in study["strategies"]])
    for strategy in study["strategies"]:
        strategy["colour"], strategy["shape"] = signs[strategy["name"]]
        line, layers = wording.frozen_layers(strategy)
        strategy["frozen_layers"], strategy["all_layers"] = line, layers
        _add_calibration_error(strategy, study.get("reported_on"))
        strategy["frozen_share"] = min(line / layers, 1.0) if layers and line is not None else None
    return dict(study)


def _add_calibration_error(strategy: Row, reported_on: object) -> None:
    """Give a row of an older run the key that later ones have from the start."""
    stages = strategy.get("calibration")
    stage = stages.get("after" if reported_on == "test" else "before") if isinstance(stages, dict) else None
    if isinstance(stage, dict) and "calibration_error" not in strategy:
        strategy["calibration_error"], strategy["calibration_error_ci"] = stage.get("debiased"), stage.get("ci")


def _is_study(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("dataset"), dict):
        return False
    strategies = value.get("strategies")
    return isinstance(strategies, list) and all(
        isinstance(s, dict) and isinstance(s.get("name"), str) for s in strategies
    )


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV; none when there is no such file (a run that is still going).

    Raises
    ------
    RunError
        It can't be read, or lacks one of `columns`.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
                raise RunError(f"{path} has no column {', '.join(missing)}: expected {', '.join(columns)}")
            return list(reader)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"can't read {path}: {' '.join(str(error).split())}") from error


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _read_json(path: Path) -> Row:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunError(f"can't read {path}: {' '.join(str(error).split())}") from error
    return value if isinstance(value, dict) else {}


def _read_config(path: Path) -> tuple[str, Row]:
    """config.toml as text and as values; both empty when there is none, the values when it isn't TOML."""
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except FileNotFoundError:
        return "", {}
    except tomllib.TOMLDecodeError:
        return text, {}
    except (OSError, ValueError) as error:
        raise RunError(f"can't read {path}: {' '.join(str(error).split())}") from error
