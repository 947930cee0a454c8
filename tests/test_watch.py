"""A loss on watched features in the user's own loop: plain, compiled, checkpointed, on two processes."""

import copy
import gc
import io
import pickle
import weakref
from typing import Any

import pytest
import torch
from support.watched_net import ETF, N, Net, X, Y, assert_same, batch, by_hand, swapped, train
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from nc_tools.heads import CosineHead, LinearHead
from nc_tools.losses import CrossEntropyLoss
from nc_tools.records import Outputs
from nc_tools.surgery import swap_head, watch


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
    torch.testing.assert_close(CrossEntropyLoss()(outputs, batch()), nn.functional.cross_entropy(logits, Y))
    model(X[:3])
    assert len(watched.outputs.features) == 3


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


@pytest.mark.slow
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


def test_models_that_cannot_be_watched() -> None:
    with pytest.raises(ValueError, match=r"got Net without one.*swap_head\(model, LinearHead\)"):
        watch(Net())
    model = swapped()
    model.mix = LinearHead(8, 8)  # type: ignore[assignment]
    watched = watch(model)
    model(X)
    with pytest.raises(RuntimeError, match=r"but 'mix' and 'fc' ran: watch one of them.*get_submodule\('mix'\)\)"):
        watched.outputs  # noqa: B018
    one = watch(model.get_submodule("mix"))
    model(X)
    assert one.outputs.head is model.mix

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc: nn.Module = LinearHead(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x)[:, -1]  # type: ignore[no-any-return]

    tokens = Tokens()
    watched = watch(tokens)
    tokens(torch.randn(2, 4, 6))
    with pytest.raises(ValueError, match=r"each sample, but the head ran on features \(2, 4, 6\): use watched"):
        watched.outputs  # noqa: B018
