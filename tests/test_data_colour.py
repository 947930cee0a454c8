"""Colors, tables, cutout and RandAugment, image by image against torchvision and against loops over pixels."""

import colorsys
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from nc_tools.data import Augment, ColorJitter, Cutout, DataConfig, ImageSet, Loader, RandAugment
from nc_tools.data import color_jitter as c
from nc_tools.data import level_tables as t
from nc_tools.data.epoch_plan import check_views, plan_epoch
from nc_tools.data.rand_augment import OPERATIONS, operate

STRENGTHS = torch.tensor([0.0, 0.3, 1.0, 1.7, 2.4])


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def pictures(channels=3, size=24):
    """Five images that differ in range and texture; one of them flat, one nearly black."""
    images = noise(5, channels, size, size)
    images[1] = images[1] // 4 + 60
    images[2] = torch.arange(size).to(torch.uint8).expand(channels, size, size) * 9
    images[3] = 77
    images[4] = images[4] // 100
    return images


FACTORED = {
    "brightness": tv.adjust_brightness,
    "contrast": tv.adjust_contrast,
    "saturation": tv.adjust_saturation,
    "sharpness": tv.adjust_sharpness,
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", FACTORED)
def test_each_image_gets_the_strength_of_its_own(name, channels):
    images = pictures(channels).float()
    out = getattr(c, name)(images.clone(), STRENGTHS)
    for image, strength, mine in zip(images, STRENGTHS.tolist(), out, strict=True):
        torch.testing.assert_close(mine / 255, FACTORED[name](image / 255, strength), atol=1e-5, rtol=0)


@pytest.mark.parametrize("turn", [-0.5, -0.21, 0.0, 0.1, 0.5])
def test_the_hue_turns_as_in_torchvision_and_in_the_standard_library(turn):
    images = pictures().float()
    out = c.hue(images, torch.full((5,), turn))
    for image, mine in zip(images, out, strict=True):
        torch.testing.assert_close(mine / 255, tv.adjust_hue(image / 255, turn), atol=1e-4, rtol=0)
    for place in range(24):
        h, s, v = colorsys.rgb_to_hsv(*(images[0, :, place, 3] / 255).tolist())
        expected = colorsys.hsv_to_rgb((h + turn) % 1.0, s, v)
        assert (out[0, :, place, 3] / 255).tolist() == pytest.approx(expected, abs=1e-5)
    gray = pictures(1).float()
    assert torch.equal(c.hue(gray, torch.full((5,), turn)), gray)
    assert torch.equal(c.saturation(gray, STRENGTHS), gray)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["posterize", "solarize", "autocontrast", "equalize", "brightness", "contrast"])
def test_tables_are_torchvisions_functions_of_each_image(name, channels):
    images = pictures(channels)
    bits, threshold = torch.tensor([1, 3, 4, 7, 8]), torch.tensor([0.0, 77.0, 100.5, 77.0, 255.0])
    cpu = torch.device("cpu")
    table, theirs = {
        "posterize": lambda: (t.posterize_table(bits, cpu), lambda x, i: tv.posterize(x, int(bits[i]))),
        "solarize": lambda: (t.solarize_table(threshold, cpu), lambda x, i: tv.solarize(x, float(threshold[i]))),
        "autocontrast": lambda: (t.autocontrast_table(images), lambda x, _: tv.autocontrast(x)),
        "equalize": lambda: (t.equalize_table(images), lambda x, _: tv.equalize(x)),
        "brightness": lambda: (
            t.brightness_table(STRENGTHS, cpu),
            lambda x, i: tv.adjust_brightness(x, float(STRENGTHS[i])),
        ),
        "contrast": lambda: (
            t.contrast_table(images, STRENGTHS),
            lambda x, i: tv.adjust_contrast(x, float(STRENGTHS[i])),
        ),
    }[name]()
    out = t.look_up(images, table.expand(5, channels, 256).to(torch.uint8))
    for i, image in enumerate(images):
        difference = (out[i].int() - theirs(image, i).int()).abs()
        assert int(difference.max()) <= (1 if name == "contrast" else 0)  # its mean is summed in another order


