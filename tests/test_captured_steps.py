"""Training steps that are recorded and replayed, against the same steps without recording: every head and every loss.

The recorder of these tests freezes Python numbers and refuses to read values, as a CUDA graph does. It stands in for
the GPU's at its own place: everything around it is what runs there.
"""

import copy
import gc
import time
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from support import head_variants, loss_variants
from support.head_variants import VARIANTS as HEADS
from support.loss_variants import every_loss
from support.recorded_steps import CpuRecorder
from support.small_training import Batches, StopAt, same_state, small
from torch import Tensor, nn

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.data.mixing import CutMix, Mixup
from nc_tools.heads import LEARNED, CosineHead, ETFHead
from nc_tools.losses import CrossEntropyLoss, DeferredReweightingLoss, SupConLoss, WeightedSumLoss, term
from nc_tools.losses.loss_term import LossTerm
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch
from nc_tools.schedules import LinearSchedule
from nc_tools.specs import spec
from nc_tools.training import AsymmetricSharpnessAware, OptimConfig, SharpnessAware, TrainConfig, fit
from nc_tools.training.cuda_graph import CudaRecorder
from nc_tools.training.ema import WeightEMA
from nc_tools.training.in_steps import BackbonePass, run_alone
from nc_tools.training.mixed_loss import learns_from_steps
from nc_tools.training.run_side_by_side import run_side_by_side
from nc_tools.training.static_batch import changed

every_head = pytest.mark.parametrize("head_spec", HEADS, ids=lambda s: f"{s.cls.__name__}-{dict(s.arguments)}")
WITH_ALL = OptimConfig(lr=0.05, clip_norm=1.0, warmup=0.3)
AVERAGED = TrainConfig(epochs=2, ema_decay=0.9)


@pytest.fixture(autouse=True)
def _labels_are_not_read(monkeypatch):
    """As on a GPU, losses do not look at the labels."""
    monkeypatch.setattr("nc_tools.losses._rows.traced", lambda: True)


class Parts(Batches):
    """Batches with all that a loss may need; in every second epoch they have one sample less."""

    def __init__(self, loss, classes, size=9, steps=3, uneven=0):
        super().__init__(size, steps)
        self.loss, self.classes, self.uneven = loss, classes, uneven

    def epoch(self, epoch, start=0):
        for batch in super().epoch(epoch, start):
            size = self.size - self.uneven * (epoch % 2)
            inputs = batch.inputs[:size]
            yield Batch(
                inputs,
                torch.arange(size) % self.classes,
                torch.arange(size),
                second_view=inputs.flip(1) + 0.1 if self.loss.views == 2 else None,
                outliers=-inputs if self.loss.needs_outliers else None,
            )


def network(head, width):
    torch.manual_seed(0)
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(9, width), nn.BatchNorm1d(width), nn.ReLU()), head)


class Trained:
    """A training, as usual or with steps that are recorded and replayed."""

    def __init__(self, monkeypatch, model, loss, batches, training=AVERAGED, optim=WITH_ALL, *, recorder=None, **more):
        monkeypatch.setattr("nc_tools.training.loop.recorder_for", lambda _device: recorder)
        self.notes, self.curve = [], []
        self.model, self.loss = model, loss
        torch.manual_seed(1)  # dropout
        self.average = fit(
            model, loss, batches, training, optim, note=self.notes.append,
            epoch_end=lambda _, values, __: self.curve.append(values), **more,
        ).model  # fmt: skip

    def check_equal(self, other):
        for mine, theirs in ((self.model, other.model), (self.loss, other.loss), (self.average, other.average)):
            pairs = zip(mine.state_dict().items(), theirs.state_dict().values(), strict=True)
            for (name, a), b in pairs:
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
        for mine, theirs in zip(self.curve, other.curve, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-5)


def both(monkeypatch, model, loss, batches, training=AVERAGED, optim=WITH_ALL, **more):
    """Train twice, check that the results are equal, and return the recorder and the notes."""
    recorder = CpuRecorder()
    twin, twin_loss = copy.deepcopy(model), copy.deepcopy(loss)
    usual = Trained(monkeypatch, model, loss, batches, training, optim, **more)
    replayed = Trained(monkeypatch, twin, twin_loss, batches, training, optim, recorder=recorder, **more)
    replayed.check_equal(usual)
    assert usual.notes == []
    return recorder, replayed.notes


