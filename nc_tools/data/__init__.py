"""Image data for a run: sources, long tails, label noise, hold-outs, and loaders that any epoch can be asked of."""

from nc_tools.data.augmentation import Augment, Normalise, augment, augment_for
from nc_tools.data.config import DataConfig
from nc_tools.data.decode import UnreadableImageError
from nc_tools.data.images import ImageFiles, Images, ImageSet
from nc_tools.data.imbalance import class_counts, long_tailed, long_tailed_counts, split_holdout
from nc_tools.data.instance_noise import InstanceNoise
from nc_tools.data.label_noise import (
    CIFAR10_CONFUSIONS,
    AsymmetricNoise,
    MatrixNoise,
    Noise,
    PairNoise,
    SymmetricNoise,
    with_noise,
)
from nc_tools.data.loader import BatchLoader, Loader, evaluation_batches, make_loader
from nc_tools.data.outliers import WithOutliers
from nc_tools.data.pairs import side_by_side
from nc_tools.data.sources import Sources, load
from nc_tools.data.stream import StreamLoader
from nc_tools.data.subsets import Subsets, make_subsets

__all__ = [
    "CIFAR10_CONFUSIONS",
    "AsymmetricNoise",
    "Augment",
    "BatchLoader",
    "DataConfig",
    "ImageFiles",
    "ImageSet",
    "Images",
    "InstanceNoise",
    "Loader",
    "MatrixNoise",
    "Noise",
    "Normalise",
    "PairNoise",
    "Sources",
    "StreamLoader",
    "Subsets",
    "SymmetricNoise",
    "UnreadableImageError",
    "WithOutliers",
    "augment",
    "augment_for",
    "class_counts",
    "evaluation_batches",
    "load",
    "long_tailed",
    "long_tailed_counts",
    "make_loader",
    "make_subsets",
    "side_by_side",
    "split_holdout",
    "with_noise",
]
