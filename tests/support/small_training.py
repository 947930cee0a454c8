"""A classifier of a few weights and a loader of three batches, for tests of the loop."""

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nc_tools.heads import LinearHead
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch


class Batches:
    """A loader of three batches that depend on (epoch, step) alone."""

    def __init__(self, size=8, steps=3, poison=None):
        self.size, self.steps, self.poison = size, steps, poison

    def __len__(self):
        return self.steps

    def epoch(self, epoch, start=0):
        for step in range(start, self.steps):
            generator = torch.Generator().manual_seed(100 * epoch + step)
            inputs = torch.randn(self.size, 1, 3, 3, generator=generator)
            labels = torch.arange(self.size) % 3
            if (epoch, step) == self.poison:
                inputs[0, 0, 0, 0] = torch.inf
            yield Batch(inputs, labels, torch.arange(self.size))


def small(head=None, dropout=0.0):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(9, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(dropout))
    return Classifier(body, head if head is not None else LinearHead(6, 3))


class Reads(TorchDispatchMode):
    """Count what would make a GPU wait: a tensor turned into a number, or a size that depends on values."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal.default", "unique")

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in self.WAITING):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class Watched(Batches):
    """Note how many reads there were when each batch is asked for."""

    def __init__(self, reads):
        super().__init__(steps=5)
        self.reads, self.at = reads, []

    def epoch(self, epoch, start=0):
        for batch in super().epoch(epoch, start):
            self.at.append(len(self.reads.seen))
            yield batch


class StopAt(Batches):
    """Ask to stop while a given step is made."""

    def __init__(self, stop, at):
        super().__init__()
        self.stop, self.at, self.made = stop, at, 0

    def epoch(self, epoch, start=0):
        for step, batch in enumerate(super().epoch(epoch, start), start=start):
            if epoch * len(self) + step == self.at:
                self.stop.requested = True
            self.made += 1
            yield batch


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
