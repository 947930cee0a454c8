"""Methods of fine-tuning: what each one starts from, and which parameters it trains."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nc_tools.heads import LinearHead
from nc_tools.metrics import Probe, fit_probe, rank_by_collapse
from nc_tools.models.classifier import Classifier
from nc_tools.seeds import stream
from nc_tools.surgery.untouched import trial_run
from nc_tools.transfer.layer_features import FEATURES, layer_features
from nc_tools.transfer.skip_backbone import SkipBackbone
from nc_tools.transfer.target_task import Target


class FineTuningMethod(ABC):
    """A method of fine-tuning: it puts a trained backbone into a new classifier, which the training loop then trains.

    Attributes:
        key: Name of the method in the keys of metrics.
    """

    key: ClassVar[str]

    @abstractmethod
    def start(self, backbone: nn.Module, target: Target, samples: Tensor, seed: int) -> Classifier:
        """Return a new classifier whose trainable parameters have ``requires_grad``; the backbone is not changed.

        Args:
            backbone: Trained on another task, on its device.
            target: The task.
            samples: Indices of the training samples that the method may read (M,).
            seed: Seed of random choices, such as those of a new head.
        """


@dataclass(frozen=True)
class Full(FineTuningMethod):
    """Train all parameters, from the trained backbone and a new linear head."""

    key: ClassVar[str] = "finetune"

    def start(self, backbone: nn.Module, target: Target, samples: Tensor, seed: int) -> Classifier:
        """Return a copy of the backbone with a new head."""
        head = _new_head(backbone, target, samples, seed)
        return Classifier(copy.deepcopy(backbone).requires_grad_(), head)


@dataclass(frozen=True)
class ProbeThenFull(FineTuningMethod):
    """LP-FT: fit a linear probe first, then train all parameters from there.

    With a random head, the first steps of training distort the features before the head is useful. With a head that
    already fits the features, they hardly do. Source: Kumar, Raghunathan, Jones, Ma and Liang (2022). The probe is
    logistic regression, with its regularization chosen on a hold-out inside the samples given.
    """

    key: ClassVar[str] = "lpft"

    def start(self, backbone: nn.Module, target: Target, samples: Tensor, seed: int) -> Classifier:
        """Return a copy of the backbone with the probe as its head."""
        features, labels = layer_features(backbone, target.plain_batches(samples), ())
        probe = fit_probe(features[FEATURES], labels, stream(seed, "transfer", 0))
        head = _new_head(backbone, target, samples, seed)
        _copy_probe(head, probe)
        return Classifier(copy.deepcopy(backbone).requires_grad_(), head)


@dataclass(frozen=True)
class SkipConnection(FineTuningMethod):
    """SCL-FT: train one layer and a new linear head, with that layer's features added to the last ones.

    The layer is the one with the least NC1 on the target's training samples: the more collapsed a task is in a layer,
    the better a linear classifier reads it there. The skip connection passes what that layer learns directly to the
    head. Only a few per cent of the parameters are trained, which suits a small target set. Everything else is frozen,
    batch statistics included. Source: Li et al. (2022), section 4, where the layer is a block of the network chosen by
    hand; there the narrower features are padded with zeros, as here.

    Attributes:
        layers: Names of the layers to choose from; None for those of :func:`~nc_tools.surgery.backbone_blocks`.
    """

    key: ClassVar[str] = "scl"
    layers: tuple[str, ...] | None = None

    def start(self, backbone: nn.Module, target: Target, samples: Tensor, seed: int) -> Classifier:
        """Return a frozen copy of the backbone with one trainable layer, a skip connection and a new head."""
        layer = least_nc1_layer(backbone, target, samples, self.layers)
        skipping = SkipBackbone(copy.deepcopy(backbone), layer)
        return Classifier(skipping, _new_head(skipping, target, samples, seed))


def least_nc1_layer(backbone: nn.Module, target: Target, samples: Tensor, layers: Sequence[str] | None = None) -> str:
    """Return the name of the layer in which a target task is most collapsed (least NC1); of equal ones, the later.

    Raises:
        ValueError: If there is no such layer, or no layer to choose from.
    """
    features, labels = layer_features(backbone, target.plain_batches(samples), layers)
    features.pop(FEATURES)
    if not features:
        raise ValueError(
            f"{type(backbone).__name__} has no layers with weights to choose from: pass SkipConnection(layers=...)"
        )
    # rank_by_collapse keeps the order of equal values.
    return rank_by_collapse(dict(reversed(features.items())), labels).rows[0].name


def _new_head(backbone: nn.Module, target: Target, samples: Tensor, seed: int) -> LinearHead:
    """Return a linear head for a backbone, drawn from the stream "head", on the device of its batches."""
    batch = next(iter(target.plain_batches(samples[:2])))
    with trial_run(backbone):
        width = backbone(batch.inputs).shape[1]
    return LinearHead(width, target.num_classes, generator=stream(seed, "head")).to(batch.inputs.device)


def _copy_probe(head: LinearHead, probe: Probe) -> None:
    """Copy a probe into a head; a class without training samples gets a zero weight and the smallest bias."""
    assert head.bias is not None  # noqa: S101 (a new head has one)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(float(probe.bias.min()))
        head.weight[probe.classes] = probe.weight.to(head.weight)
        head.bias[probe.classes] = probe.bias.to(head.bias)