@every_head
def test_replayed_steps_of_every_head_are_the_steps(monkeypatch, head_spec):
    head = head_variants.build(head_spec)
    model = network(head, head_variants.D)
    recorder, notes = both(monkeypatch, model, CrossEntropyLoss(), Batches())
    if learns_from_steps(head):
        assert notes == [f"training steps are not replayed as a CUDA graph, because {type(head).__name__} also "
                         f"learns outside of gradients, from each step (observe)"]  # fmt: skip
        assert recorder.recordings == 0
    else:
        assert notes == []
        assert (recorder.recordings, recorder.replays) == (1, 2 + 5)  # two of the check, and all steps but the first


@every_loss
@pytest.mark.slow
def test_replayed_steps_of_every_loss_are_the_steps(monkeypatch, loss_spec):
    loss = loss_variants.build(loss_spec)
    model = network(ETFHead(loss_variants.D, loss_variants.K, projection=True, scale=LEARNED), loss_variants.D)
    recorder, notes = both(monkeypatch, model, loss, Parts(loss, loss_variants.K))
    assert notes == []
    assert (recorder.recordings, recorder.replays) == (1, 2 + 5)


@pytest.mark.parametrize("mixing", [Mixup(1.0, until=0.5), CutMix(1.0)])
def test_mixed_batches_are_replayed_and_the_others_apart(monkeypatch, mixing):
    training = TrainConfig(epochs=4, mixing=mixing)
    recorder, notes = both(monkeypatch, small(), CrossEntropyLoss(), Batches(), training)
    assert notes == []
    assert recorder.recordings == 2  # a share of 1 leaves a batch as it is
    assert recorder.replays == 2 * 2 + 12 - 2


@pytest.mark.parametrize("sam", [SharpnessAware(0.1), AsymmetricSharpnessAware(0.1, beta=0.9)])
def test_sharpness_aware_steps_are_replayed(monkeypatch, sam):
    optim = OptimConfig(lr=0.05, clip_norm=1.0, sam=sam)
    recorder, notes = both(monkeypatch, small(), CrossEntropyLoss(), Batches(), optim=optim, class_counts=[9, 5, 2])
    assert notes == []
    assert recorder.recordings == 1


@pytest.mark.parametrize(
    "optimizer",
    [
        spec(torch.optim.SGD, momentum=0.9, nesterov=True),
        spec(torch.optim.SGD),
        spec(torch.optim.SGD, momentum=0.9, dampening=0.5),
        # A bias before batch normalization has a gradient of 0 up to rounding, of which a small eps makes a full step.
        spec(torch.optim.Adam, eps=1e-5),
        spec(torch.optim.AdamW, amsgrad=True, eps=1e-5),
    ],
    ids=str,
)
def test_optimizers_read_their_rates_from_tensors(monkeypatch, optimizer):
    optim = OptimConfig(optimizer=optimizer, lr=0.01, head_lr_ratio=3.0, warmup=0.3)
    recorder, notes = both(monkeypatch, small(), CrossEntropyLoss(), Batches(), optim=optim)
    assert notes == []
    assert recorder.recordings == 1


@pytest.mark.parametrize("how", ["foreach", "fused"])
def test_an_optimizer_that_reads_its_rate_is_not_replayed(monkeypatch, how):
    optim = OptimConfig(optimizer=spec(torch.optim.SGD, momentum=0.9, **{how: how == "foreach"}))
    recorder, (note,) = both(monkeypatch, small(), CrossEntropyLoss(), Batches(), optim=optim)
    assert "_local_scalar_dense" in note
    assert recorder.replays == 0


def test_dropout_draws_what_it_draws_without_replays(monkeypatch):
    model = small(CosineHead(6, 3, scale=LEARNED), dropout=0.5)
    recorder, notes = both(monkeypatch, model, CrossEntropyLoss(), Batches())
    assert (notes, recorder.recordings) == ([], 1)


def test_each_batch_size_and_each_phase_has_a_recording(monkeypatch):
    loss = CrossEntropyLoss()
    optim = OptimConfig(lr=0.05, head_first=0.5)
    recorder, notes = both(monkeypatch, small(), loss, Parts(loss, 3, uneven=1), TrainConfig(epochs=4), optim)
    assert notes == []
    assert (recorder.recordings, recorder.replays) == (4, 4 * 2 + 12 - 4)


