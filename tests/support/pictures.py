"""Small images for tests of augmentation."""

import torch


def noise(*shape, seed=0):
    """Random uint8 pixels."""
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def pictures(channels=3, size=24):
    """Five images that differ in range and texture; one of them flat, one nearly black."""
    images = noise(5, channels, size, size)
    images[1] = images[1] // 4 + 60
    images[2] = torch.arange(size).to(torch.uint8).expand(channels, size, size) * 9
    images[3] = 77
    images[4] = images[4] // 100
    return images
