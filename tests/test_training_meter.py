"""The epoch's means and the detection of losses that are not finite, and when the device is read."""

import warnings

import pytest
import torch
from support.small_training import Batches, DeviceReads, ReadsPerBatch, small

from nc_tools.heads import CosineHead, ETFHead, LinearHead
from nc_tools.losses import CrossEntropyLoss, DotRegressionLoss
from nc_tools.losses.loss_term import LossTerm
from nc_tools.records import Batch
from nc_tools.training import NonFiniteLossError, OptimConfig, TrainConfig, fit
from nc_tools.training.meter import Meter, StepValues, step_values

CPU = torch.device("cpu")


class TwoTerms(LossTerm):
    """A loss of two terms."""

    def compute(self, outputs, batch):
        return sum(self.terms(outputs, batch).values())

    def terms(self, outputs, batch):  # noqa: ARG002
        return {"first": outputs.features.square().mean(), "second": outputs.logits.square().mean()}


def test_the_meter_weighs_batches_by_their_size_and_counts_hits():
    model, meter = small().eval(), Meter(CPU)
    losses, hits, samples = 0.0, 0, 0
    for step, size in enumerate((8, 5)):
        batch = next(Batches(size, 1).epoch(step))
        outputs = model.outputs(batch.inputs)
        terms = CrossEntropyLoss().terms(outputs, batch)
        meter.update(step, size, step_values(terms, outputs, batch))
        losses += float(terms["CrossEntropy"].detach()) * size
        hits += sum(int(row.argmax()) == int(y) for row, y in zip(outputs.logits, batch.labels, strict=True))
        samples += size
    values = meter.read()
    assert values["train/loss"] == pytest.approx(losses / samples)
    assert values["train/accuracy"] == pytest.approx(hits / samples)


def test_several_terms_are_listed_and_summed():
    model, meter, batch = small(), Meter(CPU), next(Batches().epoch(0))
    outputs = model.outputs(batch.inputs)
    meter.update(0, 8, step_values(TwoTerms().terms(outputs, batch), outputs, batch))
    values = meter.read()
    assert values["train/loss"] == pytest.approx(values["train/loss_first"] + values["train/loss_second"])


def test_no_logits_are_computed_for_a_loss_that_needs_none():
    model, meter, batch = small(ETFHead(6, 3)), Meter(CPU), next(Batches().epoch(0))
    outputs = model.outputs(batch.inputs)
    meter.update(0, 8, step_values(DotRegressionLoss().terms(outputs, batch), outputs, batch))
    assert outputs.computed_logits is None
    assert "train/accuracy" not in meter.read()


def test_a_loss_that_is_not_finite_ends_training_and_names_step_and_term():
    epochs = []
    model = small(LinearHead(6, 3))
    with pytest.raises(NonFiniteLossError, match=r"CrossEntropy was not finite at step 4\."):
        fit(model, CrossEntropyLoss(), Batches(poison=(1, 1)), TrainConfig(epochs=3), OptimConfig(),
            epoch_end=lambda epoch, *_: epochs.append(epoch))  # fmt: skip
    assert epochs == [1]  # the first epoch was reported, the poisoned one never


def test_the_first_bad_term_is_the_one_named():
    meter = Meter(CPU)
    fine, bad = torch.tensor(1.0), torch.tensor(torch.nan)
    for step, terms in enumerate([(fine, fine), (fine, bad), (bad, bad)]):
        meter.update(step, 8, StepValues(dict(zip(("a", "b"), terms, strict=True)), None))
    with pytest.raises(NonFiniteLossError, match=r"term b was not finite at step 1\."):
        meter.read()


@pytest.mark.parametrize(
    ("head", "loss"), [(LinearHead, CrossEntropyLoss), (ETFHead, DotRegressionLoss), (CosineHead, TwoTerms)]
)
def test_no_step_waits_for_the_device(head, loss, monkeypatch):
    monkeypatch.setattr("nc_tools.losses._rows.traced", lambda: True)  # losses read labels on the CPU only
    with DeviceReads() as reads:
        assert float(torch.ones(())) == 1.0
        assert reads.operations  # the mode does notice that a number is read
        batches = ReadsPerBatch(reads)
        config = TrainConfig(epochs=2, ema_decay=0.9)
        fit(small(head(6, 3)), loss(), batches, config, OptimConfig(clip_norm=1.0))
    first, second = batches.counts[:5], batches.counts[5:]
    assert len(set(first)) == 1
    assert len(set(second)) == 1


@pytest.mark.gpu
@pytest.mark.parametrize(("capture", "free"), [(False, 1), (True, 2)])  # the second step is recorded, with the GPU idle
def test_no_step_waits_for_the_gpu(capture, free):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    device = torch.device("cuda")
    model, loss = small().to(device), CrossEntropyLoss().to(device)
    ready = [Batch(b.inputs.to(device), b.labels.to(device), b.index.to(device)) for b in Batches().epoch(0)]

    class Ready(Batches):
        def epoch(self, epoch, start=0):  # noqa: ARG002
            yield from ready[start : start + free]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch says that this mode is a prototype
                torch.cuda.set_sync_debug_mode("error")
            try:
                yield from ready[start + free :]
            finally:
                torch.cuda.set_sync_debug_mode("default")

    training = TrainConfig(epochs=2, ema_decay=0.9, capture=capture)
    fit(model, loss, Ready(), training, OptimConfig(clip_norm=1.0))
