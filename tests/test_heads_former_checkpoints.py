"""Weights that version 0.2 wrote, with a description of the geometry as bytes and scales of no dimension."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nc_tools.heads import (
    LEARNED,
    LEARNED_PER_CLASS,
    RANDOM,
    BalancedCalibrationHead,
    CosineHead,
    CubeHead,
    ETFHead,
    FrozenRandomHead,
    HadamardHead,
    Head,
    LinearHead,
    NearestETFHead,
    OrthoplexHead,
    PreallocatedHead,
    PrototypeHead,
    ProxyHead,
    RBFHead,
    SimplexHead,
    SphericalCodeHead,
    StructuredETFHead,
    TwoSpaceHead,
)
from nc_tools.specs import Spec, spec

FILE = load_file(Path(__file__).parent / "data/former_heads.safetensors")
D, K = 8, 4
# In the order of the file. There they have frame_seed=7, and the pre-allocated head has grown to five classes.
HEADS: list[Spec[Head]] = [
    Spec(ETFHead),
    spec(ETFHead, projection=True, scale=LEARNED),
    spec(ETFHead, scale=LEARNED_PER_CLASS, assignment=RANDOM),
    Spec(CosineHead),
    spec(CosineHead, scale=5.0),
    Spec(LinearHead),
    Spec(ProxyHead),
    Spec(FrozenRandomHead),
    spec(StructuredETFHead, assignment=RANDOM),
    spec(StructuredETFHead, rotated=False),
    spec(OrthoplexHead, assignment=RANDOM),
    Spec(CubeHead),
    Spec(HadamardHead),
    Spec(SimplexHead),
    spec(SphericalCodeHead, projection=2),
    spec(NearestETFHead, every=3),
    Spec(PrototypeHead),
    spec(PreallocatedHead, capacity=6),
    Spec(RBFHead),
    spec(TwoSpaceHead, hidden=12),
    spec(TwoSpaceHead, hidden=12, learned=True, scale=LEARNED),
    Spec(BalancedCalibrationHead),
    spec(BalancedCalibrationHead, mix=LEARNED, scale=LEARNED),
]


def build(number: int) -> Head:
    sizes = {"feature_dim": D, "num_classes": K, "generator": torch.Generator().manual_seed(0)}
    return HEADS[number].build(sizes).eval()


def former(number: int) -> dict[str, torch.Tensor]:
    prefix = f"{number:02d}.state."
    return {k.removeprefix(prefix): v for k, v in FILE.items() if k.startswith(prefix)}


@pytest.mark.parametrize("number", range(len(HEADS)), ids=lambda i: f"{i}-{HEADS[i].cls.__name__}")
def test_weights_of_version_0_2_give_the_logits_that_they_gave_then(number: int) -> None:
    head = build(number)
    assert not any(head.load_state_dict(former(number)))
    expected = FILE[f"{number:02d}.logits"]
    assert torch.allclose(head(FILE["features"]), expected, atol=1e-5)
    again = build(number)
    again.load_state_dict(head.state_dict())
    assert torch.equal(again(FILE["features"]), head(FILE["features"]))


def test_they_load_as_part_of_a_model_with_half_precision_and_not_strictly() -> None:
    model = torch.nn.Sequential(torch.nn.Identity(), build(0))
    state = {f"1.{k}": v if v.dtype == torch.uint8 else v.half() for k, v in former(0).items()}
    assert not any(model.load_state_dict(state, strict=False))
    assert torch.allclose(model(FILE["features"]), FILE["00.logits"], atol=1e-2)


@pytest.mark.parametrize("strict", [True, False])
def test_the_geometry_that_they_name_is_checked(strict: bool) -> None:
    simplex = next(i for i, s in enumerate(HEADS) if s.cls is ETFHead)
    for number, other in enumerate(HEADS):
        if other.cls in {FrozenRandomHead, OrthoplexHead, StructuredETFHead, RBFHead, PrototypeHead}:
            with pytest.raises(RuntimeError, match=r"frame, but ETFHead has a simplex ETF frame"):
                build(simplex).load_state_dict(former(number), strict=strict)
    with pytest.raises(
        RuntimeError, match=r"a head with capacity=6, but this head has capacity=9: build the head with"
    ):
        PreallocatedHead(D, K).load_state_dict(former(17), strict=strict)
    with pytest.raises(RuntimeError, match="rotated=False, but this head has rotated=True"):
        build(8).load_state_dict(former(9), strict=strict)
