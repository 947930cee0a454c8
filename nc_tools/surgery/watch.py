"""Give a loss the features that reached the head, in a loop that only calls the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nc_tools.heads.head import Head
from nc_tools.records import Outputs


def watch(model: nn.Module) -> WatchedHead:
    """Note what reaches a model's head, so that a loss can ask for more than logits; the model stays as it is.

    One line before the loop, and the loss reads what it needs. The loop, the model's ``forward``, DDP, gradient
    checkpointing and ``torch.compile`` stay as they are::

        seen = watch(model)                                         # once
        logits = model(images)
        loss = term(seen.outputs, Batch(images, labels, index))     # instead of cross_entropy(logits, labels)
        head.observe(seen.outputs, labels, progress)                # heads that learn by themselves, after the step

    Call it before ``torch.compile`` runs the model for the first time: what is compiled no longer looks for hooks.

    Args:
        model: A model with one :class:`~nc_tools.heads.Head` (see :func:`~nc_tools.heads.swap_head`), wrapped or not,
            or that head itself, where a model has several or parts of it are called one by one.

    Raises:
        ValueError: If the model holds no head of this package, or more than one, or is wrapped by DDP with
            ``static_graph=True``: that reduces no gradient of a loss that does not come from the returned logits.

    Example:
        >>> from nc_tools.heads import ETFHead
        >>> from nc_tools.surgery import swap_head
        >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))
        >>> head = swap_head(model, ETFHead)
        >>> seen = watch(model)
        >>> logits = model(torch.randn(2, 8))
        >>> seen.outputs.features.shape, seen.outputs.logits is logits
        (torch.Size([2, 4]), True)
    """
    heads = {module: name for name, module in model.named_modules() if isinstance(module, Head)}
    if not heads:
        raise ValueError(
            f"{type(model).__name__} must hold a head of nc_tools to be watched, but has none: put one on first, as in "
            f"swap_head(model, LinearHead), which reads the checkpoints of nn.Linear"
        )
    if len(heads) > 1:
        raise ValueError(
            f"{type(model).__name__} must hold one head to be watched, but has {', '.join(map(repr, heads.values()))}: "
            f"watch one of them, as in watch(model.{next(iter(heads.values()))})"
        )
    return WatchedHead(_unwrapped(model), next(iter(heads)))


class WatchedHead:
    """What reached a model's head in its last forward pass; made by :func:`watch`.

    A new pass drops the record of the one before when it begins, so that at most one graph is kept; :meth:`clear` drops
    it at once. A pass that gradient checkpointing repeats during the backward pass is no new one. Copies of the model
    (an EMA, ``deepcopy``) and models that were saved and loaded are not watched: watch them anew.
    """

    def __init__(self, model: nn.Module, head: Head) -> None:
        self._head = head
        self._record = record = _Record()
        self._handles = [
            model.register_forward_pre_hook(_Begin(record)),
            head.register_forward_hook(_Note(record)),
        ]

    @property
    def outputs(self) -> Outputs:
        """The head's :class:`~nc_tools.records.Outputs` for the last pass, whichever mode the model was in.

        The same object until the next pass, so what one loss computed another reads.

        Raises:
            RuntimeError: If there was no pass, if the head ran more than once in it, or if it ran without gradients
                and gradients are on now.
            ValueError: If the head scored tokens rather than samples.
        """
        features, logits = self._last_call()
        if self._record.outputs is None:
            self._record.outputs = _outputs(self._head, features, logits)
        return self._record.outputs

    def halves(self) -> Outputs:
        """Return the outputs of the batch's first view, with those of its second one as their ``second_view``.

        For losses of two views: ``logits = model(torch.cat([images, second]))`` sends both through in one pass, so that
        batch statistics are those of both and DDP sees one pass a step.

        Raises:
            ValueError: If the pass had an odd number of samples.
        """
        both = self.outputs
        if len(both.features) % 2:
            raise ValueError(
                f"two views need an even number of samples in one pass, got {len(both.features)}: call "
                f"model(torch.cat([images, second]))"
            )
        logits = both.computed_logits
        first, second = (
            _outputs(self._head, half, None if logits is None else logits.chunk(2)[i])
            for i, half in enumerate(both.features.chunk(2))
        )
        first.second_view = second
        return first

    def clear(self) -> None:
        """Forget the last pass and free its graph."""
        self._record.forget()

    def close(self) -> None:
        """Stop watching, as before ``torch.export``: the model is then as it was."""
        for handle in self._handles:
            handle.remove()
        self.clear()

    def _last_call(self) -> tuple[Tensor, Tensor]:
        calls = self._record.calls
        if not calls:
            raise RuntimeError(
                "the model must have run before its outputs are asked for, but its head has not since watch() or the "
                "last clear(): call the model first, and watch it before torch.compile runs it"
            )
        if len(calls) > 1:
            raise RuntimeError(
                "the head must run once in a forward pass, but it ran several times (views one by one, or parts of the "
                "model called by themselves): watch the head alone, watch(head), and read outputs after each"
            )
        features, logits, with_gradients = calls[0]
        if torch.is_grad_enabled() and not with_gradients:
            raise RuntimeError(
                "the last forward pass ran without gradients, so that nothing can be learnt from it: ask for outputs "
                "right after the training pass, before any evaluation; with checkpoint() say use_reentrant=False, or "
                "leave the head outside it"
            )
        if features.ndim != 2:
            raise ValueError(
                f"a loss needs features (N, D), but the head scored shape {tuple(features.shape)}, as one that runs on "
                f"every token: put a head on the pooled features instead"
            )
        return features, logits


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the user's own model inside what compiles or wraps it."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel):
            _check_ddp(model)
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _check_ddp(model: nn.Module | None) -> None:
    if model is not None and getattr(model, "static_graph", False):
        raise ValueError(
            "a watched model must not be wrapped by DDP with static_graph=True, which would reduce no gradient of a "
            "loss on its features: leave static_graph out"
        )


def _outputs(head: Head, features: Tensor, logits: Tensor | None) -> Outputs:
    outputs = head.outputs(features)
    outputs.computed_logits = logits  # computed already, by the model's own forward pass
    return outputs


class _Record:
    """What the two hooks write; kept apart from Seen so that a copied model takes none of it along."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor, bool]] = []
        self.outputs: Outputs | None = None
        self.on = True

    def forget(self) -> None:
        self.calls = []
        self.outputs = None

    def __deepcopy__(self, memo: dict[int, Any]) -> _Record:
        return _off()

    def __reduce__(self) -> tuple[Any, ...]:
        return _off, ()


def _off() -> _Record:
    record = _Record()
    record.on = False
    return record


class _Begin:
    """A hook on the model: a new pass begins."""

    def __init__(self, record: _Record) -> None:
        self.record = record

    def __call__(self, _model: nn.Module, _inputs: tuple[Any, ...]) -> None:
        if self.record.on and not _in_backward():
            self.record.forget()


class _Note:
    """A hook on the head: keep what came in and what went out."""

    def __init__(self, record: _Record) -> None:
        self.record = record

    def __call__(self, _head: nn.Module, inputs: tuple[Any, ...], logits: Tensor) -> None:
        if self.record.on and not _in_backward():
            if not torch.compiler.is_compiling():
                _check_ddp(getattr(nn.parallel.DistributedDataParallel, "_active_ddp_module", None))
            # Two are enough to know that it ran more than once.
            self.record.calls = [*self.record.calls[:1], (inputs[0], logits, torch.is_grad_enabled())]
            self.record.outputs = None


def _in_backward() -> bool:
    """Tell whether autograd is at work: then a forward pass is one that checkpointing repeats."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
