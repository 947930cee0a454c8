"""The ETF head: messages for arguments that it does not take."""

import pytest
from support.head_variants import D, K

from nc_tools.heads import ETFHead


def test_a_width_that_is_too_small_suggests_a_projection_and_a_code() -> None:
    with pytest.raises(ValueError, match=r"needs feature_dim >= 6, got 5.*projection=6.*SphericalCodeHead"):
        ETFHead(5, K)


def test_an_etf_head_takes_no_bias() -> None:
    with pytest.raises(TypeError, match="bias"):
        ETFHead(D, K, bias=True)  # type: ignore[call-arg]
