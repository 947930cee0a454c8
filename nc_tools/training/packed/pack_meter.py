"""Mean loss and accuracy of each member of a pack in an epoch, kept on the device and read once."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.training.meter import NonFiniteLossError, not_finite
from nc_tools.training.packed.pack import Pack
from nc_tools.training.packed.stacked_step import StackedStep


class PackMeter:
    """Losses and correct predictions of each member in an epoch.

    Args:
        pack: Its members.
        accuracy: Count correct predictions too.
    """

    def __init__(self, pack: Pack, *, accuracy: bool = True) -> None:
        self._pack = pack
        self._accuracy = accuracy
        self._losses: list[Tensor] = []
        self._sizes: list[int] = []
        self._hits: Tensor | int = 0
        self._scored: set[int] = set()

    def update(self, step: StackedStep, values: Tensor) -> None:
        """Add a step and the loss of each member (M,). Predictions count for members whose losses read logits."""
        self._losses.append(values.detach())
        self._sizes.append(step.labels.shape[1])
        if self._accuracy and step.read_logits:
            hits = [
                torch.zeros_like(part.labels[:, 0])
                if part.logits is None
                else (part.logits.detach().argmax(2) == part.labels).sum(1)
                for part in step.parts
            ]
            self._hits = self._hits + torch.cat(hits)
            self._scored |= step.read_logits

    def read(self, first: int, factor: float) -> tuple[list[dict[str, float]], list[NonFiniteLossError | None]]:
        """Return the mean values of each member and its error, in the order in which the members were given.

        Args:
            first: Number of the first step that was added.
            factor: Learning rate in the last step, as a factor of the peak rate.

        Returns:
            ``train/loss``, ``train/lr`` and, if its loss read logits, ``train/accuracy`` of each member; and for each
            an error if its loss was not finite, else None.
        """
        pack, history = self._pack, torch.stack(self._losses).double()  # (steps, M)
        weights = torch.tensor(self._sizes, dtype=torch.float64, device=history.device) / sum(self._sizes)
        hits = torch.zeros_like(history[0]) + self._hits
        columns = (weights @ history, hits / sum(self._sizes), (~history.isfinite()).long().argmax(0))
        means, shares, bad = (pack.in_given_order(column).tolist() for column in columns)
        finite = pack.in_given_order(history.isfinite().all(0)).tolist()
        scored = pack.in_given_order(torch.tensor([i in self._scored for i in range(len(finite))])).tolist()
        values, errors = [], []
        for i, member in enumerate(pack.members):
            own = {"train/loss": means[i], "train/lr": member.optim.lr * member.optim.head_lr_ratio * factor}
            values.append(own | ({"train/accuracy": shares[i]} if scored[i] else {}))
            term = type(member.loss).__name__.removesuffix("Loss")
            errors.append(None if finite[i] else not_finite(term, first + bad[i]))
        return values, errors
