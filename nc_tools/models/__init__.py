"""Backbones, and the classifier that joins one with a head."""

from nc_tools.models.build import build_backbone
from nc_tools.models.classifier import Classifier
from nc_tools.models.conv import ConvNet
from nc_tools.models.resnet import CIFARResNet

__all__ = ["CIFARResNet", "Classifier", "ConvNet", "build_backbone"]
