"""Haar frames: orthonormal to rounding, and uniformly distributed."""

import math

import pytest
import torch
from scipy import stats

from nc_tools.geometry import haar_frame


def test_frames_are_haar_distributed() -> None:
    """A squared entry of a Haar column is Beta(1/2, (D - 1)/2); without the sign fix QR has one sign there."""
    dim, generator = 6, torch.Generator().manual_seed(3)
    frames = torch.stack([haar_frame(dim, 3, generator=generator) for _ in range(3000)])
    for column in range(3):
        entries = frames[:, column, column]
        assert stats.kstest((entries**2).numpy(), stats.beta(0.5, (dim - 1) / 2).cdf).pvalue > 1e-3
        assert stats.binomtest(int((entries > 0).sum()), len(entries)).pvalue > 1e-3
    ones = frames[:, :, 0].sum(1) / math.sqrt(dim)
    assert stats.kstest((ones**2).numpy(), stats.beta(0.5, (dim - 1) / 2).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("dim", "columns"), [(1, 1), (4, 4), (60, 59), (300, 120)])
def test_haar_frames_are_orthonormal_to_rounding_at_every_shape(dim: int, columns: int) -> None:
    q = haar_frame(dim, columns, generator=torch.Generator().manual_seed(7))
    assert float((q.T @ q - torch.eye(columns)).abs().max()) < 1e-13


def test_a_haar_frame_that_starts_near_its_axis_is_as_exact() -> None:
    """Of 3000 directions in the plane some lie within a thousandth of the axis, where a reflector could cancel."""
    generator = torch.Generator().manual_seed(5)
    q = torch.stack([haar_frame(2, 2, generator=generator) for _ in range(3000)])
    assert float(q[:, 1, 0].abs().min()) < 1e-3
    assert float((q.mT @ q - torch.eye(2)).abs().max()) < 1e-14


def test_haar_frame_is_the_q_of_a_gaussian_matrix_in_distribution() -> None:
    """Entry (i, j) has variance 1 / D and kurtosis 3 D / (D + 2); entries of two columns are uncorrelated."""
    dim, generator = 5, torch.Generator().manual_seed(11)
    q = torch.stack([haar_frame(dim, 4, generator=generator) for _ in range(4000)])
    assert float(q.mean(0).abs().max()) < 4.5 * math.sqrt(1 / dim / 4000)
    assert float((q.square().mean(0) * dim - 1).abs().max()) < 0.12
    assert float((q**4).mean() * dim**2) == pytest.approx(3 * dim / (dim + 2), rel=0.03)
    assert float((q[:, :, 0] * q[:, :, 3]).mean(0).abs().max()) < 4.5 / dim / math.sqrt(4000)


def test_impossible_sizes_raise() -> None:
    with pytest.raises(ValueError, match=r"columns must be 1 to 3 .* in 3 dimensions, got 4"):
        haar_frame(3, 4)
