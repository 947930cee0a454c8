"""The spread of samples about their class means, in all directions and along the means, in one pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nc_tools.metrics.collapse.mean_geometry import ClassMeans

# Floats of one block of residuals: half of a CPU's cache, and enough to keep an accelerator busy.
_BLOCK_CPU, _BLOCK_DEVICE = 1 << 20, 1 << 26
# Entries of a K x K table of scores: 128 MB of float64. Larger tables are computed block by block instead.
_TABLE = 1 << 24


@dataclass(frozen=True)
class LinearReadout:
    """An affine head in the space of the features: logits = features @ weight.T + bias.

    Attributes:
        weight: (all classes, D).
        bias: (all classes,) or None.
    """

    weight: Tensor
    bias: Tensor | None


class _ScoresOfMeans:
    """The scores that the nearest-mean rule and the head give to the class means, by class.

    A table holds all scores. They are computed in float64 and stored in the type of the features. Before that, the
    largest entry of each row is subtracted from the row, so that float32 keeps the digits of the entries that decide.
    With many classes the K x K table would take more memory than everything else; then each block of samples computes
    its own rows.
    """

    def __init__(self, class_means: ClassMeans, head: LinearReadout | None, dtype: torch.dtype) -> None:
        weight = None if head is None else head.weight.detach().to(class_means.means)
        bias = None if head is None or head.bias is None else head.bias.detach().to(class_means.means)
        self._has_table = (
            len(class_means.means) * max(len(class_means.means), 0 if weight is None else len(weight)) <= _TABLE
        )
        self._centered, self._means, self._bias = class_means.centered, class_means.means, bias
        self._weight = class_means.centered[:0] if weight is None else weight
        self._half = class_means.centered.square().sum(dim=1) / 2
        if self._has_table:
            self._nearest = self.nearest_rows(self._centered).to(dtype)
            self._logits = self.logit_rows(self._means).to(dtype) if len(self._weight) else self._nearest
        self._dtype = dtype

    def nearest(self, y: Tensor) -> Tensor:
        """Return the scores (B, K) of the nearest-class-mean rule at the class means c_y, y (B,).

        Score k is c_y . c_k - ||c_k||^2 / 2. The largest score of each row is subtracted from it.
        """
        return self._nearest[y] if self._has_table else self.nearest_rows(self._centered[y]).to(self._dtype)

    def logits(self, y: Tensor) -> Tensor:
        """Return the head's logits at the class means, minus the largest of each row (B, all classes)."""
        return self._logits[y] if self._has_table else self.logit_rows(self._means[y]).to(self._dtype)

    def nearest_rows(self, centered: Tensor) -> Tensor:
        scores = centered @ self._centered.T - self._half
        return scores.sub_(scores.amax(dim=1, keepdim=True))

    def logit_rows(self, means: Tensor) -> Tensor:
        logits = means @ self._weight.T
        if self._bias is not None:
            logits += self._bias
        return logits.sub_(logits.amax(dim=1, keepdim=True))


@dataclass(frozen=True)
class WithinClassSpread:
    """The spread of samples about their class means; float64.

    Attributes:
        variances: tr Cov_k (K,).
        nc1_pinv: tr(S_W S_B^+) / K, class-averaged: with equal weight for every class.
        nc1_pinv_pooled: The same with equal weight for every sample.
        disagreement: Share of samples for which the head and the nearest class mean decide differently (NC4), or None.
    """

    variances: Tensor
    nc1_pinv: Tensor
    nc1_pinv_pooled: Tensor
    disagreement: Tensor | None


