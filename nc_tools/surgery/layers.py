"""Read features (N, C) from named layers of any model, with forward hooks that are removed afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nc_tools._support.suggestions import did_you_mean
from nc_tools.surgery.channel_axis import ChannelTracker, usual_channel_axis
from nc_tools.surgery.example_inputs import Example
from nc_tools.surgery.trace import logits_of
from nc_tools.surgery.untouched import trial_run

Pool = Callable[[Tensor], Tensor]


def pooled(output: Tensor, channel_axis: int | None = None) -> Tensor:
    """Average a layer's output over all positions, which gives features (N, C).

    A map (N, C, H, W) is averaged over H and W (global average pooling), a channels-last map (N, H, W, C) likewise, and
    tokens (N, T, D) over T. Features (N, C) are returned as they are.

    Args:
        output: (N, ...) with at least two dimensions.
        channel_axis: The axis of the channels. None: 1, as PyTorch lays out maps, and 2 for tokens (N, T, D).
            :func:`channel_axes` finds it for the layers of a model.

    Raises:
        ValueError: If the output has fewer than two dimensions.

    Example:
        >>> pooled(torch.ones(2, 3, 4, 4)).shape, pooled(torch.ones(2, 5, 3)).shape
        (torch.Size([2, 3]), torch.Size([2, 3]))
        >>> pooled(torch.ones(2, 4, 4, 3), channel_axis=3).shape
        torch.Size([2, 3])
    """
    if output.ndim < 2:
        raise ValueError(
            f"a layer's output must have at least two dimensions (N, C, ...), got {tuple(output.shape)}: "
            f"name another layer"
        )
    if output.ndim == 2:
        return output
    axis = usual_channel_axis(output) if channel_axis is None else channel_axis
    return output.mean(dim=[dim for dim in range(1, output.ndim) if dim != axis])


def candidate_layers(model: nn.Module, example: Example) -> dict[str, int]:
    """Return the layers whose features can be read, in the order in which they run, with the width C of each.

    These are the layers that run exactly once in a forward pass and return floats (N, ...).

    Args:
        model: Any model.
        example: An input with about two samples.
    """
    calls: dict[str, list[tuple[int, int] | None]] = {}

    def note(name: str, output: Any) -> None:
        size = (len(output), output.shape[tracker.axis(output)]) if _usable(output, None) else None
        calls.setdefault(name, []).append(size)

    names = [name for name, _ in model.named_modules() if name]
    with ChannelTracker() as tracker, _outputs_passed_to(note, model, names), trial_run(model):
        logits = logits_of(call(model, example))
    number = None if logits is None else len(logits)
    return {
        name: sizes[0][1]
        for name, sizes in calls.items()
        if len(sizes) == 1 and sizes[0] is not None and number in (None, sizes[0][0])
    }


def channel_axes(model: nn.Module, example: Example, layers: Iterable[str]) -> dict[str, int]:
    """Return the channel axis of the output of each layer that runs, from one forward pass in eval mode.

    The axis is followed through the operations of the pass, see :class:`~nc_tools.surgery.channel_axis.ChannelTracker`.

    Args:
        model: Any model.
        example: An input with about two samples.
        layers: Dotted names of layers.

    Example:
        >>> from torchvision.ops import Permute
        >>> model = nn.Sequential(nn.Conv2d(3, 7, 1), Permute([0, 2, 3, 1]))
        >>> channel_axes(model, torch.zeros(2, 3, 7, 7), ["0", "1"])
        {'0': 1, '1': 3}
    """
    axes: dict[str, int] = {}

    def note(name: str, output: Any) -> None:
        if isinstance(output, Tensor):
            axes[name] = tracker.axis(output)

    with ChannelTracker() as tracker, _outputs_passed_to(note, model, layers), trial_run(model):
        call(model, example)
    return axes


def layer_pools(model: nn.Module, example: Example, layers: Sequence[str], pool: Pool | None = None) -> dict[str, Pool]:
    """Return a pooling function for each layer, which turns its output into features (N, C).

    Args:
        model: Any model.
        example: An input with about two samples.
        layers: Dotted names of layers.
        pool: The function for all of them. None: :func:`pooled`, at the channel axis of each layer.

    Raises:
        ValueError: If the model has no such layer.
    """
    check_layers(model, layers)
    if pool is not None or not layers:
        return dict.fromkeys(layers, pool or pooled)
    axes = channel_axes(model, example, layers)
    return {name: partial(pooled, channel_axis=axes.get(name)) for name in layers}


@contextmanager
def captured_features(
    model: nn.Module, pools: Mapping[str, Pool], head: str | None = None
) -> Iterator[dict[str, list[Any]]]:
    """Collect the features that layers return, one entry for each call, while the model runs inside the ``with`` block.

    Pooling happens at once, because the next layer may overwrite the output, as ``nn.ReLU(inplace=True)`` does. An
    output that cannot be pooled is collected as it is; :func:`features_of` reports it.

    Args:
        model: Any model.
        pools: The layers, with the function that turns the output of each into features.
        head: Dotted path of a layer whose input is collected too, under the name "".

    Raises:
        ValueError: If the model has no such layer.
    """
    check_layers(model, list(pools))
    features: dict[str, list[Any]] = {"": [], **{name: [] for name in pools}}

    def note(name: str, output: Any) -> None:
        if _usable(output, None):
            result = pools[name](output)
            output = result.clone() if result.data_ptr() == output.data_ptr() else result
        features[name].append(output)

    handles = []
    if head is not None:
        handles.append(
            model.get_submodule(head).register_forward_pre_hook(lambda _, arguments: features[""].append(arguments[0]))
        )
    with _outputs_passed_to(note, model, pools), _removed_at_end(handles):
        yield features


def features_of(name: str, calls: list[Any], number: int) -> Tensor:
    """Return the features (N, C) that a layer returned in a forward pass; raise ValueError unless it ran once.

    Args:
        name: The layer.
        calls: What :func:`captured_features` collected for it.
        number: N.

    Raises:
        ValueError: If the layer did not run exactly once, or its output is not (N, C) after pooling.
    """
    if len(calls) != 1:
        raise ValueError(
            f"layer {name!r} ran {len(calls)} times in one forward pass. Only a layer that runs once has one set of "
            "features: name another layer"
        )
    features = calls[0]
    if not (isinstance(features, Tensor) and _usable(features, number) and features.ndim == 2):
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(
            f"layer {name!r} must give features ({number}, C) after pooling, got {shape}: name another layer, or pass "
            "another pooling function"
        )
    return features


def check_layers(model: nn.Module, layers: Sequence[str]) -> None:
    """Raise an error if the model has no layer of one of these names.

    Raises:
        ValueError: With the most similar names.

    Example:
        >>> check_layers(nn.Sequential(nn.Linear(2, 2)), ["0"])
    """
    names = {name for name, _ in model.named_modules() if name}
    for name in layers:
        if name not in names:
            raise ValueError(f"{type(model).__name__} has no layer {name!r}; {did_you_mean(name, names)}")


def call(model: nn.Module, inputs: Example) -> Any:
    """Call a model with a tensor, a tuple of positional arguments or a mapping of keyword arguments."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter or buffer, or the CPU if it has none."""
    part = next((part for part in [*model.parameters(), *model.buffers()]), None)
    return torch.device("cpu") if part is None else part.device


@contextmanager
def _outputs_passed_to(note: Callable[[str, Any], None], model: nn.Module, layers: Iterable[str]) -> Iterator[None]:
    """Call ``note(name, tensor)`` whenever one of the layers returns."""

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _module, _arguments, output: note(name, _tensor_of(output))

    modules = dict(model.named_modules())
    with _removed_at_end([modules[name].register_forward_hook(hook(name)) for name in layers]):
        yield


@contextmanager
def _removed_at_end(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensor_of(output: Any) -> Any:
    """Return the tensor in a layer's output: itself, the first of a tuple, or the last hidden state of a record."""
    if isinstance(output, tuple | list) and output:
        return output[0]
    return getattr(output, "last_hidden_state", output)


def _usable(output: Any, number: int | None) -> bool:
    """Return True for floats of at least two dimensions, with ``number`` samples where that is given."""
    return (
        isinstance(output, Tensor)
        and output.is_floating_point()
        and output.ndim >= 2
        and (number is None or len(output) == number)
    )
