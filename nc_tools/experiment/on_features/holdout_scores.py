"""Metrics of many heads on the hold-out, computed for all of them at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nc_tools.experiment.on_features.feature_data import FeatureData
from nc_tools.models.classifier import Classifier
from nc_tools.training.packed import Pack

_LOGITS_AT_ONCE = 2**24  # numbers in memory, for all heads together


class HoldoutScores:
    """The hold-out of a seed, on which heads are scored after every epoch.

    Args:
        data: The feature sets of the seed.
    """

    def __init__(self, data: FeatureData) -> None:
        index = data.subsets.holdout
        self._inputs = data.train.take(index).to(data.device)
        self._labels = data.train.labels[index].to(data.device)
        self._num_classes = data.train.num_classes

    def of_pack(self, pack: Pack) -> list[dict[str, float]]:
        """Return accuracy, balanced accuracy and negative log-likelihood of each member of a pack."""
        return self._scores(len(pack.members), lambda rows: pack.logits([rows] * len(pack.streams)))

    @torch.no_grad()
    def of_model(self, model: Classifier) -> dict[str, float]:
        """Return the same of one model."""
        return self._scores(1, lambda rows: model(rows).unsqueeze(0))[0]

    @torch.no_grad()
    def _scores(self, members: int, logits_of: Callable[[Tensor], Tensor]) -> list[dict[str, float]]:
        """Score logits (M, N, K), a few samples at a time."""
        classes = self._num_classes
        right = torch.zeros(members, classes, dtype=torch.float64, device=self._labels.device)
        loss = torch.zeros(members, dtype=torch.float64, device=self._labels.device)
        at_once = max(1, _LOGITS_AT_ONCE // (members * classes))
        for rows, labels in zip(torch.split(self._inputs, at_once), torch.split(self._labels, at_once), strict=True):
            logits = logits_of(rows)
            hits = (logits.argmax(2) == labels).double()
            right.index_add_(1, labels, hits)
            nll = nn.functional.cross_entropy(logits.flatten(0, 1), labels.repeat(members), reduction="none")
            loss += nll.view(members, -1).double().sum(1)
        counts = self._labels.bincount(minlength=classes).double()
        present = counts > 0
        accuracy = right.sum(1) / counts.sum()
        balanced = (right[:, present] / counts[present]).mean(1)
        columns = zip(accuracy.tolist(), balanced.tolist(), (loss / counts.sum()).tolist(), strict=True)
        return [
            {"holdout/gen/accuracy": a, "holdout/gen/balanced_accuracy": b, "holdout/cal/nll": n} for a, b, n in columns
        ]