def within_class_spread(
    features: Tensor, place: Tensor, class_means: ClassMeans, head: LinearReadout | None, decisions: Tensor | None
) -> WithinClassSpread:
    """Measure the spread of samples about their class means, in all directions and along the means.

    It takes two matrix products for each block of residuals r = x - mu_y (rows). The first is r [H, W^T], with H the
    whitened directions. Its first columns q = r H give tr(S_W S_B^+)/K = mean ||q||^2, and its last ones are the head's
    logits minus those of the class mean. The second is q [P, A^T], in the whitened space: P turns the class-averaged
    S_B^+ into the sample-pooled one, and A holds the class means in coordinates in which q A^T = r C^T. So
    q A^T + c_y . c_k - ||c_k||^2 / 2 are the scores of the nearest class mean (the means differ only along H).

    The residual is computed before the product: for collapsed classes the difference of two products would be only
    rounding error. The mean is subtracted in two parts, its float32 value and the rest. So float32 features give the
    residual of float64 arithmetic, rounded once, however far the class lies from the origin.

    Args:
        features: (N, D), float32 or float64.
        place: The row of ``class_means`` that is the sample's class (N,).
        class_means: Means of the K classes that have samples.
        head: The head, for the disagreement, if it is affine in the features; else None.
        decisions: For any other head, the class index that it predicts for each sample (N,); or None.
    """
    dtype, device, rank = features.dtype, features.device, len(class_means.singular)
    along = class_means.centered @ class_means.whitening
    outer, inner = class_means.whitening.to(dtype), class_means.pooled.to(dtype)
    compare = head is not None or decisions is not None
    if compare:
        inner = torch.cat([inner, (along * class_means.singular.square()).T.to(dtype)], dim=1)
    scores = _ScoresOfMeans(class_means, head, dtype) if compare else None
    if head is not None:
        outer = torch.cat([outer, head.weight.detach().T.to(outer)], dim=1)
    means = class_means.means.to(dtype)
    rests = (class_means.means - means).to(dtype)
    norms, whitened, pooled = torch.zeros(3, len(features), dtype=dtype, device=device)
    differ = torch.zeros(len(features), dtype=torch.bool, device=device)
    widest = max(features.shape[1], outer.shape[1], inner.shape[1])
    step = min(max(64, (_BLOCK_CPU if device.type == "cpu" else _BLOCK_DEVICE) // widest), len(features))
    # Buffers that every block uses again: allocating new memory costs more than the arithmetic.
    residuals, rest = features.new_empty(2, step, features.shape[1])
    products, whitened_products = features.new_empty(step, outer.shape[1]), features.new_empty(step, inner.shape[1])
    for start in range(0, len(features), step):
        block = slice(start, start + step)
        y = place[block]
        residual, product, whitened_product = residuals[: len(y)], products[: len(y)], whitened_products[: len(y)]
        torch.index_select(means, 0, y, out=residual)
        torch.sub(features[block], residual, out=residual)
        if dtype != class_means.means.dtype:
            residual.sub_(torch.index_select(rests, 0, y, out=rest[: len(y)]))
        torch.mm(residual, outer, out=product)
        torch.mm(product[:, :rank], inner, out=whitened_product)
        norms[block] = torch.linalg.vector_norm(residual, dim=1)
        whitened[block] = torch.linalg.vector_norm(product[:, :rank], dim=1)
        pooled[block] = torch.linalg.vector_norm(whitened_product[:, :rank], dim=1)
        if scores is not None:
            nearest = class_means.index[whitened_product[:, rank:].add_(scores.nearest(y)).argmax(dim=1)]
            if decisions is None:
                differ[block] = product[:, rank:].add_(scores.logits(y)).argmax(dim=1) != nearest
            else:
                differ[block] = decisions[block] != nearest
    by_class = torch.zeros(2, len(means), dtype=torch.float64, device=device)
    by_class[0].scatter_add_(0, place, norms.double().square())
    by_class[1].scatter_add_(0, place, whitened.double().square())
    return WithinClassSpread(
        variances=by_class[0] / class_means.counts,
        nc1_pinv=(by_class[1] / class_means.counts).mean(),
        nc1_pinv_pooled=pooled.double().square().mean() / len(means),
        disagreement=differ.double().mean() if compare else None,
    )
