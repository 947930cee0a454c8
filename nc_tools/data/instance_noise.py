"""Label noise that depends on the image."""

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
    """Images that look alike are mislabeled alike: noise by a random linear map of the pixels.

    For an image x of class y, standardized by channel, with a matrix W_y (pixels x K) of standard normal numbers for
    each class and a flip probability q drawn from a normal distribution of mean ``rate`` and standard deviation
    ``spread``, cut to [0, 1]:

        P(given j | x, y) = q softmax_{j != y}(x^T W_y)_j,    P(given y | x, y) = 1 - q

    Source: Xia et al. 2020 (part-dependent label noise), algorithm 2, which later papers use as "instance-dependent
    noise"; it is how they *make* such noise, not their part-dependent model of it. Differences: images with a longer
    side than 32 pixels are averaged down to 32 first, since W_y would grow with them and the map is random anyway.
    With thousands of pixels the softmax is nearly one-hot: an image, if it flips, flips to one certain class.

    Attributes:
        rate: Mean probability that a label changes, in [0, 1); the cut moves it a little near 0 and 1.
        spread: Standard deviation of that probability between images.

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
            raise ValueError(f"spread is a standard deviation and must be positive, got {self.spread}")

    def draw(self, images: Images, generator: torch.Generator) -> Tensor:
        """Return new labels (N,); the images are read once for each class, in blocks.

        Args:
            images: The training set under its true labels.
            generator: CPU generator.
        """
        count, number = len(images), images.num_classes
        flip = truncated_normal(self.rate, self.spread, count, generator)
        drawn = torch.rand(count, 2, dtype=torch.float64, generator=generator)
        mean, std = (part.float().view(-1, 1, 1) for part in mean_std(images))
        given = images.labels.clone()
        pixels = math.prod((images.shape[0], *(min(_SIDE, side) for side in images.shape[1:])))
        # One class after the other: all matrices together would be K^2 times the pixels.
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
                other = (drawn[index, 1:] >= cumulative / cumulative[:, -1:]).sum(1)
                given[index] = torch.where(drawn[index, 0] < flip[index], other, k)
        return given


def truncated_normal(mean: float, std: float, count: int, generator: torch.Generator) -> Tensor:
    """Draw from a normal distribution cut to [0, 1], by its inverse distribution function.

    Returns:
        (count,), float64.

    Example:
        >>> x = truncated_normal(0.0, 0.1, 1000, torch.Generator().manual_seed(0))
        >>> bool((x >= 0).all() and (x <= 1).all())
        True
    """
    low, high = (torch.special.ndtr(torch.tensor((edge - mean) / std, dtype=torch.float64)) for edge in (0.0, 1.0))
    u = torch.rand(count, dtype=torch.float64, generator=generator)
    drawn: Tensor = mean + std * torch.special.ndtri(low + (high - low) * u)
    return drawn.clamp(0, 1)
