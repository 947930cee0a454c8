"""Color jitter, image by image against torchvision and the standard library."""

import colorsys
import math

import pytest
import torch
from support.pictures import pictures
from torchvision.transforms.v2 import functional as tv

from nc_tools.data import ColorJitter
from nc_tools.data import color_jitter as c

STRENGTHS = torch.tensor([0.0, 0.3, 1.0, 1.7, 2.4])
THEIRS = {
    "brightness": tv.adjust_brightness,
    "contrast": tv.adjust_contrast,
    "saturation": tv.adjust_saturation,
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", THEIRS)
def test_each_image_gets_its_own_strength(name, channels):
    images = pictures(channels).float()
    outputs = getattr(c, name)(images.clone(), STRENGTHS)
    for image, strength, output in zip(images, STRENGTHS.tolist(), outputs, strict=True):
        torch.testing.assert_close(output / 255, THEIRS[name](image / 255, strength), atol=1e-5, rtol=0)


@pytest.mark.parametrize("turn", [-0.5, -0.21, 0.0, 0.1, 0.5])
def test_the_hue_is_that_of_torchvision_and_of_the_standard_library(turn):
    images = pictures().float()
    outputs = c.hue(images, torch.full((5,), turn))
    for image, output in zip(images, outputs, strict=True):
        torch.testing.assert_close(output / 255, tv.adjust_hue(image / 255, turn), atol=1e-4, rtol=0)
    for row in range(24):
        h, s, v = colorsys.rgb_to_hsv(*(images[0, :, row, 3] / 255).tolist())
        expected = colorsys.hsv_to_rgb((h + turn) % 1.0, s, v)
        assert (outputs[0, :, row, 3] / 255).tolist() == pytest.approx(expected, abs=1e-5)
    gray = pictures(1).float()
    assert torch.equal(c.hue(gray, torch.full((5,), turn)), gray)
    assert torch.equal(c.saturation(gray, STRENGTHS), gray)


def test_jitter_is_its_parts_in_order_with_strengths_in_their_ranges():
    jitter = ColorJitter(brightness=0.4, contrast=0.3, saturation=1.5, hue=0.1)
    draws = jitter.draw(4000, torch.Generator().manual_seed(0))
    for column, (low, high) in zip(draws.unbind(1), [(0.6, 1.4), (0.7, 1.3), (0.0, 2.5), (-0.1, 0.1)], strict=True):
        assert low <= float(column.min()) < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < float(column.max()) <= high
        assert float(column.mean()) == pytest.approx((low + high) / 2, abs=0.03 * (high - low))
    images = pictures()
    outputs = jitter.apply(images, draws[:5])
    parts = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    for i, image in enumerate(images):
        x = image.double() / 255
        for part, value in zip(parts, draws[i], strict=True):
            x = part(x, float(value))
        assert int((outputs[i].int() - (x * 255).round().int()).abs().max()) <= 1
    nothing = ColorJitter(0, 0, 0)
    assert torch.equal(nothing.apply(images, nothing.draw(5, torch.Generator())), images)
    gray = pictures(1)
    assert jitter.apply(gray, draws[:5]).shape == gray.shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"brightness": -0.1}, "brightness of ColorJitter must be finite and not negative, got -0.1"),
        ({"contrast": math.inf}, "contrast of ColorJitter must be finite and not negative, got inf"),
        ({"hue": 0.6}, r"color circle and must lie in \[0, 0.5\], got 0.6"),
    ],
)
def test_bad_options_raise(options, message):
    with pytest.raises(ValueError, match=message):
        ColorJitter(**options)
