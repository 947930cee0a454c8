"""Optimizer, schedule, average and meter, each against a slow reference of its own."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from support.small_training import Batches, Reads, Watched, small

from nc_tools.heads import LEARNED, CosineHead, ETFHead, LinearHead
from nc_tools.losses import BinaryCrossEntropyLoss, CrossEntropyLoss, DotRegressionLoss, SupConLoss
from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch
from nc_tools.spec import spec
from nc_tools.training import NonFiniteLossError, OptimConfig, TrainConfig, fit
from nc_tools.training.ema import WeightEMA
from nc_tools.training.learning_rate import rate_factor
from nc_tools.training.meter import Meter
from nc_tools.training.optimizers import make_optimizer, set_rates

CPU = torch.device("cpu")


def ids(parameters):
    return {id(p) for p in parameters}


def test_sgd_couples_weight_decay_with_the_gradient():
    model = small()
    config = OptimConfig(lr=0.1, weight_decay=0.05)
    optimizer = make_optimizer(model, config)
    weight, bias = model.head.weight, model.head.bias
    w, b = weight.detach().clone(), bias.detach().clone()
    buffer_w, buffer_b = torch.zeros_like(w), torch.zeros_like(b)
    for step in range(4):
        set_rates(optimizer, 1.0 / (step + 1))
        gradient_w, gradient_b = torch.full_like(w, 0.3 * (step + 1)), torch.full_like(b, -0.2)
        weight.grad, bias.grad = gradient_w.clone(), gradient_b.clone()
        optimizer.step()
        # g <- g + decay w, v <- .9 v + g, w <- w - lr v; the bias does not decay
        decayed = gradient_w + 0.05 * w
        buffer_w = decayed if step == 0 else 0.9 * buffer_w + decayed
        buffer_b = gradient_b if step == 0 else 0.9 * buffer_b + gradient_b
        w, b = w - 0.1 / (step + 1) * buffer_w, b - 0.1 / (step + 1) * buffer_b
        torch.testing.assert_close(weight.detach(), w)
        torch.testing.assert_close(bias.detach(), b)


@pytest.mark.parametrize("decay_norm_and_bias", [False, True])
def test_only_weights_decay_unless_biases_and_gains_are_asked_for(decay_norm_and_bias):
    model = small(CosineHead(6, 3, scale=LEARNED))
    config = OptimConfig(weight_decay=0.01, decay_norm_and_bias=decay_norm_and_bias)
    optimizer = make_optimizer(model, config)
    decayed = set().union(*(ids(g["params"]) for g in optimizer.param_groups if g["weight_decay"] == 0.01))
    expected = {id(p) for p in model.parameters() if p.ndim >= 2 or (p.ndim == 1 and decay_norm_and_bias)}
    assert decayed == expected
    assert any(p.ndim == 0 for p in model.head.parameters())  # the scale is there, and never among them
    everything = [id(p) for g in optimizer.param_groups for p in g["params"]]
    assert sorted(everything) == sorted(ids(model.parameters()))


def test_the_head_has_its_own_rate():
    model = small()
    optimizer = make_optimizer(model, OptimConfig(lr=0.1, head_lr_ratio=4.0))
    set_rates(optimizer, 0.5)
    rate = {i: g["lr"] for g in optimizer.param_groups for i in ids(g["params"])}
    assert {rate[i] for i in ids(model.head.parameters())} == {0.2}
    assert {rate[i] for i in ids(model.backbone.parameters())} == {0.05}


def test_a_head_without_parameters_has_no_group():
    model = small(ETFHead(6, 3))
    optimizer = make_optimizer(model, OptimConfig())
    assert {i for g in optimizer.param_groups for i in ids(g["params"])} == ids(model.backbone.parameters())
    assert all(g["params"] for g in optimizer.param_groups)


def test_what_a_loss_learns_is_trained_at_the_backbones_rate_without_decay():
    model, loss = small(), BinaryCrossEntropyLoss(3)
    config = OptimConfig(lr=0.1, head_lr_ratio=4.0, weight_decay=0.01, decay_norm_and_bias=True)
    *groups, last = make_optimizer(model, config, loss).param_groups
    assert ids(last["params"]) == ids(loss.parameters())
    assert (last["lr"], last["peak_lr"], last["weight_decay"]) == (0.1, 0.1, 0.0)
    assert {i for g in groups for i in ids(g["params"])} == ids(model.parameters())
    assert len(make_optimizer(model, config, CrossEntropyLoss()).param_groups) == len(groups)


def test_parameters_that_loss_and_model_share_are_trained_once():
    model = small()

    class Shares(CrossEntropyLoss):
        def __init__(self):
            super().__init__()
            self.head = model.head

    groups = make_optimizer(model, OptimConfig(), Shares()).param_groups
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(ids(model.parameters()))


def test_thresholds_of_a_loss_are_learned_and_clipped_with_the_rest():
    def thresholds_after(clip_norm):
        loss = BinaryCrossEntropyLoss(3)
        fit(small(), loss, Batches(), TrainConfig(epochs=2), OptimConfig(lr=0.1, clip_norm=clip_norm))
        return loss.thresholds.detach()

    free, clipped = thresholds_after(None), thresholds_after(1e-6)
    assert (free > 0.05).all()  # two of three classes are not the sample's
    assert clipped.norm() < 1e-5


def test_a_model_that_cannot_be_trained_is_refused():
    with pytest.raises(ValueError, match="nothing in the model can be trained"):
        make_optimizer(small().requires_grad_(requires_grad=False), OptimConfig())


def test_another_optimizer_takes_rate_and_decay_from_the_configuration():
    adam = OptimConfig(optimizer=spec(torch.optim.AdamW, betas=(0.8, 0.9)), lr=0.02, weight_decay=0.3)
    optimizer = make_optimizer(small(), adam)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {g["lr"] for g in optimizer.param_groups} == {0.02}
    assert {g["weight_decay"] for g in optimizer.param_groups} == {0.0, 0.3}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lr": 0.0}, "optim.lr must be positive"),
        ({"head_lr_ratio": 0.0}, "optim.head_lr_ratio must be positive"),
        ({"clip_norm": -1.0}, "optim.clip_norm must be positive"),
        ({"weight_decay": -1e-4}, "weight_decay must not be negative"),
        ({"schedule": "linear"}, "'cosine' or 'step'"),
        ({"warmup": 1.0}, "warmup is a share"),
        ({"milestones": (0.9, 0.8)}, "rising shares"),
    ],
)
def test_optimizer_settings_are_checked_when_written(change, told):
    with pytest.raises(ValueError, match=told):
        OptimConfig(**change)


@pytest.mark.parametrize("change", [{"epochs": 0}, {"batch_size": 1}, {"precision": "half"}, {"ema_decay": 1.0}])
def test_training_settings_are_checked_when_written(change):
    with pytest.raises(ValueError, match=f"training.{next(iter(change))}"):
        TrainConfig(**change)


def test_cosine_with_warm_up_has_these_values():
    config = OptimConfig(warmup=0.2)
    told = [rate_factor(step, 10, config) for step in range(10)]
    assert told[:3] == [0.5, 1.0, 1.0]
    assert told[2:] == pytest.approx([math.cos(math.pi * i / 16) ** 2 for i in range(8)])


def test_steps_fall_at_their_milestones():
    config = OptimConfig(schedule="step", milestones=(0.5, 0.75), gamma=0.1, warmup=0.0)
    told = [rate_factor(step, 8, config) for step in range(8)]
    assert told == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("schedule", ["cosine", "step"])
@pytest.mark.parametrize("total", [1, 2, 7, 1000])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.99])
def test_every_step_of_a_training_has_a_rate_and_no_other(schedule, total, warmup):
    config = OptimConfig(schedule=schedule, warmup=warmup)
    assert all(0 < rate_factor(step, total, config) <= 1 for step in range(total))
    for step in (-1, total):
        with pytest.raises(ValueError, match="has steps 0 to"):
            rate_factor(step, total, config)


def test_the_average_is_the_recursion_written_out():
    model = small()
    ema = WeightEMA(model, decay=0.6)
    slow = {name: [float(v) for v in p.flatten()] for name, p in model.state_dict().items()}
    for step in range(8):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.1 * (step + 1))
        model.backbone(torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(step)))
        ema.update(model, step)
        decay = min(0.6, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            new = [float(v) for v in value.flatten()]
            kept = zip(slow[name], new, strict=True)
            slow[name] = [decay * a + (1 - decay) * b for a, b in kept] if value.is_floating_point() else new
    for name, value in ema.model.state_dict().items():
        assert value.flatten().tolist() == pytest.approx(slow[name], rel=1e-5, abs=1e-6), name
    assert not any(p.requires_grad for p in ema.model.parameters())


@pytest.mark.parametrize("decay", [0.0, 1.0, 1.5, -0.1, float("nan")])
def test_a_decay_that_keeps_nothing_or_everything_is_refused(decay):
    with pytest.raises(ValueError, match=r"decay must lie in \(0, 1\), got"):
        WeightEMA(small(), decay)


class Pair(LossTerm):
    """Two terms, of which one grows past every number."""

    def compute(self, outputs, batch):
        return sum(self.terms(outputs, batch).values())

    def terms(self, outputs, batch):  # noqa: ARG002
        return {"first": outputs.features.square().mean(), "second": outputs.logits.square().mean()}


def test_the_meter_weighs_batches_by_their_size_and_counts_hits():
    model, meter = small().eval(), Meter(CPU)
    losses, hits, seen = 0.0, 0, 0
    for step, size in enumerate((8, 5)):
        batch = next(Batches(size, 1).epoch(step))
        outputs = model.outputs(batch.inputs)
        terms = CrossEntropyLoss().terms(outputs, batch)
        meter.update(step, terms, outputs, batch)
        losses += float(terms["CrossEntropyLoss"].detach()) * size
        hits += sum(int(row.argmax()) == int(y) for row, y in zip(outputs.logits, batch.labels, strict=True))
        seen += size
    told = meter.read()
    assert told["train/loss"] == pytest.approx(losses / seen)
    assert told["train/accuracy"] == pytest.approx(hits / seen)


class Sees(LossTerm):
    """Keeps what the model made of the first batch."""

    def compute(self, outputs, batch):
        if not hasattr(self, "outputs"):
            self.outputs, self.batch = outputs, batch
        return outputs.logits.square().mean()


@pytest.mark.parametrize("given", [(), ("second",), ("outliers",), ("second", "outliers")])
def test_all_that_comes_with_a_batch_goes_through_the_model_once_and_apart(given):
    """One pass, so that batch statistics are those of all; each part finds its own place."""
    extra = {"second": torch.randn(8, 1, 3, 3), "outliers": torch.randn(5, 1, 3, 3)}

    class More(Batches):
        def epoch(self, epoch, start=0):
            for batch in super().epoch(epoch, start):
                yield replace(batch, **{name: extra[name] for name in given})

    model, loss, first = small(), Sees(), next(More().epoch(0))
    twin = copy.deepcopy(model).train()
    together = twin.backbone(torch.cat([first.inputs, *(extra[name] for name in given)]))
    fit(model, loss, More(steps=1), TrainConfig(epochs=1), OptimConfig())
    parts = torch.split(together, [8, *(len(extra[name]) for name in given)])
    torch.testing.assert_close(loss.outputs.features, parts[0])
    for name in ("second", "outliers"):
        found = getattr(loss.outputs, name)
        assert (found is None) == (name not in given)
        if found is not None:
            torch.testing.assert_close(found.features, parts[1 + given.index(name)])


def test_a_contrastive_loss_learns_from_two_views_and_refuses_one():
    class Two(Batches):
        def epoch(self, epoch, start=0):
            for batch in super().epoch(epoch, start):
                yield replace(batch, second_view=batch.inputs + 0.1)

    curve = []
    fit(small(), SupConLoss(), Two(), TrainConfig(epochs=8), OptimConfig(lr=0.05),
        epoch_end=lambda _, values, __: curve.append(values["train/loss"]))  # fmt: skip
    assert curve[-1] < curve[0]
    with pytest.raises(ValueError, match="SupConLoss needs two views of each image"):
        fit(small(), SupConLoss(), Batches(), TrainConfig(epochs=1), OptimConfig())


def test_several_terms_are_told_apart_and_summed():
    model, meter, batch = small(), Meter(CPU), next(Batches().epoch(0))
    outputs = model.outputs(batch.inputs)
    meter.update(0, Pair().terms(outputs, batch), outputs, batch)
    told = meter.read()
    assert told["train/loss"] == pytest.approx(told["train/loss_first"] + told["train/loss_second"])


def test_a_loss_that_needs_no_logits_pays_for_none():
    model, meter, batch = small(ETFHead(6, 3)), Meter(CPU), next(Batches().epoch(0))
    outputs = model.outputs(batch.inputs)
    meter.update(0, DotRegressionLoss().terms(outputs, batch), outputs, batch)
    assert not outputs.scored
    assert "train/accuracy" not in meter.read()


def test_a_loss_that_is_no_number_stops_the_run_and_names_step_and_term():
    told = []
    model = small(LinearHead(6, 3))
    with pytest.raises(NonFiniteLossError, match="CrossEntropy stopped being finite at step 4:"):
        fit(model, CrossEntropyLoss(), Batches(poison=(1, 1)), TrainConfig(epochs=3), OptimConfig(),
            epoch_end=lambda epoch, *_: told.append(epoch))  # fmt: skip
    assert told == [1]  # the first epoch was reported, the poisoned one never


def test_the_first_bad_term_is_the_one_named():
    model, meter, batch = small(), Meter(CPU), next(Batches().epoch(0))
    outputs = model.outputs(batch.inputs)
    fine, bad = torch.tensor(1.0), torch.tensor(torch.nan)
    for step, terms in enumerate([(fine, fine), (fine, bad), (bad, bad)]):
        meter.update(step, dict(zip(("a", "b"), terms, strict=True)), outputs, batch)
    with pytest.raises(NonFiniteLossError, match="term b stopped being finite at step 1:"):
        meter.read()


@pytest.mark.parametrize(
    ("head", "loss"), [(LinearHead, CrossEntropyLoss), (ETFHead, DotRegressionLoss), (CosineHead, Pair)]
)
def test_no_step_waits_for_the_device(head, loss):
    with Reads() as reads:
        assert float(torch.ones(())) == 1.0
        assert reads.seen  # the mode does see a number being read
        watched = Watched(reads)
        config = TrainConfig(epochs=2, ema_decay=0.9)
        fit(small(head(6, 3)), loss(), watched, config, OptimConfig(clip_norm=1.0))
    first, second = watched.at[:5], watched.at[5:]
    assert len(set(first)) == 1
    assert len(set(second)) == 1


@pytest.mark.gpu
def test_no_step_waits_for_the_gpu():
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    device = torch.device("cuda")
    model, loss = small().to(device), CrossEntropyLoss().to(device)
    ready = [Batch(b.inputs.to(device), b.labels.to(device), b.index.to(device)) for b in Batches().epoch(0)]

    class Ready(Batches):
        def epoch(self, epoch, start=0):  # noqa: ARG002
            yield from ready[start : start + 1]
            torch.cuda.set_sync_debug_mode("error")
            try:
                yield from ready[start + 1 :]
            finally:
                torch.cuda.set_sync_debug_mode("default")

    fit(model, loss, Ready(), TrainConfig(epochs=2, ema_decay=0.9), OptimConfig(clip_norm=1.0))


def test_the_first_losses_are_these():
    told = []
    optim = OptimConfig(lr=0.1, warmup=0.0)
    fit(small(), CrossEntropyLoss(), Batches(), TrainConfig(epochs=3), optim,
        epoch_end=lambda _, values, __: told.append(values["train/loss"]))  # fmt: skip
    assert told == pytest.approx(FIRST_LOSSES, rel=1e-4)


def test_a_compiled_backbone_is_the_same_model(monkeypatch):
    asked = []
    real = torch.compile

    def eager(module):
        asked.append(module)
        return real(module, backend="eager")

    monkeypatch.setattr(torch, "compile", eager)
    plain, compiled = small(), small()
    for model, wanted in ((plain, False), (compiled, True)):
        fit(model, CrossEntropyLoss(), Batches(), TrainConfig(epochs=1, compile=wanted), OptimConfig())
    assert asked == [compiled.backbone]
    for a, b in zip(plain.state_dict().values(), compiled.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)


FIRST_LOSSES = [1.163704753, 1.089653888, 1.057726661]
