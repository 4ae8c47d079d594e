"""What the hub's client keeps in its cache, found without importing the client's own network code."""

from __future__ import annotations

from pathlib import Path

FILENAMES = ("model.safetensors", "pytorch_model.bin")
"""Under which timm's hub has weights, in the order of preference."""


def snapshot(repository: str) -> Path | None:
    """The folder of a repository's newest known revision; its name is the revision. None: nothing is kept."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    try:
        revision = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    kept = folder / "snapshots" / revision
    return kept if revision and kept.is_dir() else None


def kept(repository: str, filenames: tuple[str, ...] = FILENAMES) -> Path | None:
    """The first of the files that is there."""
    folder = snapshot(repository)
    files = (folder / name for name in filenames) if folder is not None else ()
    return next((file for file in files if file.is_file()), None)
