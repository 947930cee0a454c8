"""How a feature would move a prototype of outliers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nc_tools._support.precision import at_least_float32
from nc_tools.ood.bank import Bank
from nc_tools.ood.ood_score import OODScore, UndefinedScoreError


class GROOD(OODScore):
    """Minus the distance, in the space of gradients, to the nearest training sample.

    Classes are told by the distance to their means mu_k, with one more prototype o for outliers:
    p = softmax(-||h - mu_1||, ..., -||h - mu_K||, -||h - o||). The gradient of the cross-entropy of the predicted class
    with respect to o is

        g = p_o (h - o) / ||h - o||,

    close to 0 where h lies at a class mean, and the score is -min_i ||g - g_i|| over training samples that the model
    gets right.

    Fits on training features, logits and labels. O(bank D) a sample.

    Source: ElAraby et al. (2025, TMLR; first 2023). They make o from mixtures of an earlier layer's features, from
    noise images or from validation outliers. Features of one layer allow the first only at this layer: o is the mean of
    (h_i + mu_c) / 2, c the runner-up class of the logits, which on many classes comes close to the mean of all; give
    ``outliers`` for the other two. The released code searches a part of the bank, and that approximately; here
    the search is exact over at most ``most`` evenly spaced samples. Where h lies on o the gradient is 0.

    Args:
        outliers: Features (M, D) of images of no class, whose mean is o, or None.
        most: Largest number of training gradients that are kept.

    Raises:
        TypeError: If the outliers are no tensor.
        ValueError: If ``most`` is no whole number from 1 on.

    Example:
        >>> x = torch.tensor([[-9.0, 0.0], [9.0, 0.0]])
        >>> grood = GROOD().fit(x, torch.eye(2), torch.tensor([0, 1]))
        >>> grood.score(torch.tensor([[9.0, 0.0], [0.0, 0.5]]), torch.zeros(2, 2))
        tensor([-0.0000, -0.9996])
    """

    name = "grood"
    fits_on = ("features", "logits", "labels")

    def __init__(self, outliers: Tensor | None = None, most: int = 10_000) -> None:
        if not isinstance(most, int) or most < 1:
            raise ValueError(f"most is a number of training samples, a whole one from 1 on, got {most!r}")
        if not (outliers is None or isinstance(outliers, Tensor)):
            raise TypeError(f"outliers must be a tensor of features (M, D) or None, got {type(outliers).__name__}")
        self.outliers, self.most = outliers, most

    def _fit(self, bank: Bank) -> None:
        if len(bank.present) < 2:
            raise UndefinedScoreError(f"GROOD mixes classes and needs two with samples, got {len(bank.present)}")
        right = (bank.logits.argmax(dim=1) == bank.labels).nonzero().flatten()
        if len(right) == 0:
            raise UndefinedScoreError("GROOD compares with training samples that the model gets right, and gets none")
        # Distances do not depend on the origin, and about the mean the products below cancel least.
        self._origin = bank.mean.to(bank.features)
        self._means = (bank.means - bank.mean).to(bank.features)
        self._outlier = (self._mixed(bank) if self.outliers is None else self._given(bank)) - self._origin
        kept = right[torch.arange(0, len(right), -(-len(right) // self.most), device=right.device)]
        self._gradients = torch.cat([self._gradient(x) for x in torch.split(bank.features[kept], 8192)])
        self._halves = self._gradients.square().sum(dim=1) / 2

    def _mixed(self, bank: Bank) -> Tensor:
        """Return the mean of all training features, each mixed with the mean of its runner-up class."""
        logits = bank.logits[:, bank.present]
        second = logits.topk(2, dim=1).indices[:, 1]
        others = torch.bincount(second, minlength=len(bank.present)).double() @ bank.means / len(logits)
        return ((bank.mean + others) / 2).to(bank.features)

    def _given(self, bank: Bank) -> Tensor:
        outliers = at_least_float32(self.outliers.detach()) if self.outliers is not None else bank.features
        if outliers.ndim != 2 or len(outliers) == 0 or outliers.shape[1] != bank.features.shape[1]:
            raise ValueError(
                f"outliers must be features (M, {bank.features.shape[1]}) of at least one image, got "
                f"{tuple(outliers.shape)}: take them from the same model"
            )
        if bad := int((~outliers.isfinite().all(dim=1)).sum()):
            raise ValueError(f"outliers must be finite, but {bad} of {len(outliers)} samples hold NaN or inf")
        return outliers.double().mean(dim=0).to(bank.features)

    def _gradient(self, features: Tensor) -> Tensor:
        x = features - self._origin
        prototypes = torch.cat([self._means, self._outlier[None]])
        distances = torch.cdist(x, prototypes)
        share = F.softmax(-distances, dim=1)[:, -1:]
        return share * F.normalize(x - self._outlier, dim=1)

    def _score(self, features: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG002
        g = self._gradient(features)
        nearest = torch.addmm(self._halves, g, self._gradients.T, beta=-1).argmax(dim=1)
        # Found by product, measured by difference: the product of near gradients has lost their distance.
        distances: Tensor = torch.linalg.vector_norm(g - self._gradients[nearest], dim=1)
        return -distances

    def _columns(self) -> int:
        return len(self._gradients)