def test_a_training_that_was_stopped_resumes(monkeypatch, tmp_path):
    training, file = TrainConfig(epochs=4), tmp_path / "checkpoint.pt"

    def made():
        return small(CosineHead(6, 3, scale=LEARNED, generator=torch.Generator().manual_seed(0)), dropout=0.5)

    models = [made(), made()]
    Trained(monkeypatch, models[0], CrossEntropyLoss(), Batches(), training, recorder=CpuRecorder())
    stop = StopSignal()
    with pytest.raises(Killed):
        Trained(monkeypatch, models[1], CrossEntropyLoss(), StopAt(stop, 7), training, recorder=CpuRecorder(),
                checkpoint=file, stop=stop)  # fmt: skip
    rates = [group["lr"] for group in torch.load(file, weights_only=True)["optimizer"]["param_groups"]]
    assert all(isinstance(rate, float) for rate in rates)
    again, recorder, more = made(), CpuRecorder(), {"checkpoint": file, "resume": True}
    Trained(monkeypatch, again, CrossEntropyLoss(), Batches(), training, recorder=recorder, **more)
    assert recorder.recordings == 1
    for one, other in zip(again.state_dict().values(), models[0].state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)  # rates in a graph are float32


# What cannot be replayed.


class OfPython(LossTerm):
    """A loss with something that a recording does not see."""

    needs_progress = True

    def __init__(self, what):
        super().__init__()
        self.what, self.share = what, 0.0
        self.register_buffer("weight", torch.ones(3))

    def set_progress(self, progress):
        super().set_progress(progress)
        self.share = progress

    def compute(self, outputs, batch):
        values = nn.functional.cross_entropy(outputs.logits, batch.labels, reduction="none")
        if self.what == "number of progress":
            return values.mean() * (1 + self.share)
        if self.what == "item":
            return values.mean() * (1.0 if values.mean().item() > 0 else 2.0)
        if self.what == "mask":
            return values[values > 0].mean()
        if self.what == "nonzero":
            return values.index_select(0, (values > 0).nonzero().flatten()).mean()
        if self.what == "new buffer":
            self.weight = 0.9 * self.weight + 0.1 * outputs.logits.detach().mean(0)
            return (values * self.weight[batch.labels]).mean()
        return values.mean()


FAULTS = [
    ("number of progress", "a replayed step gives other loss terms: they differ by "),
    ("item", "aten._local_scalar_dense.default makes the host wait for the device"),
    ("mask", "aten.index.Tensor makes the host wait for the device"),
    ("nonzero", "aten.nonzero.default makes the host wait for the device"),
    ("new buffer", "a step replaces tensors of the loss's state in place of changing them"),
]


@pytest.mark.parametrize(("fault", "reason"), FAULTS)
def test_what_cannot_be_replayed_is_found_and_training_goes_on_as_if_nothing_was(monkeypatch, fault, reason):
    model, recorder = small(dropout=0.5), CpuRecorder()
    twin = copy.deepcopy(model)
    usual = Trained(monkeypatch, model, OfPython(fault), Batches())
    tried = Trained(monkeypatch, twin, OfPython(fault), Batches(), recorder=recorder)
    assert len(tried.notes) == 1
    assert tried.notes[0].startswith(f"training steps are not replayed as a CUDA graph, because {reason}")
    assert same_state(tried.model, usual.model)
    assert same_state(tried.average, usual.average)
    assert tried.curve == usual.curve


def test_a_recorder_that_fails_leaves_the_training_as_it_was(monkeypatch):
    class Fails(CpuRecorder):
        def record(self, call):
            call()
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile with X")

    model = small(dropout=0.5)
    twin = copy.deepcopy(model)
    usual = Trained(monkeypatch, model, CrossEntropyLoss(), Batches())
    tried = Trained(monkeypatch, twin, CrossEntropyLoss(), Batches(), recorder=Fails())
    assert tried.notes == ["training steps are not replayed as a CUDA graph, because CUDA error: operation not "
                           "permitted when stream is capturing Compile with X"]  # fmt: skip
    assert same_state(tried.model, usual.model)
    assert tried.curve == usual.curve


