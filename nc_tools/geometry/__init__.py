"""Geometries of class vectors as plain tensors: simplex ETFs, polytopes, Hadamard rows and spherical codes."""

from nc_tools.geometry.code_bounds import AngleBounds, minimal_angle_bounds
from nc_tools.geometry.hadamard import hadamard, walsh_hadamard
from nc_tools.geometry.nearest_etf import nearest_simplex_etf
from nc_tools.geometry.polytopes import cube, orthoplex
from nc_tools.geometry.quadratic_code import quadratic_code
from nc_tools.geometry.rotation import haar_frame
from nc_tools.geometry.simplex import centered_basis, simplex_etf
from nc_tools.geometry.spherical_code import code_angle, minimal_angle, spherical_code
from nc_tools.geometry.vertex_assignment import assign_by_means, assign_by_similarity

__all__ = [
    "AngleBounds",
    "assign_by_means",
    "assign_by_similarity",
    "centered_basis",
    "code_angle",
    "cube",
    "haar_frame",
    "hadamard",
    "minimal_angle",
    "minimal_angle_bounds",
    "nearest_simplex_etf",
    "orthoplex",
    "quadratic_code",
    "simplex_etf",
    "spherical_code",
    "walsh_hadamard",
]
