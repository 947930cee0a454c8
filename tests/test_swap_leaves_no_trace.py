"""Finding and replacing a head changes nothing else in the model, and a refused swap changes nothing at all."""

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support.small_network import Small
from torch import Tensor, nn

from nc_tools import measure
from nc_tools.heads import ETFHead
from nc_tools.specs import spec
from nc_tools.surgery import candidate_layers, channel_axes, find_head, swap_head

PROBES: list[Callable[[nn.Module], Any]] = [
    find_head,
    lambda model: swap_head(model, ETFHead),
    lambda model: candidate_layers(model, torch.randn(2, 3, 8, 8)),
    lambda model: channel_axes(model, torch.randn(2, 3, 8, 8), ["conv"]),
    lambda model: measure(model, [(torch.randn(10, 3, 8, 8), torch.arange(10) % 5)]),
]


class Moving(Small):
    """Moves in eval mode too: a buffer, one that gets its shape at the first batch, a counter, a list, a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("last", torch.zeros(0))
        self.register_buffer("newest", torch.zeros(1))
        self.plain = torch.zeros(1)
        self.calls, self.sizes, self.cache = 0, [], {}
        self.switched = "never"

    def train(self, mode: bool = True) -> "Moving":
        self.switched = f"to {mode}"
        return super().train(mode)

    def forward(self, x: Tensor) -> Any:
        self.mean.add_(1)
        self.last.resize_(len(x)).fill_(7)
        self.newest = self.newest + 1
        self.plain.data.add_(1)
        self.calls += 1
        self.sizes.append(len(x))
        self.cache["x"] = x
        self.late = x
        random.random(), np.random.rand(), torch.rand(1)
        return super().forward(x)


def state(model: nn.Module) -> dict[str, Any]:
    """Return everything that the modules of a model hold, except the head and PyTorch's own dictionaries."""
    held: dict[str, Any] = {}
    for name, module in model.named_modules():
        for key, value in {**vars(module), **module._parameters, **module._buffers}.items():
            if not key.startswith("_") and not name.startswith("out"):
                held[f"{name}.{key}"] = copy.deepcopy(value)
    return held


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for key, value in a.items():
        same = torch.equal(value, b[key]) if isinstance(value, Tensor) else value == b[key]
        assert same, key


@pytest.mark.parametrize("probe", PROBES, ids=["find", "swap", "candidates", "axes", "measure"])
def test_what_moves_in_eval_mode_is_as_before(probe: Callable[[nn.Module], Any]) -> None:
    model = Moving()
    model.norm.eval()
    model.switched = "never"
    objects = {name: id(buffer) for name, buffer in model.named_buffers()}
    before, generators = state(model), (random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state())
    probe(model)
    if probe not in PROBES[2:]:  # the other probes draw the images of this test
        assert random.getstate() == generators[0]
        assert np.array_equal(np.random.get_state()[1], generators[1])
        assert torch.equal(torch.get_rng_state(), generators[2])
    assert_same(state(model), before)
    assert {name: id(buffer) for name, buffer in model.named_buffers() if name in objects} == objects


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*reduce_range will be deprecated:UserWarning")
def test_observers_of_quantization_aware_training_do_not_move() -> None:
    from torch.ao.quantization import get_default_qat_qconfig, prepare_qat

    model = Small().train()
    model.qconfig = get_default_qat_qconfig("fbgemm")  # type: ignore[assignment]
    prepare_qat(model, inplace=True)
    observers = [name for name, _ in model.named_buffers() if name.endswith("min_val")]
    assert observers
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    path = find_head(model)
    swap_head(model, ETFHead)
    after = dict(model.named_buffers())
    assert all(torch.equal(after[name], value) for name, value in before.items() if not name.startswith(path))
    model(torch.randn(4, 3, 8, 8))
    assert any(not torch.equal(after[name], before[name]) for name in observers if not name.startswith(path))


