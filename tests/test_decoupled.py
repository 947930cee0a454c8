"""Second stages on their own: what each changes in a head, what it keeps, and the heads that it does not accept."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from nc_tools.data import Mixup
from nc_tools.heads import LEARNED, LEARNED_PER_CLASS, CosineHead, ETFHead, LinearHead
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch, Collected
from nc_tools.training import (
    LearnableWeightScaling,
    NearestClassMean,
    OptimConfig,
    RetrainClassifier,
    SharpnessAware,
    TauNormalize,
    TrainConfig,
    retrain,
)
from nc_tools.training.decoupled.stage import EpochsAfter, FrozenBackbone
from nc_tools.training.learning_rate import rate_factor

D, K, N = 5, 3, 48
TRAINING = TrainConfig(epochs=10, batch_size=8)
OPTIM = OptimConfig(lr=0.2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def backbone():
    net = nn.Sequential(nn.Linear(D, D), nn.BatchNorm1d(D), nn.ReLU())
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator(3)))
    return net


class Rows:
    """A loader over vectors: the same in every epoch, six batches of eight."""

    def __init__(self, indices=None):
        self.indices = torch.arange(N) if indices is None else indices
        self.inputs = torch.randn(N, D, generator=generator(1))
        self.labels = torch.arange(N) % K

    def __len__(self):
        return 6

    def epoch(self, epoch, start=0):  # noqa: ARG002
        for part in self.indices.split(8)[start:]:
            yield Batch(self.inputs[part], self.labels[part], part)


def with_backbone(head):
    return Classifier(backbone(), head)


def linear(seed=0, **options):
    return LinearHead(D, K, generator=generator(seed), **options)


def retrained(model, stage, fresh=None, **options):
    return retrain(model, stage, fresh or linear(9), Rows(), TRAINING, OPTIM, **options)


def test_the_backbone_keeps_every_weight_and_every_batch_statistic():
    model = with_backbone(linear())
    before = copy.deepcopy(model.backbone.state_dict())
    retrained(model, RetrainClassifier(share=0.3))
    assert all(torch.equal(before[name], value) for name, value in model.backbone.state_dict().items())
    assert not model.backbone.training


def test_a_frozen_backbone_stays_in_eval_mode_and_gives_no_gradient():
    frozen = FrozenBackbone(backbone())
    assert not any(part.training for part in frozen.backbone.modules())
    frozen.train()
    assert not any(part.training for part in frozen.modules())
    alone, together = (frozen(torch.ones(n, D))[0] for n in (1, 4))
    assert torch.allclose(alone, together)
    assert not frozen(torch.ones(2, D, requires_grad=True)).requires_grad


@pytest.mark.parametrize("stage", [RetrainClassifier(share=0.5), LearnableWeightScaling(share=0.5, lr_ratio=0.5)])
def test_a_retrained_stage_is_plain_descent_on_frozen_features(stage):
    """Against a loop of its own: SGD with momentum, decay on the matrix alone, cross-entropy from the definition."""
    model = with_backbone(linear())
    features = model.backbone.eval()(Rows().inputs).detach()
    rows, bias = model.head.weight.detach().clone(), model.head.bias.detach().clone()
    fresh = linear(9)
    if isinstance(stage, RetrainClassifier):
        parts = [fresh.weight.detach().clone().requires_grad_(), fresh.bias.detach().clone().requires_grad_()]
    else:
        parts = [torch.ones(K, requires_grad=True)]
    speed = [torch.zeros_like(p) for p in parts]
    epochs, labels = 5, Rows().labels
    for step in range(6 * epochs):
        at = torch.arange(N).split(8)[step % 6]
        z = features[at] @ parts[0].T + parts[1] if len(parts) == 2 else parts[0] * (features[at] @ rows.T + bias)
        own = z.gather(1, labels[at, None]).squeeze(1)
        gradients = torch.autograd.grad((z.exp().sum(1).log() - own).mean(), parts)
        rate = stage.lr_ratio * OPTIM.lr * rate_factor(step, 6 * epochs, OPTIM)
        for i, (p, g) in enumerate(zip(parts, gradients, strict=True)):
            decay = OPTIM.weight_decay if p.ndim == 2 else 0.0
            speed[i] = 0.9 * speed[i] + g + decay * p.detach()
            with torch.no_grad():
                p -= rate * speed[i]
    retrained(model, stage, fresh)
    weight, offset = parts if len(parts) == 2 else (parts[0][:, None] * rows, parts[0] * bias)
    assert torch.allclose(model.head.weight, weight, atol=1e-5)
    assert torch.allclose(model.head.bias, offset, atol=1e-5)


def test_mixing_and_sam_of_the_first_stage_are_switched_off():
    plain, other = with_backbone(linear()), with_backbone(linear())
    stage = RetrainClassifier(share=0.3)
    retrained(plain, stage)
    training, optim = replace(TRAINING, mixing=Mixup()), replace(OPTIM, sam=SharpnessAware())
    retrain(other, stage, linear(9), Rows(), training, optim)
    assert torch.equal(plain.head.weight, other.head.weight)


def test_weight_scaling_scales_scores_by_class_and_folds_into_a_linear_head():
    head = linear()
    stage = LearnableWeightScaling()
    scaled = stage.head_to_train(head, linear(9))
    assert [name for name, p in scaled.named_parameters() if p.requires_grad] == ["factor"]
    h = torch.randn(4, D, generator=generator(2))
    assert torch.allclose(scaled(h), head(h))
    with torch.no_grad():
        scaled.factor.copy_(torch.tensor([2.0, 0.5, 3.0]))
    w, b = head.weight.tolist(), head.bias.tolist()
    for i, row in enumerate(h.tolist()):
        for k, f in enumerate((2.0, 0.5, 3.0)):
            z = f * (math.fsum(x * y for x, y in zip(w[k], row, strict=True)) + b[k])
            assert scaled(h)[i, k].item() == pytest.approx(z, rel=1e-4, abs=1e-5)
    expected = scaled(h)
    for _ in range(2):  # after every epoch: folding twice scales once
        stage.fold(scaled, head)
    assert torch.allclose(head(h), expected, atol=1e-6)
    without = linear(bias=False)
    stage.fold(stage.head_to_train(without, linear(9)), without)
    assert without.bias is None


@pytest.mark.parametrize("kind", [CosineHead, ETFHead])
def test_weight_scaling_learns_the_scales_of_unit_rows_alone(kind):
    head = kind(D, K, scale=LEARNED_PER_CLASS)
    before = copy.deepcopy(head.state_dict())
    retrained(with_backbone(head), LearnableWeightScaling(share=0.3))
    changed = {n for n, v in head.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {"scale_of.raw"}


def test_a_frame_with_a_projection_learns_it_anew_and_keeps_the_frame():
    head, fresh = (ETFHead(D, K, projection=True, frame_seed=4, generator=generator(s)) for s in (0, 1))
    before = copy.deepcopy(head.state_dict())
    retrained(with_backbone(head), RetrainClassifier(), fresh)
    changed = {n for n, v in head.state_dict().items() if not torch.equal(v, before[n])}
    assert len(changed) == 1
    assert "frame" not in changed


def test_tau_normalization_shortens_the_rows_and_removes_the_bias():
    head = linear()
    before = head.weight.detach().tolist()
    TauNormalize(tau=0.6).apply(head, lambda: None)
    for k, row in enumerate(before):
        norm = math.sqrt(math.fsum(x * x for x in row))
        assert head.weight[k].tolist() == pytest.approx([x / norm**0.6 for x in row], rel=1e-5)
    assert head.bias.tolist() == [0.0] * K
    TauNormalize(tau=0.6).apply(linear(bias=False), lambda: None)


@pytest.mark.parametrize("head", [linear(), CosineHead(D, K)], ids=["linear", "cosine"])
def test_the_nearest_class_mean_is_the_mean_of_unit_features_and_predicts_by_cosine(head):
    h, y = torch.randn(30, D, generator=generator(5)) * 3, torch.arange(30) % K
    if head.bias is not None:
        nn.init.constant_(head.bias[:1], 50.0)
    NearestClassMean().apply(head, lambda: Collected(h, h, torch.zeros(30, K), y))
    units = [[x / math.hypot(*row) for x in row] for row in h.tolist()]
    means = [[math.fsum(u[d] for u, k in zip(units, y.tolist(), strict=True) if k == c) for d in range(D)]
             for c in range(K)]  # fmt: skip
    expected = [max(range(K), key=lambda k: math.fsum(a * b for a, b in zip(u, means[k], strict=True))
                    / math.hypot(*means[k])) for u in units]  # fmt: skip
    assert head(h).argmax(1).tolist() == expected


NOT_ACCEPTED = [
    (RetrainClassifier(), ETFHead(D, K), "this ETFHead has fixed class vectors and no projection.*Set projection=True"),
    (RetrainClassifier(), ETFHead(D, K, scale=LEARNED), "this ETFHead has fixed class vectors and no projection"),
    (LearnableWeightScaling(), ETFHead(D, K), "class vectors of ETFHead all have one norm.*scale=LEARNED_PER_CLASS"),
    (LearnableWeightScaling(), CosineHead(D, K), "use a LinearHead"),
    (TauNormalize(), CosineHead(D, K), "those of CosineHead all have the same norm"),
    (NearestClassMean(), ETFHead(D, K), "Use a LinearHead or a CosineHead"),
]


@pytest.mark.parametrize(("stage", "head", "message"), NOT_ACCEPTED)
def test_the_error_for_a_head_with_nothing_to_change_names_other_heads(stage, head, message):
    with pytest.raises(ValueError, match=message):
        stage.check(head)


def test_the_head_is_checked_before_anything_is_frozen():
    model = with_backbone(ETFHead(D, K))
    with pytest.raises(ValueError, match="projection=True"):
        retrained(model, RetrainClassifier())
    assert all(p.requires_grad for p in model.backbone.parameters())


@pytest.mark.parametrize(
    "setting", [(RetrainClassifier, "share", 0.0), (LearnableWeightScaling, "lr_ratio", math.inf),
              (TauNormalize, "tau", -0.1), (TauNormalize, "tau", math.nan)],
)  # fmt: skip
def test_settings_are_checked_when_created(setting):
    stage, name, value = setting
    with pytest.raises(ValueError, match=rf"{stage.__name__}\.{name} must be"):
        stage(**{name: value})


def test_a_stage_has_a_length_and_a_rate_of_its_own():
    assert [RetrainClassifier(share=s).epochs(50) for s in (0.1, 0.5, 0.001, 2.0)] == [5, 25, 1, 100]
    assert TauNormalize().epochs(50) == 1
    first = replace(OPTIM, decay_norm_and_bias=True)
    assert RetrainClassifier(lr_ratio=3.0).optim(first) == replace(first, lr=3 * first.lr)
    assert not LearnableWeightScaling().optim(first).decay_norm_and_bias


def test_every_epoch_reports_the_model_of_that_epoch():
    reports, model = [], with_backbone(linear())
    h = torch.randn(4, D, generator=generator(2))

    def report(epoch, values, reported):
        reports.append((epoch, set(values), reported is model, reported.head(h).detach()))

    fitted = retrained(model, RetrainClassifier(share=0.3), epoch_end=report)
    epochs, keys, is_model, logits = zip(*reports, strict=True)
    assert epochs == (1, 2, 3)
    assert all({"train/loss", "train/lr", "train/accuracy"} <= names for names in keys)
    assert all(is_model)
    assert not torch.equal(logits[0], logits[1])
    assert torch.equal(logits[-1], model.head(h))
    assert fitted.model is model
    assert fitted.seconds > 0


def test_the_weight_average_is_what_is_kept():
    model = with_backbone(linear())
    plain = with_backbone(linear())
    retrain(model, RetrainClassifier(), linear(9), Rows(), replace(TRAINING, ema_decay=0.9), OPTIM)
    retrained(plain, RetrainClassifier())
    assert not torch.equal(model.head.weight, plain.head.weight)


def test_its_epochs_continue_those_of_the_first_stage():
    epochs = []

    class Recording(Rows):
        def epoch(self, epoch, start=0):
            epochs.append((epoch, start))
            return super().epoch(epoch, start)

    retrain(with_backbone(linear()), RetrainClassifier(share=0.3), linear(9), Recording(), TRAINING, OPTIM)
    assert epochs == [(10, 0), (11, 0), (12, 0)]
    assert [b.index.tolist() for b in EpochsAfter(Rows(), 3).epoch(0, 4)] == [[*range(32, 40)], [*range(40, 48)]]
