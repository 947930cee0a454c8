"""Trainings side by side give the numbers of separate trainings, and none of them disturbs another."""

import math
from dataclasses import replace

import pytest
import torch
from support.side_by_side import HEADS, LOSSES, Images, K, Run, both_ways, largest_difference
from torch import nn

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.data.mixing import Mixup
from nc_tools.heads import LinearHead
from nc_tools.losses import CrossEntropyLoss, SupConLoss
from nc_tools.models import CIFARResNet, ConvNet
from nc_tools.models.classifier import Classifier
from nc_tools.specs import spec
from nc_tools.training import NonFiniteLossError, OptimConfig, SharpnessAware, TrainConfig, fit
from nc_tools.training.backbone_stack import BackboneStack, backbone_kind
from nc_tools.training.checkpoint import load_checkpoint
from nc_tools.training.run_side_by_side import run_side_by_side

pytestmark = pytest.mark.slow

OPTIMS = {
    "sgd": OptimConfig(lr=0.1),
    "high rate": OptimConfig(lr=1.0, weight_decay=5e-3, warmup=0.3),
    "everything decays": OptimConfig(lr=0.1, weight_decay=5e-2, decay_norm_and_bias=True),
    "nesterov": OptimConfig(lr=0.03, optimizer=spec(torch.optim.SGD, momentum=0.9, nesterov=True)),
    "no momentum": OptimConfig(lr=0.1, optimizer=spec(torch.optim.SGD)),
    "adamw": OptimConfig(lr=0.01, weight_decay=0.1, optimizer=spec(torch.optim.AdamW), head_lr_ratio=2.0),
    "adam, amsgrad": OptimConfig(lr=0.01, optimizer=spec(torch.optim.Adam, amsgrad=True)),
    "rmsprop": OptimConfig(lr=0.003, optimizer=spec(torch.optim.RMSprop)),
    "clipped": OptimConfig(lr=0.3, clip_norm=0.2, schedule="step", milestones=(0.3, 0.6)),
    "rates by depth": OptimConfig(lr=0.1, layer_decay=0.7),
    "head first": OptimConfig(lr=0.1, head_first=0.3),
}


def assert_same(runs, tolerance=1e-10):
    alone, together, reasons = both_ways(runs)
    for (end_a, state_a, reports_a), (end_b, state_b, reports_b) in zip(alone, together, strict=True):
        assert (end_a.error, end_b.error) == (None, None)
        assert largest_difference(state_a, state_b) <= tolerance
        assert [epoch for epoch, _ in reports_a] == [epoch for epoch, _ in reports_b] == [1, 2, 3, 4, 5]
        for (_, one), (_, other) in zip(reports_a, reports_b, strict=True):
            assert one == pytest.approx(other, abs=max(tolerance, 1e-12) * 10)
    return reasons


def passes_of(monkeypatch):
    """Note how many passes each stack computes at once."""
    counts, plain = [], BackboneStack.compute
    monkeypatch.setattr(BackboneStack, "compute", lambda self, group: (counts.append(len(group)), plain(self, group)))
    return counts


@pytest.mark.parametrize("optim", OPTIMS)
def test_every_optimizer_option_gives_the_same(optim, monkeypatch):
    """In float64, after 25 steps, with batch normalization; heads, losses, seeds and rates differ."""
    counts = passes_of(monkeypatch)
    how = OPTIMS[optim]
    runs = [
        Run("linear", "ce", seed=0, optim=how),
        Run("etf", "la", seed=1, optim=replace(how, lr=how.lr / 3)),
        Run("cosine", "la", seed=0, optim=replace(how, weight_decay=0.0)),
    ]
    before = {name: value.clone() for name, value in started(runs[0]).items()}
    assert assert_same(runs) == []
    assert counts == [3] * 25
    assert largest_difference(before, runs[0].model.state_dict()) > 0.01
    assert int(runs[0].model.backbone.layers[1].num_batches_tracked) == 25 - (8 if how.head_first else 0)


def started(run):
    next(run.steps())
    return run.model.state_dict()


@pytest.mark.parametrize("head", HEADS)
def test_every_head_and_loss_gives_the_same(head, monkeypatch):
    counts = passes_of(monkeypatch)
    losses = [loss for loss in LOSSES if loss != "dr" or head in ("etf", "observing")]
    assert assert_same([Run(head, loss, seed=i) for i, loss in enumerate(losses)]) == []
    assert set(counts) == {len(losses)}


