"""Mixup and CutMix: images, shares and losses against pixel-by-pixel references."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from support.small_training import Batches, small

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.data import CutMix, MixedBatches, Mixup
from nc_tools.data.mixing import MixingDraw, draw_mixing, mix
from nc_tools.heads import CosineHead, ETFHead, LinearHead, NearestETFHead
from nc_tools.losses import (
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    DeferredReweightingLoss,
    DotRegressionLoss,
    EarlyLearningLoss,
    FeatureDecayLoss,
    PickAllLabelLoss,
    SupConLoss,
    WeightedSumLoss,
    term,
)
from nc_tools.records import Batch
from nc_tools.training import OptimConfig, TrainConfig, batch_terms, fit
from nc_tools.training.mixed_loss import check_mixing


def images(count=5, height=4, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Batch(torch.randn(count, 2, height, width, generator=generator), torch.arange(count) % 3,
                 100 + torch.arange(count))  # fmt: skip


def mixed_loss(loss, outputs, batch):
    """The loss of a mixed batch, for a loss of a single term."""
    (value,) = batch_terms(loss, outputs, batch).values()
    return value


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_mixup_is_the_mean_written_out(share):
    batch = images()
    mixed = mix(batch, Mixup(), MixingDraw(share, (0.0, 0.0)))
    for i in range(5):
        one, two = batch.inputs[i].flatten().tolist(), batch.inputs[i - 1].flatten().tolist()
        expected = [share * a + (1 - share) * b for a, b in zip(one, two, strict=True)]
        assert mixed.inputs[i].flatten().tolist() == pytest.approx(expected, abs=1e-6)
        own, other = (i, i - 1) if share >= 0.5 else (i - 1, i)
        assert (mixed.labels[i], mixed.index[i]) == (batch.labels[own], batch.index[own])
        if share not in (0.0, 1.0):
            assert (mixed.partner.labels[i], mixed.partner.index[i]) == (batch.labels[other], batch.index[other])
    assert mixed.share == pytest.approx(max(share, 1 - share))
    assert (mixed.partner is None) == (share in (0.0, 1.0))  # nothing was mixed in


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("center", [(0.0, 0.0), (0.5, 0.5), (0.99, 0.1)])
def test_cutmix_is_the_box_written_out(share, center):
    batch = images(height=8, width=6)
    mixed = mix(batch, CutMix(), MixingDraw(share, center))
    high, wide = int(8 * math.sqrt(1 - share)) // 2, int(6 * math.sqrt(1 - share)) // 2
    y, x = int(center[0] * 8), int(center[1] * 6)
    kept = 0
    for row in range(8):
        for column in range(6):
            inside = y - high <= row < y + high and x - wide <= column < x + wide
            kept += not inside
            for i in range(5):
                expected = batch.inputs[i - 1 if inside else i, :, row, column]
                assert torch.equal(mixed.inputs[i, :, row, column], expected)
    assert mixed.share == pytest.approx(max(kept / 48, 1 - kept / 48))
    assert mixed.labels.tolist() == (batch.labels if kept >= 24 else batch.labels.roll(1)).tolist()


def test_the_batch_is_not_changed_and_tags_and_outliers_go_along():
    batch = replace(images(), tags=torch.eye(5).bool(), outliers=torch.ones(2, 2, 4, 6))
    before = batch.inputs.clone()
    for how in (Mixup(), CutMix()):
        mixed = mix(batch, how, MixingDraw(0.6, (0.5, 0.5)))
        assert torch.equal(batch.inputs, before)
        assert torch.equal(mixed.tags, batch.tags)
        assert torch.equal(mixed.partner.tags, batch.tags.roll(1, 0))
        assert mixed.outliers is batch.outliers
        assert mixed.partner.inputs is mixed.inputs


@pytest.mark.parametrize("how", [Mixup(), CutMix()])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_the_layout_of_the_inputs_is_kept(how, share):
    batch = replace(images(), inputs=images().inputs.contiguous(memory_format=torch.channels_last))
    assert mix(batch, how, MixingDraw(share, (0.5, 0.5))).inputs.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_follow_the_beta_distribution(alpha):
    draws = [d for epoch in range(20) for d in draw_mixing(alpha, 100, 3, epoch)]
    assert stats.kstest([d.share for d in draws], stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    for place in (0, 1):
        assert stats.kstest([d.center[place] for d in draws], stats.uniform.cdf).pvalue > 1e-3


def test_draws_depend_on_seed_and_epoch_and_never_change():
    assert draw_mixing(1.0, 3, 0, 0) == draw_mixing(1.0, 3, 0, 0)
    assert draw_mixing(1.0, 3, 0, 0) != draw_mixing(1.0, 3, 0, 1) != draw_mixing(1.0, 3, 1, 1)
    before = np.random.get_state()[1].copy()
    assert draw_mixing(1.0, 2, 0, 0)[0].share == pytest.approx(FIRST_SHARE, abs=1e-12)
    assert np.array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize("how", [Mixup(), CutMix(0.5)])
@pytest.mark.parametrize("start", [0, 2, 3])
def test_an_epoch_can_start_at_any_step(how, start):
    def loader():
        return MixedBatches(Batches(), how, seed=4, epochs=3)

    complete, rest = list(loader().epoch(1)), list(loader().epoch(1, start))
    assert len(loader()) == 3
    assert len(rest) == 3 - start
    for one, other in zip(complete[start:], rest, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert (one.share, one.labels.tolist()) == (other.share, other.labels.tolist())
    assert len({b.share for b in complete}) > 1


@pytest.mark.parametrize(("until", "mixed"), [(1.0, 12), (0.5, 6), (0.34, 5), (0.01, 1)])
def test_mixing_ends_after_its_share_of_training(until, mixed):
    loader = MixedBatches(Batches(), Mixup(until=until), seed=0, epochs=4)
    batches = [b for epoch in range(4) for b in loader.epoch(epoch)]
    assert [b.partner is not None for b in batches] == [True] * mixed + [False] * (12 - mixed)
    assert torch.equal(batches[-1].inputs, list(Batches().epoch(3))[-1].inputs) == (mixed < 12)


@pytest.mark.parametrize(
    "loss",
    [
        CrossEntropyLoss(),
        DotRegressionLoss(),
        BinaryCrossEntropyLoss(3),
        DeferredReweightingLoss([9, 3, 1]),
        WeightedSumLoss([term(1.0, CrossEntropyLoss()), term(0.1, FeatureDecayLoss())]),
    ],
    ids=lambda loss: type(loss).__name__,
)
@pytest.mark.parametrize("head", [LinearHead, ETFHead, CosineHead])
def test_losses_are_interpolated(loss, head):
    batch = mix(images(9, 1, 3), Mixup(), MixingDraw(0.7, (0.0, 0.0)))
    loss.set_progress(0.9)
    outputs = head(6, 3).outputs(batch.inputs.flatten(1))
    own = float(loss(outputs, replace(batch, partner=None)).detach())
    other = float(loss(outputs, batch.partner).detach())
    terms = {name: float(value.detach()) for name, value in batch_terms(loss, outputs, batch).items()}
    assert set(terms) == set(loss.terms(outputs, batch))
    assert sum(terms.values()) == pytest.approx(0.7 * own + 0.3 * other, rel=1e-5)
    if not isinstance(loss, FeatureDecayLoss):
        assert own != pytest.approx(other)


def test_cross_entropy_of_a_mixed_batch_is_that_of_soft_labels():
    batch = mix(images(9, 1, 3), Mixup(), MixingDraw(0.7, (0.0, 0.0)))
    outputs = LinearHead(6, 3).outputs(batch.inputs.flatten(1))
    soft = 0.7 * torch.eye(3)[batch.labels] + 0.3 * torch.eye(3)[batch.partner.labels]
    expected = torch.nn.functional.cross_entropy(outputs.logits, soft)
    torch.testing.assert_close(mixed_loss(CrossEntropyLoss(), outputs, batch), expected)


def test_tags_are_interpolated_too():
    batch = mix(replace(images(3, 1, 3), tags=torch.eye(3).bool()), Mixup(), MixingDraw(0.8, (0.0, 0.0)))
    outputs, loss = LinearHead(6, 3).outputs(batch.inputs.flatten(1)), PickAllLabelLoss()
    value = mixed_loss(loss, outputs, batch)
    torch.testing.assert_close(value, 0.8 * loss(outputs, batch) + 0.2 * loss(outputs, batch.partner))


def test_mixup_with_deferred_reweighting_is_the_published_sum():
    """lam CE(w)(y) + (1 - lam) CE(w)(y'), each divided by the weights of its labels, the same ones in another order."""
    batch = mix(images(9, 1, 3), Mixup(), MixingDraw(0.6, (0.0, 0.0)))
    loss = DeferredReweightingLoss([90, 10, 3])
    for progress in (0.0, 0.9):
        loss.set_progress(progress)
        outputs = LinearHead(6, 3).outputs(batch.inputs.flatten(1))
        sides = [
            torch.nn.functional.cross_entropy(outputs.logits, side.labels, weight=loss.weight)
            for side in (batch, batch.partner)
        ]
        value = mixed_loss(loss, outputs, batch)
        torch.testing.assert_close(value, 0.6 * sides[0] + 0.4 * sides[1])


def test_a_losses_state_moves_once_by_the_larger_share():
    batch = mix(images(4, 1, 3), Mixup(), MixingDraw(0.3, (0.0, 0.0)))
    batch = replace(batch, index=batch.index - 100, partner=replace(batch.partner, index=batch.partner.index - 100))
    loss, once = EarlyLearningLoss(4, 3, momentum=0.5), EarlyLearningLoss(4, 3, momentum=0.5)
    outputs = LinearHead(6, 3).outputs(batch.inputs.flatten(1))
    value = mixed_loss(loss, outputs, batch)
    own = once(outputs, batch)
    assert torch.equal(loss.targets, once.targets)
    assert loss.targets.sum(1).tolist() == pytest.approx([0.5] * 4)
    assert loss.training
    torch.testing.assert_close(value, 0.7 * own + 0.3 * once.eval()(outputs, batch.partner))
    assert batch.index.tolist() == [3, 0, 1, 2]  # a small first share: the labels are the neighbors'


class ObservingHead(LinearHead):
    """A head that notes at which progress it observes a batch."""

    def observe(self, outputs, labels, progress):  # noqa: ARG002
        self.observed = [*getattr(self, "observed", []), round(progress, 3)]


def test_heads_observe_only_batches_that_are_not_mixed():
    head = ObservingHead(6, 3)
    fit(small(head), CrossEntropyLoss(), Batches(), TrainConfig(epochs=4, mixing=Mixup(until=0.5)), OptimConfig())
    assert head.observed == [round(step / 12, 3) for step in range(7, 13)]


def test_the_loop_mixes_by_its_seed_and_reports_the_interpolated_loss():
    def curve(**how):
        losses = []
        fit(small(), CrossEntropyLoss(), Batches(), TrainConfig(epochs=2, mixing=how.pop("mixing", None)),
            OptimConfig(),
            epoch_end=lambda _, values, __: losses.append(values["train/loss"]), **how)  # fmt: skip
        return losses

    assert curve(mixing=Mixup()) == curve(mixing=Mixup(), seed=0) != curve(mixing=Mixup(), seed=1)
    assert curve(mixing=Mixup()) != curve() != curve(mixing=CutMix())
    model, batch = small().train(), next(MixedBatches(Batches(steps=1), Mixup(), 0, 1).epoch(0))
    expected = float(mixed_loss(CrossEntropyLoss(), model.outputs(batch.inputs), batch).detach())
    losses = []
    fit(small(), CrossEntropyLoss(), Batches(steps=1), TrainConfig(epochs=1, mixing=Mixup()), OptimConfig(),
        epoch_end=lambda _, values, __: losses.append(values["train/loss"]))  # fmt: skip
    assert losses == pytest.approx([expected])


@pytest.mark.parametrize("mixing", [Mixup(until=0.6), CutMix()])
@pytest.mark.parametrize("at", [1, 5, 7])
def test_a_mixed_training_goes_on_bit_equal(tmp_path, mixing, at):
    def trained(batches, **how):
        torch.manual_seed(5)
        model, loss = small(CosineHead(6, 3), dropout=0.5), EarlyLearningLoss(8, 3)
        training = TrainConfig(epochs=4, mixing=mixing, ema_decay=0.9)
        fit(model, loss, batches, training, OptimConfig(lr=0.05), **how)
        return [*model.state_dict().values(), loss.targets]

    class StopAt(Batches):
        def epoch(self, epoch, start=0):
            for step, batch in enumerate(super().epoch(epoch, start), start=start):
                stop.requested = stop.requested or epoch * 3 + step == at
                yield batch

    straight, stop, path = trained(Batches()), StopSignal(), tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        trained(StopAt(), checkpoint=path, stop=stop)
    resumed = trained(Batches(), checkpoint=path, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))


