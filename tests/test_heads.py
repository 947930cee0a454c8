"""The contract that every head keeps, user-defined ones included."""

import copy
import math

import pytest
import torch
from safetensors.torch import load, save
from support.head_variants import VARIANTS, D, K, N, NegatedHead, built
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nc_tools.heads import (
    LEARNED,
    CosineHead,
    ETFHead,
    FrozenRandomHead,
    Head,
    LearnedScale,
    LinearHead,
    default_scale,
    normalize,
)
from nc_tools.heads.normalize import dot_normalized
from nc_tools.spec import Spec

every_head = pytest.mark.parametrize("wanted", VARIANTS, ids=lambda s: f"{s.cls.__name__}-{dict(s.arguments)}")


def features(n: int = N) -> Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(1)).relu()


def test_the_contract_sees_the_users_head() -> None:
    assert {s.cls for s in VARIANTS} >= {NegatedHead, LinearHead, CosineHead, ETFHead, FrozenRandomHead}


@every_head
def test_affine_promise(wanted: Spec[Head]) -> None:
    head, h = built(wanted), features()
    logits = head(h)
    assert logits.shape == (N, K)
    if head.affine:
        expected = head.scale * (head.embed(h) @ head.weight.T)
        expected = expected if head.bias is None else expected + head.bias
        assert torch.allclose(logits, expected, atol=1e-5)


@every_head
def test_outputs_say_the_same_as_forward_and_compute_logits_only_when_asked(wanted: Spec[Head]) -> None:
    head, h = built(wanted), features()
    outputs = head.outputs(h)
    assert outputs.computed_logits is None
    assert torch.equal(outputs.logits, head(h))
    assert outputs.weight.shape == (K, outputs.embedded.shape[1])


@every_head
def test_gradient_reaches_the_backbone_and_every_parameter(wanted: Spec[Head]) -> None:
    head, h = built(wanted), features().requires_grad_()
    cross_entropy(head(h), torch.arange(N) % K).backward()  # type: ignore[no-untyped-call]
    assert h.grad is not None
    assert float(h.grad.abs().sum()) > 0
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())


@every_head
def test_state_dict_round_trip_also_through_safetensors(wanted: Spec[Head]) -> None:
    head, h = built(wanted), features()
    other = built(wanted, generator=torch.Generator().manual_seed(9))
    other.load_state_dict(load(save({k: v.contiguous() for k, v in head.state_dict().items()})))
    assert torch.equal(other(h), head(h))


@every_head
def test_deepcopy_and_dtype_moves(wanted: Spec[Head]) -> None:
    head, h = built(wanted), features()
    assert torch.equal(copy.deepcopy(head)(h), head(h))
    double = copy.deepcopy(head).double()
    assert double(h.double()).dtype == torch.float64
    half = copy.deepcopy(head).to(torch.bfloat16)
    scored = half(h.to(torch.bfloat16))
    assert scored.dtype == torch.float32
    assert torch.isfinite(scored).all()


@every_head
def test_float32_inside_autocast(wanted: Spec[Head]) -> None:
    head, h = built(wanted), features()
    with torch.autocast("cpu", torch.bfloat16):
        inside, lazily = head(h), head.outputs(h).logits
    assert inside.dtype == lazily.dtype == torch.float32
    assert torch.equal(inside, head(h))
    assert torch.equal(lazily, inside)


@every_head
def test_compiles_without_a_graph_break(wanted: Spec[Head]) -> None:
    head, h = built(wanted), features()
    torch._dynamo.reset()
    compiled = torch.compile(head, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(h), head(h), atol=1e-6)


