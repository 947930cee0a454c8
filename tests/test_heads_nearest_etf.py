"""The nearest-ETF head and the class means it follows."""

import copy
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.small_training import Batches, DeviceReads, StopAt, same_state, small
from support.two_processes import in_two_processes
from torch import nn

from nc_tools._support.signals import Killed, StopSignal
from nc_tools.geometry import nearest_simplex_etf
from nc_tools.heads import LEARNED, ETFHead, NearestETFHead, PrototypeHead
from nc_tools.heads.running_means import RunningClassMeans
from nc_tools.losses import CrossEntropyLoss, DotRegressionLoss
from nc_tools.training import OptimConfig, TrainConfig, fit
from nc_tools.training.ema import WeightEMA

D, K = 12, 5


def step(seed, n=16, classes=K):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, D, generator=generator), torch.randint(classes, (n,), generator=generator)


def observe(head, seeds, **options):
    for seed in seeds:
        features, labels = step(seed, **options)
        head.observe(head.outputs(features), labels, 0.5)
    return head


def is_etf(frame):
    classes = len(frame)
    gram = (classes * torch.eye(classes) - 1) / (classes - 1)
    return bool(torch.allclose(frame.float() @ frame.float().T, gram, atol=1e-5))


@pytest.mark.parametrize("n", [3, 7])
def test_class_means_against_a_scalar_loop(n):
    running, means = RunningClassMeans(K, D, momentum=0.8), {}
    for seed in range(6):
        features, labels = step(seed, n=n, classes=K - 1)  # the last class never comes, others are missing at times
        running.update(features, labels)
        for k in set(labels.tolist()):
            rows = [f.tolist() for f, y in zip(features, labels, strict=True) if int(y) == k]
            mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
            old = means.get(k)
            means[k] = mean if old is None else [0.8 * a + 0.2 * b for a, b in zip(old, mean, strict=True)]
        assert running.observed.tolist() == [float(k in means) for k in range(K)]
        for k in range(K):
            assert running.means[k].tolist() == pytest.approx(means.get(k, [0.0] * D), abs=1e-6)
    overall = [sum(means[k][d] for k in means) / len(means) for d in range(D)]
    assert running.overall().tolist() == pytest.approx(overall, abs=1e-6)
    assert running.completed()[K - 1].tolist() == pytest.approx(overall, abs=1e-6)
    assert torch.equal(running.completed()[: K - 1], running.means[: K - 1].double())


def test_the_frame_moves_at_its_turn_and_is_then_the_nearest():
    head = NearestETFHead(D, K, every=3, momentum=0.5, delta=0.2)
    for seed in range(8):
        before = head.frame.clone()
        observe(head, [seed])
        if seed % 3:
            assert torch.equal(head.frame, before)
        else:
            expected = nearest_simplex_etf(head.class_means.completed(), before, 0.2)
            assert torch.allclose(head.frame, expected.float(), atol=1e-6)
            assert not torch.allclose(head.frame, before, atol=1e-3)
        assert is_etf(head.frame)
    assert float(head.since_refresh) == 8 % head.every


def test_means_are_those_of_the_embedded_features():
    head = NearestETFHead(D, K, projection=6, momentum=0.0)
    features, labels = step(0)
    head.observe(head.outputs(features), labels, 0.0)
    own = head.embed(features)[labels == 2].mean(0)
    assert torch.allclose(head.class_means.means[2], own, atol=1e-6)


def test_scores_are_taken_about_the_training_mean():
    head = observe(NearestETFHead(D, K, scale=3.0), range(4))
    features, _ = step(9)
    center = head.class_means.overall().tolist()
    u = nn.functional.normalize(features[0], dim=0).tolist()
    for k in range(K):
        expected = 3.0 * sum(w * (a - m) for w, a, m in zip(head.frame[k].tolist(), u, center, strict=True))
        assert float(head(features)[0, k]) == pytest.approx(expected, abs=1e-5)


def test_evaluation_moves_nothing_and_looks_at_one_sample_at_a_time():
    head = observe(NearestETFHead(D, K), range(3)).eval()
    before = {name: value.clone() for name, value in head.state_dict().items()}
    features, _ = step(9)
    together = head(features)
    assert torch.allclose(torch.cat([head(row) for row in features.split(1)]), together, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())


