"""Two processes train as one, whatever the head."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.swapped_heads import AllHeads, images, labels
from support.two_processes import in_two_processes
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from nc_tools.heads import ETFHead

pytestmark = pytest.mark.slow  # two processes


def total(logits: dict[str, Tensor], target: Tensor) -> Tensor:
    return torch.stack([cross_entropy(z, target) for z in logits.values()]).sum()


def gradients_and_buffers(model: nn.Module) -> dict[str, Tensor]:
    tensors = {f"gradient {name}": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return tensors | {f"buffer {name}": b.clone() for name, b in model.named_buffers()}


def _worker(rank: int, folder: str) -> None:
    # Each rank has another seed, so other weights and frames, until DDP sends those of the first rank. In eval mode,
    # because the statistics of batch normalization are those of each rank.
    model = DistributedDataParallel(AllHeads(seed=rank).eval())
    total(model(images()[rank::2]), labels()[rank::2]).backward()  # type: ignore[no-untyped-call]
    save_file(gradients_and_buffers(model.module), Path(folder) / f"{rank}.safetensors")
    message = ""
    try:
        DistributedDataParallel(ETFHead(4, 3))
    except RuntimeError as error:
        message = str(error)
    (Path(folder) / f"{rank}.txt").write_text(message)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("ranks")
    in_two_processes(_worker, str(path))
    return path


def test_gradients_and_frames_of_two_processes_are_those_of_one(folder: Path) -> None:
    model = AllHeads(seed=0).eval()
    total(model(images()), labels()).backward()  # type: ignore[no-untyped-call]
    expected = gradients_and_buffers(model)
    assert any("frame" in name for name in expected)
    for rank in range(2):
        tensors = load_file(folder / f"{rank}.safetensors")
        assert tensors.keys() == expected.keys()
        for name, value in expected.items():
            if name.startswith("buffer"):
                assert torch.equal(tensors[name], value), (rank, name)
            else:
                assert torch.allclose(tensors[name], value, atol=1e-6), (rank, name)


def test_two_processes_hold_the_same_bits(folder: Path) -> None:
    first, second = (load_file(folder / f"{rank}.safetensors") for rank in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_ddp_rejects_a_head_without_parameters(folder: Path) -> None:
    """A frame alone has no gradients to reduce."""
    for rank in range(2):
        assert "have any parameter that requires a gradient" in (folder / f"{rank}.txt").read_text()
