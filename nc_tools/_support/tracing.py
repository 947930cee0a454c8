"""When a closed-form gradient would be in the way."""

from __future__ import annotations

import torch


def traced() -> bool:
    """Tell whether operations are being recorded by a compiler or transformed by ``torch.func``.

    A compiler fuses plain steps by itself, and ``torch.func`` takes no autograd Function whose context is set in its
    forward: where this is true, formulas are computed step by step.

    Example:
        >>> traced()
        False
    """
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
