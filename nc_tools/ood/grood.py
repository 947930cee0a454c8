"""GROOD: compare the gradients of samples and of training samples with respect to a prototype of outliers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nc_tools._support.bad_rows import count_bad_rows
from nc_tools._support.precision import at_least_float32
from nc_tools.ood.ood_score import OODScore, UndefinedScoreError
from nc_tools.ood.training_set import TrainingSet


class GROOD(OODScore):
    """Score by minus the distance from the gradient of a sample to the nearest gradient of a training sample.

    Samples are classified by the distance to the class means mu_k and to one more prototype o for outliers:
    p = softmax(-||h - mu_1||, ..., -||h - mu_K||, -||h - o||). The gradient of the cross-entropy of the predicted class
    with respect to o is

        g = p_o (h - o) / ||h - o||,

    which is close to 0 where h lies at a class mean. The score is -min_i ||g - g_i|| over the training samples that the
    model classifies correctly. If h = o, the gradient is set to 0.

    Fits on training features, logits and labels. Costs O(most D) per sample.

    Source: ElAraby et al. (2025, TMLR; first 2023). They make o from mixtures of an earlier layer's features, from
    noise images or from validation outliers. With the features of one layer, only the first is possible, and only with
    mixtures at this layer: o is the mean of (h_i + mu_c) / 2, c the class of the second largest logit. With many
    classes this is close to the mean of all samples. Give ``outliers`` for the other two. The released code searches a
    part of the training set, approximately; here the search is exact over at most ``most`` evenly spaced samples.

    Args:
        outliers: Features (M, D) of images of no class, whose mean is used as o; None for the mixtures.
        most: Largest number of training gradients that are kept.

    Raises:
        TypeError: If the outliers are not a tensor.
        ValueError: If ``most`` is not a whole number of at least 1.

    Example:
        >>> x = torch.tensor([[-9.0, 0.0], [9.0, 0.0]])
        >>> grood = GROOD().fit(x, torch.eye(2), torch.tensor([0, 1]))
        >>> grood.score_samples(torch.tensor([[9.0, 0.0], [0.0, 0.5]]), torch.zeros(2, 2))
        tensor([-0.0000, -0.9996], dtype=torch.float64)
    """

    name = "grood"
    fits_on = ("features", "logits", "labels")

    def __init__(self, outliers: Tensor | None = None, most: int = 10_000) -> None:
        if not isinstance(most, int) or most < 1:
            raise ValueError(f"most must be a whole number of training samples, at least 1, got {most!r}")
        if not (outliers is None or isinstance(outliers, Tensor)):
            raise TypeError(f"outliers must be a tensor of features (M, D) or None, got {type(outliers).__name__}")
        self.outliers, self.most = outliers, most

    def _fit(self, train: TrainingSet) -> None:
        if len(train.present) < 2:
            raise UndefinedScoreError(f"GROOD needs samples of at least two classes, got {len(train.present)}")
        right = (train.logits.argmax(dim=1) == train.labels).nonzero().flatten()
        if len(right) == 0:
            raise UndefinedScoreError("GROOD needs training samples that the model classifies correctly, got none")
        # Distances do not depend on the origin. About the mean, the products below lose the fewest digits.
        self._origin = train.mean
        self._means = train.means - train.mean
        prototype = self._mean_mixture(train) if self.outliers is None else self._mean_outlier(train)
        self._outlier = prototype - self._origin
        kept = right[torch.arange(0, len(right), -(-len(right) // self.most), device=right.device)]
        self._gradients = torch.cat([self._gradient(x.double()) for x in torch.split(train.features[kept], 8192)])
        self._halves = self._gradients.square().sum(dim=1) / 2

    def _mean_mixture(self, train: TrainingSet) -> Tensor:
        """Return the mean of all training features, each mixed with the mean of its second most likely class."""
        logits = train.logits[:, train.present]
        second = logits.topk(2, dim=1).indices[:, 1]
        mean_partner = torch.bincount(second, minlength=len(train.present)).double() @ train.means / len(logits)
        return (train.mean + mean_partner) / 2

    def _mean_outlier(self, train: TrainingSet) -> Tensor:
        outliers = train.features if self.outliers is None else at_least_float32(self.outliers.detach())
        if outliers.ndim != 2 or len(outliers) == 0 or outliers.shape[1] != train.features.shape[1]:
            raise ValueError(
                f"outliers must be features (M, {train.features.shape[1]}) of at least one image, got "
                f"{tuple(outliers.shape)}: compute them with the model that gave the training features"
            )
        if bad := count_bad_rows(outliers):
            raise ValueError(
                f"outliers must be finite, but {bad} of {len(outliers)} samples hold NaN or inf: remove these samples, "
                "or check the model that produced them"
            )
        return outliers.to(train.features.device).double().mean(dim=0)

    def _gradient(self, features: Tensor) -> Tensor:
        x = features - self._origin
        prototypes = torch.cat([self._means, self._outlier[None]])
        distances = torch.cdist(x, prototypes, compute_mode="donot_use_mm_for_euclid_dist")
        share = F.softmax(-distances, dim=1)[:, -1:]
        return share * F.normalize(x - self._outlier, dim=1)

    def _score_samples(self, features: Tensor, logits: Tensor) -> Tensor:  # noqa: ARG002
        g = self._gradient(features)
        nearest = torch.addmm(self._halves, g, self._gradients.T, beta=-1).argmax(dim=1)
        # Products find the nearest gradient. Its distance is computed from the difference, which loses fewer digits.
        distances: Tensor = torch.linalg.vector_norm(g - self._gradients[nearest], dim=1)
        return -distances

    def _values_per_sample(self) -> int:
        return len(self._gradients)
