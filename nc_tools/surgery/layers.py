"""Read what leaves named layers of any model, by forward hooks that are gone afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nc_tools._support.suggestions import did_you_mean
from nc_tools.surgery.example_inputs import Example
from nc_tools.surgery.trace import eval_mode, logits_of

Pool = Callable[[Tensor], Tensor]


def pooled(output: Tensor) -> Tensor:
    """Turn what a layer gives into features (N, D).

    (N, D) stays; a map (N, C, H, W), or one of more dimensions, is averaged over all but sample and channel, as global
    average pooling does; tokens (N, T, D) are averaged over T. A square map (N, S, S, C) with C != S keeps its channels
    last, as in Swin, and is averaged over its places too; one that is not square is taken as channels first.

    Raises:
        ValueError: If there is no feature dimension.

    Example:
        >>> pooled(torch.ones(2, 3, 4, 4)).shape, pooled(torch.ones(2, 5, 3)).shape
        (torch.Size([2, 3]), torch.Size([2, 3]))
    """
    if output.ndim < 2:
        raise ValueError(f"a layer must give (N, D), (N, T, D) or (N, C, H, W), got {tuple(output.shape)}")
    if output.ndim == 3:
        return output.mean(dim=1)
    if output.ndim == 4 and output.shape[1] == output.shape[2] != output.shape[3]:
        return output.mean(dim=(1, 2))
    return output.flatten(2).mean(dim=2) if output.ndim > 3 else output


def call(model: nn.Module, inputs: Example) -> Any:
    """Call a model with a tensor, a tuple of arguments or a mapping of named ones."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def candidate_layers(model: nn.Module, example: Example) -> dict[str, int]:
    """Return the layers that run once in a pass and give something (N, ...), in order, with the width of each.

    Args:
        model: Any model.
        example: An input, of two samples or so.
    """
    calls: dict[str, list[Any]] = {}
    names = {module: name for name, module in model.named_modules() if name}

    def note(module: nn.Module, _arguments: tuple[Any, ...], output: Any) -> None:
        calls.setdefault(names[module], []).append(_tensor(output))

    handles = [module.register_forward_hook(note) for module in names]
    try:
        with eval_mode(model):
            logits = logits_of(call(model, example))
    finally:
        for handle in handles:
            handle.remove()
    number = None if logits is None else len(logits)
    return {
        name: pooled(outputs[0]).shape[1]
        for name, outputs in calls.items()
        if len(outputs) == 1 and _usable(outputs[0], number)
    }


def default_layers(model: nn.Module, example: Example, head: str, *, least: int = 6, most: int = 16) -> list[str]:
    """Choose layers to look at: the stages of a model, from its first to the one before the head.

    Containers are opened level by level until there are at least ``least`` stages, and beyond ``most`` every so-manyth
    is taken, always with the last.

    Args:
        model: Any model.
        example: An input.
        head: Dotted path of the head, which is left out.
        least: How many stages are enough.
        most: How many are too many.
    """
    ran = list(candidate_layers(model, example))
    shown: list[str] = []
    for depth in range(1, 1 + max((name.count(".") + 1 for name in ran), default=0)):
        shown = [name for name in ran if _is_stage(name, ran, depth) and not _inside(name, head)]
        if len(shown) >= least:
            break
    if len(shown) > most:
        step = (len(shown) - 1) / (most - 1)
        shown = [shown[round(step * place)] for place in range(most)]
    return shown


def _is_stage(name: str, ran: Sequence[str], depth: int) -> bool:
    """Tell whether a name lies at this depth, or ends above it."""
    level = name.count(".") + 1
    return level == depth or (level < depth and not any(other.startswith(f"{name}.") for other in ran))


def _inside(name: str, head: str) -> bool:
    return name == head or head.startswith(f"{name}.") or name.startswith(f"{head}.")


@contextmanager
def tapped(model: nn.Module, layers: Sequence[str], head: str, pool: Pool) -> Iterator[dict[str, list[Any]]]:
    """Collect what leaves the layers, pooled, and, under "", what enters the head.

    Pooled at once: what a layer gave may be written over by the next one, as by ``nn.ReLU(inplace=True)``.

    Raises:
        ValueError: If a layer is unknown: those that run are offered.
    """
    modules = dict(model.named_modules())
    for name in layers:
        if name not in modules or not name:
            raise ValueError(
                f"{type(model).__name__} has no layer {name!r}; {did_you_mean(name, [n for n in modules if n])}"
            )
    found: dict[str, list[Any]] = {"": [], **{name: [] for name in layers}}

    def after(name: str) -> Any:
        return lambda _module, _arguments, output: found[name].append(_taken(_tensor(output), pool))

    handles = [modules[name].register_forward_hook(after(name)) for name in layers]
    handles.append(modules[head].register_forward_pre_hook(lambda _module, arguments: found[""].append(arguments[0])))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _taken(output: Any, pool: Pool) -> Any:
    """Pool what can be pooled; the rest is refused later, by name."""
    if not _usable(output, None):
        return output
    features = pool(output)
    return features.clone() if features.data_ptr() == output.data_ptr() else features


def features_of(name: str, calls: list[Any], number: int) -> Tensor:
    """Return the features (N, D) that a layer gave in one pass.

    Raises:
        ValueError: If it ran more than once or not at all, or gave nothing of the batch's size.
    """
    if len(calls) != 1:
        raise ValueError(f"a layer must run once in a pass, and {name!r} ran {len(calls)} times: name another one")
    features = calls[0]
    if not _usable(features, number) or features.ndim != 2:
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"a layer must give features (N, D) of {number} samples, pooled, and {name!r} gave {shape}")
    assert isinstance(features, Tensor)  # noqa: S101 (told by _usable)
    return features


def _tensor(output: Any) -> Any:
    """Return the tensor that a layer means: itself, the first of a tuple, or the last hidden state of a record."""
    if isinstance(output, tuple | list) and output:
        return output[0]
    return getattr(output, "last_hidden_state", output)


def _usable(output: Any, number: int | None) -> bool:
    return (
        isinstance(output, Tensor)
        and output.is_floating_point()
        and output.ndim >= 2
        and (number is None or len(output) == number)
    )


def device_of(model: nn.Module) -> torch.device:
    """Return where a model's first parameter or buffer lives."""
    part = next((part for part in [*model.parameters(), *model.buffers()]), None)
    return torch.device("cpu") if part is None else part.device
