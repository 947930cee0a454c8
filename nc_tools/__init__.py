"""Neural collapse for training: classifier heads that swap in, losses, measures, and a fair paired comparison.

Public names are listed in ``__init__.pyi`` and imported on first use, so that ``import nc_tools`` and the command line
start without PyTorch.

Examples:
    Replace the head of any PyTorch model and train as before:

    >>> import torch, torchvision
    >>> import nc_tools
    >>> model = torchvision.models.resnet18(num_classes=10)
    >>> head = nc_tools.swap_head(model, nc_tools.ETFHead)
    >>> model(torch.randn(2, 3, 64, 64)).shape
    torch.Size([2, 10])
"""

import lazy_loader

__version__ = "0.2.0.dev0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
