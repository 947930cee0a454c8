"""The commands of docs/fine-tuning.md run, with weights of this machine in place of a download."""

import shlex
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from support.recipe_commands import run_script
from support.runs_here import runs_here
from test_documentation import ROOT, blocks

from nc_tools.cli import main

PAGE = ROOT / "docs" / "fine-tuning.md"


@pytest.mark.slow
def test_the_commands_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_file(timm.create_model("resnet18").state_dict(), tmp_path / "w.safetensors")
    for part in ("train", "test"):
        for shade, name in enumerate(("cat", "dog", "owl")):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for i in range(12):
                path = tmp_path / "photos" / part / name / f"{i}.png"
                Image.new("RGB", (40, 32), (80 * shade, 9 * i, 40)).save(path)
    folder, ran = "", []
    for line in [line for block in blocks(PAGE, "bash") for line in block.splitlines()]:
        program, *words = shlex.split(line)
        words = [{"pretrained": "w.safetensors", "RUN": folder, "new_photos": "photos/test"}.get(w, w) for w in words]
        if program == "python":
            quick = ["--smoke", "--epochs", "1", "--image-size", "32", "--arms", "linear,etf_la", "--seeds", "0,1"]
            quick += ["--device", "cpu", "--tracking-uri", "none", "--out", "o"]
            with runs_here():
                run_script(ROOT / words[0], *words[1:], *quick)
            folder = str(next((tmp_path / "o" / "runs").glob("etf_la*final*")))
        else:
            assert program == "nc-tools"
            main(words)
        ran.append(program)
    assert ran == ["python", "nc-tools", "nc-tools"]
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 1 + 36
    assert (tmp_path / "exports" / "photos" / "model.onnx").exists()
