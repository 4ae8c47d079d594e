"""Backbones: published weights in the right places, the publishers' own transforms, timm's hub, and what is listed of
them."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save
from torch import Tensor
from torchvision.models import mobilenet_v2

from frostline.errors import WeightsError
from frostline.networks import backbone, measure, timm_names, timm_weights, weights
from frostline.networks.activations import tap
from frostline.networks.compilation import Runtime
from frostline.networks.short_list import BY_NAME, Named
from frostline.photos.decoding import Transform, prepare
from support.commands import call, document, must, spawn, table
from support.photos import FLOWERS, needs_flowers, write_folder
from support.servers import Hub

Published = Callable[[str], Path]

PUBLISHED = ("mobilenet_v2", "tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
LITES = PUBLISHED[1:]
BLOCKS = "efficientvit_b0"
"""Its attention looks at the photo's size in Python."""

# ---- naming things: proof that every tensor went where it belongs
# -----------------------------------------------------

# photos that come with libraries -> ImageNet classes that name what is on them
OBJECTS: dict[tuple[str, str], set[int]] = {
    ("skimage", "data/chelsea.png"): {281, 282, 285},  # tabby, tiger cat, Egyptian cat
    ("skimage", "data/coffee.png"): {967, 504, 968},  # espresso, coffee mug, cup
    ("skimage", "data/rocket.jpg"): {657, 744, 812},  # missile, projectile, space shuttle
    ("skimage", "data/motorcycle_left.png"): {665, 670},  # moped, motor scooter
    ("skimage", "data/camera.png"): {872, 759},  # tripod, reflex camera
    ("sklearn", "datasets/images/china.jpg"): {663, 698},  # monastery, palace
}
DAISY = 985


def library_photo(package: str, path: str) -> bytes | None:
    """A file of an installed package, which is not imported; None where it is not installed."""
    spec = find_spec(package)
    folders = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    return next((file.read_bytes() for folder in folders if (file := folder / path).is_file()), None)


class Namer:
    """A backbone with its publisher's classifier put back on, and photos as the publisher framed them."""

    def __init__(self, name: str, file: Path) -> None:
        built = backbone.build(name, "pretrained", resize="crop")
        self.network, self.transform = built.network, built.transform
        self.weight, self.bias = list(weights.load_state_dict(file).values())[-2:]

    def __call__(self, photos: list[bytes]) -> list[int]:
        """ImageNet class of each photo."""
        batch = torch.from_numpy(np.stack([prepare(data, self.transform) for data in photos]))
        with torch.inference_mode():
            features = torch.cat([self.network(part) for part in batch.split(4)])
            return (features @ self.weight.T + self.bias).argmax(1).tolist()


@pytest.mark.parametrize("name", PUBLISHED)
def test_known_objects_are_named_rightly(name: str, published: Published) -> None:
    namer = Namer(name, published(name))
    assert namer.weight.shape == (1000, 1280)
    known = {data: right for place, right in OBJECTS.items() if (data := library_photo(*place)) is not None}
    assert known, "scikit-learn brings a photo at least"
    found = namer(list(known))
    right = [number in classes for number, classes in zip(found, known.values(), strict=True)]
    # of a thousand classes; measured: all six, Lite2 all but the rocket
    assert sum(right) >= max(1, len(known) - 1), found


@needs_flowers
@pytest.mark.parametrize("name", PUBLISHED)
def test_daisies_are_named_daisies(name: str, published: Published) -> None:
    """Most of them: the class holds junk and other flowers too. Measured: 15 to 18 of 25."""
    photos = [path.read_bytes() for path in sorted((FLOWERS / "daisy").iterdir())[::25]]
    found = Namer(name, published(name))(photos)
    assert found.count(DAISY) > len(found) / 2, found


