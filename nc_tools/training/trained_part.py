"""Which part of a backbone is trained: nothing, its last blocks, all of it, or low-rank additions (LoRA)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from nc_tools.surgery.layer_groups import layer_groups

_NUMBERED = re.compile(r"(last|lora):([1-9]\d*)")
# Last parts of the names of query and value projections, and of those fused with the key, in common libraries.
_ATTENTION = ("qkv", "q_proj", "v_proj", "query", "value", "q", "v", "to_q", "to_v")


@dataclass(frozen=True)
class TrainedPart:
    """The part of a backbone that is trained; the head is always trained.

    Attributes:
        kind: "head": nothing of the backbone; "last": the last blocks; "all"; "lora": low-rank additions to frozen
            layers.
        number: For "last", how many blocks; for "lora", the rank.
    """

    kind: Literal["head", "last", "all", "lora"]
    number: int = 0

    @classmethod
    def parse(cls, text: str) -> TrainedPart:
        """Return the part that text such as "head", "last:2", "all" or "lora:8" names.

        Raises:
            ValueError: If the text has another form.

        Example:
            >>> TrainedPart.parse("last:2")
            TrainedPart(kind='last', number=2)
        """
        if text == "head":
            return cls("head")
        if text == "all":
            return cls("all")
        if (match := _NUMBERED.fullmatch(text)) is None:
            raise ValueError(
                f"what is trained must be head, last:N (the last N blocks), all or lora:R (rank R), got {text!r}"
            )
        return cls("last" if match[1] == "last" else "lora", int(match[2]))


class PartlyTrained(nn.Module):
    """A backbone of which a part is trained, and some modules always stay in eval mode.

    A frozen layer must not use batch statistics or dropout, and ``model.train()`` of a parent would switch both on.

    Args:
        module: The backbone; ``requires_grad`` of its parameters says what is trained.
        fixed: Names of the modules that stay in eval mode.

    Example:
        >>> net = PartlyTrained(nn.Sequential(nn.BatchNorm1d(2)), ["0"]).train()
        >>> net.module[0].training
        False
    """

    def __init__(self, module: nn.Module, fixed: Iterable[str]) -> None:
        super().__init__()
        self.module = module
        self.fixed = tuple(fixed)

    def train(self, mode: bool = True) -> PartlyTrained:  # noqa: FBT001, FBT002 (PyTorch's own signature)
        """Set the mode of all modules but the fixed ones, which stay in eval mode."""
        super().train(mode)
        for name in self.fixed:
            self.module.get_submodule(name).eval()
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the backbone's features."""
        features: Tensor = self.module(inputs)
        return features


def train_part(
    backbone: nn.Module, part: TrainedPart, *, freeze_norm: bool, lora_layers: tuple[str, ...] = ()
) -> nn.Module:
    """Prepare a backbone so that only a part of it is trained; return it, wrapped if something in it is frozen.

    Frozen layers have ``requires_grad=False`` and stay in eval mode, batch statistics and dropout included.

    Args:
        backbone: Images to features; changed in place.
        part: What is trained.
        freeze_norm: Keep the statistics of all batch normalization; their gains and biases are trained with the rest.
        lora_layers: For "lora": last parts of the names of the layers that get additions. Empty: the projections of
            attention, or all convolutions of a network without attention.

    Raises:
        ValueError: If N of last:N is not less than the number of blocks, no layer suits LoRA, or peft is not installed.

    Example:
        >>> from nc_tools.models import ConvNet
        >>> net = train_part(ConvNet(1, 8), TrainedPart("last", 1), freeze_norm=True)
        >>> [name for name, p in net.named_parameters() if p.requires_grad]
        ['module.layers.6.weight', 'module.layers.7.weight', 'module.layers.7.bias']
    """
    if part.kind == "all":
        norms = [name for name, module in backbone.named_modules() if freeze_norm and _is_batch_norm(module)]
        return PartlyTrained(backbone, norms) if norms else backbone
    groups = layer_groups(backbone)
    if part.kind == "last" and part.number >= len(groups):
        raise ValueError(
            f"last:{part.number} asks for {part.number} blocks of {type(backbone).__name__}, which has {len(groups)}: "
            f"give at most last:{len(groups) - 1}, or all"
        )
    backbone.requires_grad_(False)
    trained = {name for group in groups[-part.number :] for name in group} if part.kind == "last" else set()
    for name in trained:
        backbone.get_parameter(name).requires_grad_()
    fixed = [
        name
        for name, module in backbone.named_modules()
        if not _holds_trained(name, module, trained) or (freeze_norm and _is_batch_norm(module))
    ]
    if part.kind == "lora":
        _add_lora(backbone, part.number, lora_layers)
    return PartlyTrained(backbone, fixed)


def _holds_trained(name: str, module: nn.Module, trained: set[str]) -> bool:
    """Return True if a parameter of the module is trained; a module without parameters counts with its parent."""
    path = f"{name}." if name else ""
    own = [f"{path}{inner}" for inner, _ in module.named_parameters()]
    if own:
        return any(parameter in trained for parameter in own)
    parent = name.rpartition(".")[0]
    return any(parameter.startswith(f"{parent}." if parent else "") for parameter in trained)


def _is_batch_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats


def lora_targets(backbone: nn.Module, layers: tuple[str, ...] = ()) -> list[str]:
    """Return the names of the layers that LoRA changes: those that are asked for, or the projections of attention.

    A network without attention gets additions to all its convolutions that are not grouped.

    Raises:
        ValueError: If the backbone has no such layer.

    Example:
        >>> from nc_tools.models import ConvNet
        >>> lora_targets(ConvNet(1, 8))
        ['layers.0', 'layers.3', 'layers.6']
    """
    modules = [(n, m) for n, m in backbone.named_modules() if isinstance(m, nn.Linear | nn.Conv2d) and n]
    if layers:
        matches = [n for n, _ in modules if n.rpartition(".")[2] in layers]
        if not matches:
            ends = sorted({n.rpartition(".")[2] for n, _ in modules})
            raise ValueError(f"no layer is named {' or '.join(layers)}: choose from {', '.join(ends)}")
        return matches
    attention = [n for n, m in modules if isinstance(m, nn.Linear) and n.rpartition(".")[2] in _ATTENTION]
    fused = [n for n, m in backbone.named_modules() if isinstance(m, nn.MultiheadAttention)]
    matches = attention + fused or [n for n, m in modules if isinstance(m, nn.Conv2d) and m.groups == 1]
    if not matches:
        raise ValueError(f"{type(backbone).__name__} has no layer for LoRA: name some in lora_layers, or use last:N")
    return matches


def _add_lora(backbone: nn.Module, rank: int, layers: tuple[str, ...]) -> None:
    """Add low-rank matrices to layers, in place, with alpha = R, so that good rates do not change with the rank."""
    targets = lora_targets(backbone, layers)
    try:
        import peft
    except ImportError:
        raise ValueError("lora:R needs peft, which is not installed: pip install peft") from None
    options: Any = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=targets)
    peft.inject_adapter_in_model(options, backbone)
