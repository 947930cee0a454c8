"""Errors for models whose head cannot be found or replaced: what is wrong, and how to fix it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nc_tools.surgery.head_layers import could_be_head, output_width
from nc_tools.surgery.trace import Call, Trace


def wrapped_model(modules: Iterable[nn.Module]) -> ValueError | None:
    """Return an error if a module is wrapped by DDP or compiled, after which its head cannot be replaced."""
    for module in modules:
        if isinstance(module, nn.parallel.DistributedDataParallel | nn.DataParallel):
            state, action = "wrapped", "wrap"
        elif hasattr(module, "_orig_mod") or module._compiled_call_impl is not None:
            state, action = "compiled", "compile"
        else:
            continue
        return ValueError(
            f"cannot find or replace the head of a {state} model, got a {type(module).__name__}: call swap_head on the "
            f"model first, then {action} it"
        )
    return None


def zero_classes(model: nn.Module, output: Tensor | None) -> ValueError | None:
    """Return an error if the model was built for 0 classes: it returns features and has no head."""
    if getattr(model, "num_classes", None) == 0:
        fix = "put a head after it, as in nn.Sequential(model, ETFHead(D, num_classes))"
        if output is not None and output.ndim == 2:
            fix = fix.replace("D,", f"{output.shape[1]},")
        elif output is not None:
            fix = f"pool its output of shape {tuple(output.shape)} to (N, D), then {fix}"
    elif getattr(model, "num_labels", None) == 0:
        fix = "build it with num_labels=K"
    else:
        return None
    return ValueError(f"{type(model).__name__} was built for 0 classes and returns features: {fix}")


def lazy_layers(model: nn.Module, only: str | None = None) -> ValueError | None:
    """Return an error if layers have no size before their first batch: a trial run would decide it.

    Args:
        model: The model.
        only: The dotted path of one layer, if the others do not matter.
    """
    lazy = {name: module for name, module in model.named_modules() if only in (None, name) and _has_no_size(module)}
    if not lazy:
        return None
    layers = ", ".join(f"{name!r} ({type(module).__name__})" for name, module in lazy.items())
    return ValueError(
        f"{type(model).__name__} has layers that get their size from the first batch: {layers}. Run the model once on "
        f"a batch of your data, then call swap_head with it as example="
    )


def _has_no_size(module: nn.Module) -> bool:
    return any(is_lazy(tensor) for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)])


def several_outputs(model: nn.Module, trace: Trace) -> ValueError | None:
    """Return an error if the model returns the outputs of several layers that could be its head."""
    heads = trace.heads()
    beside = [call for call in trace.returned_beside() if call.module is not heads[0].module]
    if not beside:
        return None
    layers = _described([heads[0], *beside])
    return ValueError(
        f"{type(model).__name__} returns several tensors that could be the logits: the outputs of {layers}. Pass name= "
        f"with the layer to replace"
    )


def _described(calls: list[Call]) -> str:
    return ", ".join(f"{call.name!r} {tuple(call.output.shape)}" for call in calls)


def not_run(model: nn.Module) -> ValueError:
    """Return the error for a model that accepts none of the example inputs."""
    names = [name for name, module in model.named_modules() if could_be_head(module)]
    candidates = ", ".join(map(repr, [*names[:2], *names[-3:]] if len(names) > 5 else names)) or "its layers"
    return ValueError(
        f"could not run {type(model).__name__} on an input of zeros to find its head: pass example= with an input, or "
        f"name= with one of {candidates}"
    )


def no_head(model: nn.Module, trace: Trace) -> ValueError:
    """Return the error for a model whose logits are not the output of a layer."""
    problem = f"no layer of {type(model).__name__} returns the logits unchanged"
    logits = trace.logits
    if beside := trace.returned_beside():
        return ValueError(
            f"{problem}, by which nc_tools means the first tensor of a tuple or an item named logits. It returns the "
            f"outputs of {_described(beside)} too: pass name= with one of them if you train on it"
        )
    if logits is None or logits.ndim < 2:
        ran = {call.name: call.module for call in trace.calls}
        return ValueError(
            f"{type(model).__name__} must return logits (N, num_classes), as a tensor, first in a tuple or as an item "
            f"named logits, got {'none' if logits is None else f'shape {tuple(logits.shape)}'}: pass name= with the "
            f"layer that computes them. Layers that ran, the last ones: {_quoted(dict(list(ran.items())[-4:]))}"
        )
    width = logits.shape[-1 if logits.ndim == 3 else 1]  # (N, K), tokens (N, T, K) or pixels (N, K, H, W)
    same_width = {n: m for n, m in model.named_modules() if could_be_head(m) and output_width(m) == width}
    if callable(getattr(model, "reset_classifier", None)):
        return _timm_model(model, problem, width, same_width)
    on_tokens = [call.name for call in trace.calls if call.scored_tokens(logits) and call.is_unmodified()]
    if len(on_tokens) == 1:
        return ValueError(
            f"{problem}: {on_tokens[0]!r} scores every token, and this input does not show whether the model picks one "
            f"token or combines them. Pass name={on_tokens[0]!r} if it picks one"
        )
    if logits.ndim == 2 and len(same_width) == 1 and isinstance(conv := next(iter(same_width.values())), nn.Conv2d):
        return ValueError(f"{problem}: {convolution_message(next(iter(same_width)), conv)}")
    if softmax := _softmax_message(logits):
        return ValueError(f"{problem}: {softmax}. Layers as wide as the logits: {_quoted(same_width)}")
    features = (
        f". If the model returns features, put a head after it: nn.Sequential(model, ETFHead({width}, K))"
        if trace.returns_tensor and not same_width
        else ""
    )
    return ValueError(
        f"{problem}, so a new head would change what the model computes. Layers as wide as the logits: "
        f"{_quoted(same_width)}. Pass name= with {_advice(same_width)}{features}"
    )


def _advice(layers: dict[str, nn.Module]) -> str:
    if len(layers) < 2:
        return "this layer if you train on its output" if layers else "the layer whose output you train on"
    return "one of them if you train on its output, or with each in turn if the model combines their outputs"


def _quoted(layers: dict[str, nn.Module]) -> str:
    names = [repr(name) for name in layers]
    return ", ".join(names if len(names) <= 6 else [*names[:3], "...", *names[-2:]]) or "none"


def _timm_model(model: nn.Module, problem: str, width: int, same_width: dict[str, nn.Module]) -> ValueError:
    features = getattr(model, "head_hidden_size", None) or "D"
    return ValueError(
        f"{problem}: its classifier is {_classifier(same_width)}. Call model.reset_classifier(0), after which model(x) "
        f"returns features (N, {features}), and use nn.Sequential(model, ETFHead({features}, {width}))"
    )


def _classifier(same_width: dict[str, nn.Module]) -> str:
    if len(same_width) == 1 and isinstance(next(iter(same_width.values())), nn.Conv2d):
        return f"a convolution over a map ({_quoted(same_width)})"
    return f"not one linear layer (layers as wide as the logits: {_quoted(same_width)})"


def _softmax_message(logits: Tensor) -> str | None:
    """Return a message if the output looks like probabilities or their logarithms; values on meta are unknown."""
    if logits.is_meta or not logits.is_floating_point() or logits.shape[1] < 2:
        return None
    scores = logits.float()
    one = torch.ones_like(scores[:, 0])
    if bool((scores >= 0).all()) and torch.allclose(scores.sum(1), one, atol=1e-2):
        return "it returns probabilities. Remove the softmax at the end of the model and train on the logits"
    if bool((scores <= 0).all()) and torch.allclose(scores.exp().sum(1), one, atol=1e-2):
        return "it returns log-probabilities. Remove the log-softmax at the end and train with cross_entropy"
    return None


def auxiliary_heads(model: nn.Module, head: str, idle: list[str]) -> ValueError:
    """Return the error for a model with auxiliary heads, which run only in train mode."""
    return ValueError(
        f"{type(model).__name__} has auxiliary heads that run only in train mode ({', '.join(map(repr, idle))}): build "
        f"it without them (aux_logits=False in torchvision), or pass name={head!r} to replace only that head"
    )


def convolution_message(name: str, conv: nn.Conv2d) -> str:
    """Return the message for a head that is a convolution over a map, in a model that returns scores (N, K)."""
    return (
        f"{name!r} is a 1 x 1 convolution over a map, which is pooled after it. For a head that sees the pooled "
        f"features, replace it and the pooling with nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), "
        f"nn.Linear({conv.in_channels}, {conv.out_channels})); for a head that sees every pixel, pass name={name!r}"
    )


def tied_weights(model: nn.Module, name: str, module: nn.Module) -> ValueError | None:
    """Return an error if a layer shares a parameter with another one, as in language models with tied embeddings."""
    inside = set(module.modules())
    own = {id(parameter) for parameter in module.parameters()}
    for other_name, other in model.named_modules():
        if other in inside:
            continue
        for key, parameter in other._parameters.items():
            if parameter is not None and id(parameter) in own:
                return ValueError(
                    f"the head must not share parameters, but {name!r} shares one with '{other_name}.{key}' (tied "
                    f"weights of a language model). LinearHead keeps the shared weight, for as many classes; for "
                    f"another head build the model untied (tie_word_embeddings=False in Hugging Face)"
                )
    return None
