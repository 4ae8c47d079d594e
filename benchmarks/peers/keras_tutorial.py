"""The tutorial's models in Keras on TensorFlow, written as the Keras documentation teaches.

    python keras_tutorial.py {frozen,fine-tuned,baseline,study} DATA --epochs N [--out FOLDER]

DATA is a folder of class folders. The architecture alone is used, without published weights: time does not depend on
them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
from keras import layers

SIZE = (224, 224)
BATCH = 32
SEED = 123


def say(event: str, **values: Any) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


def photos(data: str, subset: str) -> Any:
    return keras.utils.image_dataset_from_directory(
        data, validation_split=0.2, subset=subset, seed=SEED, image_size=SIZE, batch_size=BATCH, verbose=False
    )


def compiled(model: Any, learning_rate: float) -> Any:
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate=learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
    )
    return model


def baseline(classes: int) -> Any:
    """A small network, trained from random weights."""
    model = keras.Sequential(
        [
            keras.Input((*SIZE, 3)),
            layers.Rescaling(1.0 / 255),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(128, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(classes, activation="softmax"),
        ]
    )
    return compiled(model, 1e-3)


def with_head(base: Any, classes: int) -> Any:
    inputs = keras.Input((*SIZE, 3))
    x = layers.Rescaling(1.0 / 127.5, offset=-1)(inputs)
    x = base(x, training=False)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(128, activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    return keras.Model(inputs, layers.Dense(classes, activation="softmax")(x))


def frozen(classes: int) -> Any:
    """MobileNetV2 frozen, a new head."""
    base = keras.applications.MobileNetV2(input_shape=(*SIZE, 3), include_top=False, weights=None)
    base.trainable = False
    return compiled(with_head(base, classes), 1e-3)


def fine_tuned(classes: int) -> Any:
    """MobileNetV2 with its last six layers trained, a new head, small steps."""
    base = keras.applications.MobileNetV2(input_shape=(*SIZE, 3), include_top=False, weights=None)
    base.trainable = True
    for layer in base.layers[:-6]:
        layer.trainable = False
    return compiled(with_head(base, classes), 1e-4)


MODELS: dict[str, Callable[[int], Any]] = {"baseline": baseline, "frozen": frozen, "fine-tuned": fine_tuned}


def counted(weights: list[Any]) -> int:
    return sum(int(tf.size(w)) for w in weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=[*MODELS, "study"])
    parser.add_argument("data")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=Path, help="folder for the saved models")
    arguments = parser.parse_args()
    out = arguments.out or Path(tempfile.mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(SEED)

    training, validation = photos(arguments.data, "training"), photos(arguments.data, "validation")
    classes = len(training.class_names)
    counts = {"trained": len(training.file_paths), "validated": len(validation.file_paths)}
    training = training.prefetch(buffer_size=tf.data.AUTOTUNE)
    validation = validation.prefetch(buffer_size=tf.data.AUTOTUNE)

    figures = {}
    names = list(MODELS) if arguments.job == "study" else [arguments.job]
    for name in names:
        model = MODELS[name](classes)
        say("ready", model=name)
        told = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, _logs, name=name: say("epoch", model=name, epoch=epoch + 1)
        )
        model.fit(training, validation_data=validation, epochs=arguments.epochs, callbacks=[told], verbose=0)
        loss, accuracy = model.evaluate(validation, verbose=0)
        model.save(out / f"{name}.keras")
        figures[name] = {
            "parameters": counted(model.weights),
            "trainable": counted(model.trainable_weights),
            "loss": loss,
            "accuracy": accuracy,
        }
        say("saved", model=name)
    say("end", photos=counts, models=figures, versions={"tensorflow": tf.__version__, "keras": keras.__version__})


if __name__ == "__main__":
    main()
