"""The steps from an image file to the input of an exported network, as data that the export contains."""

from __future__ import annotations

from typing import Any

from nc_tools.experiment.build import DataFacts
from nc_tools.experiment.trained_model import TrainedModel


def image_rule(facts: DataFacts, interpolation: str = "bilinear") -> dict[str, Any]:
    """Return how an image file becomes the uint8 input of an exported network, step by step, as JSON values.

    The box of a crop is (left, top, right, bottom) in pixels, as Pillow takes it.

    Args:
        facts: Facts about the data, with the network's preprocessing.
        interpolation: Interpolation of the first resize, with which image files are read.

    Example:
        >>> facts = DataFacts(3, 32, 2, (5, 5), ("cat", "dog"), (0.5,) * 3, (0.2,) * 3, "f")
        >>> [step["step"] for step in image_rule(facts)["steps"]]
        ['orient', 'color', 'square', 'resize']
    """
    channels, size, _ = facts.image_shape
    steps: list[dict[str, Any]] = [
        {"step": "orient", "by": "EXIF"},
        {"step": "color", "to": "RGB" if channels == 3 else "gray", "transparent": "on white", "16-bit": "value / 257"},
        {"step": "square", "crop": "center, the shorter side"},
        {"step": "resize", "to": facts.image_size, "interpolation": interpolation, "antialias": True},
    ]
    expected = facts.preprocessing
    if expected is not None and (expected.resize_size, expected.size) != (facts.image_size, facts.image_size):
        edge = round((expected.resize_size - expected.size) / 2)
        steps += [
            {"step": "resize", "to": expected.resize_size, "interpolation": expected.interpolation, "antialias": True},
            {"step": "crop", "box": [edge, edge, edge + expected.size, edge + expected.size]},
        ]
    mean, std = (facts.mean, facts.std) if expected is None else (expected.mean, expected.std)
    return {
        "input": {"name": "images", "type": "uint8", "shape": ["batch", channels, size, size]},
        "steps": steps,
        "inside_the_network": {"normalization": "(x / 255 - mean) / std", "mean": list(mean), "std": list(std)},
    }


def rule_of(trained: TrainedModel) -> dict[str, Any]:
    """Return the rule by which image files become the input of a run's model."""
    return image_rule(trained.facts, trained.config.data.interpolation)
