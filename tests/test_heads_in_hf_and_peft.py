"""Hugging Face models with every head: saved and loaded, or refused; adapters of PEFT."""

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from support.swapped_heads import CLASSES, head_spec
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nc_tools.heads import LEARNED, ETFHead, Head, OrthoplexHead
from nc_tools.specs import Spec, spec
from nc_tools.surgery import swap_head

transformers = pytest.importorskip("transformers", reason="needs transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers and peft, about names that they will change
K = 5
X = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def config() -> Any:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return transformers.ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=K)


def class_with(head: type[Head] | Spec[Head]) -> Any:
    """Return the class that the error of save_pretrained advises to write."""

    class Model(transformers.ViTForImageClassification):  # type: ignore[misc, name-defined]
        def __init__(self, settings: Any) -> None:
            super().__init__(settings)
            swap_head(self, head, name="classifier")

    return Model


def stock(head: type[Head] | Spec[Head]) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = transformers.ViTForImageClassification(config())
    swap_head(model, head, name="classifier")
    return model


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    return model.eval()(X).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_class_that_swaps_the_head_gives_it_back_or_makes_it_again(cls: type[Head], tmp_path: Path) -> None:
    model, other = (class_with(head_spec(cls, seed)) for seed in (0, 1))
    torch.manual_seed(1)
    saved = model(config())
    saved.save_pretrained(tmp_path / "whole")
    for kind in (model, other):  # another frame seed too
        assert torch.equal(logits(kind.from_pretrained(tmp_path / "whole")), logits(saved))
    # A checkpoint without the head, in which memory was full of NaN.
    plain = transformers.ViTForImageClassification(config())
    plain.classifier = nn.Identity()
    plain.save_pretrained(tmp_path / "plain")
    full = [torch.full((n,), float("nan")) for n in (K, 16, 64, 80, 256, 320, 1024, 4096)]
    del full
    again = model.from_pretrained(tmp_path / "plain")
    fresh = model(config()).classifier
    for (name, a), (_, b) in zip(again.classifier.named_buffers(), fresh.named_buffers(), strict=True):
        assert torch.equal(a, b), name
    assert torch.isfinite(logits(again)).all()
    assert all(float(p.detach().std()) > 0 for p in again.classifier.parameters() if p.numel() > 1)


def test_a_stock_class_is_refused_when_it_is_saved_and_the_advice_works(tmp_path: Path) -> None:
    model = stock(ETFHead)
    for one in (model, copy.deepcopy(model)):
        with pytest.raises(ValueError, match=r"ViTForImageClassification.from_pretrained would put a random nn.Linear"):
            one.save_pretrained(tmp_path)  # type: ignore[operator]
    assert not list(tmp_path.iterdir())
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other = stock(spec(ETFHead, frame_seed=2))
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(logits(other), logits(model))
    model.eval()
    inside = nn.ModuleDict({"vit": stock(ETFHead)})
    with pytest.raises(ValueError, match="save a model whose class swaps the head itself"):
        inside["vit"].save_pretrained(tmp_path)


def test_an_adapter_carries_the_head_with_its_frame(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="needs peft")
    learned = {"projection": True, "scale": LEARNED}
    settings = peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["classifier"])
    model = peft.get_peft_model(stock(spec(ETFHead, **learned)), settings)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    assert {"projection.weight", "scale_of.raw"} <= {name.split("default.")[-1] for name in before}
    cross_entropy(model(X).logits, torch.arange(3)).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert all(
        not torch.equal(p, before[name])
        for name, p in model.named_parameters()
        if "scale_of" in name and name in before
    )
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(stock(spec(ETFHead, frame_seed=3, **learned)), tmp_path)
    assert torch.equal(logits(again), logits(model))
    with pytest.raises(RuntimeError, match="frame"):
        peft.PeftModel.from_pretrained(stock(spec(OrthoplexHead, **learned)), tmp_path)


def test_lora_on_the_projection_has_effect_and_merges() -> None:
    peft = pytest.importorskip("peft", reason="needs peft")
    plain = stock(spec(ETFHead, projection=True))
    before = logits(plain)
    model = peft.get_peft_model(plain, peft.LoraConfig(target_modules=r"classifier\.projection"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    changed = logits(model)
    assert float((changed - before).abs().max()) > 0.1
    merged = model.merge_and_unload()
    assert torch.allclose(logits(merged), changed, atol=1e-5)


def test_a_head_that_peft_freezes_says_so_once() -> None:
    peft = pytest.importorskip("peft", reason="needs peft")
    model = stock(spec(ETFHead, projection=True, scale=LEARNED))
    model = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"])).train()
    with pytest.warns(UserWarning, match=r"ETFHead does not learn \(scale_of, projection: .*modules_to_save"):
        model(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(X)
