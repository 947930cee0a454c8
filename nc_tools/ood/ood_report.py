"""All scores against all sets, in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from nc_tools.ood.bank import Bank
from nc_tools.ood.fdbd import FDBD
from nc_tools.ood.grood import GROOD
from nc_tools.ood.knn import KNN
from nc_tools.ood.logit_scores import GEN, MSP, Energy, MaxLogit
from nc_tools.ood.mahalanobis import RMDS, Mahalanobis
from nc_tools.ood.nci import NCI
from nc_tools.ood.neco import NECO
from nc_tools.ood.ood_score import OODScore, UndefinedScoreError
from nc_tools.ood.separation import separation
from nc_tools.ood.vim import ViM
from nc_tools.records import Collected

SCORES: tuple[type[OODScore], ...] = (
    *(MSP, MaxLogit, Energy, GEN, KNN, Mahalanobis, RMDS, ViM, NECO, NCI, FDBD, GROOD),
)
"""The scores that a report holds, in its order, each with its default settings."""


def ood_report(
    train: Collected,
    test: Collected,
    outliers: Mapping[str, Collected],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    scores: Sequence[OODScore] | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, float]:
    """Tell how well each score separates the test set from each set of outliers.

    For your own loop: collect training subset, test set and outliers in eval mode, without augmentation, and call this
    once. Scores are fitted on the training set alone; nothing is tuned on outliers. They read ``embedded``, the
    features that enter the head's product. A score that the data or the head do not define has no key: those of class
    vectors without a weight, ViM and NECO where the features have no further directions, and all that need spread where
    there is none.

    Args:
        train: The training set.
        test: In-distribution images that were not trained on.
        outliers: Images of no class, by a name such as "near".
        weight: (K, D), with the head's scale in it; None for a head that is not affine.
        bias: (K,) or None.
        scores: Which; None for all of :data:`SCORES`.
        progress: Called with the name of each score before it is fitted.

    Returns:
        ``<set>/<score>/auroc``, ``aupr_in``, ``aupr_out`` and ``fpr95``; see :func:`separation`.

    Raises:
        TypeError: If features or logits are not floating-point, or labels not integers.
        ValueError: If there is no set of outliers or one is empty, two scores share a name, shapes do not fit, or
            values are not finite.

    Example:
        >>> import torch
        >>> def part(x): return Collected(x, x, x, (x[:, 1] > x[:, 0]).long())
        >>> x = torch.eye(2).repeat(30, 1)
        >>> told = ood_report(part(x), part(x), {"far": part(-x)}, weight=torch.eye(2), scores=[KNN(k=5), MaxLogit()])
        >>> told["far/knn/auroc"], told["far/max_logit/fpr95"]
        (1.0, 0.0)
    """
    if not outliers:
        raise ValueError('a report needs a set of outliers, and there is none: give {"near": ...}')
    for name, part in outliers.items():
        if len(part.features) == 0:
            raise ValueError(f"the set of outliers {name!r} needs at least one sample, got none")
    asked = _asked(scores)
    bank = Bank.checked(train.embedded, train.logits, train.labels, weight, bias)
    values: dict[str, float] = {}
    for score in asked:
        if progress is not None:
            progress(score.name)
        try:
            score.fit_bank(bank)
        except UndefinedScoreError:
            continue
        inside = score.score(test.embedded, test.logits)
        for name, part in outliers.items():
            told = separation(inside, score.score(part.embedded, part.logits))
            values |= {f"{name}/{score.name}/{key}": value for key, value in told.items()}
    return values


def _asked(scores: Sequence[OODScore] | None) -> list[OODScore]:
    """Return the scores of a report, built and each of a name of its own."""
    asked = [cls() for cls in SCORES] if scores is None else list(scores)
    for score in asked:
        if not isinstance(score, OODScore):
            raise TypeError(f"scores must be built scores, such as KNN(k=50), got {score!r}: see nc_tools.ood.SCORES")
    if len({score.name for score in asked}) < len(asked):
        raise ValueError("two scores of a report share a name: make two reports")
    return asked
