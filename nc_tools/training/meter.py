"""Mean loss and accuracy of a training epoch, kept on the device and read once per epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nc_tools.records import Batch, Outputs


class NonFiniteLossError(ArithmeticError):
    """A loss term was infinite or not a number. The message names the term and the step."""


def not_finite(term: str, step: int) -> NonFiniteLossError:
    """Return the error of a loss term that was infinite or not a number at a step."""
    return NonFiniteLossError(
        f"the loss term {term} was not finite at step {step}. Lower the learning rate, or clip gradients with --set "
        f"optim.clip_norm=1"
    )


class StepValues(NamedTuple):
    """What the meter keeps of a training step, on the device.

    Attributes:
        terms: The loss terms, scalars without gradient, by name.
        hits: Number of correct predictions (), int64; None if the loss has computed no logits.
    """

    terms: dict[str, Tensor]
    hits: Tensor | None


@torch.no_grad()
def step_values(terms: Mapping[str, Tensor], outputs: Outputs, batch: Batch) -> StepValues:
    """Return what the meter keeps of a training step. Nothing waits for the device."""
    logits = outputs.computed_logits
    hits = None if logits is None else (logits.argmax(1) == batch.labels).sum()
    return StepValues({name: value.detach() for name, value in terms.items()}, hits)


class Meter:
    """Sums of the loss terms and correct predictions of one training epoch.

    Values stay on the device and nothing waits for them until :meth:`read`, which is called once per epoch. It computes
    the means and finds the first step at which a term was not finite.

    Args:
        device: Where the model runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._steps: list[int] = []
        self._sizes: list[int] = []
        self._terms: dict[str, list[Tensor]] = {}
        self._hits = torch.zeros((), dtype=torch.int64, device=device)
        self._scored = 0

    def update(self, step: int, size: int, values: StepValues) -> None:
        """Add a training step of ``size`` samples. Correct predictions are counted if there are logits."""
        self._steps.append(step)
        self._sizes.append(size)
        for name, value in values.terms.items():
            self._terms.setdefault(name, []).append(value)
        if values.hits is not None:
            self._hits += values.hits
            self._scored += size

    def read(self) -> dict[str, float]:
        """Return mean loss terms and accuracy of the epoch so far. This waits for the device.

        Returns:
            ``train/loss``, the sum of the terms; ``train/loss_TERM`` for each term if there are several; and
            ``train/accuracy`` if a loss has computed logits. Empty before the first step.

        Raises:
            NonFiniteLossError: If a term was infinite or not a number at some step.
        """
        if not self._steps:
            return {}
        names = list(self._terms)
        history = self._history()
        bad = ~torch.isfinite(history)
        weights = torch.tensor(self._sizes, dtype=torch.float64, device=self._device) / sum(self._sizes)
        first_bad = torch.where(bad.any(1), bad.int().argmax(1), -1)
        numbers = torch.cat([first_bad.double(), history.double() @ weights, self._hits.double().view(1)]).tolist()
        failures = [(int(place), name) for place, name in zip(numbers, names, strict=False) if place >= 0]
        if failures:
            place, name = min(failures)
            raise not_finite(name, self._steps[place])
        means = numbers[len(names) : 2 * len(names)]
        values = {"train/loss": sum(means)}
        if len(names) > 1:
            values |= {f"train/loss_{name}": mean for name, mean in zip(names, means, strict=True)}
        if self._scored:
            values["train/accuracy"] = numbers[-1] / self._scored
        return values

    def state(self) -> dict[str, Any]:
        """Return the meter's state for a checkpoint within an epoch."""
        return {
            "steps": list(self._steps),
            "sizes": list(self._sizes),
            "terms": dict(zip(self._terms, self._history(), strict=True)) if self._steps else {},
            "hits": self._hits,
            "scored": self._scored,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Set the meter to a state that :meth:`state` returned."""
        self._steps, self._sizes = list(state["steps"]), list(state["sizes"])
        self._terms = {name: list(values.to(self._device)) for name, values in state["terms"].items()}
        self._hits = state["hits"].to(self._device)
        self._scored = int(state["scored"])

    def _history(self) -> Tensor:
        """Return each term at each step so far (terms, steps)."""
        return torch.stack([torch.stack(values) for values in self._terms.values()])