@pytest.mark.parametrize("name", LITES)
def test_every_tensor_of_the_lites_has_its_place(name: str, published: Published) -> None:
    """In the publisher's order, each of the kind and shape that its place asks for; only the classifier is left
    over."""
    file = weights.load_state_dict(published(name))
    came = [(k, v) for k, v in file.items() if not k.endswith("num_batches_tracked")]
    body = backbone.build(name, "pretrained").network.body
    placed = [(k, v) for k, v in body.state_dict().items() if not k.endswith("num_batches_tracked")]
    assert len(came) == len(placed) + 2
    assert [tuple(v.shape) for _, v in came[-2:]] == [(1000, 1280), (1000,)]
    for (ours, tensor), (theirs, value) in zip(placed, came, strict=False):
        assert ours.rpartition(".")[2] == theirs.rpartition(".")[2]
        assert torch.equal(tensor, value), (ours, theirs)


def test_a_file_of_another_lite_is_refused(published: Published) -> None:
    state = weights.load_state_dict(published("tf_efficientnet_lite1"))
    body = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    with pytest.raises(WeightsError, match=r"the weights are not those of tf_efficientnet_lite0: .+ is expected"):
        backbone.load(body, state, "tf_efficientnet_lite0")
    line = call("fit", ".", "--backbone", "tf_efficientnet_lite0", "--weights", published("mobilenet_v2")).error
    assert "the weights are not those of tf_efficientnet_lite0" in line


# ---- renaming by position --------------------------------------------------------------------------------------------


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As a publisher with other names and no counters would write it, and a classifier at the end."""
    found = {f"net.{i}.{k.rpartition('.')[2]}": v for i, (k, v) in enumerate(state.items()) if v.dim()}
    return {**found, "fc.weight": torch.ones(7, 9), "fc.bias": torch.ones(7)}


def tiny(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    body = timm.create_model("test_efficientnet", num_classes=0)
    for tensor in body.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn_like(tensor))
    return body


def test_tensors_of_other_names_are_placed_by_their_order() -> None:
    source, body = tiny(1), tiny(2)
    backbone.load(body, renamed(source.state_dict()), "tiny")
    assert all(torch.equal(body.state_dict()[k], v) for k, v in source.state_dict().items() if v.dim())


def test_timms_own_names_win() -> None:
    source, body = tiny(1), tiny(2)
    backbone.load(body, dict(reversed(source.state_dict().items())), "tiny")
    assert all(torch.equal(body.state_dict()[k], v) for k, v in source.state_dict().items())


def _swapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A batch norm whose weight and bias come the other way round: of the same shape."""
    names = list(state)
    i = next(n for n, k in enumerate(names) if k.endswith(".bias"))
    names[i - 1], names[i] = names[i], names[i - 1]
    return {k: state[k] for k in names}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_swapped, "net.2.bias .+ stands where .+ is expected"),
        (lambda state: dict(list(state.items())[:-3]), r"\d+ tensors, expected \d+ and a classifier's two"),
        (lambda state: {**state, "more.weight": torch.ones(2)}, "tensors, expected"),
        (lambda _: {}, "0 tensors, expected"),
    ],
)
def test_what_does_not_fit_is_refused(change: Callable[[dict[str, Tensor]], dict[str, Tensor]], says: str) -> None:
    with pytest.raises(WeightsError, match=f"the weights are not those of tiny: .*{says}") as error:
        backbone.load(tiny(2), change(renamed(tiny(1).state_dict())), "tiny")
    assert "\n" not in str(error.value)


# ---- transforms ------------------------------------------------------------------------------------------------------

HALF = (0.5, 0.5, 0.5)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mobilenet_v2", Transform(224, "crop", MEAN, STD, "bilinear", 0.875)),
        ("tf_efficientnet_lite0", Transform(224, "crop", HALF, HALF, "bicubic", 0.875)),
        ("tf_efficientnet_lite1", Transform(240, "crop", HALF, HALF, "bicubic", 0.882)),
        ("tf_efficientnet_lite2", Transform(260, "crop", HALF, HALF, "bicubic", 0.890)),
        ("vit_tiny_patch16_224", Transform(224, "crop", HALF, HALF, "bicubic", 0.9)),
        ("resnet18.tv_in1k", Transform(224, "crop", MEAN, STD, "bilinear", 0.875)),
        ("vit_small_patch14_dinov2", Transform(224, "crop", MEAN, STD, "bicubic", 1.0)),  # and not its default, 518
        ("vit_small_patch14_dinov2.lvd142m", Transform(224, "crop", MEAN, STD, "bicubic", 1.0)),
        ("test_resnet", Transform(160, "crop", HALF, HALF, "bilinear", 0.95)),
    ],
)
def test_each_network_sees_photos_as_its_publisher_framed_them(name: str, expected: Transform) -> None:
    assert backbone.info(name).transform(0, "crop") == expected


