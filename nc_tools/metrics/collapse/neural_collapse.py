"""Neural collapse of one set of features: NC0 to NC4, the trace ratio and CDNV."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.bad_rows import count_bad_rows
from nc_tools._support.class_sums import class_sums
from nc_tools._support.labels import check_features_and_labels
from nc_tools._support.precision import at_least_float32, measuring_precision
from nc_tools.class_moments import ClassMoments
from nc_tools.metrics.checks import check_finite
from nc_tools.metrics.collapse.mean_geometry import ClassMeans, finite_values, mean_geometry, self_duality
from nc_tools.metrics.collapse.within_class import LinearReadout, within_class_spread


def neural_collapse(
    features: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    num_classes: int | None = None,
    *,
    logits: Tensor | None = None,
) -> dict[str, float]:
    """Measure neural collapse: how close features and head are to equally long, equiangular class means.

    Use it on training features to see whether an intervention caused collapse, and on test features to see
    whether it generalizes. Every class has the same weight, so values do not depend on the class frequencies;
    in the keys that end in ``_pooled`` every sample has the same weight. Over the K classes with samples, with mu_k
    the class means, mu their unweighted mean, Cov_k the (population) covariance of class k and v_k = tr Cov_k,

        S_W = mean_k Cov_k,    S_B = mean_k (mu_k - mu)(mu_k - mu)^T,

    and the quantities are:

        nc0               ||W^T 1||^2 / D, D the width of W
        nc1_pinv          tr(S_W S_B^+) / K, the pseudo-inverse cut at the rank of the means, at most min(K - 1, D)
        nc1_trace         tr(S_W) / tr(S_B)
        cdnv              mean_{i != j} (v_i + v_j) / (2 ||mu_i - mu_j||^2)
        nc2_equinorm      see ``mean_geometry.mean_geometry``
        nc2_equiangular   see ``mean_geometry.mean_geometry``
        nc2_gram          see ``mean_geometry.mean_geometry``
        nc3_distance      see ``mean_geometry.self_duality``
        nc3_cosine        see ``mean_geometry.self_duality``
        nc4_disagreement  share of samples whose predicted class is not that of the nearest class mean

    Sources: Papyan, Han and Donoho (2020) for NC1 to NC4; Galanti, Gyorgy and Hutter (2021) for CDNV; Hui, Belkin
    and Nakkiran (2022) on why to measure test features too. The published definition of NC1 gives every sample the
    same weight, which is the same on balanced data; see docs/measures.md.

    A quantity that these features do not define has no key: NC1 and CDNV if no class has two samples, all but NC0
    and NC4 if all class means are equal. Only the part of the within-class scatter along the class means enters
    tr(S_W S_B^+), so no D x D matrix is computed: the cost is O(N D K).

    Args:
        features: (N, D), those that the head multiplies by its weight; half precision is measured in float32.
        labels: (N,), integers.
        weight: The head's class vectors (K, D); adds nc0 and nc3, and nc4 if there are no ``logits``.
        bias: (K,), or None for a head without a bias.
        num_classes: K, if neither ``weight`` nor ``logits`` is given; by default the largest label plus one.
        logits: The head's own scores (N, K), for nc4: needed for a head that is not affine in ``features``, and
            cheaper for any head.

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
    num_classes = _number_of_classes(labels, weight, logits, num_classes)
    with measuring_precision(features.device):
        x = at_least_float32(features.detach())
        target = labels.to(x.device).long()
        safe = target.clamp(0, num_classes - 1)
        counts, sums = class_sums(x, safe, num_classes)
        outside, finite, present = torch.stack(
            [(target != safe).sum(), sums.isfinite().all().long(), (counts > 0).sum()]
        ).tolist()
        if outside:
            raise ValueError(f"labels must lie in [0, {num_classes}), but {outside} of them do not")
        if not finite:
            raise ValueError(_not_finite(x))
        if present < 2:
            raise ValueError(f"neural collapse needs samples of at least 2 classes, got {present}")
        index = torch.arange(num_classes, device=x.device) if present == num_classes else counts.nonzero().flatten()
        place = torch.empty_like(counts).scatter_(0, index, torch.arange(present, device=x.device))
        means = ClassMeans.from_means(index, counts[index], sums[index] / counts[index, None])
        decisions = None if logits is None else logits.to(x.device).argmax(dim=1)
        head = LinearReadout(weight, bias) if weight is not None and logits is None else None
        within = within_class_spread(x, place[safe], means, head, decisions)
        pinv = {"nc1_pinv": within.nc1_pinv, "nc1_pinv_pooled": within.nc1_pinv_pooled}
        return collapse_quantities(means, within.variances, pinv, len(x), weight, within.disagreement)


