"""The command nc-tools measure on models and folders of every kind, and its error messages."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support.recipe_commands import RECIPES, smoke
from torch import nn

import nc_tools
from nc_tools.cli import main
from nc_tools.data import DataConfig
from nc_tools.measuring.measured_sets import SetBatches, TrainedSubset, load_sets

CLASSES = ("<b>ant", "bee", "cow & calf")


def write_images(folder, number, classes=CLASSES, seed=0):
    generator = np.random.default_rng(seed)
    for k, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(number):
            pixels = generator.integers(0, 120, (16, 16, 3)) + 40 * k
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    root = tmp_path_factory.mktemp("images") / "birds"
    write_images(root / "train", 6)
    write_images(root / "test", 4, seed=1)
    return root


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder that holds a module with a model, where the command is run."""
    (tmp_path / "my_net.py").write_text(
        "import torch\nfrom torch import nn\nlogged = 3\n\n"
        "def make():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(),\n"
        "                         nn.Linear(5, 3))\n\n"
        "def wide():\n    return nn.Sequential(nn.Flatten(), nn.Linear(768, 9))\n\n"
        "def no_model():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "my_net", raising=False)
    return tmp_path


def run(capsys, *argv):
    main(["measure", *map(str, argv)])
    return capsys.readouterr().out


def refused(capsys, *argv):
    with pytest.raises(SystemExit) as end:
        main(["measure", *map(str, argv)])
    shown = capsys.readouterr()
    assert end.value.code == 2
    assert shown.err.count("error: ") == 1
    return shown.err


def test_a_function_with_its_weights(home, birds, capsys):
    import my_net

    model = my_net.make()
    model[4].weight.data.mul_(3)
    save_file(model.state_dict(), home / "net.safetensors")
    shown = run(
        capsys, "--model", "my_net:make", "--weights", "net.safetensors", "--data", f"imagefolder:{birds}", "--out", "r"
    )
    assert "NC1, pseudo-inverse" in shown
    assert "Report: file://" in shown
    content = json.loads((home / "r" / "collapse.json").read_text())
    sets = load_sets(DataConfig(source=f"imagefolder:{birds}"))
    for name in ("train", "test"):
        loader = SetBatches(sets.sets[name], 5, sets.mean.tolist(), sets.std.tolist(), torch.device("cpu"))
        expected = nc_tools.measure(model, loader, class_counts=[6, 6, 6])
        assert content["sets"][name]["values"] == pytest.approx(expected, rel=1e-4)
        assert content["sets"][name]["samples"] == {"train": 18, "test": 12}[name]
        assert list(content["sets"][name]["layers"]) == ["0", "1", "2", "3"]
    assert content["classes"] == list(CLASSES)
    page = (home / "r" / "collapse.html").read_text()
    assert not re.search(r"(src|href)=|https?://|<script", page)
    assert "<b>ant" not in page
    assert "&lt;b&gt;ant" in page
    for name in ("angles-train", "angles-test", "layers-nc1_trace", "spread"):
        drawing = (home / "r" / "figures" / f"{name}.svg").read_text()
        assert re.match(r'<svg xmlns="http://www.w3.org/2000/svg" [^>]*viewBox=', drawing)
    assert not list(home.rglob("*.html.*"))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["torchvision:mobilenet_v3_small", "timm:test_resnet"])
def test_a_library_model_is_as_wide_as_its_weights(model, home, birds, capsys):
    kind, name = model.split(":")
    if kind == "timm":
        timm = pytest.importorskip("timm")
        net = timm.create_model(name, num_classes=3)
    else:
        from torchvision.models import get_model

        net = get_model(name, num_classes=3)
    save_file(net.state_dict(), home / "net.safetensors")
    flags = ("--model", model, "--weights", "net.safetensors", "--data", f"imagefolder:{birds}", "--image-size", 32)
    run(capsys, *flags, "--layers", "none", "--per-class", 3)
    content = json.loads(next((home / "outputs" / "measure").glob("*/collapse.json")).read_text())
    assert content["sets"]["train"]["samples"] == 9
    assert content["sets"]["train"]["layers"] == {}
    assert any("at most 3 images" in note for note in content["notes"])


