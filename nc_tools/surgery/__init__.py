"""Find, replace, watch and convert the classifier head of any PyTorch model."""

from nc_tools.surgery.find_head import find_head
from nc_tools.surgery.layer_choice import backbone_blocks, default_layers
from nc_tools.surgery.layer_groups import layer_groups
from nc_tools.surgery.layers import candidate_layers, channel_axes, pooled
from nc_tools.surgery.swap import split_head, swap_head
from nc_tools.surgery.to_linear import to_linear
from nc_tools.surgery.watch import WatchedHead, watch

__all__ = [
    "WatchedHead",
    "backbone_blocks",
    "candidate_layers",
    "channel_axes",
    "default_layers",
    "find_head",
    "layer_groups",
    "pooled",
    "split_head",
    "swap_head",
    "to_linear",
    "watch",
]
