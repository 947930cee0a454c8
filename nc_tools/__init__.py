"""Training interventions that use neural collapse: swap-in heads, losses, and a fair paired comparison."""

__version__ = "0.1.0"
