"""All torchvision classifiers: a new head, or an error whose suggested fix works."""

import copy

import pytest
import torch
import torchvision
from support.slow_cases import slow_except
from support.torchvision_models import CONVOLUTIONAL, NAMES, WITH_AUXILIARY, K, without_memory
from torch import nn

from nc_tools.heads import ETFHead
from nc_tools.specs import spec
from nc_tools.surgery import split_head, swap_head

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
    assert str(model) == before
    each_pixel = copy.deepcopy(model)
    swap_head(each_pixel, ETFHead, name="classifier.1")
    assert each_pixel(torch.randn(2, 3, 64, 64)).shape == (2, K)
    model.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
    assert swap_head(model, ETFHead).feature_dim == 512


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


@pytest.mark.parametrize("strict", [True, False])
def test_an_old_checkpoint_raises_and_its_backbone_loads(strict: bool) -> None:
    torch.manual_seed(0)
    old = torchvision.models.resnet18(num_classes=K)
    model = torchvision.models.resnet18(num_classes=K)
    head = swap_head(model, spec(ETFHead, frame_seed=2), example=torch.zeros(1, 3, 32, 32))
    frame = head.weight.clone()
    with pytest.raises(
        RuntimeError, match=r"fc has a fixed simplex ETF frame, but the checkpoint has a learned fc\.weight"
    ):
        model.load_state_dict(old.state_dict(), strict=strict)
    assert torch.equal(head.weight, frame)
    backbone = {name: value for name, value in old.state_dict().items() if not name.startswith("fc.")}
    assert model.load_state_dict(backbone, strict=False).unexpected_keys == []
    assert torch.equal(model.conv1.weight, old.conv1.weight)
