"""The loss of a batch, also of one with mixed images (Mixup, CutMix), and a check that mixing is possible."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from nc_tools.data.mixing import BatchMixing
from nc_tools.heads.head import Head
from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch, Outputs


def batch_terms(loss: LossTerm, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
    """Return the named terms of a batch's loss; the batch may have mixed images.

    For a mixed batch each term is share * term(labels) + (1 - share) * term(partner's labels). The two losses are
    interpolated, not the labels. For cross-entropy that is the same; for losses whose target is a class vector or a
    state of the sample it is the only way (methods of Zhang et al. 2018, section 3). The head computes its outputs
    once. A loss with state (targets of samples, class centers) updates it once per step, with the labels of the larger
    share.

    Args:
        loss: Any loss of one view.
        outputs: The head's outputs for the batch's inputs.
        batch: Mixed or not.

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
        partner_terms = loss.terms(outputs, batch.partner)
    return {name: batch.share * value + (1 - batch.share) * partner_terms[name] for name, value in terms.items()}


@contextmanager
def frozen_loss_state(loss: nn.Module) -> Iterator[None]:
    """Keep a loss from updating its state: set it to eval mode inside the ``with`` block."""
    in_training = [part for part in loss.modules() if part.training]
    for part in in_training:
        part.training = False
    try:
        yield
    finally:
        for part in in_training:
            part.training = True


def check_mixing(how: BatchMixing | None, loss: LossTerm, head: Head) -> None:
    """Check that a loss and a head can be trained on batches of mixed images.

    Raises:
        ValueError: If the loss compares two views, or if the head learns class means from unmixed samples and every
            batch would be mixed.
    """
    if how is None:
        return
    if loss.views != 1:
        raise ValueError(
            f"{type(loss).__name__} compares two views of one image and cannot be combined with "
            f"{type(how).__name__}, which puts two images into each. Set training.mixing=None or use a loss of one view"
        )
    if learns_from_steps(head) and how.until == 1:
        raise ValueError(
            f"{type(head).__name__} learns class means from unmixed samples, but {type(how).__name__}(until=1) mixes "
            f"every batch. End the mixing earlier, as with until=0.8"
        )


def learns_from_steps(head: Head) -> bool:
    """Return True if the head updates itself after training steps, by a method ``observe`` of its own."""
    return type(head).observe is not Head.observe
