"""The name of synthetic label noise on a command line, such as ``symmetric:.4``."""

from __future__ import annotations

from nc_tools._support.suggestions import did_you_mean
from nc_tools.data.instance_noise import InstanceNoise
from nc_tools.data.synthetic_noise import AsymmetricNoise, Noise, PairNoise, SymmetricNoise

_KINDS: dict[str, type[SymmetricNoise | PairNoise | AsymmetricNoise | InstanceNoise]] = {
    "symmetric": SymmetricNoise,
    "pair": PairNoise,
    "asymmetric": AsymmetricNoise,
    "instance": InstanceNoise,
}


def parse_noise(text: str) -> Noise | None:
    """Return the noise that ``KIND:RATE`` names; None for ``none``.

    Example:
        >>> parse_noise("symmetric:.4"), parse_noise("none")
        (SymmetricNoise(rate=0.4), None)

    Raises:
        ValueError: If the kind is unknown, or the rate is no number or out of range.
    """
    kind, _, rate = text.partition(":")
    if text == "none":
        return None
    if kind not in _KINDS:
        raise ValueError(f"--noise must read like symmetric:.4, got {text!r}; {did_you_mean(kind, [*_KINDS, 'none'])}")
    try:
        number = float(rate)
    except ValueError:
        raise ValueError(f"--noise must have a rate, as in {kind}:.4, got {text!r}") from None
    return _KINDS[kind](number)