def test_runs_with_other_optimizers_share_a_pass(monkeypatch):
    counts = passes_of(monkeypatch)
    assert assert_same([Run(optim=OPTIMS[name]) for name in ("sgd", "adamw", "clipped")]) == []
    assert set(counts) == {3}


@pytest.mark.parametrize(
    "training",
    [TrainConfig(epochs=5, ema_decay=0.9), TrainConfig(epochs=5, mixing=Mixup(until=0.5))],
    ids=["weight average", "mixed"],
)
def test_weight_averages_and_mixed_batches_give_the_same(training):
    assert assert_same([Run(seed=seed, training=training) for seed in (0, 1)]) == []


def test_batches_of_two_shapes_are_two_passes(monkeypatch):
    counts = passes_of(monkeypatch)
    assert assert_same([Run(seed=s, batches=Images(s, size=size)) for s, size in enumerate((8, 8, 6, 6, 6, 4))]) == []
    assert counts == [2, 3] * 25


def test_float32_is_equal_up_to_rounding():
    runs = [Run(seed=s, batches=Images(s, dtype=torch.float32), optim=OptimConfig(lr=0.03)) for s in (0, 1)]
    assert_same(runs, tolerance=1e-4)


def test_a_residual_network_gives_the_same():
    net = lambda: nn.Sequential(CIFARResNet(8, in_channels=1), nn.Linear(64, 12))  # noqa: E731
    assert assert_same([Run(seed=s, backbone=net) for s in (0, 1)], tolerance=1e-9) == []


@pytest.mark.parametrize("optim", ["sgd", "adamw", "rmsprop"])
def test_gradients_of_another_memory_layout_give_the_same(optim):
    """Fused kernels read the numbers of a gradient in the order of memory, whatever its strides say."""

    class Transposed(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(36, 12) / 6)

        def forward(self, x):
            return x.flatten(1) @ self.weight

    def channels_last():
        return ConvNet(1, 6, width=3).to(memory_format=torch.channels_last)

    for backbone in (Transposed, channels_last):
        assert assert_same([Run(seed=s, backbone=backbone, optim=OPTIMS[optim]) for s in (0, 1)]) == []


def test_a_backbone_keeps_its_memory_layout_and_its_momentum_when_it_is_stacked(tmp_path):
    """A run that was stopped alone goes on in a pack with the optimizer's state of before."""

    def channels_last():
        return ConvNet(1, 6, width=3).to(memory_format=torch.channels_last)

    runs = [Run(seed=seed, backbone=channels_last) for seed in (0, 1)]
    alone, _, _ = both_ways(runs)
    stop, paths = StopSignal(), [tmp_path / f"{run.seed}.pt" for run in runs]
    plain = Run.note
    for run, path in zip(runs, paths, strict=True):
        stop.requested = False
        run.note = lambda epoch, _v, _m: setattr(stop, "requested", epoch == 2)
        run_side_by_side([run.steps(checkpoint=path, stop=stop)])
        run.note = plain.__get__(run)
    steps = [run.steps(checkpoint=path, resume=True) for run, path in zip(runs, paths, strict=True)]
    run_side_by_side(steps)
    for run, (_, state, _) in zip(runs, alone, strict=True):
        assert largest_difference(run.state(), state) <= 1e-10
        weight = run.model.backbone.layers[3].weight
        assert not weight.is_contiguous()
        assert weight.is_contiguous(memory_format=torch.channels_last)


def test_two_views_give_the_same():
    class TwoViews(Images):
        def epoch(self, epoch, start=0):
            for batch in super().epoch(epoch, start):
                yield replace(batch, second_view=batch.inputs + 0.1)

    LOSSES["contrastive"] = SupConLoss
    try:
        assert assert_same([Run("linear", "contrastive", seed=s, batches=TwoViews(s)) for s in (0, 1)]) == []
    finally:
        del LOSSES["contrastive"]


def test_a_run_that_diverges_leaves_and_the_others_do_not_notice(monkeypatch):
    counts = passes_of(monkeypatch)
    runs = [Run(seed=0), Run(seed=1, batches=Images(1, poison=(1, 2))), Run("etf", "la", seed=2)]
    alone, together, _ = both_ways(runs)
    for number in (0, 2):
        assert largest_difference(alone[number][1], together[number][1]) <= 1e-10
    for ended, _, reports in (alone[1], together[1]):
        assert isinstance(ended.error, NonFiniteLossError)
        assert "at step 7" in str(ended.error)
        assert [epoch for epoch, _ in reports] == [1]
    assert counts == [3] * 10 + [2] * 15


