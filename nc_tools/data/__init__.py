"""Image data of a training run: sources, long tails, label noise, hold-out sets, augmentation and loaders."""

from nc_tools.data.augment import Augment, Normalize, augment, augment_for
from nc_tools.data.batch_options import BatchOptions
from nc_tools.data.color_jitter import ColorJitter
from nc_tools.data.cutout import Cutout
from nc_tools.data.data_config import DataConfig
from nc_tools.data.image_set import ImageFiles, Images, ImageSet
from nc_tools.data.imbalance import class_counts, long_tailed, split_holdout, subset_of_counts
from nc_tools.data.instance_noise import InstanceNoise
from nc_tools.data.load_data import load_data, load_images
from nc_tools.data.loader import BatchLoader, Loader, evaluation_batches, make_loader
from nc_tools.data.mixing import CutMix, MixedBatches, Mixup
from nc_tools.data.outlier_batches import BlendedOutliers, WithOutliers
from nc_tools.data.rand_augment import RandAugment
from nc_tools.data.sampling import BalancedSampling, ProgressiveSampling, SquareRootSampling
from nc_tools.data.side_by_side import side_by_side
from nc_tools.data.sources import Sources
from nc_tools.data.stream_loader import StreamLoader
from nc_tools.data.subsets import Subsets, make_subsets
from nc_tools.data.synthetic_noise import (
    CIFAR10_CONFUSIONS,
    AsymmetricNoise,
    MatrixNoise,
    Noise,
    PairNoise,
    SymmetricNoise,
    with_noise,
)
from nc_tools.data.tail_profile import long_tailed_counts, own_counts
from nc_tools.decoding.image_file import UnreadableImageError

__all__ = [
    "CIFAR10_CONFUSIONS",
    "AsymmetricNoise",
    "Augment",
    "BalancedSampling",
    "BatchLoader",
    "BatchOptions",
    "BlendedOutliers",
    "ColorJitter",
    "CutMix",
    "Cutout",
    "DataConfig",
    "ImageFiles",
    "ImageSet",
    "Images",
    "InstanceNoise",
    "Loader",
    "MatrixNoise",
    "MixedBatches",
    "Mixup",
    "Noise",
    "Normalize",
    "PairNoise",
    "ProgressiveSampling",
    "RandAugment",
    "Sources",
    "SquareRootSampling",
    "StreamLoader",
    "Subsets",
    "SymmetricNoise",
    "UnreadableImageError",
    "WithOutliers",
    "augment",
    "augment_for",
    "class_counts",
    "evaluation_batches",
    "load_data",
    "load_images",
    "long_tailed",
    "long_tailed_counts",
    "make_loader",
    "make_subsets",
    "own_counts",
    "side_by_side",
    "split_holdout",
    "subset_of_counts",
    "with_noise",
]
