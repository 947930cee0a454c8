"""The spread of samples about their class means, along the means and altogether, in one blocked pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nc_tools.metrics.collapse.mean_geometry import MeanFrame

# Floats of one block of residuals: half a processor's cache, and enough to fill an accelerator.
_BLOCK_CPU, _BLOCK_DEVICE = 1 << 20, 1 << 26
# Entries of a K x K table of scores: 128 MB of float64. Beyond it they are computed again for each block.
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
    """What the nearest-mean rule and the head say of the class means themselves, looked up by class.

    With many classes a K x K table would take more memory than all else; then the rows of a block are computed.
    """

    def __init__(self, frame: MeanFrame, head: LinearReadout | None, dtype: torch.dtype) -> None:
        weight = None if head is None else head.weight.detach().to(frame.means)
        bias = None if head is None or head.bias is None else head.bias.detach().to(frame.means)
        self._whole = len(frame.means) * max(len(frame.means), 0 if weight is None else len(weight)) <= _TABLE
        self._centered, self._means, self._bias = frame.centered, frame.means, bias
        self._weight = frame.centered[:0] if weight is None else weight
        self._half = frame.centered.square().sum(dim=1) / 2
        if self._whole:
            self._nearest = (frame.centered @ frame.centered.T - self._half).to(dtype)
            self._logits = self._add_bias(frame.means @ self._weight.T).to(dtype)
        else:
            self._centered, self._means, self._weight, self._half = (
                part.to(dtype) for part in (self._centered, self._means, self._weight, self._half)
            )
            self._bias = None if bias is None else bias.to(dtype)

    def nearest(self, y: Tensor) -> Tensor:
        """Return c_y . c_k - ||c_k||^2 / 2 (B, K)."""
        return self._nearest[y] if self._whole else self._centered[y] @ self._centered.T - self._half

    def logits(self, y: Tensor) -> Tensor:
        """Return the head's logits at the class means (B, all classes)."""
        return self._logits[y] if self._whole else self._add_bias(self._means[y] @ self._weight.T)

    def _add_bias(self, logits: Tensor) -> Tensor:
        return logits if self._bias is None else logits + self._bias


@dataclass(frozen=True)
class Within:
    """What the pass found; float64.

    Attributes:
        variances: tr Cov_k (K,).
        nc1_pinv: tr(S_W S_B^+) / K, every class alike.
        nc1_pinv_pooled: The same, every sample alike.
        disagreement: Share of samples for which the head and the nearest class mean decide differently.
    """

    variances: Tensor
    nc1_pinv: Tensor
    nc1_pinv_pooled: Tensor
    disagreement: Tensor | None


def within_pass(
    features: Tensor, place: Tensor, frame: MeanFrame, head: LinearReadout | None, decisions: Tensor | None
) -> Within:
    """Measure the residuals r = x - mu_y against the class means, with two matrix products per block.

    The first is r [H, W^T] with H the whitened directions (D, r): its first columns q = H^T r have
    tr(S_W S_B^+)/K = mean ||q||^2, its last ones are the head's logits less those of the class mean. The
    second is q [P, A^T], in the whitened space: P turns the class-averaged S_B^+ into the sample-pooled one,
    and A holds the class means, so that q A^T + c_y . c_k are the scores of the nearest class mean (the means
    differ only along H).

    The residual is formed before the product: when classes have collapsed, the difference of two products would
    be rounding error and nothing else.

    Args:
        features: (N, D), float32 or float64.
        place: Which row of the frame is the sample's class (N,).
        frame: Of the K classes that have samples.
        head: For the disagreement, if the head is affine in the features; or None.
        decisions: For the same with any other head, the class it chose for each sample (N,), numbered as in the
            data set; or None.
    """
    dtype, device, rank = features.dtype, features.device, len(frame.singular)
    along = frame.centered @ frame.whitening
    outer, inner = frame.whitening.to(dtype), frame.pooled.to(dtype)
    compare = head is not None or decisions is not None
    if compare:
        inner = torch.cat([inner, (along * frame.singular.square()).T.to(dtype)], dim=1)
    scores = _ScoresOfMeans(frame, head, dtype) if compare else None
    if head is not None:
        outer = torch.cat([outer, head.weight.detach().T.to(outer)], dim=1)
    means = frame.means.to(dtype)
    norms, whitened, pooled = torch.zeros(3, len(features), dtype=dtype, device=device)
    differ = torch.zeros(len(features), dtype=torch.bool, device=device)
    widest = max(features.shape[1], outer.shape[1], inner.shape[1])
    step = min(max(64, (_BLOCK_CPU if device.type == "cpu" else _BLOCK_DEVICE) // widest), len(features))
    # Buffers of one block, used again: memory fresh from the system costs more than the arithmetic on it.
    residuals = features.new_empty(step, features.shape[1])
    products, seconds = features.new_empty(step, outer.shape[1]), features.new_empty(step, inner.shape[1])
    for start in range(0, len(features), step):
        block = slice(start, start + step)
        y = place[block]
        residual, product, second = residuals[: len(y)], products[: len(y)], seconds[: len(y)]
        torch.index_select(means, 0, y, out=residual)
        torch.sub(features[block], residual, out=residual)
        torch.mm(residual, outer, out=product)
        torch.mm(product[:, :rank], inner, out=second)
        norms[block] = torch.linalg.vector_norm(residual, dim=1)
        whitened[block] = torch.linalg.vector_norm(product[:, :rank], dim=1)
        pooled[block] = torch.linalg.vector_norm(second[:, :rank], dim=1)
        if scores is not None:
            nearest = frame.index[second[:, rank:].add_(scores.nearest(y)).argmax(dim=1)]
            if decisions is None:
                differ[block] = product[:, rank:].add_(scores.logits(y)).argmax(dim=1) != nearest
            else:
                differ[block] = decisions[block] != nearest
    by_class = torch.zeros(2, len(means), dtype=torch.float64, device=device)
    by_class[0].scatter_add_(0, place, norms.double().square())
    by_class[1].scatter_add_(0, place, whitened.double().square())
    return Within(
        variances=by_class[0] / frame.counts,
        nc1_pinv=(by_class[1] / frame.counts).mean(),
        nc1_pinv_pooled=pooled.double().square().mean() / len(means),
        disagreement=differ.double().mean() if compare else None,
    )
