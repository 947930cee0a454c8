"""The base class of all classifier heads."""

from __future__ import annotations

import warnings
from abc import ABC
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, fx, nn

from nc_tools._support.initial_tensors import InitialTensors, check_memory
from nc_tools.records import Outputs


class Head(InitialTensors, ABC):
    """Base class of classifier heads: features (N, D) in, logits (N, K) out.

    An affine head computes ``logits = scale * embed(features) @ weight.T + bias``. A subclass that computes something
    else sets ``affine = False`` and overrides :meth:`compute_logits`. The head normalizes its features itself, so that
    one training loop works with every head. It computes in at least float32, inside autocast too: for unit features the
    differences between class scores are about as small as bfloat16's rounding errors.

    A subclass provides ``weight`` (K, D'), as a parameter or a property, and ``bias`` and ``scale``. It may override
    :meth:`embed`.

    Args:
        feature_dim: D, width of the backbone's features.
        num_classes: K, at least 2.

    Attributes:
        affine: Whether the logits are the affine function above.
        bias: Bias of each class (K,), or None.
        scale: A number, or a tensor that broadcasts to (K,).

    Raises:
        ValueError: If K < 2 or D < 1.

    Example:
        >>> class BinaryHead(Head):
        ...     "Class vectors of plus and minus one: the sign of the sum of the features decides."
        ...     scale, bias = 1.0, None
        ...     @property
        ...     def weight(self):
        ...         return torch.tensor([[1.0], [-1.0]]).expand(2, self.feature_dim)
        ...
        >>> BinaryHead(feature_dim=3, num_classes=2)(torch.ones(1, 3))
        tensor([[ 3., -3.]])
    """

    affine: ClassVar[bool] = True
    # Name of a parameter or buffer with the dtype of ``weight``: some heads would have to compute ``weight`` itself.
    _dtype_source: ClassVar[str] = "weight"
    _training_checked = False
    bias: Tensor | None
    scale: Tensor | float

    if TYPE_CHECKING:

        @property
        def weight(self) -> Tensor:
            """Class vectors (K, D')."""

    def __init__(self, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"{type(self).__name__} needs at least 2 classes, got {num_classes}")
        if feature_dim < 1:
            raise ValueError(f"{type(self).__name__} needs feature_dim >= 1, got {feature_dim}")
        self.feature_dim = feature_dim
        self.num_classes = num_classes

    @property
    def in_features(self) -> int:
        """D, as ``nn.Linear`` calls it."""
        return self.feature_dim

    @property
    def out_features(self) -> int:
        """K, as ``nn.Linear`` calls it."""
        return self.num_classes

    def class_vectors(self) -> Tensor:
        """Return the class vectors (K, D') to compute with: ``weight``, or a fixed frame without a copy."""
        return self.weight

    def embed(self, features: Tensor) -> Tensor:
        """Project and normalize features (N, D) to (N, D'), the space of the class vectors."""
        return features

    def compute_logits(self, embedded: Tensor) -> Tensor:
        """Return the logits (N, K) of embedded features (N, D')."""
        vectors = self.class_vectors()
        check_memory(vectors, embedded, self)
        logits = self.scale * nn.functional.linear(embedded, vectors.to(embedded.dtype))
        return logits if self.bias is None else logits + self.bias

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits (N, K) of features (N, D)."""
        if _is_proxy(features):
            return self._as_leaf(features)
        if self.training and not self._training_checked and not torch.compiler.is_compiling():
            self._check_training(features)
        return self.outputs(features).logits

    def _as_leaf(self, features: Any) -> Tensor:
        """Record the call of this head as one node of a ``torch.fx`` graph, like that of an ``nn.Linear``.

        Raises:
            ValueError: If the head itself is the module that is traced.
        """
        name = features.tracer.path_of_module(self)
        if not name:
            raise ValueError(
                f"torch.fx looks into the module that it traces, which {type(self).__name__} does not support: trace a "
                f"model that contains it, as in torch.fx.symbolic_trace(nn.Sequential(head))"
            )
        node: Tensor = features.tracer.create_proxy("call_module", name, (features,), {})
        return node

    def _check_training(self, features: Tensor) -> None:
        """Warn, once, if the features get gradients but a learned part of the head does not, as after PEFT froze it."""
        if not (isinstance(features, Tensor) and features.requires_grad):
            return
        self._training_checked = True
        parts: dict[str, list[bool]] = {}
        for name, parameter in self.named_parameters():
            parts.setdefault(name.split(".")[0], []).append(parameter.requires_grad)
        frozen = [name for name, trained in parts.items() if not any(trained)]
        if frozen:
            warnings.warn(
                f"{type(self).__name__} does not learn ({', '.join(frozen)}: requires_grad=False), but its features "
                f"do. PEFT freezes a head unless it is named in modules_to_save, as in "
                f"LoraConfig(modules_to_save=['fc'])",
                stacklevel=2,
            )

    def outputs(self, features: Tensor) -> Outputs:
        """Return what losses read (features, logits and more), each part computed when it is first read.

        Raises:
            ValueError: If the features do not have width D.
        """
        if features.shape[-1] != self.feature_dim:
            raise ValueError(
                f"{type(self).__name__} needs features of width {self.feature_dim}, got shape "
                f"{tuple(features.shape)}. Build the head with feature_dim={features.shape[-1]}"
            )
        dtype = torch.promote_types(features.dtype, getattr(self, self._dtype_source).dtype)
        return Outputs(features, features.to(torch.promote_types(dtype, torch.float32)), self)

    def observe(self, outputs: Outputs, labels: Tensor, progress: float) -> None:
        """Update state that is not learned by gradients, such as running class means. By default, do nothing.

        The training loop calls it, without gradients, after each step on unmixed samples. Do the same in your own loop.
        Do not call it on evaluation data.

        Args:
            outputs: This head's outputs for the features of the step.
            labels: (N,), int64.
            progress: Share of training that is done, in [0, 1].
        """

    @property
    def held_out(self) -> tuple[str, ...]:
        """Names of the buffers that :meth:`fit_held_out` sets; by default there are none."""
        return ()

    def fit_held_out(self, features: Tensor, labels: Tensor) -> None:
        """Fit the buffers that need samples on which the model was not trained. By default, do nothing.

        A run calls it with its hold-out after the last step. The final run of the same seed takes over these buffers,
        as it does the temperature.

        Args:
            features: (N, D), from the model in eval mode.
            labels: (N,), int64.
        """

    def label_scores(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the dot product of each sample's embedded features and the class vector of its label (N,)."""
        # index_select is several times faster than weight[labels] on a CPU.
        own = self.class_vectors().index_select(0, labels).to(features.dtype)
        return (own * self.embed(features)).sum(-1)

    def extra_repr(self) -> str:
        """Return the sizes for ``print(model)``."""
        return f"feature_dim={self.feature_dim}, num_classes={self.num_classes}"


def _is_proxy(features: object) -> bool:
    """Return True while ``torch.fx`` traces the model."""
    return isinstance(features, fx.Proxy)
