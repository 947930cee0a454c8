"""Vector and Dirichlet scaling against other optimizers and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from support.calibration_samples import draw_logits

from nc_tools.metrics import fit_dirichlet_scaling, fit_vector_scaling


def nll_of(z, labels):
    return float(torch.nn.functional.cross_entropy(z, labels))


def test_vector_scaling_is_the_minimum_that_another_optimizer_finds():
    logits, labels = draw_logits(4, n=120, k=3, honest=0.4)
    log_p = logits.log_softmax(1).numpy()
    fitted = fit_vector_scaling(logits, labels, strength=0.05)

    def objective(x):
        a, b = x[:3], x[3:]
        z = log_p * a + b
        nll = np.mean(np.log(np.exp(z - z.max(1, keepdims=True)).sum(1)) + z.max(1) - z[np.arange(120), labels.numpy()])
        return nll + 0.05 * (np.mean((a - 1) ** 2) + np.mean(b**2))

    best = minimize(
        objective,
        np.r_[np.ones(3), np.zeros(3)],
        method="Nelder-Mead",
        options={"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-9, "fatol": 1e-13},
    )
    assert fitted.weight.diagonal().tolist() + fitted.bias.tolist() == pytest.approx(best.x.tolist(), abs=1e-4)
    assert nll_of(fitted(logits), labels) < nll_of(logits, labels)


def test_dirichlet_scaling_tends_to_multinomial_regression_on_log_probabilities():
    logits, labels = draw_logits(5, n=400, k=3, honest=0.4)
    fitted = fit_dirichlet_scaling(logits, labels, strength=1e-7)
    free = LogisticRegression(C=1e6, tol=1e-10, max_iter=10_000).fit(logits.log_softmax(1).numpy(), labels.numpy())
    expected = free.predict_proba(logits.log_softmax(1).numpy())
    assert np.abs(fitted(logits).softmax(1).numpy() - expected).max() < 1e-3


def test_strong_penalties_change_nothing_and_the_dirichlet_penalty_is_the_stated_one():
    logits, labels = draw_logits(6, n=60, k=3, honest=0.4)
    for fit in (fit_vector_scaling, fit_dirichlet_scaling):
        assert torch.allclose(fit(logits, labels, 1e6)(logits), logits.log_softmax(1), atol=1e-3)
    fitted = fit_dirichlet_scaling(logits, labels, 0.1)
    log_p = logits.log_softmax(1)

    def objective(w, b):
        change = w - torch.eye(3, dtype=torch.float64)
        off = (change.square().sum() - change.diagonal().square().sum()) / 6
        penalty = off + change.diagonal().square().mean() + b.square().mean()
        return torch.nn.functional.cross_entropy(log_p @ w.T + b, labels) + 0.1 * penalty

    w, b = fitted.weight.clone().requires_grad_(), fitted.bias.clone().requires_grad_()
    slopes = torch.autograd.grad(objective(w, b), (w, b))
    assert max(float(slope.abs().max()) for slope in slopes) < 1e-6


@pytest.mark.parametrize(("fit", "classes"), [(fit_vector_scaling, 40), (fit_dirichlet_scaling, 12)])
def test_no_step_from_the_fit_lowers_its_objective(fit, classes):
    """Overconfident logits, for which 500 steps of a method without second derivatives do not reach the minimum."""
    logits, labels = draw_logits(7, n=600, k=classes, honest=0.2)
    fitted, log_p = fit(logits, labels), logits.log_softmax(1)
    off = ~torch.eye(classes, dtype=torch.bool)

    def objective(w, b):
        change = w - torch.eye(classes, dtype=torch.float64)
        off_diagonal = change[off].square().mean() if fit is fit_dirichlet_scaling else 0
        penalty = off_diagonal + change.diagonal().square().mean() + b.square().mean()
        return torch.nn.functional.cross_entropy(log_p @ w.T + b, labels) + 0.01 * penalty

    w, b = fitted.weight.clone().requires_grad_(), fitted.bias.clone().requires_grad_()
    slope_w, slope_b = torch.autograd.grad(objective(w, b), (w, b))
    own = slope_w if fit is fit_dirichlet_scaling else slope_w.diagonal()
    assert max(float(own.abs().max()), float(slope_b.abs().max())) < 1e-8


def test_a_class_that_the_hold_out_lacks_is_not_ruled_out():
    logits, labels = draw_logits(7, n=200, k=4)
    labels = labels.clamp(max=2)
    for fit in (fit_vector_scaling, fit_dirichlet_scaling):
        fitted = fit(logits, labels)
        assert float(fitted.bias.abs().max()) < 20
        assert torch.isfinite(fitted(logits)).all()
        with pytest.raises(ValueError, match=r"shape \(N, 4\)"):
            fitted(logits[:, :3])
        with pytest.raises(ValueError, match="strength must be positive"):
            fit(logits, labels, 0.0)
