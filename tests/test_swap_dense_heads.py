"""Heads of pixels, of boxes and of one's own layers: where the head is not an nn.Linear on one vector a sample."""

import copy
from typing import Any

import pytest
import torch
import torchvision
from support.swapped_heads import D, K, every_head, head_spec, seeded
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, linear, normalize

from nc_tools import evaluate, measure
from nc_tools.heads import CosineHead, ETFHead, Head, LinearHead, PixelHead
from nc_tools.losses import CrossEntropyLoss, DotRegressionLoss
from nc_tools.records import Batch
from nc_tools.surgery import find_head, split_head, swap_head, watch

MAPS = torch.randn(3, D, 4, 5, generator=seeded(4))


@every_head
def test_every_head_scores_each_pixel_as_it_scores_a_sample(cls: type[Head]) -> None:
    head = head_spec(cls).build({"feature_dim": D, "num_classes": K, "generator": seeded(0)}).eval()
    logits = PixelHead(head)(MAPS)
    assert logits.shape == (3, K, 4, 5)
    expected = torch.stack([head(MAPS[:, :, i, j]) for i in range(4) for j in range(5)], dim=2)
    assert torch.allclose(logits.flatten(2), expected, atol=1e-5)


def test_a_1x1_convolution_that_returns_the_logits_becomes_a_head_of_each_pixel() -> None:
    model = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, K, 1))
    head = swap_head(model, ETFHead)
    assert isinstance(model[2], PixelHead)
    assert model[2].head is head
    images, labels = torch.randn(2, 3, 6, 7), torch.randint(0, K, (2, 6, 7))
    watched = watch(model)
    logits = model(images)
    assert logits.shape == (2, K, 6, 7)
    # The rows of the watched outputs are the pixels, in the order of the labels.
    batch = Batch(images, labels.flatten(), torch.arange(labels.numel()))
    assert torch.allclose(CrossEntropyLoss()(watched.outputs, batch), cross_entropy(logits, labels), atol=1e-6)
    DotRegressionLoss()(watched.outputs, batch).backward()
    assert model[0].weight.grad.any()
    second = swap_head(model, LinearHead, num_classes=3)
    assert model[2].head is second
    assert model(images).shape == (2, 3, 6, 7)
    maps, removed = split_head(model)
    assert maps(images).shape == (2, 12, 6, 7)
    assert isinstance(removed, PixelHead)


def step(model: nn.Module, loss: Tensor, before: dict[str, Tensor]) -> None:
    """Make a step and check that it moves all layers that learn, and that the gradients are finite."""
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert all(torch.isfinite(g).all() for g in gradients.values())
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    moved = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert len(moved) > 0.5 * len(before)


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.slow
def test_deeplabv3_is_refused_with_its_layers_and_trains_with_an_etf_head_of_each_pixel() -> None:
    model = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=K
    )
    # Its logits are interpolated after the head, and stand in a dictionary under another name.
    with pytest.raises(ValueError, match=r"got none: pass name= with the layer.*the last ones: .*'classifier.4'"):
        swap_head(model, ETFHead)
    head = swap_head(model, ETFHead, name="classifier.4")
    images, labels = torch.randn(2, 3, 64, 64), torch.randint(0, K, (2, 64, 64))
    watched, before = watch(model), values(model)
    logits = model(images)["out"]
    assert logits.shape == (2, K, 64, 64)
    assert watched.outputs.head is head
    assert len(watched.outputs.features) == 2 * 4 * 4  # the map is a sixteenth of the image
    small = interpolate(labels[:, None].float(), (4, 4)).long().flatten()
    features_loss = DotRegressionLoss()(watched.outputs, Batch(images, small, torch.arange(32)))
    step(model, CrossEntropyLoss()(logits, labels) + features_loss, before)


