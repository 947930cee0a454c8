"""Class-vector geometries: tensors in, tensors out. The only place that knows what a simplex ETF is."""

from nc_tools.geometry.nearest import nearest_simplex_etf
from nc_tools.geometry.rotation import haar_frame
from nc_tools.geometry.simplex import centred_basis, simplex_etf

__all__ = ["centred_basis", "haar_frame", "nearest_simplex_etf", "simplex_etf"]
