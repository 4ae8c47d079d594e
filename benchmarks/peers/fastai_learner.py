"""fastai's `vision_learner` on one folder of photos, as its documentation teaches.

    python fastai_learner.py fine_tune DATA --epochs N [--out FILE]

DATA is a folder of class folders. `fine_tune(N)` trains the new head for one epoch, then the whole network for N. The
architecture alone is used, without published weights: time does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from fastai.vision.all import (
    Callback,
    ImageDataLoaders,
    Resize,
    accuracy,
    aug_transforms,
    default_split,
    model_meta,
    models,
    set_seed,
    vision_learner,
)

SEED = 123


def say(event: str, **values: Any) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


class Told(Callback):
    """Says when an epoch has ended, validation included; the first one, of the head alone, under a name of its own."""

    order = 90  # after the recorder

    def before_fit(self) -> None:
        self.frozen = not getattr(self, "began", False)
        self.began = True

    def after_epoch(self) -> None:
        if self.frozen:
            say("head", model="head")
        else:
            say("epoch", model="whole", epoch=self.epoch + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=["fine_tune"])
    parser.add_argument("data")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=Path, help="file for the model")
    arguments = parser.parse_args()
    out = (arguments.out or Path(tempfile.mkdtemp()) / "model.pkl").resolve()
    set_seed(SEED)
    dls = ImageDataLoaders.from_folder(
        arguments.data, valid_pct=0.2, seed=SEED, item_tfms=Resize(224), batch_tfms=aug_transforms()
    )
    # fastai cuts a network at its last pooling layer and MobileNetV2 pools in a function; -1: all but the classifier.
    # `vision_learner(cut=-1)` is meant for this, but fastai 2.8.12 doesn't pass it on.
    model_meta[models.mobilenet_v2] = {"cut": -1, "split": default_split}
    learn = vision_learner(dls, models.mobilenet_v2, pretrained=False, metrics=accuracy)
    learn.add_cb(Told())
    say("ready", model="whole")
    with learn.no_logging(), learn.no_bar():
        learn.fine_tune(arguments.epochs)
    right = float(learn.recorder.values[-1][-1])
    learn.remove_cb(Told)
    learn.export(out)
    say(
        "end",
        photos={"trained": len(dls.train_ds), "validated": len(dls.valid_ds)},
        models={"whole": {"parameters": sum(p.numel() for p in learn.model.parameters()), "accuracy": right}},
        versions={name: metadata.version(name) for name in ("fastai", "torch", "torchvision")},
    )


if __name__ == "__main__":
    main()
