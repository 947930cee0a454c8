"""Recognition rates against scikit-learn, torchmetrics and cases worked by hand."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, recall_score
from torchmetrics.functional.classification import multiclass_accuracy

from nc_tools.metrics import classification, per_class


def draw(seed: int, n: int = 200, k: int = 9):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, k, (n,), generator=generator)
    logits = torch.randn(n, k, generator=generator) + torch.nn.functional.one_hot(labels, k)
    return logits, labels, torch.randint(1, 300, (k,), generator=generator)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 60), k=st.integers(2, 12))
def test_equals_scikit_learn_also_with_absent_classes(seed, n, k):
    logits, labels, counts = draw(seed, n, k)
    values = classification(logits, labels, counts)
    guess, y = logits.argmax(1).numpy(), labels.numpy()
    present = np.unique(y)
    recall = recall_score(y, guess, labels=present, average=None)
    assert values["accuracy"] == pytest.approx(accuracy_score(y, guess))
    assert values["balanced_accuracy"] == pytest.approx(recall.mean())
    assert values["worst_class"] == pytest.approx(recall.min())
    assert values["macro_f1"] == pytest.approx(f1_score(y, guess, labels=present, average="macro", zero_division=0))
    for name, member in {
        "many": counts > 100, "medium": (counts >= 20) & (counts <= 100), "few": counts < 20
    }.items():  # fmt: skip
        some = [r for c, r in zip(present, recall, strict=True) if member[c]]
        assert (name in values) == bool(some)
        if some:
            assert values[name] == pytest.approx(np.mean(some))


def test_equals_torchmetrics_and_the_balanced_score():
    logits, labels, counts = draw(1, n=500)
    values = classification(logits, labels, counts)
    probability = logits.softmax(1)
    assert values["accuracy"] == pytest.approx(float(multiclass_accuracy(probability, labels, 9, average="micro")))
    assert values["balanced_accuracy"] == pytest.approx(
        float(multiclass_accuracy(probability, labels, 9, average="macro"))
    )
    assert values["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, logits.argmax(1)))


def one_hot_case(right: list[bool], counts: list[int]) -> dict[str, float]:
    """One test sample of each class, recognized or taken for its neighbor."""
    k = len(right)
    guess = torch.tensor([c if ok else (c + 1) % k for c, ok in enumerate(right)])
    return classification(torch.nn.functional.one_hot(guess, k).float(), torch.arange(k), counts)


@pytest.mark.parametrize(("count", "group"), [(101, "many"), (100, "medium"), (20, "medium"), (19, "few"), (0, "few")])
def test_the_thresholds_of_the_groups(count, group):
    values = one_hot_case([True, True], [count, count])
    assert {"many", "medium", "few"} & set(values) == {group}
    assert per_class(torch.eye(2), torch.arange(2), [count, count]).group == [group, group]


def test_thirds_follow_training_counts_and_not_the_order_of_classes():
    values = one_hot_case([False, True, True, False, True, True, False], [1, 64, 32, 2, 16, 8, 4])
    # Falling: classes 1, 2, 4 | 5, 6 | 3, 0
    assert values["head"] == 1.0
    assert values["middle"] == 0.5
    assert values["tail"] == 0.0


@pytest.mark.parametrize(
    ("k", "sizes"),
    [(2, (1, 1, 0)), (3, (1, 1, 1)), (4, (2, 1, 1)), (5, (2, 2, 1)), (7, (3, 2, 2)), (10, (4, 3, 3))],
)
def test_sizes_of_the_thirds(k, sizes):
    for c in range(k):
        values = one_hot_case([i != c for i in range(k)], list(range(k, 0, -1)))
        third = 0 if c < sizes[0] else 1 if c < sizes[0] + sizes[1] else 2
        for i, name in enumerate(("head", "middle", "tail")):
            if sizes[i] == 0:
                assert name not in values
            else:
                assert values[name] == pytest.approx(1 - (i == third) / sizes[i])


def test_equal_counts_have_no_head_and_ties_go_by_index():
    assert not {"head", "middle", "tail"} & set(one_hot_case([True] * 6, [50] * 6))
    values = one_hot_case([False, False, True, True, True, True], [9, 9, 9, 9, 9, 8])
    assert (values["head"], values["middle"], values["tail"]) == (0.0, 1.0, 1.0)


def test_per_class_goes_to_json_with_none_for_undefined_values():
    logits = torch.tensor([[3.0, 0, 0, 0], [3.0, 0, 0, 0], [0, 3.0, 0, 0]])
    table = per_class(logits, torch.tensor([0, 1, 1]), torch.tensor([200, 50, 5, 7]))
    assert table.recall == [1.0, 0.5, None, None]
    assert table.precision == [0.5, 1.0, None, None]
    assert table.test_counts == [1, 2, 0, 0]
    assert table.group == ["many", "medium", "few", "few"]
    assert json.loads(json.dumps(asdict(table)))["train_counts"] == [200, 50, 5, 7]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_and_saturated_logits(dtype):
    logits = 1e4 * torch.eye(3, dtype=dtype)[[0, 1, 2, 0]]
    assert classification(logits, torch.tensor([0, 1, 2, 1]), [9, 9, 9])["accuracy"] == 0.75


@pytest.mark.parametrize(
    ("logits", "labels", "counts", "error", "message"),
    [
        (torch.zeros(2, 3), torch.tensor([0, 3]), [1, 1, 1], ValueError, "but 1 of them"),
        (torch.zeros(2, 3), torch.tensor([0, -1]), [1, 1, 1], ValueError, "but 1 of them"),
        (torch.zeros(2, 3), torch.tensor([0]), [1, 1, 1], ValueError, r"\(2,\)"),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), [1, 1, 1], ValueError, "at least one sample"),
        (torch.tensor([[0.0, float("nan")]]), torch.tensor([0]), [1, 1], ValueError, "1 of 1 samples"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), [1, 1], ValueError, "each of the 3 classes"),
        (torch.zeros(2), torch.tensor([0, 1]), [1, 1], ValueError, r"\(N, K\)"),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), [1, 1, 1], TypeError, "integer"),
        (torch.zeros(2, 3).long(), torch.tensor([0, 1]), [1, 1, 1], TypeError, "floating-point"),
    ],
)
def test_wrong_input_is_rejected(logits, labels, counts, error, message):
    for measure in (classification, per_class):
        with pytest.raises(error, match=message):
            measure(logits, labels, counts)
