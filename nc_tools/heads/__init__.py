"""Classifier heads: the last layer of a model, from features (N, D) to logits (N, K)."""

from nc_tools.heads.align import align_to
from nc_tools.heads.balanced_calibration import BalancedCalibrationHead
from nc_tools.heads.etf import ETFHead
from nc_tools.heads.fixed_head import FixedHead
from nc_tools.heads.frame import FixedFrameHead
from nc_tools.heads.frozen_random import FrozenRandomHead
from nc_tools.heads.head import Head
from nc_tools.heads.imprint import imprint
from nc_tools.heads.least_squares import least_squares_init
from nc_tools.heads.linear import CosineHead, LinearHead
from nc_tools.heads.nearest_etf_head import NearestETFHead
from nc_tools.heads.normalize import normalize
from nc_tools.heads.pixel_head import PixelHead
from nc_tools.heads.polytope_heads import CubeHead, HadamardHead, OrthoplexHead, SimplexHead
from nc_tools.heads.preallocated import PreallocatedHead
from nc_tools.heads.prototype import PrototypeHead
from nc_tools.heads.proxy import ProxyHead
from nc_tools.heads.rbf import RBFHead
from nc_tools.heads.scale import LEARNED, LEARNED_PER_CLASS, LearnedScale, default_scale
from nc_tools.heads.spherical_code_head import SphericalCodeHead
from nc_tools.heads.structured_etf import StructuredETFHead
from nc_tools.heads.tau_norm import tau_normalize
from nc_tools.heads.two_space import TwoSpaceHead
from nc_tools.heads.vertex_order import RANDOM, RandomAssignment

__all__ = [
    "LEARNED",
    "LEARNED_PER_CLASS",
    "RANDOM",
    "BalancedCalibrationHead",
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
    "PixelHead",
    "PreallocatedHead",
    "PrototypeHead",
    "ProxyHead",
    "RBFHead",
    "RandomAssignment",
    "SimplexHead",
    "SphericalCodeHead",
    "StructuredETFHead",
    "TwoSpaceHead",
    "align_to",
    "default_scale",
    "imprint",
    "least_squares_init",
    "normalize",
    "tau_normalize",
]
