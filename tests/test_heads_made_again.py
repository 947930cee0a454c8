"""Heads that are built on the meta device, emptied or reset: the right frame, never what the memory held."""

import pytest
import torch
from support.head_variants import VARIANTS, D, K, NegatedHead, build, features
from torch import Tensor, nn

from nc_tools.heads import ETFHead, FixedFrameHead, Head, PreallocatedHead, StructuredETFHead
from nc_tools.specs import Spec

OWN = [variant for variant in VARIANTS if variant.cls is not NegatedHead]
every_head = pytest.mark.parametrize("variant", OWN, ids=lambda s: f"{s.cls.__name__}-{dict(s.arguments)}")


def fill_free_memory() -> None:
    """Leave NaN in memory that is free, in blocks of the sizes of the heads' tensors."""
    full = [torch.full((n,), float("nan")) for n in (1, K, D, 2 * D, K * K, K * D, D * D, 4 * D * D, 64 * 64) * 3]
    del full


def equal(a: Head, b: Head, parameters: bool = True) -> bool:
    pairs = list(zip(a.named_buffers(), b.named_buffers(), strict=True))
    pairs += list(zip(a.named_parameters(), b.named_parameters(), strict=True)) if parameters else []
    return all(name == other and torch.equal(x, y) for (name, x), (other, y) in pairs)


@every_head
def test_memory_for_a_head_of_the_meta_device_holds_its_frame(variant: Spec[Head]) -> None:
    with torch.device("meta"):
        head = build(variant)
    assert repr(head)
    fill_free_memory()
    expected = build(variant)
    head.to_empty(device="cpu")
    assert equal(head, expected, parameters=False)
    head.reset_parameters(torch.Generator().manual_seed(0))
    assert equal(head, expected)
    assert torch.equal(head(features()), expected(features()))


@every_head
def test_a_head_of_the_meta_device_does_not_compute_with_what_memory_holds(variant: Spec[Head]) -> None:
    """PyTorch does for a linear layer without bias."""
    with torch.device("meta"):
        head = build(variant).eval()
        assert head(torch.zeros(2, D)).is_meta
    with pytest.raises(RuntimeError, match=r"(has no values, because it is on the meta|not on the expected) device"):
        head(features())
    head.to_empty(device="cpu").reset_parameters(torch.Generator().manual_seed(0))  # type: ignore[operator]
    assert torch.equal(head(features()), build(variant).eval()(features()))


@every_head
def test_new_memory_for_a_head_that_had_some_holds_its_frame(variant: Spec[Head]) -> None:
    model, expected = nn.Sequential(build(variant)), build(variant)
    fill_free_memory()
    model.to_empty(device="cpu")
    assert equal(model[0], expected, parameters=False)  # type: ignore[arg-type]


@every_head
def test_reset_goes_back_to_the_head_that_was_built(variant: Spec[Head]) -> None:
    head, expected = build(variant), build(variant)
    other = build(variant, generator=torch.Generator().manual_seed(3))
    hidden = features(K)
    other.observe(other.outputs(hidden), torch.arange(K), 0.7)
    head.load_state_dict(other.state_dict())
    if isinstance(head, FixedFrameHead | StructuredETFHead):
        vertices = head.capacity if isinstance(head, PreallocatedHead) else K
        head.assign([*range(1, vertices), 0])
    head.reset_parameters(torch.Generator().manual_seed(0))
    assert equal(head, expected)


def test_moves_and_conversions_keep_what_a_head_has_become() -> None:
    head = ETFHead(D, K)
    head.assign([*range(1, K), 0])
    frame = head.frame.clone()
    head.bfloat16().double().to("cpu")
    assert torch.allclose(head.frame.float(), frame, atol=4e-3)
    with torch.no_grad():
        head.frame[0, 0] = float("nan")
    assert torch.isnan(head.float().frame[0, 0])


def test_reset_of_every_module_as_sharding_tools_do_it() -> None:
    """PyTorch's tools give memory to one module after the other and call reset_parameters of each."""
    with torch.device("meta"):
        head = ETFHead(D, K, projection=True)
    for module in head.modules():
        module.to_empty(device="cpu", recurse=False)
        module.reset_parameters()
    assert torch.equal(head.frame, ETFHead(D, K, projection=True).frame)
    assert torch.isfinite(head(features())).all()
    assert float(head.projection.weight.detach().std()) > 0  # type: ignore[union-attr]


class OwnHead(NegatedHead):
    """A head of a user with a buffer, which says how its tensors are made."""

    def __init__(self, feature_dim: int, num_classes: int) -> None:
        super().__init__(feature_dim, num_classes)
        self.register_buffer("offset", torch.full((num_classes,), 2.0))

    def initial_buffers(self) -> dict[str, Tensor]:
        return {"offset": torch.full((self.num_classes,), 2.0, device="cpu")}

    def draw_parameters(self, generator: torch.Generator | None) -> None:
        for parameter in (self.rows, self.bias):
            parameter.data.normal_(generator=generator)


def test_a_head_of_a_user_says_how_its_tensors_are_made_or_is_refused() -> None:
    with pytest.raises(
        NotImplementedError, match=r"NegatedHead cannot draw its parameters rows, bias again: define dr"
    ):
        NegatedHead(D, K).reset_parameters()
    forgetful = NegatedHead(D, K)
    forgetful.register_buffer("offset", torch.zeros(K))
    with pytest.raises(
        NotImplementedError, match=r"cannot make its buffers offset again: return them from initial_buf"
    ):
        forgetful.reset_parameters()
    with torch.device("meta"):
        head = OwnHead(D, K)
    head.to_empty(device="cpu").reset_parameters(torch.Generator().manual_seed(0))  # type: ignore[operator]
    assert head.get_buffer("offset").tolist() == [2.0] * K
    assert float(head.rows.detach().std()) > 0.5
