"""The model card that every bundle carries, in the Hugging Face format (YAML front matter, then Markdown)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frostline.bundles.about import About
from frostline.config import Config
from frostline.stats.class_balance import unequal


def write(about: About, config: Config, counts: Mapping[str, int]) -> str:
    """The card's text: what the model is, how to use it, what it was measured at, and its limits."""
    f = about.figures
    unlike = unequal(counts.values())
    metric = "balanced_accuracy" if unlike else "accuracy"
    low, high = f[f"{metric}_ci"]
    reported = {
        "test": "photos that took no part in training or in any choice",
        "validation": "the validation photos, which were watched in training (the tutorial's protocol)",
    }[f["reported_on"]]
    cells = [f"{100 * f[metric]:.1f} %", f"{100 * low:.1f} to {100 * high:.1f} %"]
    cells += [f"{f[name]:.3f}" for name in ("macro_f1", "log_loss", "ece_shipped")]
    columns = ["accuracy", "95 % interval", "macro F1", "log loss", "calibration error"]
    if unlike:
        columns[0] = "macro recall"
        columns.insert(3, "accuracy")
        cells.insert(3, f"{100 * f['accuracy']:.1f} %")
    refit = (
        "Validation photos chose epochs and temperature; then it was trained again, for as many epochs, with them among the others.\n"
        if f.get("refit")
        else ""
    )
    robust = _ROBUST if any(s.name == about.strategy and s.recipe.robust for s in config.strategies) else ""
    balanced = _BALANCED.get(config.balance, "")
    start = "published ImageNet weights" if about.weights == "pretrained" else "random weights"
    rendered = (
        "\n**Made with pictures that were rendered by code: it knows no real photographs.**\n" if f["rendered"] else ""
    )
    photos = "\n".join(f"| {_cell(name)} | {count} |" for name, count in counts.items())
    return f"""---
library_name: frostline
pipeline_tag: image-classification
base_model: {json.dumps(about.backbone)}
tags: [image-classification, frostline]
metrics: [{metric}]
model-index:
- name: {json.dumps(f"{about.strategy} {about.backbone}")}
  results:
  - task: {{type: image-classification, name: Image Classification}}
    dataset: {{name: photos of the run, type: imagefolder, split: {f["reported_on"]}}}
    metrics:
    - {{type: accuracy, value: {f["accuracy"]:.4f}, name: Accuracy}}
    - {{type: f1, value: {f["macro_f1"]:.4f}, name: Macro F1}}
    - {{type: log_loss, value: {f["log_loss"]:.4f}, name: Log loss}}
    - {{type: ece, value: {f["ece_shipped"]:.4f}, name: Calibration error}}
---

# {about.strategy}: {about.backbone}, {about.line} of {about.layers} layers frozen

Sorts photos into {len(about.classes)} classes. It started from {start}; the first {about.line} of {about.layers} layers were frozen.
{rendered}
## Use

```
frostline predict THIS_FOLDER photos/ --out predictions.csv
```

```python
import frostline

for prediction in frostline.predict("THIS_FOLDER", ["photo.jpg"]):
    print(prediction.path, prediction.predicted, prediction.confidence)
```

## Measured

On {f["photos"]} photos ({reported}), protocol `{config.protocol}`, seed {config.seed}:

| {" | ".join(columns)} |
|{" --- |" * len(columns)}
| {" | ".join(cells)} |
{refit}{robust}{balanced}
## Photos

| class | photos |
| --- | --- |
{photos}

## Limits

It knows these classes only: any other subject is forced into one of them. The figures hold for photos like those above; light, cameras or
places that were not among them can cost accuracy that no figure here shows.

Probabilities are the softmax of the logits divided by {about.temperature:.4f}, fitted where photos were left for it.

## Licence

No licence is given here: that of the photos and of the weights it started from ({about.backbone}, {start}) decide what may be done with it.
"""


