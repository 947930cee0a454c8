"""Recording the features that reach the head, for losses that need more than logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nc_tools.heads.head import Head
from nc_tools.records import Outputs
from nc_tools.surgery.sharded import gather, is_sharded, tied


def watch(model: nn.Module) -> WatchedHead:
    """Record what reaches the head of a model, so that a loss can use features as well as logits.

    Call it once before the loop. It only adds hooks: the model's ``forward``, DDP, gradient checkpointing and
    ``torch.compile`` work as before::

        watched = watch(model)                                         # once
        logits = model(images)
        loss = term(watched.outputs, Batch(images, labels, index))     # instead of cross_entropy(logits, labels)
        head.observe(watched.outputs, labels, progress)                # for heads with running means, after the step

    Call it before ``torch.compile`` runs the model for the first time: a compiled model does not run new hooks.

    Args:
        model: A model with a :class:`~nc_tools.heads.Head` (see :func:`~nc_tools.surgery.swap_head`), wrapped or not.
            Heads that do not run, such as the original that PEFT keeps beside the one it trains, do not matter. Pass
            the head itself if several run, or if you call parts of the model separately.

    Raises:
        ValueError: If the model has no head of nc_tools, or is wrapped by FullyShardedDataParallel or by DDP with
            ``static_graph=True``, which reduce only gradients of losses on the returned logits.

    Example:
        >>> from nc_tools.heads import ETFHead
        >>> from nc_tools.surgery import swap_head
        >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3))
        >>> head = swap_head(model, ETFHead)
        >>> watched = watch(model)
        >>> logits = model(torch.randn(2, 8))
        >>> watched.outputs.features.shape, watched.outputs.logits is logits
        (torch.Size([2, 4]), True)
    """
    heads = {module: name for name, module in model.named_modules() if isinstance(module, Head)}
    if not heads:
        raise ValueError(
            f"watch needs a model with a head of nc_tools, got {type(model).__name__} without one: replace its head "
            f"first, as in swap_head(model, LinearHead), which loads the checkpoints of nn.Linear"
        )
    return WatchedHead(_unwrapped(model), heads)


class WatchedHead:
    """The inputs and outputs of a model's head in its last forward pass; returned by :func:`watch`.

    The start of a forward pass deletes the record of the previous one, so at most one graph is kept; :meth:`clear`
    deletes it at once. A forward pass that gradient checkpointing repeats during the backward pass is ignored. Copies
    of the model (an EMA, ``deepcopy``) and saved and loaded models are not watched: call :func:`watch` for them.
    """

    def __init__(self, model: nn.Module, heads: Mapping[Head, str]) -> None:
        self._model = model
        self._record = record = _Record()
        self._handles = [head.register_forward_hook(_RecordCall(record, name)) for head, name in heads.items()]
        end = model.register_forward_hook(_EndOfPass(record))
        self._handles += [model.register_forward_pre_hook(_StartOfPass(record, end.id)), end]
        is_sharded(model)  # refuses at once what it can

    @property
    def outputs(self) -> Outputs:
        """The head's :class:`~nc_tools.records.Outputs` of the last forward pass, in train or eval mode.

        It is the same object until the next pass, so several losses share what it has computed.

        Raises:
            RuntimeError: If there was no forward pass, if the head ran more than once in it, or if it ran without
                gradients and gradients are enabled now.
            ValueError: If the head ran on tokens rather than samples: see :meth:`rows`.
        """
        call = self._last_call()
        if call.features.ndim != 2:
            raise ValueError(
                f"outputs have a row for each sample, but the head ran on features {tuple(call.features.shape)}: use "
                f"watched.rows() with labels.flatten() for a row for each token, or pool the tokens before the head"
            )
        if self._record.outputs is None:
            self._record.outputs = self._outputs(call.head, call.features, call.logits)
        return self._record.outputs

    def rows(self) -> Outputs:
        """Return :attr:`outputs` with a row for each token, for a head that ran on tokens (N, T, D).

        The rows are in the order of ``labels.flatten()`` for labels (N, T), where -100 leaves a token out::

            targets = labels.flatten()
            loss = term(watched.rows(), Batch(ids.flatten(), targets, torch.arange(len(targets))))

        Raises:
            RuntimeError: As for :attr:`outputs`.
        """
        call = self._last_call()
        return self._outputs(call.head, call.features.flatten(0, -2), call.logits.flatten(0, -2))

    def halves(self) -> Outputs:
        """Return the outputs of the first half of the batch, with those of the second half as their ``second_view``.

        For losses on two views: ``logits = model(torch.cat([images, second]))`` runs both in one pass, so batch
        statistics are those of both views, and DDP has one forward pass per step.

        Raises:
            ValueError: If the batch had an odd number of samples.
        """
        outputs = self.outputs
        if len(outputs.features) % 2:
            raise ValueError(
                f"two views need an even number of samples in one pass, got {len(outputs.features)}: call "
                f"model(torch.cat([images, second]))"
            )
        logits = outputs.computed_logits
        first, second = (
            _outputs(self._last_call().head, half, None if logits is None else logits.chunk(2)[i])
            for i, half in enumerate(outputs.features.chunk(2))
        )
        first.second_view = second
        return first

    def clear(self) -> None:
        """Delete the outputs of the last forward pass, which frees its graph and memory."""
        self._record.clear()

    def close(self) -> None:
        """Stop watching: remove the hooks and delete the last outputs, for example before ``torch.export``."""
        for handle in self._handles:
            handle.remove()
        self.clear()

    def _outputs(self, head: Head, features: Tensor, logits: Tensor) -> Outputs:
        if torch.is_grad_enabled() and is_sharded(self._model):
            if not self._record.results:
                raise RuntimeError(
                    "a watched model that fully_shard shards must not be compiled as a whole: gradients of a loss on "
                    "features would not be reduced. Instead, compile its blocks before fully_shard, as in "
                    "block.compile()"
                )
            gather(self._model, head)
            features, logits = (tied(part, self._record.results) for part in (features, logits))
        return _outputs(head, features, logits)

    def _last_call(self) -> _Call:
        calls = self._record.calls
        if not self._record.enabled:
            raise RuntimeError(
                "this is a copy of what watch() returned (by deepcopy, or sent to another process), which records "
                "nothing: call watch(model) for the copy of the model, in the process that runs it"
            )
        if not calls:
            raise RuntimeError(
                "there are no outputs, because the head has not run since watch() or clear(): call the model first, "
                "and call watch(model) before torch.compile runs it. A copy of the model needs a watch of its own"
            )
        if len(calls) > 1 and calls[0].head is not calls[1].head:
            first, second = calls[0].name, calls[1].name
            raise RuntimeError(
                f"one head must run in a forward pass, but {first!r} and {second!r} ran: watch one of them, as in "
                f"watch(model.get_submodule({first!r}))"
            )
        if len(calls) > 1:
            raise RuntimeError(
                "the head must run once in a forward pass, but it ran several times (for several views, or because "
                "parts of the model were called separately): watch the head itself, watch(head), and read outputs "
                "after each call"
            )
        if torch.is_grad_enabled() and not calls[0].with_gradients:
            raise RuntimeError(
                "the last forward pass ran without gradients, so a loss on its outputs cannot train the model: read "
                "outputs right after the training pass, before any evaluation. With torch.utils.checkpoint, "
                "pass use_reentrant=False, or leave the head outside"
            )
        return calls[0]


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the plain model inside DDP and compiled modules."""
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
            "a watched model must not be wrapped by DDP with static_graph=True, which does not reduce the gradients of "
            "a loss on features: remove static_graph=True"
        )


