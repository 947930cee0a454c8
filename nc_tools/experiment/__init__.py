"""Comparisons of training methods: the methods (arms), the rules that they share (protocol), and all training runs.

Public names are listed in ``__init__.pyi`` and imported on first use, so that a process that makes runs does not load
the command line and the report.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
