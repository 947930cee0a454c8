"""Trainings of small networks, each made twice: to run side by side, and to run alone."""

import torch

from nc_tools.heads import LEARNED, CosineHead, ETFHead, LinearHead, NearestETFHead
from nc_tools.losses import CrossEntropyLoss, DotRegressionLoss, EarlyLearningLoss, LogitAdjustedLoss
from nc_tools.models import ConvNet
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch
from nc_tools.training import OptimConfig, TrainConfig, fit
from nc_tools.training.run_side_by_side import run_side_by_side

K, N = 4, 40
COUNTS = [16, 12, 8, 4]
HEADS = {
    "linear": lambda d: LinearHead(d, K),
    "cosine": lambda d: CosineHead(d, K, scale=LEARNED),
    "etf": lambda d: ETFHead(d, K, projection=True, scale=LEARNED, frame_seed=3),
    "observing": lambda d: NearestETFHead(d, K, projection=True, scale=LEARNED, every=3),
}
LOSSES = {
    "ce": CrossEntropyLoss,
    "la": lambda: LogitAdjustedLoss(COUNTS),
    "dr": DotRegressionLoss,
    "elr": lambda: EarlyLearningLoss(N, K),  # keeps state of each sample
}


class Images:
    """Five batches of 8 random images, in an order of the seed's own; ``poison`` is a step with an infinite pixel."""

    def __init__(self, seed=0, *, size=8, steps=5, poison=None, dtype=torch.float64, shape=(1, 6, 6)):
        self.seed, self.size, self.steps, self.poison, self.dtype, self.shape = seed, size, steps, poison, dtype, shape

    def __len__(self):
        return self.steps

    def epoch(self, epoch, start=0):
        for step in range(start, self.steps):
            generator = torch.Generator().manual_seed(1000 * self.seed + 100 * epoch + step)
            index = torch.randperm(N, generator=generator)[: self.size]
            inputs = torch.randn(self.size, *self.shape, generator=generator, dtype=self.dtype)
            inputs = inputs + (index % K).to(self.dtype).view(-1, 1, 1, 1)
            if (epoch, step) == self.poison:
                inputs[0, 0, 0, 0] = torch.inf
            yield Batch(inputs, index % K, index)


class Run:
    """What a training consists of; :meth:`steps` makes the same training anew at each call."""

    def __init__(self, head="linear", loss="ce", *, seed=0, optim=None, training=None, batches=None, backbone=None):
        self.head, self.loss, self.seed = head, loss, seed
        self.optim = optim or OptimConfig(lr=0.1)
        self.training = training or TrainConfig(epochs=5)
        self.batches = batches or Images(seed)
        self.backbone = backbone or (lambda: ConvNet(1, 6, width=3))
        self.reports = []

    def steps(self, **more):
        """Return the steps of a new training; its model, loss and reports stay here."""
        torch.manual_seed(self.seed)
        backbone = self.backbone()
        head = HEADS[self.head](12)
        self.model = Classifier(backbone, head).to(self.batches.dtype)
        self.term = LOSSES[self.loss]().to(self.batches.dtype)
        self.reports = []
        return self._train(more)

    def _train(self, more):
        torch.manual_seed(self.seed)  # for dropout, as a run of a recipe does
        return (
            yield from fit.steps(
                self.model,
                self.term,
                self.batches,
                self.training,
                self.optim,
                seed=self.seed,
                class_counts=COUNTS,
                epoch_end=self.note,
                **more,
            )
        )

    def note(self, epoch, values, _model):
        self.reports.append((epoch, values))

    def state(self):
        """Return weights, statistics and the loss's state after the training."""
        return {**self.model.state_dict(), **{f"loss.{k}": v for k, v in self.term.state_dict().items()}}


def both_ways(runs):
    """Make the trainings alone and side by side; return the states and reports of both, and the reasons to be alone."""
    alone = []
    for run in runs:
        [ended] = run_side_by_side([run.steps()])
        alone.append((ended, run.state(), run.reports))
    reasons = []
    ended = run_side_by_side([run.steps() for run in runs], on_alone=reasons.append)
    together = [(end, run.state(), run.reports) for end, run in zip(ended, runs, strict=True)]
    return alone, together, reasons


def largest_difference(one, other):
    """Return the largest difference of two states, which must have the same names and shapes."""
    assert one.keys() == other.keys()
    assert all(one[name].shape == other[name].shape for name in one)
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one if one[name].numel())
