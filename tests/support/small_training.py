"""A small classifier and loaders of a few batches, for tests of the training loop."""

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


class DeviceReads(TorchDispatchMode):
    """List the operations that would make a GPU wait: those that turn a tensor's values into a number or a size."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal.default", "unique")

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in self.WAITING):
            self.operations.append(str(func))
        return func(*args, **(kwargs or {}))


class ReadsPerBatch(Batches):
    """Note how many reads there were when each of five batches is taken."""

    def __init__(self, reads):
        super().__init__(steps=5)
        self.reads, self.counts = reads, []

    def epoch(self, epoch, start=0):
        for batch in super().epoch(epoch, start):
            self.counts.append(len(self.reads.operations))
            yield batch


class StopAt(Batches):
    """Set a stop signal when a given step, counted over all epochs, begins."""

    def __init__(self, stop, at):
        super().__init__()
        self.stop, self.at, self.steps_made = stop, at, 0

    def epoch(self, epoch, start=0):
        for step, batch in enumerate(super().epoch(epoch, start), start=start):
            if epoch * len(self) + step == self.at:
                self.stop.requested = True
            self.steps_made += 1
            yield batch


def same_state(module, other):
    pairs = zip(module.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)
