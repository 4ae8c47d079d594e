"""Run folders made by hand, for reports to be built from, and visits to their pages by a browser."""

from __future__ import annotations

import csv
import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FLOWERS = Path(__file__).parents[3] / "shared" / "flowers"

CLASSES = ["daisy", "rose", "tulip"]

PARAMETERS = {"baseline": (11169605, 11169605), "frozen": (2388485, 164613), "fine-tuned": (2388485, 884613)}

LINES = {"baseline": (0, 11), "frozen": (139, 139), "fine-tuned": (133, 139)}

ACCURACY = {"baseline": 0.6712, "frozen": 0.8834, "fine-tuned": 0.9123}


def photos(folder: Path, classes: list[str], each: int) -> list[tuple[str, str]]:
    """Write `each` small pictures per class: (path, label) of each. Folders are numbered, labels may be anything."""
    rng = np.random.default_rng(0)
    rows = []
    for index, label in enumerate(classes):
        (folder / f"class {index}").mkdir(parents=True, exist_ok=True)
        for number in range(each):
            path = f'class {index}/{number} it\'s "quoted" & <b>.jpg'
            Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(folder / path, "JPEG")
            rows.append((path, label))
    return rows


def history(epochs: int) -> list[dict[str, float]]:
    keys = ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds")
    return [
        dict(zip(keys, (e, 1 / e, 1 - 0.5 / e, 1.2 / e, 0.9 - 0.4 / e, 3.25), strict=True))
        for e in range(1, epochs + 1)
    ]


def strategy(name: str, classes: list[str]) -> dict[str, Any]:
    accuracy, size = ACCURACY[name], len(classes)
    total, trainable = PARAMETERS[name]
    line, layers = LINES[name]
    row = {"precision": 0.9, "recall": accuracy - 0.01, "f1": accuracy - 0.02, "support": 30}
    return {
        "name": name,
        "backbone": "small_cnn" if name == "baseline" else "mobilenet_v2",
        "weights": "random" if name == "baseline" else "pretrained",
        "freeze_line": line,
        "layers": layers,
        "parameters": {"total": total, "trainable": trainable},
        "accuracy": accuracy,
        "accuracy_ci": [accuracy - 0.021, accuracy + 0.018],
        "macro_f1": accuracy - 0.004,
        "log_loss": 0.2718,
        "ece": 0.0456,
        "ece_calibrated": 0.0123,
        "temperature": 1.31,
        "per_class": [{"class": label, **row} for label in classes],
        "confusion": (20 * np.eye(size, dtype=int) + 3).tolist(),
        "history": history(5),
        "best_epoch": 4,
        "head_history": history(3) if name == "fine-tuned" else [],
        "seconds": {"prefix": 14.2, "train": 134, "evaluate": 3.1, "total": 151.3},
        "peak_rss_mb": 1834,
    }


def write_predictions(folder: Path, rows: list[tuple[str, str]], classes: list[str]) -> None:
    """predictions.csv of photos (path, label); every second one is wrong, and confidence falls from row to row."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "true", "predicted", "confidence", *(f"p_{label}" for label in classes)])
        for index, (path, label) in enumerate(rows):
            guess = label if index % 2 else classes[(classes.index(label) + 1) % len(classes)]
            writer.writerow([path, label, guess, f"{0.999 - index / 1000:.4f}", *(0.1 for _ in classes)])


def make_run(
    folder: Path,
    *,
    names: tuple[str, ...] = tuple(ACCURACY),
    classes: list[str] = CLASSES,
    each: int = 4,
    **changes: Any,
) -> Path:
    """A run folder with the named strategies ended; every second prediction is wrong. `changes` go into study.json."""
    run, root = folder / "run", folder / "photos"
    rows = photos(root, classes, each)
    for name in names:
        write_predictions(run / name, rows, classes)
    run.mkdir(exist_ok=True)
    with (run / "manifest.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(
            [["path", "label", "split", "sha256"], *([*row, "test", "0" * 64] for row in rows)]
        )
    wanted = "".join(f'\n[[strategies]]\nname = "{name}"\n' for name in ACCURACY)
    (run / "config.toml").write_text(f'data = "{root.as_posix()}"\nseed = 7\n{wanted}', encoding="utf-8")
    study = {
        "frostline": "0.1.0",
        "created": "2026-03-04T10:22:31+00:00",
        "status": "finished",
        "seed": 7,
        "protocol": "rigorous",
        "preset": "balanced",
        "reported_on": "test",
        "dataset": {
            "name": "garden",
            "root": str(root),
            "test_root": None,
            "photos": len(rows),
            "classes": classes,
            "counts": dict.fromkeys(classes, each),
            "train": 70,
            "validation": 20,
            "test": 12,
            "skipped": [{"path": "rose/torn.jpg", "why": "truncated: half of it is missing"}],
            "twins": [["class 0/a.jpg", "class 0/b.jpg"]],
            "conflicts": [[{"path": rows[0][0], "class": classes[0]}, {"path": "class 1/x.jpg", "class": classes[1]}]],
            "sample": False,
        },
        "strategies": [strategy(name, classes) for name in names],
        "comparisons": [
            {"a": "fine-tuned", "b": "frozen", "difference": 0.0289, "ci": [-0.001, 0.052], "p_value": 0.0342,
             "verdict": "fine-tuned beats frozen by 2.9 points, 95 % CI -0.1 to 5.2"}
        ],
        "claims": [{"claim": "Training from scratch overfits.", "measured": "It did.", "verdict": "holds"}],
        "answer": "Fine-tune: accuracy 91.2 % (95 % CI 89.1 to 93.0).",
        "seconds": 402.7,
        "machine": {"cpu": "Test CPU", "cores": 2, "python": "3.11", "torch": "2.9", "platform": "Linux"},
    }  # fmt: skip
    save(run, {**study, **changes})
    return run


def save(run: Path, study: dict[str, Any]) -> None:
    (run / "study.json").write_text(json.dumps(study), encoding="utf-8")


def load(run: Path) -> dict[str, Any]:
    study: dict[str, Any] = json.loads((run / "study.json").read_text(encoding="utf-8"))
    return study


def read(page: Path) -> str:
    """What a reader sees: the text of the page without tags, scripts and style, spaces evened out."""
    body = re.sub(r"<(script|style)\b.*?</\1>", " ", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


class Visit:
    """A page opened from disk without a network; what it asked for, said and popped up."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.asked: list[str] = []
        self.said: list[str] = []
        self.context = browser.new_context(offline=True, **options)
        self.page = self.context.new_page()
        self.page.route(re.compile(r"^(?!file:|data:)"), lambda route: route.abort())
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.goto(path.resolve().as_uri())

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
