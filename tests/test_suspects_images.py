"""nc-tools suspects on images: features of a network, test images too, several annotators, and the review page."""

import csv
import json
import re

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from support.runs_here import runs_here
from support.tables import lines

from nc_tools.cli import main

CLASSES = ("ape", "bee", "cow")


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Images of three colors in folders for training and testing; one of each part lies in the wrong folder."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", num_classes=5).state_dict(), tmp_path / "weights.safetensors")
    random = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 6)):
        for k, name in enumerate(CLASSES):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for i in range(count):
                color = (k + 1) % 3 if (k, i) == (0, 3) else k
                pixels = random.integers(0, 60, (32, 32, 3)) + 190 * np.eye(3, dtype=int)[color]
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / part / name / f"{part}{i}.png")
    return tmp_path


def suspects(*words):
    model = ["--model", "timm:test_resnet", "--weights", "weights.safetensors", "--image-size", "32"]
    main(["suspects", "photos", *model, "--cache", "features", *words])


def rows_of(file):
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


@pytest.mark.slow
def test_suspects_of_a_folder_of_images(photos, capsys):
    suspects("--out", "found")
    printed = capsys.readouterr().out
    assert "features: 54 of 54 images went through the backbone" in printed
    assert "hold-out" not in printed, "nothing is tuned"
    rows = rows_of(photos / "found" / "suspects.csv")
    assert len(rows) == 36
    assert (rows[0]["path"], rows[0]["suggested"]) == ("train/ape/train3.png", "bee")
    page = (photos / "found" / "review.html").read_text(encoding="utf-8")
    assert "train/ape/train3.png" in page
    assert page.count("data:image/jpeg;base64,") >= 30
    assert not re.search(r"""(?:src|href)=["']?https?:""", page)
    # The test images are judged by a model of the training images, and all images together by each other.
    suspects("--part", "test", "--out", "tested")
    assert "features: 0 of 54 images went through the backbone" in capsys.readouterr().out
    tested = rows_of(photos / "tested" / "suspects.csv")
    assert len(tested) == 18
    assert tested[0]["path"] == "test/ape/test3.png"
    suspects("--part", "all", "--out", "all")
    first = {row["path"] for row in rows_of(photos / "all" / "suspects.csv")[:2]}
    assert first == {"train/ape/train3.png", "test/ape/test3.png"}
    # Several people have labeled the test images.
    people = [f"test/{name}/test{i}.png,{name},{'bee' if (k, i) == (0, 3) else name}" for k, name in enumerate(CLASSES)
              for i in range(6)]  # fmt: skip
    lines(photos / "people.csv", "path,given,ann", *people)
    suspects("--part", "test", "--labels", "people.csv:given,ann", "--out", "people")
    assert "Disagreement with ann counts as a third rank." in capsys.readouterr().out
    top = rows_of(photos / "people" / "suspects.csv")[0]
    assert (top["path"], json.loads(top["disagreement"])) == ("test/ape/test3.png", 1.0)


@pytest.mark.slow
def test_what_a_decision_about_a_folder_of_images_gains(photos, capsys):
    lines(photos / "decisions.csv", "path,given,decision,label", "train/ape/train3.png,ape,relabel,bee")
    model = ["--model", "timm:test_resnet", "--weights", "weights.safetensors", "--image-size", "32"]
    fast = ["--seeds", "0,1", "--epochs", "2", "--set", "protocol.max_extensions=0", "--tracking-uri", "none"]
    with runs_here():
        main(["gain", "photos", *model, "--corrections", "decisions.csv", *fast, "--out", "out"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "54 of 54 images went through the backbone" in printed
    assert "corrected, 1 training labels changed, 0 images left out, 0 labels confirmed: " in printed
    assert "random, the same changes of 1 random other images: " in printed
    (row,) = rows_of(photos / "out" / "decisions" / "random_changes.csv")
    assert row["given"] == "ape"
    assert row["path"] != "train/ape/train3.png"


WRONG = {
    "model": (["photos"], "features of images come from a pretrained model: give one"),
    "folder": (["nothing"], "nothing does not exist: give a folder of images"),
    "weights": (["photos", "--model", "timm:test_resnet", "--weights", "none.safetensors"], "none.safetensors"),
    "embeddings": (["pets.npz", "--model", "timm:test_resnet"], "leave out --model, --weights and"),
    "labels": (
        ["digits", "--model", "timm:test_resnet", "--labels", "a.csv:b"],
        "which source digits lacks: remove labels",
    ),
}


@pytest.mark.parametrize(("words", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_judged_is_said_in_one_sentence(words, message, photos, capsys):
    np.savez(photos / "pets.npz", features=np.eye(4), labels=[0, 1, 0, 1])
    with pytest.raises(SystemExit) as end:
        main(["suspects", *words])
    shown = capsys.readouterr().err
    assert end.value.code == 2
    assert message in shown
    assert shown.count("\n") == 1
