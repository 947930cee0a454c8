"""The command nc-tools choose, from files to the model to take home."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.head_plans import embeddings
from support.runs_here import runs_here

from nc_tools.cli import main
from nc_tools.data import DataConfig
from nc_tools.data.load_data import load_data
from nc_tools.experiment import load_run
from nc_tools.experiment.serialize import encode
from nc_tools.run_records import read_run

FAST = ["--epochs", "2", "--set", "protocol.max_extensions=0", "--set", "protocol.rates=0.003,0.03"]


def choose(*words):
    with runs_here():
        main(["choose", *map(str, words), *FAST, "--tracking-uri", "none"])


def photos(root, sizes=((40, 48), (36, 36), (60, 40)), counts=(("ape", 12), ("bee", 8), ("cow", 4))):
    """Images of three classes that differ in color, of several sizes, and one gray, one palette, one transparent."""
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for k, (name, count) in enumerate(counts):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                height, width = sizes[i % len(sizes)]
                pixels = random.integers(0, 120, (height, width, 3)) + 90 * np.eye(3, dtype=int)[k]
                image = Image.fromarray(pixels.astype(np.uint8))
                if i < 3:
                    image = image.convert(("L", "P", "RGBA")[i])
                image.save(root / part / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "test_resnet.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=5).state_dict(), path)
    return path


@pytest.mark.slow
def test_embeddings_to_a_choice_and_its_model(tmp_path, capsys):
    path = embeddings(tmp_path)
    out = tmp_path / "out"
    choose(path, "--seeds", "0-2", "--arms", "linear,cosine_la,etf_la,class_means", "--out", out)
    printed = capsys.readouterr().out
    assert "50 training and 26 test samples of 3 classes, 6 features" in printed
    choice = json.loads((out / "choice.json").read_text())
    assert f"Use {choice['arm']}:" in printed
    assert choice["default"] == "linear_la"
    assert set(choice["holdout"]) == {"linear_la", "linear", "cosine_la", "etf_la", "class_means"}
    assert choice["candidate"] == max(choice["holdout"], key=choice["holdout"].get)
    assert (out / "report" / "comparison.html").exists()
    trained = load_run(out / "model")
    run = next((out / "runs").glob(f"{choice['arm']}-s0-d0-final-*"))
    with np.load(path) as file:
        test = torch.from_numpy(file["features"][file["split"] == "test"])
    with torch.no_grad():
        logits = trained.model(test)
    assert torch.allclose(logits, load_file(run / "predictions.safetensors")["test_logits"], atol=1e-5)
    # What takes images refuses a model that takes features.
    for command in (["predict", out / "model", tmp_path], ["export", out / "model", "--to", "onnx"]):
        with pytest.raises(SystemExit):
            main([*map(str, command), "--out", str(tmp_path / "x")])
        assert "was trained on features of 6 dimensions and not on images" in capsys.readouterr().err
    # The same command again makes nothing again, and says the same.
    stamps = {file: file.stat().st_mtime_ns for file in (out / "runs").rglob("final.json")}
    choose(path, "--seeds", "0-2", "--arms", "linear,cosine_la,etf_la,class_means", "--out", out)
    assert {file: file.stat().st_mtime_ns for file in (out / "runs").rglob("final.json")} == stamps
    assert json.loads((out / "choice.json").read_text()) == choice


@pytest.mark.slow
def test_images_to_a_model_that_predicts_from_images(tmp_path, weights, capsys):
    root, out = photos(tmp_path / "photos"), tmp_path / "out"
    words = ["--model", "timm:test_resnet", "--weights", weights, "--image-size", "32", "--seeds", "0,1"]
    choose(root, *words, "--arms", "linear,etf_la", "--out", out)
    printed = capsys.readouterr().out
    assert "24 training and 24 test images of 3 classes" in printed
    assert "timm:test_resnet" in printed
    assert "48 of 48 images went through the backbone" in printed
    arm = json.loads((out / "choice.json").read_text())["arm"]
    run = next((out / "runs").glob(f"{arm}-s0-d0-final-*"))
    assert not (run / "weights.safetensors").exists(), "the backbone is not saved with every run"
    trained = load_run(out / "model")
    images = load_data(DataConfig(f"imagefolder:{root}")).test.images
    expected = load_file(run / "predictions.safetensors")["test_logits"]
    assert torch.allclose(trained.predict(images), expected, atol=0.02)  # features are stored in float16
    assert trained.facts.classes == ("ape", "bee", "cow")
    assert read_run(run).identity.data["backbone"]["name"].startswith("timm:test_resnet")
    capsys.readouterr()
    # Views of the training images are computed beside what the cache has, and the record and the card tell of them.
    other = tmp_path / "other"
    choose(root, *words, "--views", "3", "--arms", "linear", "--out", other, "--cache", out / "cache")
    printed = capsys.readouterr().out
    in_words = "the image itself and 2 views with random crop (padding 5) and flip"
    assert f"3 views of each training image: {in_words}; each epoch takes one of them at random" in printed
    assert "48 of 96 images and views went through the backbone, the others were in" in printed
    again = load_run(other / "model")
    assert again.config.data.views == 3
    assert again.config.data != trained.config.data
    assert encode(trained.config)["data"].get("views") is None, "one view is the default, as in older records"
    arm = json.loads((other / "choice.json").read_text())["arm"]
    expected = load_file(next((other / "runs").glob(f"{arm}-s0-d0-final-*")) / "predictions.safetensors")["test_logits"]
    assert torch.allclose(again.predict(images), expected, atol=0.02), "the test images have no further views"
    main(["export", str(other / "model"), "--to", "safetensors", "--out", str(tmp_path / "export")])
    assert f"Trained on 3 views of each image: {in_words}" in (tmp_path / "export" / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing"], "missing does not exist: give a folder of images"),
        (["{folder}"], "features of images come from a pretrained model: give one"),
        (["{folder}", "--model", "conv"], "'conv' has random weights"),
        (
            ["{folder}/../single", "--model", "timm:test_resnet", "--weights", "{weights}"],
            "none of the 2 training images can",
        ),
        (["{file}", "--model", "timm:test_resnet"], "leave out --model, --weights and"),
        (["{file}", "--image-size", "64"], "leave out --model, --weights and --image-size"),
        (["{file}", "--ood-near", "imagefolder:{folder}"], "give such rows of the file the split 'ood_near'"),
        (["{file}", "--skip-missing"], "data.skip_missing is about image files, and an embedding file has none"),
        (["{file}", "--test-table", "x.csv"], "data.table is about image files"),
        (["{file}", "--set", "data.flip=true"], "data.flip changes images at every epoch"),
        (["{file}", "--views", "4"], "an embedding file has no images, got 4 views: leave --views and data.views out"),
        (["{file}", "--views", "0"], "views is a number of views of each image and must be at least 1, got 0"),
        (
            [
                *("{folder}", "--model", "timm:test_resnet", "--weights", "{weights}"),
                *("--views", "2", "--set", "data.flip=false", "--set", "data.crop_padding=0"),
            ],
            "2 views of an image need random augmentation",
        ),
        (
            ["{folder}", "--model", "timm:test_resnet", "--weights", "{weights}", "--set", "data.crop_padding=2"],
            "data.crop_padding changes images at every",
        ),
        (
            ["{folder}", "--model", "timm:test_resnet", "--weights", "{weights}", "--set", "data.outliers=blended"],
            "data.outliers is not used by runs on",
        ),
        (
            ["{file}", "--clean", "data"],
            "none were given: add --labels FILE:COLUMN, or leave --clean out",
        ),
        (["{file}", "--arms", "eft"], "there is no arm 'eft'"),
        # Before the features are computed, which may take an hour:
        (["{folder}", "--model", "timm:test_resnet", "--weights", "{weights}", "--arms", "eft"], "no arm 'eft'"),
        # Before the images are read, which may take minutes:
        (
            ["{damaged}", "--model", "timm:test_resnet", "--weights", "none.pt"],
            "the weights file none.pt does not",
        ),
        (["{damaged}", "--model", "timm:test_resnett", "--weights", "none.pt"], "did you mean 'test_resnet'"),
        (["{note}", "--model", "timm:test_resnet"], "note is: give a folder of images, a table (.csv), an embedding"),
        (["{file}", "--seeds", "x"], "--seeds must read like"),
        (["{file}", "--set", "optim.wd=1"], "there is no field 'wd'"),
        (["{file}", "--device", "tpu"], "--device must be"),
    ],
)
def test_what_cannot_work_is_said_in_one_sentence(tmp_path, capsys, weights, words, message):
    folder, file = photos(tmp_path / "photos"), embeddings(tmp_path)
    photos(tmp_path / "single", counts=(("ape", 1), ("bee", 1)))
    damaged = photos(tmp_path / "damaged", counts=(("ape", 2), ("bee", 2)))
    (damaged / "train" / "ape" / "0.png").write_bytes(b"x")
    (tmp_path / "note").write_text("x")
    places = {"folder": folder, "file": file, "weights": weights, "damaged": damaged, "note": tmp_path / "note"}
    with pytest.raises(SystemExit) as end:
        choose(*(word.format(**places) for word in words), "--out", tmp_path / "out")
    assert end.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert len(printed.strip().splitlines()) == 1
