"""Heads whose leaves are sharded over two processes (FSDP2), each as a unit of its own."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.head_variants import K, features
from support.many_heads import ManyHeads
from support.two_processes import in_two_processes
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy

pytestmark = pytest.mark.slow  # two processes


def stepped(model: ManyHeads) -> dict[str, Tensor]:
    """Return the logits before and after a step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    before = model(features())
    torch.stack([cross_entropy(z, torch.arange(11) % K) for z in before]).sum().backward()
    optimizer.step()
    return {"before": before.detach(), "after": model(features()).detach()}


def _worker(rank: int, folder: str) -> None:
    mesh = init_device_mesh("cpu", (2,))
    model = ManyHeads()
    for module in reversed(list(model.modules())):  # the inner ones first
        if module is not model and list(module.parameters(recurse=False)):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    save_file(stepped(model), Path(folder) / f"{rank}.safetensors")


def test_a_sharded_step_of_every_head_is_that_of_one_process(tmp_path: Path) -> None:
    in_two_processes(_worker, str(tmp_path))
    expected = stepped(ManyHeads())
    for rank in range(2):
        logits = load_file(tmp_path / f"{rank}.safetensors")
        for name, value in expected.items():
            assert torch.allclose(logits[name], value, atol=1e-4), (rank, name)
