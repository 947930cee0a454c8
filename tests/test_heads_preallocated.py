"""The pre-allocated head: growth, its scale, and checkpoints of other sizes."""

import pytest
import torch
from support.feature_rows import D, N, features
from torch.nn.functional import cross_entropy

from nc_tools.heads import PreallocatedHead, default_scale


def test_growing_moves_no_row_and_no_score():
    head = PreallocatedHead(D, 3, capacity=8)
    before, weight = head(features()), head.weight.clone()
    assert before.shape == (N, 3)
    head.grow(6)
    assert torch.equal(head.weight[:3], weight)
    assert head(features()).shape == (N, 6)
    assert torch.allclose(head(features())[:, :3], before, atol=1e-6)
    gram = head.weight @ head.weight.T
    assert torch.allclose(gram, (8 * torch.eye(6) - 1) / 7, atol=1e-6)
    assert list(head.parameters()) == []


def test_the_scale_is_that_of_all_that_will_come():
    assert PreallocatedHead(D, 3, capacity=8).scale == default_scale(8)
    assert PreallocatedHead(D, 3).capacity == D + 1
    assert PreallocatedHead(D, 3, projection=5).capacity == 6
    assert PreallocatedHead(D, 3, projection=True, capacity=40).frame.shape == (40, 40)


@pytest.mark.parametrize(("saved", "built", "then"), [(3, 3, 3), (3, 6, 6), (6, 3, 6)])
def test_a_checkpoint_of_other_classes_loads_and_the_larger_number_counts(saved, built, then):
    old, head = PreallocatedHead(D, saved, capacity=8, frame_seed=4), PreallocatedHead(D, built, capacity=8)
    head.load_state_dict(old.state_dict())
    assert head.num_classes == then
    assert torch.equal(head.frame, old.frame)
    assert torch.allclose(head(features())[:, : min(saved, then)], old(features()), atol=1e-6)


def test_what_grew_is_saved_as_grown():
    head = PreallocatedHead(D, 3, capacity=8)
    head.grow(5)
    assert head.state_dict()["in_use"].tolist() == [1.0] * 5 + [0.0] * 3


def test_growth_has_bounds():
    head = PreallocatedHead(D, 3, capacity=5)
    with pytest.raises(ValueError, match=r"at most 5 classes, cannot grow to 6: .* capacity=6"):
        head.grow(6)
    with pytest.raises(ValueError, match="cannot shrink to 2"):
        head.grow(2)
    assert head.num_classes == 3
    head.grow(5)
    with pytest.raises(ValueError, match="capacity must be at least num_classes=5, got 4"):
        PreallocatedHead(D, 5, capacity=4)
    with pytest.raises(ValueError, match="needs feature_dim >= 19, got 16: give the head projection=19"):
        PreallocatedHead(D, 5, capacity=20)
    with pytest.raises(RuntimeError, match=r"has capacity=5: build the head with capacity=6"):
        head.load_state_dict(PreallocatedHead(D, 3, capacity=6).state_dict(), strict=False)


def test_old_classes_train_on_after_growth():
    head = PreallocatedHead(D, 2, capacity=4, projection=True)
    for classes in (2, 4):
        head.grow(classes)
        cross_entropy(head(features()), torch.arange(N) % classes).backward()
        assert torch.isfinite(head.projection.weight.grad).all()
