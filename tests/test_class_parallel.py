"""Heads of 100,000 classes over two processes: the logits and gradients of one, and no matrix of K x K."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.two_processes import in_two_processes
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from nc_tools.heads import CosineHead, ETFHead, LinearHead, StructuredETFHead
from nc_tools.heads.class_parallel import ClassParallel
from nc_tools.specs import spec

pytestmark = pytest.mark.slow  # two processes
K, D = 100_000, 16
HEADS: dict[str, tuple[Any, str, Any]] = {
    "linear": (spec(LinearHead), "1", ClassParallel()),
    "cosine": (spec(CosineHead), "1", ClassParallel()),
    "structured": (
        spec(StructuredETFHead, projection=True),
        "1.projection",
        ColwiseParallel(output_layouts=Replicate()),
    ),
}
X = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([3, K - 1, K // 2, 7, K // 2 - 1, 0])


class Largest(TorchDispatchMode):
    """The number of entries of the largest tensor that an operation makes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.entries = max(self.entries, result.numel())
        return result


def network(head: Any) -> nn.Sequential:
    torch.manual_seed(0)
    sizes = {"feature_dim": D, "num_classes": K, "generator": torch.Generator().manual_seed(0)}
    return nn.Sequential(nn.Linear(8, D), head.build(sizes))


def whole(tensor: Any) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _worker(rank: int, folder: str) -> None:
    mesh = init_device_mesh("cpu", (2,))
    for name, (head, path, style) in HEADS.items():
        model, spread = network(head), network(head)
        with Largest() as largest:
            parallelize_module(spread, mesh, {path: style})
            logits = spread(X)
            cross_entropy(logits, Y).backward()
        assert largest.entries <= 2 * K * D, (name, largest.entries)
        expected = model(X)
        cross_entropy(expected, Y).backward()
        assert torch.allclose(logits, expected, atol=1e-5), name
        shares = [p.to_local().numel() / p.numel() for p in spread.parameters() if hasattr(p, "to_local")]
        assert 0.5 in shares, name
        for (key, one), (_, part) in zip(model.named_parameters(), spread.named_parameters(), strict=True):
            assert one.grad is not None
            assert torch.allclose(whole(part.grad), one.grad, atol=1e-5), (name, key)
        optimizer = torch.optim.SGD(spread.parameters(), lr=0.1)
        optimizer.step()
        assert torch.isfinite(spread(X)).all()
    with pytest.raises(TypeError, match=r"got ETFHead: for many classes use StructuredETFHead.*ColwiseParallel"):
        parallelize_module(nn.Sequential(nn.Linear(8, D), ETFHead(D, 4)), mesh, {"1": ClassParallel()})
    (Path(folder) / f"{rank}.txt").write_text("whole")


@pytest.mark.filterwarnings("ignore")
def test_logits_and_gradients_are_those_of_one_process(tmp_path: Path) -> None:
    in_two_processes(_worker, str(tmp_path))
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)] == ["whole", "whole"]
