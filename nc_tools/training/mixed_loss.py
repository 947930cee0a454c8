"""The loss of a batch, pure or mixed, and what mixing cannot be combined with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from nc_tools.data.mixing import BatchMixing
from nc_tools.heads.head import Head
from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch, Outputs


def batch_terms(loss: LossTerm, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
    """Return the named terms of a batch's loss, of a mixed one share * loss(labels) + (1 - share) * loss(partner's).

    Losses are interpolated, not labels: that is the same for cross-entropy, and the only way for losses whose target is
    a class vector or a state of the sample (methods of Zhang et al. 2018, section 3). What the head computed is
    computed once. A loss with state (targets of samples, class centers) moves it once a step, by the labels of the
    larger share; under the partner's it is read only.

    Args:
        loss: Any loss of one view.
        outputs: What the head made of the batch's inputs.
        batch: Pure or mixed.

    Example:
        >>> import torch
        >>> from nc_tools.data.mixing import MixingDraw, Mixup, mix
        >>> from nc_tools.heads import LinearHead
        >>> from nc_tools.losses import CrossEntropyLoss
        >>> batch = mix(Batch(torch.eye(2), torch.arange(2), torch.arange(2)), Mixup(), MixingDraw(0.75, (0.0, 0.0)))
        >>> list(batch_terms(CrossEntropyLoss(), LinearHead(2, 2).outputs(batch.inputs), batch))
        ['CrossEntropy']
    """
    terms = loss.terms(outputs, batch)
    if batch.partner is None:
        return terms
    with frozen_loss_state(loss):
        others = loss.terms(outputs, batch.partner)
    return {name: batch.share * value + (1 - batch.share) * others[name] for name, value in terms.items()}


@contextmanager
def frozen_loss_state(loss: nn.Module) -> Iterator[None]:
    """Keep a loss's state from moving: eval mode, for each of its parts that was in training mode."""
    moving = [part for part in loss.modules() if part.training]
    for part in moving:
        part.training = False
    try:
        yield
    finally:
        for part in moving:
            part.training = True


def check_mixing(how: BatchMixing | None, loss: LossTerm, head: Head) -> None:
    """Refuse what mixed batches would silently spoil.

    Raises:
        ValueError: If the loss compares two views, or the head learns from pure samples and there would be none.
    """
    if how is None:
        return
    if loss.views != 1:
        raise ValueError(
            f"{type(loss).__name__} compares two views of one image, and mixing puts two images into each: set "
            f"training.mixing=None or take a loss of one view"
        )
    if learns_from_steps(head) and how.until == 1:
        raise ValueError(
            f"{type(head).__name__} learns class means from pure samples and {type(how).__name__} leaves none: end the "
            f"mixing early, as with until=0.8"
        )


def learns_from_steps(head: Head) -> bool:
    """Tell whether a head does anything with the steps that it observes."""
    return type(head).observe is not Head.observe
