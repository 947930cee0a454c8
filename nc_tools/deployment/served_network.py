"""The classifier as a function of pixels, for exports: normalization, network, temperature and softmax together."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from nc_tools.deployment.predictor import Predictor
from nc_tools.models.classifier import Classifier


class PixelClassifier(nn.Module):
    """Return logits and calibrated probabilities, both (N, K), for uint8 images (N, C, S, S) of the network's size.

    Args:
        model: The classifier.
        mean: Mean of each channel, for pixels in 0..1.
        std: Standard deviation of each channel, for pixels in 0..1.
        temperature: The logits are divided by it before the softmax.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: Classifier, mean: tuple[float, ...], std: tuple[float, ...], temperature: float) -> None:
        super().__init__()
        self.model = model
        center, spread = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        self.register_buffer("scale", (1 / (255 * spread)).float().view(-1, 1, 1))
        self.register_buffer("shift", (-center / spread).float().view(-1, 1, 1))
        self.temperature = temperature

    @classmethod
    def of(cls, predictor: Predictor) -> PixelClassifier:
        """Return the classifier of a run in eval mode on the CPU; LoRA weights are merged into their layers."""
        facts = predictor.trained.facts
        expected = facts.preprocessing
        mean, std = (facts.mean, facts.std) if expected is None else (expected.mean, expected.std)
        model = _merged(copy.deepcopy(predictor.trained.model).cpu().float())
        return cls(model, mean, std, predictor.temperature).eval().requires_grad_(requires_grad=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and probabilities, float32 (N, K), of uint8 images (N, C, S, S)."""
        logits: Tensor = self.model(images.float() * self.scale + self.shift)
        return logits, (logits / self.temperature).softmax(1)


class PixelProbabilities(nn.Module):
    """The probabilities alone, for servers that return one array.

    Args:
        classifier: The module that returns logits and probabilities.
    """

    def __init__(self, classifier: PixelClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """Return the probabilities (N, K)."""
        probabilities: Tensor = self.classifier(images)[1]
        return probabilities


def _merged(model: Classifier) -> Classifier:
    """Replace LoRA layers by plain layers with the merged weights, which compute the same function."""
    if not any(hasattr(module, "lora_A") for module in model.modules()):
        return model
    from peft.tuners.lora.layer import LoraLayer, MultiheadAttention

    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, LoraLayer)]
    inside = [n for n, m in layers if isinstance(m, MultiheadAttention)]
    for name, layer in layers:
        if any(name.startswith(f"{outer}.") for outer in inside):
            continue  # the projection inside an attention, which is merged with it
        parent, _, last = name.rpartition(".")
        if isinstance(layer, MultiheadAttention):
            plain = layer.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
        else:
            layer.merge()
            plain = layer.get_base_layer()
        setattr(model.get_submodule(parent), last, plain)
    return model
