"""One run of a head on fixed features, in progress among others: its model, and what was measured at each epoch."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, field

from torch import Tensor

from nc_tools.experiment.build import build_head, build_loss
from nc_tools.experiment.computed_start import start_generator
from nc_tools.experiment.evaluate.holdout_run import HOLDOUT_SCORE
from nc_tools.experiment.job import Job
from nc_tools.experiment.on_features.head_samples import HeadSamples
from nc_tools.experiment.tuning import Score
from nc_tools.models.classifier import Classifier
from nc_tools.seeds import stream
from nc_tools.training import NonFiniteLossError
from nc_tools.training.packed import PackMember


@dataclass(eq=False)
class HeadRun:
    """A run of one arm at one seed.

    Attributes:
        job: What to make.
        samples: What its head is trained and scored on.
        model: The scaling of the features, and the head, which training changes.
        keep_epoch: The epoch whose weights are kept; None for none.
        kept: The weights of that epoch; None until it is trained.
        curves: Metrics by epoch.
        seconds: Training time in seconds; its share where runs train side by side.
        side_by_side: How many heads trained at once and shared the seconds.
        error: Why training failed; None if it did not.
        best: The best score on the hold-out so far, and its epoch, of a run that may end early; None for others.
    """

    job: Job
    samples: HeadSamples
    model: Classifier
    keep_epoch: int | None = None
    kept: dict[str, Tensor] | None = None
    curves: dict[int, dict[str, float]] = field(default_factory=dict)
    seconds: float = 0.0
    side_by_side: int = 1
    error: NonFiniteLossError | None = None
    best: tuple[float, int] | None = None
    _best_weights: dict[str, Tensor] | None = None

    @classmethod
    def new(cls, job: Job, samples: HeadSamples, keep_epoch: int | None = None) -> HeadRun:
        """Return a run with its new head, computed by the arm's start if it has one."""
        config, device, started = job.config, samples.data.device, time.perf_counter()
        head = build_head(
            config, samples.facts, samples.data.train.shape[0], generator=stream(job.seed, "head"),
            frame_seed=job.frame_seed,
        ).to(device)  # fmt: skip
        run = cls(job, samples, Classifier(samples.scaling, head), keep_epoch)
        if config.start is not None:
            config.start.apply(head, samples.start, start_generator(job.seed))
            run.seconds = time.perf_counter() - started
        return run

    def member(self) -> PackMember:
        """Return the run as a member of a pack."""
        samples, config = self.samples, self.job.config
        loss = build_loss(config, samples.facts, self.model.head.feature_dim).to(samples.data.device)
        if loss.needs_outliers or loss.views != 1:
            samples.data.batches_for(loss, samples.indices)  # raises: features have neither
        return PackMember(self.model, loss, samples.batches, config.optim, applied=samples.scaled_before)

    def note(self, epoch: int, values: dict[str, float]) -> None:
        """Keep the metrics of an epoch, and the weights if they are wanted."""
        self.curves[epoch] = values
        if epoch == self.keep_epoch:
            self.kept = copy.deepcopy(self.model.state_dict())

    def is_scored_at(self, epoch: int) -> bool:
        """Return whether the head is scored on the hold-out after an epoch; of a tuning trial only the last counts."""
        training = self.job.config.training
        last_only = self.job.kind == "tuning" and training.patience is None
        return self.samples.scored and (not last_only or epoch == training.epochs)

    def score(self, metric: str) -> Score:
        """Return the value of a metric on the hold-out (balanced accuracy if not measured); None if it diverged."""
        if self.error is not None:
            return None
        last = self.curves[max(self.curves) if self.best is None else self.best[1]]
        return last.get(metric, last[HOLDOUT_SCORE])

    def ends(self, epoch: int) -> bool:
        """Return True if training ends after this epoch, which has been noted: early stopping by the hold-out's scores.

        A final run has no hold-out. It ends at the best epoch of its hold-out run.
        """
        patience = self.job.config.training.patience
        if patience is None:
            return False
        if not self.samples.scored:
            return epoch == self.keep_epoch
        score = self.curves[epoch][HOLDOUT_SCORE]
        if self.best is None or score > self.best[0]:
            self.best, self._best_weights = (score, epoch), copy.deepcopy(self.model.state_dict())
        return epoch - self.best[1] >= patience

    def restore_best(self) -> None:
        """Take the weights of the best epoch, if the run may end early."""
        if self._best_weights is not None:
            self.model.load_state_dict(self._best_weights)
            self._best_weights = None