def test_equalize_counts_the_pixels_below_the_highest_level():
    """255 pixels below it make a step of one; one more of the highest level, and nothing is done."""
    images = torch.stack([torch.arange(256), torch.arange(256).clamp(max=254)]).to(torch.uint8).view(2, 1, 16, 16)
    images[0] //= 2
    images[0, 0, 15, 15], images[0, 0, 15, 14] = 255, 254
    out = t.look_up(images, t.equalize_table(images).to(torch.uint8))
    assert torch.equal(out, torch.stack([tv.equalize(image) for image in images]))
    assert not torch.equal(out[0], images[0])
    assert torch.equal(out[1], images[1])


def theirs(image, name, sign, size):
    """What torchvision's RandAugment does to one image."""
    height, width = image.shape[1:]
    shear = math.degrees(math.atan(sign * 0.3 * size))
    factor = 1 + sign * 0.9 * size
    corner = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "center": [0, 0]}
    whole = {"angle": 0.0, "scale": 1.0, "shear": [0.0, 0.0]}
    return {
        "identity": lambda: image,
        "shear_x": lambda: tv.affine(image, shear=[shear, 0.0], **corner),
        "shear_y": lambda: tv.affine(image, shear=[0.0, shear], **corner),
        "translate_x": lambda: tv.affine(image, translate=[int(sign * 150 / 331 * width * size), 0], **whole),
        "translate_y": lambda: tv.affine(image, translate=[0, int(sign * 150 / 331 * height * size)], **whole),
        "rotate": lambda: tv.rotate(image, sign * 30 * size),
        "brightness": lambda: tv.adjust_brightness(image, factor),
        "color": lambda: tv.adjust_saturation(image, factor),
        "contrast": lambda: tv.adjust_contrast(image, factor),
        "sharpness": lambda: tv.adjust_sharpness(image, factor),
        "posterize": lambda: tv.posterize(image, round(8 - 4 * size)),
        "solarize": lambda: tv.solarize(image, 255 * (1 - size)),
        "autocontrast": lambda: tv.autocontrast(image),
        "equalize": lambda: tv.equalize(image),
    }[name]()


