"""Layers by hooks, what each way of fine-tuning may change, and what is read when."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from nc_tools.data import Augment, DataConfig, load_data
from nc_tools.heads import LinearHead
from nc_tools.metrics import fit_probe, neural_collapse
from nc_tools.models import CIFARResNet, Classifier, ConvNet
from nc_tools.records import Batch
from nc_tools.seeds import stream
from nc_tools.training import OptimConfig, TrainConfig
from nc_tools.transfer import (
    FineTuning,
    Full,
    ProbeThenFull,
    SkipBackbone,
    SkipConnection,
    candidate_layers,
    fine_tune,
    image_target,
    layer_features,
    least_nc1_layer,
)
from nc_tools.transfer.fine_tuning import by_score
from nc_tools.transfer.layers import pooled
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
    return image_target(
        sources.transfer_train,
        sources.transfer_test,
        mean=sources.mean,
        std=sources.std,
        batch_size=32,
        augment=Augment(1, False),
        seed=0,
    )


def everything(target):
    return torch.arange(len(target.labels))


# Layers


def test_layers_are_what_holds_weight_matrices():
    assert candidate_layers(backbone()) == ("layers.0", "layers.3", "layers.6")
    blocks = candidate_layers(CIFARResNet(8))
    assert blocks == ("layers.0", "layers.3", "layers.4", "layers.5")
    import torchvision

    resnet = torchvision.models.resnet18(weights=None)
    resnet.fc = nn.Identity()
    assert candidate_layers(resnet) == ("conv1", "layer1", "layer2", "layer3", "layer4")
    assert candidate_layers(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))) == ("1",)
    assert candidate_layers(nn.Flatten()) == ()


def test_layers_are_looked_at_as_in_a_pass_by_hand():
    model = backbone().train()
    batches = [Batch(torch.randn(5, 1, 8, 8), torch.arange(5), torch.arange(5)) for _ in range(2)]
    found, labels = layer_features(model, batches, ["layers.3", "layers.4"])
    assert model.training
    model.eval()
    with torch.no_grad():
        inputs = torch.cat([b.inputs for b in batches])
        conv = model.layers[:4](inputs)
        normed = model.layers[4](conv)
        # The activation after the normalization writes in place: what is kept must be from before.
        torch.testing.assert_close(found["layers.4"], normed.mean((2, 3)))
        torch.testing.assert_close(found["layers.3"], conv.mean((2, 3)))
        torch.testing.assert_close(found["features"], model(inputs))
    assert labels.tolist() == [0, 1, 2, 3, 4] * 2
    assert not model.layers[3]._forward_hooks


def test_what_comes_after_a_layer_may_write_into_its_output():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2))
    batch = Batch(torch.randn(6, 4), torch.arange(6), torch.arange(6))
    found, _ = layer_features(model, [batch], ["0"])
    assert found["0"].min() < 0
    with torch.no_grad():
        torch.testing.assert_close(found["0"], model[0](batch.inputs))
    SkipBackbone(model, "0").train()(batch.inputs).sum().backward()
    assert model[0].weight.grad is not None


def test_tokens_are_averaged_and_other_outputs_refused():
    tokens = torch.arange(12.0).view(1, 3, 4)
    assert pooled(tokens).tolist() == [[4.0, 5.0, 6.0, 7.0]]
    assert pooled((tokens, None)).shape == (1, 4)
    with pytest.raises(ValueError, match=r"layer7 must give .* got \(3,\)"):
        pooled(torch.zeros(3), "layer7")
    with pytest.raises(ValueError, match="got dict"):
        pooled({})


def test_a_layer_that_is_not_there_is_told_with_the_candidates():
    with pytest.raises(ValueError, match=r"no layer 'layers.33'; did you mean .*layers\.3.* weights: layers\.0, "):
        SkipBackbone(backbone(), "layers.33")
    unused = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    unused.aside = nn.Linear(2, 2)
    unused.forward = lambda x: unused[1](unused[0](x))
    with pytest.raises(ValueError, match="'aside' is never called"):
        layer_features(unused, [Batch(torch.zeros(2, 4), torch.arange(2), torch.arange(2))], ["aside"])
    with pytest.raises(ValueError, match="at least one sample"):
        layer_features(backbone(), [])


# Starts


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
    found, labels = layer_features(trained, target.plain_batches(some), ())
    probe = fit_probe(found["features"], labels, stream(0, "transfer", 0))
    scores = model.head(found["features"])
    expected = found["features"] @ probe.weight.T + probe.bias
    torch.testing.assert_close(scores, expected)
    assert (scores.argmax(1) == labels).double().mean() > 0.6  # before any training


def test_a_class_that_the_probe_has_not_seen_is_never_chosen_at_the_start(target):
    some = (target.labels != 1).nonzero().flatten()
    model = ProbeThenFull().start(backbone(), target, some, seed=0)
    assert torch.equal(model.head.weight[1], torch.zeros(16))
    assert model.head.bias[1] == model.head.bias.min()


def test_the_skip_connection_adds_the_pooled_layer():
    model = backbone().eval()
    wrapped = SkipBackbone(copy.deepcopy(model), "layers.3").eval()
    images = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        aside = model.layers[:4](images).mean((2, 3))
        expected = model(images)
        expected[:, :8] += aside
        torch.testing.assert_close(wrapped(images), expected)


def test_a_layer_wider_than_the_features_widens_them():
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
    wrapped = SkipBackbone(copy.deepcopy(model), "0")
    x = torch.randn(3, 4)
    with torch.no_grad():
        expected = model[0](x)
        expected[:, :2] += model(x)
        torch.testing.assert_close(wrapped(x), expected)


def test_scl_trains_one_layer_and_the_head_and_moves_nothing_else(target):
    trained = backbone()
    quick = replace(QUICK, rates=(0.1,))
    told = fine_tune(trained, target, SkipConnection(("layers.3",)), quick)
    before, after = trained.state_dict(), told.model.backbone.backbone.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"layers.3.weight"}
    assert not told.model.head.weight.equal(LinearHead(16, 3, generator=stream(0, "head")).weight)


def test_scl_puts_the_rest_into_eval_mode_and_keeps_it_there():
    wrapped = SkipBackbone(CIFARResNet(8), "layers.4")
    wrapped.train()
    modes = {name for name, module in wrapped.backbone.named_modules() if module.training}
    assert modes == {name for name, _ in wrapped.backbone.named_modules() if name.startswith("layers.4")}
    assert wrapped.training
    wrapped.eval()
    assert not any(module.training for module in wrapped.modules())


def test_the_layer_is_the_one_with_the_least_nc1_on_the_target(target):
    trained = backbone()
    found, labels = layer_features(trained, target.plain_batches(everything(target)))
    nc1 = {name: neural_collapse(found[name], labels)["nc1_pinv"] for name in candidate_layers(trained)}
    chosen = least_nc1_layer(trained, target, everything(target))
    assert nc1[chosen] == min(nc1.values())
    others = [name for name in nc1 if name != chosen]
    assert least_nc1_layer(trained, target, everything(target), others) == min(others, key=nc1.get)
    assert SkipConnection().start(trained, target, everything(target), 0).backbone.layer == chosen
    with pytest.raises(ValueError, match="no layer with weights"):
        least_nc1_layer(nn.Flatten(), target, everything(target))


# The whole


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
    told = fine_tune(trained, watched.target, Full(), QUICK)
    kinds = [kind for kind, _ in watched.read]
    assert kinds == ["train", "plain", "train", "plain", "train", "test"]
    kept, held, whole = watched.read[0][1], watched.read[1][1], watched.read[4][1]
    assert not set(kept.tolist()) & set(held.tolist())
    assert sorted([*kept.tolist(), *held.tolist()]) == whole.tolist() == list(range(len(target.labels)))
    assert torch.bincount(target.labels[held]).tolist() == [round(int(n) / 4) for n in torch.bincount(target.labels)]
    assert told.lr == by_score(told.holdout)[0]
    assert all(torch.equal(before[name], value) for name, value in trained.state_dict().items())
    again = fine_tune(trained, target, Full(), QUICK)
    assert (again.accuracy, again.holdout) == (told.accuracy, told.holdout)


def test_rates_go_on_where_the_best_lies_at_their_end_and_no_further_than_told(target, monkeypatch):
    best = {"at": 3.0}
    module = "nc_tools.transfer.fine_tuning"
    monkeypatch.setattr(f"{module}._trained", lambda *arguments: arguments[4])
    monkeypatch.setattr(f"{module}._accuracy", lambda rate, *_: -abs(math.log(rate / best["at"])))
    told = fine_tune(backbone(), target, Full(), replace(QUICK, max_extensions=3))
    assert list(told.holdout) == [0.01, 0.1, 1.0, 10.0]  # 10 is worse than 1: no need for a third
    assert told.lr == 1.0
    assert list(fine_tune(backbone(), target, Full(), replace(QUICK, max_extensions=1)).holdout) == [0.01, 0.1, 1.0]
    best["at"] = 1e-9
    assert list(fine_tune(backbone(), target, Full(), replace(QUICK, max_extensions=2)).holdout)[2:] == [1e-3, 1e-4]


def test_lp_ft_does_not_look_at_the_hold_out_before_it_scores_it(target):
    watched = Watched(target)
    fine_tune(backbone(), watched.target, ProbeThenFull(), replace(QUICK, rates=(0.01,)))
    (probed, trained, held), last = watched.read[:3], watched.read[3:]
    assert (probed[0], trained[0], held[0]) == ("plain", "train", "plain")
    assert torch.equal(probed[1], trained[1])
    assert not set(probed[1].tolist()) & set(held[1].tolist())
    assert [kind for kind, _ in last] == ["plain", "train", "test"]


def test_a_rate_that_diverges_is_passed_over_and_none_left_says_so(target):
    wild = replace(QUICK, rates=(0.05, 1e30), optim=OptimConfig(warmup=0.0))
    told = fine_tune(backbone(), target, Full(), wild)
    assert told.lr == 0.05
    assert told.holdout[1e30] is None
    assert fine_tune(backbone(), target, Full(), replace(wild, rates=(1e30,))) is None


def test_fine_tuning_learns_digits_that_were_not_trained_on(target):
    longer = FineTuning(rates=(0.001, 0.1), max_extensions=0, training=TrainConfig(epochs=6, batch_size=32))
    for method in (Full(), ProbeThenFull()):
        told = fine_tune(backbone(), target, method, longer)
        assert told.accuracy > 0.85
        assert isinstance(told.model, Classifier)


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
    ("more", "told"),
    [
        ({"rates": ()}, "positive and rising"),
        ({"rates": (0.1, 0.01)}, "positive and rising"),
        ({"rates": (0.0, 0.01)}, "positive and rising"),
        ({"rates": (float("nan"),)}, "positive and rising, all finite"),
        ({"methods": ()}, "at least one method, got none"),
        ({"holdout": 1.0}, "between 0 and 1"),
        ({"max_extensions": -1}, "must not be negative"),
        ({"methods": (Full(), Full())}, "different ones, got finetune, finetune"),
    ],
)
def test_fine_tuning_that_cannot_be_meant_is_refused(more, told):
    with pytest.raises(ValueError, match=told):
        FineTuning(**more)
    with pytest.raises(TypeError, match=r"are records such as Full\(\), got 'full'"):
        FineTuning(methods=("full",))


def test_a_target_without_samples_of_a_class_is_refused(sources, target):
    facts = {"mean": sources.mean, "std": sources.std, "batch_size": 8, "augment": None, "seed": 0}
    some = sources.transfer_train.subset((sources.transfer_train.labels != 1).nonzero().flatten())
    with pytest.raises(ValueError, match=r"each of its 3 classes, and 1 have none \(1\)"):
        image_target(some, sources.transfer_test, **facts)
    with pytest.raises(ValueError, match="the same classes, got 3 and 7"):
        image_target(sources.transfer_train, sources.test, **facts)
    with pytest.raises(ValueError, match="at least two classes, got 1"):
        replace(target, num_classes=1)
