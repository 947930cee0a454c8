"""Every Python block of the guides runs, in order, as a reader would type them."""

import functools
import inspect
import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import nc_tools.heads
from nc_tools.heads import Head

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("guide", ["heads.md", "swap-in.md"])
def test_the_guide_runs(guide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the minute that a compiler of C++ takes; the graph is the same.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / guide).read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 9
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    torch.manual_seed(0)
    names: dict[str, object] = {}
    try:
        for block in blocks:
            exec(compile(block, guide, "exec"), names)
    finally:
        dist.destroy_process_group()


def test_the_table_of_heads_has_all_of_them() -> None:
    text = (DOCS / "heads.md").read_text(encoding="utf-8")
    table = {name for row in re.findall(r"^\|.*\|$", text, re.MULTILINE) for name in re.findall(r"`(\w+Head)`", row)}
    heads = {cls for cls in vars(nc_tools.heads).values() if isinstance(cls, type) and issubclass(cls, Head)}
    assert table == {cls.__name__ for cls in heads if cls is not Head and not inspect.isabstract(cls)}
