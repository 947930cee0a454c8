"""The commands of docs/fine-tuning.md run, with weights of this machine in place of a download."""

import shlex
import sys
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from test_documentation import ROOT, blocks, run

PAGE = ROOT / "docs" / "fine-tuning.md"


@pytest.mark.slow
def test_the_commands_run_one_after_the_other(tmp_path: Path) -> None:
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
            words[0] = str(ROOT / words[0])
            quick = ["--smoke", "--epochs", "1", "--image-size", "32", "--arms", "linear,etf_la", "--seeds", "0,1"]
            run([sys.executable, *words, *quick, "--device", "cpu", "--workers", "1", "--out", "o"], tmp_path)
            folder = str(next((tmp_path / "o" / "runs").glob("etf_la*final*")))
        else:
            assert program == "nc-tools"
            run([sys.executable, "-m", "nc_tools.cli", *words], tmp_path)
        ran.append(program)
    assert ran == ["python", "nc-tools", "nc-tools"]
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 1 + 36
    assert (tmp_path / "exports" / "photos" / "model.onnx").exists()
