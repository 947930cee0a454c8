"""Whether PyTorch is tracing the code that runs now."""

from __future__ import annotations

import torch


def traced() -> bool:
    """Return True inside a compiler's trace, ``torch.jit.trace`` or a ``torch.func`` transform.

    There, formulas are computed step by step instead of by an autograd Function with a closed-form gradient. A compiler
    fuses the steps itself. A graph of ``torch.jit`` that holds such a Function cannot be saved. ``torch.func`` does not
    accept one that fills its context in ``forward``.

    Example:
        >>> traced()
        False
    """
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or jit_traced()


def jit_traced() -> bool:
    """Return True inside ``torch.jit.trace``."""
    return not torch.compiler.is_compiling() and bool(torch._C._is_tracing())
