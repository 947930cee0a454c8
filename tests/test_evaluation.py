"""One pass over a set, and the measures made of it."""

import pytest
import torch
from support.small_training import Batches, small
from torch import nn

from nc_tools.evaluation.evaluator import accuracy_metrics, collapse_metrics, collect, with_prefix
from nc_tools.heads import ETFHead, LinearHead


def test_a_set_is_collected_in_its_order_without_dropout_or_batch_statistics():
    model = small(dropout=0.9).train()
    model.backbone[2].eval()  # a part that somebody froze stays as it was
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    batches = list(Batches().epoch(0))
    collected = collect(model, batches)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    model.eval()
    with torch.no_grad():
        expected = torch.cat([model(batch.inputs) for batch in batches])
    assert torch.equal(collected.logits, expected)
    assert torch.equal(collected.labels, torch.cat([batch.labels for batch in batches]))
    assert not collected.logits.requires_grad


def test_the_model_is_put_back_when_a_batch_fails():
    model = small().train()

    def broken():
        yield next(Batches().epoch(0))
        raise OSError("the disk went")

    with pytest.raises(OSError, match="the disk went"):
        collect(model, broken())
    assert all(module.training for module in model.modules())


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(ValueError, match="needs at least one sample"):
        collect(small(), [])


def test_bfloat16_arithmetic_gives_float32_logits():
    collected = collect(small(), Batches().epoch(0), dtype=torch.bfloat16)
    assert collected.logits.dtype == collected.features.dtype == collected.embedded.dtype == torch.float32
    plain = collect(small(), Batches().epoch(0))
    assert not torch.equal(collected.features, plain.features)
    torch.testing.assert_close(collected.features, plain.features, rtol=0.05, atol=0.05)


def test_generalization_has_both_groups_under_its_prefix():
    collected = collect(small(), Batches().epoch(0))
    told = accuracy_metrics(collected, torch.tensor([8, 8, 8]), "test")
    assert told["test/gen/accuracy"] == float((collected.logits.argmax(1) == collected.labels).double().mean())
    assert {key.split("/")[1] for key in told} == {"gen", "cal"}


def test_class_vectors_are_compared_with_features_only_where_they_live_together():
    same, projected = small(LinearHead(6, 3)), small(ETFHead(6, 3, projection=4))
    plain = collapse_metrics(same, collect(same, Batches().epoch(0)), "train")
    assert "train/nc/nc3_cosine" in plain
    assert not any(key.startswith("train/nc_embedded/") for key in plain)
    told = collapse_metrics(projected, collect(projected, Batches().epoch(0)), "train")
    assert "train/nc/nc3_cosine" not in told
    assert "train/nc_embedded/nc3_cosine" in told
    assert "train/nc/nc1_pinv" in told


def test_prefixes_are_put_before_every_key():
    assert with_prefix("a", {"b/c": 1.0}) == {"a/b/c": 1.0}


def test_collecting_leaves_autograd_as_it_was():
    model = nn.Sequential()
    assert torch.is_grad_enabled()
    with pytest.raises(ValueError, match="at least one"):
        collect(small(), iter(model))
    assert torch.is_grad_enabled()
