"""Backbones, and the classifier that combines one with a head."""

from nc_tools.models.backbones import build_backbone
from nc_tools.models.cifar_resnet import CIFARResNet
from nc_tools.models.classifier import Classifier
from nc_tools.models.conv_net import ConvNet

__all__ = ["CIFARResNet", "Classifier", "ConvNet", "build_backbone"]
