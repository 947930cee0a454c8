"""Backbones, pretrained or not, and the classifier that combines one with a head."""

from nc_tools.models.backbones import build_backbone
from nc_tools.models.cifar_resnet import CIFARResNet
from nc_tools.models.classifier import Classifier
from nc_tools.models.conv_net import ConvNet
from nc_tools.models.function_backbone import factory_name
from nc_tools.models.image_preprocessing import ImagePreprocessing
from nc_tools.models.pretrained import BackboneIdentity, PretrainedBackbone, expected_preprocessing, load_backbone

__all__ = [
    "BackboneIdentity",
    "CIFARResNet",
    "Classifier",
    "ConvNet",
    "ImagePreprocessing",
    "PretrainedBackbone",
    "build_backbone",
    "expected_preprocessing",
    "factory_name",
    "load_backbone",
]