@pytest.mark.parametrize("magnitude", [0, 4, 9, 17, 30])
@pytest.mark.parametrize(("channels", "height", "width"), [(3, 24, 24), (1, 17, 30)])
def test_every_operation_is_torchvisions_on_its_image(magnitude, channels, height, width):
    """All operations and signs in one batch: none may touch the image of another."""
    count, size = 2 * len(OPERATIONS), magnitude / 30
    images = pictures(channels, 32)[torch.arange(count) % 3, :, :height, :width]
    drawn = torch.arange(count)
    out = operate(images, drawn // 2, drawn % 2 * 2 - 1, size)
    assert out.dtype == torch.uint8
    for i in range(count):
        name, sign = OPERATIONS[i // 2], (-1, 1)[i % 2]
        difference = (out[i].int() - theirs(images[i], name, sign, size).int()).abs()
        if name in ("shear_x", "shear_y", "rotate"):  # a pixel between two may fall to either side
            assert float((difference > 0).double().mean()) < 0.02, name
        else:
            assert int(difference.max()) <= (1 if name in ("contrast", "color", "sharpness") else 0), name
    assert torch.equal(out[:2], images[:2])


def test_rand_augment_draws_for_each_image_and_does_one_after_the_other():
    how = RandAugment(operations=2, magnitude=12)
    images, drawn = noise(64, 3, 16, 16), how.draw(64, torch.Generator().manual_seed(0))
    out = how.apply(images, drawn)
    assert drawn.shape == (64, 2)
    for i in range(64):
        image = images[i : i + 1]
        for step in drawn[i].tolist():
            image = operate(image, torch.tensor([step // 2]), torch.tensor([step % 2 * 2 - 1]), 0.4)
        assert torch.equal(out[i], image[0])
    many = how.draw(28_000, torch.Generator().manual_seed(1)).flatten()
    seen = torch.bincount(many, minlength=28).double()
    assert float(((seen - 2000) ** 2 / 2000).sum()) < 55.5  # chi-square, 27 degrees of freedom, p = .001


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(2, 7), st.integers(2, 9), st.integers(0, 99))
def test_cutout_is_the_square_written_out(size, height, width, seed):
    how, inputs = Cutout(size), torch.rand(3, 2, height, width) + 1
    drawn = how.draw(3, torch.Generator().manual_seed(seed))
    out = how.apply(inputs, drawn)
    for i in range(3):
        y, x = int(drawn[i, 0] * height), int(drawn[i, 1] * width)
        for row in range(height):
            for column in range(width):
                gone = 0 <= row - (y - size // 2) < size and 0 <= column - (x - size // 2) < size
                expected = [0.0, 0.0] if gone else inputs[i, :, row, column].tolist()
                assert out[i, :, row, column].tolist() == expected


def test_cutout_reaches_all_places_alike_and_keeps_the_layout():
    drawn = Cutout(1).draw(40_000, torch.Generator().manual_seed(0))
    out = Cutout(1).apply(torch.ones(40_000, 1, 4, 4), drawn)
    assert (1 - out).sum((1, 2, 3)).tolist() == [1.0] * 40_000
    hits = (1 - out).sum((0, 1)).flatten()
    assert float(((hits - 2500) ** 2 / 2500).sum()) < 37.7  # chi-square, 15 degrees of freedom, p = .001
    inputs = torch.ones(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    assert Cutout(2).apply(inputs, drawn[:2]).is_contiguous(memory_format=torch.channels_last)


def test_jitter_is_its_parts_in_order_with_strengths_of_the_asked_range():
    how = ColorJitter(brightness=0.4, contrast=0.3, saturation=1.5, hue=0.1)
    drawn = how.draw(4000, torch.Generator().manual_seed(0))
    for place, (low, high) in enumerate([(0.6, 1.4), (0.7, 1.3), (0.0, 2.5), (-0.1, 0.1)]):
        column = drawn[:, place]
        assert low <= float(column.min()) < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < float(column.max()) <= high
        assert float(column.mean()) == pytest.approx((low + high) / 2, abs=0.03 * (high - low))
    images = pictures()
    out = how.apply(images, drawn[:5])
    for i, image in enumerate(images):
        x = image.double() / 255
        for f, value in zip((tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue), drawn[i],
                            strict=True):  # fmt: skip
            x = f(x, float(value))
        assert int((out[i].int() - (x * 255).round().int()).abs().max()) <= 1
    nothing = ColorJitter(0, 0, 0)
    assert torch.equal(nothing.apply(images, nothing.draw(5, torch.Generator())), images)
    gray = pictures(1)
    assert how.apply(gray, drawn[:5]).shape == gray.shape


def everything(**change):
    parts = {"rand_augment": RandAugment(), "color_jitter": ColorJitter(hue=0.1), "cutout": Cutout(3)} | change
    return Augment(padding=1, flip=True, **parts)


def loader(how, views=1, seed=0):
    images = ImageSet(noise(40, 3, 8, 8), torch.arange(40) % 4, tuple("abcd"), "noise")
    kind = {"mean": [0.5] * 3, "std": [0.25] * 3}
    return Loader(images, torch.arange(40), 8, **kind, augment=how, seed=seed, views=views)


def test_one_operation_more_changes_the_draws_of_no_other():
    whole = plan_epoch(20, everything(), seed=3, epoch=2, views=2)
    for name in ("rand_augment", "color_jitter", "cutout"):
        fewer = plan_epoch(20, everything(**{name: None}), seed=3, epoch=2, views=2)
        assert set(fewer.further) == set(whole.further) - {name}
        assert all(torch.equal(values, whole.further[key]) for key, values in fewer.further.items())
        assert torch.equal(fewer.views, whole.views)
        assert not torch.equal(whole.further[name].double(), whole.second_further[name].double())
        other = plan_epoch(20, everything(), seed=3, epoch=3).further[name]
        assert not torch.equal(whole.further[name].double(), other.double())
    uniform = (whole.further["color_jitter"][:, :3] - 0.6) / 0.8
    assert not torch.allclose(uniform.flatten()[:2], whole.further["cutout"].flatten()[:2], atol=1e-3)
    plain = plan_epoch(20, Augment(padding=1, flip=True), seed=3, epoch=2)
    assert torch.equal(plain.views, whole.views)
    assert plain.further == {}


@pytest.mark.parametrize("start", [0, 2])
def test_loaders_do_all_of_it_in_order_and_resume(start):
    how = everything()
    for step, (batch, again) in enumerate(zip(list(loader(how).epoch(1))[start:], loader(how).epoch(1, start),
                                              strict=True), start=start):  # fmt: skip
        assert torch.equal(batch.inputs, again.inputs)
        plan, rows = plan_epoch(40, how, 0, 1), slice(8 * step, 8 * step + 8)
        from nc_tools.data import augment

        pixels = augment(noise(40, 3, 8, 8)[batch.index], plan.views[rows], how)
        pixels = how.rand_augment.apply(pixels, plan.further["rand_augment"][rows])
        pixels = how.color_jitter.apply(pixels, plan.further["color_jitter"][rows])
        inputs = (pixels.float() / 255 - 0.5) / 0.25
        inputs = how.cutout.apply(inputs, plan.further["cutout"][rows])
        torch.testing.assert_close(batch.inputs, inputs, atol=1e-5, rtol=1e-5)


def test_two_views_may_differ_by_any_operation():
    still = {"padding": 0, "flip": False}
    for how in (Augment(**still, cutout=Cutout(4)), Augment(**still, color_jitter=ColorJitter())):
        batch = next(loader(how, views=2).epoch(0))
        assert not torch.equal(batch.inputs, batch.second_view)
        check_views(2, how)
    with pytest.raises(ValueError, match="two views of an image differ by augmentation"):
        check_views(2, Augment(**still))


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(loader(everything(), views=2).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: ColorJitter(brightness=-0.1), "brightness of a color jitter must not be negative"),
        (lambda: ColorJitter(contrast=math.inf), "contrast of a color jitter"),
        (lambda: ColorJitter(hue=0.6), r"color circle in \[0, 0.5\], got 0.6"),
        (lambda: Cutout(0), "must be at least 1, got 0"),
        (lambda: RandAugment(operations=0), "at least 1 operation, got 0"),
        (lambda: RandAugment(magnitude=31), "lies in 0 to 30, got 31"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()


def test_configurations_reach_them():
    from nc_tools.data import augment_for
    from nc_tools.experiment.overrides import parse_setting, put
    from nc_tools.experiment.serialize import decode, encode
    from nc_tools.training import OptimConfig, TrainConfig

    config = DataConfig(source="imagefolder:x")
    for text in (
        "rand_augment=RandAugment(1, magnitude=5)",
        "color_jitter=ColorJitter(0.2)",
        "cutout=Cutout(size=8)",
    ):
        config = put(config, *parse_setting(text))
    assert augment_for(config, 32) == Augment(4, True, RandAugment(1, 5), ColorJitter(0.2), Cutout(8))
    assert decode(encode(config)) == config
    training = put(TrainConfig(), *parse_setting("mixing=CutMix(1.0, until=0.8)"))
    optim = put(OptimConfig(), *parse_setting("sam=AsymmetricSharpnessAware(0.1)"))
    for made in (training, optim):
        assert decode(encode(made)) == made
    assert (training.mixing.until, optim.sam.rho) == (0.8, 0.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_gives_the_same_pictures():
    how = everything()
    plan = plan_epoch(64, how, 0, 0)
    images = noise(64, 3, 32, 32)
    moved = {name: values.cuda() for name, values in plan.further.items()}
    here, there = how.pixels(images, plan.views, plan.further), how.pixels(images.cuda(), plan.views.cuda(), moved)
    assert float((here.int() - there.cpu().int()).abs().gt(1).double().mean()) < 0.01
