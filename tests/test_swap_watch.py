"""A loss on features in the user's own loop: alone, compiled, checkpointed, on two processes."""

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


def swapped(wanted: Any = ETF) -> Net:
    torch.manual_seed(0)
    model = Net()
    swap_head(model, wanted, generator=torch.Generator().manual_seed(0))
    return model


def batch(x: Tensor = X, y: Tensor = Y) -> Batch:
    return Batch(x, y, torch.arange(len(y)))


def grads(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def by_hand(wanted: Any = ETF) -> dict[str, Tensor]:
    """Gradients of dot regression, with the features taken from the model's own method."""
    model = swapped(wanted)
    DotRegressionLoss()(model.fc.outputs(model.features(X)), batch()).backward()
    return grads(model)


def trained(model: Net, call: Callable[[Tensor], Tensor], seen: WatchedHead) -> dict[str, Tensor]:
    """Gradients after some steps of a loop that calls the model and asks what was seen."""
    for _ in range(3):
        model.zero_grad()
        call(X)
        DotRegressionLoss()(seen.outputs, batch()).backward()
    return grads(model)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(float(g.abs().max()) > 0 for g in expected.values())
    for name, grad in expected.items():
        assert torch.allclose(found[name], grad, atol=1e-6), name


@pytest.mark.parametrize("wanted", [ETF, CosineHead, LinearHead])
def test_gradients_are_those_of_the_model_taken_apart(wanted: Any) -> None:
    model = swapped(wanted)
    assert_same(trained(model, model, watch(model)), by_hand(wanted))


def test_what_is_seen_is_what_the_head_made() -> None:
    model = swapped()
    seen = watch(model)
    logits = model(X)
    outputs = seen.outputs
    assert outputs.head is model.fc
    assert outputs.logits is logits
    assert torch.equal(swapped().fc(outputs.features), logits)
    assert seen.outputs is outputs
    assert torch.equal(CrossEntropyLoss()(outputs, batch()), nn.functional.cross_entropy(logits, Y))
    model(X[:3])
    assert len(seen.outputs.features) == 3


def test_compiled_whole_without_a_break() -> None:
    model = swapped()
    seen = watch(model)
    expected = by_hand()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    found = trained(model, torch.compile(model, backend="aot_eager", fullgraph=True), seen)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    for name, grad in expected.items():
        assert torch.allclose(found[name], grad, atol=1e-5), name


def test_a_compiled_model_can_be_watched_until_it_runs() -> None:
    torch._dynamo.reset()
    model = swapped()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert_same(trained(model, compiled, watch(compiled)), by_hand())
    late = torch.compile(swapped(), backend="eager")
    late(X)
    seen = watch(late)
    late(X)
    with pytest.raises(RuntimeError, match=r"watch it before torch\.compile runs it"):
        seen.outputs  # noqa: B018


def test_checkpointing_the_blocks_or_the_whole() -> None:
    expected = by_hand()
    model = swapped()
    seen = watch(model)
    found = trained(model, lambda x: checkpoint(model, x, use_reentrant=False), seen)
    assert_same(found, expected)
    # The pass that was repeated in backward is not taken for a new one.
    assert torch.equal(seen.outputs.logits, seen.outputs.head.compute_logits(seen.outputs.embedded))
    model = swapped()
    inner = model.mix.forward
    model.mix.forward = lambda x: checkpoint(inner, x, use_reentrant=False)  # type: ignore[method-assign]
    assert_same(trained(model, model, watch(model)), expected)
    model = swapped()
    inner = model.mix.forward
    model.mix.forward = lambda x: checkpoint(inner, x, use_reentrant=True)  # type: ignore[method-assign]
    assert_same(trained(model, model, watch(model)), expected)


def test_reentrant_checkpointing_around_the_head_is_an_error_not_a_zero() -> None:
    model = swapped()
    seen = watch(model)
    checkpoint(model, X.clone().requires_grad_(), use_reentrant=True)
    with pytest.raises(RuntimeError, match=r"ran without gradients.*use_reentrant=False, or leave the head outside"):
        seen.outputs  # noqa: B018


def test_outputs_before_any_pass_and_after_evaluation() -> None:
    model = swapped()
    seen = watch(model)
    with pytest.raises(RuntimeError, match="the model must have run before its outputs are asked for"):
        seen.outputs  # noqa: B018
    with torch.no_grad():
        model(X)
        assert seen.outputs.features.shape == (N, 8)  # measures may ask where nothing is to be learnt
    with pytest.raises(RuntimeError, match="ran without gradients"):
        seen.outputs  # noqa: B018
    model(X)
    seen.clear()
    with pytest.raises(RuntimeError, match="since watch"):
        seen.outputs  # noqa: B018


def test_a_pass_that_did_not_reach_the_head_leaves_nothing_stale() -> None:
    model = swapped()
    seen = watch(model)
    model(X)
    with pytest.raises(RuntimeError, match="expected input"):
        model(X[:, :2])
    with pytest.raises(RuntimeError, match="must have run before"):
        seen.outputs  # noqa: B018


def test_two_views_in_one_pass_and_one_by_one() -> None:
    model = swapped().eval()
    seen, second = watch(model), X.flip(-1)
    logits = model(torch.cat([X, second]))
    pair = seen.halves()
    assert isinstance(pair.second_view, Outputs)
    assert torch.equal(torch.cat([pair.logits, pair.second_view.logits]), logits)
    assert torch.equal(torch.cat([pair.features, pair.second_view.features]), seen.outputs.features)
    model(X)
    first = seen.outputs
    model(second)
    first.second_view = seen.outputs
    assert torch.allclose(first.logits, pair.logits, atol=1e-6)
    assert torch.allclose(first.second_view.logits, pair.second_view.logits, atol=1e-6)
    model(X[:3])
    with pytest.raises(ValueError, match=r"two views need an even number of samples in one pass, got 3: .*torch.cat"):
        seen.halves()


def test_a_head_that_runs_twice_in_a_pass_is_not_taken_for_one() -> None:
    class Twice(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + super().forward(x.flip(-1))

    model = Twice()
    swap_head(model, ETF, name="fc")
    seen = watch(model)
    model(X)
    with pytest.raises(RuntimeError, match=r"must run once in a forward pass.*watch the head alone, watch\(head\)"):
        seen.outputs  # noqa: B018
    seen.close()
    seen = watch(model.fc)
    model(X)
    with torch.no_grad():
        assert torch.equal(seen.outputs.features, model.features(X.flip(-1)))


def test_parts_called_by_themselves_keep_no_growing_list() -> None:
    model = swapped()
    seen = watch(model)
    for _ in range(5):
        model.fc(model.features(X))
    assert len(seen._record.calls) == 2
    with pytest.raises(RuntimeError, match="parts of the model called by themselves"):
        seen.outputs  # noqa: B018


def test_at_most_one_graph_is_kept() -> None:
    model = swapped()
    seen = watch(model)
    model(X)
    old = weakref.ref(seen.outputs.features)
    kept: list[Any] = []

    def look(*_: Any) -> None:
        gc.collect()
        kept.append(old())

    handle = model.conv.register_forward_pre_hook(look)
    model(X)
    handle.remove()
    assert kept == [None]
    last = weakref.ref(seen.outputs.features)
    seen.clear()
    gc.collect()
    assert last() is None


def test_copies_and_saved_models_are_not_watched() -> None:
    model = swapped()
    seen = watch(model)
    logits = model(X)
    outputs = seen.outputs
    averaged = AveragedModel(model)
    for other in (copy.deepcopy(model), averaged, pickle.loads(pickle.dumps(model))):
        other(X[:2])
        assert all(not hook.record.calls for m in other.modules() for hook in m._forward_hooks.values())
    assert seen.outputs is outputs
    assert outputs.logits is logits
    again = copy.deepcopy(model)
    fresh = watch(again)
    again(X[:2])
    assert len(fresh.outputs.features) == 2
    assert len(seen.outputs.features) == N
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    assert torch.load(file, weights_only=True).keys() == swapped().state_dict().keys()


def test_closing_leaves_the_model_as_it_was_and_exportable() -> None:
    model = swapped().eval()
    seen = watch(model)
    model(X)
    seen.close()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(RuntimeError, match="must have run"):
        seen.outputs  # noqa: B018
    exported = torch.export.export(model, (X,)).module()
    assert torch.allclose(exported(X), model(X), atol=1e-6)


def test_heads_learn_from_what_was_seen() -> None:
    class Counting(LinearHead):
        def observe(self, outputs: Outputs, labels: Tensor, progress: float) -> None:
            assert not torch.is_grad_enabled()
            self.heard = (outputs.features.detach().sum(), labels, progress)

    model = Net()
    head = swap_head(model, Counting)
    seen = watch(model)
    model(X)
    with torch.no_grad():
        head.observe(seen.outputs, Y, 0.5)
    assert head.heard[2] == 0.5
    assert torch.equal(head.heard[0], seen.outputs.features.sum())


def test_half_precision_models_and_autocast() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        model = swapped(spec(ETFHead, projection=True, scale=LEARNED)).to(dtype)
        seen = watch(model)
        model(X.to(dtype))
        loss = DotRegressionLoss()(seen.outputs, batch()) + CrossEntropyLoss()(seen.outputs, batch())
        loss.backward()
        assert loss.dtype == torch.float32
        assert all(torch.isfinite(p.grad).all() and p.grad.dtype == dtype for p in model.parameters())
    model = swapped()
    seen = watch(model)
    with torch.autocast("cpu", torch.bfloat16):
        model(X)
        loss = DotRegressionLoss()(seen.outputs, batch())
    assert loss.dtype == torch.float32
    loss.backward()
    assert model.conv.weight.grad is not None


def test_models_that_cannot_be_watched() -> None:
    with pytest.raises(ValueError, match=r"must hold a head of nc_tools to be watched.*swap_head\(model, LinearHead\)"):
        watch(Net())
    model = swapped()
    model.mix = LinearHead(8, 8)  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"must hold one head to be watched, but has 'mix', 'fc'.*watch\(model.mix\)"):
        watch(model)

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc: nn.Module = LinearHead(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x)[:, -1]  # type: ignore[no-any-return]

    tokens = Tokens()
    seen = watch(tokens)
    tokens(torch.randn(2, 4, 6))
    with pytest.raises(ValueError, match=r"a loss needs features \(N, D\), but the head scored shape \(2, 4, 6\)"):
        seen.outputs  # noqa: B018


def _of_two(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    mine = slice(rank * N // 2, (rank + 1) * N // 2)
    x, y = X[mine], Y[mine]

    def gradients(wanted: Any, wrap: Callable[[nn.Module], nn.Module], views: int, *, tie: bool) -> dict[str, Tensor]:
        model = swapped(wanted).eval()  # batch statistics would differ between one process and two
        seen, wrapped = watch(model), wrap(model)
        for _ in range(2):
            model.zero_grad()
            logits = wrapped(torch.cat([x] * views))
            outputs = seen.outputs if views == 1 else seen.halves()
            loss = DotRegressionLoss()(outputs if outputs.second_view is None else outputs.second_view, batch(x, y))
            (loss + 0 * logits.sum() if tie else loss).backward()
        return grads(model)

    ddp = DistributedDataParallel
    found = {
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
    with pytest.raises(ValueError, match="must be swapped before the model or a part of it is wrapped"):
        swap_head(ddp(swapped()), ETFHead)
    seen = watch(whole := ddp(swapped()))
    whole(x)
    assert len(seen.outputs.features) == N // 2
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(tmp_path: Any) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.spawn(_of_two, args=(port, str(tmp_path)), nprocs=2)

    def alone(wanted: Any) -> dict[str, Tensor]:
        model = swapped(wanted).eval()
        DotRegressionLoss()(model.fc.outputs(model.features(X)), batch()).backward()
        return grads(model)

    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for case in ("plain", "views", "compiled"):
            assert_same(found[case], alone(ETF))
        assert not found["bias"].pop("fc.bias").any()
        assert_same(found["bias"], alone(LinearHead))