def test_classes_without_samples_keep_an_etf_and_their_vectors_near():
    head = NearestETFHead(D, K, every=1, delta=0.0)
    before = head.frame.clone()
    observe(head, range(3), classes=2)
    assert head.class_means.has_mean.tolist() == [True, True, False, False, False]
    assert is_etf(head.frame)
    # The means fix only the direction between vertices 0 and 1; vertices 2 to 4 rotate as little as that allows.
    assert float((head.frame[2:] * before[2:]).sum(1).min()) > 0.5
    assert torch.isfinite(head(step(1)[0])).all()


@pytest.mark.parametrize("width", [K - 1, K, D])
def test_every_width_that_holds_an_etf(width):
    head = NearestETFHead(width, K, every=1)
    head.observe(head.outputs(step(0)[0][:, :width]), step(0)[1], 0.0)
    assert is_etf(head.frame)


def test_a_step_that_is_not_finite_leaves_the_frame():
    head = observe(NearestETFHead(D, K, every=1), [0])
    before = head.frame.clone()
    head.observe(head.outputs(torch.full((2, D), math.inf)), torch.tensor([0, 1]), 0.5)
    assert torch.equal(head.frame, before)


def test_an_ordinary_step_does_not_wait_for_the_device():
    for head in (NearestETFHead(D, K, every=2), PrototypeHead(D, K)):
        observe(head, [0])
        features, labels = step(1)
        with DeviceReads() as reads:
            head.observe(head.outputs(features), labels, 0.5)
            head(features)
        assert reads.operations == []
        observe(head, [2])


@pytest.mark.parametrize("cls", [NearestETFHead, PrototypeHead])
def test_half_precision_models_keep_their_means(cls):
    head, reference = cls(D, K).to(torch.bfloat16), cls(D, K)
    for seed in range(5):
        features, labels = step(seed)
        head.observe(head.outputs(features.to(torch.bfloat16)), labels, 0.5)
        reference.observe(reference.outputs(features), labels, 0.5)
    assert head.class_means.means.dtype == torch.bfloat16
    assert torch.allclose(head.class_means.means.float(), reference.class_means.means, atol=0.02)


def test_a_copy_and_a_saved_head_go_on_alike(tmp_path):
    head = observe(NearestETFHead(D, K, every=3), range(4))
    twin, other = copy.deepcopy(head), NearestETFHead(D, K, every=3, frame_seed=8)
    save_file(head.state_dict(), tmp_path / "head.safetensors")
    other.load_state_dict(load_file(tmp_path / "head.safetensors"))
    assert float(other.since_refresh) == 4 % 3
    for one in (head, twin, other):
        observe(one, range(4, 9))
    assert same_state(head, twin)
    assert same_state(head, other)
    observe(twin, [20])
    assert not same_state(head, twin)


@pytest.mark.parametrize("strict", [True, False])
def test_a_learned_layer_never_loads_into_the_frame(strict):
    with pytest.raises(RuntimeError, match="learned weight"):
        NearestETFHead(D, K).load_state_dict(nn.Linear(D, K).state_dict(), strict=strict)
    with pytest.raises((RuntimeError, ValueError), match="nearest simplex ETF"):
        NearestETFHead(D, K).load_state_dict(PrototypeHead(D, K).state_dict(), strict=strict)


def train(head, *, batches=None, loss=None, ema=0.9, lr=0.05, **options):
    model = small(head, dropout=0.3)
    torch.manual_seed(7)
    training = TrainConfig(epochs=4, ema_decay=ema, checkpoint_seconds=1000.0)
    return model, fit(model, loss or CrossEntropyLoss(), batches or Batches(), training, OptimConfig(lr=lr), **options)


