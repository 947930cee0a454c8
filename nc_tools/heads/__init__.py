"""Classifier heads, and the means to put them on a model that already exists."""

from nc_tools.heads.assignment import RANDOM, RandomAssignment
from nc_tools.heads.base import Head
from nc_tools.heads.etf import ETFHead
from nc_tools.heads.find import find_head
from nc_tools.heads.frame import FixedFrameHead, FixedHead
from nc_tools.heads.frozen_random import FrozenRandomHead
from nc_tools.heads.linear import CosineHead, LinearHead
from nc_tools.heads.polytopes import CubeHead, HadamardHead, OrthoplexHead, SimplexHead
from nc_tools.heads.scale import LEARNED, LEARNED_PER_CLASS, LearnedScale, default_scale
from nc_tools.heads.structured_etf import StructuredETFHead
from nc_tools.heads.swap import split_head, swap_head
from nc_tools.heads.unit import unit
from nc_tools.spec import spec

__all__ = [
    "LEARNED",
    "LEARNED_PER_CLASS",
    "RANDOM",
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
    "OrthoplexHead",
    "RandomAssignment",
    "SimplexHead",
    "StructuredETFHead",
    "default_scale",
    "find_head",
    "spec",
    "split_head",
    "swap_head",
    "unit",
]
