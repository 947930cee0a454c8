"""Class-vector geometries: tensors in, tensors out. The only place that knows what a simplex ETF is."""

from nc_tools.geometry.assignment import assign_by_means, assign_by_similarity
from nc_tools.geometry.hadamard import hadamard, walsh_hadamard
from nc_tools.geometry.polytopes import cube, orthoplex
from nc_tools.geometry.rotation import haar_frame
from nc_tools.geometry.simplex import centred_basis, simplex_etf

__all__ = [
    "assign_by_means",
    "assign_by_similarity",
    "centred_basis",
    "cube",
    "haar_frame",
    "hadamard",
    "orthoplex",
    "simplex_etf",
    "walsh_hadamard",
]
