"""The networks worth naming: a dozen and some, from very quick to slow, each a row of facts.

Sources. Names, transforms and licences: timm's own metadata (tests hold the rows against it). Parameters: counted,
without the classifier. GMACs: thousands of millions of multiply-adds for one photo of `side`, counted with PyTorch's
FlopCounterMode without fused attention. ImageNet: as published, see `source`; the figure is of a classifier for
ImageNet's own thousand classes, and says little of photos of another kind.
"""

from __future__ import annotations

from dataclasses import dataclass

from frostline.photos.decoding import IMAGENET_MEAN, IMAGENET_STD, Interpolation, Transform

MARK = "+"
"""Between the names of networks that stand side by side: A+B."""
TIMM_TABLE = "timm, results/results-imagenet.csv at commit 7479d45"
"""https://github.com/huggingface/pytorch-image-models/blob/7479d451a6dfd8af27f941b8e82a7402461fae80/results/"""
TORCHVISION = "torchvision, MobileNet_V2_Weights.IMAGENET1K_V1"
DINOV2 = "facebookresearch/dinov2, README: linear classifier"
MOBILECLIP = "apple/ml-mobileclip, README: MobileCLIP-S0, zero-shot"

_IMAGENET = "ImageNet"
_TINY_VIT = f"{TIMM_TABLE}: dist_in22k_ft_in1k, the same weights fine-tuned on ImageNet"
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Named:
    """A network of the list, with one set of weights."""

    name: str
    """As the user writes it."""
    tag: str
    """The weights, by timm's name of them; torchvision's name for its own."""
    side: int
    """Of the photos that a laptop should use, pixels."""
    pretrained_on: str
    """What the weights were trained on, in the order of training."""
    parameters: int
    """Without a classifier."""
    gmacs: float
    """Thousands of millions of multiply-adds for one photo of `side`."""
    imagenet: float | None = None
    """Published accuracy (top-1) on ImageNet's validation photos, percent; None: none found for these weights."""
    imagenet_side: int | None = None
    """Side of the photos that the figure was measured with."""
    source: str = ""
    """Who published the figure, and what it is of where it isn't of these very weights."""
    licence: str = "apache-2.0"
    """Of the weights, as `licences` names it."""
    crop_pct: float = 0.875
    """Side of the central square that its publisher cuts, as a share of the photo's shorter side."""
    scaling: tuple[tuple[float, float, float], tuple[float, float, float]] = (IMAGENET_MEAN, IMAGENET_STD)
    """Mean and standard deviation by channel, of photos from 0 to 1."""
    interpolation: Interpolation = "bicubic"
    """How its publisher resamples photos."""

    @property
    def transform(self) -> Transform:
        """What its publisher does with a photo."""
        return Transform(self.side, "crop", *self.scaling, self.interpolation, self.crop_pct)


NAMED = (
    # A further network is a row. Cheapest first, within a family of its own; the embedded ones lead.
    Named("mobilenet_v2", "IMAGENET1K_V1", 224, _IMAGENET, 2_223_872, 0.30, 71.878, 224, TORCHVISION,
          "bsd-3-clause", interpolation="bilinear"),
    Named("tf_efficientnet_lite0", "in1k", 224, _IMAGENET, 3_371_008, 0.38, 74.846, 224, TIMM_TABLE,
          scaling=_HALF),
    Named("tf_efficientnet_lite1", "in1k", 240, _IMAGENET, 4_135_680, 0.60, 76.672, 240, TIMM_TABLE,
          crop_pct=0.882, scaling=_HALF),
    Named("tf_efficientnet_lite2", "in1k", 260, _IMAGENET, 4_811_072, 0.86, 77.472, 260, TIMM_TABLE,
          crop_pct=0.89, scaling=_HALF),
    Named("mobilenetv4_conv_small", "e2400_r224_in1k", 224, _IMAGENET, 2_493_024, 0.19, 73.730, 224, TIMM_TABLE),
    Named("hgnetv2_b0", "ssld_stage2_ft_in1k", 224, _IMAGENET, 3_947_550, 0.32, 77.342, 224, TIMM_TABLE,
          crop_pct=0.965),
    Named("efficientnet_b0", "ra_in1k", 224, _IMAGENET, 4_007_548, 0.39, 77.696, 224, TIMM_TABLE),
    Named("tf_efficientnetv2_b0", "in1k", 192, _IMAGENET, 5_858_704, 0.53, 76.880, 192, TIMM_TABLE),
    Named("mobilenetv4_conv_medium.e250_r384_in12k_ft_in1k", "e250_r384_in12k_ft_in1k", 256, "ImageNet-12k, ImageNet",
          8_434_512, 1.08, crop_pct=0.95),
    Named("tiny_vit_5m_224", "dist_in22k", 224, "ImageNet-22k", 5_071_764, 1.26, 80.862, 224, _TINY_VIT,
          crop_pct=0.95),
    Named("tiny_vit_11m_224", "dist_in22k", 224, "ImageNet-22k", 10_547_972, 2.02, 83.232, 224, _TINY_VIT,
          crop_pct=0.95),
    Named("fastvit_mci0", "apple_mclip", 256, "DataCompDR", 10_882_176, 2.39, 67.8, 256, MOBILECLIP, "apple-amlr",
          crop_pct=0.95, scaling=((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))),
    Named("convnext_tiny", "in12k_ft_in1k", 224, "ImageNet-12k, ImageNet", 27_820_128, 4.46, 84.192, 224, TIMM_TABLE,
          crop_pct=0.95),
    Named("convnext_tiny.dinov3_lvd1689m", "dinov3_lvd1689m", 224, "LVD-1689M", 27_820_128, 4.46,
          licence="dinov3-license", crop_pct=1.0),
    Named("vit_small_patch16_dinov3", "lvd1689m", 224, "LVD-1689M", 21_586_944, 4.70, licence="dinov3-license",
          crop_pct=1.0),
    Named("vit_small_patch14_dinov2", "lvd142m", 224, "LVD-142M", 21_628_800, 6.12, 81.1, None, DINOV2, crop_pct=1.0),
)  # fmt: skip

BY_NAME = {row.name: row for row in NAMED}


def side_of(name: str) -> int | None:
    """Side of the photos that a network of the list should use here, pixels; None for one that is not listed.

    Weights may be named in full: ``vit_small_patch14_dinov2.lvd142m`` is ``vit_small_patch14_dinov2``.
    """
    architecture, _, tag = name.partition(".")
    found = BY_NAME.get(name) or BY_NAME.get(architecture)
    return found.side if found is not None and tag in ("", found.tag) else None
