import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_tools.data.augment import Augment, Normalize, augment


def by_hand(image, view, padding):
    """Crop and flip one image (C, H, W) as nested lists, pixel by pixel."""
    channels, height, width = len(image), len(image[0]), len(image[0][0])
    shifts = 2 * padding + 1
    flipped, top, left = view // (shifts * shifts), view // shifts % shifts, view % shifts
    out = [[[0] * width for _ in range(height)] for _ in range(channels)]
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                y, x = i + top - padding, j + left - padding
                if 0 <= y < height and 0 <= x < width:
                    out[c][i][j] = image[c][y][width - 1 - x if flipped else x]
    return out


def noise(*shape, seed=0):
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    st.integers(0, 3),
    st.booleans(),
    st.integers(0, 99),
)
def test_it_is_the_slow_reference(shape, padding, flip, seed):
    images, options = noise(*shape, seed=seed), Augment(padding, flip)
    views = options.draw(shape[0], torch.Generator().manual_seed(seed))
    expected = [by_hand(image.tolist(), int(v), padding) for image, v in zip(images, views, strict=True)]
    assert augment(images, views, options).tolist() == expected


def test_every_view_is_reached_and_none_reads_beyond_the_batch():
    options = Augment(padding=2, flip=True)
    images = noise(1, 3, 5, 5).repeat(options.views, 1, 1, 1)
    views = torch.arange(options.views)
    out = augment(images, views, options)
    assert [o.tolist() for o in out] == [by_hand(images[0].tolist(), int(v), 2) for v in views]
    assert len({tuple(o.flatten().tolist()) for o in out}) == options.views


def test_samples_of_one_batch_are_drawn_independently():
    options = Augment(padding=4, flip=True)
    out = augment(noise(1, 3, 32, 32).repeat(64, 1, 1, 1), options.draw(64, torch.Generator().manual_seed(0)), options)
    assert len({tuple(o.flatten().tolist()) for o in out}) > 40  # 52.9 of 162 views expected; one if drawn once


def test_offsets_and_flips_are_unbiased():
    options = Augment(padding=1, flip=True)
    count = 18000
    views = options.draw(count, torch.Generator().manual_seed(5))
    counts = torch.bincount(views, minlength=options.views).double()
    expected = count / 18
    assert len(counts) == 18
    assert float(((counts - expected) ** 2 / expected).sum()) < 40.8  # chi-square, 17 degrees of freedom, p = .001
    assert abs(float((views >= 9).double().mean()) - 0.5) < 0.0125  # 3.3 standard errors


def test_inputs_are_not_changed_and_other_layouts_and_types_work():
    images = noise(5, 3, 8, 8)
    before = images.clone()
    options = Augment(2, flip=True)
    views = options.draw(5, torch.Generator().manual_seed(1))
    out = augment(images, views, options)
    assert torch.equal(images, before)
    assert out.is_contiguous()
    assert torch.equal(augment(images.contiguous(memory_format=torch.channels_last), views, options), out)
    assert torch.equal(augment(images.float(), views, options), out.float())
    assert torch.equal(augment(images.expand(5, 3, 8, 8)[::1], views, options), out)


def test_no_augmentation_and_an_empty_batch_pass_through():
    images = noise(3, 1, 4, 4)
    assert torch.equal(augment(images, torch.zeros(3).long(), Augment(0, flip=False)), images)
    assert augment(images[:0], torch.zeros(0).long(), Augment(1, flip=True)).shape == (0, 1, 4, 4)


def test_bad_arguments_raise():
    with pytest.raises(ValueError, match="must be a whole number from 0, got -1"):
        Augment(-1, flip=True)
    with pytest.raises(ValueError, match=r"each image needs one view number, got views \(2,\) for 3 images"):
        augment(noise(3, 1, 4, 4), torch.zeros(2).long(), Augment(1, flip=True))
    with pytest.raises(ValueError, match="positive in every channel"):
        Normalize([0.5], [0.0])
    with pytest.raises(ValueError, match="must both have"):
        Normalize([0.5, 0.5], [0.5])


@pytest.mark.parametrize("channels_last", [False, True])
def test_normalizing_is_the_formula_in_either_layout(channels_last):
    images = noise(4, 3, 6, 5)
    mean, std = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
    out = Normalize(mean, std, channels_last=channels_last)(images)
    for c in range(3):
        expected = [(v / 255 - mean[c]) / std[c] for v in images[:, c].flatten().tolist()]
        assert out[:, c].flatten().tolist() == pytest.approx(expected, abs=2e-6)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=layout)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_gives_the_same_pixels():
    images, options = noise(33, 3, 32, 32), Augment(4, flip=True)
    views = options.draw(33, torch.Generator().manual_seed(0))
    assert torch.equal(augment(images.cuda(), views.cuda(), options).cpu(), augment(images, views, options))
