"""The evaluator of heads on fixed features: the heads of a seed share the scaled features of every set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nc_tools._support.by_content import ByContent
from nc_tools.data.image_set import Images
from nc_tools.evaluation.evaluator import Evaluator, PlainBatches
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch, Collected
from nc_tools.surgery.untouched import eval_mode

_AT_ONCE = 2048  # samples


@dataclass(eq=False)
class ScaledSets:
    """Features with the same scaling, of the sets that heads were evaluated on.

    A head is one product with the features, so reading and scaling them for every head would take as long as the head.

    Attributes:
        scaling: Name and tensors of the scaling.
        sets: Features (N, D) and labels (N,) of each set, by the identity of its images and indices, which are kept
            with them so that no identity is used twice.
    """

    scaling: Mapping[str, Tensor] = field(default_factory=dict)
    sets: dict[tuple[int, int], tuple[Images, Tensor | None, Tensor, Tensor]] = field(default_factory=dict)

    def read(
        self, scaling: nn.Module, images: Images, indices: Tensor | None, plain_batches: PlainBatches
    ) -> tuple[Tensor, Tensor]:
        """Return features (N, D) and labels (N,) of a set; sets with another scaling are deleted.

        Raises:
            ValueError: If the set is empty.
        """
        state = {f"{type(scaling).__name__}.{name}": value for name, value in scaling.state_dict().items()}
        if state.keys() != self.scaling.keys() or not all(
            torch.equal(self.scaling[name], value) for name, value in state.items()
        ):
            self.clear()
            self.scaling = {name: value.clone() for name, value in state.items()}
        key = (id(images), id(indices))
        if key not in self.sets:
            self.sets[key] = (images, indices, *_scaled(scaling, plain_batches(images, indices)))
        return self.sets[key][2:]

    def clear(self) -> None:
        """Delete all sets to free memory."""
        self.sets.clear()


class HeadEvaluator(Evaluator):
    """An :class:`Evaluator` of a head on fixed features, with the same numbers.

    Args:
        model: The scaling of the features, and the head.
        plain_batches: Returns the batches of a set.
        class_counts: Training samples of each class (K,).
        dtype: Arithmetic in training; heads are evaluated in float32.
        kept_results: Results that the heads of a seed share.
        scaled: The scaled features that they share.
    """

    def __init__(
        self,
        model: Classifier,
        plain_batches: PlainBatches,
        *,
        class_counts: Sequence[int],
        dtype: torch.dtype,
        kept_results: ByContent,
        scaled: ScaledSets,
    ) -> None:
        super().__init__(model, plain_batches, class_counts=class_counts, dtype=dtype, kept_results=kept_results)
        self._scaled = scaled

    @torch.no_grad()
    def collect(self, images: Images, indices: Tensor | None = None) -> Collected:
        """Return the head's outputs on a set. Nothing may change its features: other heads read them too."""
        head = self.model.head
        features, labels = self._scaled.read(self.model.backbone, images, indices, self.plain_batches)
        parts = torch.split(features, _AT_ONCE)
        with eval_mode(head):
            outputs = [head.outputs(part) for part in parts]
            logits = torch.cat([own.logits.float() for own in outputs])
        unchanged = all(own.embedded is part for own, part in zip(outputs, parts, strict=True))
        embedded = features if unchanged else torch.cat([own.embedded.float() for own in outputs])
        return Collected(features, embedded, logits, labels)


@torch.no_grad()
def _scaled(scaling: nn.Module, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    rows = [(scaling(batch.inputs).float(), batch.labels) for batch in batches]
    if not rows:
        raise ValueError("cannot evaluate an empty data set: give at least one batch")
    features, labels = (torch.cat(column) for column in zip(*rows, strict=True))
    return features, labels
