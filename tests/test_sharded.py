"""Losses on watched features in models that FSDP shards: the gradients of one process, or an error."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.two_processes import in_two_processes
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard

from nc_tools.heads import LEARNED, CosineHead, ETFHead, LinearHead
from nc_tools.losses import CrossEntropyLoss, DotRegressionLoss, WeightedSumLoss, term
from nc_tools.records import Batch
from nc_tools.specs import spec
from nc_tools.surgery import swap_head, watch

pytestmark = pytest.mark.slow  # two processes
N = 8
X, Y = torch.randn(N, 6, generator=torch.Generator().manual_seed(1)), torch.arange(N) % 4
HEADS = {
    "linear": LinearHead, "cosine": CosineHead, "etf": ETFHead,
    "etf projected": spec(ETFHead, projection=True, scale=LEARNED),
}  # fmt: skip
LOSSES = {
    "features": DotRegressionLoss(),
    "both": WeightedSumLoss([term(1.0, CrossEntropyLoss()), term(0.5, DotRegressionLoss())]),
}
GROUPS = ("root", "blocks and root", "leaves and root", "head and root", "watched before", "reduced precision")


def network(head: Any) -> nn.Sequential:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(6, 8), nn.ReLU()), nn.Sequential(nn.Linear(8, 8), nn.ReLU())]
    model = nn.Sequential(*blocks, nn.Linear(8, 4))
    swap_head(model, head, generator=torch.Generator().manual_seed(0))
    return model


def shard(model: nn.Sequential, groups: str, mesh: Any) -> nn.Module:
    parts: list[nn.Module] = []
    if groups.startswith("blocks"):
        parts = [model[0], model[1]]
    elif groups.startswith("head"):
        parts = [model[2]]
    elif groups.startswith("leaves"):
        parts = [m for m in model.modules() if not list(m.children()) and list(m.parameters(recurse=False))]
    # Outputs of another type than the head's, in a tensor of their own, after the hooks of watch().
    policy = MixedPrecisionPolicy(output_dtype=torch.float64 if groups.startswith("reduced") else None)
    for part in parts:
        fully_shard(part, mesh=mesh)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    return model


def loss_gradients(model: nn.Module, watched: Any, loss: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    model(x)
    loss(watched.outputs, Batch(x, y, torch.arange(len(x)))).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {n: g.full_tensor() if hasattr(g, "full_tensor") else g for n, g in gradients.items()}


def _worker(rank: int, folder: str) -> None:
    mesh = init_device_mesh("cpu", (2,))
    mine = slice(rank * N // 2, (rank + 1) * N // 2)
    results = {}
    for kind, head in HEADS.items():
        for groups in GROUPS:
            for name, loss in LOSSES.items():
                model = network(head)
                watched = watch(model) if groups == "watched before" else None
                shard(model, groups, mesh)
                watched = watched or watch(model)
                for _ in range(2):  # a second step, from shards again
                    model.zero_grad()
                    gradients = loss_gradients(model, watched, loss, X[mine], Y[mine])
                results[kind, groups, name] = gradients
    torch.save(results, Path(folder) / f"{rank}.pt")
    model = network(LinearHead)
    watched = watch(model)
    wrapped = FullyShardedDataParallel(model, device_id=torch.device("cpu"))
    wrapped(X[mine])
    with pytest.raises(ValueError, match="must not be wrapped by FullyShardedDataParallel"):
        watched.outputs  # noqa: B018
    with pytest.raises(ValueError, match=r"use torch\.distributed\.fsdp\.fully_shard"):
        watch(wrapped)
    compiled = torch.compile(shard(network(LinearHead), "root", mesh), backend="eager")
    watched = watch(compiled)
    compiled(X[mine])
    with pytest.raises(RuntimeError, match="compile its blocks before fully_shard"):
        watched.outputs  # noqa: B018


@pytest.mark.filterwarnings("ignore")
def test_gradients_are_those_of_one_process(tmp_path: Path) -> None:
    in_two_processes(_worker, str(tmp_path))
    expected = {}
    for kind, head in HEADS.items():
        for name, loss in LOSSES.items():
            model = network(head)
            expected[kind, name] = loss_gradients(model, watch(model), loss, X, Y)
    for rank in (0, 1):
        results = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert len(results) == len(HEADS) * len(GROUPS) * len(LOSSES)
        for (kind, groups, name), gradients in results.items():
            one = expected[kind, name]
            # A parameter that the loss leaves out has a gradient of 0 here, and none in one process.
            assert not any(value.any() for key, value in gradients.items() if key not in one), (kind, groups, name)
            for key, value in one.items():
                assert torch.allclose(gradients[key], value, atol=1e-5), (rank, kind, groups, name, key)