@pytest.mark.slow
def test_random_weights_are_stated_in_the_name(home, birds, capsys):
    run(capsys, "--model", "torchvision:mobilenet_v3_small", "--weights", "random", "--data", f"imagefolder:{birds}",
        "--image-size", 32, "--layers", "none", "--only", "test", "--out", "r")  # fmt: skip
    content = json.loads((home / "r" / "collapse.json").read_text())
    assert content["model"].endswith("random weights")
    assert list(content["sets"]) == ["test"]


@pytest.mark.slow
def test_a_run_is_measured_on_its_own_images_as_it_was_at_its_end(tmp_path_factory, tmp_path, capsys):
    out, _ = smoke(RECIPES[0], tmp_path_factory)
    for folder in sorted((out / "runs").glob("*-s0-d0-final-*")):
        run(capsys, "--model", folder, "--out", tmp_path / folder.name)
        sets = json.loads((tmp_path / folder.name / "collapse.json").read_text())["sets"]
        final = json.loads((folder / "final.json").read_text())
        shared = {
            f"{name}/{key}": value
            for name, of_set in sets.items()
            for key, value in of_set["values"].items()
            if f"{name}/{key}" in final
        }
        assert len(shared) >= 22
        assert shared == pytest.approx({key: final[key] for key in shared}, rel=1e-3, abs=1e-6)


def test_a_folder_without_a_split_is_one_set_with_only_test(home, birds, capsys):
    flags = ("--model", "my_net:make", "--layers", "none", "--out", "r")
    message = refused(capsys, *flags, "--data", f"imagefolder:{birds / 'test'}")
    assert "has no folders train/ and test/" in message
    assert "--only test" in message
    run(capsys, *flags, "--data", f"imagefolder:{birds / 'test'}", "--only", "test")
    assert json.loads((home / "r" / "collapse.json").read_text())["sets"]["test"]["samples"] == 12


def test_noisy_labels_have_columns_of_their_own(home, birds, capsys):
    rows = [f"train/{name}/{i}.png,{CLASSES[(k + (i == 0)) % 3]}" for k, name in enumerate(CLASSES) for i in range(6)]
    (home / "labels.csv").write_text("path,worse\n" + "\n".join(rows) + "\n")
    shown = run(capsys, "--model", "my_net:make", "--data", f"imagefolder:{birds}", "--labels", "labels.csv:worse",
                "--out", "r")  # fmt: skip
    assert "true" in shown
    assert "<th>train, true labels</th>" in (home / "r" / "collapse.html").read_text()
    values = json.loads((home / "r" / "collapse.json").read_text())["sets"]["train"]["values"]
    assert values["nc/nc1_trace"] > values["nc_clean/nc1_trace"]


