"""Trainings of small networks, made by one process or by two that divide each batch."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from nc_tools.data import BalancedSampling, BatchOptions, DataConfig, StreamLoader, load_data, make_loader
from nc_tools.data.augment import Augment
from nc_tools.data.mixing import CutMix, Mixup
from nc_tools.heads import LEARNED, CosineHead, ETFHead, LinearHead
from nc_tools.losses import CrossEntropyLoss, LogitAdjustedLoss, SupConLoss
from nc_tools.models import CIFARResNet, ConvNet
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch
from nc_tools.specs import spec
from nc_tools.training import AsymmetricSharpnessAware, OptimConfig, SharpnessAware, TrainConfig, fit
from nc_tools.training.processes import Processes
from support import head_variants, loss_variants
from support.side_by_side import Images

BATCH_STATISTICS, NONE = "batch statistics", "none"
K = loss_variants.K


class Parts(Images):
    """Batches of 9 images with all that a loss may need; two processes get 4 and 5 of them."""

    def __init__(self, loss, classes):
        super().__init__(size=9, steps=3)
        self.loss, self.classes = loss, classes

    def epoch(self, epoch, start=0):
        for batch in super().epoch(epoch, start):
            yield Batch(
                batch.inputs, batch.index % self.classes, batch.index,
                second_view=batch.inputs.flip(3) + 0.1 if self.loss.views == 2 else None,
                outliers=-batch.inputs[:7] if self.loss.needs_outliers else None,
            )  # fmt: skip


class CountedReads:
    """A set of images whose reads are counted."""

    def __init__(self, images):
        self.images, self.count = images, 0

    def __getattr__(self, name):
        return getattr(self.images, name)

    def __len__(self):
        return len(self.images)

    def take(self, index, **more):
        self.count += len(index)
        return self.images.take(index, **more)


class InDouble:
    """Batches of a loader of images, in float64."""

    def __init__(self, loader):
        self.loader = loader

    def __len__(self):
        return len(self.loader)

    def epoch(self, epoch, start=0):
        for batch in self.loader.epoch(epoch, start):
            yield Batch(batch.inputs.double(), batch.labels, batch.index)


def mlp(width, norm=BATCH_STATISTICS):
    between = nn.BatchNorm1d(width) if norm == BATCH_STATISTICS else nn.Identity()
    return nn.Sequential(nn.Flatten(), nn.Linear(36, width), between, nn.ReLU())


@dataclass
class Case:
    """What is trained."""

    head: nn.Module
    loss: nn.Module = field(default_factory=CrossEntropyLoss)
    backbone: nn.Module = field(default_factory=lambda: ConvNet(1, 6, width=3))
    batches: object = field(default_factory=lambda: Images(size=9, steps=2))
    training: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=2))
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=0.1))

    def train(self, processes=None, *, epoch_end=None, **more):
        """Return the weights and statistics, those of the average, the loss's state, the curve and the notes."""
        model, loss = Classifier(self.backbone, self.head).double(), self.loss.double()
        curve, notes = [], []
        torch.manual_seed(1)
        fitted = fit(
            model, loss, self.batches, self.training, self.optim, class_counts=[16, 12, 8, 4], processes=processes,
            epoch_end=epoch_end or (lambda _, values, __: curve.append(values)), note=notes.append, **more,
        )  # fmt: skip
        states = {"model": model.state_dict(), "average": fitted.model.state_dict(), "loss": loss.state_dict()}
        return {f"{part}.{k}": v for part, state in states.items() for k, v in state.items()}, curve, notes


def of_head(head_spec):
    backbone, images = mlp(head_variants.D), Images(size=9, steps=3)
    return Case(head_variants.build(head_spec), backbone=backbone, batches=images, training=TrainConfig(epochs=1))


def of_loss(loss_spec):
    loss = loss_variants.build(loss_spec)
    head = ETFHead(loss_variants.D, K, projection=True, scale=LEARNED, generator=torch.Generator().manual_seed(0))
    return Case(head, loss, mlp(loss_variants.D), Parts(loss, K), TrainConfig(epochs=1))


