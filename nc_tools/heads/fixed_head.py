"""Base class of heads with fixed class vectors, in whatever form they are stored."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nc_tools.heads.head import Head
from nc_tools.heads.normalize import normalize
from nc_tools.heads.projection import Projection
from nc_tools.heads.scale import LearnedScale, Scale


class FixedHead(Head):
    """Base class of heads with fixed unit class vectors, stored as a matrix or in any other form.

    The logits are z_k = s * (w_k . u), u the projected and normalized feature.

    The state dict contains the vectors, the scale and the projection, as tensors alone. Loading replaces the vectors
    that were drawn by those of the checkpoint, also if another ``frame_seed`` drew them. A checkpoint of another
    geometry, or one with a learned layer, raises an error, with ``strict=False`` too.

    Subclasses store the vectors and define ``geometry`` and :meth:`check_state`.

    Args:
        feature_dim: D.
        num_classes: K, at least 2.
        scale: s: a positive number, ``LEARNED``, ``LEARNED_PER_CLASS``, or None for
            :func:`~nc_tools.heads.default_scale`.
        projection: Learn a linear map before the vectors: True (to K dimensions) or the number of dimensions. It has no
            bias, which on small features would give all samples the same direction.
        normalize: Scale the (projected) features to unit length. Otherwise cross-entropy gives no gradient to
            directions outside the span of the vectors, and no one learning rate and scale suit all heads.
        frame_seed: Draws the vectors; heads with the same seed have the same vectors, whatever else was drawn.
        generator: Draws the projection's initial weights; the global one if None.

    Raises:
        ValueError: If K < 2, the scale is not positive, or the vectors would have one dimension and be normalized.
    """

    geometry: ClassVar[str]
    bias = None

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        scale: float | LearnedScale | None = None,
        projection: bool | int = False,
        normalize: bool = True,
        frame_seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(feature_dim, num_classes)
        self.width = num_classes if projection is True else int(projection) or feature_dim
        if self.width == 1 and normalize:
            raise ValueError(
                f"{type(self).__name__} of {num_classes} classes cannot normalize features of width 1, which would "
                f"keep only their sign and have no gradient: pass normalize=False, or a projection to more dimensions"
            )
        self.normalize = normalize
        self.frame_seed = frame_seed
        self.scale_of = Scale(scale, num_classes)
        self.projection: Projection | None = None
        if projection:
            self.projection = Projection(feature_dim, self.width, generator)

    @abstractmethod
    def check_state(self, state: Mapping[str, Tensor]) -> str | None:
        """Return what is wrong with the class vectors of a checkpoint, or None if they are valid.

        Args:
            state: This head's part of a checkpoint, without the prefix; all of its class vectors are there.
        """

    def from_former(self, state: dict[str, Tensor], description: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint that was written by version 0.2, under the names that they have now.

        Args:
            state: This head's part of the checkpoint, without the prefix.
            description: What version 0.2 stored about the class vectors beside them.

        Raises:
            ValueError: If they do not fit this head.
        """
        del description
        return state

    @property
    def scale(self) -> Tensor:  # type: ignore[override]
        """The factor s of the logits, (1,) or (K,): it multiplies the products of features and class vectors."""
        scale: Tensor = self.scale_of()
        return scale

    def embed(self, features: Tensor) -> Tensor:
        """Project features (N, D) and normalize them, which gives (N, D')."""
        projected = self._project(features)
        return normalize(projected) if self.normalize else projected

    def _project(self, features: Tensor) -> Tensor:
        if self.projection is None:
            return features
        projected: Tensor = self.projection(features)
        return projected

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # torch raises for error_msgs with strict=False too, unlike for missing keys.
        error_msgs: list[str] = args[-1]
        try:
            self._translate_former(state_dict, prefix)
            self._check_checkpoint(
                {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}, prefix
            )
        except ValueError as error:
            error_msgs.append(str(error))
            return  # without loading: the head keeps its current vectors
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _translate_former(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Convert this head's part of a checkpoint of version 0.2 to the present form, in place."""
        text = state_dict.pop(prefix + "_extra_state", None)
        if text is None:
            return
        description = json.loads(bytes(text.cpu().tolist()).decode())
        if description["geometry"] != self.geometry:
            raise ValueError(
                f"the checkpoint has a {description['geometry']} frame, but {type(self).__name__} has a "
                f"{self.geometry} frame: load it into the head class that it was saved from"
            )
        former = {k.removeprefix(prefix): state_dict.pop(k) for k in list(state_dict) if k.startswith(prefix)}
        state_dict.update({prefix + k: v for k, v in self.from_former(former, description).items()})

    def _check_checkpoint(self, state: dict[str, Tensor], prefix: str) -> None:
        """Raise ValueError if this head's part of a checkpoint holds class vectors of another kind, or damaged ones."""
        name = prefix.rstrip(".") or type(self).__name__
        if "weight" in state:
            raise ValueError(
                f"{name} has a fixed {self.geometry} frame, but the checkpoint has a learned {prefix}weight: remove "
                f"{prefix}weight and {prefix}bias from the checkpoint to load only the backbone"
            )
        own, given = _vectors(_saved(self)), _vectors(state)
        if not given:
            return
        if given != own:
            raise ValueError(
                f"{name} has a fixed {self.geometry} frame, stored as {_listed(own, prefix)}, but the checkpoint has "
                f"{_listed(given, prefix)}: load it into the head class, with the arguments, that it was saved from"
            )
        error = None if any(state[key].is_meta for key in given) else self.check_state(state)
        if error is not None:
            raise ValueError(prefix + error)

    def extra_repr(self) -> str:
        """Return sizes, geometry and seed for ``print(model)``."""
        return f"{super().extra_repr()}, geometry={self.geometry}, frame_seed={self.frame_seed}"


def _saved(head: nn.Module) -> set[str]:
    """Return the names of the tensors in the state dict of a head, without calling its hooks."""
    names = set()
    for path, part in head.named_modules():
        tensors = part._parameters | {
            k: v for k, v in part._buffers.items() if k not in part._non_persistent_buffers_set
        }
        names |= {f"{path}.{key}" if path else key for key, tensor in tensors.items() if tensor is not None}
    return names


def _vectors(state: Iterable[str]) -> set[str]:
    """Return the names of the tensors that are class vectors, among those in a head's part of a state dict."""
    return {key for key in state if not key.startswith(("projection.", "scale_of."))}


def _listed(names: Iterable[str], prefix: str) -> str:
    return ", ".join(prefix + name for name in sorted(names))
