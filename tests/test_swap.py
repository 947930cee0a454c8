"""Finding, taking off and replacing the head of models that were not written for it."""

import copy
import io
from typing import Any

import pytest
import torch
from support.small_network import Small
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nc_tools.geometry import simplex_etf
from nc_tools.heads import LEARNED, CosineHead, ETFHead, Head, LinearHead
from nc_tools.specs import spec
from nc_tools.surgery import find_head, split_head, swap_head


def test_sequential_and_vector_inputs() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))
    assert swap_head(model, CosineHead) is model[3]
    backbone, head = split_head(model)
    assert backbone(torch.zeros(2, 16)).shape == (2, 8)
    assert isinstance(head, CosineHead)


def test_nothing_but_the_head_changes() -> None:
    torch.manual_seed(0)
    model = Small().train()
    model.norm.eval()  # a frozen normalization, as in fine-tuning
    model.conv.weight.requires_grad_(requires_grad=False)
    state, modes = copy.deepcopy(model.state_dict()), {n: m.training for n, m in model.named_modules()}
    rng = torch.get_rng_state()
    assert find_head(model) == "out"
    swap_head(model, ETFHead)
    assert torch.equal(torch.get_rng_state(), rng)
    assert {n: m.training for n, m in model.named_modules() if n in modes} == modes
    assert model.out.training
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in state.items() if not k.startswith("out."))
    assert not model.conv.weight.requires_grad
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert not swap_head(model.eval(), ETFHead).training


def test_a_model_that_draws_random_numbers_in_eval_mode_leaves_the_generator_alone() -> None:
    class Noisy(Small):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x + torch.randn_like(x))

    rng = torch.get_rng_state()
    swap_head(Noisy(), ETFHead, generator=torch.Generator().manual_seed(0))
    model = Noisy()
    before = torch.get_rng_state()
    swap_head(model, spec(ETFHead, projection=True), generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(before, rng)


def test_a_second_swap_replaces_the_first() -> None:
    model = Small()
    swap_head(model, ETFHead)
    second = swap_head(model, CosineHead)
    third = swap_head(model, LinearHead, num_classes=3)
    assert (second.num_classes, third.num_classes) == (5, 3)
    assert model.out is third
    swap_head(model, spec(ETFHead, projection=True, scale=LEARNED))
    assert swap_head(model, LinearHead) is model.out
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 3)


def test_num_classes_and_the_spec_are_followed() -> None:
    model = Small()
    head = swap_head(model, spec(ETFHead, scale=4.0, frame_seed=3), num_classes=8)
    assert (head.feature_dim, head.num_classes, head.scale) == (12, 8, 4.0)
    assert torch.equal(head.weight, ETFHead(12, 8, frame_seed=3).weight)


