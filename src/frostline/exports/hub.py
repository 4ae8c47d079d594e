"""A bundle on a Hugging Face hub. The only home of the hub's client for writing."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from frostline.bundles import bundle as bundles
from frostline.bundles import card
from frostline.bundles.about import About, licences_of
from frostline.cache import download
from frostline.errors import HubError, one_line
from frostline.files import write_text
from frostline.networks.licences import licence, named
from frostline.progress import Progress

FILES = ("README.md", "bundle.json", "model.safetensors")


def push(
    folder: str | Path,
    repository: str,
    *,
    private: bool = False,
    token: str = "",
    accept_licence: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Upload a bundle, with what its run and its exports add to the card; returns ``{"url", "files", "commit"}``.

    Only a bundle that is whole is uploaded, and of its folder only the bundle's own files. ``HF_ENDPOINT`` names
    another hub.

    Parameters
    ----------
    accept_licence
        Push although the licence of the weights that training started from asks for more than to keep its text, or
        forbids some uses: `frostline.networks.licences`.

    Raises
    ------
    BundleError
        Not a whole bundle.
    HubError
        A licence that was not accepted, no token, no such owner or no right, no answer: the message says which.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils.tqdm import disable_progress_bars

    progress = progress or Progress(quiet=True)
    source = Path(folder)
    _check_licences(bundles.load(source, "onnx").about, progress, accept_licence)
    hub = os.environ.get("HF_ENDPOINT", "").rstrip("/") or constants.ENDPOINT
    disable_progress_bars()
    try:
        download.Url(hub).knock()  # the client itself would try for a minute
    except download.SourceError as error:
        raise HubError(f"the hub {hub} does not answer: {error}; check the network, or HF_ENDPOINT") from error
    task = progress.task(f"Pushing to {repository}")
    with tempfile.TemporaryDirectory() as name:
        staged = Path(name)
        kept = [n for n in FILES if (source / n).is_file()]
        for each in kept:
            shutil.copy(source / each, staged / each)
        write_text(staged / "README.md", card.published(source))
        api = HfApi(endpoint=hub, token=token or None, library_name="frostline")
        try:
            made = api.create_repo(repository, private=private or None, exist_ok=True)
            commit = api.upload_folder(
                repo_id=made.repo_id, folder_path=staged, commit_message="Model bundle of frostline"
            )
        except Exception as error:  # the client raises a different family of errors in each version
            raise _refused(error, repository, hub) from error
    task.finish()
    return {"url": str(made), "files": sorted({*kept, "README.md"}), "commit": commit.oid}


def _check_licences(about: About, progress: Progress, accepted: bool) -> None:
    """Tell the licences of the weights that training started from; those that ask for more have to be accepted."""
    for network, name in licences_of(about).items():
        found = licence(name)
        if found.asks_first and not accepted:
            raise HubError(
                f"this model holds the weights of {network}, whose licence is the {named(name)}: "
                "read it, then push with --accept-licence"
            )
        if found.passing == "unknown":
            progress.say(f"the licence of the weights of {network} is not known here: look it up before you share them")
        elif found.asks_first:
            progress.say(f"pushed under your acceptance of the {named(name)}, for the weights of {network}")


def _refused(error: Exception, repository: str, hub: str) -> HubError:
    """What went wrong, in one line that says how to mend it."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401 or type(error).__name__ == "LocalTokenNotFoundError":
        return HubError(f"{hub} asks for a token that may write: give --token, set HF_TOKEN, or run 'hf auth login'")
    if status == 403:
        return HubError(f"this token may not write to {repository} on {hub}: give one with the right to write")
    if status == 404:
        return HubError(f"{hub} knows no repository or owner '{repository}': expected NAME or OWNER/NAME")
    reason = one_line(error, 200)
    if type(error).__name__ == "HFValidationError":
        return HubError(f"'{repository}' is no name for a repository: expected NAME or OWNER/NAME ({reason})")
    return HubError(f"{repository} could not be pushed to {hub}: {reason}")
