"""Finding the head by what a layer returns, and the errors if no layer is the head."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from support.small_network import Small
from support.torchvision_models import without_memory
from torch import Tensor, nn

from nc_tools.heads import ETFHead
from nc_tools.surgery import find_head, split_head, swap_head


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


def test_wrong_names_raise_and_list_the_right_ones() -> None:
    with pytest.raises(ValueError, match=r"Small has no module 'outt'; did you mean 'out'\?"):
        swap_head(Small(), ETFHead, name="outt")
    with pytest.raises(ValueError, match="'norm' is a BatchNorm2d: pass name= with 'out' or 'mix'"):
        swap_head(Small(), ETFHead, name="norm")
    vgg = without_memory("vgg11")
    with pytest.raises(ValueError, match=r"'classifier' is a Sequential: .* 'classifier.0' or 'classifier.3' or"):
        swap_head(vgg, ETFHead, name="classifier")


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

    with pytest.raises(ValueError, match=r"item named logits.*outputs of 'out' \(2, 5\) too: pass name="):
        swap_head(Named(), ETFHead)
    assert swap_head(model := Named(), ETFHead, name="out") is model.out

    class Silent(Small):
        def forward(self, x: Tensor) -> Any:
            self.last = super().forward(x)

    with pytest.raises(ValueError, match=r"must return logits \(N, num_classes\).*got none: pass name=.*'mix', 'out'"):
        swap_head(Silent(), ETFHead)
    assert swap_head(model := Silent(), ETFHead, name="out") is model.out


def test_compiled_and_wrapped_models_raise() -> None:
    in_place, inside = Small(), nn.Sequential(torch.compile(nn.Flatten(), backend="eager"), nn.Linear(8, 4))  # type: ignore[arg-type]
    in_place.compile(backend="eager")
    for wrapped in (torch.compile(Small(), backend="eager"), in_place, nn.DataParallel(Small()), inside):
        with pytest.raises(ValueError, match=r"the head of a (compiled|wrapped) model, got a "):
            swap_head(wrapped, ETFHead)  # type: ignore[arg-type]
    assert swap_head(inside, ETFHead, name="1") is inside[1]
