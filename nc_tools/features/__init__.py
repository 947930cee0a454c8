"""Features as data: embedding files, and features that a frozen backbone computes once and a cache keeps."""

from nc_tools.features.embeddings import Embeddings, read_embeddings
from nc_tools.features.extract import Extraction, extract_features
from nc_tools.features.feature_loader import FeatureLoader, feature_batches
from nc_tools.features.feature_set import FeatureSet
from nc_tools.features.given_features import GivenFeatures
from nc_tools.features.image_views import ImageViews
from nc_tools.features.standardize import Standardize, fit_standardize

__all__ = [
    "Embeddings",
    "Extraction",
    "FeatureLoader",
    "FeatureSet",
    "GivenFeatures",
    "ImageViews",
    "Standardize",
    "extract_features",
    "feature_batches",
    "fit_standardize",
    "read_embeddings",
]
