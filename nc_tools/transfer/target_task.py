"""A target task of fine-tuning: it gives batches of its training images (all or some) and of its test images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from torch import Tensor

from nc_tools.data import BatchOptions, Images, evaluation_batches, make_loader
from nc_tools.data.mixing import Batches
from nc_tools.records import Batch

_EVALUATION_BATCH = 512


@dataclass(frozen=True, eq=False)
class Target:
    """A target task of fine-tuning: its training images, all or some, and its test images.

    Attributes:
        labels: Labels of the training samples (N,), int64, in [0, K).
        num_classes: K.
        training_batches: Maps indices of training samples (M,) to a loader of them, shuffled and augmented.
        plain_batches: Maps indices of training samples (M,) to their batches, in the given order, not augmented.
        test_batches: Returns the batches of the test samples. Called once, at the end.

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
                f"have none ({', '.join(map(str, empty[:5]))}): add samples, or number the classes without gaps from 0"
            )


def image_target(train: Images, test: Images, options: BatchOptions) -> Target:
    """Return the target task of a training and a test image set.

    Args:
        train: The training images.
        test: The test images, of the same classes.
        options: How batches are made. Give the mean and std that the backbone was trained with.

    Raises:
        ValueError: If the two have different classes, there are fewer than two, or one has no training image.

    Example:
        >>> from nc_tools.data import DataConfig, load_data
        >>> sources = load_data(DataConfig(held_out_classes=3))
        >>> options = BatchOptions(batch_size=32, mean=sources.mean, std=sources.std)
        >>> task = image_target(sources.transfer_train, sources.transfer_test, options)
        >>> task.num_classes, len(task.labels)
        (3, 266)
    """
    if train.classes != test.classes:
        raise ValueError(
            f"training and test images of a target task must have the same classes in the same order, got "
            f"{len(train.classes)} and {len(test.classes)} classes"
        )
    plain = replace(options, batch_size=_EVALUATION_BATCH)
    return Target(
        labels=train.labels,
        num_classes=train.num_classes,
        training_batches=lambda indices: make_loader(train, indices, options),
        plain_batches=lambda indices: evaluation_batches(train, indices, plain),
        test_batches=lambda: evaluation_batches(test, None, plain),
    )
