"""Everything that is measured of the features of one layer, gathered batch by batch in two rounds."""

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
from nc_tools.metrics.collapse.variability_index import variability_index
from nc_tools.metrics.collapse.within_class import within_class_spread

# How far the squares of the second round may be from those of the first, if the loader gave the same features.
_SAME = 1e-3


class TwoPassStats:
    """The features of one layer under one labeling.

    The first round finds class counts, means and variances, which is all that NC0, NC2, NC3, CDNV and the trace ratio
    need. The second one, which knows the means, finds NC1 by the pseudo-inverse, NC4, cosines between samples and the
    variability index: class-averaged whatever the class sizes, with no more memory than K x D and one D x D.

    Args:
        name: What it is called in errors.
        num_classes: K.
        feature_dim: D.
        device: Where the features are.
        index: Whether to gather the D x D scatter of the variability index.
    """

    def __init__(self, name: str, num_classes: int, feature_dim: int, device: torch.device, *, index: bool) -> None:
        self.name, self.num_classes, self.index = name, num_classes, index
        self._moments = ClassMoments(num_classes, feature_dim, device, scatter=False)
        self._second: _Second | None = None

    def meet(self, features: Tensor, labels: Tensor) -> None:
        """First round: add a batch."""
        self._moments.update(features, labels)

    @property
    def counts(self) -> Tensor:
        """Samples of each class (K,)."""
        return self._read().counts

    @property
    def means(self) -> Tensor:
        """Class means (K, D)."""
        return self._read().means

    @property
    def variances(self) -> Tensor:
        """Tr Cov_k (K,)."""
        return self._read().variances

    def _read(self) -> ClassMoments:
        try:
            _ = self._moments.counts
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None
        return self._moments

    def begin_second(self) -> None:
        """Between the rounds.

        Raises:
            ValueError: If fewer than two classes have samples, or a feature or label was bad.
        """
        moments = self._read()
        present = moments.counts.nonzero().flatten()
        if len(present) < 2:
            raise ValueError(
                f"{self.name}: neural collapse compares classes and needs samples of at least 2, got {len(present)}"
            )
        with measuring_precision(moments.device):
            frame = ClassMeans.from_means(present, moments.counts[present], moments.means[present])
            place = torch.zeros_like(moments.counts)
            place[present] = torch.arange(len(present), device=moments.device)
            width = moments.feature_dim if self.index else 0
            self._second = _Second(
                frame=frame,
                place=place,
                center=moments.means[present].mean(dim=0),
                sums=torch.zeros(4, dtype=torch.float64, device=moments.device),
                units=torch.zeros_like(moments.means),
                scatter=torch.zeros(width, width, dtype=torch.float64, device=moments.device),
            )

    def see(self, features: Tensor, labels: Tensor, decisions: Tensor) -> None:
        """Second round: add a batch, with the class that the model chose for each sample (N,)."""
        second = self._second
        assert second is not None  # noqa: S101 (begin_second comes first)
        frame = second.frame
        with measuring_precision(features.device):
            x, y = at_least_float32(features.detach()), labels.long()
            found = within_class_spread(x, second.place[y], frame, None, decisions)
            assert found.disagreement is not None  # noqa: S101 (decisions were given)
            squares = found.variances @ frame.counts.double()
            second.sums += torch.stack(
                [
                    found.nc1_pinv,
                    found.nc1_pinv_pooled * len(x),
                    found.disagreement * len(x),
                    squares,
                ]
            )
            second.units += direction_sums(x, y, second.center, self.num_classes)
            if self.index:
                residual = x - frame.means.to(x.dtype)[second.place[y]]
                weights = (1 / (frame.counts.double() * len(frame.index))).to(x.dtype)[second.place[y]]
                second.scatter += (residual * weights[:, None]).T @ residual

    def values(self, weight: Tensor | None) -> dict[str, float]:
        """Return all quantities, with those of the head where its weight (K, D) acts on these features.

        Raises:
            ValueError: If the second round saw other features than the first.
        """
        second, moments = self._second, self._moments
        assert second is not None  # noqa: S101 (begin_second comes first)
        frame, counts = second.frame, second.frame.counts
        total = int(counts.sum())
        pinv, pooled, differ, squares = second.sums
        first = moments.variances[frame.index] @ counts.double()
        # Below these differences are rounding: of the spread between classes, or of float32 far from the origin.
        floor = (frame.centered.square().sum() * 1e-6 + frame.means.square().sum() * 1e-10) * total
        if bool((squares - first).abs() > _SAME * first + floor):
            raise ValueError(
                f"{self.name}: the loader must give the same samples each time it is gone through, and the second time "
                "gave others: switch augmentation and random subsets off"
            )
        with measuring_precision(moments.device):
            parts = {"nc1_pinv": pinv, "nc1_pinv_pooled": pooled / total}
            variances = moments.variances[frame.index]
            found = collapse_quantities(frame, variances, parts, total, weight, differ / total)
            apart = bool(frame.singular[-1] > 0)
            if apart:
                found |= hyperspherical_uniformity(frame.means)
                found |= finite_values(cosines_from_sums(moments.counts, second.units))
                if weight is not None:
                    found |= uniform_duality(frame.means, weight.detach().to(frame.means)[frame.index])
                if self.index and total > len(frame.index):
                    found |= finite_values({"vci": variability_index(second.scatter, frame.centered)})
        return found


@dataclass
class _Second:
    """What the second round needs and gathers."""

    frame: ClassMeans
    place: Tensor
    center: Tensor
    sums: Tensor
    units: Tensor
    scatter: Tensor
