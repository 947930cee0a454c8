"""The loaders of runs that a process makes at the same time: runs on the same batches share them."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor

from nc_tools.data.mixing import Batches
from nc_tools.data.shared_batches import SharedBatches
from nc_tools.experiment.run_data import RunData
from nc_tools.losses.loss_term import LossTerm


class PackLoaders:
    """Training batches for the runs of a pack: one loader for all runs with the same samples, seed and options.

    Args:
        runs: How many runs the pack has.
    """

    def __init__(self, runs: int) -> None:
        self.runs = runs
        self._loaders: dict[Hashable, list[tuple[Tensor, SharedBatches]]] = {}

    def batches_for(self, data: RunData, loss: LossTerm, indices: Tensor) -> Batches:
        """Return what :meth:`RunData.batches_for` does; runs with the same samples, seed and options share it.

        Raises:
            ValueError: As :meth:`RunData.batches_for` does.
        """
        config, training = data.config, data.config.training
        options = (training.batch_size, training.epochs, training.precision, training.channels_last)
        key = (config.data, config.model, data.seed, str(data.device), options, loss.views, loss.needs_outliers)
        loaders = self._loaders.setdefault(key, [])
        for samples, shared in loaders:
            if samples.equal(indices):
                return shared
        loaders.append((indices, SharedBatches(data.batches_for(loss, indices))))
        return loaders[-1][1]
