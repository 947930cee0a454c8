"""The contract that every head keeps, user-defined ones included."""

import copy

import pytest
import torch
from safetensors.torch import load, save
from support.head_variants import VARIANTS, D, K, N, NegatedHead, build, features
from torch.nn.functional import cross_entropy

from nc_tools.heads import (
    CosineHead,
    ETFHead,
    FrozenRandomHead,
    Head,
    LinearHead,
)
from nc_tools.specs import Spec

every_head = pytest.mark.parametrize("variant", VARIANTS, ids=lambda s: f"{s.cls.__name__}-{dict(s.arguments)}")


def test_the_contract_includes_the_users_head() -> None:
    assert {s.cls for s in VARIANTS} >= {NegatedHead, LinearHead, CosineHead, ETFHead, FrozenRandomHead}


@every_head
def test_affine_heads_score_as_documented(variant: Spec[Head]) -> None:
    head, h = build(variant), features()
    logits = head(h)
    assert logits.shape == (N, K)
    if head.affine:
        expected = head.scale * (head.embed(h) @ head.weight.T)
        expected = expected if head.bias is None else expected + head.bias
        assert torch.allclose(logits, expected, atol=1e-5)


@every_head
def test_outputs_equal_forward_and_compute_logits_lazily(variant: Spec[Head]) -> None:
    head, h = build(variant), features()
    outputs = head.outputs(h)
    assert outputs.computed_logits is None
    assert torch.equal(outputs.logits, head(h))
    assert outputs.weight.shape == (K, outputs.embedded.shape[1])


@every_head
def test_gradient_reaches_the_backbone_and_every_parameter(variant: Spec[Head]) -> None:
    head, h = build(variant), features().requires_grad_()
    cross_entropy(head(h), torch.arange(N) % K).backward()  # type: ignore[no-untyped-call]
    assert h.grad is not None
    assert float(h.grad.abs().sum()) > 0
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())


@every_head
def test_state_dict_round_trip_also_through_safetensors(variant: Spec[Head]) -> None:
    head, h = build(variant), features()
    other = build(variant, generator=torch.Generator().manual_seed(9))
    other.load_state_dict(load(save({k: v.contiguous() for k, v in head.state_dict().items()})))
    assert torch.equal(other(h), head(h))


@every_head
def test_deepcopy_and_dtype_moves(variant: Spec[Head]) -> None:
    head, h = build(variant), features()
    assert torch.equal(copy.deepcopy(head)(h), head(h))
    double = copy.deepcopy(head).double()
    assert double(h.double()).dtype == torch.float64
    half = copy.deepcopy(head).to(torch.bfloat16)
    logits = half(h.to(torch.bfloat16))
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@every_head
def test_float32_inside_autocast(variant: Spec[Head]) -> None:
    head, h = build(variant), features()
    with torch.autocast("cpu", torch.bfloat16):
        inside, lazily = head(h), head.outputs(h).logits
    assert inside.dtype == lazily.dtype == torch.float32
    assert torch.equal(inside, head(h))
    assert torch.equal(lazily, inside)


@every_head
@pytest.mark.slow
def test_compiles_without_a_graph_break(variant: Spec[Head]) -> None:
    head, h = build(variant), features()
    torch._dynamo.reset()
    compiled = torch.compile(head, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(h), head(h), atol=1e-6)


@every_head
def test_the_generator_draws_all_learned_parameters(variant: Spec[Head]) -> None:
    if variant.cls is NegatedHead:
        pytest.skip("this head draws from the global stream")
    state = torch.get_rng_state()
    a, b = (build(variant, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@every_head
def test_wrong_width_and_too_few_classes_raise(variant: Spec[Head]) -> None:
    with pytest.raises(ValueError, match=rf"width {D}, got shape \(3, {D + 1}\)"):
        build(variant)(torch.zeros(3, D + 1))
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        build(variant, num_classes=1)


@every_head
def test_the_default_device_changes_where_a_head_lives_and_nothing_else(variant: Spec[Head]) -> None:
    """A CPU generator draws nowhere but on the CPU, also where the default device is another."""
    if variant.cls is NegatedHead:
        pytest.skip("this head draws from the global stream")
    with torch.device("meta"):
        head = build(variant, generator=torch.Generator("cpu").manual_seed(0))
        assert head(torch.zeros(N, D)).shape == (N, K)
    assert all(t.device.type == "meta" for t in [*head.parameters(), *head.buffers()])
    plain = build(variant)
    assert {k: v.shape for k, v in head.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_head
def test_the_gpu_gets_the_same_weights(variant: Spec[Head]) -> None:
    if variant.cls is NegatedHead:
        pytest.skip("this head draws from the global stream")
    with torch.device("cuda"):
        head = build(variant, generator=torch.Generator("cpu").manual_seed(0))
    plain = build(variant)
    assert all(torch.equal(v.cpu(), plain.state_dict()[k]) for k, v in head.state_dict().items())
    assert torch.allclose(head(features().cuda()).cpu(), plain(features()), atol=1e-4)


@every_head
def test_zero_features_have_finite_logits_and_gradients(variant: Spec[Head]) -> None:
    head, h = build(variant), torch.zeros(N, D, requires_grad=True)
    cross_entropy(head(h), torch.arange(N) % K).backward()  # type: ignore[no-untyped-call]
    assert h.grad is not None
    assert torch.isfinite(h.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


@every_head
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_scored_in_float32(variant: Spec[Head], dtype: torch.dtype) -> None:
    head, h = build(variant), features().to(dtype)
    assert torch.equal(head(h), head(h.float()))


@every_head
def test_own_scores_are_the_products_with_each_samples_own_class(variant: Spec[Head]) -> None:
    head, h, labels = build(variant), features(), torch.arange(N) % K
    expected = (head.weight[labels] * head.embed(h)).sum(1)
    assert torch.allclose(head.outputs(h).label_scores(labels), expected, atol=1e-6)
