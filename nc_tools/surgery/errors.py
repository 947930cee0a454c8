"""Say why the head of a model cannot be swapped, and the way out."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from nc_tools.surgery.head_layers import could_be_head, output_width
from nc_tools.surgery.trace import Trace


def wrapped(modules: Iterable[nn.Module]) -> ValueError | None:
    """Refuse modules that DDP has taken the parameters of, or that are compiled: those do not look for hooks."""
    for module in modules:
        if isinstance(module, nn.parallel.DistributedDataParallel | nn.DataParallel):
            said, then = "wrapped", "wrap"
        elif hasattr(module, "_orig_mod") or module._compiled_call_impl is not None:
            said, then = "compiled", "compile"
        else:
            continue
        return ValueError(
            f"the head must be swapped before the model or a part of it is {said}, but a {type(module).__name__} is: "
            f"swap the head of the plain model, then {then} it"
        )
    return None


def no_classes(model: nn.Module, output: Tensor | None) -> ValueError | None:
    """Refuse a model that was built to give features: its last layer, if it has one, is no head."""
    if getattr(model, "num_classes", None) == 0:
        way_out = "put a head after it, as in nn.Sequential(model, ETFHead(D, num_classes))"
        if output is not None and output.ndim == 2:
            way_out = way_out.replace("D,", f"{output.shape[1]},")
        elif output is not None:
            way_out = f"pool what it gives, here of shape {tuple(output.shape)}, to (N, D) and {way_out}"
    elif getattr(model, "num_labels", None) == 0:
        way_out = "build it with num_labels="
    else:
        return None
    return ValueError(f"{type(model).__name__} was built for 0 classes, so that it returns features: {way_out}")


def not_run(model: nn.Module) -> ValueError:
    """Refuse a model that takes none of the made-up inputs."""
    names = [name for name, module in model.named_modules() if could_be_head(module)]
    said = ", ".join(map(repr, [*names[:2], *names[-3:]] if len(names) > 5 else names)) or "its layers"
    return ValueError(
        f"{type(model).__name__} could not be run on made-up zeros to see where its logits come from: give example= "
        f"with an input, or name= with one of {said}"
    )


def no_head(model: nn.Module, seen: Trace) -> ValueError:
    """Refuse a model whose logits are no layer's own output."""
    said = f"no layer of {type(model).__name__} returns its logits unchanged"
    logits = seen.logits
    if logits is None or logits.ndim < 2:
        return ValueError(
            f"{type(model).__name__} must return its logits (N, num_classes), as a tensor, first in a tuple or called "
            f"logits, but it returned {'none' if logits is None else f'shape {tuple(logits.shape)}'}: wrap it in a "
            f"module that returns them, or give name= with the layer that makes them"
        )
    width = logits.shape[1]
    fitting = {n: m for n, m in model.named_modules() if could_be_head(m) and output_width(m) == width}
    if callable(getattr(model, "reset_classifier", None)):
        return _ask_timm(model, said, width, fitting)
    by_token = [call.name for call in seen.calls if call.scored_tokens(logits) and call.untouched()]
    if len(by_token) == 1:
        return ValueError(
            f"{said}: {by_token[0]!r} scores every token, and whether the model then picks one or mixes them cannot be "
            f"told from this input; give name={by_token[0]!r} if it picks one"
        )
    if len(fitting) == 1 and isinstance(conv := next(iter(fitting.values())), nn.Conv2d):
        return ValueError(f"{said}: {convolution(next(iter(fitting)), conv)}")
    changed = _how_changed(logits)
    if changed:
        return ValueError(f"{said}, but {changed}; layers of that width: {_quoted(fitting)}")
    features = (
        f"; if what the model returns are features, put a head after it: nn.Sequential(model, ETFHead({width}, K))"
    )
    return ValueError(
        f"{said}, so that none can be swapped without a change of meaning; layers of that width: {_quoted(fitting)}. "
        f"Give name= with {_advice(fitting)}{features if seen.bare and not fitting else ''}"
    )


def _advice(fitting: dict[str, nn.Module]) -> str:
    if len(fitting) < 2:
        return "it if its output is what you train on" if fitting else "the layer whose output you train on"
    return "one of them if its output is what you train on, or with each in turn if the model mixes their outputs"


def _quoted(layers: dict[str, nn.Module]) -> str:
    names = [repr(name) for name in layers]
    return ", ".join(names if len(names) <= 6 else [*names[:3], "...", *names[-2:]]) or "none"


def _ask_timm(model: nn.Module, said: str, width: int, fitting: dict[str, nn.Module]) -> ValueError:
    features = getattr(model, "head_hidden_size", None) or "D"
    return ValueError(
        f"{said}: its classifier is {_classifier(fitting)}. Call model.reset_classifier(0), after which model(x) gives "
        f"features (N, {features}), and go on with nn.Sequential(model, ETFHead({features}, {width}))"
    )


def _classifier(fitting: dict[str, nn.Module]) -> str:
    if len(fitting) == 1 and isinstance(next(iter(fitting.values())), nn.Conv2d):
        return f"a convolution over a map ({_quoted(fitting)})"
    return f"not one linear layer (of that width: {_quoted(fitting)})"


def _how_changed(logits: Tensor) -> str | None:
    """Tell probabilities by their values, where there are values."""
    if logits.is_meta or not logits.is_floating_point() or logits.shape[1] < 2:
        return None
    scores = logits.float()
    one = torch.ones(len(scores), device=scores.device)
    if bool((scores >= 0).all()) and torch.allclose(scores.sum(1), one, atol=1e-2):
        return "probabilities: take the softmax off the end of the model and train on what goes into it"
    if bool((scores <= 0).all()) and torch.allclose(scores.exp().sum(1), one, atol=1e-2):
        return "log-probabilities: take the log-softmax off the end of the model and train with cross_entropy"
    return None


def auxiliary(model: nn.Module, head: str, idle: list[str]) -> ValueError:
    """Refuse a model that has heads besides, which run in train mode only."""
    return ValueError(
        f"{type(model).__name__} has auxiliary heads that run in train mode only ({', '.join(map(repr, idle))}): "
        f"build it without them (aux_logits=False in torchvision), or give name={head!r} for that one"
    )


def convolution(name: str, conv: nn.Conv2d) -> str:
    """Say what to put in the place of a convolution over a map."""
    return (
        f"the head must be a linear layer, but {name!r} is a 1 x 1 convolution over a map: put "
        f"nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear({conv.in_channels}, {conv.out_channels})) "
        f"where the convolution and the pooling after it stand"
    )


def tied(model: nn.Module, name: str, module: nn.Module) -> ValueError | None:
    """Refuse a layer that shares a parameter with another one, as a language model's output with its embedding."""
    inside = set(module.modules())
    own = {id(parameter) for parameter in module.parameters()}
    for other_name, other in model.named_modules():
        if other in inside:
            continue
        for kind, parameter in other._parameters.items():
            if parameter is not None and id(parameter) in own:
                return ValueError(
                    f"the head must own its parameters, but {name!r} shares one with '{other_name}.{kind}' (tied, as "
                    f"in a language model), which a swap would leave behind or move: build the model untied "
                    f"(tie_word_embeddings=False in Hugging Face), or put a head on its hidden states"
                )
    return None