def digits(sampling=None, norm=BATCH_STATISTICS, *, readers=None, reads=None):
    """A long tail of the digits: 61 images in batches of 15 and 16, with crops.

    With ``reads`` they are read in every epoch, and together with ``readers``.
    """
    data = load_data(DataConfig()).train if reads is None else reads
    order = torch.cat([(data.labels == k).nonzero().flatten()[: 22 - 2 * k] for k in range(5)])[:61]
    options = BatchOptions(
        batch_size=16, mean=[0.3], std=[0.4], augment=Augment(padding=1, flip=True), sampling=sampling, epochs=2,
        readers=readers,
    )  # fmt: skip
    backbone = ConvNet(1, 8, width=3) if norm == BATCH_STATISTICS else nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 12)
    )  # fmt: skip
    loss = LogitAdjustedLoss([22, 20, 18, 1, 1])
    load = make_loader if reads is None else StreamLoader
    return Case(CosineHead(12, 5, scale=LEARNED), loss, backbone, InDouble(load(data, order, options)))


def linear(**more):
    torch.manual_seed(0)
    return Case(LinearHead(12, 4), **more)


OTHERS = {
    "digits": digits,
    "digits, class-balanced": lambda: digits(BalancedSampling()),
    "digits without batch normalization": lambda: digits(norm=NONE),
    "a residual network": lambda: Case(LinearHead(64, 4), backbone=CIFARResNet(8, 1), training=TrainConfig(epochs=1)),
    "weight average, clipping, mixup": lambda: linear(
        training=TrainConfig(epochs=2, ema_decay=0.9, mixing=Mixup()), optim=OptimConfig(lr=0.3, clip_norm=0.2)
    ),
    "cutmix, momentum of all kinds": lambda: linear(
        training=TrainConfig(epochs=2, mixing=CutMix(until=0.5)),
        optim=OptimConfig(lr=0.01, optimizer=spec(torch.optim.AdamW), layer_decay=0.7),
    ),
    "sharpness-aware": lambda: linear(optim=OptimConfig(lr=0.1, sam=SharpnessAware(0.1), clip_norm=1.0)),
    "sharpness-aware by class": lambda: linear(optim=OptimConfig(lr=0.1, sam=AsymmetricSharpnessAware(0.1, beta=0.9))),
    "head first": lambda: linear(optim=OptimConfig(lr=0.1, head_first=0.3)),
    "two views": lambda: linear(loss=SupConLoss(), batches=Parts(SupConLoss(), 4)),
    "a head alone": lambda: linear(backbone=ConvNet(1, 6, width=3).requires_grad_(requires_grad=False)),
    "patches as rows": lambda: linear(backbone=Patches()),
}


class Patches(nn.Module):
    """Normalizes each of nine patches of an image as a row of its own."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm, self.last = nn.Linear(4, 5), nn.BatchNorm1d(5, momentum=None), nn.Linear(45, 12)

    def forward(self, images):
        patches = images.unfold(2, 2, 2).unfold(3, 2, 2).reshape(-1, 4)
        return self.last(self.norm(self.layer(patches)).tanh().view(len(images), 45))


class Centered(nn.Module):
    """Subtracts the mean of the batch, which is no batch normalization."""

    def forward(self, images):
        return (images - images.mean(0)).flatten(1)[:, :12]


class Counting(nn.Module):
    """Keeps the mean of all images, which its features do not use."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(12))

    def forward(self, images):
        features = images.flatten(1)[:, :12]
        self.mean.lerp_(features.mean(0), 0.1)
        return features


CASES = {
    **{f"head {number} {s.cls.__name__}": lambda s=s: of_head(s) for number, s in enumerate(head_variants.VARIANTS)},
    **{f"loss {number} {s.cls.__name__}": lambda s=s: of_loss(s) for number, s in enumerate(loss_variants.VARIANTS)},
    **OTHERS,
}


def made(name):
    """Return a case with the same initial weights whenever it is made."""
    torch.manual_seed(0)
    return CASES[name]()


def in_processes(function, *arguments, size=2):
    """Call ``function(processes, *arguments)`` in several processes; return what each of them returns."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_process, args=(size, folder, function, arguments), nprocs=size)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(size)]


def _process(rank, size, folder, function, arguments):
    torch.set_num_threads(1)
    processes = Processes(dist.FileStore(f"{folder}/meet", size), rank, size)
    torch.save(function(processes, *arguments), f"{folder}/{rank}.pt")