@every_head
def test_one_generator_decides_what_is_learned(wanted: Spec[Head]) -> None:
    if wanted.cls is NegatedHead:
        pytest.skip("this head draws from the global stream")
    state = torch.get_rng_state()
    a, b = (built(wanted, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@every_head
def test_wrong_width_and_too_few_classes_are_refused(wanted: Spec[Head]) -> None:
    with pytest.raises(ValueError, match=rf"width {D}, got shape \(3, {D + 1}\)"):
        built(wanted)(torch.zeros(3, D + 1))
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        built(wanted, num_classes=1)


@every_head
def test_the_default_device_changes_where_a_head_lives_and_nothing_else(wanted: Spec[Head]) -> None:
    """A CPU generator draws nowhere but on the CPU, also where the default device is another."""
    if wanted.cls is NegatedHead:
        pytest.skip("this head draws from the global stream")
    with torch.device("meta"):
        head = built(wanted, generator=torch.Generator("cpu").manual_seed(0))
        assert head(torch.zeros(N, D)).shape == (N, K)
    assert all(t.device.type == "meta" for t in [*head.parameters(), *head.buffers()])
    plain = built(wanted)
    assert {k: v.shape for k, v in head.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_head
def test_the_gpu_gets_the_same_weights(wanted: Spec[Head]) -> None:
    if wanted.cls is NegatedHead:
        pytest.skip("this head draws from the global stream")
    with torch.device("cuda"):
        head = built(wanted, generator=torch.Generator("cpu").manual_seed(0))
    plain = built(wanted)
    assert all(torch.equal(v.cpu(), plain.state_dict()[k]) for k, v in head.state_dict().items())
    assert torch.allclose(head(features().cuda()).cpu(), plain(features()), atol=1e-4)


@every_head
def test_zero_features_have_finite_logits_and_gradients(wanted: Spec[Head]) -> None:
    head, h = built(wanted), torch.zeros(N, D, requires_grad=True)
    cross_entropy(head(h), torch.arange(N) % K).backward()  # type: ignore[no-untyped-call]
    assert h.grad is not None
    assert torch.isfinite(h.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


@every_head
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_scored_in_float32(wanted: Spec[Head], dtype: torch.dtype) -> None:
    head, h = built(wanted), features().to(dtype)
    assert torch.equal(head(h), head(h.float()))


def test_linear_head_is_nn_linear_in_both_directions() -> None:
    linear, head = nn.Linear(D, K), LinearHead(D, K)
    head.load_state_dict(linear.state_dict())
    assert torch.equal(head(features()), linear(features()))
    linear.load_state_dict(LinearHead(D, K).state_dict())
    torch.manual_seed(3)
    reference = nn.Linear(D, K)
    drawn = LinearHead(D, K, generator=torch.Generator().manual_seed(3))
    assert torch.equal(drawn.weight, reference.weight)
    assert torch.equal(drawn.bias, reference.bias)  # type: ignore[arg-type]


def test_cosine_logits_are_scaled_cosines() -> None:
    head, h = CosineHead(D, K, scale=3.0), features()
    for n in range(N):
        for k in range(K):
            w = head.direction[k].tolist()
            dot = sum(a * b for a, b in zip(h[n].tolist(), w, strict=True))
            norm = math.dist(h[n].tolist(), [0] * D) * math.dist(w, [0] * D)
            assert float(head(h)[n, k].detach()) == pytest.approx(3.0 * dot / norm, abs=1e-5)


@pytest.mark.parametrize(("classes", "scale"), [(10, 8.2), (100, 11.4), (1000, 13.8)])
def test_default_scale_gives_the_promised_confidence(classes: int, scale: float) -> None:
    assert default_scale(classes) == pytest.approx(scale, abs=0.05)
    head = ETFHead(classes, classes)
    aligned = head(head.weight[:1])
    assert float(aligned.softmax(1)[0, 0]) == pytest.approx(0.999, abs=1e-5)


def value_of(head: Head) -> float:
    assert isinstance(head.scale, Tensor)
    return float(head.scale.detach())


def test_learned_scale_starts_where_asked_and_stays_positive() -> None:
    head = ETFHead(D, K, scale=LearnedScale(3.0))
    assert value_of(head) == pytest.approx(3.0, abs=1e-6)
    assert value_of(ETFHead(D, K, scale=LEARNED)) == pytest.approx(default_scale(K), abs=1e-5)
    with torch.no_grad():
        head.scale_of.raw.fill_(-50.0)
    assert value_of(head) > 0
    assert head.scale_of.raw.ndim == 0


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_scales_that_are_none_are_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="scale must be positive and finite"):
        ETFHead(D, K, scale=scale)


def test_fixed_frames_are_buffers_called_frame_and_never_trained() -> None:
    for cls in (ETFHead, FrozenRandomHead):
        head = cls(D, K)
        assert list(head.parameters()) == []
        assert [name for name, _ in head.named_buffers()] == ["frame"]
        assert set(head.state_dict()) == {"frame", "_extra_state"}


def test_frame_seed_alone_decides_the_frame() -> None:
    a = ETFHead(D, K, frame_seed=1, generator=torch.Generator().manual_seed(0))
    b = ETFHead(D, K, frame_seed=1, generator=torch.Generator().manual_seed(8), projection=D)
    c = ETFHead(D, K, frame_seed=2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(a.frame, b.frame)
    assert not torch.allclose(a.frame, c.frame)


@pytest.mark.parametrize("strict", [True, False])
def test_an_old_checkpoint_never_slips_into_a_frame(strict: bool) -> None:
    head = ETFHead(D, K)
    before = head.frame.clone()
    with pytest.raises(RuntimeError, match="fixed simplex ETF frame, but the checkpoint holds a learned weight"):
        head.load_state_dict(nn.Linear(D, K).state_dict(), strict=strict)
    model = nn.Sequential(nn.Linear(D, D), head)
    old = nn.Sequential(nn.Linear(D, D), nn.Linear(D, K))
    with pytest.raises(RuntimeError, match=r"1 is a fixed .* learned 1\.weight"):
        model.load_state_dict(old.state_dict(), strict=strict)
    assert torch.equal(head.frame, before)


@pytest.mark.parametrize("strict", [True, False])
def test_a_frame_of_another_geometry_is_refused(strict: bool) -> None:
    head = ETFHead(D, K)
    with pytest.raises((RuntimeError, ValueError), match="simplex ETF"):
        head.load_state_dict(FrozenRandomHead(D, K).state_dict(), strict=strict)
    damaged = {**head.state_dict(), "frame": head.frame + 0.1 * torch.randn(K, D)}
    with pytest.raises(RuntimeError, match="must be a simplex ETF frame, but the checkpoint's is off by"):
        head.load_state_dict(damaged, strict=strict)


def test_the_backbone_of_an_old_checkpoint_still_loads() -> None:
    model = nn.Sequential(nn.Linear(D, D), ETFHead(D, K))
    model.load_state_dict({f"0.{k}": v for k, v in nn.Linear(D, D).state_dict().items()}, strict=False)


def test_a_loaded_head_keeps_the_checkpoints_seed_and_frame() -> None:
    saved, head = ETFHead(D, K, frame_seed=4), ETFHead(D, K, frame_seed=0)
    head.load_state_dict(saved.state_dict())
    assert head.frame_seed == 4
    assert torch.equal(head.frame, saved.frame)


def test_every_direction_of_normalized_features_gets_a_gradient() -> None:
    """A fixed ETF has rank K - 1: on raw features the other directions get none."""
    labels = torch.arange(200) % 10
    h = torch.randn(200, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ranks = []
    for scaled in (False, True):
        raw = h.clone().requires_grad_()
        cross_entropy(ETFHead(64, 10, normalize=scaled).double()(raw), labels).backward()  # type: ignore[no-untyped-call]
        assert raw.grad is not None
        ranks.append(int(torch.linalg.matrix_rank(raw.grad, rtol=1e-6)))
    assert ranks == [9, 64]


def test_unit_has_a_bounded_gradient_at_zero() -> None:
    x = torch.zeros(3, 4, requires_grad=True)
    normalize(x).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert float(x.grad.abs().max()) <= 1.0


def test_derivatives_of_unit_are_those_of_its_steps() -> None:
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda given: normalize(given) ** 3, x)


def test_random_rows_are_unit_and_not_an_etf() -> None:
    w = FrozenRandomHead(D, K).weight
    assert torch.allclose(w.norm(dim=1), torch.ones(K), atol=1e-6)
    assert float((w @ w.T - ETFHead(D, K).weight @ ETFHead(D, K).weight.T).abs().max()) > 0.05


def test_product_with_unit_rows_and_its_first_and_second_derivatives() -> None:
    x, other = (torch.randn(4, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.allclose(dot_normalized(x, other), (normalize(x) * other).sum(-1), atol=1e-14)
    assert torch.autograd.gradcheck(dot_normalized, (x, other))
    assert torch.autograd.gradgradcheck(dot_normalized, (x, other))


def test_product_with_a_zero_row_is_zero_with_a_bounded_gradient() -> None:
    x = torch.zeros(2, 3, requires_grad=True)
    dot_normalized(x, torch.ones(2, 3)).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.tolist() == [[1.0] * 3] * 2


@every_head
def test_own_scores_are_the_products_with_each_samples_own_class(wanted: Spec[Head]) -> None:
    head, h, labels = built(wanted), features(), torch.arange(N) % K
    expected = (head.weight[labels] * head.embed(h)).sum(1)
    assert torch.allclose(head.outputs(h).label_scores(labels), expected, atol=1e-6)
