"""Classifier heads, and the means to put them on a model that already exists."""

from nc_tools.heads.align import align_to
from nc_tools.heads.assignment import RANDOM, RandomAssignment
from nc_tools.heads.balanced_calibration import BalancedCalibrationHead
from nc_tools.heads.base import Head
from nc_tools.heads.code import CodeHead
from nc_tools.heads.convert import to_linear
from nc_tools.heads.etf import ETFHead
from nc_tools.heads.find import find_head
from nc_tools.heads.frame import FixedFrameHead, FixedHead
from nc_tools.heads.frozen_random import FrozenRandomHead
from nc_tools.heads.imprint import imprint
from nc_tools.heads.least_squares import least_squares_init
from nc_tools.heads.linear import CosineHead, LinearHead
from nc_tools.heads.nearest import NearestETFHead
from nc_tools.heads.polytopes import CubeHead, HadamardHead, OrthoplexHead, SimplexHead
from nc_tools.heads.preallocated import PreallocatedHead
from nc_tools.heads.prototype import PrototypeHead
from nc_tools.heads.proxy import ProxyHead
from nc_tools.heads.rbf import RBFHead
from nc_tools.heads.scale import LEARNED, LEARNED_PER_CLASS, LearnedScale, default_scale
from nc_tools.heads.structured_etf import StructuredETFHead
from nc_tools.heads.swap import split_head, swap_head
from nc_tools.heads.tap import Seen, watch
from nc_tools.heads.tau_norm import tau_normalise
from nc_tools.heads.two_space import TwoSpaceHead
from nc_tools.heads.unit import unit
from nc_tools.spec import spec

__all__ = [
    "LEARNED",
    "LEARNED_PER_CLASS",
    "RANDOM",
    "BalancedCalibrationHead",
    "CodeHead",
    "CosineHead",
    "CubeHead",
    "ETFHead",
    "FixedFrameHead",
    "FixedHead",
    "FrozenRandomHead",
    "HadamardHead",
    "Head",
    "LearnedScale",
    "LinearHead",
    "NearestETFHead",
    "OrthoplexHead",
    "PreallocatedHead",
    "PrototypeHead",
    "ProxyHead",
    "RBFHead",
    "RandomAssignment",
    "Seen",
    "SimplexHead",
    "StructuredETFHead",
    "TwoSpaceHead",
    "align_to",
    "default_scale",
    "find_head",
    "imprint",
    "least_squares_init",
    "spec",
    "split_head",
    "swap_head",
    "tau_normalise",
    "to_linear",
    "unit",
    "watch",
]
