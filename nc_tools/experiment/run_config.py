"""What a run is, and how runs are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nc_tools.data import DataConfig
from nc_tools.heads.head import Head
from nc_tools.losses.loss_term import LossTerm
from nc_tools.spec import Spec
from nc_tools.training import OptimConfig, SecondStage, TrainConfig
from nc_tools.transfer import FineTuning

PRIMARY = "test/gen/balanced_accuracy"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The backbone.

    Attributes:
        name: As for :func:`nc_tools.models.build_backbone`.
        width: First width of "conv".
    """

    name: str = "conv"
    width: int = 16

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"model.width must be positive, got {self.width}")


@dataclass(frozen=True, kw_only=True)
class TunedParameter:
    """One thing beside the learning rate that an arm may tune, out of the same budget as every other arm.

    Attributes:
        path: What it sets, such as "optim.weight_decay", "head.scale" or "second_stage.tau".
        values: Alternatives to the value in the arm's own configuration.
    """

    path: str = "optim.weight_decay"
    values: tuple[Any, ...] = (5e-5, 5e-3)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One arm, whole: everything that decides its result but the seed and the draw of the frame.

    Attributes:
        head: The head, as ``spec(ETFHead, ...)``.
        loss: The loss, as ``spec(CrossEntropyLoss, ...)``.
        data: What is trained on.
        model: The backbone.
        optim: Optimizer and schedule.
        training: Length and arithmetic.
        tuned: What the arm tunes beside its learning rate; weight decay unless it has a better use for the trials.
        second_stage: What is done to the classifier after training, with the backbone frozen; None for nothing.
    """

    head: Spec[Head]
    loss: Spec[LossTerm]
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    training: TrainConfig = field(default_factory=TrainConfig)
    tuned: TunedParameter = field(default_factory=TunedParameter)
    second_stage: SecondStage | None = field(default=None, metadata={"later": True})

    @property
    def epochs(self) -> int:
        """Epochs that a run of this arm records, those of a second stage included."""
        first = self.training.epochs
        return first + (0 if self.second_stage is None else self.second_stage.epochs(first))

    @property
    def has_draws(self) -> bool:
        """Whether the head holds a frame that is drawn, so that several draws tell its luck from its merit."""
        return self.head.leaves_open("frame_seed")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The rules that all arms of a comparison share.

    Attributes:
        seeds: Seeds of the final runs: subset, hold-out, initial weights, order, augmentation.
        draws: Frames drawn for each seed by arms whose head holds one; the same frames at every seed.
        holdout_draws: For how many of the draws hold-out runs are made; further draws take temperature and best epoch
            from the last of them, which can only cost arms with a frame.
        rates: Learning rates that every arm tries, half a decade apart.
        tuning_seeds: Seeds of the trials, apart from those of the final runs; a trial's score is the mean over them.
        max_extensions: How often the grid may grow, for all arms, when an arm's best rate lies at its edge.
        references: For an arm, the arm with the standard head and the same loss: what it is fairly compared with.
        curve_points: How many epochs collapse is measured at along training.
        curve_samples: Largest number of training images it is measured on there (at the end it is all of them).
        transfer_samples: Largest number of images of a transfer set, train and test each.
        primary: Key of the one metric that decides: of the test set, or of transfer. Rates and knobs are chosen by
            balanced accuracy on the hold-out of the training set, whatever it is: nothing is tuned by transfer.
        fine_tuning: Fine-tune each final model to the transfer set in these ways; None, as it costs trainings.
        rank_layers: Measure the transfer set's collapse layer by layer, with what a ridge probe reads from each.
        suspects: Rows of suspects.csv, the training labels that look wrong, in a final run; 0 for none. None: 2000
            where the data hold noisy labels (drawn, or from a CSV), none elsewhere.
    """

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    draws: int = 3
    holdout_draws: int = 1
    rates: tuple[float, ...] = (0.01, 0.0316, 0.1, 0.316, 1.0)
    tuning_seeds: tuple[int, ...] = (1000,)
    max_extensions: int = 2
    references: Mapping[str, str] = field(default_factory=dict)
    curve_points: int = 10
    curve_samples: int = 4096
    transfer_samples: int = 4000
    suspects: int | None = field(default=None, metadata={"later": True})
    primary: str = field(default=PRIMARY, metadata={"later": True})
    fine_tuning: FineTuning | None = field(default=None, metadata={"later": True})
    rank_layers: bool = field(default=False, metadata={"later": True})

    def __post_init__(self) -> None:
        self._check_seeds()
        if self.max_extensions < 0:
            raise ValueError(f"protocol.max_extensions must not be negative, got {self.max_extensions}: 0 is no growth")
        for name in ("draws", "holdout_draws", "curve_points", "curve_samples", "transfer_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"protocol.{name} must be at least 1, got {getattr(self, name)}")
        if self.suspects is not None and self.suspects < 0:
            raise ValueError(f"protocol.suspects must not be negative, got {self.suspects}")
        if not self.primary.startswith(("test/", "transfer/")):
            raise ValueError(
                f"protocol.primary must be the key of a final value of the test set or of transfer, such as {PRIMARY}, "
                f"got {self.primary!r}"
            )
        rising = list(self.rates) == sorted(set(self.rates))
        if not (self.rates and rising and all(0 < rate < float("inf") for rate in self.rates)):
            raise ValueError(f"protocol.rates must be positive and rising, all finite, got {self.rates}")

    def _check_seeds(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"protocol.seeds must be different seeds, at least one, got {self.seeds}")
        if not self.tuning_seeds:
            raise ValueError("protocol.tuning_seeds must hold at least one seed to try rates with, got none")
        if negative := [seed for seed in (*self.seeds, *self.tuning_seeds) if seed < 0]:
            raise ValueError(f"a seed is a whole number from 0 on, got {negative[0]}")
        if set(self.seeds) & set(self.tuning_seeds):
            raise ValueError(
                f"seeds of the final runs must not be tuned on, but {sorted(set(self.seeds) & set(self.tuning_seeds))} "
                f"are among protocol.tuning_seeds: choose others"
            )
