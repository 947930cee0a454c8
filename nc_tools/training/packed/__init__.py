"""Train many heads side by side in one process, each with its own loss, rate, seed and order of samples."""

from nc_tools.training.packed.fit_pack import PackResult, fit_pack
from nc_tools.training.packed.pack import Pack, PackMember, pack_key, why_not_packed

__all__ = ["Pack", "PackMember", "PackResult", "fit_pack", "pack_key", "why_not_packed"]