FROZEN = {
    "rates": ("replayed_step.ReplayedStep._rates_as_tensors", lambda *_: nullcontext(), "other weights"),
    "batch": ("static_batch.StaticBatch.fill", lambda *_: None, "other weights"),
    "number": ("replayed_step.run_alone", None, "other weight average"),
}


@pytest.mark.parametrize("what", FROZEN)
@pytest.mark.parametrize("checked", [True, False])
def test_a_value_that_is_frozen_is_found(monkeypatch, what, checked):
    """The check before the first replay finds it; without the check, the steps differ."""
    place, mutant, reason = FROZEN[what]
    if mutant is None:
        real = WeightEMA.update
        monkeypatch.setattr(WeightEMA, "update", lambda self, model, step: real(self, model, int(step)))
        monkeypatch.setattr("support.recorded_steps.WAITING", ())
    else:
        monkeypatch.setattr(f"nc_tools.training.{place}", mutant)
    if not checked:
        monkeypatch.setattr("nc_tools.training.replayed_step._check", lambda *_: None)
        with pytest.raises(AssertionError):
            both(monkeypatch, small(), CrossEntropyLoss(), Batches())
        return
    recorder, (note,) = both(monkeypatch, small(), CrossEntropyLoss(), Batches())
    assert f"a replayed step gives {reason}" in note
    assert recorder.recordings == 1


def test_a_replayed_weight_of_a_sum_follows_its_schedule(monkeypatch):
    terms = [term(LinearSchedule(1.0, 0.2), CrossEntropyLoss()), term(LinearSchedule(0.0, 2.0), SupConLoss())]
    loss = WeightedSumLoss(terms)
    recorder, notes = both(monkeypatch, small(), loss, Parts(loss, 3))
    assert (notes, recorder.recordings) == ([], 1)


def test_late_class_weights_come_in_replays(monkeypatch):
    loss = DeferredReweightingLoss([50, 5, 2], start=0.5)
    recorder, notes = both(monkeypatch, small(), loss, Batches())
    assert (notes, recorder.recordings) == ([], 1)


def test_trainings_that_share_passes_are_not_recorded(monkeypatch):
    recorder = CpuRecorder()
    monkeypatch.setattr("nc_tools.training.loop.recorder_for", lambda _device: recorder)

    def steps(epochs):
        return fit.steps(small(), CrossEntropyLoss(), Batches(), TrainConfig(epochs=epochs), OptimConfig())

    run_side_by_side([steps(2), steps(2)])
    assert recorder.recordings == 0
    ended = run_side_by_side([steps(2), steps(4)])  # the second is left alone, and goes on alone
    assert recorder.recordings == 1
    assert all(end.error is None for end in ended)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.slow
def test_no_step_before_keeps_its_graph(monkeypatch, alone):
    """Its nodes would accumulate the gradients of a recorded step on a stream that is not recorded."""
    graphs = []

    class Looks(CpuRecorder):
        def warm_up(self, call):
            passes = [each for each in gc.get_objects() if type(each) is BackbonePass]
            graphs.append([each for each in passes if each.features is not None])
            return super().warm_up(call)

    monkeypatch.setattr("nc_tools.training.loop.recorder_for", lambda _device: Looks())
    steps = fit.steps(small(), CrossEntropyLoss(), Batches(), AVERAGED, OptimConfig())
    if alone:
        run_alone(steps)
    else:
        run_side_by_side([steps])
    assert graphs == [[]] * 5


def test_capture_can_be_switched_off(monkeypatch):
    recorder = CpuRecorder()
    Trained(monkeypatch, small(), CrossEntropyLoss(), Batches(), replace(AVERAGED, capture=False), recorder=recorder)
    assert recorder.recordings == 0


def test_seconds_of_the_recording_do_not_count(monkeypatch):
    class Slow(CpuRecorder):
        def record(self, call):
            time.sleep(0.5)
            return super().record(call)

    monkeypatch.setattr("nc_tools.training.loop.recorder_for", lambda _device: Slow())
    start = time.perf_counter()
    fitted = fit(small(), CrossEntropyLoss(), Batches(), AVERAGED, OptimConfig())
    assert time.perf_counter() - start - fitted.seconds > 0.5