def test_another_photo_size_is_told_to_networks_made_for_one() -> None:
    built = backbone.build("test_vit", "random", image_size=64)
    assert built.transform.size == 64
    assert built.network(built.example()).shape == (1, built.features)


# ---- MobileNetV2, which is built here --------------------------------------------------------------------------------


def test_mobilenet_is_the_publishers_to_the_bit() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        theirs = mobilenet_v2().features.eval()
    ours = backbone.build("mobilenet_v2", "random", seed=7).network.body.features
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))
    photos = torch.rand(2, 3, 64, 64)
    assert torch.equal(ours(photos), theirs(photos))


# ---- names that are wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mobilenet_v22", "did you mean 'mobilenet_v2'"),
        ("tf_efficientnet_lite", "did you mean 'tf_efficientnet_lite"),
        ("vit_tiny", "did you mean 'vit_tiny_patch16_224'"),
        ("dinov2", "did you mean 'vit_small_patch14_dinov2'"),
        ("resnet18.tv_in1", "resnet18 has no published weights 'tv_in1'; did you mean 'tv_in1k'"),
        ("resnet18.", r"unknown backbone 'resnet18\.'; did you mean 'resnet18'"),
    ],
)
def test_unknown_names_get_the_nearest_one(name: str, says: str, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", ["a", "b"], 3)
    assert re.search(says, call("fit", data, "--out", tmp_path / "run", "--backbone", name).error)


@pytest.mark.parametrize("command", ["study", "fit", "sweep", "check", "weights"])
def test_every_command_suggests_the_likely_name(command: str, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", ["a", "b"], 3)
    told = ("vit_tiny",) if command == "weights" else (data, "--backbone", "vit_tiny", "--out", tmp_path / "out")
    line = call(command, *told).error
    assert line.startswith("error: unknown backbone 'vit_tiny'; did you mean 'vit_tiny_patch16_224'?")


def test_a_network_without_published_weights_says_so(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", ["a", "b"], 3)
    line = call("fit", data, "--out", tmp_path / "run", "--backbone", "efficientnet_lite1").error
    assert "efficientnet_lite1: nobody has published weights that timm knows of" in line


def test_a_file_of_another_network_is_refused_in_one_line(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", ["a", "b"], 3)
    file = tmp_path / "other.safetensors"
    file.write_bytes(save(timm.create_model("test_resnet").state_dict()))
    options = ("--out", tmp_path / "run", "--backbone", "test_efficientnet", "--weights", file)
    assert "the weights are not those of test_efficientnet: " in call("fit", data, *options).error


# ---- networks that can't be recorded layer by layer
# -------------------------------------------------------------------


def test_what_cannot_be_recorded_is_cut_at_its_blocks(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", ["a", "b"], 12)
    torch.manual_seed(5)
    file = tmp_path / "weights.safetensors"
    file.write_bytes(save(timm.create_model(BLOCKS).state_dict()))
    options = ("--backbone", BLOCKS, "--weights", file, "--line", "top-8", "--image-size", "64", "--epochs", "1")
    result = must("fit", data, "--out", tmp_path / "run", *options)
    assert f"{file} is taken as it is" in result.err
    assert re.search(rf"{BLOCKS}: 4 of its \d+ layers are whole blocks \(LiteMLA\) that can't be recorded", result.err)
    about = json.loads((tmp_path / "run" / "fine-tuned" / "bundle" / "bundle.json").read_text())
    (trained,) = json.loads((tmp_path / "run" / "study.json").read_text())["strategies"]
    found = trained["unfrozen"]
    assert found["frozen_layers"] == found["layers"] - 8
    assert found == about["figures"]["unfrozen"]
    row = listed(BLOCKS, "--layers")[BLOCKS]
    assert (row["layers"], row["blocks"]) == (found["layers"], 4)
    predictions = table(tmp_path / "run" / "fine-tuned" / "predictions.csv")
    shown = must(
        "predict", tmp_path / "run" / "fine-tuned" / "bundle", *(data / row["path"] for row in predictions)
    ).out
    assert [line.split(",")[-2:] for line in shown.splitlines()[1:]] == [list(r.values())[-2:] for r in predictions]


# ---- timm's hub ------------------------------------------------------------------------------------------------------

REPOSITORY = "timm/test_resnet.r160_in1k"


@pytest.fixture
def hub() -> Iterator[tuple[Hub, dict[str, Tensor]]]:
    torch.manual_seed(8)
    state = timm.create_model("test_resnet").state_dict()
    hub = Hub({REPOSITORY: save(state)})
    yield hub, state
    hub.close()


def hub_settings(url: str, folder: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": url, "HF_HOME": str(folder), "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def test_a_network_comes_from_the_hub(hub: tuple[Hub, dict[str, Tensor]], tmp_path: Path) -> None:
    server, published = hub
    data = write_folder(tmp_path / "data", ["a", "b"], 12)
    options = (
        "--strategy",
        "frozen",
        "--backbone",
        "test_resnet",
        "--preset",
        "fast",
        "--epochs",
        "1",
        "--out",
        tmp_path / "run",
    )
    process = spawn("fit", data, *options, "--engine", "onnx", **hub_settings(server.url, tmp_path / "hub"))
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert any("model.safetensors" in path for path in server.asked)
    assert "Fetching test_resnet from timm's hub" in said
    bundle = tmp_path / "run" / "frozen" / "bundle"
    tensors = load_file(bundle / "model.safetensors")
    placed = {k.removeprefix("backbone.body."): v for k, v in tensors.items() if k.startswith("backbone.body.")}
    assert set(published) - set(placed) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(v, published[k]) for k, v in placed.items())
    transform = json.loads((bundle / "bundle.json").read_text())["transform"]
    assert Transform.from_dict(transform) == backbone.info("test_resnet").transform(0, "squash")
    row = document(tmp_path / "run")["strategies"][0]
    assert row["image_size"] == 160
    origin = {
        "network": "test_resnet", "source": REPOSITORY, "revision": "0" * 40, "licence": "apache-2.0",
        "sha256": hashlib.sha256(save(published)).hexdigest(),
    }  # fmt: skip
    assert (
        row["pretrained_weights"] == json.loads((bundle / "bundle.json").read_text())["pretrained_weights"] == [origin]
    )
    card = (bundle / "README.md").read_text()
    assert f"| test_resnet | Apache-2.0 | {REPOSITORY} | {'0' * 40} | {origin['sha256']} |" in card


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Point this process's hub client, which has read its environment already, somewhere else."""
    from huggingface_hub import constants

    def point(url: str) -> None:
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return point


def test_what_the_hub_has_not_is_told_in_one_line(
    hub: tuple[Hub, dict[str, Tensor]], endpoint: Callable[[str], None], tmp_path: Path
) -> None:
    data = write_folder(tmp_path / "data", ["a", "b"], 3)
    endpoint(hub[0].url)
    line = call("fit", data, "--out", tmp_path / "run", "--backbone", "test_vit").error
    assert "no weights for 'test_vit' from timm's hub (timm/test_vit.r160_in1k): " in line
    hub[0].close()
    line = call("fit", data, "--out", tmp_path / "run", "--backbone", "test_resnet").error
    assert f"no weights for 'test_resnet' from timm's hub ({REPOSITORY}): " in line
    assert "or choose one that the package index has: mobilenet_v2, tf_efficientnet_lite0" in line


def test_one_of_several_networks_that_can_not_be_had_is_told_with_the_way_out(
    endpoint: Callable[[str], None], tmp_path: Path
) -> None:
    data = write_folder(tmp_path / "data", ["a", "b"], 3)
    endpoint("http://127.0.0.1:9")
    line = call("fit", data, "--out", tmp_path / "run", "--backbone", "test_resnet+test_efficientnet").error
    assert "no weights for 'test_resnet'" in line
    assert line.endswith(
        "It is one of test_resnet+test_efficientnet: 'frostline weights test_resnet --path FILE' keeps a file, and "
        "--backbone can name another, or one network alone"
    )


def test_a_wrong_file_on_the_hub_is_told_in_one_line(endpoint: Callable[[str], None], tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", ["a", "b"], 3)
    other = Hub({REPOSITORY: save(timm.create_model("test_efficientnet").state_dict())})
    try:
        endpoint(other.url)
        line = call("fit", data, "--out", tmp_path / "run", "--backbone", "test_resnet").error
    finally:
        other.close()
    assert "no weights for 'test_resnet' from timm's hub" in line


# ---- what is listed --------------------------------------------------------------------------------------------------


def listed(*arguments: str) -> dict[str, dict[str, object]]:
    return {row["name"]: row for row in json.loads(must("backbones", *arguments, "--json").out)}


def test_the_short_list_is_listed_with_its_facts() -> None:
    rows = listed()
    assert list(rows) == ["small_cnn", *BY_NAME]
    assert set(backbone.EMBEDDED) <= set(rows)
    mobile = rows["mobilenet_v2"]
    assert (mobile["parameters"], mobile["photos"], mobile["imagenet"]) == (2_223_872, "224 x 224", 71.878)
    assert mobile["source"] == "torchvision, MobileNet_V2_Weights.IMAGENET1K_V1"
    assert rows["tf_efficientnet_lite2"]["photos"] == "260 x 260"
    assert rows["tf_efficientnet_lite0"]["weights"] in ("in the cache", "package index")
    assert rows["convnext_tiny.dinov3_lvd1689m"]["licence"] == "dinov3-license"
    assert rows["vit_small_patch16_dinov3"]["imagenet"] is None  # none was found, and none is made up


@pytest.mark.parametrize("row", BY_NAME.values(), ids=list(BY_NAME))
def test_the_short_list_agrees_with_what_the_networks_say_themselves(row: Named) -> None:
    about = backbone.info(row.name)
    assert about.image_size == row.side
    assert about.transform(0, "crop") == row.transform
    with torch.device("meta"):
        assert sum(p.numel() for p in backbone.architecture(about).parameters()) == row.parameters
    if about.home == "timm":
        published = timm.get_pretrained_cfg(row.name)
        assert published is not None
        assert (published.tag, published.license) == (row.tag, row.licence)
    assert (row.imagenet is None) == (row.source == "")


def test_the_short_list_fits_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = Console(width=80, highlight=False, file=io.StringIO())
    monkeypatch.setattr("frostline.cli.console.console", lambda: narrow)
    must("backbones")
    lines = narrow.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert any(re.match(r"vit_small_patch14_dinov2 +224 +6.12 +81.1 +LVD-142M +Apache-2.0", text) for text in lines)
    assert all(len(text) <= 80 for text in lines if not text.startswith("Weights at hand"))


def test_names_are_those_that_timm_lists() -> None:
    assert list(timm_names.names()) == timm.list_models()
    for name in ("vit_tiny_patch16_224", "convnext_tiny.fb_in1k", "resnet18", "test_vit"):
        published, known = timm.get_pretrained_cfg(name), timm_names.facts(name)
        assert published is not None
        assert (published.tag, published.license or "", published.hf_hub_id) == (known.tag, known.licence, known.hub)
        assert known.parameters == sum(p.numel() for p in timm.create_model(name, num_classes=0).parameters())


def test_a_part_of_a_name_finds_networks_and_weights() -> None:
    assert [name for name in listed("dinov3") if name.startswith("convnext_tiny")] == ["convnext_tiny.dinov3_lvd1689m"]
    rows = listed("resnet18")
    assert rows["resnet18"]["layers"] is None
    assert rows["resnet18"]["parameters"] == 11_176_512
    assert call("backbones", "rexnet999").error.endswith("e.g. 'resnet'; did you mean 'rexnet_300'?")


def test_the_listing_needs_neither_torch_nor_timm() -> None:
    code = """
import sys
from frostline.networks.catalogue import listing
assert listing() and listing("vit")
assert not {"torch", "timm", "torchvision"} & set(sys.modules), sorted(sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_layers_are_counted_on_demand_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path))
    assert listed("test_resnet")["test_resnet"]["layers"] is None
    counted = listed("test_resnet", "--layers")["test_resnet"]
    lines = backbone.build("test_resnet", "random").lines
    assert counted["layers"] == len(lines.counted)  # without computing anything
    assert listed("test_resnet")["test_resnet"] == counted
    (tmp_path / "networks.json").write_text("{damaged")
    assert listed("test_resnet")["test_resnet"]["layers"] is None


def test_speed_is_measured_on_demand_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path))
    monkeypatch.setattr(measure, "SECONDS", 0.05)
    assert listed("test_resnet")["test_resnet"]["photos_per_second"] is None
    result = must("backbones", "test_resnet", "--speed", "--json")
    assert "Measuring speed: 1" in result.err
    (row,) = json.loads(result.out)
    assert row["photos_per_second"] > 0
    assert listed("test_resnet") == {"test_resnet": row}
    monkeypatch.setattr(measure, "processor", lambda: "another machine")
    assert listed("test_resnet")["test_resnet"]["photos_per_second"] is None


def test_weights_in_the_hubs_cache_are_at_hand(endpoint: Callable[[str], None], tmp_path: Path) -> None:
    endpoint("http://127.0.0.1:9")
    assert listed("test_resnet")["test_resnet"]["weights"] == "timm's hub"
    folder = tmp_path / "hub" / f"models--{REPOSITORY.replace('/', '--')}"
    for name, content in (("refs/main", "0" * 40), (f"snapshots/{'0' * 40}/model.safetensors", "")):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(content)
    assert listed("test_resnet")["test_resnet"]["weights"] == "in the cache"
    assert listed("efficientnet_lite1")["efficientnet_lite1"]["weights"] == "none"


# ---- the transform's later fields
# -------------------------------------------------------------------------------------


def test_bicubic_and_bilinear_differ_and_are_what_pillow_does() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    for name in ("bilinear", "bicubic"):
        expected = np.asarray(image.resize((16, 16), getattr(Image.Resampling, name.upper())))
        assert np.array_equal(prepare(stream.getvalue(), Transform(16, interpolation=name)), expected)  # type: ignore[arg-type]


def test_a_bundle_of_an_older_version_still_loads() -> None:
    old = {"size": 224, "resize": "crop", "mean": list(MEAN), "std": list(STD)}
    assert Transform.from_dict(old) == Transform(224, "crop", MEAN, STD, "bilinear", 0.875)


def test_the_cache_tells_photos_apart_by_what_shapes_their_pixels_alone() -> None:
    built = backbone.build("small_cnn", "random", image_size=64)

    def store(**changes: object) -> Path:
        transform = replace(built.transform, **changes)  # type: ignore[arg-type]
        return tap(replace(built, transform=transform), 0, Runtime("onnx"), "float16").store.folder

    plain, crop = store(), store(resize="crop")
    assert len({plain, crop, store(interpolation="bicubic"), store(resize="crop", crop_pct=0.9)}) == 4
    assert store(crop_pct=0.9) == plain  # the whole photo: nothing is cut
    assert store(mean=HALF, std=HALF) == plain  # the network's own work
    about = json.loads((plain / "about.json").read_text())
    assert not {"interpolation", "crop_pct"} & set(about)  # stores of older versions keep their names


def test_published_is_said_only_of_weights_whose_digest_is_known(tmp_path: Path) -> None:
    digest = weights.KNOWN["mobilenet_v2"].sha256
    known = timm_weights.origin("mobilenet_v2", "mobilenet_v2-b0353104.pth", digest)
    assert timm_weights.in_words([known]) == f"published ImageNet weights (SHA-256 {digest})"
    file = tmp_path / "mine.pth"
    file.write_bytes(b"weights")
    own = timm_weights.given("test_resnet", file).origin("test_resnet")
    said = timm_weights.in_words([own])
    assert said.startswith(
        f"weights from the file mine.pth, SHA-256 {hashlib.sha256(b'weights').hexdigest()}, which frostline "
    )
    assert "published" not in said
    assert "published" not in timm_weights.in_words([known, own])
    hub = timm_weights.origin("test_resnet", REPOSITORY, "1" * 64, "0" * 40)
    assert (
        timm_weights.in_words([hub]) == f"weights from the hub ({REPOSITORY}, revision {'0' * 40}), SHA-256 {'1' * 64}"
    )
