"""Computed starts of heads, before training or instead of it: class means, least squares and others."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nc_tools.class_moments import ClassMoments
from nc_tools.heads.head import Head
from nc_tools.heads.imprint import imprint
from nc_tools.heads.least_squares import solve_least_squares
from nc_tools.heads.linear import CosineHead, LinearHead
from nc_tools.heads.proxy import ProxyHead
from nc_tools.heads.scale import default_scale


@dataclass(frozen=True, eq=False)
class StartSamples:
    """The training samples from which heads are computed; several heads can share them.

    Attributes:
        features: (N, D), as the backbone gives them, without augmentation.
        labels: (N,), int64.
        num_classes: K.
    """

    features: Tensor
    labels: Tensor
    num_classes: int

    @cached_property
    def moments(self) -> ClassMoments:
        """Class moments of the features, computed once for all heads that need them."""
        moments = ClassMoments(self.num_classes, self.features.shape[1], self.features.device)
        moments.update(self.features, self.labels)
        return moments


@dataclass(frozen=True, kw_only=True)
class HeadStart(ABC):
    """Base class of computed starts: the values of a head before training.

    With ``training.epochs=0`` nothing is trained afterwards, and the start is the whole method: a head in closed form.
    """

    @abstractmethod
    def check(self, head: Head) -> None:
        """Check that this start can set the values of a head. Called before anything is computed.

        Raises:
            ValueError: If it cannot; the message says which head to use.
        """

    @abstractmethod
    def apply(self, head: Head, samples: StartSamples, generator: torch.Generator) -> None:
        """Set the values of a head in place.

        Args:
            head: The head.
            samples: What it is computed from.
            generator: Draws random choices, such as the first centers of k-means.
        """

    def _refuse(self, head: Head, needed: str) -> None:
        raise ValueError(f"{type(self).__name__} sets the values of {needed}, got {type(head).__name__}: use {needed}")


@dataclass(frozen=True, kw_only=True)
class LeastSquaresStart(HeadStart):
    """Ridge regression on one-hot targets, for a ``LinearHead``. See :func:`~nc_tools.heads.least_squares_init`.

    Attributes:
        ridge: lambda, in units of the mean square of the features. It does not depend on the number of samples.
        confident: The target of the right class is ``default_scale(K)``, at which cross-entropy is small, instead of 1.
            Set it where training with cross-entropy follows: the softmax of scores between 0 and 1 is nearly uniform.

    Raises:
        ValueError: If ``ridge`` is not positive and finite.
    """

    ridge: float = 0.01
    confident: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.ridge < math.inf:
            raise ValueError(f"LeastSquaresStart.ridge must be positive and finite, got {self.ridge}: try 0.01")

    def check(self, head: Head) -> None:
        """Check that it is a ``LinearHead``.

        Raises:
            ValueError: If it is not.
        """
        if not isinstance(head, LinearHead):
            self._refuse(head, "a LinearHead")

    def apply(self, head: Head, samples: StartSamples, generator: torch.Generator) -> None:  # noqa: ARG002
        """Set weight and bias to the solution."""
        assert isinstance(head, LinearHead)  # noqa: S101 (check() has ensured it)
        moments = samples.moments
        mean_square = float(samples.features.square().mean(dtype=torch.float64))
        target = default_scale(samples.num_classes) if self.confident else 1.0
        solve_least_squares(head, moments, self.ridge * max(mean_square, 1e-12), target=target)


@dataclass(frozen=True, kw_only=True)
class ClassMeanStart(HeadStart):
    """The means of the unit features of each class, for a ``LinearHead`` or a ``CosineHead``.

    Without training this is the classifier of the nearest class mean by cosine (Qi et al. 2018, weight imprinting).
    """

    def check(self, head: Head) -> None:
        """Check that it is a ``LinearHead`` or a ``CosineHead``.

        Raises:
            ValueError: If it is neither.
        """
        if not isinstance(head, LinearHead | CosineHead):
            self._refuse(head, "a LinearHead or a CosineHead")

    @torch.no_grad()
    def apply(self, head: Head, samples: StartSamples, generator: torch.Generator) -> None:  # noqa: ARG002
        """Set the class vectors to the class means, and the bias to zero."""
        assert isinstance(head, LinearHead | CosineHead)  # noqa: S101
        rows = head.direction if isinstance(head, CosineHead) else head.weight
        rows.copy_(imprint(samples.features, samples.labels, samples.num_classes, scale=1.0).weight)
        if head.bias is not None:
            head.bias.zero_()


@dataclass(frozen=True, kw_only=True)
class KMeansStart(HeadStart):
    """The centers of a spherical k-means within each class, for a ``ProxyHead``. See :func:`~nc_tools.heads.imprint`.

    The number of centers is the head's ``num_proxies``.
    """

    def check(self, head: Head) -> None:
        """Check that it is a ``ProxyHead``.

        Raises:
            ValueError: If it is not.
        """
        if not isinstance(head, ProxyHead):
            self._refuse(head, "a ProxyHead")

    @torch.no_grad()
    def apply(self, head: Head, samples: StartSamples, generator: torch.Generator) -> None:
        """Set the proxies to the centers."""
        assert isinstance(head, ProxyHead)  # noqa: S101
        made = imprint(samples.features, samples.labels, samples.num_classes, head.num_proxies, generator=generator)
        centers = made.proxies if isinstance(made, ProxyHead) else made.weight.unsqueeze(1)
        head.proxies.copy_(centers)


@dataclass(frozen=True, kw_only=True)
class LogisticStart(HeadStart):
    """Multinomial logistic regression of scikit-learn (L-BFGS), for a ``LinearHead``: a control from another library.

    It minimizes the mean cross-entropy plus (penalty / 2) ||W||^2; the bias is not penalized. In scikit-learn's terms
    C = 1 / (penalty N), so that the penalty means the same for every number of samples.

    Attributes:
        penalty: Weight of the squared norm, positive.
        iterations: Largest number of iterations of the solver.

    Raises:
        ValueError: If ``penalty`` is not positive and finite, or ``iterations`` is less than 1.
    """

    penalty: float = 1e-3
    iterations: int = 200

    def __post_init__(self) -> None:
        if not (0 < self.penalty < math.inf and self.iterations >= 1):
            raise ValueError(
                f"LogisticStart.penalty must be positive and finite and iterations at least 1, got {self.penalty} and "
                f"{self.iterations}: try penalty=0.001"
            )

    def check(self, head: Head) -> None:
        """Check that it is a ``LinearHead`` with a bias.

        Raises:
            ValueError: If it is not.
        """
        if not isinstance(head, LinearHead) or head.bias is None:
            self._refuse(head, "a LinearHead with bias=True")

    @torch.no_grad()
    def apply(self, head: Head, samples: StartSamples, generator: torch.Generator) -> None:  # noqa: ARG002
        """Set weight and bias to the solution; a class without samples keeps a score that never wins."""
        import warnings

        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        assert isinstance(head, LinearHead)  # noqa: S101
        assert head.bias is not None  # noqa: S101
        labels = samples.labels.cpu().numpy()
        model = LogisticRegression(C=1 / (self.penalty * len(labels)), max_iter=self.iterations)
        with warnings.catch_warnings():  # a solver that stops at its limit is evaluated like any other
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(samples.features.cpu().numpy(), labels)
        weight, bias = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
        if len(weight) == 1:  # two classes: scikit-learn keeps the difference of the two rows
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        present = torch.from_numpy(model.classes_).to(head.weight.device)
        head.weight.zero_()
        head.bias.fill_(float(bias.min()) - 1e4)
        head.weight[present] = weight.to(head.weight)
        head.bias[present] = bias.to(head.bias)
