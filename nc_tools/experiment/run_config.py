"""The configuration of a training run, and the rules by which runs are compared (the protocol)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nc_tools.comparison.prediction_entries import DEFAULT_PRIMARY
from nc_tools.data import DataConfig
from nc_tools.experiment.model_config import ModelConfig
from nc_tools.heads.head import Head
from nc_tools.losses.loss_term import LossTerm
from nc_tools.specs import Spec
from nc_tools.training import HeadStart, OptimConfig, SecondStage, TrainConfig
from nc_tools.transfer import FineTuning


@dataclass(frozen=True, kw_only=True)
class TunedParameter:
    """The parameter that an arm tunes besides its learning rate; every arm must try the same number of values.

    Attributes:
        path: The parameter, such as "optim.weight_decay", "head.scale" or "second_stage.tau".
        values: Values to try besides the one in the arm's configuration.
    """

    path: str = "optim.weight_decay"
    values: tuple[Any, ...] = (5e-5, 5e-3)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Configuration of an arm (a compared method): everything that decides its result except seed and draw.

    The draw is the number of the head's frame, its fixed random class vectors.

    Attributes:
        head: The head, as ``spec(ETFHead, ...)``.
        loss: The loss, as ``spec(CrossEntropyLoss, ...)``.
        data: What is trained on.
        model: The backbone, its weights, and which part of it is trained.
        optim: Optimizer and schedule.
        training: Epochs, batch size, precision and the like.
        tuned: What the arm tunes in addition to its learning rate; weight decay unless another choice serves it better.
        second_stage: What is done to the classifier after training, with the backbone frozen; None for nothing.
        start: What the head is computed from before training, such as ``LeastSquaresStart()``; None for random initial
            weights. With ``training.epochs=0`` the start is the whole method, a head in closed form. Such an arm has no
            learning rate: it tries as many values of its tuned parameter as the other arms try settings in all.

    Raises:
        ValueError: If an arm trains for no epoch and has no start, or has a second stage after no training or after
            early stopping.
    """

    head: Spec[Head]
    loss: Spec[LossTerm]
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    training: TrainConfig = field(default_factory=TrainConfig)
    tuned: TunedParameter = field(default_factory=TunedParameter)
    second_stage: SecondStage | None = None
    start: HeadStart | None = None

    def __post_init__(self) -> None:
        if self.is_closed_form and (self.start is None or self.second_stage is not None):
            raise ValueError(
                "training.epochs=0 trains nothing, so an arm with it needs a start that computes its head and can have "
                "no second stage: set training.epochs, or start=LeastSquaresStart()"
            )
        if self.training.patience is not None and self.second_stage is not None:
            raise ValueError(
                f"training.patience ends the training at its best epoch, which a second stage would change again, got "
                f"patience {self.training.patience} and {type(self.second_stage).__name__}: set one of them to None"
            )

    @property
    def is_closed_form(self) -> bool:
        """Whether the head is computed and not trained."""
        return self.training.epochs == 0

    @property
    def epochs(self) -> int:
        """Number of recorded epochs, including those of a second stage; a head in closed form is recorded as one."""
        first = self.training.epochs
        return max(1, first + (0 if self.second_stage is None else self.second_stage.epochs(first)))

    @property
    def has_draws(self) -> bool:
        """Whether the head has fixed class vectors drawn at random, so that several draws show their influence."""
        return self.head.leaves_open("frame_seed")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The rules that all arms (compared methods) of a comparison share, such as seeds and learning rates.

    Attributes:
        seeds: Seeds of the final runs: they set subset, hold-out, initial weights, order and augmentation.
        draws: Number of frames for each seed, for arms whose head has a random frame. No two runs of an arm share a
            frame. One is enough for an interval that covers other frames; two or more also show the frame's share of
            the variance. More seeds narrow the interval more than more frames do.
        frame_seed: One frame for all seeds, for example the one that will be deployed; the results then hold for this
            frame only, which the report says. None for frames of their own.
        holdout_draws: How many of the draws get a hold-out run. Further draws take temperature and best epoch from the
            last of them, which can only be a disadvantage for arms with a frame.
        rates: Learning rates that every arm tries, half a decade apart.
        tune_each_seed: Every seed tunes all arms anew, on its own hold-out, with trials whose initial weights, order
            and frames are in no final run. Intervals then also cover tuning. For runs on fixed features, which take
            seconds; other runs are tuned once, with ``tuning_seeds``.
        tuning_seeds: Seeds of the tuning trials, different from those of the final runs. A trial's score is the mean
            over them.
        max_extensions: How often the grid of rates may grow, for all arms, when an arm's best rate is at its edge.
        references: For an arm, the arm with the standard head and the same loss, which is its fair reference.
        curve_points: Number of epochs at which collapse is measured during training.
        curve_samples: Largest number of training images used for that (at the end of training all are used).
        transfer_samples: Largest number of images of a transfer set, for its training and test part each.
        primary: Key of the metric that decides the comparison: one of the test set or of transfer. Rates and tuned
            parameters are always chosen by balanced accuracy on the hold-out of the training set, never by transfer.
        margin: The smallest difference in the primary metric that matters, such as 0.005 for half a point of accuracy.
            The report then also tests, for every arm, whether it is no worse than the baseline by more than this
            margin, and whether it is within it in both directions. Fix it before the runs. None for no such tests.
        fine_tuning: How each final model is fine-tuned to the transfer set; None for no fine-tuning, which saves time.
        rank_layers: Measure the transfer set's collapse, and the accuracy of a ridge probe, in every layer.
        suspects: Rows of suspects.csv, the labels that are most likely wrong, in a final run; 0 for no file. None means
            2000 if true labels are known (as with drawn noise) or ``data.labels`` gives the labels, and 0 otherwise.
        keep_mistakes: Keep small pictures of the test images that a final run takes for a wrong class with most
            confidence; the report shows them. Switch it off for images that must not be in a report.
        check_transition: Refuse a run whose estimated transition matrix of label noise cannot be trusted. Smoke runs
            switch it off: a network that was trained for seconds predicts too few of the classes.

    Raises:
        ValueError: If a value is out of its range, or ``seeds`` and ``tuning_seeds`` share a seed.
    """

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    draws: int = 1
    frame_seed: int | None = None
    holdout_draws: int = 1
    rates: tuple[float, ...] = (0.01, 0.0316, 0.1, 0.316, 1.0)
    tune_each_seed: bool = False
    tuning_seeds: tuple[int, ...] = (1000,)
    max_extensions: int = 2
    references: Mapping[str, str] = field(default_factory=dict)
    curve_points: int = 10
    curve_samples: int = 4096
    transfer_samples: int = 4000
    suspects: int | None = None
    keep_mistakes: bool = True
    check_transition: bool = True
    primary: str = DEFAULT_PRIMARY
    margin: float | None = None
    fine_tuning: FineTuning | None = None
    rank_layers: bool = False

    def __post_init__(self) -> None:
        self._check_seeds()
        if self.max_extensions < 0:
            raise ValueError(
                f"protocol.max_extensions must be at least 0, got {self.max_extensions}: set it to 0 to keep the grid "
                f"of rates as it is"
            )
        for name in ("draws", "holdout_draws", "curve_points", "curve_samples", "transfer_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"protocol.{name} must be at least 1, got {getattr(self, name)}")
        if self.frame_seed is not None and (self.frame_seed < 0 or self.draws > 1):
            raise ValueError(
                f"protocol.frame_seed must be at least 0, and allows only one draw, got frame_seed={self.frame_seed} "
                f"and draws={self.draws}: set protocol.draws=1, or leave protocol.frame_seed out"
            )
        if self.suspects is not None and self.suspects < 0:
            raise ValueError(
                f"protocol.suspects must be at least 0, got {self.suspects}: set it to 0 to write no suspects.csv"
            )
        if not self.primary.startswith(("test/", "transfer/")):
            raise ValueError(
                f"protocol.primary must be a metric that begins with 'test/' or 'transfer/', such as "
                f"{DEFAULT_PRIMARY!r}, got {self.primary!r}"
            )
        if self.margin is not None and not 0 < self.margin < float("inf"):
            raise ValueError(
                f"protocol.margin must be positive and finite, got {self.margin}: give the smallest difference in "
                f"{self.primary} that matters, such as 0.005"
            )
        rising = list(self.rates) == sorted(set(self.rates))
        if not (self.rates and rising and all(0 < rate < float("inf") for rate in self.rates)):
            raise ValueError(
                f"protocol.rates must hold at least one learning rate, all positive, finite and rising, got "
                f"{self.rates}"
            )

    def _check_seeds(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"protocol.seeds must hold at least one seed, and each seed only once, got {self.seeds}")
        if not self.tuning_seeds:
            raise ValueError("protocol.tuning_seeds must hold at least one seed, got none")
        if negative := [seed for seed in (*self.seeds, *self.tuning_seeds) if seed < 0]:
            raise ValueError(f"a seed must be a whole number of at least 0, got {negative[0]}")
        if shared := sorted(set(self.seeds) & set(self.tuning_seeds)):
            raise ValueError(
                f"protocol.seeds and protocol.tuning_seeds must share no seed, got {shared} in both: list each seed "
                f"in only one of them"
            )
