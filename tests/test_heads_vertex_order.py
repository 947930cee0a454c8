"""Assignments: which class has which vertex, and what checkpoints keep of it."""

import copy

import pytest
import torch
from safetensors.torch import load, save
from support.head_variants import D, K, features

from nc_tools.geometry import assign_by_means
from nc_tools.heads import (
    RANDOM,
    CubeHead,
    ETFHead,
    FrozenRandomHead,
    RandomAssignment,
    StructuredETFHead,
)


@pytest.mark.parametrize("cls", [ETFHead, StructuredETFHead, FrozenRandomHead, CubeHead])
def test_assignment_permutes_the_classes_and_the_state_keeps_it(cls: type[ETFHead]) -> None:
    order = (3, 0, 1, 2, 6, 5, 4)
    plain, head = cls(D, K, generator=torch.Generator().manual_seed(0)), cls(D, K, assignment=order)
    assert torch.equal(head.weight, plain.weight[list(order)])
    head.assign([1, 2, 3, 4, 5, 6, 0])
    assert torch.equal(head.weight, plain.weight[[0, 1, 2, 6, 5, 4, 3]])
    assert torch.allclose(head(features(5)), head.scale * head.embed(features(5)) @ head.weight.T, atol=1e-5)
    plain.load_state_dict(load(save(head.state_dict())))
    assert torch.equal(plain(features(5)), head(features(5)))
    assert torch.equal(copy.deepcopy(head)(features(5)), head(features(5)))
    unassigned = cls(D, K)
    plain.load_state_dict(unassigned.state_dict())
    assert torch.equal(plain(features(5)), unassigned(features(5)))


def test_random_assignment_has_a_stream_of_its_own() -> None:
    first, second = (ETFHead(D, K, assignment=RANDOM, frame_seed=seed) for seed in (0, 1))
    orders = [RANDOM.draw(K, seed).tolist() for seed in (0, 1)]
    assert orders[0] != orders[1]
    for seed, head in enumerate((first, second)):
        assert torch.equal(head.weight, ETFHead(D, K, frame_seed=seed).weight[orders[seed]])
    held = ETFHead(D, K, assignment=RandomAssignment(seed=0), frame_seed=1)
    assert torch.equal(held.weight, ETFHead(D, K, frame_seed=1).weight[orders[0]])


def test_means_that_are_shuffled_vertices_find_them() -> None:
    head = ETFHead(D, K)
    shuffled = torch.randperm(K, generator=torch.Generator().manual_seed(0))
    means = head.weight[shuffled] + 0.5
    before = head.weight
    head.assign(assign_by_means(head.weight, means))
    assert torch.equal(head.weight, before[shuffled])


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 0, 1, 2, 3, 4, 5), tuple(range(1, 8))])
def test_an_assignment_that_is_no_permutation_raises(order: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"assignment must be a permutation of 0 to 6, got [37] numbers"):
        ETFHead(D, K, assignment=order)