def test_a_run_that_ends_early_leaves():
    runs = [Run(seed=0), Run(seed=1), Run(seed=2)]
    runs[1].note = lambda epoch, values, _model: runs[1].reports.append((epoch, values)) or epoch == 2
    alone, together, _ = both_ways(runs)
    for one, other in zip(alone, together, strict=True):
        assert largest_difference(one[1], other[1]) <= 1e-10
    assert [len(run.reports) for run in runs] == [5, 2, 5]


def test_an_error_of_one_run_is_its_own(monkeypatch):
    class Broken(CrossEntropyLoss):
        def from_logits(self, *_):
            raise RuntimeError("a fault of this loss")

    monkeypatch.setitem(LOSSES, "broken", Broken)
    wide = lambda: nn.Sequential(nn.Flatten(), nn.Linear(5, 12))  # noqa: E731  the images have 36 pixels
    runs = [Run(seed=0), Run(loss="broken", seed=1), Run(seed=2), Run(seed=3, backbone=wide)]
    ended = run_side_by_side([run.steps() for run in runs])
    assert "a fault of this loss" in str(ended[1].error)
    assert "shapes cannot be multiplied" in str(ended[3].error)
    assert [end.error for end in (ended[0], ended[2])] == [None, None]
    for number in (0, 2):
        mine = runs[number].state()
        run_side_by_side([runs[number].steps()])
        assert largest_difference(mine, runs[number].state()) <= 1e-10


def dropped():
    return nn.Sequential(ConvNet(1, 6, width=3), nn.Dropout(0.3))


