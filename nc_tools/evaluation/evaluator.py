"""From a trained model to numbers: one pass over each set, then measures of what was collected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch

from nc_tools.heads.head import Head
from nc_tools.metrics import calibration, classification, memorization, neural_collapse
from nc_tools.models.classifier import Classifier
from nc_tools.ood import ood_report
from nc_tools.records import Batch, Collected
from nc_tools.training.loop import autocast


@torch.no_grad()
def collect(model: Classifier, batches: Iterable[Batch], *, dtype: torch.dtype = torch.float32) -> Collected:
    """Run a model in eval mode over a whole set, once, and keep features, embedded features, logits and labels.

    Augmentation, dropout and batch statistics have no place in a measure: give batches that are not augmented; the
    model's mode is put back afterwards.

    Args:
        model: The classifier.
        batches: The set, in its own order.
        dtype: Arithmetic of the backbone, as in training.

    Returns:
        Everything in float32, on the model's device.

    Raises:
        ValueError: If there is no batch.
    """
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    rows: list[tuple[torch.Tensor, ...]] = []
    try:
        for batch in batches:
            with autocast(batch.inputs.device, dtype):
                features = model.backbone(batch.inputs)
            outputs = model.head.outputs(features)
            rows.append((features.float(), outputs.embedded.float(), outputs.logits.float(), batch.labels))
    finally:
        for module, was in training:
            module.training = was
    if not rows:
        raise ValueError("a set to evaluate needs at least one sample, got none")
    return Collected(*(torch.cat(column) for column in zip(*rows, strict=True)))


def accuracy_metrics(collected: Collected, train_counts: torch.Tensor, prefix: str) -> dict[str, float]:
    """Accuracy and its relatives under ``prefix/gen/`` and calibration under ``prefix/cal/``."""
    values = {f"gen/{k}": v for k, v in classification(collected.logits, collected.labels, train_counts).items()}
    values |= {f"cal/{k}": v for k, v in calibration(collected.logits, collected.labels).items()}
    return with_prefix(prefix, values)


def collapse_metrics(model: Classifier, collected: Collected, prefix: str) -> dict[str, float]:
    """Collapse of a set: ``prefix/nc/`` on the backbone's features, ``prefix/nc_embedded/`` behind the head's own map.

    The first is comparable between heads. The second is where the head's class vectors live: NC3 against them is told
    there, and with the first only where the head leaves the width as it is.
    """
    head = model.head
    weight = head.weight.detach().float()
    bias = None if head.bias is None else head.bias.detach().float()
    same_width = weight.shape[1] == collected.features.shape[1]
    values = neural_collapse(
        collected.features,
        collected.labels,
        weight if same_width else None,
        bias if same_width else None,
        num_classes=head.num_classes,
        logits=collected.logits,
    )
    found = {f"nc/{k}": v for k, v in values.items()}
    if collected.embedded.shape != collected.features.shape or not torch.equal(collected.embedded, collected.features):
        values = neural_collapse(
            collected.embedded, collected.labels, weight, bias, num_classes=head.num_classes, logits=collected.logits
        )
        found |= {f"nc_embedded/{k}": v for k, v in values.items()}
    return with_prefix(prefix, found)


def ood_metrics(
    model: Classifier, train: Collected, test: Collected, outliers: Mapping[str, Collected], prefix: str
) -> dict[str, float]:
    """Tell outliers from the test set by every score, under ``prefix/ood/<set>/<score>/``; higher AUROC is better.

    Scores are fitted on the training set and read the embedded features, in the space of the head's class vectors: of a
    head with a projector, behind it. A head that is not affine there gives no class vectors, and the scores that
    read them have no key.

    Args:
        model: The classifier.
        train: The training set, not augmented.
        test: Images of the same classes that were not trained on.
        outliers: Images of none of them, by name.
        prefix: Such as "test".
    """
    weight, bias = class_vectors(model.head)
    return with_prefix(f"{prefix}/ood", ood_report(train, test, outliers, weight, bias))


@torch.no_grad()
def class_vectors(head: Head) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return weight (K, D') with the scale in it, and bias, such that logits = embedded @ weight.T + bias.

    None twice for a head of which that does not hold.
    """
    if not head.affine:
        return None, None
    scale = torch.as_tensor(head.scale, dtype=torch.float32, device=head.weight.device)
    weight = head.weight.detach().float() * (scale[:, None] if scale.ndim == 1 else scale)
    return weight, None if head.bias is None else head.bias.detach().float()


def on_clean_labels(
    model: Classifier, collected: Collected, clean: torch.Tensor, train_counts: torch.Tensor, prefix: str
) -> dict[str, float]:
    """Recognition, calibration and collapse under true labels (N,), as ``prefix/gen_clean/``, ``prefix/nc_clean/``...

    To report beside the same under the given labels. Nothing may be chosen by it.
    """
    truly = replace(collected, labels=clean)
    values = accuracy_metrics(truly, train_counts, prefix) | collapse_metrics(model, truly, prefix)
    return {f"{key.rpartition('/')[0]}_clean/{key.rpartition('/')[2]}": value for key, value in values.items()}


def label_noise_metrics(collected: Collected, clean: torch.Tensor, prefix: str) -> dict[str, float]:
    """Measure what the wrong labels of a set do, under ``prefix/noise/``: memorization, dilation, their share.

    Dilation is tr(S_W) / tr(S_B) under the true labels (Nguyen et al. 2023): how far the classes are spread, which
    memorizing wrong labels increases; on images that were not trained on it says what that costs.

    Args:
        collected: The set, under its given labels.
        clean: Its true labels (N,).
        prefix: Such as "train".
    """
    spread = neural_collapse(collected.features, clean, num_classes=collected.logits.shape[1])
    values = {"rate": float((collected.labels != clean).double().mean())}
    values |= {"dilation": spread["nc1_trace"]} if "nc1_trace" in spread else {}
    values |= memorization(collected.features, collected.logits, collected.labels, clean)
    return with_prefix(f"{prefix}/noise", values)


def with_prefix(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    """Put ``prefix/`` before each key."""
    return {f"{prefix}/{key}": value for key, value in values.items()}