def collapse_from_moments(moments: ClassMoments, weight: Tensor | None = None) -> dict[str, float]:
    """Measure neural collapse, except NC4, from class moments that were collected batch by batch.

    ``nc1_pinv`` has no key if the moments do not define it: if they were built without scatter, or if the classes have
    different sizes and the counts were not given.

    Args:
        moments: Moments of at least two classes.
        weight: (K, D) or None.

    Returns:
        The quantities by name.

    Raises:
        ValueError: If fewer than two classes have samples, a feature was not finite, a label was out of range, or the
            weight does not have the shape of the class means.

    Example:
        >>> moments = ClassMoments(2, 1)
        >>> moments.update(torch.tensor([[0.0], [2.0], [4.0], [6.0]]), torch.tensor([0, 0, 1, 1]))
        >>> round(collapse_from_moments(moments)["nc1_trace"], 6)
        0.25
    """
    with measuring_precision(moments.device):
        index = moments.counts.nonzero().flatten()
        if len(index) < 2:
            raise ValueError(f"neural collapse needs samples of at least 2 classes, got {len(index)}")
        if weight is not None and weight.shape != moments.means.shape:
            raise ValueError(f"weight must have the shape {tuple(moments.means.shape)}, got {tuple(weight.shape)}")
        means = ClassMeans.from_means(index, moments.counts[index], moments.means[index])
        pinv = {}
        if moments.has_class_averaged:
            half = means.whitening
            pinv["nc1_pinv"] = ((moments.within_class_averaged() @ half) * half).sum()
        if moments.has_pooled:
            half = means.whitening @ means.pooled
            pinv["nc1_pinv_pooled"] = ((moments.within_pooled() @ half) * half).sum() / len(index)
        return collapse_quantities(means, moments.variances[index], pinv, int(moments.counts.sum()), weight)


def collapse_quantities(
    means: ClassMeans,
    variances: Tensor,
    pinv: dict[str, Tensor],
    samples: int,
    weight: Tensor | None = None,
    disagreement: Tensor | None = None,
) -> dict[str, float]:
    """Return the metrics of neural collapse that are defined, from class means and within-class spread.

    Args:
        means: Means of the K classes that have samples.
        variances: tr Cov_k (K,).
        pinv: NC1 by the pseudo-inverse, in the forms that could be computed.
        samples: N.
        weight: (all classes, D) or None.
        disagreement: NC4, or None.
    """
    result = _with_spread(_of_classes(means, variances, pinv), samples, len(means.index))
    if weight is not None:
        result |= _of_head(means, weight)
    if disagreement is not None:
        result["nc4_disagreement"] = disagreement
    return finite_values(result)


def _of_classes(means: ClassMeans, variances: Tensor, pinv: dict[str, Tensor]) -> dict[str, Tensor]:
    share = means.counts / means.counts.sum()
    about_all = (means.centered - share @ means.centered).square().sum(dim=1)
    some = means.singular[-1] > 0
    return {
        **{key: torch.where(some, value, torch.nan) for key, value in pinv.items()},
        "nc1_trace": variances.mean() / means.centered.square().sum(dim=1).mean(),
        "nc1_trace_pooled": (share @ variances) / (share @ about_all),
        **mean_geometry(means.centered, variances),
    }


def _of_head(means: ClassMeans, weight: Tensor) -> dict[str, Tensor]:
    rows = weight.detach().to(means.means)
    return {"nc0": rows.sum(dim=0).square().mean(), **self_duality(means.centered, rows[means.index])}


def _with_spread(values: dict[str, Tensor], samples: int, classes: int) -> dict[str, Tensor]:
    """Return the values, without NC1 and CDNV if every class has one sample: its spread is unknown then, not zero."""
    if samples > classes:
        return values
    return {key: value for key, value in values.items() if not key.startswith(("nc1", "cdnv"))}


def _not_finite(features: Tensor) -> str:
    bad = count_bad_rows(features)
    if bad:
        return (
            f"features must be finite, but {bad} of {len(features)} samples hold NaN or inf: remove these samples, or "
            "check the model that produced them"
        )
    return "features are too large for sums in float32: rescale them or pass float64"


def _number_of_classes(labels: Tensor, weight: Tensor | None, logits: Tensor | None, num_classes: int | None) -> int:
    sizes = {"num_classes": num_classes}
    sizes["weight"] = None if weight is None else len(weight)
    sizes["logits"] = None if logits is None else logits.shape[1]
    given_sizes = {name: size for name, size in sizes.items() if size is not None}
    if len(set(given_sizes.values())) > 1:
        text = ", ".join(f"{name} {size}" for name, size in given_sizes.items())
        raise ValueError(f"num_classes, weight and logits must have the same number of classes, got {text}")
    if given_sizes:
        return next(iter(given_sizes.values()))
    return int(labels.max()) + 1 if len(labels) else 0


def _check_head(features: Tensor, weight: Tensor | None, bias: Tensor | None, logits: Tensor | None) -> None:
    if weight is not None and (weight.ndim != 2 or weight.shape[1] != features.shape[1]):
        raise ValueError(
            f"weight (K, D) and features (N, D) must have the same D, got {tuple(weight.shape)} and "
            f"{tuple(features.shape)}: pass the features after the head's projection, which its weight multiplies"
        )
    if weight is not None:
        check_finite("weight", weight)
    if bias is not None and (weight is None or bias.shape != weight.shape[:1]):
        raise ValueError("bias needs a weight, and must hold one number for each row of the weight")
    if logits is not None and (logits.ndim != 2 or len(logits) != len(features)):
        raise ValueError(f"logits must have the shape ({len(features)}, K), got {tuple(logits.shape)}")
    if logits is not None:
        check_finite("logits", logits)
