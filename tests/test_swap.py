"""Finding, taking off and replacing the head of models that were not written for it."""

import copy
import io
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torchvision
from support.slow_cases import slow_except
from support.torchvision_models import CONVOLUTIONAL, NAMES, WITH_AUXILIARY, K, without_memory
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nc_tools.geometry import simplex_etf
from nc_tools.heads import LEARNED, CosineHead, ETFHead, Head, LinearHead
from nc_tools.spec import spec
from nc_tools.surgery import find_head, split_head, swap_head

# The smallest of each family; the variants share its code.
FAMILIES = ["efficientnet_b0", "efficientnet_v2_s", "mnasnet0_5", "regnet_x_400mf", "resnet50"]
FAMILIES += ["maxvit_t", "mobilenet_v2", "shufflenet_v2_x0_5", "swin_v2_t", "vgg11", "vit_b_32", "alexnet"]
ON_A_CPU = ["resnet18", "mobilenet_v3_small", "swin_t", "densenet121", "convnext_tiny"]
TESTED_OTHERWISE = {*CONVOLUTIONAL, *WITH_AUXILIARY, *FAMILIES, *ON_A_CPU}


def layer_of_width(model: nn.Module, width: int) -> str:
    (name,) = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and m.out_features == width]
    return name


@pytest.mark.parametrize("name", slow_except([n for n in NAMES if n not in TESTED_OTHERWISE], "resnet34", "vgg16"))
def test_the_head_of_every_other_torchvision_classifier_is_split_off(name: str) -> None:
    model = without_memory(name)
    expected = model.get_submodule(layer_of_width(model, K))
    backbone, head = split_head(model)
    assert backbone is model
    assert head is expected
    assert all(m is not head for m in model.modules())


@pytest.mark.parametrize("name", slow_except(FAMILIES, "resnet50", "mobilenet_v2", "vgg11"))
def test_one_of_each_torchvision_family_takes_a_new_head(name: str) -> None:
    model = without_memory(name)
    where = layer_of_width(model, K)
    width = model.get_submodule(where).in_features
    head = swap_head(model, ETFHead, num_classes=7)
    assert model.get_submodule(where) is head
    assert (head.feature_dim, head.num_classes, head.weight.device.type) == (width, 7, "meta")


def test_all_families_are_tested() -> None:
    def module(name: str) -> str:
        return str(torchvision.models.get_model_builder(name).__module__)

    tested = {module(name) for name in FAMILIES} | {module(name) for name in ON_A_CPU}
    assert tested == {module(name) for name in NAMES if name not in CONVOLUTIONAL | WITH_AUXILIARY}


@pytest.mark.parametrize("name", slow_except(ON_A_CPU, "resnet18"))
def test_logits_are_the_new_heads_scores_of_the_models_own_features(name: str) -> None:
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, num_classes=K).eval()
    images = torch.randn(2, 3, 64, 64)
    backbone, _ = split_head(copy.deepcopy(model), example=images)
    head = swap_head(model, ETFHead, example=images)
    with torch.no_grad():
        features = backbone(images)
        assert features.shape == (2, head.feature_dim)
        assert torch.allclose(model(images), head(features), atol=1e-6)


@pytest.mark.parametrize("name", sorted(CONVOLUTIONAL))
def test_a_convolutional_head_raises_and_the_suggested_fix_works(name: str) -> None:
    model = torchvision.models.get_model(name, weights=None, num_classes=K)
    before = str(model)
    message = r"'classifier.1' is a 1 x 1 convolution.*AdaptiveAvgPool2d\(1\), nn.Flatten\(\), nn.Linear\(512, 10\)\)"
    with pytest.raises(ValueError, match=rf"no layer of SqueezeNet returns the logits unchanged.*{message}"):
        swap_head(model, ETFHead)
    with pytest.raises(ValueError, match=message):
        swap_head(model, ETFHead, name="classifier.1")
    assert str(model) == before
    model.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
    assert swap_head(model, ETFHead).feature_dim == 512


def test_a_convolution_whose_map_is_the_output_raises() -> None:
    with pytest.raises(ValueError, match="'0' is a 1 x 1 convolution over a map"):
        split_head(nn.Sequential(nn.Conv2d(3, 4, 1)))


