"""The model card that every bundle carries, in the Hugging Face format (YAML front matter, then Markdown)."""

from __future__ import annotations

import json
from collections.abc import Mapping

from frostline.balance import unequal
from frostline.bundle import About
from frostline.config import Config


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
metrics: [{metric}]
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
{balanced}
## Photos

| class | photos |
| --- | --- |
{photos}

## Limits

It knows these classes only: any other subject is forced into one of them. The figures hold for photos like those above; light, cameras or
places that were not among them can cost accuracy that no figure here shows.
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
