"""The losses that training minimises and that early stopping compares."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def photo_losses(logits: Tensor, labels: Tensor, robust: float, smoothing: float = 0.0) -> Tensor:
    """The loss of each photo (N,), from logits (N, C) and class indices (N,).

    Cross-entropy, or where `robust` is above 0 the generalised cross-entropy (1 - p^q) / q, with q = `robust` and p the
    probability of the photo's label (Zhang and Sabuncu, Generalized Cross Entropy Loss for Training Deep Neural
    Networks with Noisy Labels, NeurIPS 2018).

    Parameters
    ----------
    smoothing
        Label smoothing, for cross-entropy only.
    """
    cross_entropy = nn.functional.cross_entropy(
        logits, labels, label_smoothing=0.0 if robust else smoothing, reduction="none"
    )
    return -torch.expm1(-robust * cross_entropy) / robust if robust else cross_entropy


def mean_loss(losses: Tensor, labels: Tensor, class_weights: Tensor | None) -> Tensor:
    """The mean of losses (N,), each times the weight of its class (C,).

    PyTorch's own class weights would divide by the sum of the weights in the batch.
    """
    return losses.mean() if class_weights is None else (losses * class_weights[labels]).mean()


def cross_entropy_and_accuracy(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean cross-entropy and accuracy of logits (N, C) for class indices (N,)."""
    correct = logits.argmax(1) == labels
    return float(nn.functional.cross_entropy(logits, labels)), float(correct.double().mean())
