"""Instance-dependent label noise: similar images get similar wrong labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nc_tools.data.image_set import Images, mean_std
from nc_tools.data.noise_rate import check_rate

_SIDE = 32
_BLOCK = 2048


@dataclass(frozen=True)
class InstanceNoise:
    """Instance-dependent noise: images that look alike are mislabeled alike, by a random linear map of the pixels.

    Let x be an image of class y, standardized by channel. Each class has a matrix W_y (C H W, K) of standard normal
    numbers. Each image has a flip probability q, drawn from a normal distribution of mean ``rate`` and standard
    deviation ``spread`` that is truncated to [0, 1]. Then

        P(given j | x, y) = q softmax_{j != y}(x^T W_y)_j,    P(given y | x, y) = 1 - q

    Source: Xia et al. 2020 (part-dependent label noise), algorithm 2, which later papers call "instance-dependent
    noise". It is how the authors generate such noise, not their part-dependent model of it. Difference: images with a
    side longer than 32 pixels are averaged down to 32 first, because W_y would grow with them and the map is random
    anyway. With thousands of pixels the softmax is nearly one-hot, so that a given image, if its label changes, nearly
    always gets the same wrong class.

    Attributes:
        rate: Mean probability that a label changes, in [0, 1); the truncation shifts it slightly near 0 and 1.
        spread: Standard deviation of that probability between images.

    Raises:
        ValueError: If the rate or the spread is out of range.

    Example:
        >>> InstanceNoise(1.2)
        Traceback (most recent call last):
            ...
        ValueError: a noise rate is a share of labels and must lie in [0, 1), got 1.2: did you mean 0.012?
    """

    rate: float
    spread: float = 0.1

    def __post_init__(self) -> None:
        check_rate(self.rate)
        if not 0 < self.spread < math.inf:
            raise ValueError(
                f"spread of InstanceNoise is a standard deviation and must be positive and finite, got {self.spread}"
            )

    def draw(self, images: Images, generator: torch.Generator) -> Tensor:
        """Draw a noisy label for each image (N,), int64; the images are read in blocks, class by class.

        Args:
            images: The training set with its true labels.
            generator: CPU generator.
        """
        count, number = len(images), images.num_classes
        flip = truncated_normal(self.rate, self.spread, count, generator)
        uniform = torch.rand(count, 2, dtype=torch.float64, generator=generator)
        mean, std = (part.float().view(-1, 1, 1) for part in mean_std(images))
        labels = images.labels.clone()
        pixels = math.prod((images.shape[0], *(min(_SIDE, side) for side in images.shape[1:])))
        # Class by class: all matrices together would have K^2 times as many entries as an image has pixels.
        for k in range(number):
            w = torch.randn(pixels, number, generator=generator)
            members = (images.labels == k).nonzero().flatten()
            for index in torch.split(members, _BLOCK):
                x = images.take(index).float().div_(255).sub_(mean).div_(std)
                if max(x.shape[2:]) > _SIDE:
                    x = F.adaptive_avg_pool2d(x, (min(_SIDE, x.shape[2]), min(_SIDE, x.shape[3])))
                scores = x.flatten(1) @ w
                scores[:, k] = -torch.inf
                cumulative = scores.double().softmax(1).cumsum(1)
                other = (uniform[index, 1:] >= cumulative / cumulative[:, -1:]).sum(1)
                labels[index] = torch.where(uniform[index, 0] < flip[index], other, k)
        return labels


def truncated_normal(mean: float, std: float, count: int, generator: torch.Generator) -> Tensor:
    """Draw from a normal distribution truncated to [0, 1], by its inverse distribution function.

    Args:
        mean: Mean before the truncation.
        std: Standard deviation before the truncation.
        count: Number of draws.
        generator: CPU generator.

    Returns:
        (count,), float64.

    Example:
        >>> x = truncated_normal(0.0, 0.1, 1000, torch.Generator().manual_seed(0))
        >>> bool((x >= 0).all() and (x <= 1).all())
        True
    """
    low, high = (torch.special.ndtr(torch.tensor((edge - mean) / std, dtype=torch.float64)) for edge in (0.0, 1.0))
    u = torch.rand(count, dtype=torch.float64, generator=generator)
    values: Tensor = mean + std * torch.special.ndtri(low + (high - low) * u)
    return values.clamp(0, 1)
