"""Whether PyTorch is tracing the code that runs now."""

from __future__ import annotations

import torch


def traced() -> bool:
    """Return True inside a compiler's trace or a ``torch.func`` transform.

    There, formulas are computed step by step instead of by an autograd Function with a closed-form gradient: a compiler
    fuses the steps itself, and ``torch.func`` does not accept an autograd Function that fills its context in
    ``forward``.

    Example:
        >>> traced()
        False
    """
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
