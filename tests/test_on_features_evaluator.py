"""Heads on fixed features share the scaled features, and get the numbers of evaluators of their own."""

import copy

import pytest
import torch
from support.head_plans import D, K, base_of, embeddings

from nc_tools._support.by_content import ByContent
from nc_tools.evaluation.evaluator import EvaluationSet, Evaluator
from nc_tools.experiment.on_features.feature_data import open_feature_data
from nc_tools.heads import CosineHead, ETFHead, LinearHead
from nc_tools.models.classifier import Classifier

HEADS = {
    "linear": lambda: LinearHead(D, K),
    "cosine": lambda: CosineHead(D, K),
    "etf": lambda: ETFHead(D, K, projection=True, scale=5.0),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = embeddings(tmp_path_factory.mktemp("evaluator"))
    return open_feature_data(base_of(path), path, seed=0, device=torch.device("cpu"))


def sets_of(data):
    train = EvaluationSet("train", data.sources.train, data.subsets.train)
    return train, EvaluationSet("test", data.sources.test)


def measured(evaluator, train, test):
    return evaluator.accuracy(test) | evaluator.collapse(train) | evaluator.further_measures(train, test)


@pytest.mark.parametrize("standardize", [True, False])
def test_the_numbers_are_those_of_an_evaluator_for_each_head(data, standardize):
    scaling, facts = data.scaling(data.subsets.train, standardize=standardize), data.facts(data.subsets.train)
    for name, make in HEADS.items():
        torch.manual_seed(0)
        model = Classifier(scaling, make())
        model.train()
        plain = Evaluator(model, data.plain_batches, class_counts=facts.class_counts, dtype=torch.float32)
        ours, theirs = (measured(evaluator, *sets_of(data)) for evaluator in (data.evaluator(model, facts), plain))
        assert ours.keys() == theirs.keys(), name
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5), name
        assert model.head.training, "the mode of the head is restored"


def test_features_are_scaled_once_for_all_heads_and_again_for_another_scaling(data, monkeypatch):
    read = []
    plain = type(data).plain_batches
    monkeypatch.setattr(type(data), "plain_batches", lambda *args: read.append(1) or plain(*args))
    data.kept_results.clear()
    train, test = sets_of(data)
    facts, scaling = data.facts(data.subsets.train), data.scaling(data.subsets.train, standardize=True)
    first, second = (data.evaluator(Classifier(scaling, HEADS[name]()), facts) for name in ("linear", "cosine"))
    assert first.outputs(train).features is second.outputs(train).features
    assert first.outputs(train).embedded is first.outputs(train).features
    first.outputs(test)
    assert len(read) == 2
    data.evaluator(Classifier(copy.deepcopy(scaling), HEADS["linear"]()), facts).outputs(test)
    assert len(read) == 2, "a copy has the same scaling"
    drawn = [first.collect(train.images, torch.tensor([3, 1])).features for _ in range(2)]
    assert drawn[0] is drawn[1], "equal indices are one set"
    assert first.collect(train.images, torch.tensor([1, 3])).features is not drawn[0]
    read.clear()
    other = copy.deepcopy(scaling)
    other.mean += 1
    shifted = data.evaluator(Classifier(other, HEADS["linear"]()), facts).outputs(test).features
    assert len(read) == 1
    assert not torch.allclose(shifted, first.outputs(test).features)
    data.kept_results.clear()
    data.evaluator(Classifier(other, HEADS["cosine"]()), facts).outputs(test)
    assert len(read) == 2


def test_an_empty_set_is_refused(data):
    evaluator = data.evaluator(Classifier(torch.nn.Identity(), HEADS["linear"]()), data.facts(data.subsets.train))
    with pytest.raises(ValueError, match="empty data set"):
        evaluator.collect(data.sources.train, torch.arange(0))


def test_a_kept_result_is_computed_again_after_a_tensor_was_written_to():
    kept, values = ByContent(), torch.ones(3)
    assert kept("sum", [values], lambda: float(values.sum())) == 3
    assert kept("sum", [values], lambda: 0.0) == 3
    values += 1
    assert kept("sum", [values], lambda: float(values.sum())) == 6
    with torch.inference_mode():
        inferred = torch.full((3,), 2.0)
        assert kept("sum", [inferred], lambda: 0.0) == 6, "equal values, in a tensor without a version"
