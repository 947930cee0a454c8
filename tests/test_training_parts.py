"""Training a part of a backbone: what moves and what stays, rates by depth, the head first."""

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from nc_tools.heads import LEARNED, ETFHead, LinearHead
from nc_tools.losses import CrossEntropyLoss
from nc_tools.models import Classifier, ConvNet, build_backbone
from nc_tools.records import Batch
from nc_tools.specs import spec
from nc_tools.surgery import layer_groups
from nc_tools.training import OptimConfig, PartlyTrained, TrainConfig, TrainedPart, fit, lora_targets, train_part
from nc_tools.training.learning_rate import rate_factor
from nc_tools.training.optimizers import make_optimizer

pytestmark = pytest.mark.slow

# Network, number of blocks as its paper counts them, and the first tensors of the first and the last group.
BLOCKS = [
    ("resnet18", 9, "conv1.weight", "layer4.1.conv1.weight"),  # stem and 8 residual blocks
    ("timm:vit_tiny_patch16_224", 13, "cls_token", "blocks.11.norm1.weight"),
    ("vit_b_32", 13, "class_token", "encoder.layers.encoder_layer_11.ln_1.weight"),
    ("timm:swin_tiny_patch4_window7_224", 16, "patch_embed.proj.weight", "layers.3.blocks.1.norm1.weight"),
    ("timm:tf_efficientnet_lite0", 18, "conv_stem.weight", "conv_head.weight"),
    ("conv", 3, "layers.0.weight", "layers.6.weight"),
]


@pytest.mark.parametrize(("name", "number", "first", "last"), BLOCKS)
def test_groups_of_layers_are_blocks_in_order_and_hold_each_parameter_once(
    name: str, number: int, first: str, last: str
) -> None:
    backbone = build_backbone(name, in_channels=3, image_size=224)
    groups = layer_groups(backbone)
    assert (len(groups), groups[0][0], groups[-1][0]) == (number, first, last)
    assert [n for group in groups for n in group] == [n for n, _ in backbone.named_parameters()]