@pytest.mark.parametrize("name", slow_except(sorted(WITH_AUXILIARY), "googlenet"))
def test_auxiliary_heads_raise_and_both_suggested_fixes_work(name: str) -> None:
    model = without_memory(name, aux_logits=True)
    aux = "'aux1.fc2', 'aux2.fc2'" if name == "googlenet" else "'AuxLogits.fc'"
    with pytest.raises(ValueError, match=rf"only in train mode \({aux}\).*aux_logits=False.*name='fc'"):
        swap_head(model, ETFHead)
    assert isinstance(model.fc, nn.Linear)
    assert swap_head(model, ETFHead, name="fc") is model.fc
    plain = without_memory(name, aux_logits=False)
    assert swap_head(plain, ETFHead) is plain.fc


class Small(nn.Module):
    """A classifier with statistics, dropout and a head that is neither last by name nor by definition."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.out = nn.Linear(width, 5)
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.5)
        self.mix = nn.Linear(width, width)

    def features(self, x: Tensor) -> Tensor:
        x = self.drop(torch.relu(self.norm(self.conv(x))))
        return torch.relu(self.mix(x.mean((2, 3))))

    def forward(self, x: Tensor) -> Any:
        return self.out(self.features(x))


@dataclass
class Record:
    logits: Tensor
    hidden: Tensor


class Returns(Small):
    """The same, with its logits wrapped as models of several libraries wrap them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        h = self.features(x)
        z = self.out(h)
        return {"tuple": (z, h), "record": Record(z, h), "dict": {"logits": z, "hidden": h}}[self.kind]


@pytest.mark.parametrize("kind", ["tuple", "record", "dict"])
def test_logits_inside_a_tuple_a_record_or_a_dict(kind: str) -> None:
    model = Returns(kind)
    assert find_head(model) == "out"
    assert swap_head(model, ETFHead) is model.out


def test_inputs_by_name_or_by_position() -> None:
    assert find_head(Small(), example={"x": torch.zeros(1, 3, 8, 8)}) == "out"
    assert find_head(Small(), example=(torch.zeros(1, 3, 8, 8),)) == "out"


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


class Tempered(Small):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x) / 2


class InPlace(Small):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).mul_(2)


class Bypassed(Small):
    def forward(self, x: Tensor) -> Any:
        return nn.functional.linear(self.features(x), self.out.weight, self.out.bias)


@pytest.mark.parametrize("cls", [Tempered, InPlace, Bypassed])
def test_logits_that_are_changed_after_the_last_layer_raise(cls: type[Small]) -> None:
    model = cls()
    old = model.out
    for attempt in (find_head, split_head, lambda m: swap_head(m, ETFHead)):
        with pytest.raises(
            ValueError, match=rf"{cls.__name__} returns the logits unchanged.*as wide as the logits: 'out'\."
        ):
            attempt(model)
    assert model.out is old
    assert swap_head(model, ETFHead, name="out") is model.out


def test_a_layer_that_writes_in_place_after_the_head_counts_as_a_change() -> None:
    with pytest.raises(ValueError, match="returns the logits unchanged"):
        find_head(nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True)))


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
            self.out.in_features  # noqa: B018 - our heads have no such attribute
            return super().forward(x)

    model = Raises()
    old = model.out
    with pytest.raises(AttributeError, match="in_features"):
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


def test_attention_as_wide_as_the_logits_is_no_auxiliary_head() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(6, 8)
            self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 8, batch_first=True), 1)
            self.pool = nn.MultiheadAttention(8, 2, batch_first=True)
            self.out = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            h = self.encoder(self.embed(x)[:, None])
            return self.out(self.pool(h, h, h)[0][:, 0])  # type: ignore[no-any-return]

    assert find_head(Attending()) == "out"


def test_a_bare_layer_raises_and_the_suggested_fix_works() -> None:
    layer = nn.Linear(4, 3)
    with pytest.raises(ValueError, match=r"wrap it first, as in nn.Sequential\(model\)"):
        swap_head(layer, ETFHead)
    assert swap_head(nn.Sequential(layer), ETFHead).feature_dim == 4


