import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nc_tools.data.augment import Augment, Normalize, augment
from nc_tools.data.batch_options import BatchOptions
from nc_tools.data.data_config import DataConfig
from nc_tools.data.epoch_plan import batch_bounds, plan_epoch
from nc_tools.data.image_set import ImageFiles, ImageSet
from nc_tools.data.load_data import load_data
from nc_tools.data.loader import Loader, evaluation_batches, make_loader
from nc_tools.data.stream_loader import StreamLoader

STATS = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25]}
CROP_FLIP = Augment(padding=1, flip=True)


def options(batch_size, **more):
    return BatchOptions(batch_size=batch_size, **STATS, **more)


def pixels(count=40):
    return torch.randint(0, 256, (count, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def memory():
    return ImageSet(pixels(), torch.arange(40) % 4, ("a", "b", "c", "d"), "noise")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same pixels as files, with the labels 0 1 2 3 0 1 ..., loaded so that they stream."""
    root = tmp_path_factory.mktemp("noise")
    for i, image in enumerate(pixels()):
        for split in ("train", "test"):
            folder = root / split / "abcd"[i % 4]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:02d}.png")
    return load_data(DataConfig(source=f"imagefolder:{root}", memory_gb=0)).train


def same(left, right):
    assert torch.equal(left.inputs, right.inputs)
    assert left.labels.tolist() == right.labels.tolist()
    assert left.index.tolist() == right.index.tolist()


@given(st.integers(1, 200), st.integers(1, 50))
def test_batches_cover_all_samples_once_in_equal_sizes(count, batch_size):
    bounds = batch_bounds(count, batch_size)
    assert [i for start, stop in bounds for i in range(start, stop)] == list(range(count))
    sizes = [stop - start for start, stop in bounds]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= max(batch_size, 3)
    if batch_size > 1 and count > 1:
        assert min(sizes) > 1
    if batch_size > 2:
        assert len(sizes) == math.ceil(count / batch_size)


def test_an_epoch_is_the_indices_once_and_inputs_belong_to_their_index(memory):
    indices = torch.tensor([39, 3, 4, 17, 22, 8, 11])
    loader = Loader(memory, indices, options(3))
    batches = list(loader.epoch(0))
    assert [len(b.index) for b in batches] == [2, 2, 3]
    assert len(loader) == 3
    order = torch.cat([b.index for b in batches])
    assert sorted(order.tolist()) == sorted(indices.tolist()) != order.tolist()
    for batch in batches:
        assert batch.labels.tolist() == memory.labels[batch.index].tolist()
        assert torch.equal(batch.inputs, Normalize(**STATS)(memory.images[batch.index]))


def test_epochs_and_seeds_differ_in_order_and_in_views(memory):
    def epoch(seed, number, augment=CROP_FLIP):
        loader = Loader(memory, torch.arange(40), options(40, augment=augment, seed=seed))
        return next(loader.epoch(number))

    assert epoch(0, 0).index.tolist() != epoch(0, 1).index.tolist()
    assert epoch(0, 0).index.tolist() != epoch(1, 0).index.tolist()
    first, second = epoch(0, 0), epoch(0, 1)
    assert not torch.equal(first.inputs[first.index.argsort()], second.inputs[second.index.argsort()])
    views = [plan_epoch(40, CROP_FLIP, 0, number).views.tolist() for number in (0, 1)]
    assert views[0] != views[1]
    # The order is a stream of its own: turning augmentation off leaves it as it was.
    assert epoch(0, 3, None).index.tolist() == epoch(0, 3).index.tolist()


@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_resuming_in_the_middle_of_an_epoch_is_bit_equal(memory, start):
    complete, fresh = (Loader(memory, torch.arange(37), options(10, augment=CROP_FLIP, seed=5)) for _ in range(2))
    batches = list(complete.epoch(2))
    list(fresh.epoch(0))
    torch.manual_seed(123)
    rest = list(fresh.epoch(2, start=start))
    assert len(rest) == len(batches) - start
    for left, right in zip(batches[start:], rest, strict=True):
        same(left, right)


def test_a_second_view_is_another_draw_and_leaves_the_first_as_it_was(memory):
    one, two = (
        Loader(memory, torch.arange(40), options(40, augment=CROP_FLIP, seed=3, views=views)) for views in (1, 2)
    )
    alone, both = next(one.epoch(1)), next(two.epoch(1))
    same(alone, both)
    assert alone.second_view is None
    assert both.second_view.shape == both.inputs.shape
    plan = plan_epoch(40, CROP_FLIP, 3, 1, views=2)
    assert plan_epoch(40, CROP_FLIP, 3, 1).second is None
    assert plan.views.tolist() == plan_epoch(40, CROP_FLIP, 3, 1).views.tolist() != plan.second.tolist()
    expected = augment(memory.images[both.index], plan.second, CROP_FLIP)
    assert torch.equal(both.second_view, Normalize(**STATS)(expected))
    # Independent of the first: of 18 views one in 18 agrees by chance.
    many = plan_epoch(20_000, CROP_FLIP, 3, 1, views=2)
    assert abs((many.views == many.second).double().mean() * CROP_FLIP.views - 1) < 0.15
    assert plan_epoch(40, CROP_FLIP, 3, 2, views=2).second.tolist() != plan.second.tolist()


@pytest.mark.parametrize("start", [0, 2])
def test_second_views_and_tags_are_the_same_from_memory_and_from_files(files, start):
    tags = torch.rand(40, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    memory = ImageSet(files.take(torch.arange(40)), files.labels, files.classes, files.name)
    chosen = options(6, augment=CROP_FLIP, seed=1, views=2, tags=tags, workers=0)
    ours, streamed = (make_loader(images, torch.arange(1, 40, 2), chosen) for images in (memory, files))
    assert isinstance(streamed, StreamLoader)
    for left, right in zip(ours.epoch(2, start), streamed.epoch(2, start), strict=True):
        same(left, right)
        assert torch.equal(left.second_view, right.second_view)
        assert torch.equal(left.tags, right.tags)
        assert torch.equal(left.tags, tags[left.index])


def test_bad_views_and_tags_raise(memory, files):
    for images in (memory, files):
        for augmentation in (None, Augment(padding=0, flip=False)):
            with pytest.raises(ValueError, match=r"two views of an image need random augmentation, got augment="):
                make_loader(images, torch.arange(4), options(2, augment=augmentation, views=2, workers=0))
        with pytest.raises(ValueError, match=r"1 or 2 views of each image, got views=3"):
            make_loader(images, torch.arange(4), options(2, augment=CROP_FLIP, views=3, workers=0))
        with pytest.raises(ValueError, match="tags must be bool with a row for each of the 40 images"):
            make_loader(images, torch.arange(4), options(2, augment=CROP_FLIP, tags=torch.ones(4, 2).bool()))


def test_loaders_leave_the_global_generator_alone(memory, files):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for images in (memory, files):
        list(make_loader(images, torch.arange(9), options(4, augment=CROP_FLIP, workers=0)).epoch(0))
        list(evaluation_batches(images, None, options(16, workers=0)))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_streaming_gives_the_same_batches_as_memory(files, workers):
    assert isinstance(files, ImageFiles)
    memory = ImageSet(files.take(torch.arange(40)), files.labels, files.classes, files.name)
    indices = torch.arange(0, 40, 2)
    ours = make_loader(memory, indices, options(8, augment=CROP_FLIP, seed=1))
    streamed = make_loader(files, indices, options(8, augment=CROP_FLIP, seed=1, workers=workers))
    assert isinstance(ours, Loader)
    assert isinstance(streamed, StreamLoader)
    assert len(ours) == len(streamed) == 3
    for epoch, start in ((0, 0), (1, 1), (0, 2), (2, 3)):
        for left, right in zip(ours.epoch(epoch, start), streamed.epoch(epoch, start), strict=True):
            same(left, right)
    next(streamed.epoch(4))  # an epoch left in its middle does not spoil the next
    same(next(ours.epoch(5)), next(streamed.epoch(5)))


def test_evaluation_keeps_the_order(memory, files):
    for images in (memory, files):
        unused = {"augment": CROP_FLIP, "views": 2, "seed": 7}
        batches = list(evaluation_batches(images, torch.tensor([5, 2, 9]), options(2, workers=0, **unused)))
        assert [b.index.tolist() for b in batches] == [[5, 2], [9]]
        assert torch.equal(batches[0].inputs, Normalize(**STATS)(images.take(torch.tensor([5, 2]))))
        assert batches[1].labels.tolist() == images.labels[[9]].tolist()
    assert list(evaluation_batches(memory, torch.zeros(0).long(), options(2))) == []


def test_channels_last_is_the_layout_of_the_inputs(memory):
    loader = Loader(memory, torch.arange(40), options(8, augment=CROP_FLIP, channels_last=True))
    assert next(loader.epoch(0)).inputs.is_contiguous(memory_format=torch.channels_last)
    batch = next(evaluation_batches(memory, None, options(8, channels_last=True)))
    assert batch.inputs.is_contiguous(memory_format=torch.channels_last)


def test_bad_arguments_raise(memory):
    with pytest.raises(ValueError, match="empty indices"):
        Loader(memory, torch.zeros(0).long(), options(4))
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        Loader(memory, torch.arange(4), options(0))
    with pytest.raises(ValueError, match="can start at step 0 to 1, got 2"):
        Loader(memory, torch.arange(4), options(4)).epoch(0, start=2)
    with pytest.raises(ValueError, match="uint8"):
        ImageSet(memory.images.float(), memory.labels, memory.classes, "x")
    with pytest.raises(ValueError, match=r"0\.\.2"):
        ImageSet(memory.images, memory.labels, ("a", "b", "c"), "x")
    with pytest.raises(ValueError, match="int64"):
        ImageSet(memory.images, memory.labels[:3], memory.classes, "x")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_sees_the_same_epoch(memory):
    def batches(device):
        loader = Loader(memory, torch.arange(39), options(8, augment=CROP_FLIP, device=device))
        return list(loader.epoch(1))

    for left, right in zip(batches("cpu"), batches("cuda"), strict=True):
        assert left.index.tolist() == right.index.tolist()
        torch.testing.assert_close(left.inputs, right.inputs.cpu())
