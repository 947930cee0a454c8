"""What a training epoch adds up, on the device, read once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nc_tools.records import Batch, Outputs


class NonFiniteLossError(ArithmeticError):
    """The loss stopped being a number; says at which step, and which term."""


class Meter:
    """Sums of loss terms and hits over one epoch, and the first step at which a term was not finite.

    All on the device: nothing waits for it until :meth:`read`, once an epoch.

    Args:
        device: Where the model runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._terms: dict[str, Tensor] = {}
        self._bad: dict[str, Tensor] = {}
        self._hits = torch.zeros((), dtype=torch.int64, device=device)
        self._seen = 0
        self._scored = 0

    @torch.no_grad()
    def update(self, step: int, terms: Mapping[str, Tensor], outputs: Outputs, batch: Batch) -> None:
        """Take in one step; accuracy only where the loss has computed logits anyway."""
        size = len(batch.labels)
        for name, value in terms.items():
            if name not in self._terms:
                self._terms[name] = torch.zeros((), dtype=torch.float64, device=self._device)
                self._bad[name] = torch.full((), -1, dtype=torch.int64, device=self._device)
            self._terms[name] += value.detach() * size
            now_bad = (self._bad[name] < 0) & ~torch.isfinite(value)
            self._bad[name] = torch.where(now_bad, step, self._bad[name])
        self._seen += size
        if "logits" in outputs.__dict__:
            self._hits += (outputs.logits.argmax(1) == batch.labels).sum()
            self._scored += size

    def read(self) -> dict[str, float]:
        """Return the means over the epoch so far; the one wait for the device.

        Raises:
            NonFiniteLossError: If a term was infinite or not a number at some step.
        """
        names = list(self._terms)
        told = torch.stack(
            [*(self._bad[n].double() for n in names), *(self._terms[n] for n in names), self._hits.double()]
        ).tolist()
        bad = {n: int(step) for n, step in zip(names, told, strict=False) if step >= 0}
        if bad:
            name = min(bad, key=lambda n: bad[n])
            raise NonFiniteLossError(
                f"the loss term {name} stopped being finite at step {bad[name]}: lower the learning rate, or clip "
                f"gradients with --set optim.clip_norm=1"
            )
        means = [value / self._seen for value in told[len(names) : 2 * len(names)]]
        values = {"train/loss": sum(means)}
        if len(names) > 1:
            values |= {f"train/loss_{name}": mean for name, mean in zip(names, means, strict=True)}
        if self._scored:
            values["train/accuracy"] = told[-1] / self._scored
        return values

    def state(self) -> dict[str, object]:
        """Return what a checkpoint in the middle of an epoch must hold."""
        return {
            "terms": dict(self._terms),
            "bad": dict(self._bad),
            "hits": self._hits,
            "seen": self._seen,
            "scored": self._scored,
        }

    def load(self, state: dict[str, object]) -> None:
        """Go on from such a checkpoint."""
        self._terms = {k: v.to(self._device) for k, v in state["terms"].items()}  # type: ignore[attr-defined]
        self._bad = {k: v.to(self._device) for k, v in state["bad"].items()}  # type: ignore[attr-defined]
        self._hits = state["hits"].to(self._device)  # type: ignore[attr-defined]
        self._seen = int(state["seen"])  # type: ignore[call-overload]
        self._scored = int(state["scored"])  # type: ignore[call-overload]
