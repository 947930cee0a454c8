"""A labeled set of features: vectors that a frozen backbone, or any other program, computed once for each sample."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features (N, D) with labels, class names and ids. It is to features what ``ImageSet`` is to images.

    Attributes:
        features: (N, D), float16 or float32, on the CPU. It may be a memory-mapped file. With ``rows`` it may hold the
            features of more samples, in any order.
        labels: (N,), int64, in [0, K).
        classes: K names.
        name: Name of the set in records.
        clean_labels: True labels (N,) where ``labels`` are known to be noisy, or None. For measures only: nothing may
            be chosen by them.
        paths: The id of each sample, such as the path of its image; None if samples have no ids.
        rows: (N,), int64: the row of ``features`` that belongs to each sample; None for row i of sample i.
        groups: Index of each sample's group, such as its patient (N,), int64; None without groups.
        further_rows: (V - 1, N), int64: the rows of ``features`` with further views of each sample, such as augmented
            ones, which training may take in place of the sample itself; None for one view. Needs ``rows``.

    Raises:
        ValueError: If shapes, types or labels do not match.

    Example:
        >>> part = FeatureSet(torch.ones(3, 2), torch.tensor([0, 1, 1]), ("cat", "dog"), "pets")
        >>> part.shape, part.take(torch.tensor([2])).tolist()
        ((2,), [[1.0, 1.0]])
    """

    features: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    clean_labels: Tensor | None = None
    paths: tuple[str, ...] | None = None
    rows: Tensor | None = None
    groups: Tensor | None = None
    further_rows: Tensor | None = None

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.features.dtype not in (torch.float16, torch.float32):
            raise ValueError(
                f"features must be float16 or float32 of shape (N, D), got {self.features.dtype} of shape "
                f"{tuple(self.features.shape)}"
            )
        for labels in (self.labels, self.clean_labels):
            if labels is not None:
                _check_labels(labels, len(self), len(self.classes))
        if self.further_rows is not None and (self.rows is None or self.further_rows.shape[1:] != self.rows.shape):
            raise ValueError(
                f"further views need a row for each of the {len(self)} samples and each view, (V - 1, N), got "
                f"{tuple(self.further_rows.shape)}"
            )
        if self.paths is not None and len(self.paths) != len(self):
            raise ValueError(f"there must be one id for each of the {len(self)} rows, got {len(self.paths)}")

    def __len__(self) -> int:
        return len(self.features) if self.rows is None else len(self.rows)

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return len(self.classes)

    @property
    def shape(self) -> tuple[int]:
        """Shape (D,) of the features of one sample."""
        return (self.features.shape[1],)

    @property
    def views(self) -> int:
        """Number of views of each sample, V."""
        return 1 if self.further_rows is None else 1 + len(self.further_rows)

    def take(self, index: Tensor, view: Tensor | None = None) -> Tensor:
        """Return the features at ``index`` (B,), float32 (B, D).

        Args:
            index: The samples.
            view: Which view of each (B,), int64, in [0, V). None: the samples themselves, which are view 0.
        """
        rows = index if self.rows is None else self.rows[index]
        if view is not None and self.further_rows is not None:
            rows = torch.where(view == 0, rows, self.further_rows[(view - 1).clamp(min=0), index])
        return self.features.index_select(0, rows).to(torch.float32)

    def subset(self, indices: Tensor) -> FeatureSet:
        """Return the set of the samples at ``indices`` (M,), in that order. Features are not copied."""
        return replace(
            self,
            rows=indices if self.rows is None else self.rows[indices],
            labels=self.labels[indices],
            clean_labels=None if self.clean_labels is None else self.clean_labels[indices],
            groups=None if self.groups is None else self.groups[indices],
            paths=None if self.paths is None else tuple(self.paths[i] for i in indices.tolist()),
            further_rows=None if self.further_rows is None else self.further_rows[:, indices],
        )

    def digests(self) -> Tensor:
        """Return the SHA-256 of the features of each sample, of view 0 (N, 32), uint8."""
        pool = self.features.contiguous().numpy()
        rows = range(len(self)) if self.rows is None else self.rows.tolist()
        hashes = b"".join(hashlib.sha256(pool[row]).digest() for row in rows)
        return torch.from_numpy(np.frombuffer(bytearray(hashes), dtype=np.uint8).reshape(len(self), 32))


def _check_labels(labels: Tensor, count: int, num_classes: int) -> None:
    if labels.shape != (count,) or labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64 of shape ({count},), got {labels.dtype} of {tuple(labels.shape)}")
    if count and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
        raise ValueError(f"labels must lie in 0..{num_classes - 1}, got {int(labels.min())}..{int(labels.max())}")
