"""A process group of one, for what needs a group and no second process."""

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh


@contextmanager
def process_group() -> Iterator[Any]:
    """Yield the mesh of a process group of one, while it exists."""
    with TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        try:
            yield init_device_mesh("cpu", (1,))
        finally:
            dist.destroy_process_group()