def test_the_generator_draws_the_parameters_of_the_new_head() -> None:
    head_type = spec(ETFHead, projection=True, scale=LEARNED)
    a, b, c = (swap_head(Small(), head_type, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(a.projection.weight, b.projection.weight)  # type: ignore[union-attr]
    assert not torch.equal(a.projection.weight, c.projection.weight)  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("head_type", [ETFHead, spec(ETFHead, projection=True, scale=LEARNED), CosineHead])
def test_device_and_dtype_are_those_of_the_old_head(dtype: torch.dtype, head_type: Any) -> None:
    model = Small().to(dtype)
    head = swap_head(model, head_type)
    assert all(t.dtype == dtype for t in [*head.parameters(), *head.buffers()])
    logits = model(torch.randn(4, 3, 8, 8, dtype=dtype))
    assert logits.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.isfinite(logits).all()
    assert swap_head(Small().to("meta"), head_type).weight.device.type == "meta"


def test_a_bfloat16_frame_is_saved_and_loaded() -> None:
    saved, fresh = Small().bfloat16(), Small().bfloat16()
    swap_head(saved, spec(ETFHead, frame_seed=1))
    swap_head(fresh, ETFHead)
    fresh.load_state_dict(saved.state_dict())
    assert torch.equal(fresh.out.weight, saved.out.weight)


def test_a_model_that_fails_with_the_new_head_gets_the_old_one_back() -> None:
    class Curious(Small):
        def forward(self, x: Tensor) -> Any:
            if isinstance(self.out, nn.Linear):
                return super().forward(x)
            return self.features(x)

    model = Curious()
    old = model.out
    with pytest.raises(ValueError, match="does not return the output of the new head at 'out'"):
        swap_head(model, ETFHead)
    assert model.out is old

    class Raises(Small):
        def forward(self, x: Tensor) -> Any:
            if not isinstance(self.out, nn.Linear):
                raise AttributeError("only a linear layer will do")
            return super().forward(x)

    model = Raises()
    old = model.out
    with pytest.raises(AttributeError, match="only a linear layer"):
        swap_head(model, ETFHead, example=torch.zeros(1, 3, 8, 8))
    assert model.out is old


def test_a_head_with_two_names_is_replaced_under_both() -> None:
    class Aliased(Small):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = self.out

        def forward(self, x: Tensor) -> Any:
            return self.classifier(self.features(x))

    model = Aliased()
    head = swap_head(model, ETFHead)
    assert model.out is head
    assert model.classifier is head
    split_head(model)
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 12)


def test_a_bare_layer_raises_and_the_suggested_fix_works() -> None:
    layer = nn.Linear(4, 3)
    with pytest.raises(ValueError, match=r"wrap it first, as in nn.Sequential\(model\)"):
        swap_head(layer, ETFHead)
    assert swap_head(nn.Sequential(layer), ETFHead).feature_dim == 4


def test_an_argument_that_is_no_head_raises() -> None:
    for wrong in (nn.Linear, spec(nn.Linear), ETFHead(12, 5)):
        with pytest.raises(TypeError, match=r"(?s)swap_head needs a Head class.*swap_head\(model, ETFHead\)"):
            swap_head(Small(), wrong)  # type: ignore[arg-type]


def test_a_geometry_that_does_not_exist_leaves_the_model_as_it_was() -> None:
    model = Small()
    old = model.out
    with pytest.raises(ValueError, match=r"20 classes needs feature_dim >= 19, got 12.*projection=19"):
        swap_head(model, ETFHead, num_classes=20)
    assert model.out is old
    assert swap_head(model, spec(ETFHead, projection=19), num_classes=20).weight.shape == (20, 19)


@pytest.mark.parametrize("head_type", [ETFHead, spec(ETFHead, projection=True, scale=LEARNED), CosineHead])
def test_the_users_loop_trains_unchanged(head_type: Any) -> None:
    torch.manual_seed(0)
    labels = torch.arange(40) % 4
    inputs = simplex_etf(4, 6)[labels].float() + 0.1 * torch.randn(40, 6)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    swap_head(model, head_type)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(40):
        loss = cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]
    assert float((model(inputs).argmax(1) == labels).float().mean()) == 1.0


def test_checkpoints_of_swapped_models() -> None:
    torch.manual_seed(0)
    saved, fresh, images = Small().eval(), Small().eval(), torch.randn(2, 3, 8, 8)
    swap_head(saved, spec(ETFHead, frame_seed=5))
    swap_head(fresh, ETFHead)
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(fresh(images), saved(images))
    with pytest.raises(RuntimeError, match=r"out has a fixed simplex ETF frame, but the checkpoint has a learned"):
        fresh.load_state_dict(Small().state_dict(), strict=False)


def test_a_linear_head_reads_the_old_checkpoint() -> None:
    old, model, images = Small().eval(), Small().eval(), torch.randn(2, 3, 8, 8)
    head: Head = swap_head(model, LinearHead)
    model.load_state_dict(old.state_dict())
    assert torch.equal(model(images), old(images))
    assert isinstance(head, LinearHead)
