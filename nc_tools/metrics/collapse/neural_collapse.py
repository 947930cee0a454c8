"""Neural collapse of one set of features: NC0 to NC4, the trace ratio and CDNV."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.class_sums import class_sums
from nc_tools._support.labels import check_features_and_labels
from nc_tools._support.precision import at_least_float32, measuring_precision
from nc_tools.class_moments import ClassMoments
from nc_tools.metrics.checks import check_finite
from nc_tools.metrics.collapse.mean_geometry import MeanFrame, defined, mean_geometry, self_duality
from nc_tools.metrics.collapse.within_class import LinearReadout, within_pass


def neural_collapse(
    features: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    num_classes: int | None = None,
    *,
    logits: Tensor | None = None,
) -> dict[str, float]:
    """Measure how far features have collapsed to an equiangular frame of class means, and the head with them.

    Use it on training features to see whether an intervention caused collapse, and on test features to see
    whether it generalizes. Every class counts alike, so the values do not move with the class frequencies;
    the keys that end in ``_pooled`` let every sample count alike. Over the K classes with samples, with mu_k the
    class means, mu their unweighted mean, Cov_k the (population) covariance of class k and v_k = tr Cov_k,

        S_W = mean_k Cov_k,    S_B = mean_k (mu_k - mu)(mu_k - mu)^T,

    and the quantities are:

        nc0               ||W^T 1||^2 / D, D the width of W
        nc1_pinv          tr(S_W S_B^+) / K, the pseudo-inverse cut at the rank of the means, at most min(K - 1, D)
        nc1_trace         tr(S_W) / tr(S_B)
        cdnv              mean_{i != j} (v_i + v_j) / (2 ||mu_i - mu_j||^2)
        nc2_equinorm      see ``means.mean_geometry``
        nc2_equiangular   see ``means.mean_geometry``
        nc2_gram          see ``means.mean_geometry``
        nc3_distance      see ``means.self_duality``
        nc3_cosine        see ``means.self_duality``
        nc4_disagreement  share of samples whose predicted class is not that of the nearest class mean

    Sources: Papyan, Han and Donoho (2020) for NC1 to NC4; Galanti, Gyorgy and Hutter (2021) for CDNV; Hui, Belkin
    and Nakkiran (2022) on why test features are measured too. The published definition pools NC1 by sample, which
    is the same on balanced data; see docs/measures.md.

    A quantity that these features do not define has no key: NC1 and CDNV if no class has two samples, all but NC0
    and NC4 if all class means coincide. Only the part of the within-class scatter that lies along the class means
    enters tr(S_W S_B^+), so no D x D matrix is formed: the work is O(N D K).

    Args:
        features: (N, D), in the space where ``weight`` acts; half precision is measured in float32.
        labels: (N,), integers.
        weight: The head's class vectors (K, D); adds nc0, nc3 and, with ``bias``, nc4.
        bias: (K,) or None.
        num_classes: K, where neither ``weight`` nor ``logits`` says; by default the largest label plus one.
        logits: (N, K) the head's own scores for nc4, for a head that is not affine in ``features`` (or to
            save work).

    Returns:
        The quantities by name.

    Raises:
        TypeError: If the labels are not integers or the features not floating-point.
        ValueError: If shapes do not fit, a label is out of range, a feature is not finite, or fewer than two
            classes have samples.

    Example:
        >>> features = torch.eye(3).repeat(4, 1)
        >>> values = neural_collapse(features, torch.arange(3).repeat(4), weight=torch.eye(3))
        >>> [round(values[key], 6) for key in ("nc1_pinv", "nc2_equiangular", "nc4_disagreement")]
        [0.0, 0.0, 0.0]
    """
    check_features_and_labels(features, labels)
    _check_head(features, weight, bias, logits)
    number = _number_of_classes(labels, weight, logits, num_classes)
    with measuring_precision(features.device):
        x = at_least_float32(features.detach())
        given = labels.to(x.device).long()
        safe = given.clamp(0, number - 1)
        counts, sums = class_sums(x, safe, number)
        wrong, finite, present = torch.stack(
            [(given != safe).sum(), sums.isfinite().all().long(), (counts > 0).sum()]
        ).tolist()
        if wrong:
            raise ValueError(f"labels must lie in [0, {number}), but {wrong} of them do not")
        if not finite:
            raise ValueError(_not_finite(x))
        if present < 2:
            raise ValueError(f"neural collapse compares classes and needs samples of at least 2, got {present}")
        index = torch.arange(number, device=x.device) if present == number else counts.nonzero().flatten()
        place = torch.empty_like(counts).scatter_(0, index, torch.arange(present, device=x.device))
        frame = MeanFrame.of(index, counts[index], sums[index] / counts[index, None])
        decisions = None if logits is None else logits.to(x.device).argmax(dim=1)
        head = LinearReadout(weight, bias) if weight is not None and logits is None else None
        within = within_pass(x, place[safe], frame, head, decisions)
        pinv = {"nc1_pinv": within.nc1_pinv, "nc1_pinv_pooled": within.nc1_pinv_pooled}
        return assemble(frame, within.variances, pinv, len(x), weight, within.disagreement)


def collapse_from_moments(moments: ClassMoments, weight: Tensor | None = None) -> dict[str, float]:
    """Return what ``neural_collapse`` returns, but for NC4, from moments that were gathered batch by batch.

    ``nc1_pinv`` has no key where the moments cannot tell it: without scatter, or class-averaged with classes
    of different size whose counts were not given.

    Args:
        moments: Of at least two classes.
        weight: (K, D) or None.

    Returns:
        The quantities by name.

    Raises:
        ValueError: If fewer than two classes have samples, or a feature or label was bad.

    Example:
        >>> moments = ClassMoments(2, 1)
        >>> moments.update(torch.tensor([[0.0], [2.0], [4.0], [6.0]]), torch.tensor([0, 0, 1, 1]))
        >>> round(collapse_from_moments(moments)["nc1_trace"], 6)
        0.25
    """
    with measuring_precision(moments.device):
        index = moments.counts.nonzero().flatten()
        if len(index) < 2:
            raise ValueError(f"neural collapse compares classes and needs samples of at least 2, got {len(index)}")
        if weight is not None and weight.shape != moments.means.shape:
            raise ValueError(f"weight must have the shape {tuple(moments.means.shape)}, got {tuple(weight.shape)}")
        frame = MeanFrame.of(index, moments.counts[index], moments.means[index])
        pinv = {}
        if moments.has_class_averaged:
            half = frame.whitening
            pinv["nc1_pinv"] = ((moments.within_class_averaged() @ half) * half).sum()
        if moments.has_pooled:
            half = frame.whitening @ frame.pooled
            pinv["nc1_pinv_pooled"] = ((moments.within_pooled() @ half) * half).sum() / len(index)
        return assemble(frame, moments.variances[index], pinv, int(moments.counts.sum()), weight)


def assemble(
    frame: MeanFrame,
    variances: Tensor,
    pinv: dict[str, Tensor],
    samples: int,
    weight: Tensor | None = None,
    disagreement: Tensor | None = None,
) -> dict[str, float]:
    """Put the quantities together from their parts, however those were gathered, and leave out the undefined.

    Args:
        frame: Of the K classes that have samples.
        variances: tr Cov_k (K,).
        pinv: What is known of NC1 by the pseudo-inverse.
        samples: N.
        weight: (all classes, D) or None.
        disagreement: NC4, or None.
    """
    result = _with_spread(_of_classes(frame, variances, pinv), samples, len(frame.index))
    if weight is not None:
        result |= _of_head(frame, weight)
    if disagreement is not None:
        result["nc4_disagreement"] = disagreement
    return defined(result)


def _of_classes(frame: MeanFrame, variances: Tensor, pinv: dict[str, Tensor]) -> dict[str, Tensor]:
    share = frame.counts / frame.counts.sum()
    about_all = (frame.centered - share @ frame.centered).square().sum(dim=1)
    some = frame.singular[-1] > 0
    return {
        **{key: torch.where(some, value, torch.nan) for key, value in pinv.items()},
        "nc1_trace": variances.mean() / frame.centered.square().sum(dim=1).mean(),
        "nc1_trace_pooled": (share @ variances) / (share @ about_all),
        **mean_geometry(frame.centered, variances),
    }


def _of_head(frame: MeanFrame, weight: Tensor) -> dict[str, Tensor]:
    rows = weight.detach().to(frame.means)
    return {"nc0": rows.sum(dim=0).square().mean(), **self_duality(frame.centered, rows[frame.index])}


def _with_spread(values: dict[str, Tensor], samples: int, classes: int) -> dict[str, Tensor]:
    """Leave out what compares with the spread within classes if every class has one sample.

    No class shows any spread then, which is not the same as having none.
    """
    if samples > classes:
        return values
    return {key: value for key, value in values.items() if not key.startswith(("nc1", "cdnv"))}


def _not_finite(features: Tensor) -> str:
    bad = int((~features.isfinite().all(dim=1)).sum())
    if bad:
        return f"features must be finite, but {bad} of {len(features)} samples hold NaN or inf: repair them"
    return "features must be small enough for float32 sums: rescale them or pass float64"


def _number_of_classes(labels: Tensor, weight: Tensor | None, logits: Tensor | None, num_classes: int | None) -> int:
    sizes = {"num_classes": num_classes}
    sizes["weight"] = None if weight is None else len(weight)
    sizes["logits"] = None if logits is None else logits.shape[1]
    said = {name: size for name, size in sizes.items() if size is not None}
    if len(set(said.values())) > 1:
        text = ", ".join(f"{name} {size}" for name, size in said.items())
        raise ValueError(f"all must speak of the same number of classes, got {text}")
    if said:
        return next(iter(said.values()))
    return int(labels.max()) + 1 if len(labels) else 0


def _check_head(features: Tensor, weight: Tensor | None, bias: Tensor | None, logits: Tensor | None) -> None:
    if weight is not None and (weight.ndim != 2 or weight.shape[1] != features.shape[1]):
        raise ValueError(
            f"weight must have the shape (K, {features.shape[1]}) to act on these features, got "
            f"{tuple(weight.shape)}: pass the features that enter the head's product (after its projection)"
        )
    if weight is not None:
        check_finite("weight", weight)
    if bias is not None and (weight is None or bias.shape != weight.shape[:1]):
        raise ValueError("bias must come with a weight and hold one number for each of its rows")
    if logits is not None and (logits.ndim != 2 or len(logits) != len(features)):
        raise ValueError(f"logits must have the shape ({len(features)}, K), got {tuple(logits.shape)}")
    if logits is not None and not bool(logits.sum().isfinite()):  # the sum first: a look at each row costs a mask
        check_finite("logits", logits)
