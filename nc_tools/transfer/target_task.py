"""A target task to fine-tune to: batches of any part of its training images, and its test images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from nc_tools.data import Augment, Images, evaluation_batches, make_loader
from nc_tools.data.mixing import Batches
from nc_tools.records import Batch

_EVALUATION_BATCH = 512


@dataclass(frozen=True, eq=False)
class Target:
    """A target task.

    Attributes:
        labels: Of its training samples (N,), int64, in [0, K).
        num_classes: K.
        training_batches: Training samples (M,) to a loader of them, shuffled and augmented.
        plain_batches: The same in the order given, not augmented.
        test_batches: Called once, at the very end: the test samples.

    Raises:
        ValueError: If there are fewer than two classes, or one has no training sample.
    """

    labels: Tensor
    num_classes: int
    training_batches: Callable[[Tensor], Batches]
    plain_batches: Callable[[Tensor], Iterable[Batch]]
    test_batches: Callable[[], Iterable[Batch]]

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ValueError(f"a target task needs at least two classes, got {self.num_classes}")
        empty = (self.labels.bincount(minlength=self.num_classes) == 0).nonzero().flatten().tolist()
        if empty:
            raise ValueError(
                f"a target task needs training samples of each of its {self.num_classes} classes, and {len(empty)} "
                f"have none ({', '.join(map(str, empty[:5]))}): add some, or number the classes that are there from 0"
            )


def image_target(
    train: Images,
    test: Images,
    *,
    mean: Tensor,
    std: Tensor,
    batch_size: int,
    augment: Augment | None,
    seed: int,
    device: torch.device | str = "cpu",
    channels_last: bool = False,
) -> Target:
    """Make a target task of two image sets.

    Args:
        train: Its training images.
        test: Its test images, of the same classes.
        mean: (C,) that the backbone was trained with, in 0..1.
        std: (C,) likewise.
        batch_size: Of training.
        augment: Crop and flip, or None.
        seed: Of order and augmentation.
        device: Where the batches go.
        channels_last: Memory layout of the inputs.

    Raises:
        ValueError: If the two have different classes, there are fewer than two, or one has no training image.

    Example:
        >>> from nc_tools.data import DataConfig, load
        >>> sources = load(DataConfig(held_out_classes=3))
        >>> pair = sources.transfer_train, sources.transfer_test
        >>> task = image_target(*pair, mean=sources.mean, std=sources.std, batch_size=32, augment=None, seed=0)
        >>> task.num_classes, len(task.labels)
        (3, 266)
    """
    if train.classes != test.classes:
        raise ValueError(
            f"training and test part of a target must have the same classes, got {len(train.classes)} and "
            f"{len(test.classes)}, or in another order"
        )
    look = partial(evaluation_batches, mean=mean, std=std, device=device, channels_last=channels_last)

    def training_batches(chosen: Tensor) -> Batches:
        return make_loader(
            train, chosen, batch_size, mean=mean, std=std, augment=augment, seed=seed, device=device,
            channels_last=channels_last,
        )  # fmt: skip

    return Target(
        labels=train.labels,
        num_classes=train.num_classes,
        training_batches=training_batches,
        plain_batches=lambda chosen: look(train, chosen, _EVALUATION_BATCH),
        test_batches=lambda: look(test, None, _EVALUATION_BATCH),
    )