def _outputs(head: Head, features: Tensor, logits: Tensor | None) -> Outputs:
    outputs = head.outputs(features)
    outputs.computed_logits = logits  # from the model's forward pass
    return outputs


class _Call(NamedTuple):
    """One run of a head."""

    head: Head
    name: str
    features: Tensor
    logits: Tensor
    with_gradients: bool


class _Record:
    """What the two hooks record. A separate object, so that copies of the model do not share or keep it."""

    def __init__(self) -> None:
        self.calls: list[_Call] = []
        self.outputs: Outputs | None = None
        self.results: list[Any] = []
        self.enabled = True

    def clear(self) -> None:
        self.calls = []
        self.outputs, self.results = None, []

    def __deepcopy__(self, memo: dict[int, Any]) -> _Record:
        return _disabled()

    def __reduce__(self) -> tuple[Any, ...]:
        return _disabled, ()


def _disabled() -> _Record:
    record = _Record()
    record.enabled = False
    return record


class _StartOfPass:
    """Hook on the model: clear the record when a forward pass starts."""

    def __init__(self, record: _Record, end: int) -> None:
        self.record, self.end = record, end

    def __call__(self, model: nn.Module, _inputs: tuple[Any, ...]) -> None:
        if self.record.enabled and not _in_backward():
            self.record.clear()
            if not torch.compiler.is_compiling():
                # After a hook of FSDP, which may have been added later and may return other tensors.
                hooks = model._forward_hooks
                hooks[self.end] = hooks.pop(self.end)


class _EndOfPass:
    """Hook on the model: record what it returns."""

    def __init__(self, record: _Record) -> None:
        self.record = record

    def __call__(self, _model: nn.Module, _inputs: tuple[Any, ...], outputs: Any) -> None:
        # Not in a compiled graph: only models that are sharded need it, and the compiler warns of a non-leaf tensor.
        if not torch.compiler.is_compiling() and self.record.enabled and not _in_backward():
            self.record.results = [outputs]


class _RecordCall:
    """Hook on the head: record its features and logits."""

    def __init__(self, record: _Record, name: str) -> None:
        self.record, self.name = record, name

    def __call__(self, head: Head, inputs: tuple[Any, ...], logits: Tensor) -> None:
        if self.record.enabled and not _in_backward():
            if not torch.compiler.is_compiling():
                _check_ddp(getattr(nn.parallel.DistributedDataParallel, "_active_ddp_module", None))
            # Two calls are enough to know that the head ran more than once.
            call = _Call(head, self.name, inputs[0], logits, torch.is_grad_enabled())
            self.record.calls = [*self.record.calls[:1], call]
            self.record.outputs = None


def _in_backward() -> bool:
    """Return True during a backward pass: a forward pass is then a repetition by gradient checkpointing."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
