"""The collapse of pixels: segmentation networks, whose labels may be larger than the map at the head."""

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import interpolate

from nc_tools import measure
from nc_tools.heads import ETFHead, PixelHead
from nc_tools.measuring import measure_in_detail, model_pass
from nc_tools.measuring.pixel_maps import at_pixels
from nc_tools.metrics import neural_collapse
from nc_tools.specs import spec
from nc_tools.surgery import swap_head

K, D = 4, 6


class Segmenter(nn.Module):
    """Features at half the size of the image, a 1 x 1 convolution, and logits of the image's size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(8, D, 3, stride=2, padding=1), nn.ReLU())
        self.classify = nn.Conv2d(D, K, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        small = self.classify(self.body(self.stem(images).relu()))
        return {"out": interpolate(small, images.shape[-2:], mode="bilinear")}


def data(seed: int = 0) -> tuple[Segmenter, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Segmenter()
    images = torch.randn(5, 3, 10, 14, generator=generator)
    labels = torch.randint(0, K, (5, 10, 14), generator=generator, dtype=torch.uint8)
    labels[0, :5], labels[2, :, 3] = 255, 255
    return model, images, labels


def of_size(labels: Tensor, height: int, width: int) -> Tensor:
    return interpolate(labels[:, None].double(), (height, width), mode="nearest-exact")[:, 0].long()


def rows(maps: Tensor) -> Tensor:
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


@pytest.mark.parametrize("keep_gb", [2.0, 0.0])
@pytest.mark.parametrize("block", [1 << 15, 11])
def test_pixels_are_the_samples_and_ignored_ones_are_left_out(
    keep_gb: float, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_pass, "_PIXELS", block)
    model, images, labels = data()
    batches = [(images[:3], labels[:3]), (images[3:], labels[3:])]
    seen: list[int] = []
    result = measure_in_detail(
        model, batches, head="classify", layers=["body", "stem"], ignore_index=255, keep_gb=keep_gb,
        progress=seen.append,
    )  # fmt: skip
    with torch.no_grad():
        stem = model.stem(images)
        body = model.body(stem.relu())
        decisions = model.classify(body).argmax(1)
    small = of_size(labels, 5, 7)
    kept = small.flatten() != 255
    x, y = rows(body)[kept], small.flatten()[kept]
    assert result.samples == len(x) == sum(seen) / 2
    assert result.counts.tolist() == y.bincount(minlength=K).tolist()
    assert result.values["accuracy"] == pytest.approx(float((decisions.flatten()[kept] == y).double().mean()))
    expected = neural_collapse(x, y, model.classify.weight.detach().flatten(1), num_classes=K)
    assert {"nc1_pinv", "nc2_equinorm", "nc3_cosine", "nc4_disagreement"} <= expected.keys()
    for key, value in expected.items() - {("nc4_disagreement", expected["nc4_disagreement"])}:
        assert result.values[f"nc/{key}"] == pytest.approx(value, rel=1e-4, abs=1e-6), key
    # A layer whose map has another size has its own pixels.
    large = labels.flatten().long()
    assert result.layers["body"]["nc1_pinv"] == pytest.approx(expected["nc1_pinv"], rel=1e-4)
    of_stem = neural_collapse(rows(stem)[large != 255], large[large != 255], num_classes=K)
    for key in ("nc1_pinv", "nc1_trace", "cdnv", "nc2_equinorm"):
        assert result.layers["stem"][key] == pytest.approx(of_stem[key], rel=1e-4), key


def test_nc4_compares_the_nearest_mean_with_the_decision_at_the_pixel() -> None:
    model, images, labels = data(1)
    values = measure(model, [(images, labels)], head="classify", layers=["stem"], ignore_index=255)
    with torch.no_grad():
        stem = model.stem(images)
        decisions = model.classify(model.body(stem.relu())).argmax(1)
    for key, maps in (("nc", model.body(stem.relu()).detach()), ("layer/stem", stem)):
        target = of_size(labels, *maps.shape[2:]).flatten()
        kept = target != 255
        x, y = rows(maps)[kept], target[kept]
        means = torch.stack([x[y == k].mean(0) for k in range(K)])
        predicted = of_size(decisions, *maps.shape[2:]).flatten()[kept]
        differ = (torch.cdist(x.double(), means.double()).argmin(1) != predicted).double().mean()
        assert values[f"{key}/nc4_disagreement"] == pytest.approx(float(differ)), key


def test_a_pixel_head_has_its_class_vectors_and_its_embedding() -> None:
    model, images, labels = data()
    head = swap_head(model, spec(ETFHead, projection=5), name="classify", generator=torch.Generator().manual_seed(0))
    values = measure(model, [(images, labels)], head="classify", ignore_index=255)
    with torch.no_grad():
        x = rows(model.body(model.stem(images).relu()))
    y = of_size(labels, 5, 7).flatten()
    x, y = x[y != 255], y[y != 255]
    expected = neural_collapse(head.outputs(x).embedded.detach(), y, head.weight, num_classes=K)
    for key in ("nc1_pinv", "nc3_cosine", "nc2_equinorm"):
        assert values[f"nc_embedded/{key}"] == pytest.approx(expected[key], rel=1e-4), key


def test_maps_with_channels_last_and_a_linear_layer() -> None:
    class Last(nn.Module):
        def __init__(self, model: Segmenter) -> None:
            super().__init__()
            self.model, self.fc = model, nn.Linear(D, K)
            self.fc.weight.data = model.classify.weight.detach().flatten(1)
            self.fc.bias.data = model.classify.bias.detach()  # type: ignore[union-attr]

        def forward(self, images: Tensor) -> Tensor:
            maps = self.model.body(self.model.stem(images).relu()).permute(0, 2, 3, 1)
            return self.fc(maps).permute(0, 3, 1, 2)  # type: ignore[no-any-return]

    model, images, labels = data()
    values = measure(Last(model), [(images, labels)], head="fc", ignore_index=255)
    expected = measure(model, [(images, labels)], head="classify", ignore_index=255)
    assert values == pytest.approx(expected, rel=1e-5)


def test_clean_labels_of_pixels_and_a_pooling_function() -> None:
    model, images, labels = data()
    clean = (labels.long() + 1) % K

    def half(maps: Tensor) -> Tensor:
        return rows(maps[:, :, ::2, ::2])

    batches = [(images[:2], labels[:2]), (images[2:], labels[2:])]
    values = measure(model, batches, head="classify", layers=["stem"], pool=half, clean=clean, ignore_index=255)
    true = torch.where(labels == 255, 255, clean)
    alone = measure(model, [(images, true)], head="classify", layers=["stem"], pool=half, ignore_index=255)
    assert values["accuracy_clean"] == alone["accuracy"]
    assert values["nc_clean/nc1_pinv"] == pytest.approx(alone["nc/nc1_pinv"], rel=1e-6)
    assert values["layer/stem_clean/nc1_trace"] == pytest.approx(alone["layer/stem/nc1_trace"], rel=1e-6)


@pytest.mark.parametrize("size", [(5, 7), (10, 14), (4, 3), (1, 1), (23, 40)])
def test_labels_are_read_at_the_center_of_a_pixel(size: tuple[int, int]) -> None:
    labels = torch.randint(0, 1 << 30, (2, 10, 14))
    assert torch.equal(at_pixels(labels, size), of_size(labels, *size))


def test_statistics_of_many_pixels_are_made_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_pass, "_PIXELS", 1000)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, K, 1))
    images, labels = torch.randn(2, 3, 100, 80), torch.randint(0, K, (2, 100, 80))
    largest = 0

    class Watching(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result.dtype == torch.float64:
                largest = max(largest, result.numel())
            return result

    with Watching():
        assert "nc/nc1_pinv" in measure(model, [(images, labels)])
    assert 0 < largest <= 1000 * 16


def test_what_has_no_map_is_refused() -> None:
    model, images, labels = data()
    with pytest.raises(ValueError, match=r"got none: pass head= with the layer that computes them.*'classify'"):
        measure(model, [(images, labels)])
    with pytest.raises(ValueError, match=r"\[0, 4\), but \d+ of them"):
        measure(model, [(images, labels)], head="classify")
    flat = nn.Sequential(nn.Conv2d(3, D, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(D, K))
    with pytest.raises(ValueError, match=r"a head that runs once, on a map \(5, D, H, W\), but '3' ran on \[\(5, 6"):
        measure(flat, [(images, labels % K)])
    vectors = nn.Sequential(nn.Conv2d(3, D, 1), nn.Flatten(2), nn.Unflatten(2, (10, 14)), nn.Conv2d(D, K, 1))
    with pytest.raises(ValueError, match=r"layer '1' must run once and return a map \(5, C, H, W\).*got \[\(5, 6, 140"):
        measure(vectors, [(images, labels % K)], layers=["1"])
    assert "layer/1/nc1_trace" in measure(
        vectors, [(images, labels % K)], layers=["1"], pool=lambda maps: maps.transpose(1, 2).flatten(0, 1)
    )
    assert "nc/nc1_trace" in measure(flat, [(images, torch.arange(5) % K)])


def test_samples_with_the_ignored_label_are_left_out_too() -> None:
    torch.manual_seed(0)
    model, x, y = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, K)), torch.randn(40, 5), torch.arange(40) % K
    some = torch.where(torch.arange(40) < 9, -100, y)
    assert measure(model, [(x, some)]) == pytest.approx(measure(model, [(x[9:], y[9:])]), rel=1e-6)


@pytest.mark.slow
def test_deeplabv3_and_segformer_are_measured_on_the_map_at_their_head() -> None:
    torch.manual_seed(0)
    images, labels = torch.randn(2, 3, 64, 64), torch.randint(0, K, (2, 64, 64))
    deeplab = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=K
    )
    swap_head(deeplab, ETFHead, name="classifier.4")
    found = measure_in_detail(deeplab, [(images, labels)], head="classifier.4", layers=["classifier.0"])
    assert found.samples == 2 * 4 * 4
    assert "nc/nc3_cosine" in found.values
    assert "nc1_trace" in found.layers["classifier.0"]
    transformers = pytest.importorskip("transformers", reason="Segformer is in transformers, which is not installed")
    sizes = {"hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4, "num_attention_heads": [1, 1, 2, 2]}
    model = transformers.SegformerForSemanticSegmentation(
        transformers.SegformerConfig(num_labels=K, decoder_hidden_size=16, **sizes)
    )
    swap_head(model, ETFHead)
    assert isinstance(model.decode_head.classifier, PixelHead)
    loader = [{"pixel_values": images, "labels": labels}]
    found = measure_in_detail(model, loader)
    assert found.samples == 2 * 16 * 16
    with torch.no_grad():
        logits = model.eval()(images).logits
        expected = (logits.argmax(1) == of_size(labels, 16, 16)).double().mean()
    assert found.values["accuracy"] == pytest.approx(float(expected))
