"""The model card that every bundle carries, in the Hugging Face format (YAML front matter, then Markdown)."""

from __future__ import annotations

import json
from collections.abc import Mapping

from frostline.bundle import About
from frostline.config import Config


def write(about: About, config: Config, counts: Mapping[str, int]) -> str:
    """The card's text: what the model is, how to use it, what it was measured at, and its limits."""
    f = about.figures
    low, high = f["accuracy_ci"]
    reported = {
        "test": "photos that took no part in training or in any choice",
        "validation": "the validation photos, which were watched in training (the tutorial's protocol)",
    }[f["reported_on"]]
    cells = [f"{100 * f['accuracy']:.1f} %", f"{100 * low:.1f} to {100 * high:.1f} %"]
    cells += [f"{f[name]:.3f}" for name in ("macro_f1", "log_loss", "ece_shipped")]
    start = "published ImageNet weights" if about.weights == "pretrained" else "random weights"
    rendered = (
        "\n**Made with pictures that were rendered by code: it knows no real photographs.**\n" if f["rendered"] else ""
    )
    photos = "\n".join(f"| {_cell(name)} | {count} |" for name, count in counts.items())
    return f"""---
library_name: frostline
pipeline_tag: image-classification
base_model: {json.dumps(about.backbone)}
metrics: [accuracy]
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

| accuracy | 95 % interval | macro F1 | log loss | calibration error |
| --- | --- | --- | --- | --- |
| {" | ".join(cells)} |

## Photos

| class | photos |
| --- | --- |
{photos}

## Limits

It knows these classes only: any other subject is forced into one of them. The figures hold for photos like those above; light, cameras or
places that were not among them can cost accuracy that no figure here shows.
"""


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
