"""The balanced-calibration head: its mixture, and the bisection that balances it."""

import math

import pytest
import torch
from support.feature_rows import D, K, N, features, unit
from torch.nn.functional import cross_entropy

from nc_tools.heads import LEARNED, BalancedCalibrationHead, LearnedScale, LinearHead
from nc_tools.metrics import expected_calibration_error


def balanced(**options):
    return BalancedCalibrationHead(D, K, generator=torch.Generator().manual_seed(0), **options)


def test_the_mixture_is_that_of_its_parts():
    head, h = balanced(mix=0.3, scale=4.0), features()
    linear, etf = head.parts(h)
    for n in range(N):
        u = unit(h[n].tolist())
        for k in range(K):
            dot = sum(a * b for a, b in zip(head.etf.frame[k].tolist(), u, strict=True))
            own = sum(a * b for a, b in zip(head.linear.weight[k].tolist(), h[n].tolist(), strict=True))
            own += float(head.linear.bias[k].detach())
            assert float(etf[n, k]) == pytest.approx(4.0 * dot, abs=1e-4)
            assert float(linear[n, k].detach()) == pytest.approx(own, abs=1e-4)
            assert float(head(h)[n, k].detach()) == pytest.approx(0.3 * own + 0.7 * 4.0 * dot, abs=1e-4)
    assert head.weight.shape == (K, 2 * D)


def test_the_share_is_given_or_learned():
    assert float(balanced(mix=0.3).mix) == pytest.approx(0.3)
    assert "raw_mix" not in dict(balanced(mix=0.3).named_parameters())
    for mix, start in ((LEARNED, 0.8), (LearnedScale(0.4), 0.4)):
        head = balanced(mix=mix)
        assert float(head.mix.detach()) == pytest.approx(start)
        cross_entropy(head(features()), torch.arange(N) % K).backward()
        assert float(head.raw_mix.grad.abs()) > 0
    for bad in (0.0, 1.0, -0.2, math.nan):
        with pytest.raises(ValueError, match="mix must lie strictly between 0 and 1"):
            balanced(mix=bad)


def calibration_data(head, n=4000):
    """Features whose label is a softmax draw from the ETF part sharpened by half, which the linear part overstates."""
    generator = torch.Generator().manual_seed(4)
    h = torch.randn(n, D, generator=generator)
    with torch.no_grad():
        head.linear.weight.copy_(8.0 * head.etf.frame)
        head.linear.bias.zero_()
        truth = (1.2 * h @ head.etf.frame.T).softmax(1)
    return h, torch.multinomial(truth, 1, generator=generator).squeeze(1)


@pytest.mark.parametrize("mix", [0.8, LEARNED])
def test_balance_makes_confidence_match_accuracy(mix):
    head = balanced(mix=mix, scale=2.0)
    h, labels = calibration_data(head)
    before = expected_calibration_error(head(h).detach(), labels)
    share = head.balance(h, labels)
    assert float(head.mix.detach()) == pytest.approx(share, abs=1e-5)
    p = head(h).detach().softmax(1)
    accuracy = float((p.argmax(1) == labels).float().mean())
    assert float(p.max(1).values.mean()) == pytest.approx(accuracy, abs=1e-3)
    assert expected_calibration_error(head(h).detach(), labels) < before / 3


def test_balance_also_where_the_etf_part_is_the_surer_one():
    head = balanced(scale=50.0)
    h, labels = calibration_data(head)
    with torch.no_grad():
        head.linear.weight.mul_(0.01)
    assert 0.5 < head.balance(h, labels) < 0.999
    p = head(h).detach().softmax(1)
    assert float(p.max(1).values.mean()) == pytest.approx(float((p.argmax(1) == labels).float().mean()), abs=1e-3)


def test_if_no_share_balances_the_nearer_part_is_taken():
    sure, timid = balanced(scale=50.0), balanced(scale=1e-3)
    for head, expected in ((sure, 0.0), (timid, 1.0)):
        h, _ = calibration_data(head, 200)
        with torch.no_grad():
            head.linear.weight.mul_(100.0 if head is sure else 1e-2)
        guess = head.parts(h)[1].argmax(1)
        wrong = (guess + 1) % K if head is sure else guess
        assert head.balance(h, wrong) == pytest.approx(expected, abs=1e-5)
        assert torch.isfinite(head(h)).all()
    with pytest.raises(ValueError, match="at least one sample"):
        sure.balance(torch.zeros(0, D), torch.zeros(0, dtype=torch.int64))


def test_the_linear_part_is_a_linear_head_drawn_as_one():
    reference = LinearHead(D, K, generator=torch.Generator().manual_seed(0))
    assert torch.equal(balanced().linear.weight, reference.weight)
