"""Losses on watched features: compiled, checkpointed, in half precision, on two processes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.two_processes import in_two_processes
from support.watched_net import ETF, N, X, Y, assert_same, batch, by_hand, grads, swapped, train
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from nc_tools.heads import LEARNED, ETFHead, LinearHead
from nc_tools.losses import CrossEntropyLoss, DotRegressionLoss
from nc_tools.specs import spec
from nc_tools.surgery import swap_head, watch


@pytest.mark.slow
def test_compiled_whole_without_a_break() -> None:
    model = swapped()
    watched = watch(model)
    expected = by_hand()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    actual = train(model, torch.compile(model, backend="aot_eager", fullgraph=True), watched)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    for name, grad in expected.items():
        assert torch.allclose(actual[name], grad, atol=1e-5), name


@pytest.mark.slow
def test_a_compiled_model_can_be_watched_until_it_runs() -> None:
    torch._dynamo.reset()
    model = swapped()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert_same(train(model, compiled, watch(compiled)), by_hand())
    late = torch.compile(swapped(), backend="eager")
    late(X)
    watched = watch(late)
    late(X)
    with pytest.raises(RuntimeError, match=r"call watch\(model\) before torch\.compile runs it"):
        watched.outputs  # noqa: B018


def test_checkpointing_the_blocks_or_the_whole() -> None:
    expected = by_hand()
    model = swapped()
    watched = watch(model)
    actual = train(model, lambda x: checkpoint(model, x, use_reentrant=False), watched)
    assert_same(actual, expected)
    # The pass that was repeated in backward is not taken for a new one.
    assert torch.equal(watched.outputs.logits, watched.outputs.head.compute_logits(watched.outputs.embedded))
    model = swapped()
    inner = model.mix.forward
    model.mix.forward = lambda x: checkpoint(inner, x, use_reentrant=False)  # type: ignore[method-assign]
    assert_same(train(model, model, watch(model)), expected)
    model = swapped()
    inner = model.mix.forward
    model.mix.forward = lambda x: checkpoint(inner, x, use_reentrant=True)  # type: ignore[method-assign]
    assert_same(train(model, model, watch(model)), expected)


def test_reentrant_checkpointing_around_the_head_is_an_error_not_a_zero() -> None:
    model = swapped()
    watched = watch(model)
    checkpoint(model, X.clone().requires_grad_(), use_reentrant=True)
    with pytest.raises(RuntimeError, match=r"ran without gradients.*use_reentrant=False, or leave the head outside"):
        watched.outputs  # noqa: B018


def test_half_precision_models_and_autocast() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        model = swapped(spec(ETFHead, projection=True, scale=LEARNED)).to(dtype)
        watched = watch(model)
        model(X.to(dtype))
        loss = DotRegressionLoss()(watched.outputs, batch()) + CrossEntropyLoss()(watched.outputs, batch())
        loss.backward()
        assert loss.dtype == torch.float32
        assert all(torch.isfinite(p.grad).all() and p.grad.dtype == dtype for p in model.parameters())
    model = swapped()
    watched = watch(model)
    with torch.autocast("cpu", torch.bfloat16):
        model(X)
        loss = DotRegressionLoss()(watched.outputs, batch())
    assert loss.dtype == torch.float32
    loss.backward()
    assert model.conv.weight.grad is not None


def _of_two(rank: int, folder: str) -> None:
    mine = slice(rank * N // 2, (rank + 1) * N // 2)
    x, y = X[mine], Y[mine]

    def gradients(head: Any, wrap: Callable[[nn.Module], nn.Module], views: int, *, tie: bool) -> dict[str, Tensor]:
        model = swapped(head).eval()  # batch statistics would differ between one process and two
        watched, wrapped = watch(model), wrap(model)
        for _ in range(2):
            model.zero_grad()
            logits = wrapped(torch.cat([x] * views))
            outputs = watched.outputs if views == 1 else watched.halves()
            loss = DotRegressionLoss()(outputs if outputs.second_view is None else outputs.second_view, batch(x, y))
            (loss + 0 * logits.sum() if tie else loss).backward()
        return grads(model)

    ddp = DistributedDataParallel
    results = {
        "plain": gradients(ETF, ddp, 1, tie=False),
        "views": gradients(ETF, ddp, 2, tie=False),
        "compiled": gradients(ETF, lambda m: ddp(torch.compile(m, backend="eager", fullgraph=True)), 1, tie=False),
        "bias": gradients(LinearHead, ddp, 1, tie=True),
    }
    model = swapped()
    with pytest.raises(ValueError, match="must not be wrapped by DDP with static_graph=True"):
        watch(ddp(model, static_graph=True))
    watch(model)
    with pytest.raises(ValueError, match="must not be wrapped by DDP with static_graph=True"):
        ddp(model, static_graph=True)(x)
    with pytest.raises(ValueError, match="the head of a wrapped model, got a DistributedDataParallel"):
        swap_head(ddp(swapped()), ETFHead)
    watched = watch(wrapped := ddp(swapped()))
    wrapped(x)
    assert len(watched.outputs.features) == N // 2
    torch.save(results, f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path: Any) -> None:
    in_two_processes(_of_two, str(tmp_path))

    def alone(head: Any) -> dict[str, Tensor]:
        model = swapped(head).eval()
        DotRegressionLoss()(model.fc.outputs(model.features(X)), batch()).backward()
        return grads(model)

    for rank in (0, 1):
        results = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for case in ("plain", "views", "compiled"):
            assert_same(results[case], alone(ETF))
        assert not results["bias"].pop("fc.bias").any()
        assert_same(results["bias"], alone(LinearHead))
