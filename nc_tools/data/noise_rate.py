"""The check of the noise rate that all kinds of label noise share."""


def check_rate(rate: float) -> None:
    """Check that a noise rate is in [0, 1).

    Raises:
        ValueError: If it is not. For a percentage, the message has the share that was probably meant.
    """
    if not 0 <= rate < 1:
        hint = f": did you mean {rate / 100:g}?" if 1 < rate < 100 else ""
        raise ValueError(f"a noise rate is a share of labels and must lie in [0, 1), got {rate:g}{hint}")
