"""Files in the layouts of torchvision, DINOv2 and training scripts: the features are those of the publisher's own
network."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torchvision.models as tv
from safetensors.torch import save_file
from timm.models.convnext import ConvNeXt
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig

from frostline.errors import WeightsError
from frostline.networks.backbone import load
from frostline.networks.weights import load_state_dict


def mixed_up(network: nn.Module) -> nn.Module:
    """Random weights, and statistics that no fresh network has."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(1e-3, 1.5)
            elif tensor.is_floating_point() and tensor.ndim == 1:
                tensor.add_(0.2 * torch.randn(tensor.shape))
    return network.eval()


def pooled(features: nn.Module) -> nn.Sequential:
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten())


CONVNETS = {
    # timm's name: torchvision's network, and what of it ends before the classifier
    "resnet18": (tv.resnet18, lambda net: nn.Sequential(*list(net.children())[:-1], nn.Flatten())),
    "mobilenetv2_100": (tv.mobilenet_v2, lambda net: pooled(net.features)),
    "mobilenetv3_small_100": (
        tv.mobilenet_v3_small,
        lambda net: nn.Sequential(pooled(net.features), net.classifier[:2]),
    ),
    "efficientnet_b0": (tv.efficientnet_b0, lambda net: pooled(net.features)),
}


@pytest.mark.parametrize("name", CONVNETS)
def test_a_convnet_of_torchvision_gives_torchvisions_features(name: str, tmp_path: Path) -> None:
    make, before_classifier = CONVNETS[name]
    theirs = mixed_up(make(weights=None))
    torch.save(theirs.state_dict(), tmp_path / "published.pth")
    ours = timm.create_model(name, num_classes=0).eval()
    load(ours, load_state_dict(tmp_path / "published.pth"), name)
    agree(ours, before_classifier(theirs), torch.rand(2, 3, 64, 64))


def agree(ours: nn.Module, theirs: nn.Module, photos: Tensor) -> None:
    with torch.inference_mode():
        expected, found = theirs.eval()(photos), ours.eval()(photos)
    scale = expected.abs().max()
    assert scale > 0
    assert torch.allclose(found / scale, expected / scale, atol=1e-4)


def test_a_convnext_of_torchvision_gives_torchvisions_features() -> None:
    sizes, depths = (8, 16, 24, 32), (1, 2, 1, 1)
    steps = [CNBlockConfig(a, b, d) for a, b, d in zip(sizes, (*sizes[1:], None), depths, strict=True)]
    theirs = mixed_up(tv.ConvNeXt(steps, num_classes=7))
    ours = ConvNeXt(depths=depths, dims=sizes, num_classes=0)
    load(ours, theirs.state_dict(), "convnext")
    agree(ours, nn.Sequential(theirs.features, theirs.avgpool, theirs.classifier[:2]), torch.rand(2, 3, 64, 64))


def test_a_swin_of_torchvision_gives_torchvisions_features() -> None:
    depths, heads = [2, 2, 1, 1], [1, 2, 2, 4]
    theirs = mixed_up(tv.SwinTransformer([4, 4], 16, depths, heads, [4, 4], num_classes=7))
    ours = SwinTransformer(128, 4, embed_dim=16, depths=depths, num_heads=heads, window_size=4, num_classes=0)
    load(ours, theirs.state_dict(), "swin")
    theirs.head = nn.Identity()
    agree(ours, theirs, torch.rand(2, 3, 128, 128))


def test_a_vision_transformer_of_torchvision_gives_torchvisions_features() -> None:
    theirs = mixed_up(tv.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=7))
    ours = VisionTransformer(32, 8, embed_dim=16, depth=2, num_heads=2, mlp_ratio=2, num_classes=0)
    load(ours, theirs.state_dict(), "vit")
    theirs.heads = nn.Identity()
    agree(ours, theirs, torch.rand(2, 3, 32, 32))


def test_dinov2s_own_layout_and_size_are_read(tmp_path: Path) -> None:
    """With its mask token, at 4 x 4 patches; here it runs at 2 x 2."""
    published = VisionTransformer(56, 14, embed_dim=16, depth=2, num_heads=2, init_values=1e-5, num_classes=0)
    state = {**mixed_up(published).state_dict(), "mask_token": torch.zeros(1, 16)}
    torch.save(state, tmp_path / "dinov2_vits14_pretrain.pth")
    same = VisionTransformer(56, 14, embed_dim=16, depth=2, num_heads=2, init_values=1e-5, num_classes=0)
    load(same, load_state_dict(tmp_path / "dinov2_vits14_pretrain.pth"), "dinov2")
    agree(same, published, torch.rand(2, 3, 56, 56))
    small = VisionTransformer(28, 14, embed_dim=16, depth=2, num_heads=2, init_values=1e-5, num_classes=0)
    load(small, load_state_dict(tmp_path / "dinov2_vits14_pretrain.pth"), "dinov2")
    assert small.pos_embed is not None
    assert small.pos_embed.shape == (1, 1 + 4, 16)
    assert torch.equal(small.blocks[0].attn.qkv.weight, published.blocks[0].attn.qkv.weight)


def test_dinov2_with_registers_is_read() -> None:
    options = {"embed_dim": 16, "depth": 1, "num_heads": 2, "reg_tokens": 4, "no_embed_class": True}
    ours = VisionTransformer(28, 14, **options, num_classes=0)
    kept = mixed_up(VisionTransformer(28, 14, **options, num_classes=0)).state_dict()
    theirs = {k: v for k, v in kept.items() if k not in ("reg_token", "cls_token", "pos_embed")}
    class_place = torch.rand(1, 1, 16)
    theirs |= {"mask_token": torch.zeros(1, 16), "register_tokens": kept["reg_token"]}
    theirs |= {
        "cls_token": kept["cls_token"] - class_place[0],
        "pos_embed": torch.cat([class_place, kept["pos_embed"]], 1),
    }
    load(ours, theirs, "dinov2")
    for key, tensor in ours.state_dict().items():
        assert torch.allclose(tensor, kept[key], atol=1e-6), key


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_training_scripts_checkpoint_is_opened(key: str, tmp_path: Path) -> None:
    state = {f"module.{k}": v for k, v in timm.create_model("test_resnet").state_dict().items()}
    torch.save({key: state, "epoch": 3}, tmp_path / "checkpoint.pth")
    ours = timm.create_model("test_resnet", num_classes=0)
    load(ours, load_state_dict(tmp_path / "checkpoint.pth"), "test_resnet")
    assert torch.equal(ours.conv1[0].weight, state["module.conv1.0.weight"])


def test_a_network_of_another_depth_is_refused() -> None:
    with pytest.raises(WeightsError, match="the weights are not those of resnet18"):
        load(timm.create_model("resnet18", num_classes=0), tv.mobilenet_v2(weights=None).state_dict(), "resnet18")


def test_safetensors_and_pth_are_the_same(tmp_path: Path) -> None:
    state = timm.create_model("test_vit").state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pth")
    ours = load_state_dict(tmp_path / "a.safetensors")
    assert all(torch.equal(ours[k], v) for k, v in load_state_dict(tmp_path / "a.pth").items())