def published(source: Path) -> str:
    """The card of a bundle in its run folder, with what came after it was written: robustness, and the proofs of its exports."""
    try:
        own = (source / "README.md").read_text(encoding="utf-8")
    except OSError:
        own = ""
    sections = [_robustness(source)]
    for file in sorted(source.resolve().parent.glob("*/export.json")):
        document = _json(file)
        if document.get("status") == "proved":
            sections.append(artefact(document))
    before, limits, after = own.partition("\n## Limits")
    return (
        "\n\n".join(part for part in (before.rstrip(), *(s.rstrip() for s in sections)) if part) + "\n" + limits + after
    )


def _json(file: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value


def _robustness(source: Path) -> str:
    """The table of what was measured on spoilt photos, where the run has it."""
    strategy, run = source.resolve().parent.name, source.resolve().parents[1]
    rows = [row for row in _json(run / "study.json").get("strategies", []) if row.get("name") == strategy]
    found = rows[0].get("robustness") if rows else None
    if not isinstance(found, dict) or not found.get("causes"):
        return ""
    lines = [
        f"| {_cell(str(c.get('title') or c['cause']))} | {' | '.join(f'{100 * a:.1f} %' for a in c['accuracy'])} |"
        for c in found["causes"]
    ]
    head = f"On {found['photos']} photos, {100 * found['clean']:.1f} % right while they are as they came; accuracy from mild to strong:"
    levels = len(found["causes"][0]["accuracy"])
    columns = " | ".join(str(i + 1) for i in range(levels))
    return "\n".join(
        ["## Robustness", "", head, "", f"| spoilt by | {columns} |", f"|{' --- |' * (levels + 1)}", *lines]
    )


def exported(document: Mapping[str, Any], source: Path) -> str:
    """The card of an artefact: the bundle's own, and what its proof came to before that card's limits."""
    try:
        own = (source / "README.md").read_text(encoding="utf-8")
    except OSError:
        own = ""
    before, limits, after = own.partition("\n## Limits")
    return f"{before.rstrip()}\n\n{artefact(document)}{limits}{after}"


def artefact(document: Mapping[str, Any]) -> str:
    """The section on one artefact, from its export.json."""
    low, high = (100 * x for x in document["accuracy_ci"])
    numbers = "int8" if document["int8"] else "float32"
    here = document.get("as_run_here")
    as_run = (
        f" Against the bundle as {here['engine']} runs it, the agreement is {100 * here['agreement']:.1f} %."
        if here
        else ""
    )
    files = " and ".join(f"`{name}`" for name in (document["file"], *document["also"]))
    return f"""## Artefact

{files} ({document["format"]}, {numbers}, {document["size_bytes"] / 1e6:.1f} MB) runs without frostline: `python {document["example"]} PHOTO...` shows how. It was
proved from image file to label on {document["photos"]} photos ({document["proved_on"]}), against the bundle in float32.{as_run}

| agreement | largest difference of a probability | accuracy | 95 % interval | the bundle's accuracy | latency, one photo | photos/s, from file |
| --- | --- | --- | --- | --- | --- | --- |
| {100 * document["agreement"]:.1f} % | {document["largest_difference"]:.4f} | {100 * document["accuracy"]:.1f} % | {low:.1f} to {high:.1f} % | {100 * document["bundle_accuracy"]:.1f} % | {document["latency_ms"]:.1f} ms | {document["throughput"]:.0f} |
"""  # noqa: E501 - a row of a table is one line


_ROBUST = """
Trained with the robust loss (generalised cross-entropy), for photos some of whose labels are wrong.
"""

_BALANCED = {
    way: f"""
Trained with `balance: {way}`: its probabilities are meant for photos in which every class is as frequent. `frostline predict --prior train`
turns them into those for the class shares below, `--prior rose=7,tulip=3` for others.
"""
    for way in ("loss", "sampling")
}


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
