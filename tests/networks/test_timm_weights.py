"""Weights of timm's networks ahead of time: a hub, a mirror and files, all on this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save
from torchvision.models import resnet18

from frostline.networks import backbone
from support.commands import call, document, must
from support.photos import write_folder
from support.servers import Hub, LocalServer

NETWORK, FULL = "test_vit", "test_vit.r160_in1k"
REPOSITORY = f"timm/{FULL}"


@pytest.fixture(scope="module")
def published() -> bytes:
    torch.manual_seed(9)
    return save(timm.create_model(NETWORK).state_dict())


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Empty caches, no mirror and no hub, until `alone(url)` names one."""
    from huggingface_hub import constants

    def point(url: str) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FROSTLINE_WEIGHTS_URL", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    point("http://127.0.0.1:9")
    return point


@pytest.fixture
def mirror(tmp_path: Path, published: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder behind a plain web server, laid out as the docs say."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / f"{FULL}.safetensors").write_bytes(published)
    digest = hashlib.sha256(published).hexdigest()
    (folder / f"{FULL}.safetensors.sha256").write_text(f"{digest}  {FULL}.safetensors\n")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = LocalServer(partial(Quiet, directory=str(folder)))  # type: ignore[arg-type]
    monkeypatch.setenv("FROSTLINE_WEIGHTS_URL", server.url)
    yield folder
    server.close()


def held(name: str = NETWORK) -> dict[str, Any]:
    (row,) = json.loads(must("weights", name, "--json", "--quiet").out)
    return dict(row)


def tensors_are(published: bytes, name: str = NETWORK) -> bool:
    body = backbone.build(name, "pretrained").network.body.state_dict()
    expected = load_bytes(published)
    return all(torch.equal(tensor, expected[key]) for key, tensor in body.items())


def load_bytes(data: bytes) -> dict[str, torch.Tensor]:
    from safetensors.torch import load

    return load(data)


def test_weights_are_fetched_from_the_hub_once(published: bytes, alone: Callable[[str], None]) -> None:
    hub = Hub({REPOSITORY: published})
    alone(hub.url)
    row = held()
    assert (row["sha256"], row["revision"]) == (hashlib.sha256(published).hexdigest(), "0" * 40)
    assert (row["cached"], row["size"], row["licence"]) == ("yes", len(published), "apache-2.0")
    hub.close()  # from here on nobody answers
    assert held() == row
    assert held(FULL)["path"] == row["path"]
    assert row in json.loads(must("weights", "--json", "--quiet").out)
    assert FULL.partition(".")[0] in must("weights").out
    assert tensors_are(published)
    (listed,) = [r for r in json.loads(must("backbones", NETWORK, "--json").out) if r["name"] == NETWORK]
    assert listed["weights"] == "in the cache"


def test_what_the_hubs_cache_damaged_is_told(published: bytes, alone: Callable[[str], None]) -> None:
    hub = Hub({REPOSITORY: published})
    alone(hub.url)
    Path(held()["path"]).resolve().write_bytes(published[:-1] + b"?")
    hub.close()
    assert "is damaged: its SHA-256 is" in call("weights", NETWORK).error


def test_a_hub_without_the_network_and_no_hub_are_one_line(published: bytes, alone: Callable[[str], None]) -> None:
    assert "no weights for 'test_vit' from timm's hub (timm/test_vit.r160_in1k)" in call("weights", NETWORK).error
    hub = Hub({REPOSITORY: published})
    alone(hub.url)
    assert "from timm's hub (timm/test_resnet.r160_in1k)" in call("weights", "test_resnet").error
    hub.close()
    assert "nobody has published weights" in call("weights", "efficientnet_lite1").error


def test_a_mirror_comes_before_the_hub_and_its_digest_is_checked(mirror: Path, published: bytes) -> None:
    row = held()
    assert Path(row["path"]).read_bytes() == published
    assert Path(row["path"]).name == f"{FULL}-{row['sha256'][:8]}.safetensors"
    assert tensors_are(published)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: (m / f"{FULL}.safetensors").write_bytes(b"another file"), "another file"),
        (lambda m: (m / f"{FULL}.safetensors.sha256").unlink(), "HTTP 404"),
        (lambda m: (m / f"{FULL}.safetensors.sha256").write_text("<html>"), "holds no SHA-256"),
    ],
)
def test_a_mirror_that_is_wrong_is_told(mirror: Path, change: Callable[[Path], object], says: str) -> None:
    change(mirror)
    assert says in call("weights", NETWORK).error


def test_a_file_is_checked_kept_and_used(tmp_path: Path, published: bytes) -> None:
    """The air-gapped way: a file comes on a stick."""
    (tmp_path / "stick.safetensors").write_bytes(published)
    other = tmp_path / "other.safetensors"
    other.write_bytes(save(timm.create_model("test_resnet").state_dict()))
    assert "the weights are not those of test_vit" in call("weights", NETWORK, "--path", other).error
    must("weights", NETWORK, "--path", tmp_path / "stick.safetensors")
    (tmp_path / "stick.safetensors").unlink()
    assert held()["sha256"] == hashlib.sha256(published).hexdigest()
    assert tensors_are(published)
    kept = Path(held()["path"])
    kept.write_bytes(b"damaged")
    assert "no weights for 'test_vit'" in call("weights", NETWORK).error


def test_a_file_of_torchvision_starts_a_study(tmp_path: Path) -> None:
    torch.manual_seed(4)
    state = resnet18(weights=None).state_dict()
    torch.save(state, tmp_path / "resnet18-f37072fd.pth")
    data = write_folder(tmp_path / "data", ["a", "b"], 12)
    options = ("--backbone", "resnet18", "--weights", tmp_path / "resnet18-f37072fd.pth", "--image-size", "64")
    must("fit", data, "--strategy", "frozen", "--preset", "fast", "--epochs", "1", "--out", tmp_path / "run", *options)
    tensors = load_file(tmp_path / "run" / "frozen" / "bundle" / "model.safetensors")
    assert torch.equal(tensors["backbone.body.layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    (origin,) = document(tmp_path / "run")["strategies"][0]["pretrained_weights"]
    assert origin["source"] == "resnet18-f37072fd.pth"
    assert origin["sha256"] == hashlib.sha256((tmp_path / "resnet18-f37072fd.pth").read_bytes()).hexdigest()
    assert origin["revision"] == ""