def test_rates_by_depth_are_those_of_timm() -> None:
    timm = pytest.importorskip("timm")
    from timm.optim import param_groups_layer_decay

    model = timm.create_model("vit_tiny_patch16_224", num_classes=5)
    expected = {}
    for group in param_groups_layer_decay(model, layer_decay=0.75):
        expected |= {id(p): group["lr_scale"] for p in group["params"]}
    names = {n: expected[id(p)] for n, p in model.named_parameters()}
    backbone = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    optimizer = make_optimizer(Classifier(backbone, LinearHead(192, 5)), OptimConfig(lr=2.0, layer_decay=0.75))
    rates = {id(p): group["peak_lr"] / 2 for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in backbone.named_parameters():
        if name.startswith("norm."):
            continue  # the last norm counts with the last block here, with the head in timm
        assert rates[id(parameter)] == pytest.approx(names[name]), name


@pytest.mark.parametrize("text", ["heads", "last", "last:0", "lora:-1", "last:1.5", "", "all:2"])
def test_what_is_trained_has_four_forms(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be head, last:N .*, all or lora:R"):
        TrainedPart.parse(text)


class Rows:
    """A loader of three batches of eight samples, the same in every epoch."""

    def __init__(self, *shape: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(24, *shape, generator=generator)
        self.labels = torch.randint(3, (24,), generator=generator)

    def __len__(self) -> int:
        return 3

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:  # noqa: ARG002
        for step in range(start, 3):
            rows = torch.arange(8 * step, 8 * step + 8)
            yield Batch(self.inputs[rows], self.labels[rows], rows)


def batches() -> Rows:
    return Rows(1, 8, 8)


def trained(
    train: str, *, freeze_norm: bool, head: Callable[[], nn.Module] | None = None, **optim: float
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    torch.manual_seed(1)
    backbone = train_part(ConvNet(1, 8, 4), TrainedPart.parse(train), freeze_norm=freeze_norm)
    model = Classifier(backbone, LinearHead(16, 3) if head is None else head())  # type: ignore[arg-type]
    before = copy.deepcopy(model.state_dict())
    fit(model, CrossEntropyLoss(), batches(), TrainConfig(epochs=2, batch_size=8), OptimConfig(lr=0.1, **optim))  # type: ignore[arg-type]
    return before, model.state_dict()


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    names = {n for n in before if isinstance(before[n], Tensor) and not torch.equal(before[n], after[n])}
    return {n.replace("backbone.module.", "").replace("backbone.", "") for n in names if "num_batches" not in n}


LAST = {"layers.6.weight", "layers.7.weight", "layers.7.bias"}
ALL = {f"layers.{i}.weight" for i in (0, 1, 3, 4, 6, 7)} | {f"layers.{i}.bias" for i in (1, 4, 7)}
HEAD = {"head.weight", "head.bias"}


def statistics(*layers: int) -> set[str]:
    return {f"layers.{i}.{name}" for i in layers for name in ("running_mean", "running_var")}


@pytest.mark.parametrize(
    ("train", "freeze_norm", "expected"),
    [
        ("head", False, HEAD),
        ("last:1", True, HEAD | LAST),
        ("last:1", False, HEAD | LAST | statistics(7)),
        ("all", True, HEAD | ALL),
        ("all", False, HEAD | ALL | statistics(1, 4, 7)),
    ],
)
def test_what_is_frozen_does_not_move_and_the_rest_does(train: str, freeze_norm: bool, expected: set[str]) -> None:
    assert moved(*trained(train, freeze_norm=freeze_norm)) == expected


def test_projection_and_scale_of_a_head_train_beside_a_frozen_backbone() -> None:
    before, after = trained("head", freeze_norm=True, head=lambda: ETFHead(16, 3, projection=True, scale=LEARNED))
    names = moved(before, after)
    assert "head.projection.weight" in names
    assert any("scale" in name for name in names)
    assert not any("layers" in name for name in names)


def test_dropout_of_frozen_layers_is_off() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.ReLU(), nn.Linear(4, 4), nn.Dropout(0.5))
    part = train_part(nn.Sequential(net), TrainedPart("head"), freeze_norm=True).train()
    assert not any(m.training for m in part.module.modules())  # type: ignore[union-attr, operator]
    inputs = torch.randn(5, 4)
    assert torch.equal(part(inputs), part(inputs))


def test_more_blocks_than_there_are_raise() -> None:
    with pytest.raises(ValueError, match=r"last:3 asks for 3 blocks of ConvNet, which has 3: give at most last:2"):
        train_part(ConvNet(1, 8), TrainedPart("last", 3), freeze_norm=False)


def test_the_wrapper_gives_the_same_features_and_takes_the_networks_weights() -> None:
    net = ConvNet(1, 8).eval()
    images = torch.randn(2, 1, 8, 8)
    wrapped = PartlyTrained(copy.deepcopy(net), ["layers.1"]).eval()
    assert torch.equal(wrapped(images), net(images))
    assert {n.removeprefix("module.") for n in wrapped.state_dict()} == set(net.state_dict())


RATES: list[tuple[float, float]] = []


class RecordingAdamW(torch.optim.AdamW):
    """AdamW that notes the rates of the first and the last group, those of backbone and head."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        RATES.append((self.param_groups[0]["lr"], self.param_groups[-1]["lr"]))
        super().step(closure)


def test_the_head_first_and_then_all() -> None:
    """LP-FT: in the first half only the head moves, each half has its own schedule, and the joint rate is one."""
    RATES.clear()
    torch.manual_seed(0)
    model = Classifier(ConvNet(1, 8, 4), LinearHead(16, 3))
    start = copy.deepcopy(model.backbone.state_dict())
    states = []

    def note(epoch: int, values: dict[str, float], model: Classifier) -> None:
        states.append({n: v.clone() for n, v in model.backbone.state_dict().items()})

    optim = OptimConfig(
        optimizer=spec(RecordingAdamW), lr=0.01, head_lr_ratio=10, head_first=0.5, warmup=0.0, weight_decay=0.01
    )
    fit(model, CrossEntropyLoss(), batches(), TrainConfig(epochs=4, batch_size=8), optim, epoch_end=note)
    assert all(torch.equal(states[1][n], start[n]) for n in start)  # weights and statistics
    assert not torch.equal(states[2]["layers.0.weight"], start["layers.0.weight"])
    assert not torch.equal(states[2]["layers.1.running_mean"], start["layers.1.running_mean"])
    assert len(RATES) == 12
    half = [rate_factor(step, 6, OptimConfig(warmup=0.0)) for step in range(6)]
    assert [head for _, head in RATES] == pytest.approx([0.1 * f for f in half] + [0.01 * f for f in half])
    assert [body for body, _ in RATES[6:]] == pytest.approx([0.01 * f for f in half])
    assert all(p.requires_grad for p in model.parameters())


def test_head_first_needs_something_to_train() -> None:
    with pytest.raises(ValueError, match=r"ETFHead has nothing to train: give it a projection"):
        trained("all", freeze_norm=False, head=lambda: ETFHead(16, 3), head_first=0.5)


def test_training_can_end_early_and_resumes_as_ended(tmp_path) -> None:
    torch.manual_seed(0)
    model = Classifier(ConvNet(1, 8, 4), LinearHead(16, 3))
    seen = []

    def enough(epoch: int, values: dict[str, float], model: Classifier) -> bool:
        seen.append(epoch)
        return epoch == 2

    config = TrainConfig(epochs=5, batch_size=8)
    options = {"checkpoint": tmp_path / "c.pt", "epoch_end": enough, "resume": True, "keep_last": True}
    fit(model, CrossEntropyLoss(), batches(), config, OptimConfig(), **options)  # type: ignore[arg-type]
    again = Classifier(ConvNet(1, 8, 4), LinearHead(16, 3))
    fit(again, CrossEntropyLoss(), batches(), config, OptimConfig(), **options)  # type: ignore[arg-type]
    assert seen == [1, 2]
    assert torch.equal(again.head.weight, model.head.weight)


def test_a_backbone_without_parameters_trains_a_head_on_features() -> None:
    torch.manual_seed(0)
    model = Classifier(nn.Identity(), LinearHead(4, 3))
    before = model.head.weight.detach().clone()
    fit(model, CrossEntropyLoss(), Rows(4), TrainConfig(epochs=1, batch_size=8), OptimConfig())
    assert not torch.equal(model.head.weight, before)


@pytest.mark.parametrize("name", ["timm:vit_tiny_patch16_224", "vit_b_32", "resnet18"])
def test_low_rank_additions_start_at_zero_and_alone_move(name: str) -> None:
    pytest.importorskip("peft", reason="LoRA needs peft")
    torch.manual_seed(0)
    plain = build_backbone(name, in_channels=3, image_size=224 if "vit" in name else 64)
    images = torch.randn(2, 3, *(2 * [224 if "vit" in name else 64]))
    expected = plain.eval()(images).detach()
    weights = {n: v.clone() for n, v in plain.state_dict().items()}
    lora = train_part(plain, TrainedPart("lora", 2), freeze_norm=False).train()
    assert torch.allclose(lora(images), expected, atol=1e-6)
    assert all("lora_" in n for n, p in lora.named_parameters() if p.requires_grad)
    optimizer = make_optimizer(Classifier(lora, LinearHead(expected.shape[1], 3)), OptimConfig(lr=0.1))
    (lora(images) * torch.randn(expected.shape)).sum().backward()  # a norm as last layer keeps sums and squares
    optimizer.step()
    assert not torch.allclose(lora(images), expected, atol=1e-3)
    now = {n.replace(".base_layer", "").removeprefix("module."): v for n, v in lora.state_dict().items()}
    # Not bit-equal: peft adds the product to a MultiheadAttention's weight for each pass, and subtracts it again.
    assert all(torch.allclose(now[n], v, atol=1e-6) for n, v in weights.items())


def test_layers_for_low_rank_additions_by_architecture() -> None:
    vit = build_backbone("timm:vit_tiny_patch16_224", in_channels=3, image_size=224)
    assert lora_targets(vit) == [f"blocks.{i}.attn.qkv" for i in range(12)]
    assert lora_targets(vit, ("fc1", "fc2"))[:2] == ["blocks.0.mlp.fc1", "blocks.0.mlp.fc2"]
    with pytest.raises(ValueError, match=r"no layer is named nothing: choose from .*fc1"):
        lora_targets(vit, ("nothing",))
    with pytest.raises(ValueError, match="Flatten has no layer for LoRA"):
        lora_targets(nn.Flatten())
