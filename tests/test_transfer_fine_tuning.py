"""Fine-tuning: what each method starts from and trains, and which images are read when."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from nc_tools.data import Augment, BatchOptions, DataConfig, load_data
from nc_tools.heads import LinearHead
from nc_tools.metrics import fit_probe, neural_collapse
from nc_tools.models import Classifier, ConvNet
from nc_tools.seeds import stream
from nc_tools.surgery import backbone_blocks
from nc_tools.training import OptimConfig, TrainConfig
from nc_tools.transfer import (
    FineTuning,
    Full,
    ProbeThenFull,
    SkipConnection,
    fine_tune,
    image_target,
    layer_features,
    least_nc1_layer,
)
from nc_tools.transfer.fine_tuning import by_score
from nc_tools.transfer.target_task import Target

QUICK = FineTuning(rates=(0.01, 0.1), max_extensions=0, training=TrainConfig(epochs=2, batch_size=32))


def backbone(seed=0):
    torch.manual_seed(seed)
    return ConvNet(1, 8, width=4)


@pytest.fixture(scope="module")
def sources():
    return load_data(DataConfig(held_out_classes=3))


@pytest.fixture
def target(sources):
    options = BatchOptions(batch_size=32, mean=sources.mean, std=sources.std, augment=Augment(1, False))
    return image_target(sources.transfer_train, sources.transfer_test, options)


def everything(target):
    return torch.arange(len(target.labels))


# What each method starts from


def test_full_fine_tuning_starts_from_a_copy_with_all_of_it_to_train(target):
    trained = backbone().requires_grad_(False)
    model = Full().start(trained, target, everything(target), seed=3)
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in trained.parameters())
    for name, value in trained.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value)
    expected = LinearHead(16, 3, generator=stream(3, "head"))
    assert torch.equal(model.head.weight, expected.weight)


def test_lp_ft_starts_from_the_probe_of_the_samples_given(target):
    trained, some = backbone(), torch.arange(0, 200)
    model = ProbeThenFull().start(trained, target, some, seed=0)
    features, labels = layer_features(trained, target.plain_batches(some), ())
    probe = fit_probe(features["features"], labels, stream(0, "transfer", 0))
    scores = model.head(features["features"])
    expected = features["features"].double() @ probe.weight.T + probe.bias
    torch.testing.assert_close(scores.double(), expected, rtol=1e-5, atol=1e-5)
    assert (scores.argmax(1) == labels).double().mean() > 0.6  # before any training


def test_a_class_without_probe_samples_is_never_predicted_at_the_start(target):
    some = (target.labels != 1).nonzero().flatten()
    model = ProbeThenFull().start(backbone(), target, some, seed=0)
    assert torch.equal(model.head.weight[1], torch.zeros(16))
    assert model.head.bias[1] == model.head.bias.min()


def test_scl_trains_one_layer_and_the_head_and_moves_nothing_else(target):
    trained = backbone()
    quick = replace(QUICK, rates=(0.1,))
    result = fine_tune(trained, target, SkipConnection(("layers.3",)), quick)
    before, after = trained.state_dict(), result.model.backbone.backbone.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"layers.3.weight"}
    assert not result.model.head.weight.equal(LinearHead(16, 3, generator=stream(0, "head")).weight)


def test_the_layer_is_the_one_with_the_least_nc1_on_the_target(target):
    trained = backbone()
    features, labels = layer_features(trained, target.plain_batches(everything(target)))
    nc1 = {name: neural_collapse(features[name], labels)["nc1_pinv"] for name in backbone_blocks(trained)}
    chosen = least_nc1_layer(trained, target, everything(target))
    assert nc1[chosen] == min(nc1.values())
    rest = [name for name in nc1 if name != chosen]
    assert least_nc1_layer(trained, target, everything(target), rest) == min(rest, key=nc1.get)
    assert SkipConnection().start(trained, target, everything(target), 0).backbone.layer == chosen
    with pytest.raises(ValueError, match="no layers with weights"):
        least_nc1_layer(nn.Flatten(), target, everything(target))


# Choice of the rate and the final training


class Watched:
    """A target that notes what is read, in order."""

    def __init__(self, target):
        self.read = []

        def training(chosen):
            self.read.append(("train", chosen))
            return target.training_batches(chosen)

        def plain(chosen):
            if len(chosen) > 2:  # two are looked at for the width
                self.read.append(("plain", chosen))
            return target.plain_batches(chosen)

        def test():
            self.read.append(("test", None))
            return target.test_batches()

        self.target = Target(target.labels, target.num_classes, training, plain, test)


def test_the_rate_is_chosen_on_a_hold_out_and_the_test_part_read_once_at_the_end(target):
    trained = backbone()
    before = copy.deepcopy(trained.state_dict())
    watched = Watched(target)
    result = fine_tune(trained, watched.target, Full(), QUICK)
    kinds = [kind for kind, _ in watched.read]
    assert kinds == ["train", "plain", "train", "plain", "train", "test"]
    train, holdout, final = watched.read[0][1], watched.read[1][1], watched.read[4][1]
    assert not set(train.tolist()) & set(holdout.tolist())
    assert sorted([*train.tolist(), *holdout.tolist()]) == final.tolist() == list(range(len(target.labels)))
    sizes = torch.bincount(target.labels)
    assert torch.bincount(target.labels[holdout]).tolist() == [round(int(n) / 4) for n in sizes]
    assert result.lr == by_score(result.holdout)[0]
    assert all(torch.equal(before[name], value) for name, value in trained.state_dict().items())
    again = fine_tune(trained, target, Full(), QUICK)
    assert (again.accuracy, again.holdout) == (result.accuracy, result.holdout)


def test_further_rates_are_tried_if_the_best_lies_at_an_end(target, monkeypatch):
    best = {"at": 3.0}
    module = "nc_tools.transfer.fine_tuning"
    monkeypatch.setattr(f"{module}._trained", lambda *arguments: arguments[4])
    monkeypatch.setattr(f"{module}._accuracy", lambda rate, *_: -abs(math.log(rate / best["at"])))
    result = fine_tune(backbone(), target, Full(), replace(QUICK, max_extensions=3))
    assert list(result.holdout) == [0.01, 0.1, 1.0, 10.0]  # 10 is worse than 1: no need for a third
    assert result.lr == 1.0
    assert list(fine_tune(backbone(), target, Full(), replace(QUICK, max_extensions=1)).holdout) == [0.01, 0.1, 1.0]
    best["at"] = 1e-9
    assert list(fine_tune(backbone(), target, Full(), replace(QUICK, max_extensions=2)).holdout)[2:] == [1e-3, 1e-4]


def test_lp_ft_does_not_look_at_the_hold_out_before_it_scores_it(target):
    watched = Watched(target)
    fine_tune(backbone(), watched.target, ProbeThenFull(), replace(QUICK, rates=(0.01,)))
    (probed, trained, holdout), last = watched.read[:3], watched.read[3:]
    assert (probed[0], trained[0], holdout[0]) == ("plain", "train", "plain")
    assert torch.equal(probed[1], trained[1])
    assert not set(probed[1].tolist()) & set(holdout[1].tolist())
    assert [kind for kind, _ in last] == ["plain", "train", "test"]


def test_a_rate_that_diverges_is_skipped(target):
    wild = replace(QUICK, rates=(0.05, 1e30), optim=OptimConfig(warmup=0.0))
    result = fine_tune(backbone(), target, Full(), wild)
    assert result.lr == 0.05
    assert result.holdout[1e30] is None
    assert fine_tune(backbone(), target, Full(), replace(wild, rates=(1e30,))) is None


@pytest.mark.slow
def test_fine_tuning_learns_digits_that_were_not_trained_on(target):
    longer = FineTuning(rates=(0.001, 0.1), max_extensions=0, training=TrainConfig(epochs=6, batch_size=32))
    for method in (Full(), ProbeThenFull()):
        result = fine_tune(backbone(), target, method, longer)
        assert result.accuracy > 0.85
        assert isinstance(result.model, Classifier)


def test_dropout_draws_from_the_seed_and_leaves_the_global_stream_alone(target):
    trained = nn.Sequential(backbone(), nn.Dropout(0.5))
    quick = replace(QUICK, rates=(0.1,))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = fine_tune(trained, target, Full(), quick).model.state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second = fine_tune(trained, target, Full(), quick).model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rates": ()}, r"positive, finite and increasing, got \(\)"),
        ({"rates": (0.1, 0.01)}, r"positive, finite and increasing, got \(0.1, 0.01\)"),
        ({"rates": (0.0, 0.01)}, r"positive, finite and increasing, got \(0.0, 0.01\)"),
        ({"rates": (float("nan"),)}, r"positive, finite and increasing, got \(nan,\)"),
        ({"methods": ()}, "at least one method, got none"),
        ({"holdout": 1.0}, "between 0 and 1"),
        ({"max_extensions": -1}, "must not be negative"),
        ({"methods": (Full(), Full())}, "differ from each other, got finetune, finetune"),
    ],
)
def test_bad_options_raise(options, message):
    with pytest.raises(ValueError, match=message):
        FineTuning(**options)
    with pytest.raises(TypeError, match=r"must be an object such as Full\(\), got 'full'"):
        FineTuning(methods=("full",))


def test_a_target_without_samples_of_a_class_raises(sources, target):
    options = BatchOptions(batch_size=8, mean=sources.mean, std=sources.std)
    some = sources.transfer_train.subset((sources.transfer_train.labels != 1).nonzero().flatten())
    with pytest.raises(ValueError, match=r"each of its 3 classes, and 1 have none \(1\)"):
        image_target(some, sources.transfer_test, options)
    with pytest.raises(ValueError, match="the same classes in the same order, got 3 and 7"):
        image_target(sources.transfer_train, sources.test, options)
    with pytest.raises(ValueError, match="at least two classes, got 1"):
        replace(target, num_classes=1)
