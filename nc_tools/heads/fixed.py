"""The heads with a fixed frame, under their first address."""

from nc_tools.heads.etf import ETFHead
from nc_tools.heads.frame import FixedFrameHead
from nc_tools.heads.frozen_random import FrozenRandomHead

__all__ = ["ETFHead", "FixedFrameHead", "FrozenRandomHead"]
