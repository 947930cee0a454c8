"""Use the model of a finished run: predict the classes of new images, and export it with its model card."""

from nc_tools.deployment.export_run import EXPORT_FORMATS, export_run
from nc_tools.deployment.predict_folder import FolderSummary, predict_folder
from nc_tools.deployment.predictor import Predicted, Predictor
from nc_tools.deployment.served_network import PixelClassifier, PixelProbabilities

__all__ = [
    "EXPORT_FORMATS",
    "FolderSummary",
    "PixelClassifier",
    "PixelProbabilities",
    "Predicted",
    "Predictor",
    "export_run",
    "predict_folder",
]
