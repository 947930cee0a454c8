"""Two processes train as one, whatever the head."""

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from support.swapped_heads import AllHeads, images, labels
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from nc_tools.heads import ETFHead


def total(logits: dict[str, Tensor], target: Tensor) -> Tensor:
    return torch.stack([cross_entropy(z, target) for z in logits.values()]).sum()


def gradients_and_buffers(model: nn.Module) -> dict[str, Tensor]:
    found = {f"gradient {name}": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return found | {f"buffer {name}": b.clone() for name, b in model.named_buffers()}


def _worker(rank: int, port: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    # Another seed on each rank: other weights and other frames, until the first rank's are sent around. In eval mode,
    # so that batch normalization, whose statistics are each rank's own, does not enter.
    model = DistributedDataParallel(AllHeads(seed=rank).eval())
    total(model(images()[rank::2]), labels()[rank::2]).backward()  # type: ignore[no-untyped-call]
    save_file(gradients_and_buffers(model.module), Path(folder) / f"{rank}.safetensors")
    refused = ""
    try:
        DistributedDataParallel(ETFHead(4, 3))
    except RuntimeError as error:
        refused = str(error)
    (Path(folder) / f"{rank}.txt").write_text(refused)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    written: Path = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_worker, args=(port, str(written)), nprocs=2)  # type: ignore[no-untyped-call]
    return written


def test_gradients_and_frames_of_two_processes_are_those_of_one(folder: Path) -> None:
    model = AllHeads(seed=0).eval()
    total(model(images()), labels()).backward()  # type: ignore[no-untyped-call]
    expected = gradients_and_buffers(model)
    assert any("frame" in name for name in expected)
    for rank in range(2):
        found = load_file(folder / f"{rank}.safetensors")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            if name.startswith("buffer"):
                assert torch.equal(found[name], value), (rank, name)
            else:
                assert torch.allclose(found[name], value, atol=1e-6), (rank, name)


def test_two_processes_hold_the_same_bits(folder: Path) -> None:
    first, second = (load_file(folder / f"{rank}.safetensors") for rank in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_head_without_parameters_needs_no_wrapping_and_torch_says_so(folder: Path) -> None:
    """DDP is for the model: of a frame alone there is nothing to reduce."""
    for rank in range(2):
        assert "have any parameter that requires a gradient" in (folder / f"{rank}.txt").read_text()
