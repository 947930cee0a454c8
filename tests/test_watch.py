"""A loss on watched features in the user's own loop: plain, compiled, checkpointed, on two processes."""

import copy
import gc
import io
import pickle
import socket
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from nc_tools.heads import LEARNED, CosineHead, ETFHead, LinearHead
from nc_tools.losses import CrossEntropyLoss, DotRegressionLoss
from nc_tools.records import Batch, Outputs
from nc_tools.spec import spec
from nc_tools.surgery import WatchedHead, swap_head, watch

N, K = 8, 5
X = torch.randn(N, 3, 6, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(N) % K
ETF = spec(ETFHead, projection=True)


class Net(nn.Module):
    """A small network whose blocks and whole can be checkpointed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.mix = nn.Linear(8, 8)
        self.fc = nn.Linear(8, K)

    def features(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return h + torch.tanh(self.mix(h))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))  # type: ignore[no-any-return]


def swapped(head: Any = ETF) -> Net:
    torch.manual_seed(0)
    model = Net()
    swap_head(model, head, generator=torch.Generator().manual_seed(0))
    return model


def batch(x: Tensor = X, y: Tensor = Y) -> Batch:
    return Batch(x, y, torch.arange(len(y)))


def grads(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def by_hand(head: Any = ETF) -> dict[str, Tensor]:
    """Gradients of dot regression, with the features taken from the model's own method."""
    model = swapped(head)
    DotRegressionLoss()(model.fc.outputs(model.features(X)), batch()).backward()
    return grads(model)


def train(model: Net, call: Callable[[Tensor], Tensor], watched: WatchedHead) -> dict[str, Tensor]:
    """Return gradients after some steps of a loop that calls the model and reads the watched outputs."""
    for _ in range(3):
        model.zero_grad()
        call(X)
        DotRegressionLoss()(watched.outputs, batch()).backward()
    return grads(model)


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    assert all(float(g.abs().max()) > 0 for g in expected.values())
    for name, grad in expected.items():
        assert torch.allclose(actual[name], grad, atol=1e-6), name


@pytest.mark.parametrize("head", [ETF, CosineHead, LinearHead])
def test_gradients_are_those_of_the_model_taken_apart(head: Any) -> None:
    model = swapped(head)
    assert_same(train(model, model, watch(model)), by_hand(head))


def test_outputs_are_those_of_the_head_in_the_last_pass() -> None:
    model = swapped()
    watched = watch(model)
    logits = model(X)
    outputs = watched.outputs
    assert outputs.head is model.fc
    assert outputs.logits is logits
    assert torch.equal(swapped().fc(outputs.features), logits)
    assert watched.outputs is outputs
    assert torch.equal(CrossEntropyLoss()(outputs, batch()), nn.functional.cross_entropy(logits, Y))
    model(X[:3])
    assert len(watched.outputs.features) == 3


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


def test_outputs_before_any_pass_and_after_evaluation() -> None:
    model = swapped()
    watched = watch(model)
    with pytest.raises(RuntimeError, match="there are no outputs, because the head has not run"):
        watched.outputs  # noqa: B018
    with torch.no_grad():
        model(X)
        assert watched.outputs.features.shape == (N, 8)  # measures may ask without training
    with pytest.raises(RuntimeError, match="ran without gradients"):
        watched.outputs  # noqa: B018
    model(X)
    watched.clear()
    with pytest.raises(RuntimeError, match="the head has not run since watch"):
        watched.outputs  # noqa: B018


def test_a_pass_that_did_not_reach_the_head_leaves_nothing_stale() -> None:
    model = swapped()
    watched = watch(model)
    model(X)
    with pytest.raises(RuntimeError, match="expected input"):
        model(X[:, :2])
    with pytest.raises(RuntimeError, match="the head has not run"):
        watched.outputs  # noqa: B018


def test_two_views_in_one_pass_and_one_by_one() -> None:
    model = swapped().eval()
    watched, second = watch(model), X.flip(-1)
    logits = model(torch.cat([X, second]))
    pair = watched.halves()
    assert isinstance(pair.second_view, Outputs)
    assert torch.equal(torch.cat([pair.logits, pair.second_view.logits]), logits)
    assert torch.equal(torch.cat([pair.features, pair.second_view.features]), watched.outputs.features)
    model(X)
    first = watched.outputs
    model(second)
    first.second_view = watched.outputs
    assert torch.allclose(first.logits, pair.logits, atol=1e-6)
    assert torch.allclose(first.second_view.logits, pair.second_view.logits, atol=1e-6)
    model(X[:3])
    with pytest.raises(ValueError, match=r"two views need an even number of samples in one pass, got 3: .*torch.cat"):
        watched.halves()


def test_a_head_that_runs_twice_in_a_pass_raises() -> None:
    class Twice(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + super().forward(x.flip(-1))

    model = Twice()
    swap_head(model, ETF, name="fc")
    watched = watch(model)
    model(X)
    with pytest.raises(RuntimeError, match=r"must run once in a forward pass.*watch the head itself, watch\(head\)"):
        watched.outputs  # noqa: B018
    watched.close()
    watched = watch(model.fc)
    model(X)
    with torch.no_grad():
        assert torch.equal(watched.outputs.features, model.features(X.flip(-1)))


def test_parts_called_separately_keep_no_growing_list() -> None:
    model = swapped()
    watched = watch(model)
    for _ in range(5):
        model.fc(model.features(X))
    assert len(watched._record.calls) == 2
    with pytest.raises(RuntimeError, match="parts of the model were called separately"):
        watched.outputs  # noqa: B018


def test_at_most_one_graph_is_kept() -> None:
    model = swapped()
    watched = watch(model)
    model(X)
    old = weakref.ref(watched.outputs.features)
    kept: list[Any] = []

    def look(*_: Any) -> None:
        gc.collect()
        kept.append(old())

    handle = model.conv.register_forward_pre_hook(look)
    model(X)
    handle.remove()
    assert kept == [None]
    last = weakref.ref(watched.outputs.features)
    watched.clear()
    gc.collect()
    assert last() is None


def test_copies_and_saved_models_are_not_watched() -> None:
    model = swapped()
    watched = watch(model)
    logits = model(X)
    outputs = watched.outputs
    averaged = AveragedModel(model)
    for other in (copy.deepcopy(model), averaged, pickle.loads(pickle.dumps(model))):
        other(X[:2])
        assert all(not hook.record.calls for m in other.modules() for hook in m._forward_hooks.values())
    assert watched.outputs is outputs
    assert outputs.logits is logits
    again = copy.deepcopy(model)
    fresh = watch(again)
    again(X[:2])
    assert len(fresh.outputs.features) == 2
    assert len(watched.outputs.features) == N
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    assert torch.load(file, weights_only=True).keys() == swapped().state_dict().keys()


def test_closing_leaves_the_model_as_it_was_and_exportable() -> None:
    model = swapped().eval()
    watched = watch(model)
    model(X)
    watched.close()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(RuntimeError, match="the head has not run"):
        watched.outputs  # noqa: B018
    exported = torch.export.export(model, (X,)).module()
    assert torch.allclose(exported(X), model(X), atol=1e-6)


def test_heads_observe_the_watched_outputs() -> None:
    class Counting(LinearHead):
        def observe(self, outputs: Outputs, labels: Tensor, progress: float) -> None:
            assert not torch.is_grad_enabled()
            self.observed = (outputs.features.detach().sum(), labels, progress)

    model = Net()
    head = swap_head(model, Counting)
    watched = watch(model)
    model(X)
    with torch.no_grad():
        head.observe(watched.outputs, Y, 0.5)
    assert head.observed[2] == 0.5
    assert torch.equal(head.observed[0], watched.outputs.features.sum())


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


def test_models_that_cannot_be_watched() -> None:
    with pytest.raises(ValueError, match=r"got Net without one.*swap_head\(model, LinearHead\)"):
        watch(Net())
    model = swapped()
    model.mix = LinearHead(8, 8)  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"one head, got Net with 'mix', 'fc'.*watch\(model.mix\)"):
        watch(model)

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc: nn.Module = LinearHead(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x)[:, -1]  # type: ignore[no-any-return]

    tokens = Tokens()
    watched = watch(tokens)
    tokens(torch.randn(2, 4, 6))
    with pytest.raises(ValueError, match=r"a loss needs features \(N, D\), but the head ran on features \(2, 4, 6\)"):
        watched.outputs  # noqa: B018


def _of_two(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
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
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path: Any) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.spawn(_of_two, args=(port, str(tmp_path)), nprocs=2)

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
