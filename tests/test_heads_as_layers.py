"""What people do to the layers of a model, done to heads: hooks, pruning, weight norm, quantization, initialization."""

import copy

import pytest
import torch
from support.head_variants import VARIANTS, D, K, NegatedHead, build, features
from support.swapped_heads import CLASSES, head_spec, images, linear, seeded
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations, prune

from nc_tools.heads import LEARNED, CosineHead, ETFHead, FixedHead, Head, LinearHead, ProxyHead, TwoSpaceHead
from nc_tools.specs import Spec, spec
from nc_tools.surgery import swap_head, to_linear

OWN = [variant for variant in VARIANTS if variant.cls is not NegatedHead]
every_head = pytest.mark.parametrize("variant", OWN, ids=lambda s: f"{s.cls.__name__}-{dict(s.arguments)}")
WITH_PROJECTION = spec(ETFHead, projection=True, scale=LEARNED)


@every_head
def test_every_child_with_parameters_is_called(variant: Spec[Head]) -> None:
    head = build(variant)
    leaves = {name: m for name, m in head.named_modules() if name and list(m.parameters(recurse=False))}
    calls = set()
    for name, module in leaves.items():
        module.register_forward_hook(lambda *_, name=name: calls.add(name))
    head(features())
    assert calls == set(leaves)
    assert all(p.ndim > 0 for p in head.parameters())


def test_a_hook_on_the_projection_and_on_the_scale_changes_the_logits() -> None:
    head = build(WITH_PROJECTION)
    expected = head(features())
    head.get_submodule("scale_of").register_forward_hook(lambda _m, _i, scale: 2 * scale)
    assert torch.allclose(head(features()), 2 * expected, atol=1e-5)
    head.get_submodule("projection").register_forward_hook(lambda _m, _i, projected: -projected)
    assert torch.allclose(head(features()), -2 * expected, atol=1e-5)


def test_weight_norm_prune_and_their_plain_layers() -> None:
    head = build(WITH_PROJECTION)
    expected = head(features())
    projection = head.get_submodule("projection")
    parametrizations.weight_norm(projection)
    assert torch.allclose(head(features()), expected, atol=1e-5)
    with torch.no_grad():
        projection.parametrizations.weight.original1.neg_()  # type: ignore[union-attr]
    assert torch.allclose(head(features()), -expected, atol=1e-5)
    assert torch.allclose(to_linear(head)(features()), head(features()), atol=1e-4)
    pruned = build(WITH_PROJECTION)
    prune.l1_unstructured(pruned.get_submodule("projection"), "weight", amount=0.9)
    weight = pruned.get_submodule("projection").weight
    assert int((weight != 0).sum()) == round(0.1 * weight.numel())  # type: ignore[arg-type, operator]
    assert not torch.allclose(pruned(features()), expected, atol=0.1)
    assert torch.allclose(to_linear(pruned)(features()), pruned(features()), atol=1e-4)


LEARNED_VECTORS = {
    "weight": Spec(LinearHead), "direction": Spec(CosineHead), "proxies": Spec(ProxyHead),
    "projection.weight": WITH_PROJECTION, "up.weight": spec(TwoSpaceHead, learned=True),
}  # fmt: skip
learned_vectors = pytest.mark.parametrize(("path", "variant"), LEARNED_VECTORS.items(), ids=LEARNED_VECTORS)


def of_path(head: Head, path: str) -> tuple[nn.Module, str]:
    module, _, name = path.rpartition(".")
    return head.get_submodule(module), name


@learned_vectors
def test_reset_draws_a_tensor_with_weight_norm_and_then_norms_it(path: str, variant: Spec[Head]) -> None:
    head, expected = build(variant), build(variant)
    for each in (head, expected):
        parametrizations.weight_norm(*of_path(each, path))
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(1.3).add_(0.1)
    assert not torch.allclose(head(features()), expected(features()), atol=0.01)
    head.reset_parameters(seeded(0))
    assert torch.allclose(head(features()), expected(features()), atol=1e-5)
    cross_entropy(head(features()), torch.arange(11) % K).backward()
    trained = dict(of_path(head, path)[0].named_parameters())
    originals = [p for name, p in trained.items() if name.startswith("parametrizations")]
    assert len(originals) == 2
    assert all(p.grad is not None and p.grad.any() for p in originals)


