"""Features as data: embedding files, and features that a frozen backbone computes once and a cache keeps."""

from nc_tools.features.embeddings import Embeddings, read_embeddings
from nc_tools.features.feature_set import FeatureSet

__all__ = ["Embeddings", "FeatureSet", "read_embeddings"]