def test_mixing_raises_for_losses_and_heads_that_need_single_images():
    config = TrainConfig(mixing=CutMix())
    with pytest.raises(ValueError, match=r"SupConLoss compares two views of one image.* with CutMix"):
        fit(small(), SupConLoss(), Batches(), config, OptimConfig())
    both = WeightedSumLoss([term(1.0, CrossEntropyLoss()), term(1.0, SupConLoss())])
    with pytest.raises(ValueError, match="WeightedSumLoss compares two views"):
        check_mixing(Mixup(), both, LinearHead(6, 3))
    with pytest.raises(ValueError, match=r"NearestETFHead learns class means from .*CutMix\(until=1\) mixes"):
        fit(small(NearestETFHead(6, 3)), CrossEntropyLoss(), Batches(), config, OptimConfig())
    check_mixing(Mixup(until=0.9), CrossEntropyLoss(), NearestETFHead(6, 3))
    check_mixing(None, SupConLoss(), NearestETFHead(6, 3))
    with pytest.raises(ValueError, match="a batch with two views cannot be mixed"):
        mix(replace(images(), second_view=images().inputs), Mixup(), MixingDraw(0.5, (0, 0)))
    with pytest.raises(
        ValueError, match=r"CutMix needs images \(N, C, H, W\), got inputs of shape \(5, 48\): use Mixup"
    ):
        mix(replace(images(), inputs=images().inputs.flatten(1)), CutMix(), MixingDraw(0.5, (0, 0)))
    for kind in (Mixup, CutMix):
        for alpha in (0.0, -1.0, math.inf, math.nan):
            with pytest.raises(ValueError, match=f"alpha of {kind.__name__} must be positive and finite, got {alpha}"):
                kind(alpha)
        for until in (0.0, 1.1):
            with pytest.raises(ValueError, match=r"until of \w+ is a share of training and must lie in \(0, 1\]"):
                kind(until=until)


FIRST_SHARE = 0.8193673019957944