def test_reset_draws_a_tensor_with_spectral_norm_or_orthogonal_columns() -> None:
    head, drawn = build(Spec(LinearHead)), build(Spec(LinearHead)).weight.detach()
    parametrizations.spectral_norm(head, "weight", n_power_iterations=100)
    for _ in range(2):
        with torch.no_grad():
            head.parametrizations.weight.original.mul_(2).add_(1)  # type: ignore[union-attr, operator]
        head.reset_parameters(seeded(0))
        assert torch.allclose(head.weight, drawn / torch.linalg.matrix_norm(drawn, 2), atol=1e-5)
    head = build(Spec(LinearHead))
    parametrizations.orthogonal(head, "weight")
    before = head.weight.detach().clone()
    head.reset_parameters(seeded(1))
    assert torch.allclose(head.weight @ head.weight.T, torch.eye(K), atol=1e-5)
    assert not torch.allclose(head.weight, before, atol=0.1)


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
@learned_vectors
@pytest.mark.parametrize("norm", [False, True])
def test_reset_of_a_pruned_head_is_refused_until_the_mask_is_removed(
    path: str, variant: Spec[Head], norm: bool
) -> None:
    head = build(variant)
    module, name = of_path(head, path)
    if norm:
        nn.utils.weight_norm(module, name)
    else:
        prune.l1_unstructured(module, name, amount=0.5)
    head(features())
    with pytest.raises(
        RuntimeError, match=r"cannot draw its parameters while .*: remove it first, with prune\.remove or"
    ):
        head.reset_parameters(seeded(0))
    if norm:
        nn.utils.remove_weight_norm(module, name)
    else:
        prune.remove(module, name)
    head.reset_parameters(seeded(0))
    assert torch.allclose(head(features()), build(variant)(features()), atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # of PyTorch, about quantized tensors
def test_dynamic_quantization_of_the_model_leaves_a_head_that_works() -> None:
    model = nn.Sequential(nn.Linear(D, D), build(WITH_PROJECTION)).eval()
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    assert torch.allclose(quantized(features()), model(features()), atol=0.5)


def test_a_model_in_bfloat16_projects_in_float32() -> None:
    head = build(WITH_PROJECTION).to(torch.bfloat16)
    h = features().to(torch.bfloat16)
    assert torch.equal(head(h), head(h.float()))


def usual_initialization(module: nn.Module) -> None:
    """Initialize everything that has a weight, as timm and many others do."""
    if getattr(module, "weight", None) is not None:
        nn.init.trunc_normal_(module.weight, std=2e-5)  # type: ignore[arg-type]
    if getattr(module, "bias", None) is not None:
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_what_people_write_to_a_weight_does_not_reach_a_frame(cls: type[Head]) -> None:
    model = linear()
    head = swap_head(model, head_spec(cls), generator=seeded(0))
    buffers = {name: b.clone() for name, b in model[1].named_buffers()}
    nn.init.trunc_normal_(head.weight, std=2e-5)
    head.weight.data.mul_(1e-3)
    with torch.no_grad():
        head.weight.zero_()
        head.weight[0] = 1.0
    head.apply(usual_initialization)
    head.weight.detach().normal_()
    learned = [head.weight] if head.weight.is_leaf else []
    if learned:
        torch.optim.AdamW(learned, lr=0.1, weight_decay=0.5).step()
    for name, buffer in model[1].named_buffers():
        assert torch.equal(buffer, buffers[name]), name
    if isinstance(head, FixedHead):
        assert torch.isfinite(model(images())).all()
        head.load_state_dict(copy.deepcopy(head.state_dict()))


@every_head
def test_a_head_has_the_widths_of_a_linear_layer(variant: Spec[Head]) -> None:
    head = build(variant)
    assert (head.in_features, head.out_features) == (D, K)
    plain = nn.Linear(head.in_features, head.out_features)
    assert plain(features()).shape == head(features()).shape


def test_timms_idioms_for_the_classifier() -> None:
    timm = pytest.importorskip("timm", reason="needs timm")
    model = timm.create_model("resnet10t.c3_in1k", pretrained=False, num_classes=K)
    head = swap_head(model, ETFHead, name="fc")
    assert model.get_classifier() is head
    assert (model.get_classifier().in_features, model.num_features) == (512, 512)
    frame = head.weight
    model.get_classifier().weight.data.mul_(0.001)
    assert torch.equal(head.weight, frame)
    model.reset_classifier(3)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_learned_maps_of_two_spaces_are_linear_layers() -> None:
    head = TwoSpaceHead(D, K, learned=True)
    assert all(isinstance(getattr(head, name), nn.Linear) for name in ("up", "down"))
    frozen = TwoSpaceHead(D, K)
    assert torch.equal(head(features()), frozen(features()))


def test_a_cosine_head_trains_as_before_with_a_scale_of_one_dimension() -> None:
    head = CosineHead(D, K, generator=seeded(0))
    unit = nn.functional.normalize(head.direction.detach(), dim=1)
    h: Tensor = nn.functional.normalize(features(), dim=1)
    raw = head.scale_of.raw.detach().clone().requires_grad_()
    expected = cross_entropy(nn.functional.softplus(raw) * (h @ unit.T), torch.arange(11) % K)
    expected.backward()
    loss = cross_entropy(head(features()), torch.arange(11) % K)
    loss.backward()
    assert torch.allclose(loss, expected, atol=1e-6)
    assert torch.allclose(head.scale_of.raw.grad, raw.grad, atol=1e-6)  # type: ignore[arg-type]
