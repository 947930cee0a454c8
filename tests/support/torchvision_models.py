"""The torchvision classifiers of the swap tests, built without memory for their weights."""

from typing import Any

import torch
import torchvision
from torch import nn
from torch.overrides import TorchFunctionMode

K = 10
NAMES = torchvision.models.list_models(module=torchvision.models)
CONVOLUTIONAL = {"squeezenet1_0", "squeezenet1_1"}
WITH_AUXILIARY = {"googlenet", "inception_v3"}


class EmptyOnMeta(TorchFunctionMode):
    """Keep weights off memory; unlike ``torch.device("meta")``, constructors can read numbers that they compute."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def without_memory(name: str, **options: Any) -> nn.Module:
    if name in WITH_AUXILIARY:
        options = {"init_weights": False, **options}
    with EmptyOnMeta():
        model = torchvision.models.get_model(name, weights=None, num_classes=K, **options)
    return model.to("meta")  # type: ignore[no-any-return]
