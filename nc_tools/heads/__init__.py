"""Classifier heads, and the means to put them on a model that already exists."""

from nc_tools.heads.balanced_calibration import BalancedCalibrationHead
from nc_tools.heads.base import Head
from nc_tools.heads.find import find_head
from nc_tools.heads.fixed import ETFHead, FixedFrameHead, FrozenRandomHead
from nc_tools.heads.linear import CosineHead, LinearHead
from nc_tools.heads.nearest import NearestETFHead
from nc_tools.heads.preallocated import PreallocatedHead
from nc_tools.heads.prototype import PrototypeHead
from nc_tools.heads.rbf import RBFHead
from nc_tools.heads.scale import LEARNED, LearnedScale, default_scale
from nc_tools.heads.swap import split_head, swap_head
from nc_tools.heads.two_space import TwoSpaceHead
from nc_tools.heads.unit import unit
from nc_tools.spec import spec

__all__ = [
    "LEARNED",
    "BalancedCalibrationHead",
    "CosineHead",
    "ETFHead",
    "FixedFrameHead",
    "FrozenRandomHead",
    "Head",
    "LearnedScale",
    "LinearHead",
    "NearestETFHead",
    "PreallocatedHead",
    "PrototypeHead",
    "RBFHead",
    "TwoSpaceHead",
    "default_scale",
    "find_head",
    "spec",
    "split_head",
    "swap_head",
    "unit",
]
