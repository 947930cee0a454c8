"""One timm model of each module: a new head, or an error whose suggested fix works."""

import re

import pytest
import timm
import torch
from support import swap_models
from support.slow_cases import slow_except
from torch import nn

from nc_tools.heads import ETFHead, LinearHead
from nc_tools.surgery import find_head, split_head, swap_head

ARCHITECTURES = swap_models.timm_architectures()
UNSUPPORTED = {name for name, module in ARCHITECTURES.items() if module in swap_models.UNSUPPORTED}

FAST = ["resnet18", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "resnetv2_50"]


def images(model: nn.Module) -> torch.Tensor:
    return torch.zeros(2, *model.default_cfg["input_size"], device="meta")


@pytest.mark.parametrize("name", slow_except([n for n in ARCHITECTURES if n not in UNSUPPORTED], *FAST))
def test_one_of_each_module_takes_a_new_head(name: str) -> None:
    model = swap_models.timm_model(name)
    old = model.get_classifier()
    head = swap_head(model, LinearHead, num_classes=7)
    assert any(module is head for module in model.modules())
    assert model.num_classes == 7
    if isinstance(old, nn.Linear):
        assert model.get_classifier() is head
        assert head.feature_dim == old.in_features


@pytest.mark.parametrize("name", slow_except(sorted(UNSUPPORTED), *FAST))
def test_several_heads_and_convolutions_raise_and_the_suggested_fix_works(name: str) -> None:
    model = swap_models.timm_model(name)
    before = str(model)
    with pytest.raises(ValueError, match=r"model.reset_classifier\(0\).*nn.Sequential\(model, ETFHead") as error:
        swap_head(model, ETFHead)
    assert str(model) == before
    (width, classes) = map(int, re.findall(r"ETFHead\((\d+), (\d+)\)", str(error.value))[0])
    assert classes == swap_models.K
    model.reset_classifier(0)
    with torch.device("meta"):
        fixed = nn.Sequential(model.to("meta"), ETFHead(width, classes))
    assert fixed.train()(images(model)).shape == (2, classes)  # where distilled models return two outputs
    assert find_head(fixed, example=images(model)) == "1"


def test_every_module_is_tested() -> None:
    modules = {timm.model_entrypoint(name).__module__ for name in timm.list_models()}
    assert len(ARCHITECTURES) >= len(modules)
    assert {timm.model_entrypoint(name).__module__ for name in ARCHITECTURES} == modules


def test_the_number_of_classes_is_set_and_restored() -> None:
    class Asserting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_classes, self.body = 4, nn.Flatten()
            self.fc: nn.Module = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if isinstance(self.fc, nn.Linear):
                return self.fc(self.body(x))
            assert self.num_classes == 6
            raise RuntimeError("no")

    model = Asserting()
    old = model.fc
    with pytest.raises(RuntimeError, match="no"):
        swap_head(model, ETFHead, num_classes=6)
    assert model.fc is old
    assert model.num_classes == 4


def test_in_half_precision_from_images_to_gradients() -> None:
    torch.manual_seed(0)
    for dtype in (torch.bfloat16, torch.float16):
        model = timm.create_model("test_vit", num_classes=5).to(dtype)
        head = swap_head(model, ETFHead)
        assert head.frame.dtype == dtype
        logits = model(torch.randn(2, 3, 160, 160, dtype=dtype))
        assert logits.dtype == torch.float32
        nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
        assert model.patch_embed.proj.weight.grad.abs().max() > 0


def test_features_of_a_model_without_classes_are_no_logits() -> None:
    with torch.device("meta"):
        model = timm.create_model("test_vit", num_classes=0)
        encoder = timm.create_model("test_vit", num_classes=0, global_pool="")
    with pytest.raises(ValueError, match=r"was built for 0 classes and returns features: .*ETFHead\(64, num"):
        split_head(model)
    with pytest.raises(ValueError, match=r"pool its output of shape \(2, 101, 64\) to \(N, D\), then put a head"):
        split_head(encoder)
