"""The options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout, all else on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, no words; errors only.")]
PHOTOS = (
    "Folder of class folders, or with train/ and test/; table (CSV, TSV, JSON lines, Parquet: path,label[,split][,group]); archive (zip, "
    "tar); data set saved by Hugging Face's datasets"
)
Data = Annotated[str, typer.Argument(help=f"{PHOTOS}. None: built-in sample.")]
Out = Annotated[str, typer.Option("--out", help="Run folder. Default: runs/NAME.")]
Backbone = Annotated[
    str,
    typer.Option(
        help="Pretrained network: any of timm's, or several: A+B. Default: mobilenet_v2; --preset best: mobilenet_v2+tf_efficientnet_lite0."
    ),
]
Protocol = Annotated[
    str, typer.Option(help="tutorial (80/20, the 20 % is reported) or rigorous (train/validation/test).")
]
Preset = Annotated[
    str, typer.Option(help="How much time to spend: fast (seconds), balanced (a minute) or best (some minutes).")
]
Epochs = Annotated[int | None, typer.Option(help="Epochs of every strategy, in place of the recipe's.")]
Seed = Annotated[int, typer.Option(help="Decides the split, the starting weights and every random choice.")]
Seeds = Annotated[int, typer.Option(help="Studies with so many seeds, from --seed on, and what they say together.")]
Test = Annotated[str, typer.Option(help="Other photos, in any form that DATA may have, to report on.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")]
Weights = Annotated[str, typer.Option(help="A file with the backbone's published weights.")]
ImageSize = Annotated[
    int,
    typer.Option(
        help="Side of the photos the network sees, pixels; 0: the backbone's own, times 9/7 (balanced) or 10/7 (best)."
    ),
]
Resize = Annotated[str, typer.Option(help="squash (the whole photo) or crop (its centre).")]
Engine = Annotated[str, typer.Option(help="What runs the frozen layers: auto, openvino, onnx or torch.")]
Device = Annotated[str, typer.Option(help="Where training runs: auto, cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="Arithmetic of training: auto, float32 or bfloat16.")]
StoredAs = Annotated[str, typer.Option(help="Activations on disk: float16 or float32.")]
Balance = Annotated[
    str, typer.Option(help="Unequal classes in training: none, loss (weighted) or sampling (drawn equally).")
]
Loss = Annotated[
    str,
    typer.Option(help="cross-entropy, or robust: where many labels are wrong (a fifth, say), they count for less."),
]
Twins = Annotated[
    str,
    typer.Option(
        help="What never stands on both sides of the split: near (near-twins too), bytes (the same bytes), or auto: near, but bytes with "
        "--protocol tutorial, whose split knows of none."
    ),
]
Prior = Annotated[
    str,
    typer.Option(
        help="How often each class is expected: train, equal, estimate (from these photos), rose=0.7,tulip=0.3 or a CSV (class,share). "
        "Default: as trained."
    ),
]
Line = Annotated[
    str | None,
    typer.Option(
        help="Freeze line of the fine-tuned strategy: a layer number, top or top-6; layers of A+B count in turns: top-12 is six of each."
    ),
]
CacheLimit = Annotated[
    str,
    typer.Option(
        help="What the cache may hold, e.g. 20GB; stores unused for longest go. Default: FROSTLINE_CACHE_LIMIT."
    ),
]
Explain = Annotated[
    int,
    typer.Option(
        min=-1,
        help="Photos of each strategy that get heat maps (8 s with the usual 32); 0: none; -1: 32, or none with --preset fast or a "
        "single strategy.",
    ),
]
Robustness = Annotated[
    str,
    typer.Option(
        help="How many reported photos to make worse in 60 ways at the end: a number, 0, all, or auto (24, 48 or 300 by preset where two "
        "pretrained strategies are compared)."
    ),
]
Exclude = Annotated[
    str,
    typer.Option(
        "--exclude", help="A list of photos to leave out or relabel, as check --write and check.html make it."
    ),
]
Settings = Annotated[str, typer.Option("--config", help="A run's config.toml, in place of all options but --out.")]
