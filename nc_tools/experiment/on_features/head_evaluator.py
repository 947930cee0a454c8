"""The evaluator of heads on fixed features: the heads of a seed share the scaled features of every set."""

from __future__ import annotations

import torch
from torch import Tensor

from nc_tools.data.image_set import Images
from nc_tools.evaluation.evaluator import Evaluator
from nc_tools.records import Collected
from nc_tools.surgery.untouched import eval_mode

_AT_ONCE = 2048  # samples; what a head computes from more of them leaves a CPU's cache before it is read


class HeadEvaluator(Evaluator):
    """An :class:`Evaluator` of a head on fixed features, with the same numbers.

    A head is one product with the features, so reading and scaling them for every head would take as long as the head.
    They are kept in ``kept_results``, by the images, the indices and the scaling. The owner of that store clears
    it once the heads of a seed are evaluated.
    """

    @torch.no_grad()
    def collect(self, images: Images, indices: Tensor | None = None) -> Collected:
        """Return the head's outputs on a set. Nothing may change its features: other heads read them too.

        Raises:
            ValueError: If the set is empty.
        """
        head = self.model.head
        features, labels = self._scaled(images, indices)
        parts = torch.split(features, _AT_ONCE)
        with eval_mode(head):
            outputs = [head.outputs(part) for part in parts]
            logits = torch.cat([own.logits.float() for own in outputs])
            unchanged = all(own.embedded is part for own, part in zip(outputs, parts, strict=True))
            embedded = features if unchanged else torch.cat([own.embedded.float() for own in outputs])
        return Collected(features, embedded, logits, labels)

    def _scaled(self, images: Images, indices: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return scaled features (N, D) and labels (N,) of a set."""
        scaling = self.model.backbone

        def compute() -> tuple[Images, Tensor, Tensor]:
            rows = [(scaling(batch.inputs).float(), batch.labels) for batch in self.plain_batches(images, indices)]
            if not rows:
                raise ValueError("cannot evaluate an empty data set: give at least one batch")
            features, labels = (torch.cat(column) for column in zip(*rows, strict=True))
            return images, features, labels  # the images are kept too, so that their identity is not used again

        if self._kept_results is None:
            return compute()[1:]
        name = f"{'all' if indices is None else 'some'} of {id(images)}, scaled by {type(scaling).__name__}"
        chosen = [] if indices is None else [indices]
        return self._kept_results(name, [*chosen, *scaling.state_dict().values()], compute)[1:]
