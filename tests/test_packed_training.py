"""Heads that train side by side get the same weights as in trainings of their own."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from support.packs import HEADS, LOSSES, D, K, features, make_member

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.features import FeatureLoader
from nc_tools.heads import (
    ETFHead,
    FrozenRandomHead,
    LinearHead,
    NearestETFHead,
    PreallocatedHead,
    RBFHead,
    SphericalCodeHead,
    TwoSpaceHead,
)
from nc_tools.losses import CrossEntropyLoss, LogitAdjustedLoss
from nc_tools.models.classifier import Classifier
from nc_tools.specs import spec
from nc_tools.training import NonFiniteLossError, OptimConfig, SharpnessAware, TrainConfig, fit
from nc_tools.training.packed import Pack, PackMember, fit_pack, pack_key, stacked_losses, why_not_packed
from nc_tools.training.packed.head_kinds import head_kind
from nc_tools.training.packed.stream_product import SharedRows, stacked_product

FOUR_EPOCHS = TrainConfig(epochs=4, batch_size=16)  # 24 steps of 15 samples
ADAMW = spec(torch.optim.AdamW)


def alone(members, training=FOUR_EPOCHS):
    """Train copies of the members one by one; return their models and what was reported after each epoch."""
    models, reports = [], []
    for member in members:
        model, loss = copy.deepcopy(member.model), copy.deepcopy(member.loss)
        own = []
        fit(model, loss, member.batches, training, member.optim, epoch_end=lambda _, v, __, own=own: own.append(v))
        models.append(model)
        reports.append(own)
    return models, reports


def together(members, training=FOUR_EPOCHS):
    reports = [[] for _ in members]

    def note(_, pack, values):
        for member, own in zip(pack.members, values, strict=True):
            reports[members.index(member)].append(own)

    return fit_pack(members, training, epoch_end=note), reports


def assert_same(members, models, tolerance=1e-10):
    for member, model in zip(members, models, strict=True):
        for (name, mine), theirs in zip(member.model.state_dict().items(), model.state_dict().values(), strict=True):
            assert mine.shape == theirs.shape, name
            assert (mine - theirs).abs().max() <= tolerance, (type(model.head).__name__, name)


def assert_learned(members, models):
    """The comparison would be empty if nothing had moved."""
    for member, before in zip(members, models, strict=True):
        moved = [not torch.equal(a, b) for a, b in zip(member.model.parameters(), before.parameters(), strict=True)]
        assert any(moved), type(before.head).__name__


OPTIMS = {
    "sgd": OptimConfig(lr=0.05, weight_decay=5e-4),
    "sgd, everything decays": OptimConfig(lr=0.05, weight_decay=5e-3, decay_norm_and_bias=True, warmup=0.3),
    "nesterov": OptimConfig(lr=0.02, optimizer=spec(torch.optim.SGD, momentum=0.9, nesterov=True)),
    "adamw": OptimConfig(lr=0.01, weight_decay=0.1, optimizer=ADAMW, head_lr_ratio=2.0),
    "clipped": OptimConfig(lr=0.1, clip_norm=0.2, schedule="step"),
    "no fused kernel": OptimConfig(lr=0.001, optimizer=spec(torch.optim.RMSprop)),
}


@pytest.mark.parametrize("head", HEADS)
def test_every_head_trains_as_alone(head):
    """Members of different seeds, orders, rates, weight decays and losses, in float64, after 24 steps."""
    loaders = {}
    members = [
        make_member(head, loss, seed=seed, loaders=loaders, optim=OptimConfig(lr=lr, weight_decay=wd))
        for loss, seed, lr, wd in [("la", 0, 0.05, 5e-4), ("ce", 1, 0.02, 0.0), ("ce", 0, 0.2, 5e-3)]
    ]
    before = [copy.deepcopy(member.model) for member in members]
    models, reports = alone(members)
    results, mine = together(members)
    assert [result.error for result in results] == [None] * 3
    assert_same(members, models)
    assert_learned(members, before)
    for own, theirs in zip(mine, reports, strict=True):
        for a, b in zip(own, theirs, strict=True):
            assert a == pytest.approx(b, abs=1e-9)


@pytest.mark.parametrize("head", ["etf, projection", "linear", "nearest etf"])
def test_every_loss_trains_as_alone_beside_all_others(head):
    losses = [name for name in LOSSES if not (head == "linear" and name.startswith("dot regression"))]
    loaders = {}
    members = [make_member(head, loss, seed=i % 2, loaders=loaders) for i, loss in enumerate(losses)]
    before = [copy.deepcopy(member.model) for member in members]
    models, _ = alone(members)
    together(members)
    assert_same(members, models)
    assert_learned(members, before)
    for member, loss in zip(members, losses, strict=True):
        if loss == "elr":
            assert member.loss.targets.abs().sum() > 0


@pytest.mark.parametrize("optim", OPTIMS)
def test_every_optimizer_option_gives_the_same(optim):
    loaders = {}
    members = [
        make_member(head, loss, seed=seed, loaders=loaders, optim=OPTIMS[optim])
        for head, loss, seed in [("etf, projection", "la", 0), ("etf, projection", "dot regression", 1)]
    ]
    models, _ = alone(members)
    together(members)
    assert_same(members, models)


def test_float32_agrees_to_its_last_digits():
    members = [make_member("linear", loss, double=False) for loss in ("ce", "la", "gce")]
    models, _ = alone(members)
    together(members)
    assert_same(members, models, tolerance=1e-5)


def test_half_precision_features_train_as_alone():
    data = features(torch.float16)
    members = [make_member("cosine", loss, data=data) for loss in ("ce", "la")]
    models, _ = alone(members)
    together(members)
    assert_same(members, models)


def test_a_member_that_diverges_leaves_without_hurting_the_others():
    loaders = {}
    wild = OptimConfig(lr=1e308, weight_decay=0.0)
    members = [
        make_member("linear", "ce", loaders=loaders),
        make_member("linear", "ce", loaders=loaders, optim=wild),
        make_member("linear", "la", seed=1, loaders=loaders),
        make_member("linear", "gce", loaders=loaders),
    ]
    others = [members[0], members[2], members[3]]
    models, _ = alone(others)
    results, reports = together(members)
    assert [result.error is None for result in results] == [True, False, True, True]
    assert isinstance(results[1].error, NonFiniteLossError)
    with pytest.raises(NonFiniteLossError) as error:
        alone([make_member("linear", "ce", optim=wild)])
    assert str(results[1].error) == str(error.value)
    assert [len(own) for own in reports] == [4, 0, 4, 4]
    assert_same(others, models)


def test_a_pack_whose_members_all_diverge_ends():
    wild = OptimConfig(lr=1e308)
    results = fit_pack([make_member("linear", "ce", optim=wild) for _ in range(2)], FOUR_EPOCHS)
    assert all(result.error is not None for result in results)


def test_losses_with_other_class_counts_are_not_mixed_up():
    loaders = {}
    members = [make_member("linear", "la", loaders=loaders) for _ in range(3)]
    members[1] = PackMember(
        members[1].model, LogitAdjustedLoss([1, 2, 3, 4, 90]).double(), members[1].batches, members[1].optim
    )
    models, _ = alone(members)
    together(members)
    assert_same(members, models)
    assert not torch.allclose(members[0].model.head.bias, members[1].model.head.bias)
    assert torch.allclose(members[0].model.head.bias, members[2].model.head.bias, atol=1e-12)


@pytest.mark.parametrize("head", ["linear", "etf, projection"])
def test_features_to_which_the_backbone_was_applied_before_train_as_alone(head):
    raw = [make_member(head, loss) for loss in ("la", "dot regression" if head != "linear" else "ce")]
    models, _ = alone(raw)
    data, scaling = features(), raw[0].model.backbone
    scaled = replace(data, features=scaling(data.features.double()).float())
    loader = FeatureLoader(scaled, raw[0].batches._indices, batch_size=16, seed=0)
    members = [PackMember(m.model, m.loss, loader, m.optim, applied=True) for m in raw]
    together(members)
    assert_same(members, models, tolerance=1e-5)  # the scaled features are stored in float32


def test_the_logits_of_a_pack_are_those_of_its_members_in_the_given_order():
    loaders = {}
    members = [make_member("cosine", "ce", seed=seed, loaders=loaders) for seed in (0, 1, 0, 1, 2)]
    pack = Pack(members)
    inputs = {seed: torch.randn(7, D, generator=torch.Generator().manual_seed(seed)) for seed in range(3)}
    logits = pack.logits([inputs[0], inputs[1], inputs[2]])
    for seed, member, own in zip((0, 1, 0, 1, 2), members, logits, strict=True):
        assert torch.allclose(own, member.model(inputs[seed].double()), atol=1e-12)


def test_members_share_a_stream_only_if_data_and_scaling_are_the_same():
    loaders = {}
    assert len(Pack([make_member("linear", "ce", seed=s, loaders=loaders) for s in (0, 0, 1)]).streams) == 2


def test_a_stop_signal_ends_the_pack():
    stop = StopSignal()
    stop.requested = True
    with pytest.raises(Killed, match="after step 1 of 24"):
        fit_pack([make_member("linear", "ce")], FOUR_EPOCHS, stop=stop)


def test_what_cannot_be_packed_says_why():
    member = make_member("linear", "ce")

    def changed(model=member.model, loss=member.loss, optim=member.optim):
        return PackMember(model, loss, member.batches, optim)

    class Doubled(LinearHead):
        def compute_logits(self, embedded):
            return 2 * super().compute_logits(embedded)

    class Watching(LinearHead):
        def observe(self, *_):
            self.steps = 1

    frozen = LinearHead(D, K)
    frozen.bias.requires_grad_(False)
    trained = Classifier(torch.nn.Linear(D, D), LinearHead(D, K))
    reasons = {
        "its backbone is trained": (changed(model=trained), FOUR_EPOCHS),
        "RBFHead cannot be stacked": (changed(model=Classifier(torch.nn.Identity(), RBFHead(D, K))), FOUR_EPOCHS),
        "Doubled cannot be stacked": (changed(model=Classifier(torch.nn.Identity(), Doubled(D, K))), FOUR_EPOCHS),
        "Watching cannot be stacked": (changed(model=Classifier(torch.nn.Identity(), Watching(D, K))), FOUR_EPOCHS),
        "LinearHead cannot be stacked": (changed(model=Classifier(torch.nn.Identity(), frozen)), FOUR_EPOCHS),
        "sharpness-aware": (changed(optim=OptimConfig(sam=SharpnessAware(0.05))), FOUR_EPOCHS),
        "weight average": (member, TrainConfig(epochs=1, ema_decay=0.9)),
    }
    assert why_not_packed(member, FOUR_EPOCHS) is None
    for reason, (other, training) in reasons.items():
        assert reason in why_not_packed(other, training)
        with pytest.raises(ValueError, match=reason):
            fit_pack([other], training)


@pytest.mark.parametrize("large", [10**6, 100, 1])  # logits: no block has a call of its own, some, and all
@pytest.mark.slow
def test_heads_of_all_kinds_train_side_by_side_as_alone(large, monkeypatch):
    """Kinds, seeds, losses and rates in an order that groups none of them."""
    monkeypatch.setattr(stacked_losses, "_LARGE", large)
    loaders = {}
    losses = ["ce", "la", "elr", "gce", "ldam", "focal", "sce"]
    kinds = [*HEADS, *reversed(HEADS)]
    members = [
        make_member(
            head, losses[i % len(losses)], seed=i % 3, loaders=loaders, optim=OptimConfig(lr=(0.05, 0.02)[i % 2])
        )
        for i, head in enumerate(kinds)
    ]
    before = [copy.deepcopy(member.model) for member in members]
    models, reports = alone(members)
    _, mine = together(members)
    assert_same(members, models)
    assert_learned(members, before)
    for own, theirs in zip(mine, reports, strict=True):
        for a, b in zip(own, theirs, strict=True):
            assert a == pytest.approx(b, abs=1e-9)


def test_a_kind_whose_losses_read_no_logits_has_no_accuracy_and_no_gradient_of_its_scale():
    loaders = {}
    members = [make_member("linear", "ce", loaders=loaders), make_member("simplex", "dot regression", loaders=loaders)]
    models, _ = alone(members)
    _, ((linear, *_), (simplex, *_)) = together(members)
    assert_same(members, models)
    assert "train/accuracy" in linear
    assert "train/accuracy" not in simplex
    assert members[1].model.head.scale_of.raw.grad is None


def test_members_with_other_optimizers_or_classes_are_refused():
    adamw = make_member("linear", "ce", optim=OptimConfig(lr=0.05, optimizer=ADAMW))
    assert pack_key(make_member("linear", "ce")) == pack_key(make_member("cosine", "la"))
    with pytest.raises(ValueError, match="the same number of features, classes and steps, and the same optimizer"):
        Pack([make_member("linear", "ce"), adamw])


def test_a_model_without_backbone_parameters_can_be_trained_alone():
    member = make_member("linear", "ce", double=False)
    fitted = fit(
        Classifier(torch.nn.Identity(), LinearHead(D, K)), CrossEntropyLoss(), member.batches, FOUR_EPOCHS, member.optim
    )
    assert math.isfinite(float(fitted.model.head.weight.detach().sum()))


def test_heads_whose_buffers_or_features_differ_are_not_of_one_kind():
    kinds = [head_kind(cls(12, 5)) for cls in (ETFHead, NearestETFHead, FrozenRandomHead, SphericalCodeHead)]
    assert None not in kinds
    assert kinds[0] != kinds[1]
    assert kinds[0] == kinds[2] == head_kind(ETFHead(12, 5, frame_seed=2))  # whatever the frame, and its name
    assert kinds[0] != kinds[3]  # a spherical code has another width
    assert kinds[0] != head_kind(ETFHead(12, 5, projection=True))
    assert head_kind(TwoSpaceHead(12, 5)) is None
    assert head_kind(PreallocatedHead(12, 5)) is None


def test_the_seconds_of_a_pack_are_shared_by_what_the_heads_of_a_kind_take():
    loaders = {}
    names = ["linear", "etf, projection", "linear"]
    members = [make_member(head, "ce", loaders=loaders) for head in names]
    pack = Pack(members)
    assert pack.shares([1.0, 4.0]) == [0.5, 4.0, 0.5]
    seconds = [result.seconds for result in fit_pack(members, FOUR_EPOCHS)]
    assert seconds[0] == seconds[2] > 0
    assert seconds[1] > 0


@pytest.mark.parametrize(("classes", "sizes"), [(7, [1]), (7, [40, 3]), (70, [9, 1]), (600, [2])])
def test_products_of_many_heads_are_those_of_each_head(classes, sizes):
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(11, 5, generator=generator, dtype=torch.float64) for _ in sizes]
    weight = torch.randn(sum(sizes), classes, 5, generator=generator, dtype=torch.float64).requires_grad_()
    rows = torch.cat([part.expand(size, *part.shape) for part, size in zip(parts, sizes, strict=True)])
    products, expected = stacked_product(SharedRows(parts, sizes), weight), torch.einsum("mbd,mkd->mbk", rows, weight)
    assert torch.allclose(products, expected, rtol=0, atol=1e-12)
    pull = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad((values * pull).sum(), weight)[0] for values in (products, expected))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
