"""Class sampling: shares by hand, evenness, and the same epochs from memory and from files."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nc_tools.data import (
    Augment,
    BalancedSampling,
    BatchOptions,
    DataConfig,
    ImageSet,
    ProgressiveSampling,
    SquareRootSampling,
    load_data,
    make_loader,
)
from nc_tools.data.epoch_plan import plan_epoch
from nc_tools.data.sampling import EpochSampler, draw_positions

STATS = {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.3, 0.25]}
LABELS = torch.tensor([0] * 30 + [1] * 9 + [2] * 1)
EVERY = [BalancedSampling(), SquareRootSampling(), ProgressiveSampling()]


def pixels(count=40):
    return torch.randint(0, 256, (count, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def memory():
    return ImageSet(pixels(), LABELS, ("a", "b", "c"), "noise")


def test_shares_are_those_of_the_paper():
    counts = torch.tensor([30, 9, 1])
    assert BalancedSampling().shares(counts, 0.3).tolist() == pytest.approx([1 / 3] * 3)
    root = [math.sqrt(n) for n in (30, 9, 1)]
    assert SquareRootSampling().shares(counts, 0.3).tolist() == pytest.approx([r / sum(root) for r in root])
    for t in (0.0, 0.25, 1.0):
        expected = [(1 - t) * n / 40 + t / 3 for n in (30, 9, 1)]
        assert ProgressiveSampling().shares(counts, t).tolist() == pytest.approx(expected)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(lambda c: sum(c) > 0), st.integers(0, 99),
       st.sampled_from(EVERY), st.floats(0, 1))  # fmt: skip
def test_an_epoch_is_as_even_as_whole_numbers_allow(counts, seed, sampling, progress):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    shares = sampling.shares(torch.tensor(counts), progress)
    positions = draw_positions(labels, shares, torch.Generator().manual_seed(seed))
    draws = torch.bincount(labels[positions], minlength=len(counts)).tolist()
    assert sum(draws) == len(labels)
    for k, (count, share) in enumerate(zip(counts, shares.tolist(), strict=True)):
        expected = share * len(labels)
        assert math.floor(expected - 1e-6) <= draws[k] <= math.ceil(expected + 1e-6)
        assert (draws[k] == 0) or count
        # Within a class no sample is drawn twice more than another.
        times = torch.bincount(positions, minlength=len(labels))[labels == k]
        assert count == 0 or int(times.max()) - int(times.min()) <= 1


def test_fractional_shares_hold_on_average():
    labels, shares = torch.tensor([0, 0, 0, 1]), torch.tensor([0.35, 0.65])
    draws = [
        int((labels[draw_positions(labels, shares, torch.Generator().manual_seed(s))] == 0).sum()) for s in range(900)
    ]
    assert set(draws) == {1, 2}
    assert sum(draws) / 900 == pytest.approx(1.4, abs=0.06)  # 3.7 standard errors


def test_samples_of_a_large_class_are_drawn_anew_in_each_epoch():
    epochs = [set(EpochSampler(LABELS, BalancedSampling(), 0, None).draw(epoch).tolist()) for epoch in range(40)]
    assert len({frozenset(samples) for samples in epochs}) == 40
    assert set.union(*epochs) == set(range(40))


def test_progressive_goes_from_the_data_to_balance():
    sampler = EpochSampler(LABELS, ProgressiveSampling(), seed=0, epochs=11)
    counts = [torch.bincount(LABELS[sampler.draw(epoch)], minlength=3).tolist() for epoch in (0, 5, 10)]
    assert counts[0] == [30, 9, 1]
    assert abs(counts[1][2] - 40 * (0.5 / 40 + 0.5 / 3)) <= 1
    assert all(abs(n - 40 / 3) < 1 for n in counts[2])
    assert EpochSampler(LABELS, ProgressiveSampling(), 0, 11).draw(30).shape == (40,)  # beyond the end: balanced
    with pytest.raises(ValueError, match="ProgressiveSampling needs the number of training epochs, got epochs=None"):
        EpochSampler(LABELS, ProgressiveSampling(), 0, None)


def test_the_plan_without_a_sampler_is_what_it_was():
    augment, sampler = Augment(1, flip=True), EpochSampler(LABELS, BalancedSampling(), 3, None)
    plain, sampled = plan_epoch(40, augment, 3, 2), plan_epoch(40, augment, 3, 2, sampler=sampler)
    assert torch.equal(plain.views, sampled.views)
    assert torch.equal(sampled.order, sampler.draw(2)[plain.order])
    assert plan_epoch(40, augment, 4, 2, sampler=sampler).order.tolist() != sampled.order.tolist()
    assert sampler.draw(1).tolist() != sampler.draw(2).tolist() == sampler.draw(2).tolist()


@pytest.mark.parametrize("sampling", EVERY, ids=lambda sampling: type(sampling).__name__)
def test_memory_and_files_give_the_same_epochs_from_any_step(tmp_path, memory, sampling):
    for i, image in enumerate(pixels()):
        for split in ("train", "test"):
            folder = tmp_path / split / "abc"[int(LABELS[i])]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:02d}.png")
    files = load_data(DataConfig(source=f"imagefolder:{tmp_path}", memory_gb=0)).train
    options = BatchOptions(
        batch_size=8, **STATS, augment=Augment(1, flip=True), seed=1, sampling=sampling, epochs=3, workers=0
    )
    indices = torch.tensor([*range(20), *range(30, 40)])
    ours, streamed = (make_loader(images, indices, options) for images in (memory, files))
    for epoch in (0, 2):
        batches = list(ours.epoch(epoch))
        assert len(batches) == len(ours) == 4
        assert sum(len(b.labels) for b in batches) == 30
        for start in (0, 3):
            for one, other in zip(batches[start:], streamed.epoch(epoch, start), strict=True):
                assert torch.equal(one.inputs, other.inputs)
                assert one.index.tolist() == other.index.tolist()
                assert one.labels.tolist() == memory.labels[one.index].tolist()
        assert {int(i) for b in batches for i in b.index} <= set(indices.tolist())
    last = torch.cat([b.labels for b in ours.epoch(2)])
    if not isinstance(sampling, SquareRootSampling):
        assert torch.bincount(last).tolist() == [10, 10, 10]


def test_counts_of_the_data_stay_what_they_are():
    from nc_tools.data import make_subsets

    sources = load_data(DataConfig())
    configs = [DataConfig(imbalance=10, sampling=sampling) for sampling in (None, *EVERY)]
    counts = [make_subsets(sources, config, 0).counts.tolist() for config in configs]
    assert all(other == counts[0] for other in counts)


@pytest.mark.parametrize("text", ["BalancedSampling()", "SquareRootSampling()", "ProgressiveSampling()"])
def test_a_sampling_is_set_from_the_command_line(text):
    from nc_tools.experiment.overrides import parse_setting, put

    config = put(DataConfig(), *parse_setting(f"sampling={text}"))
    assert config.sampling in EVERY
    assert f"{type(config.sampling).__name__}()" == text
