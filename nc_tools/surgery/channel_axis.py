"""Find which axis of a layer's output holds the channels.

Convolutional networks pass maps (N, C, H, W) from layer to layer, Swin and its relatives pass (N, H, W, C), and some
models use both. The shape alone does not say which: (8, 7, 7, 7) may be either. The operations do. A convolution writes
channels to axis 1, a linear layer to the last axis, and a permutation moves them. So one forward pass is watched
operation by operation, and the channel axis is followed through it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

_ATEN = torch.ops.aten
# Operations that define the channel axis of their first result, whatever came in.
_CHANNELS_FIRST = {
    _ATEN.convolution, _ATEN.cudnn_batch_norm, _ATEN.native_batch_norm, _ATEN.native_group_norm,
    _ATEN._native_batch_norm_legit, _ATEN._native_batch_norm_legit_no_training,
}  # fmt: skip
_CHANNELS_LAST = {_ATEN.addmm, _ATEN.embedding, _ATEN.linear, _ATEN.mm}
_LAYER_NORM = {_ATEN.native_layer_norm, _ATEN._fused_rms_norm}
_RESHAPES = {_ATEN.view, _ATEN._unsafe_view, _ATEN._reshape_alias, _ATEN.squeeze, _ATEN.unsqueeze}


class ChannelTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follow the channel axis of each tensor while a model runs inside ``with ChannelTracker() as tracker``.

    - Convolutions, batch normalization and group normalization put the channels at axis 1.
    - Linear layers, and layer normalization over one dimension, put them last.
    - A permutation moves the axis. A reshape moves it too, and loses it if channels are split or merged.
    - Any other operation keeps the axis of its first input that has as many dimensions as the result.

    Run the model without gradients: autograd may replace the tensors that are tracked.

    Example:
        >>> with torch.no_grad(), ChannelTracker() as tracker:
        ...     maps = torch.nn.Conv2d(3, 8, 1)(torch.zeros(2, 3, 5, 4))
        ...     rows = maps.flatten(2).transpose(1, 2)
        >>> tracker.axis(maps), tracker.axis(rows)
        (1, 2)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._axes: MutableMapping[Tensor, int] = WeakTensorKeyDictionary()

    def axis(self, tensor: Tensor) -> int:
        """Return the channel axis of a tensor.

        Where no operation has defined it, it is 1 for maps (N, C, H, W), as PyTorch writes them, and 2 for tokens
        (N, T, D).
        """
        axis = self._axes.get(tensor)
        return usual_channel_axis(tensor) if axis is None else axis

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a PyTorch operation, then note the channel axis of its results."""
        del types
        results = func(*args, **(kwargs or {}))
        inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        for result in tree_leaves(results):
            if isinstance(result, Tensor):
                axis = self._result_axis(func.overloadpacket, args, inputs, result)
                if axis is not None:
                    self._axes[result] = axis
        return results

    def _result_axis(self, operation: Any, args: tuple[Any, ...], inputs: list[Tensor], result: Tensor) -> int | None:
        if operation in _CHANNELS_FIRST:
            return 1
        if operation in _CHANNELS_LAST or (operation in _LAYER_NORM and len(args[1]) == 1):
            return result.ndim - 1
        if operation in _MOVES or operation in _RESHAPES:
            source = inputs[0]
            axis = self._axes.get(source)
            if axis is None:
                return None
            move = _MOVES.get(operation)
            return _reshaped(axis, source.shape, result.shape) if move is None else move(axis, source.ndim, args[1:])
        return next((self._axes[x] for x in inputs if x.ndim == result.ndim and x in self._axes), None)


def usual_channel_axis(tensor: Tensor) -> int:
    """Return the channel axis by PyTorch's convention: 1 for features and maps, 2 for tokens (N, T, D)."""
    return 2 if tensor.ndim == 3 else 1


def _permuted(axis: int, ndim: int, arguments: tuple[Any, ...]) -> int:
    order: list[int] = [dim % ndim for dim in arguments[0]]
    return order.index(axis)


def _transposed(axis: int, ndim: int, arguments: tuple[Any, ...]) -> int:
    first, second = (int(dim) % ndim for dim in arguments or (0, 1))
    return {first: second, second: first}.get(axis, axis)


_MOVES: dict[Any, Callable[[int, int, tuple[Any, ...]], int]] = {
    _ATEN.permute: _permuted, _ATEN.t: _transposed, _ATEN.transpose: _transposed,
}  # fmt: skip


def _reshaped(axis: int, before: Sequence[int], after: Sequence[int]) -> int | None:
    """Return where an axis is after a reshape: it must keep its size, and as many elements must lie before it.

    Example:
        >>> _reshaped(1, (2, 8, 7, 5), (2, 8, 35)), _reshaped(1, (2, 8, 7, 5), (2, 2, 4, 35))
        (1, None)
    """
    outer = math.prod(before[:axis])
    for place, size in enumerate(after):
        if size == before[axis] and math.prod(after[:place]) == outer:
            return place
    return None