def test_wrong_names_raise_and_list_the_right_ones() -> None:
    with pytest.raises(ValueError, match=r"Small has no module 'outt'; did you mean 'out'\?"):
        swap_head(Small(), ETFHead, name="outt")
    with pytest.raises(ValueError, match="'norm' is a BatchNorm2d: pass name= with 'out' or 'mix'"):
        swap_head(Small(), ETFHead, name="norm")
    vgg = without_memory("vgg11")
    with pytest.raises(ValueError, match=r"'classifier' is a Sequential: .* 'classifier.0' or 'classifier.3' or"):
        swap_head(vgg, ETFHead, name="classifier")


def test_an_argument_that_is_no_head_raises() -> None:
    for wrong in (nn.Linear, spec(nn.Linear), ETFHead(12, 5)):
        with pytest.raises(TypeError, match=r"(?s)swap_head needs a Head class.*swap_head\(model, ETFHead\)"):
            swap_head(Small(), wrong)  # type: ignore[arg-type]


def test_a_model_that_cannot_run_on_zeros_needs_an_example() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(20, 8)
            self.out = nn.Linear(8, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.embedding(ids).mean(1))  # type: ignore[no-any-return]

    with pytest.raises(
        ValueError, match=r"could not run Tokens on an input of zeros.*example=.*name= with one of 'out'"
    ):
        find_head(Tokens())
    assert find_head(Tokens(), example=torch.zeros(2, 4, dtype=torch.int64)) == "out"


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
    with pytest.raises(RuntimeError, match=r"out is a fixed simplex ETF frame, but the checkpoint has a learned"):
        fresh.load_state_dict(Small().state_dict(), strict=False)


def test_a_linear_head_reads_the_old_checkpoint() -> None:
    old, model, images = Small().eval(), Small().eval(), torch.randn(2, 3, 8, 8)
    head: Head = swap_head(model, LinearHead)
    model.load_state_dict(old.state_dict())
    assert torch.equal(model(images), old(images))
    assert isinstance(head, LinearHead)


@pytest.mark.parametrize("strict", [True, False])
def test_an_old_checkpoint_raises_and_its_backbone_loads(strict: bool) -> None:
    torch.manual_seed(0)
    old = torchvision.models.resnet18(num_classes=K)
    model = torchvision.models.resnet18(num_classes=K)
    head = swap_head(model, spec(ETFHead, frame_seed=2), example=torch.zeros(1, 3, 32, 32))
    frame = head.weight.clone()
    with pytest.raises(
        RuntimeError, match=r"fc is a fixed simplex ETF frame, but the checkpoint has a learned fc\.weight"
    ):
        model.load_state_dict(old.state_dict(), strict=strict)
    assert torch.equal(head.weight, frame)
    backbone = {name: value for name, value in old.state_dict().items() if not name.startswith("fc.")}
    assert model.load_state_dict(backbone, strict=False).unexpected_keys == []
    assert torch.equal(model.conv1.weight, old.conv1.weight)


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(1)])
def test_probabilities_are_no_logits(last: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(6, 4), last)
    with pytest.raises(
        ValueError, match=r"unchanged: it returns (log-)?probabilities. Remove the (log-)?softmax at the end"
    ):
        swap_head(model, ETFHead, example=torch.randn(3, 6))
    assert isinstance(model[0], nn.Linear)


def test_features_and_other_outputs_are_no_logits() -> None:
    with pytest.raises(ValueError, match=r"as wide as the logits: none.*nn.Sequential\(model, ETFHead\(12, K\)\)"):
        swap_head(nn.Sequential(nn.Conv2d(3, 12, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), ETFHead)

    class Named(Small):
        def forward(self, x: Tensor) -> Any:
            return {"scores": super().forward(x)}

    with pytest.raises(ValueError, match=r"must return logits \(N, num_classes\).*got none: wrap it"):
        swap_head(Named(), ETFHead)
    assert swap_head(model := Named(), ETFHead, name="out") is model.out


def test_compiled_and_wrapped_models_raise() -> None:
    in_place, inside = Small(), nn.Sequential(torch.compile(nn.Flatten(), backend="eager"), nn.Linear(8, 4))  # type: ignore[arg-type]
    in_place.compile(backend="eager")
    for wrapped in (torch.compile(Small(), backend="eager"), in_place, nn.DataParallel(Small()), inside):
        with pytest.raises(ValueError, match=r"the head of a (compiled|wrapped) model, got a "):
            swap_head(wrapped, ETFHead)  # type: ignore[arg-type]
    assert swap_head(inside, ETFHead, name="1") is inside[1]
