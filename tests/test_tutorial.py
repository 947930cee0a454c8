"""docs/tutorial.md: every block runs, and the notebook is the same text with the outputs."""

import importlib.util
import json
import os
import re
import socket
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def tutorial():
    spec = importlib.util.spec_from_file_location("tutorial", DOCS / "tutorial.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cells(tutorial):
    return tutorial.cells_of(tutorial.PAGE.read_text(encoding="utf-8"))


def test_the_notebook_is_the_page_with_its_outputs(tutorial, cells):
    notebook = json.loads(tutorial.NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = ["".join(line for stream in cell["outputs"] for line in stream["text"]) for cell in code]
    assert notebook == tutorial.notebook_of(cells, outputs)
    assert tutorial.page_of(tutorial.with_outputs(cells, outputs)) == tutorial.PAGE.read_text(encoding="utf-8")


def test_outputs_show_nothing_of_the_machine(tutorial):
    text = tutorial.PAGE.read_text(encoding="utf-8") + tutorial.NOTEBOOK.read_text(encoding="utf-8")
    assert not re.search(r"/(tmp|root|work|Users)/|/home/(?!me/)", text)


@pytest.mark.slow
def test_every_block_runs_one_after_the_other(tutorial, cells, tmp_path, monkeypatch):
    """With random weights of a smaller network, fewer seeds and fewer epochs."""
    # As in an activated environment: `mlflow models serve` starts a program that it looks up.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "w.safetensors")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    quick = (
        "--arms linear,etf_la,class_means --epochs 3 --set protocol.max_extensions=0 --workers 1 --tracking-uri none"
    )
    replaced = {
        "tf_efficientnet_lite0 --weights pretrained": "test_resnet --weights w.safetensors",
        "--seeds 0-4": f"--seeds 0-1 {quick}",
        "PORT = 5001": f"PORT = {port}",
    }

    def change(source):
        for old, new in replaced.items():
            source = source.replace(old, new)
        return source

    assert all(any(old in cell.source for cell in cells) for old in replaced)
    outputs = tutorial.run_cells(cells, tmp_path, change)
    predicted, served = (output.splitlines() for output in (outputs[4], outputs[-1]))
    assert len(predicted) == 10
    for line, asked in zip(predicted[:3], served, strict=True):  # both ways to the model give the same answer
        path, _, name, probability, *_ = line.split()
        assert asked.split() == [path, "digit", name, f"{float(probability):.2f}"]