class TestRefusals:
    @pytest.mark.usefixtures("home")
    def test_models(self, birds, capsys):
        data = ("--data", f"imagefolder:{birds}")
        for model, message in {
            "nowhere/run": "holds no run.json",
            "resnet18": "did you mean torchvision:resnet18",
            "torchvision:resnet18x": "did you mean 'resnet18'",
            "timm:test_resnett": "did you mean 'test_resnet'",
            "no_module_x:make": "cannot be imported here",
            "my_net:mak": "did you mean 'make'",
            "my_net:logged": "no function 'logged'",
            "math:sqrt": "must be a function without arguments that returns the model",
            "math:sqr": "did you mean 'sqrt'",
            "my_net:no_model": "must return a torch.nn.Module, got int",
            "my_net:wide": "scores 9 and",
        }.items():
            weights = ("--weights", "random") if model.startswith(("torchvision", "timm")) else ()
            assert message in refused(capsys, "--model", model, *weights, *data), model
        assert "--weights random" in refused(capsys, "--model", "torchvision:resnet18", *data)
        assert "Add --data" in refused(capsys, "--model", "my_net:make")

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (("--image-size", "0"), "image_size is a side in pixels and must be at least 1, got 0"),
            (("--mean", "nan,0,0"), "--mean must hold finite numbers"),
            (("--device", "meta"), "--device must be cpu, cuda, cuda:N or mps, got 'meta'"),
            (("--device", "cuda:99"), "--device cuda:99 needs a CUDA device"),
            (("--out", "my_net.py"), "Cannot write to the output folder my_net.py: File exists. Choose another"),
        ],
    )
    @pytest.mark.usefixtures("home")
    def test_wrong_flags(self, flags, message, birds, capsys):
        assert message in refused(capsys, "--model", "my_net:make", "--data", f"imagefolder:{birds}", *flags)

    def test_an_unreadable_image_is_left_out_with_the_flag(self, home, birds, capsys):
        shutil.copytree(birds, home / "birds")
        (home / "birds" / "train" / CLASSES[0] / "0.png").write_bytes(b"no image")
        flags = ("--model", "my_net:make", "--data", "imagefolder:birds", "--out", "r")
        assert "--skip-unreadable" in refused(capsys, *flags)
        run(capsys, *flags, "--skip-unreadable")
        assert json.loads((home / "r" / "collapse.json").read_text())["sets"]["train"]["samples"] == 17

    def test_weights(self, home, birds, capsys):
        flags = ("--model", "my_net:make", "--data", f"imagefolder:{birds}", "--weights")
        assert "does not exist" in refused(capsys, *flags, "gone.safetensors")
        net = nn.Sequential(nn.Linear(2, 2))
        for name in ("net.pt", "net.safetensors"):  # whatever it is called
            torch.save(net.state_dict(), home / name)
            message = refused(capsys, *flags, name)
            assert "looks like a pickle" in message
            assert "save_file" in message
        (home / "net.safetensors").write_bytes(b"nothing")
        assert "cannot be read as safetensors" in refused(capsys, *flags, "net.safetensors")
        save_file(net.state_dict(), home / "net.safetensors")
        assert "2 missing (such as '4.weight')" in refused(capsys, *flags, "net.safetensors")
        import my_net

        state = my_net.make().state_dict()
        save_file(state | {"4.bias": torch.zeros(7)}, home / "net.safetensors")
        assert "'4.bias' has the shape (7,) instead of (3,)" in refused(capsys, *flags, "net.safetensors")
        save_file(net.state_dict(), home / "net.safetensors")
        message = refused(capsys, "--model", "torchvision:resnet18", *flags[2:], "net.safetensors")
        assert "has no 'fc.weight'" in message

    def test_data_and_flags(self, home, birds, capsys):
        flags = ("--model", "my_net:make", "--data", f"imagefolder:{birds}")
        assert "no layer 'conv'" in refused(capsys, *flags, "--layers", "conv")
        assert "--per-class must be at least 2" in refused(capsys, *flags, "--per-class", "1")
        assert "--batch-size must be" in refused(capsys, *flags, "--batch-size", "0")
        assert "3 channels" in refused(capsys, *flags, "--mean", ".5,.5")
        assert "--device must be" in refused(capsys, *flags, "--device", "quantum")
        assert "another --image-size" in refused(capsys, *flags, "--image-size", "2")
        assert "does not exist" in refused(capsys, *flags[:2], "--data", "imagefolder:gone")
        assert "cannot take 1 x 8 x 8 images" in refused(capsys, *flags[:2], "--data", "digits")
        assert not (home / "outputs").exists()


def test_subsets_of_a_run_and_a_limit_per_class():
    config = DataConfig(imbalance=5)
    full, drawn = load_sets(config), load_sets(config, trained_on=TrainedSubset(0, with_holdout=True))
    fitted = load_sets(config, trained_on=TrainedSubset(0, with_holdout=False))
    sizes = [len(sets.sets["train"][0]) for sets in (full, drawn, fitted)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3
    assert drawn.class_counts.max() >= 4 * drawn.class_counts.min()
    thin = load_sets(config, per_class=7).sets["test"][0]
    assert thin.labels.bincount().tolist() == [7] * 10
    assert torch.equal(thin.labels, load_sets(config, per_class=7).sets["test"][0].labels)
