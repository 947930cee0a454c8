"""What fine-tuning starts from, and what it may change: everything, everything after a probe, or one layer."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nc_tools.heads import LinearHead
from nc_tools.metrics import Probe, fit_probe, rank_by_collapse
from nc_tools.models.classifier import Classifier
from nc_tools.seeds import stream
from nc_tools.surgery.trace import eval_mode
from nc_tools.transfer.layers import FEATURES, caught, check_layers, layer_features
from nc_tools.transfer.target_task import Target


class FineTuningMethod(ABC):
    """A way to fine-tune: makes the classifier that is then trained as any other.

    Attributes:
        key: Its name in the keys of metrics.
    """

    key: ClassVar[str]

    @abstractmethod
    def start(self, backbone: nn.Module, target: Target, samples: Tensor, seed: int) -> Classifier:
        """Return a new classifier whose trainable parameters have ``requires_grad``; the backbone is left as it is.

        Args:
            backbone: Trained on something else, on its device.
            target: The task.
            samples: The training samples (M,) that may be looked at: a hold-out is not among them.
            seed: Of a new head.
        """


@dataclass(frozen=True)
class Full(FineTuningMethod):
    """Train everything from the trained backbone and a new linear head."""

    key: ClassVar[str] = "finetune"

    def start(self, backbone: nn.Module, target: Target, samples: Tensor, seed: int) -> Classifier:
        """Return a copy of the backbone with a new head."""
        head = _new_head(backbone, target, samples, seed)
        return Classifier(copy.deepcopy(backbone).requires_grad_(), head)


@dataclass(frozen=True)
class ProbeThenFull(FineTuningMethod):
    """LP-FT: fit a linear probe first, then train everything from there.

    With a random head the first steps drag the features about before the head knows what it wants; a head that is
    already the best for the features as they are leaves them their structure. Source: Kumar, Raghunathan, Jones, Ma and
    Liang (2022). The probe is the logistic one, with its strength chosen on a hold-out inside the samples given.
    """

    key: ClassVar[str] = "lpft"

    def start(self, backbone: nn.Module, target: Target, samples: Tensor, seed: int) -> Classifier:
        """Return a copy of the backbone with the probe as its head."""
        found = layer_features(backbone, target.plain_batches(samples), ())
        probe = fit_probe(found[0][FEATURES], found[1], stream(seed, "transfer", 0))
        head = _new_head(backbone, target, samples, seed)
        _fill(head, probe)
        return Classifier(copy.deepcopy(backbone).requires_grad_(), head)


@dataclass(frozen=True)
class SkipConnection(FineTuningMethod):
    """SCL-FT: train one layer and a new linear head, with that layer's features added to the last ones.

    The layer is the one in which the target's training samples are most collapsed (least NC1): the more collapsed a
    task is in a layer, the better it can be read there, and the skip connection carries what that layer learns straight
    to the head. A few per cent of the parameters move, which is what a small target set can afford. All else stays as
    it is, batch statistics too. Source: Li et al. (2022), section 4, where the layer is a block of the network chosen
    by hand; there the narrower features are padded with zeros, as here.

    Attributes:
        layers: Names to choose from; None for :func:`~nc_tools.transfer.candidate_layers`.
    """

    key: ClassVar[str] = "scl"
    layers: tuple[str, ...] | None = None

    def start(self, backbone: nn.Module, target: Target, samples: Tensor, seed: int) -> Classifier:
        """Return a copy of the backbone, all but one layer frozen, with a skip connection and a new head."""
        layer = least_nc1_layer(backbone, target, samples, self.layers)
        skipping = SkipBackbone(copy.deepcopy(backbone), layer)
        return Classifier(skipping, _new_head(skipping, target, samples, seed))


def least_nc1_layer(backbone: nn.Module, target: Target, samples: Tensor, layers: Sequence[str] | None = None) -> str:
    """Return the layer in which these training samples of the target have the least NC1; the later one wins ties.

    Raises:
        ValueError: If there is no such layer, or none to choose from.
    """
    found, labels = layer_features(backbone, target.plain_batches(samples), layers)
    found.pop(FEATURES)
    if not found:
        raise ValueError(f"{type(backbone).__name__} has no layer with weights to choose from: name some in layers")
    # Ranking keeps the order of equals.
    return rank_by_collapse(dict(reversed(found.items())), labels).rows[0].name


class SkipBackbone(nn.Module):
    """A frozen backbone of which one layer is trained, with that layer's pooled features added to its own.

    features(x) + pool(layer(x)), the narrower of the two padded with zeros. The rest stays in eval mode, so that batch
    statistics do not move either.

    Args:
        backbone: Changed in place: all but the layer stops asking for gradients.
        layer: Its name.

    Raises:
        ValueError: If there is no such layer.

    Example:
        >>> from nc_tools.models import ConvNet
        >>> SkipBackbone(ConvNet(1, 8), "layers.6")(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 64])
    """

    def __init__(self, backbone: nn.Module, layer: str) -> None:
        super().__init__()
        check_layers(backbone, (layer,))
        self.backbone = backbone.requires_grad_(False)
        self.layer = layer
        backbone.get_submodule(layer).requires_grad_()

    def train(self, mode: bool = True) -> SkipBackbone:  # noqa: FBT001, FBT002 (PyTorch's own signature)
        """Set the mode of the trained layer; all else stays in eval mode."""
        super().train(False)
        self.training = mode
        self.backbone.get_submodule(self.layer).train(mode)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Map images to features (N, max(D, C))."""
        with caught(self.backbone, (self.layer,)) as seen:
            features: Tensor = self.backbone(images)
        aside = seen[self.layer]
        width = max(features.shape[1], aside.shape[1])
        return F.pad(features, (0, width - features.shape[1])) + F.pad(aside, (0, width - aside.shape[1]))


def _new_head(backbone: nn.Module, target: Target, samples: Tensor, seed: int) -> LinearHead:
    """Return a linear head for a backbone, drawn from the stream "head", where its batches are."""
    batch = next(iter(target.plain_batches(samples[:2])))
    with eval_mode(backbone):
        width = backbone(batch.inputs).shape[1]
    return LinearHead(width, target.num_classes, generator=stream(seed, "head")).to(batch.inputs.device)


def _fill(head: LinearHead, probe: Probe) -> None:
    """Make a probe's classes the rows of a head; a class that the probe has not seen gets no weight and least bias."""
    assert head.bias is not None  # noqa: S101 (a new head has one)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(float(probe.bias.min()))
        head.weight[probe.classes] = probe.weight.to(head.weight)
        head.bias[probe.classes] = probe.bias.to(head.bias)
