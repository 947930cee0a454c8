"""The training loop and the weight average, against slow references."""

import copy
from dataclasses import replace

import pytest
import torch
from support.small_training import Batches, small

from nc_tools.heads import LinearHead
from nc_tools.losses import CrossEntropyLoss, SupConLoss
from nc_tools.losses.loss_term import LossTerm
from nc_tools.training import OptimConfig, TrainConfig, fit
from nc_tools.training.ema import WeightEMA


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
            pairs = zip(slow[name], new, strict=True)
            slow[name] = [decay * a + (1 - decay) * b for a, b in pairs] if value.is_floating_point() else new
    for name, value in ema.model.state_dict().items():
        assert value.flatten().tolist() == pytest.approx(slow[name], rel=1e-5, abs=1e-6), name
    assert not any(p.requires_grad for p in ema.model.parameters())


@pytest.mark.parametrize("decay", [0.0, 1.0, 1.5, -0.1, float("nan")])
def test_a_decay_outside_0_to_1_is_an_error(decay):
    with pytest.raises(ValueError, match=r"decay must be in \(0, 1\), got"):
        WeightEMA(small(), decay)


class KeepsFirst(LossTerm):
    """Keeps the outputs for the first batch."""

    def compute(self, outputs, batch):
        if not hasattr(self, "outputs"):
            self.outputs, self.batch = outputs, batch
        return outputs.logits.square().mean()


@pytest.mark.parametrize("parts", [(), ("second_view",), ("outliers",), ("second_view", "outliers")])
def test_all_parts_of_a_batch_go_through_the_backbone_in_one_pass(parts):
    """One pass, so that batch statistics are those of all parts; each part gets its own outputs."""
    extra = {"second_view": torch.randn(8, 1, 3, 3), "outliers": torch.randn(5, 1, 3, 3)}

    class WithParts(Batches):
        def epoch(self, epoch, start=0):
            for batch in super().epoch(epoch, start):
                yield replace(batch, **{name: extra[name] for name in parts})

    model, loss, first = small(), KeepsFirst(), next(WithParts().epoch(0))
    twin = copy.deepcopy(model).train()
    together = twin.backbone(torch.cat([first.inputs, *(extra[name] for name in parts)]))
    fit(model, loss, WithParts(steps=1), TrainConfig(epochs=1), OptimConfig())
    expected = torch.split(together, [8, *(len(extra[name]) for name in parts)])
    torch.testing.assert_close(loss.outputs.features, expected[0])
    for name in ("second_view", "outliers"):
        outputs = getattr(loss.outputs, name)
        assert (outputs is None) == (name not in parts)
        if outputs is not None:
            torch.testing.assert_close(outputs.features, expected[1 + parts.index(name)])


def test_a_contrastive_loss_learns_from_two_views_and_needs_both():
    class TwoViews(Batches):
        def epoch(self, epoch, start=0):
            for batch in super().epoch(epoch, start):
                yield replace(batch, second_view=batch.inputs + 0.1)

    curve = []
    fit(small(), SupConLoss(), TwoViews(), TrainConfig(epochs=8), OptimConfig(lr=0.05),
        epoch_end=lambda _, values, __: curve.append(values["train/loss"]))  # fmt: skip
    assert curve[-1] < curve[0]
    with pytest.raises(ValueError, match="SupConLoss needs two views of each image"):
        fit(small(), SupConLoss(), Batches(), TrainConfig(epochs=1), OptimConfig())


class Observing(LinearHead):
    """Notes the progress at which it observes a step."""

    def __init__(self):
        super().__init__(6, 3)
        self.progress = []

    def observe(self, outputs, labels, progress):
        assert not torch.is_grad_enabled()
        assert len(outputs.features) == len(labels)
        self.progress.append(progress)


def test_a_head_observes_every_step_on_unmixed_samples():
    class MixedFirst(Batches):
        def epoch(self, epoch, start=0):
            for step, batch in enumerate(super().epoch(epoch, start), start=start):
                yield replace(batch, partner=batch, share=0.5) if step == 0 else batch

    plain, mixed = Observing(), Observing()
    fit(small(plain), CrossEntropyLoss(), Batches(), TrainConfig(epochs=2), OptimConfig())
    fit(small(mixed), CrossEntropyLoss(), MixedFirst(), TrainConfig(epochs=2), OptimConfig())
    assert plain.progress == [step / 6 for step in range(1, 7)]
    assert mixed.progress == [step / 6 for step in (2, 3, 5, 6)]


FIRST_LOSSES = [1.163704753, 1.089653888, 1.057726661]


def test_the_first_losses_are_these():
    losses = []
    optim = OptimConfig(lr=0.1, warmup=0.0)
    fit(small(), CrossEntropyLoss(), Batches(), TrainConfig(epochs=3), optim,
        epoch_end=lambda _, values, __: losses.append(values["train/loss"]))  # fmt: skip
    assert losses == pytest.approx(FIRST_LOSSES, rel=1e-4)


def test_a_compiled_backbone_is_the_same_model(monkeypatch):
    compiled_modules = []
    real_compile = torch.compile

    def compile_eagerly(module):
        compiled_modules.append(module)
        return real_compile(module, backend="eager")

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    plain, compiled = small(), small()
    for model, compiles in ((plain, False), (compiled, True)):
        fit(model, CrossEntropyLoss(), Batches(), TrainConfig(epochs=1, compile=compiles), OptimConfig())
    assert compiled_modules == [compiled.backbone]
    for a, b in zip(plain.state_dict().values(), compiled.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)
