"""The JSON schemas of the documents, and a check of a document against its type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frostline.documents import bundle, check, decision, seeds, shared, strategy, study, sweep
from frostline.documents.bundle import Bundle, Export
from frostline.documents.check import Check
from frostline.documents.seeds import Seeds
from frostline.documents.study import Study
from frostline.documents.sweep import Sweep
from frostline.files import write_text

FILES: dict[type, str] = {
    Study: "study.json",
    Sweep: "sweep.json",
    Seeds: "seeds.json",
    Check: "check.json",
    Bundle: "bundle.json",
    Export: "export.json",
}
_WITH_METRICS = ("StrategyRow", "LineRow", "BundleFigures")
"""Types of documents that may hold more metrics than their keys name: numbers, and intervals under ``<name>_ci``."""
_MODULES = (shared, decision, strategy, study, sweep, seeds, check, bundle)


def problems(kind: type, document: Mapping[str, object]) -> list[str]:
    """What of a document is not as its type says, each as ``place: what is wrong``; empty where all is."""
    from pydantic import ValidationError

    try:
        _adapter(kind).validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        return [f"{'.'.join(map(str, e['loc'])) or 'document'}: {e['msg']}" for e in error.errors()]
    return []


def schema(kind: type) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a kind of document."""
    found: dict[str, Any] = _adapter(kind).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def _adapter(kind: type) -> Any:
    """What checks a document against its type. pydantic is imported here: it takes a quarter of a second."""
    from pydantic import ConfigDict, TypeAdapter

    for part in (part for module in _MODULES for part in vars(module).values()):
        if isinstance(part, type) and hasattr(part, "__required_keys__"):
            more = part.__name__ in _WITH_METRICS
            part.__pydantic_config__ = ConfigDict(extra="allow" if more else "forbid")  # type: ignore[attr-defined]
            if more:  # mypy doesn't know the class argument extra_items yet
                part.__extra_items__ = float | shared.Interval  # type: ignore[attr-defined]
    return TypeAdapter(kind)


def write_schemas(folder: Path) -> list[Path]:
    """Write every document's JSON schema into a folder, as ``study.schema.json`` and so on; returns the files."""
    files = []
    for kind, name in FILES.items():
        files.append(folder / name.replace(".json", ".schema.json"))
        write_text(files[-1], json.dumps(schema(kind), indent=1, ensure_ascii=False) + "\n")
    return files
