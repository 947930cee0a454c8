"""Cutout against loops over pixels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_tools.data import Cutout


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(2, 7), st.integers(2, 9), st.integers(0, 99))
def test_cutout_is_the_square_written_out(size, height, width, seed):
    cutout, inputs = Cutout(size), torch.rand(3, 2, height, width) + 1
    draws = cutout.draw(3, torch.Generator().manual_seed(seed))
    outputs = cutout.apply(inputs, draws)
    for i in range(3):
        y, x = int(draws[i, 0] * height), int(draws[i, 1] * width)
        for row in range(height):
            for column in range(width):
                inside = 0 <= row - (y - size // 2) < size and 0 <= column - (x - size // 2) < size
                expected = [0.0, 0.0] if inside else inputs[i, :, row, column].tolist()
                assert outputs[i, :, row, column].tolist() == expected


def test_cutout_reaches_all_positions_equally_often_and_keeps_the_layout():
    draws = Cutout(1).draw(40_000, torch.Generator().manual_seed(0))
    outputs = Cutout(1).apply(torch.ones(40_000, 1, 4, 4), draws)
    assert (1 - outputs).sum((1, 2, 3)).tolist() == [1.0] * 40_000
    counts = (1 - outputs).sum((0, 1)).flatten()
    assert float(((counts - 2500) ** 2 / 2500).sum()) < 37.7  # chi-square, 15 degrees of freedom, p = .001
    inputs = torch.ones(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    assert Cutout(2).apply(inputs, draws[:2]).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [0, -1, 1.5])
def test_a_bad_size_raises(size):
    with pytest.raises(ValueError, match=f"size of Cutout is .* whole number of at least 1, got {size}"):
        Cutout(size)
