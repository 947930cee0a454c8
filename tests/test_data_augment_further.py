"""Operations after crop and flip: their draws, their order in the loaders, and how they are set on a command line."""

import pytest
import torch
from support.pictures import noise
from support.recipe_commands import RECIPES, recipe_module

from nc_tools.data import (
    Augment,
    BatchOptions,
    ColorJitter,
    Cutout,
    DataConfig,
    ImageSet,
    Loader,
    RandAugment,
    augment,
    augment_for,
)
from nc_tools.data.epoch_plan import check_views, plan_epoch


def everything(**changes):
    parts = {"rand_augment": RandAugment(), "color_jitter": ColorJitter(hue=0.1), "cutout": Cutout(3)} | changes
    return Augment(padding=1, flip=True, **parts)


def loader(augmentation, views=1):
    images = ImageSet(noise(40, 3, 8, 8), torch.arange(40) % 4, tuple("abcd"), "noise")
    options = BatchOptions(batch_size=8, mean=[0.5] * 3, std=[0.25] * 3, augment=augmentation, views=views)
    return Loader(images, torch.arange(40), options)


def test_one_operation_more_changes_the_draws_of_no_other():
    plan = plan_epoch(20, everything(), seed=3, epoch=2, views=2)
    for name in ("rand_augment", "color_jitter", "cutout"):
        fewer = plan_epoch(20, everything(**{name: None}), seed=3, epoch=2, views=2)
        assert set(fewer.further) == set(plan.further) - {name}
        assert all(torch.equal(values, plan.further[key]) for key, values in fewer.further.items())
        assert torch.equal(fewer.views, plan.views)
        assert not torch.equal(plan.further[name].double(), plan.second_further[name].double())
        other = plan_epoch(20, everything(), seed=3, epoch=3).further[name]
        assert not torch.equal(plan.further[name].double(), other.double())
    uniform = (plan.further["color_jitter"][:, :3] - 0.6) / 0.8
    assert not torch.allclose(uniform.flatten()[:2], plan.further["cutout"].flatten()[:2], atol=1e-3)
    plain = plan_epoch(20, Augment(padding=1, flip=True), seed=3, epoch=2)
    assert torch.equal(plain.views, plan.views)
    assert plain.further == {}


@pytest.mark.parametrize("start", [0, 2])
def test_loaders_apply_all_of_them_in_order_and_resume(start):
    augmentation = everything()
    batches, resumed = list(loader(augmentation).epoch(1))[start:], loader(augmentation).epoch(1, start)
    for step, (batch, again) in enumerate(zip(batches, resumed, strict=True), start=start):
        assert torch.equal(batch.inputs, again.inputs)
        plan, rows = plan_epoch(40, augmentation, 0, 1), slice(8 * step, 8 * step + 8)
        pixels = augment(noise(40, 3, 8, 8)[batch.index], plan.views[rows], augmentation)
        pixels = augmentation.rand_augment.apply(pixels, plan.further["rand_augment"][rows])
        pixels = augmentation.color_jitter.apply(pixels, plan.further["color_jitter"][rows])
        inputs = (pixels.float() / 255 - 0.5) / 0.25
        inputs = augmentation.cutout.apply(inputs, plan.further["cutout"][rows])
        torch.testing.assert_close(batch.inputs, inputs, atol=1e-5, rtol=1e-5)


def test_two_views_may_differ_by_any_operation():
    fixed = {"padding": 0, "flip": False}
    for augmentation in (Augment(**fixed, cutout=Cutout(4)), Augment(**fixed, color_jitter=ColorJitter())):
        batch = next(loader(augmentation, views=2).epoch(0))
        assert not torch.equal(batch.inputs, batch.second_view)
        check_views(2, augmentation)
    with pytest.raises(ValueError, match="two views of an image need random augmentation"):
        check_views(2, Augment(**fixed))


def test_the_global_generator_is_not_used():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(loader(everything(), views=2).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_configurations_hold_them():
    from nc_tools.experiment.deserialize import decode
    from nc_tools.experiment.overrides import parse_setting, put
    from nc_tools.experiment.serialize import encode
    from nc_tools.training import OptimConfig, TrainConfig

    config = DataConfig(source="imagefolder:x")
    for text in (
        "rand_augment=RandAugment(1, magnitude=5)",
        "color_jitter=ColorJitter(0.2)",
        "cutout=Cutout(size=8)",
    ):
        config = put(config, *parse_setting(text))
    assert augment_for(config, 32) == Augment(4, True, RandAugment(1, 5), ColorJitter(0.2), Cutout(8))
    assert decode(encode(config), DataConfig) == config
    training = put(TrainConfig(), *parse_setting("mixing=CutMix(1.0, until=0.8)"))
    optim = put(OptimConfig(), *parse_setting("sam=AsymmetricSharpnessAware(0.1)"))
    for changed in (training, optim):
        assert decode(encode(changed), type(changed)) == changed
    assert (training.mixing.until, optim.sam.rho) == (0.8, 0.1)


def test_a_recipes_command_line_sets_them_for_all_arms(tmp_path):
    from nc_tools.experiment.recipe_cli import recipe_parser
    from nc_tools.experiment.recipe_plan import make_plan
    from nc_tools.experiment.run_data import open_data

    recipe = recipe_module(next(path for path in RECIPES if path.stem == "balanced"))
    settings = ["data.rand_augment=RandAugment(operations=1, magnitude=5)", "data.color_jitter=ColorJitter(0.2)",
                "data.cutout=Cutout(2)"]  # fmt: skip
    flags = [flag for setting in settings for flag in ("--set", setting)]
    flags += ["--set", "data.rand_augment.magnitude=7"]
    args = recipe_parser("balanced", "", list(recipe.ARMS)).parse_args(flags)
    plan = make_plan(recipe.ARMS, name="balanced", question=recipe.__doc__, protocol=recipe.PROTOCOL, args=args)
    expected = (RandAugment(1, 7.0), ColorJitter(0.2), Cutout(2))
    configs = list(plan.arms.values())
    assert len(configs) == len(recipe.ARMS)
    for config in configs:
        assert (config.data.rand_augment, config.data.color_jitter, config.data.cutout) == expected
    where = {"seed": 0, "device": torch.device("cpu"), "cache": tmp_path}
    changed, plain = (open_data(config, **where) for config in (configs[0], next(iter(recipe.ARMS.values()))))
    ours, theirs = (next(data.training_batches(data.subsets.fit).epoch(0)) for data in (changed, plain))
    assert ours.index.tolist() == theirs.index.tolist()
    assert not torch.equal(ours.inputs, theirs.inputs)
    data = changed.sources
    options = BatchOptions(batch_size=configs[0].training.batch_size, mean=data.mean, std=data.std,
                           augment=augment_for(configs[0].data, 8))  # fmt: skip
    assert torch.equal(ours.inputs, next(Loader(data.train, changed.subsets.fit, options).epoch(0)).inputs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_gives_the_same_images():
    augmentation = everything()
    plan = plan_epoch(64, augmentation, 0, 0)
    images = noise(64, 3, 32, 32)
    on_gpu = {name: values.cuda() for name, values in plan.further.items()}
    here = augmentation.pixels(images, plan.views, plan.further)
    there = augmentation.pixels(images.cuda(), plan.views.cuda(), on_gpu)
    assert float((here.int() - there.cpu().int()).abs().gt(1).double().mean()) < 0.01