class Cumulative(nn.Sequential):
    """Batch normalization with a cumulative average reads a counter as a number."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(36, 12), nn.BatchNorm1d(12, momentum=None))


@pytest.mark.parametrize(
    ("backbone", "reason"),
    [
        (dropped, "Sequential draws random numbers, such as those of dropout"),
        (Cumulative, "Cumulative cannot be computed by torch.func.vmap"),
    ],
    ids=["dropout", "cumulative"],
)
def test_a_backbone_that_cannot_be_stacked_is_computed_alone(backbone, reason, monkeypatch):
    """Its numbers are those of separate trainings too: each run has random numbers of its own."""
    counts = passes_of(monkeypatch)
    reasons = assert_same([Run(seed=s, backbone=backbone) for s in (0, 1, 2)])
    assert len(reasons) == 1
    assert reasons[0].startswith(reason)
    assert counts == []


def test_a_batch_that_runs_share_is_not_changed_by_a_backbone(monkeypatch):
    class InPlace(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Flatten(), nn.Linear(36, 12))

        def forward(self, x):
            return super().forward(x.mul_(0.5))

    class Shared(Images):
        def epoch(self, epoch, start=0):
            return iter(self.made[epoch][start:])

    shared, counts = Shared(), passes_of(monkeypatch)
    runs = [Run(head, seed=4, backbone=InPlace) for head in ("linear", "etf", "cosine")]
    alone, _, reasons = both_ways(runs)
    assert reasons == []
    assert set(counts) == {3}  # stacked inputs are copies
    shared.made = [list(Images(4).epoch(epoch)) for epoch in range(5)]
    for run in runs:
        run.batches = shared
    reasons = []
    run_side_by_side([run.steps() for run in runs], on_alone=reasons.append)
    assert reasons == ["InPlace changes its inputs in place"]
    for run, (_, state, _) in zip(runs, alone, strict=True):
        assert largest_difference(run.state(), state) <= 1e-10


def test_sharpness_aware_steps_and_compiled_backbones_are_computed_alone(monkeypatch):
    counts = passes_of(monkeypatch)
    monkeypatch.setattr(torch, "compile", lambda module: module)  # what a compiled module computes is tested elsewhere
    runs = [
        Run(seed=0, optim=OptimConfig(lr=0.1, sam=SharpnessAware(0.05))),
        Run(seed=1, training=TrainConfig(epochs=5, compile=True)),
        Run(seed=2),
        Run(seed=3),
    ]
    reasons = assert_same(runs)
    assert [reason.partition("(")[2].partition(")")[0] for reason in reasons] == ["optim.sam", "training.compile"]
    assert set(counts) == {2}


def test_kinds_differ_by_settings_shapes_hooks_and_what_is_trained():
    one = backbone_kind(ConvNet(1, 6, width=3))
    assert one == backbone_kind(ConvNet(1, 6, width=3))
    hooked, frozen = ConvNet(1, 6, width=3), ConvNet(1, 6, width=3)
    hooked.layers[1].register_forward_hook(lambda *_: None)
    frozen.layers[0].requires_grad_(False)
    others = [ConvNet(1, 6, width=4), frozen, ConvNet(1, 16, width=3), ConvNet(1, 6, width=3).double()]
    assert backbone_kind(hooked) is None
    assert all(backbone_kind(other) != one for other in others)


def test_a_loss_that_does_not_use_the_features_gives_no_gradient(monkeypatch):
    """Alone, parameters without a gradient do not decay; a gradient of zero would let them."""

    class OfWeights(CrossEntropyLoss):
        def compute(self, outputs, _batch):
            return outputs.weight.square().sum()

    monkeypatch.setitem(LOSSES, "of weights", OfWeights)
    runs = [Run(seed=0), Run(loss="of weights", seed=1, optim=OptimConfig(lr=0.1, weight_decay=0.1))]
    assert_same(runs)
    torch.manual_seed(1)
    assert torch.equal(runs[1].model.backbone.layers[0].weight, ConvNet(1, 6, width=3).double().layers[0].weight)


@pytest.mark.parametrize("again", ["together", "alone"])
def test_a_stopped_pack_resumes_together_or_alone_to_the_same_numbers(tmp_path, again):
    runs = [Run("linear", "ce", seed=0), Run("etf", "la", seed=1), Run("cosine", "elr", seed=0)]
    alone, _, _ = both_ways(runs)
    stop, paths = StopSignal(), [tmp_path / f"{number}.pt" for number in range(3)]
    plain, taken = runs[1].batches.epoch, []

    def epoch(number, start=0):
        for batch in plain(number, start):
            taken.append(batch)
            stop.requested = len(taken) == 12
            yield batch

    runs[1].batches.epoch = epoch
    ended = run_side_by_side([r.steps(checkpoint=p, stop=stop) for r, p in zip(runs, paths, strict=True)])
    assert all(isinstance(end.error, Killed) for end in ended)
    assert "after step 12 of 25" in str(ended[1].error)
    sizes = [path.stat().st_size for path in paths]
    assert max(sizes) < 2.5 * min(sizes)  # none of them holds the memory of all
    stored = [load_checkpoint(path) for path in paths]
    assert [state["step"] for state in stored] == [12, 12, 11]  # the last had not begun its next step
    runs[1].batches.epoch = plain
    steps = [r.steps(checkpoint=p, resume=True) for r, p in zip(runs, paths, strict=True)]
    ended = run_side_by_side(steps) if again == "together" else [run_side_by_side([one])[0] for one in steps]
    for run, (_, state, reports) in zip(runs, alone, strict=True):
        assert largest_difference(run.state(), state) <= 1e-10
        assert run.reports[-1][1] == pytest.approx(reports[-1][1], abs=1e-9)


def test_seconds_are_shares(monkeypatch):
    """The seconds of all runs together are at most those of the pack."""
    import time

    runs = [Run(seed=seed) for seed in range(4)]
    started = time.perf_counter()
    ended = run_side_by_side([run.steps() for run in runs])
    took = time.perf_counter() - started
    seconds = [end.value.seconds for end in ended]
    assert 0.2 * took < sum(seconds) <= took
    assert max(seconds) < 3 * min(seconds)


def test_random_numbers_of_the_caller_are_left_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    run_side_by_side([Run(backbone=dropped).steps()])
    torch.manual_seed(5)
    run_side_by_side([])
    assert torch.equal(torch.get_rng_state(), state)


def test_models_can_be_copied_and_saved_while_they_are_views(tmp_path):
    """A state is of one run, and a copied model is no view."""
    import copy

    runs = [Run(seed=seed) for seed in (0, 1)]
    copies = []
    runs[0].note = lambda _e, _v, model: copies.append((copy.deepcopy(model), copy.deepcopy(model.state_dict())))
    run_side_by_side([run.steps() for run in runs])
    model, state = copies[2]
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in state)
    assert not torch.equal(model.head.weight, runs[0].model.head.weight)
    assert isinstance(model, Classifier)
    assert isinstance(model.head, LinearHead)
    assert model.head.num_classes == K
    assert math.isfinite(
        fit(model, CrossEntropyLoss().double(), Images(), TrainConfig(epochs=1), OptimConfig()).seconds
    )
