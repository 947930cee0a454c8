"""RandAugment on batches, image by image against torchvision's own, and set from a recipe's command line."""

import pytest
import torch
from support.pictures import noise, pictures
from torchvision.transforms import v2

from nc_tools.data import RandAugment
from nc_tools.data.rand_augment import OPERATIONS, apply_operations

THEIR_NAMES = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate",
    "Brightness", "Contrast", "Posterize", "Solarize", "AutoContrast", "Equalize",
    "Color", "Sharpness",
)  # fmt: skip


def theirs(image, name, sign, magnitude):
    """Return what torchvision's RandAugment makes of one image, at one of its 31 magnitudes."""
    transform = v2.RandAugment()
    values, signed = transform._AUGMENTATION_SPACE[name]
    magnitudes = values(31, *image.shape[1:])
    value = 0.0 if magnitudes is None else float(magnitudes[magnitude])
    return transform._apply_image_or_video_transform(
        image, name, value * (sign if signed else 1), interpolation=transform.interpolation, fill=transform._fill
    )


@pytest.mark.parametrize("magnitude", [0, 4, 9, 17, 30])
@pytest.mark.parametrize(("channels", "height", "width"), [(3, 24, 24), (1, 17, 30)])
def test_every_operation_is_torchvisions_on_its_image(magnitude, channels, height, width):
    """All operations and signs in one batch: none may change the image of another."""
    draws = torch.arange(2 * len(OPERATIONS))
    images = pictures(channels, 32)[draws % 3, :, :height, :width]
    outputs = apply_operations(images, draws, magnitude / 30)
    assert outputs.dtype == torch.uint8
    for i, draw in enumerate(draws.tolist()):
        name = THEIR_NAMES[draw // 2]
        difference = (outputs[i].int() - theirs(images[i], name, (-1, 1)[draw % 2], magnitude).int()).abs()
        if name in ("ShearX", "ShearY", "Rotate"):  # a pixel between two may be rounded to either
            assert float((difference > 0).double().mean()) < 0.02, name
        else:
            assert int(difference.max()) <= (1 if name in ("Brightness", "Contrast", "Color", "Sharpness") else 0), name
    assert torch.equal(outputs[:2], images[:2])
    changed = (outputs != images).flatten(1).any(1)
    assert changed.float().mean() > (0.7 if magnitude else 0.1)


def test_the_operations_are_those_of_torchvision():
    assert set(THEIR_NAMES) == set(v2.RandAugment()._AUGMENTATION_SPACE)
    assert len(OPERATIONS) == len(THEIR_NAMES)


def test_each_image_draws_its_own_operations_and_applies_them_in_order():
    augment = RandAugment(operations=2, magnitude=12)
    images, draws = noise(64, 3, 16, 16), augment.draw(64, torch.Generator().manual_seed(0))
    outputs = augment.apply(images, draws)
    assert draws.shape == (64, 2)
    for i in range(64):
        image = images[i : i + 1]
        for draw in draws[i]:
            image = apply_operations(image, draw[None], 0.4)
        assert torch.equal(outputs[i], image[0])
    many = augment.draw(28_000, torch.Generator().manual_seed(1)).flatten()
    counts = torch.bincount(many, minlength=28).double()
    assert float(((counts - 2000) ** 2 / 2000).sum()) < 55.5  # chi-square, 27 degrees of freedom, p = .001


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"operations": 0}, "at least 1 operation, got 0"),
        ({"magnitude": 31}, "magnitude of RandAugment must lie in 0 to 30, got 31"),
        ({"magnitude": -1}, "got -1"),
    ],
)
def test_bad_options_raise(options, message):
    with pytest.raises(ValueError, match=message):
        RandAugment(**options)
