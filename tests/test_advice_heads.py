"""Every way out that the errors of heads name is taken, and works."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.advice import Case, without_a_case
from support.process_group import process_group
from torch import fx, nn
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

from nc_tools.geometry import assign_by_means
from nc_tools.heads import (
    BalancedCalibrationHead,
    CosineHead,
    CubeHead,
    ETFHead,
    HadamardHead,
    Head,
    LinearHead,
    NearestETFHead,
    OrthoplexHead,
    PreallocatedHead,
    PrototypeHead,
    RBFHead,
    SimplexHead,
    SphericalCodeHead,
    StructuredETFHead,
    TwoSpaceHead,
    align_to,
    imprint,
    tau_normalize,
)
from nc_tools.heads.class_parallel import ClassParallel

D, K = 8, 4
FORMER = load_file(Path(__file__).parent / "data/former_heads.safetensors")  # weights that version 0.2 wrote
X, Y = torch.randn(12, D, generator=torch.Generator().manual_seed(0)), torch.arange(12) % K


def former(number: int) -> dict[str, torch.Tensor]:
    prefix = f"{number:02d}.state."
    return {name.removeprefix(prefix): value for name, value in FORMER.items() if name.startswith(prefix)}


def loaded(saved: Head, into: Head) -> None:
    into.load_state_dict(saved.state_dict())
    assert torch.allclose(into.eval()(X), saved.eval()(X), atol=1e-6)


def scores(head: Head, features: torch.Tensor = X) -> None:
    assert head(features).shape == (len(features), head.num_classes)


COLUMNS = {"0.projection": ColwiseParallel(output_layouts=Replicate())}


def spread(head: Head, plan: dict[str, Any]) -> None:
    with process_group() as mesh:
        scores_of(parallelize_module(nn.Sequential(head), mesh, plan))


def scores_of(model: nn.Module) -> None:
    assert model(X).shape == (12, K)


def balanced() -> None:
    head = BalancedCalibrationHead(D, K)
    assert 0 < head.balance(X, Y) < 1


def shrunk() -> None:
    assert PreallocatedHead(D, 5)(X)[:, :3].shape == (12, 3)


def grown_anew() -> None:
    head = PreallocatedHead(D, 3, capacity=7)
    head.grow(7)
    scores(head)


BAD = torch.full_like(X, torch.nan)

CASES = [
    Case(
        "use ETFHead",
        lambda: align_to(LinearHead(D, K), torch.eye(K, D)),
        lambda: align_to(ETFHead(D, K), torch.eye(K, D)),
    ),
    Case(
        "build the head with projection=False",
        lambda: align_to(ETFHead(D, K, projection=True), torch.eye(K, D)),
        lambda: align_to(ETFHead(D, K, projection=False), torch.eye(K, D)),
    ),
    Case(
        "pass the weight of a classifier with the same classes",
        lambda: align_to(ETFHead(D, K), torch.eye(K)),
        lambda: align_to(ETFHead(D, K), LinearHead(D, K).weight),
    ),
    Case(
        "use LinearHead or ETFHead for one part alone",
        lambda: BalancedCalibrationHead(D, K, mix=1.0),
        lambda: scores(LinearHead(D, K)),
        lambda: scores(ETFHead(D, K)),
    ),
    Case(
        "pass features and labels of held-out data",
        lambda: BalancedCalibrationHead(D, K).balance(X[:0], Y[:0]),
        balanced,
    ),
    Case(
        "pass normalize=False, or a projection to more dimensions",
        lambda: ETFHead(1, 2),
        lambda: scores(ETFHead(1, 2, normalize=False), X[:, :1]),
        lambda: scores(ETFHead(1, 2, projection=2), X[:, :1]),
    ),
    Case(
        "load it into the head class that it was saved from",
        lambda: HadamardHead(D, K, projection=False).load_state_dict(former(0)),
        lambda: ETFHead(D, K).load_state_dict(former(0)),
    ),
    Case(
        "load it into the head class, with the arguments, that it was saved from",
        lambda: ETFHead(D, K).load_state_dict(StructuredETFHead(D, K).state_dict()),
        lambda: loaded(StructuredETFHead(D, K), StructuredETFHead(D, K, frame_seed=1)),
    ),
    Case(
        "remove weight and bias from the checkpoint to load only the backbone",
        lambda: ETFHead(D, K).load_state_dict(LinearHead(D, K).state_dict(), strict=False),
        lambda: ETFHead(D, K).load_state_dict({}, strict=False),
    ),
    Case(
        "trace a model that contains it, as in torch.fx.symbolic_trace(nn.Sequential(head))",
        lambda: fx.symbolic_trace(ETFHead(D, K)),
        lambda: scores_of(fx.symbolic_trace(nn.Sequential(ETFHead(D, K)))),
    ),
    Case(
        "for many classes use StructuredETFHead, which stores none, and shard its projection with ColwiseParallel",
        lambda: spread(ETFHead(D, K), {"0": ClassParallel()}),
        lambda: spread(StructuredETFHead(D, K, projection=True), COLUMNS),
    ),
    Case("Build the head with feature_dim=8", lambda: LinearHead(D + 1, K)(X), lambda: scores(LinearHead(8, K))),
    Case(
        "pass a larger num_classes",
        lambda: imprint(X, Y, 3),
        lambda: imprint(X, Y, 4),
        lambda: imprint(X, Y.clamp(max=2), 3),
    ),
    Case("remove these samples", lambda: imprint(torch.cat([X, BAD]), Y.repeat(2), K), lambda: imprint(X, Y, K)),
    Case(
        "add samples, or number the other classes from 0 and pass a smaller num_classes",
        lambda: imprint(X, Y + 1, K + 1),
        lambda: imprint(X, Y, K),
        lambda: imprint(torch.cat([X, X[:1]]), torch.cat([Y + 1, Y[:1]]), K + 1),
    ),
    Case("use ETFHead for class vectors", lambda: NearestETFHead(D, K, every=0), lambda: scores(ETFHead(D, K))),
    Case(
        "use 0 to ignore the previous class vectors",
        lambda: NearestETFHead(D, K, delta=-1.0),
        lambda: scores(NearestETFHead(D, K, delta=0)),
    ),
    Case(
        "use projection=True for a learned map to 2, or ETFHead or SphericalCodeHead",
        lambda: CubeHead(D, K, projection=False),
        lambda: scores(CubeHead(D, K, projection=True)),
        lambda: scores(ETFHead(D, K)),
        lambda: scores(SphericalCodeHead(D, K)),
    ),
    Case(
        "pass only one of radius and scale",
        lambda: SimplexHead(D, K, radius=0.1, scale=3.0),
        lambda: scores(SimplexHead(D, K, radius=0.1)),
        lambda: scores(SimplexHead(D, K, scale=3.0)),
    ),
    Case(
        "use projection=True for a learned map to 8, or ETFHead or SphericalCodeHead",
        lambda: HadamardHead(6, 5, projection=False),
        lambda: scores(HadamardHead(6, 5, projection=True), X[:, :6]),
        lambda: scores(ETFHead(6, 5), X[:, :6]),
        lambda: scores(SphericalCodeHead(6, 5), X[:, :6]),
    ),
    Case(
        "pass the largest number of classes",
        lambda: PreallocatedHead(D, K, capacity=3),
        lambda: scores(PreallocatedHead(D, K, capacity=6)),
    ),
    Case("build a head with capacity=7 and train it", lambda: PreallocatedHead(D, 3, capacity=5).grow(7), grown_anew),
    Case("use the first 3 columns of the logits", lambda: PreallocatedHead(D, 5).grow(3), shrunk),
    Case(
        "build the head with capacity=6",
        lambda: PreallocatedHead(D, 3, capacity=5).load_state_dict(PreallocatedHead(D, 3, capacity=6).state_dict()),
        lambda: loaded(PreallocatedHead(D, 3, capacity=6), PreallocatedHead(D, 3, capacity=6, frame_seed=2)),
    ),
    Case("omit it to use the default", lambda: RBFHead(D, K, gamma=-1.0), lambda: scores(RBFHead(D, K))),
    Case(
        "omit it to use the default, -gamma r^2",
        lambda: RBFHead(D, K, background=torch.inf),
        lambda: scores(RBFHead(D, K)),
    ),
    Case("try 0.9", lambda: PrototypeHead(D, K, momentum=1.0), lambda: scores(PrototypeHead(D, K, momentum=0.9))),
    Case("omit it to use the default, 6.0", lambda: CosineHead(D, K, scale=0.0), lambda: scores(CosineHead(D, K))),
    Case(
        "build the head with rotated=False",
        lambda: StructuredETFHead(D, K).load_state_dict(former(9)),
        lambda: StructuredETFHead(D, K, rotated=False).load_state_dict(former(9)),
    ),
    Case(
        "use a number in [0, 1]",
        lambda: tau_normalize(LinearHead(D, K), -1),
        lambda: tau_normalize(LinearHead(D, K), 1),
    ),
    Case(
        "pass the head's weight if the norms of its rows are learned",
        lambda: tau_normalize(OrthoplexHead(D, K), 1.0),  # type: ignore[call-overload]
        lambda: tau_normalize(CosineHead(D, K).direction, 1.0),
    ),
    Case("omit it to use the default", lambda: TwoSpaceHead(D, K, hidden=3), lambda: scores(TwoSpaceHead(D, K))),
    Case(
        "omit it to use the default, or increase hidden",
        lambda: TwoSpaceHead(D, 30, hidden=20, width=25),
        lambda: scores(TwoSpaceHead(D, 30)),
        lambda: scores(TwoSpaceHead(D, 30, hidden=40, width=29)),
    ),
    Case(
        "use assign_by_means or assign_by_similarity",
        lambda: ETFHead(D, K).assign([0, 0, 1, 2]),
        lambda: ETFHead(D, K).assign(assign_by_means(ETFHead(D, K).weight, torch.randn(K, D))),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says[:50])
def test_the_advice_works(case: Any) -> None:
    case.check()


def test_every_advice_has_a_case() -> None:
    assert without_a_case(CASES, "heads") == []
