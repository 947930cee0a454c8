"""One run of a head on fixed features, in progress among others: its model, and what was measured at each epoch."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from torch import Tensor

from nc_tools.experiment.build import DataFacts
from nc_tools.experiment.job import Job
from nc_tools.models.classifier import Classifier
from nc_tools.training import NonFiniteLossError


@dataclass(eq=False)
class HeadRun:
    """A run of one arm at one seed.

    Attributes:
        job: What to make.
        facts: Facts of the samples trained on.
        model: The scaling of the features, and the head. After training, the trained one.
        keep_epoch: The epoch of which the weights are kept; None for none.
        kept: Those weights.
        curves: Metrics by epoch.
        seconds: Of training, its share where runs train side by side.
        error: Why training ended early; None if it did not.
    """

    job: Job
    facts: DataFacts
    model: Classifier
    keep_epoch: int | None = None
    kept: dict[str, Tensor] | None = None
    curves: dict[int, dict[str, float]] = field(default_factory=dict)
    seconds: float = 0.0
    error: NonFiniteLossError | None = None

    def note(self, epoch: int, values: dict[str, float]) -> None:
        """Keep the metrics of an epoch, and the weights if they are wanted."""
        self.curves[epoch] = values
        if epoch == self.keep_epoch:
            self.kept = copy.deepcopy(self.model.state_dict())
