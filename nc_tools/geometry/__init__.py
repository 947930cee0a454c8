"""Class-vector geometries: tensors in, tensors out. The only place that knows what a simplex ETF is."""

from nc_tools.geometry.code_bounds import AngleBounds, minimal_angle_bounds
from nc_tools.geometry.quadratic_code import quadratic_code
from nc_tools.geometry.rotation import haar_frame
from nc_tools.geometry.simplex import centred_basis, simplex_etf
from nc_tools.geometry.spherical_code import code_angle, minimal_angle, spherical_code

__all__ = [
    "AngleBounds",
    "centred_basis",
    "code_angle",
    "haar_frame",
    "minimal_angle",
    "minimal_angle_bounds",
    "quadratic_code",
    "simplex_etf",
    "spherical_code",
]
