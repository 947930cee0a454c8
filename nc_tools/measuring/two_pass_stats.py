"""Compute all collapse metrics of one layer's features, batch by batch in two passes over the data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nc_tools._support.precision import at_least_float32, measuring_precision
from nc_tools.class_moments import ClassMoments
from nc_tools.metrics.collapse.cosine_collapse import cosines_from_sums, direction_sums
from nc_tools.metrics.collapse.hyperspherical_uniformity import hyperspherical_uniformity
from nc_tools.metrics.collapse.mean_geometry import ClassMeans, finite_values
from nc_tools.metrics.collapse.neural_collapse import collapse_quantities
from nc_tools.metrics.collapse.uniform_duality import uniform_duality
from nc_tools.metrics.collapse.variability_index import variability_index, within_scatter
from nc_tools.metrics.collapse.within_class import within_class_spread

# Largest relative difference that rounding explains between the sums of squares of the two passes. A larger one means
# that the second pass yielded other features.
_TOLERANCE = 1e-3


class TwoPassStats:
    """Statistics of one layer's features for one kind of labels (given or true), from two passes over the data.

    The first pass computes class counts, means and variances, which give NC0, NC2, NC3, CDNV and the trace ratio. The
    second pass uses the means to compute NC1 by the pseudo-inverse (class-averaged and pooled), NC4, cosines between
    samples and the variability index. Memory: matrices of size K x D, and one of size D x D for the index.

    Args:
        name: Name of the layer in error messages.
        num_classes: K.
        feature_dim: D.
        device: Where the features are.
        index: Whether to compute the variability index, which needs a D x D scatter.
    """

    def __init__(self, name: str, num_classes: int, feature_dim: int, device: torch.device, *, index: bool) -> None:
        self.name, self.num_classes, self.index = name, num_classes, index
        self._moments = ClassMoments(num_classes, feature_dim, device, scatter=False)
        self._second: _SecondPass | None = None

    def update_first_pass(self, features: Tensor, labels: Tensor) -> None:
        """Add a batch to the statistics of the first pass."""
        self._moments.update(features, labels)

    @property
    def counts(self) -> Tensor:
        """Number of samples of each class (K,)."""
        return self._read().counts

    @property
    def means(self) -> Tensor:
        """Class means (K, D)."""
        return self._read().means

    @property
    def variances(self) -> Tensor:
        """Total variance of each class (K,), the trace of its covariance."""
        return self._read().variances

    def _read(self) -> ClassMoments:
        try:
            _ = self._moments.counts
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None
        return self._moments

    def start_second_pass(self) -> None:
        """End the first pass over the data and start the second.

        Raises:
            ValueError: If fewer than two classes have samples, a feature is not finite or a label is out of range.
        """
        moments = self._read()
        present = moments.counts.nonzero().flatten()
        if len(present) < 2:
            raise ValueError(
                f"{self.name}: neural collapse needs samples of at least 2 classes, got {len(present)}. Measure images "
                "of more classes"
            )
        with measuring_precision(moments.device):
            frame = ClassMeans.from_means(present, moments.counts[present], moments.means[present])
            place = torch.zeros_like(moments.counts)
            place[present] = torch.arange(len(present), device=moments.device)
            width = moments.feature_dim if self.index else 0
            self._second = _SecondPass(
                frame=frame,
                place=place,
                center=moments.means[present].mean(dim=0),
                sums=torch.zeros(4, dtype=torch.float64, device=moments.device),
                units=torch.zeros_like(moments.means),
                scatter=torch.zeros(width, width, dtype=torch.float64, device=moments.device),
            )

    def update_second_pass(self, features: Tensor, labels: Tensor, decisions: Tensor) -> None:
        """Add a batch to the statistics of the second pass, with the predicted class of each sample (N,)."""
        second = self._second
        assert second is not None  # noqa: S101 (start_second_pass comes first)
        frame = second.frame
        with measuring_precision(features.device):
            x, y = at_least_float32(features.detach()), labels.long()
            within = within_class_spread(x, second.place[y], frame, None, decisions)
            assert within.disagreement is not None  # noqa: S101 (decisions were given)
            squares = within.variances @ frame.counts.double()
            second.sums += torch.stack(
                [
                    within.nc1_pinv,
                    within.nc1_pinv_pooled * len(x),
                    within.disagreement * len(x),
                    squares,
                ]
            )
            second.units += direction_sums(x, y, second.center, self.num_classes)
            if self.index:
                weights = 1 / (frame.counts * len(frame.index))
                second.scatter += within_scatter(x, second.place[y], frame.means, weights)

    def compute(self, weight: Tensor | None) -> dict[str, float]:
        """Return all collapse metrics, including those of the head if its weight (K, D) applies to these features.

        Raises:
            ValueError: If the features of the second pass are not those of the first.
        """
        second, moments = self._second, self._moments
        assert second is not None  # noqa: S101 (start_second_pass comes first)
        frame, counts = second.frame, second.frame.counts
        total = int(counts.sum())
        pinv, pooled, differ, squares = second.sums
        first = moments.variances[frame.index] @ counts.double()
        # Differences below the floor are rounding: relative to the spread between classes, or that of float32 features
        # far from the origin.
        floor = (frame.centered.square().sum() * 1e-6 + frame.means.square().sum() * 1e-10) * total
        if bool((squares - first).abs() > _TOLERANCE * first + floor):
            raise ValueError(
                f"{self.name}: the loader must yield the same samples whenever it is iterated, but the second pass "
                "yielded other samples. Switch off augmentation and random subsets"
            )
        with measuring_precision(moments.device):
            parts = {"nc1_pinv": pinv, "nc1_pinv_pooled": pooled / total}
            variances = moments.variances[frame.index]
            values = collapse_quantities(frame, variances, parts, total, weight, differ / total)
            means_differ = bool(frame.singular[-1] > 0)
            if means_differ:
                values |= hyperspherical_uniformity(frame.means)
                values |= finite_values(cosines_from_sums(moments.counts, second.units))
                if weight is not None:
                    values |= uniform_duality(frame.means, weight.detach().to(frame.means)[frame.index])
                if self.index and total > len(frame.index):
                    values |= finite_values({"vci": variability_index(second.scatter, frame.means)})
        return values


@dataclass
class _SecondPass:
    """Constants and sums of the second pass over the data.

    Attributes:
        frame: Means of the classes that have samples.
        place: Row of each class in ``frame`` (K,); 0 for a class without samples.
        center: Unweighted mean of these class means (D,).
        sums: Class-averaged NC1, pooled NC1 times N, number of disagreements (NC4), and sum of squares (4,).
        units: Sum of the unit vectors from ``center`` to the features of each class (K, D).
        scatter: Class-averaged within-class covariance (D, D), or (0, 0) if the index is not computed.
    """

    frame: ClassMeans
    place: Tensor
    center: Tensor
    sums: Tensor
    units: Tensor
    scatter: Tensor