# On a GPU.


class OnGpu(Batches):
    def __init__(self, batches):
        super().__init__(batches.size, batches.steps)
        self.batches = batches

    def epoch(self, epoch, start=0):
        for batch in self.batches.epoch(epoch, start):
            yield changed(batch, Tensor.cuda)


class CountingRecorder(CudaRecorder):
    recordings = 0

    def record(self, call):
        self.recordings += 1
        return super().record(call)


def on_gpu(test):
    return pytest.mark.gpu(
        pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")(test)
    )


def both_on_gpu(monkeypatch, model, loss, batches, training=AVERAGED, optim=WITH_ALL, **tolerance):
    model, loss, batches, notes = model.cuda(), loss.cuda(), OnGpu(batches), []
    recorder = CountingRecorder(torch.device("cuda"))
    monkeypatch.setattr("nc_tools.training.loop.recorder_for", lambda _device: recorder)
    models = [model, copy.deepcopy(model)]
    for each, capture in zip(models, (False, True), strict=True):
        torch.manual_seed(1)
        config = replace(training, capture=capture)
        steps = fit.steps(each, copy.deepcopy(loss), batches, config, optim, note=notes.append)
        (ended,) = run_side_by_side([steps])  # as runs of a comparison are made
        assert ended.error is None
    for (name, a), b in zip(models[0].state_dict().items(), models[1].state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, **tolerance, msg=lambda text, name=name: f"{name}: {text}")
    return recorder.recordings, notes


IN_FLOAT32 = replace(AVERAGED, precision="float32")
CLOSE = {"rtol": 1e-3, "atol": 1e-4}


@on_gpu
@every_head
def test_captured_steps_of_every_head_are_the_steps(monkeypatch, head_spec):
    head = head_variants.build(head_spec)
    model = network(head, head_variants.D)
    captured, notes = both_on_gpu(monkeypatch, model, CrossEntropyLoss(), Batches(), IN_FLOAT32, **CLOSE)
    assert (captured, len(notes)) == ((0, 1) if learns_from_steps(head) else (1, 0)), notes


@on_gpu
@every_loss
def test_captured_steps_of_every_loss_are_the_steps(monkeypatch, loss_spec):
    loss = loss_variants.build(loss_spec)
    model = network(ETFHead(loss_variants.D, loss_variants.K, projection=True, scale=LEARNED), loss_variants.D)
    batches = Parts(loss, loss_variants.K)
    assert both_on_gpu(monkeypatch, model, loss, batches, IN_FLOAT32, **CLOSE) == (1, [])


@on_gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("optimizer", [spec(torch.optim.SGD, momentum=0.9), spec(torch.optim.AdamW)], ids=str)
def test_captured_steps_with_dropout_are_the_steps(monkeypatch, precision, compiled, optimizer):
    training = replace(AVERAGED, precision=precision, compile=compiled)
    optim = OptimConfig(optimizer=optimizer, lr=0.01, clip_norm=1.0)
    close = CLOSE if precision == "float32" else {"rtol": 2e-2, "atol": 2e-2}
    model = small(dropout=0.5)
    assert both_on_gpu(monkeypatch, model, CrossEntropyLoss(), Batches(), training, optim, **close) == (1, [])


@on_gpu
@pytest.mark.parametrize(("fault", "reason"), [("item", "synchronizing"), ("number of progress", "other loss terms")])
def test_what_cannot_be_captured_is_found_on_a_gpu(monkeypatch, fault, reason):
    model, loss = small(dropout=0.5), OfPython(fault)
    _, (note,) = both_on_gpu(monkeypatch, model, loss, Batches(), IN_FLOAT32, **CLOSE)
    assert reason in note


@on_gpu
def test_a_capture_that_fails_leaves_a_training_that_draws_random_numbers(monkeypatch):
    """What waits for the GPU gets as far as the capture here, because nothing is tried before."""
    monkeypatch.setattr(CudaRecorder, "warm_up", lambda _self, call: call())
    model, loss = small(dropout=0.5), OfPython("item")
    captured, notes = both_on_gpu(monkeypatch, model, loss, Batches(), IN_FLOAT32, **CLOSE)
    assert (captured, len(notes)) == (1, 1)