def test_merging_weights_in_eval_mode_is_not_triggered() -> None:
    """As the first LoRA package does: a switch of the mode changes weights, which a flag set back would not undo."""

    class Merging(nn.Linear):
        merged = False

        def train(self, mode: bool = True) -> "Merging":
            if mode == self.merged:
                self.weight.data.mul_(2 if self.merged else 0.5)
                self.merged = not self.merged
            return super().train(mode)

    model = nn.Sequential(Merging(8, 6), nn.ReLU(), nn.Linear(6, 3)).train()
    weight = model[0].weight.detach().clone()
    swap_head(model, ETFHead)
    assert torch.equal(model[0].weight, weight)
    assert model[0].training


def test_lazy_layers_are_not_sized_by_a_trial_input() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(7), nn.ReLU(), nn.Linear(7, 5))
    for attempt in (find_head, lambda m: swap_head(m, ETFHead)):
        with pytest.raises(ValueError, match=r"size from the first batch: '2' \(LazyLinear\). Run the model once on a"):
            attempt(model)
    assert isinstance(model[2], nn.LazyLinear)
    batch = torch.randn(2, 3, 10, 10)
    model(batch)
    assert swap_head(model, ETFHead, example=batch).feature_dim == 7
    assert model[2].in_features == 4 * 8 * 8
    lazy = nn.Sequential(nn.Linear(4, 6), nn.LazyLinear(5))
    with pytest.raises(ValueError, match=r"'1' \(LazyLinear\)"):
        swap_head(lazy, ETFHead, name="1")
    other = nn.Sequential(nn.LazyLinear(6), nn.Linear(6, 5))
    assert swap_head(other, ETFHead, name="1").feature_dim == 6
    assert isinstance(other[0], nn.LazyLinear)


def test_a_refused_swap_leaves_the_model_as_it_was() -> None:
    class Fixed(Moving):
        """Its number of classes cannot be set, and its logits are not the new head's output."""

        def __init__(self) -> None:
            super().__init__()
            self.num_labels = 5

        def forward(self, x: Tensor) -> Any:
            logits = super().forward(x)
            return logits if isinstance(self.out, nn.Linear) else logits * 2

    class ReadOnly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_labels, self.body = 5, Inner()

        def forward(self, x: Tensor) -> Any:
            return self.body(x)

    class Inner(Small):
        @property
        def num_classes(self) -> int:
            return 5

    for model, error in ((Fixed(), ValueError), (ReadOnly(), AttributeError)):
        modules, before = dict(model.named_modules()), state(model)
        with pytest.raises(error):
            swap_head(model, spec(ETFHead, projection=True), num_classes=7)
        assert dict(model.named_modules()) == modules
        assert_same(state(model), before)
        assert model.num_labels == 5


class Several(Small):
    """Two layers whose outputs are returned together, as one of several forms."""

    def __init__(self, form: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.other, self.form = nn.Linear(12, 9), form

    def forward(self, x: Tensor) -> Any:
        features = self.features(x)
        return self.form(self.out(features), self.other(features), features)


@pytest.mark.parametrize(
    "form", [lambda a, b, _: (a, b), lambda a, b, h: [a, {"x": (h, b)}]], ids=["a tuple", "nested"]
)
def test_several_tensors_that_could_be_the_logits_are_named_and_name_decides(form: Any) -> None:
    with pytest.raises(
        ValueError, match=r"several tensors that could be the logits: the outputs of 'out' \(2, 5\), 'other' \(2, 9\)"
    ):
        swap_head(Several(form), ETFHead)
    for name, classes in (("out", 5), ("other", 9)):
        model = Several(form)
        assert swap_head(model, ETFHead, name=name).num_classes == classes


@pytest.mark.parametrize(
    "form", [lambda a, _, h: (h, a), lambda a, *_: {"scores": a}], ids=["after features", "under another name"]
)
def test_logits_that_do_not_come_first_are_named(form: Any) -> None:
    with pytest.raises(ValueError, match=r"returns the outputs of 'out' \(2, 5\) too: pass name="):
        swap_head(Several(form), ETFHead)
    model = Several(form)
    assert swap_head(model, ETFHead, name="out") is model.out


def test_an_item_named_logits_needs_no_name() -> None:
    model = Several(lambda a, b, _: {"other": b, "logits": a})
    assert find_head(model) == "out"
