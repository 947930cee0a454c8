"""Repeated splits: every seed draws its own test images, groups stay whole, and nothing is lost or doubled."""

from dataclasses import replace

import pytest
import torch
from support.experiment_runs import job_of

from nc_tools.data import DataConfig, load_data
from nc_tools.data.resplit import resplit
from nc_tools.experiment.run_data import open_data


@pytest.fixture(scope="module")
def sources():
    return load_data(DataConfig(held_out_classes=3))


def digests(images):
    return {bytes(row) for row in images.digests().numpy()}


def test_a_split_holds_every_image_once_and_differs_between_seeds(sources):
    whole = digests(sources.train) | digests(sources.test)
    one, other = resplit(sources, 0.3, 0), resplit(sources, 0.3, 1)
    for split in (one, other):
        assert digests(split.train) | digests(split.test) == whole
        assert not digests(split.train) & digests(split.test)
        assert len(split.test) == pytest.approx(0.3 * (len(sources.train) + len(sources.test)), abs=7)
        assert set(split.test.labels.tolist()) == set(range(7))
    assert digests(one.test) != digests(other.test)
    assert digests(resplit(sources, 0.3, 0).test) == digests(one.test)
    assert not torch.equal(one.mean, other.mean)  # the statistics are those of the training images


def test_groups_stay_whole(sources):
    train = replace(sources.train, groups=torch.arange(len(sources.train)) // 5)
    # The groups of both parts have one numbering, and some have images in both.
    test = replace(sources.test, groups=torch.arange(len(sources.test)) // 5 + 100)
    split = resplit(replace(sources, train=train, test=test), 0.3, 0)
    assert not set(split.train.groups.tolist()) & set(split.test.groups.tolist())
    assert set(split.train.groups.tolist()) | set(split.test.groups.tolist()) == set(
        torch.cat([train.groups, test.groups]).tolist()
    )


def test_copies_of_a_picture_stay_on_one_side_and_join_their_groups(sources):
    count = len(sources.test)
    twice = replace(
        sources, train=sources.train.subset(torch.arange(count)), test=sources.train.subset(torch.arange(count))
    )
    split = resplit(twice, 0.3, 0)
    assert len(split.train) + len(split.test) == 2 * count
    assert not digests(split.train) & digests(split.test)
    # Groups of two in one part and of three in the other: a chain of copies joins six images at a time.
    train = replace(twice.train, groups=torch.arange(count) // 2)
    test = replace(twice.test, groups=torch.arange(count) // 3 + count)
    split = resplit(replace(twice, train=train, test=test), 0.3, 0)
    assert not digests(split.train) & digests(split.test)
    assert not set(split.train.groups.tolist()) & set(split.test.groups.tolist())
    assert 0.2 * 2 * count < len(split.test) < 0.4 * 2 * count


def test_digests_that_are_known_stay_those_of_the_images(sources):
    train, test = (replace(part, hashes=part.digests()) for part in (sources.train, sources.test))
    split = resplit(replace(sources, train=train, test=test), 0.3, 0)
    assert torch.equal(split.test.digests(), replace(split.test, hashes=None).digests())


def test_a_share_out_of_range_is_refused():
    with pytest.raises(ValueError, match="share of all images to test on"):
        DataConfig(resplit=1.5)


def test_a_run_with_repeated_splits_reads_its_own_test_images(tmp_path):
    base = job_of(tmp_path, "final").config
    config = replace(base, data=replace(base.data, resplit=0.3))
    opened = [open_data(config, seed=seed, device=torch.device("cpu"), cache=tmp_path / "cache") for seed in (0, 1)]
    assert digests(opened[0].sources.test) != digests(opened[1].sources.test)
    assert not digests(opened[0].sources.test) & digests(opened[0].sources.train.subset(opened[0].subsets.train))
