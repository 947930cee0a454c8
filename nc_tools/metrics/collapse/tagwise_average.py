"""Multi-label collapse: do features of images with several tags point along the sum of the single tags' means?"""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools._support.bad_rows import count_bad_rows
from nc_tools._support.class_sums import class_sums
from nc_tools._support.precision import at_least_float32, measuring_precision
from nc_tools.metrics.collapse.mean_geometry import finite_values
from nc_tools.metrics.collapse.neural_collapse import neural_collapse


def tagwise_average(features: Tensor, tags: Tensor) -> dict[str, float]:
    """Measure whether the mean feature of a set of tags points along the sum of the single tags' means.

    Let mu_k be the mean over the samples that have tag k alone. First mean_k mu_k is subtracted from all features. With
    h_S the mean over the samples with exactly the tags S (two or more) and m_S = sum_{k in S} mu_k,

        tag_angle         mean_S angle(h_S, m_S), degrees
        tag_angle_other   mean over S != S' of equal size of angle(h_S, m_S'), degrees
        tag_average       tag_angle / tag_angle_other: 0 when collapsed, about 1 by chance
        tagset_nc1_trace  tr(S_W)/tr(S_B) with every set of tags as a class

    For the other properties, call ``neural_collapse`` on the samples with one tag. Source: the ratio of angles of Li et
    al. (2024). They do not center the features; here a common offset of all features does not count as agreement.

    Args:
        features: (N, D).
        tags: Which tags each sample has (N, K), bool. Samples without a tag are left out, and so are sets with a tag
            that no sample has alone.

    Returns:
        The quantities by name; no key for a quantity that no set of tags defines.

    Raises:
        TypeError: If features are not floating-point or tags not bool.
        ValueError: If shapes do not fit, a feature is not finite, or fewer than two tags have samples with that tag
            alone.

    Example:
        >>> one, two = torch.eye(3), torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]])
        >>> round(tagwise_average(torch.cat([one, two]), torch.cat([one, two]) > 0)["tag_average"], 3)
        0.0
    """
    x = at_least_float32(features.detach())
    if tags.dtype != torch.bool:
        raise TypeError(f"tags must be bool, got {tags.dtype}: compare scores with a threshold first")
    if x.ndim != 2 or tags.ndim != 2 or len(tags) != len(x):
        raise ValueError(
            f"features (N, D) and tags (N, K) must fit each other, got {tuple(x.shape)} and {tuple(tags.shape)}"
        )
    bad = count_bad_rows(x)
    if bad:
        raise ValueError(
            f"features must be finite, but {bad} of {len(x)} samples hold NaN or inf: remove these samples, or check "
            "the model that produced them"
        )
    has_tag = tags.to(x.device)
    tagged = has_tag.any(dim=1)
    x, has_tag = x[tagged], has_tag[tagged]
    with measuring_precision(x.device):
        sets, member = torch.unique(has_tag, dim=0, return_inverse=True)
        counts, sums = class_sums(x, member, len(sets))
        means, sizes = sums / counts[:, None], sets.sum(dim=1)
        single, own = sizes == 1, sets[sizes == 1].double()
        if len(own) < 2:
            raise ValueError(
                f"at least two tags must occur alone in some sample, but only {len(own)} do: add samples that have a "
                "single tag"
            )
        center = means[single].mean(dim=0)
        by_tag = own.T @ (means[single] - center)
        complete = (sets & ~own.bool().any(dim=0)).sum(dim=1) == 0
        measured = (sizes > 1) & complete
        result = _angles(means[measured] - center, sets[measured].double() @ by_tag, sizes[measured])
        if len(x) > len(sets):
            values = neural_collapse(x, member, num_classes=len(sets))
            result |= {"tagset_nc1_trace": values["nc1_trace"]} if "nc1_trace" in values else {}
        return result


def _angles(means: Tensor, sums: Tensor, sizes: Tensor) -> dict[str, float]:
    units = means / torch.linalg.vector_norm(means, dim=1, keepdim=True)
    ideals = sums / torch.linalg.vector_norm(sums, dim=1, keepdim=True)
    angles = (units @ ideals.T).clamp(-1, 1).acos().rad2deg()
    same_size = (sizes[:, None] == sizes) & ~torch.eye(len(sizes), dtype=torch.bool, device=sizes.device)
    own, other = angles.diagonal().mean(), angles[same_size].mean()
    return finite_values({"tag_angle": own, "tag_angle_other": other, "tag_average": own / other})
