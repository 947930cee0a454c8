"""Every Python block of docs/swap-in.md runs, in order, as a reader would type them."""

import functools
import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

TEXT = (Path(__file__).parent.parent / "docs" / "swap-in.md").read_text(encoding="utf-8")


def test_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the minute that a compiler of C++ takes; the graph is the same.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) >= 9
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    torch.manual_seed(0)
    names: dict[str, object] = {}
    try:
        for block in blocks:
            exec(compile(block, "docs/swap-in.md", "exec"), names)
    finally:
        dist.destroy_process_group()