@pytest.mark.slow
def test_segformer_takes_an_etf_head_of_each_pixel() -> None:
    transformers = pytest.importorskip("transformers", reason="Segformer is in transformers, which is not installed")
    sizes = {"hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4, "num_attention_heads": [1, 1, 2, 2]}
    model = transformers.SegformerForSemanticSegmentation(
        transformers.SegformerConfig(num_labels=K, decoder_hidden_size=16, **sizes)
    )
    swap_head(model, ETFHead, num_classes=7)
    assert model.config.num_labels == 7
    assert isinstance(model.decode_head.classifier, PixelHead)
    labels = torch.randint(0, 7, (2, 64, 64))
    labels[0, :9] = 255  # the label that Segformer leaves out
    before = values(model)
    step(model, model(torch.randn(2, 3, 64, 64), labels=labels).loss, before)


@pytest.mark.slow
def test_the_box_head_of_a_detector_trains_and_detects() -> None:
    model = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=K
    )
    with pytest.raises(ValueError, match=r"got none: pass name=.*'roi_heads.box_predictor.cls_score'"):
        swap_head(model, ETFHead)
    head = swap_head(model, ETFHead, name="roi_heads.box_predictor.cls_score")
    watched, before = watch(model), values(model)
    targets = [{"boxes": torch.tensor([[5.0, 5.0, 40.0, 40.0]]), "labels": torch.tensor([2])}] * 2
    losses = model([torch.rand(3, 64, 64)] * 2, targets)
    assert watched.outputs.features.shape[1] == head.feature_dim  # a row for each box
    step(model, sum(losses.values()), before)
    assert {"boxes", "labels", "scores"} == model.eval()([torch.rand(3, 64, 64)])[0].keys()


class NormedLinear(nn.Module):
    """The cosine layer of many long-tail repositories (LDAM): its matrix is (D, K), and it states no width."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(in_features, out_features))

    def forward(self, x: Tensor) -> Tensor:
        return normalize(x, dim=1).mm(normalize(self.weight, dim=0))


class RowsNormed(nn.Module):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.class_weight = nn.Parameter(torch.randn(out_features, in_features))

    def forward(self, x: Tensor) -> Tensor:
        return linear(normalize(x, dim=1), normalize(self.class_weight, dim=1))


@pytest.mark.parametrize("layer_type", [NormedLinear, RowsNormed])
def test_a_cosine_layer_of_ones_own_is_a_head(layer_type: Any) -> None:
    layer = layer_type(6, 4)
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), layer)
    inputs, labels = torch.randn(12, 8), torch.arange(12) % 4
    assert find_head(model) == "2"
    loader = [(inputs, labels)]
    found = measure(model, loader)
    # NC3 reads a row for each class, however the layer stores its matrix.
    assert "nc/nc3_cosine" in found
    assert found.keys() == measure(model, loader, head="2").keys()
    assert evaluate(model, loader, loader)["test/nc/nc3_cosine"] == pytest.approx(found["nc/nc3_cosine"], abs=1e-5)
    for name in (None, "2"):
        other = copy.deepcopy(model)
        head = swap_head(other, CosineHead, name=name)
        assert (head.feature_dim, head.num_classes) == (6, 4)
        assert other(inputs).shape == (12, 4)
    backbone, removed = split_head(model)
    assert removed is layer
    assert backbone(inputs).shape == (12, 6)


def test_the_widths_of_ones_own_layer_come_from_a_run() -> None:
    class Unusual(nn.Module):
        """Runs on nothing that can be guessed."""

        def __init__(self) -> None:
            super().__init__()
            self.embed, self.out = nn.Embedding(20, 6), NormedLinear(6, 4)

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.embed(ids).mean(1))  # type: ignore[no-any-return]

    with pytest.raises(ValueError, match=r"'out' is a NormedLinear, which does not state its widths.*pass example="):
        swap_head(Unusual(), ETFHead, name="out")
    head = swap_head(Unusual(), ETFHead, name="out", example=torch.zeros(2, 5, dtype=torch.int64))
    assert (head.feature_dim, head.num_classes) == (6, 4)
