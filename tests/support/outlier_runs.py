"""The recipe that trains against outliers, and small sets for it."""

from dataclasses import replace

import torch

from support.recipe_commands import RECIPES, recipe_module

RECIPE = next(path for path in RECIPES if path.stem == "ood")
recipe = recipe_module(RECIPE)
EXPOSED = {"linear_oe", "linear_ortho", "etf_ortho", "two_space_ortho"}


def config_of(arm, **data):
    config = recipe.ARMS[arm]
    training = replace(config.training, epochs=2, batch_size=50)
    return replace(config, training=training, data=replace(config.data, **data))


def noise_pictures(root, count=60):
    from PIL import Image

    pixels = torch.randint(0, 256, (count, 8, 8, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for split in ("train", "test"):
        (root / split / "noise").mkdir(parents=True)
    for i, image in enumerate(pixels):
        Image.fromarray(image.numpy()).save(root / ("test" if i % 3 == 2 else "train") / "noise" / f"{i:03}.png")
    return f"imagefolder:{root}"
