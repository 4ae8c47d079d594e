"""A head on frozen features as an expert writes it: every photo runs through the network once, then one regression.

    python features_once.py features DATA [--weights FILE] [--out FILE]

DATA is a folder of class folders. MobileNetV2 up to its pooled features in PyTorch's inference mode, channels last, in
bfloat16 where the processor multiplies it; JPEGs are decoded at the scale that is needed, by as many workers as there
are cores; scikit-learn's logistic regression on 80 % of the photos, asked about the other 20 %. It runs with
frostline's own interpreter, so the versions of PyTorch are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from importlib import metadata
from pathlib import Path

import joblib
import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms

SIDE, BATCH, SEED = 224, 64, 123


def say(event: str, **values: object) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


def decoded(path: str) -> Image.Image:
    """A photo as RGB; a JPEG decoded at an eighth, a quarter or a half where that is still large enough."""
    photo = Image.open(path)
    photo.draft("RGB", (SIDE, SIDE))
    return photo.convert("RGB")


def network(weights: Path | None) -> nn.Module:
    model = models.mobilenet_v2(weights=None)
    if weights:
        model.load_state_dict(torch.load(weights, weights_only=True))
    features = nn.Sequential(model.features, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return features.eval().to(memory_format=torch.channels_last)


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for it; without them it would be slower than float32."""
    about = Path("/proc/cpuinfo")
    return about.exists() and "avx512_bf16" in about.read_text(encoding="utf-8")


def features(data: str, weights: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Pooled features (N, 1280), and the class of each photo (N,)."""
    prepare = transforms.Compose(
        [
            transforms.Resize((SIDE, SIDE)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    photos = datasets.ImageFolder(data, prepare, loader=decoded)
    model = network(weights)
    say("ready", model="features")
    found = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16()):
        for batch, _ in DataLoader(photos, BATCH, num_workers=os.cpu_count() or 1):
            found.append(model(batch.to(memory_format=torch.channels_last)).float().numpy())
    return np.concatenate(found), np.array(photos.targets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=["features"])
    parser.add_argument("data")
    parser.add_argument("--epochs", type=int, help="not used: a regression has none")
    parser.add_argument("--weights", type=Path, help="torchvision's weights of MobileNetV2; random ones without")
    parser.add_argument("--out", type=Path, help="file for the regression")
    arguments = parser.parse_args()
    x, y = features(arguments.data, arguments.weights)
    order = np.random.default_rng(SEED).permutation(len(y))
    held, trained = np.split(order, [len(y) // 5])
    head = LogisticRegression(max_iter=1000).fit(x[trained], y[trained])
    joblib.dump(head, arguments.out or Path(tempfile.mkdtemp()) / "head.joblib")
    accuracy = float(head.score(x[held], y[held]))
    say(
        "end",
        photos={"trained": len(trained), "validated": len(held)},
        models={"features": {"parameters": head.coef_.size + head.intercept_.size, "accuracy": accuracy}},
        versions={name: metadata.version(name) for name in ("torch", "torchvision", "scikit-learn")},
    )


if __name__ == "__main__":
    main()
