"""What a run says about its data before anything trains, and how groups keep together."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.image_folders import config, save
from support.recipe_commands import RECIPES, recipe_module

from nc_tools.data import DataConfig, SymmetricNoise
from nc_tools.data.group_split import split_by_group
from nc_tools.data.image_set import ImageSet
from nc_tools.data.load_data import load_data
from nc_tools.data.subsets import make_subsets
from nc_tools.experiment import RunConfig
from nc_tools.experiment.recipe_cli import recipe_parser
from nc_tools.experiment.recipe_plan import make_plan
from nc_tools.experiment.run_config import Protocol
from nc_tools.experiment.run_data import open_data
from nc_tools.heads import LinearHead
from nc_tools.losses import CrossEntropyLoss
from nc_tools.specs import spec

COUNTS = {"ape": 10, "bat": 30, "cow": 3, "dog": 20}


def lines(data, cache):
    arm = RunConfig(head=spec(LinearHead), loss=spec(CrossEntropyLoss), data=data)
    return open_data(arm, seed=0, device=torch.device("cpu"), cache=cache).first_lines()


@pytest.fixture
def animals(tmp_path):
    for k, (name, count) in enumerate(COUNTS.items()):
        for i in range(count):
            save(tmp_path / "animals" / name / f"{i:02d}.png", color=(8 * i, 60 * k, 9))
    return tmp_path / "animals"


def test_a_folder_is_told_whole(animals, tmp_path):
    said = lines(config(animals), tmp_path / "cache")
    assert said[0] == f"data imagefolder:{animals}: 51 training and 12 test images of 4 classes, 3 x 8 x 8"
    assert said[1:] == [
        "split: none in the data, so 80 / 20 by class, the same images for every seed; classes of up to 4 images are "
        "trained on whole: cow (3)",
        "training images of each class: bat 24, dog 16, ape 8, cow 3; median 12",
        "hold-out for tuning: 11 of the training images (22%), drawn anew for each seed",
        "no test image of 1 classes: cow; accuracies are over the other classes",
        "the test set is imbalanced as the training set is (6 to 2 images a class): plain accuracy is mostly about the "
        "large classes, balanced accuracy counts each class once",
    ]


def test_a_cut_says_what_is_left_out_and_which_class_limits(animals, tmp_path):
    said = lines(config(animals, imbalance=8), tmp_path / "cache")
    assert "training images of each class: bat 24, dog 12, ape 6, cow 3; median 9" in said
    assert (
        "6 of 51 training images are left out (imbalance 8, exponential, by class size; bat with 24 images limits "
        "the others)" in said
    )
    said = lines(DataConfig(class_counts=(5,) * 10), tmp_path / "cache")
    assert "849 of 899 training images are left out (class_counts)" in said


def test_images_that_corrections_exclude_are_not_called_a_cut(animals, tmp_path):
    file = tmp_path / "c.csv"
    file.write_text("path,decision,label\nbat/00.png,exclude,\nbat/01.png,exclude,\nbat/02.png,exclude,\n")
    said = lines(config(animals, corrections=str(file)), tmp_path / "cache")
    assert not [line for line in said if "training images are left out" in line]
    left = int(next(line for line in said if line.startswith("corrections")).split(" changed, ")[1].split()[0])
    assert f"bat {24 - left}," in next(line for line in said if line.startswith("training images of each class"))


def test_drawn_noise_is_told(tmp_path):
    data = DataConfig(noise=SymmetricNoise(0.4))
    said = lines(data, tmp_path)[1]
    number = int(said.split("; ")[1].split()[0])
    assert said.startswith("label noise is drawn onto the training labels: SymmetricNoise(rate=0.4); ")
    assert 300 < number < 420


def planned(path, *flags):
    module = recipe_module(path)
    args = recipe_parser(path.stem, "Why?", list(module.ARMS)).parse_args(flags)
    plan = make_plan(module.ARMS, name="x", question="Why?", protocol=Protocol(), args=args)
    return next(iter(plan.arms.values())).data


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_own_images_are_used_whole_and_with_their_labels_in_every_recipe(path):
    own = planned(path, "--data", "imagefolder:mine")
    assert (own.imbalance, own.class_counts, own.noise, own.tail_order) == (1.0, None, None, "frequency")
    assert planned(path, "--data", "imagefolder:mine", "--imbalance", "100").imbalance == 100


def test_drawn_noise_stands_beside_the_question_of_the_report():
    path = next(path for path in RECIPES if path.stem == "label_noise")
    module = recipe_module(path)

    def question(*flags):
        args = recipe_parser(path.stem, "Why?", list(module.ARMS)).parse_args(flags)
        return make_plan(module.ARMS, name="x", question="Why?\n\nHow.", protocol=Protocol(), args=args).question

    told = "Why? Label noise is drawn onto the training labels: "
    assert question() == f"{told}SymmetricNoise(rate=0.4)."
    assert question("--noise", "pair:.3") == f"{told}PairNoise(rate=0.3)."
    assert question("--noise", "none") == question("--data", "imagefolder:mine") == "Why?"
    assert question("--data", "imagefolder:mine", "--noise", "pair:.3") == f"{told}PairNoise(rate=0.3)."


def test_benchmarks_keep_the_tail_and_the_noise_of_their_recipe():
    by_name = {path.stem: path for path in RECIPES}
    assert planned(by_name["long_tail"], "--data", "cifar10:x").imbalance == 10
    assert planned(by_name["label_noise"], "--data", "cifar10:x").noise == SymmetricNoise(0.4)


def grouped(labels, groups):
    images = torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8)
    return ImageSet(images, torch.tensor(labels), tuple("abcdef"), "x", groups=torch.tensor(groups))


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 11)), min_size=1, max_size=80),
    st.floats(0.05, 0.6),
    st.integers(0, 9),
)
def test_a_group_never_crosses_a_split_and_every_class_stays_in_training(pairs, fraction, seed):
    labels, groups = (torch.tensor(column) for column in zip(*pairs, strict=True))
    train, holdout = split_by_group(labels, groups, fraction, torch.Generator().manual_seed(seed))
    assert sorted(train.tolist() + holdout.tolist()) == list(range(len(labels)))
    assert not {*groups[train].tolist()} & {*groups[holdout].tolist()}
    assert {*labels[train].tolist()} == {*labels.tolist()}


def test_many_groups_give_the_share_of_each_class_and_another_seed_another_choice():
    generator = torch.Generator().manual_seed(1)
    labels = torch.tensor([0] * 1000 + [1] * 200 + [2] * 30)
    groups = torch.randint(0, 300, (len(labels),), generator=generator)
    chosen = set()
    for seed in range(5):
        _, holdout = split_by_group(labels, groups, 0.2, torch.Generator().manual_seed(seed))
        counts = labels[holdout].bincount(minlength=3).tolist()
        assert 180 <= counts[0] <= 220
        assert 35 <= counts[1] <= 45
        assert 3 <= counts[2] <= 9
        chosen.add(tuple(holdout.tolist()))
    assert len(chosen) == 5


def test_a_class_of_one_group_stays_in_training():
    train, holdout = split_by_group(
        torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 1, 2, 3, 3]), 0.4, torch.Generator().manual_seed(0)
    )
    assert {3, 4} <= set(train.tolist())
    assert len(holdout) >= 1
    assert len(split_by_group(torch.zeros(0).long(), torch.zeros(0).long(), 0.4, torch.Generator())[0]) == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        split_by_group(torch.tensor([0]), torch.tensor([0]), 1.0, torch.Generator())


def test_the_hold_out_of_a_run_keeps_groups_whole():
    sources = load_data(DataConfig())
    groups = torch.arange(len(sources.train)) // 3
    sources = replace(sources, train=replace(sources.train, groups=groups))
    subsets = make_subsets(sources, DataConfig(), seed=0)
    assert not {*groups[subsets.fit].tolist()} & {*groups[subsets.holdout].tolist()}
    assert 0.18 < len(subsets.holdout) / len(subsets.train) < 0.22
    part = sources.train.subset(torch.tensor([5, 0]))
    assert part.groups.tolist() == [1, 0]
