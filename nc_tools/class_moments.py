"""Counts, means and scatter of every class, in one pass over features that need not fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from nc_tools._support.class_sums import class_sums, group_classes
from nc_tools._support.labels import check_features_and_labels
from nc_tools._support.precision import at_least_float32, measuring_precision


@contextmanager
def _persistent_sums(device: torch.device) -> Iterator[None]:
    """Leave inference mode while sums are computed: tensors created in it could not be updated outside it."""
    with torch.inference_mode(False), measuring_precision(device):
        yield


class ClassMoments:
    """Class counts, means, variances and within-class scatter of features that arrive in batches.

    Use it for features that do not fit in memory or are distributed over processes: any batches and any order of
    merging give the same result up to rounding. If all features fit in memory, ``metrics.neural_collapse`` is faster.

    Let a class have n earlier samples with mean a, and m new samples x_i with mean b. Its mean moves by
    m/(n + m) (b - a), and

        scatter += sum_i (x_i - b)(x_i - b)^T + nm/(n + m) (b - a)(b - a)^T
                 = sum_i (x_i - r)(x_i - r)^T,    r = b - sqrt(n/(n + m)) (b - a).

    The first form is exact (Welford, 1962, for one sample; Chan, Golub and LeVeque, 1979, for blocks). The second form
    is equal to it, needs one matrix product per batch, and only adds squares, so that no digits cancel. All of it is
    computed in float64, so that float32 and float64 features of the same values give the same moments, also where
    features lie far from the origin or some directions vary a million times less than others.

    The class-averaged covariance S_W = mean_k Cov_k divides each sample by the size of its class, which a single pass
    does not know in advance: give ``class_counts``. Without them the class-averaged scatter is available only if all
    classes have equally many samples; the sample-pooled one, and the traces of both, always are.

    Memory: one K x D and at most three D x D matrices, and one batch, all of float64.

    Args:
        num_classes: K.
        feature_dim: D.
        device: Device of the sums; batches are moved to it.
        class_counts: Number of samples (K,) that each class will have at the end. Keeps a second scatter, which doubles
            the cost.
        scatter: Whether to keep the (D, D) scatter. Without it the cost is O(N D), and there is no ``nc1_pinv``.

    Example:
        >>> moments = ClassMoments(num_classes=3, feature_dim=1)
        >>> moments.update(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1]))
        >>> moments.means.flatten().tolist(), moments.variances.tolist(), moments.counts.tolist()
        ([1.0, 5.0, 0.0], [1.0, 0.0, 0.0], [2, 1, 0])

    Raises:
        ValueError: If K or D is not positive, or ``class_counts`` does not have K entries.
    """

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        device: torch.device | str = "cpu",
        *,
        class_counts: Tensor | Sequence[int] | None = None,
        scatter: bool = True,
    ) -> None:
        if num_classes < 1 or feature_dim < 1:
            raise ValueError(f"num_classes and feature_dim must be at least 1, got {num_classes} and {feature_dim}")
        self.num_classes, self.feature_dim, self.device = num_classes, feature_dim, torch.device(device)
        self._counts = torch.zeros(num_classes, dtype=torch.int64, device=self.device)
        self._means = torch.zeros(num_classes, feature_dim, dtype=torch.float64, device=self.device)
        self._squares = torch.zeros(num_classes, dtype=torch.float64, device=self.device)
        # Bad samples are counted on the device and reported when a result is read, so update() does not synchronize.
        self._bad = torch.zeros(2, dtype=torch.int64, device=self.device)
        self._expected: Tensor | None = None
        if class_counts is not None:
            self._expected = torch.as_tensor(class_counts, dtype=torch.int64).to(self.device)
            if self._expected.shape != (num_classes,):
                raise ValueError(
                    f"class_counts must hold one number for each of the {num_classes} classes, got the shape "
                    f"{tuple(self._expected.shape)}"
                )
        copies = (1 if self._expected is None else 2) if scatter else 0
        self._scatter = torch.zeros(copies, feature_dim, feature_dim, dtype=torch.float64, device=self.device)
        self._rows: Tensor | None = None

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add a batch of features and labels, without waiting for the device.

        Args:
            features: (N, D), any floating type.
            labels: (N,), integers in [0, K).

        Raises:
            ValueError: If the shapes do not fit. NaN, inf and labels out of range raise an error when a result is read.
        """
        check_features_and_labels(features, labels)
        if features.shape[1] != self.feature_dim:
            raise ValueError(f"features must have the width feature_dim={self.feature_dim}, got {features.shape[1]}")
        if len(features) == 0:
            return
        with _persistent_sums(self.device):
            x = at_least_float32(features.to(self.device))
            target = labels.to(self.device).long()
            safe = target.clamp(0, self.num_classes - 1)
            self._bad += torch.stack([(safe != target).sum(), (~x.sum(dim=1).isfinite()).sum()])
            group, classes = group_classes(safe, self.num_classes)
            count, sums = class_sums(x, group, len(classes))
            earlier = self._counts.index_select(0, classes)
            share = count.double() / (earlier + count).clamp(min=1)
            batch_mean = sums.div_(count.clamp(min=1)[:, None])
            # A class that is not in the batch does not change; a new class takes the mean of the batch.
            shift = batch_mean - self._means.index_select(0, classes)
            self._counts.index_add_(0, classes, count)
            self._means.index_add_(0, classes, shift * share[:, None])
            reference = batch_mean.addcmul_(shift, (1 - share).sqrt_()[:, None], value=-1)
            rows = self._buffer(x)
            torch.index_select(reference, 0, group, out=rows)
            torch.sub(x, rows, out=rows)
            self._squares.index_add_(0, safe, torch.linalg.vector_norm(rows, dim=1).square_())
            if len(self._scatter):
                self._add_scatter(rows, safe)

    def _buffer(self, x: Tensor) -> Tensor:
        """Return a float64 buffer of the batch's shape. Kept, because allocating costs more than the arithmetic."""
        if self._rows is None or len(self._rows) < len(x):
            self._rows = torch.empty_like(x, dtype=torch.float64)
        return self._rows[: len(x)]

    def _add_scatter(self, rows: Tensor, labels: Tensor) -> None:
        """Add the products of deviations (N, D) to the scatter; the deviations are overwritten."""
        self._scatter[0].addmm_(rows.T, rows)
        if self._expected is not None:
            # Each factor of the product is divided by sqrt(n_k), and not one of them by n_k: so the product stays
            # symmetric, and the rows need no copy.
            rows.mul_(self._expected.clamp(min=1).double().rsqrt()[labels, None])
            self._scatter[1].addmm_(rows.T, rows)

    def _about(self, means: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums of squares (K,) and the scatter about ``means`` (K, D) instead of about the own means."""
        shift = self._means - means
        sizes = self._counts.double()[:, None]
        weights = [sizes]
        if self._expected is not None:
            weights.append(sizes / self._expected.clamp(min=1)[:, None])
        outer = [(shift * weight).T @ shift for weight in weights[: len(self._scatter)]]
        scatter = self._scatter + torch.stack(outer) if outer else self._scatter
        return self._squares + (sizes * shift.square()).sum(dim=1), scatter

    def merge(self, other: ClassMoments) -> None:
        """Add the samples of another ClassMoments, ``other``, which stays unchanged.

        Raises:
            TypeError: If ``other`` is not a ClassMoments.
            ValueError: If the two differ in sizes, class counts or scatter.
        """
        if not isinstance(other, ClassMoments):
            raise TypeError(f"only ClassMoments can be merged into ClassMoments, got {type(other).__name__}")
        same = (self.num_classes, self.feature_dim, len(self._scatter)) == (
            other.num_classes,
            other.feature_dim,
            len(other._scatter),
        )
        if self._expected is not None and other._expected is not None:
            same = same and torch.equal(self._expected, other._expected.to(self.device))
        same = same and (self._expected is None) == (other._expected is None)
        if not same:
            raise ValueError(
                "ClassMoments can be merged only if they have the same num_classes, feature_dim, class_counts and "
                "scatter"
            )
        with _persistent_sums(self.device):
            total = self._counts + other._counts.to(self.device)
            sums = (other._counts[:, None] * other._means).to(self.device)
            means = (self._counts[:, None] * self._means + sums) / total.clamp(min=1)[:, None]
            squares, scatter = self._about(means)
            other_squares, other_scatter = other._about(means.to(other.device))
            self._squares = squares + other_squares.to(self.device)
            self._scatter = scatter + other_scatter.to(self.device)
            self._bad += other._bad.to(self.device)
            self._counts, self._means = total, means

    def all_reduce(self, group: dist.ProcessGroup | None = None) -> None:
        """Combine the moments of all processes, so that each process holds those of all samples.

        Args:
            group: The process group; by default all processes.
        """
        with _persistent_sums(self.device):
            total, sums = self._counts.clone(), self._counts[:, None] * self._means
            dist.all_reduce(total, group=group)
            dist.all_reduce(sums, group=group)
            means = sums / total.clamp(min=1)[:, None]
            self._squares, self._scatter = self._about(means)
            for part in (self._squares, self._scatter, self._bad):
                dist.all_reduce(part, group=group)
            self._counts, self._means = total, means

    def _check(self) -> None:
        """Raise ValueError if a label was out of range or a sample not finite; waits for the device."""
        labels, samples = self._bad.tolist()
        if labels:
            raise ValueError(f"labels must lie in [0, {self.num_classes}), but {labels} of them do not")
        if samples:
            raise ValueError(
                f"features must be finite, but {samples} samples hold NaN or inf: remove these samples, or check the "
                "model that produced them"
            )

    @property
    def counts(self) -> Tensor:
        """Number of samples of each class (K,), int64."""
        self._check()
        return self._counts

    @property
    def means(self) -> Tensor:
        """Class means (K, D), float64. Rows of classes without samples are zero: ignore them."""
        self._check()
        return self._means

    @property
    def variances(self) -> Tensor:
        """Mean squared distance of a class's samples to their mean, tr Cov_k (K,), float64."""
        self._check()
        return self._squares.clamp(min=0) / self._counts.clamp(min=1)

    @property
    def has_pooled(self) -> bool:
        """Whether ``within_pooled`` can be computed."""
        return len(self._scatter) > 0

    @property
    def has_class_averaged(self) -> bool:
        """Whether ``within_class_averaged`` can be computed."""
        if self._expected is not None:
            return self.has_pooled and torch.equal(self._expected, self._counts)
        present = self._counts[self._counts > 0]
        return self.has_pooled and len(present) > 0 and bool((present == present[0]).all())

    def within_pooled(self) -> Tensor:
        """Return the covariance (D, D) about the class means, with equal weight for every sample.

        That is (1/N) sum_i (x_i - mu_y)(x_i - mu_y)^T.

        Raises:
            ValueError: If the moments were built with scatter=False.
        """
        return self._symmetric(0) / self.counts.sum().clamp(min=1)

    def within_class_averaged(self) -> Tensor:
        """Return the covariance (D, D) about the class means, with equal weight for every class.

        That is mean_k Cov_k over the classes with samples.

        Raises:
            ValueError: If the moments were built with scatter=False, if the classes have different sizes and
                ``class_counts`` was not given, or if the counts differ from ``class_counts``.
        """
        present = self.counts[self.counts > 0]
        if self._expected is not None:
            if not torch.equal(self._expected, self._counts):
                raise ValueError(
                    "class_counts differ from the numbers of samples that were added: give the counts of all samples "
                    "that the loader yields (drop_last=False), or use within_pooled()"
                )
            return self._symmetric(1) / max(len(present), 1)
        if len(present) and bool((present != present[0]).any()):
            raise ValueError(
                "the class-averaged covariance of classes of different size needs their counts before the first "
                "update: build the moments with class_counts=, or use within_pooled()"
            )
        return self.within_pooled()

    def _symmetric(self, which: int) -> Tensor:
        """Return the scatter (D, D) at position ``which``, without the asymmetry that rounding leaves."""
        if len(self._scatter) == 0:
            raise ValueError(
                "a covariance needs the scatter of features, but this ClassMoments holds variances only: build it with "
                "scatter=True"
            )
        return (self._scatter[which] + self._scatter[which].T) / 2