def head_of(cls):
    # Behind a ReLU some vertices of a frame that does not turn are out of reach without a projection to several.
    options = {"every": 2, "scale": LEARNED} if cls is NearestETFHead else {"projection": 12}
    return cls(6, 3, **options, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("cls", [NearestETFHead, PrototypeHead])
@pytest.mark.parametrize("at", [4, 5, 8])
def test_a_stopped_training_goes_on_bit_equal(tmp_path, cls, at):
    straight, straight_fit = train(head_of(cls))
    stop, path = StopSignal(), tmp_path / "checkpoint.pt"
    with pytest.raises(Killed):
        train(head_of(cls), batches=StopAt(stop, at), checkpoint=path, stop=stop)
    resumed, resumed_fit = train(head_of(cls), checkpoint=path, resume=True)
    assert same_state(straight, resumed)
    assert same_state(straight_fit.model, resumed_fit.model)
    assert straight.head.class_means.observed.tolist() == [1.0, 1.0, 1.0]


class Blobs(Batches):
    """Three classes with centers of their own."""

    def epoch(self, epoch, start=0):
        centers = 2 * torch.eye(3, 9).reshape(3, 1, 3, 3)
        for batch in super().epoch(epoch, start):
            batch.inputs.mul_(0.2).add_(centers[batch.labels])
            yield batch


# Dot regression only attracts: with it, classes cannot leave prototypes that lie together.
@pytest.mark.parametrize(
    ("cls", "loss"),
    [(NearestETFHead, CrossEntropyLoss()), (NearestETFHead, DotRegressionLoss()), (PrototypeHead, CrossEntropyLoss())],
    ids=lambda part: getattr(part, "__name__", type(part).__name__),
)
def test_it_learns(cls, loss):
    model, fitted = train(head_of(cls), batches=Blobs(size=30, steps=8), loss=loss, ema=0.8, lr=0.1)
    for trained in (model.eval(), fitted.model):
        batch = next(Blobs(size=30).epoch(50))
        assert float((trained(batch.inputs).argmax(1) == batch.labels).float().mean()) == 1.0
        assert is_etf(trained.head.frame)


def test_the_averaged_model_holds_the_last_frame_not_an_average_of_frames():
    model = small(NearestETFHead(6, 3, every=1))
    ema = WeightEMA(model, decay=0.9)
    for number in range(5):
        batch = next(Batches().epoch(number))
        with torch.no_grad():
            model.head.observe(model.outputs(batch.inputs), batch.labels, 0.5)
            model.backbone[1].weight += 1.0
        ema.update(model, number)
    assert torch.equal(ema.model.head.frame, model.head.frame)
    assert torch.equal(ema.model.head.class_means.means, model.head.class_means.means)
    assert torch.equal(ema.model.head.class_means.observed, model.head.class_means.observed)
    assert not torch.equal(ema.model.backbone[1].weight, model.backbone[1].weight)
    assert not torch.equal(ema.model.backbone[2].running_mean, model.backbone[2].running_mean)


def test_normalization_inside_a_head_is_averaged_as_elsewhere():
    class Normalized(ETFHead):
        geometry = "simplex ETF after a norm"

        def __init__(self, feature_dim, num_classes):
            super().__init__(feature_dim, num_classes)
            self.norm = nn.BatchNorm1d(feature_dim)

    model = small(Normalized(6, 3))
    ema = WeightEMA(model, decay=0.5)
    with torch.no_grad():
        model.head.norm.running_mean += 4.0
        model.head.frame.neg_()
    ema.update(model, 100)
    assert torch.allclose(ema.model.head.norm.running_mean, torch.full((6,), 2.0))
    assert torch.equal(ema.model.head.frame, model.head.frame)


def _worker(rank, folder):
    for cls in (NearestETFHead, PrototypeHead):
        head = cls(D, K)
        for seed in range(12):
            features, labels = step(seed)
            head.observe(head.outputs(features[rank::2]), labels[rank::2], 0.5)
        save_file(head.state_dict(), f"{folder}/{cls.__name__}{rank}.safetensors")


@pytest.mark.slow
def test_two_processes_agree_with_each_other_and_with_one(tmp_path):
    in_two_processes(_worker, str(tmp_path))
    for cls in (NearestETFHead, PrototypeHead):
        alone = observe(cls(D, K), range(12)).state_dict()
        first, second = (load_file(tmp_path / f"{cls.__name__}{rank}.safetensors") for rank in range(2))
        assert all(torch.equal(first[name], second[name]) for name in alone)
        assert torch.equal(first["class_means.observed"], alone["class_means.observed"])
        for name in ("frame", "class_means.means"):
            assert torch.allclose(first[name], alone[name], atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"every": 0}, "every must be at least 1 step, got 0"),
        ({"delta": -1.0}, "delta must be at least 0, got -1.0"),
        ({"delta": math.nan}, "delta must be at least 0"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1.0"),
        ({"momentum": -0.1}, r"momentum must lie in \[0, 1\)"),
        ({"feature_dim": K - 2}, "needs feature_dim >= 4, got 3: give the head projection=4"),
        ({"projection": K - 2}, "needs feature_dim >= 4, got 3"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        NearestETFHead(**{"feature_dim": D, "num_classes": K, **change})
