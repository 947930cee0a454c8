"""The images that a model is most wrongly sure of: which they are, and their pictures in the report."""

import base64
import io
import json
import math
import os
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_tensors

from nc_tools.comparison import ComparedRun, RecallByClass, compare_runs
from nc_tools.comparison.html_report import comparison_html
from nc_tools.comparison.surest_mistakes import MOST_MISTAKES, surest_mistakes
from nc_tools.run_records.mistake_pictures import MISTAKES, MistakePictures, write_mistake_pictures

PRIMARY = "test/gen/balanced_accuracy"
CLASSES = ("cat", "dog", "<b>bird</b>")
LABELS = np.array([0, 1, 2, 0, 1, 2])
# Each row: the logits of an image. linear is wrong at images 1 (by 4), 4 (by 2) and 5 (by 6).
LINEAR = [[3, 0, 0], [4, 0, -9], [0, 0, 3], [3, 0, 0], [2, 0, -9], [6, -9, 0]]
ETF = [[3, 0, 0], [0, 4, 0], [0, 0, 3], [0, 5, -9], [0, 2, 0], [1, -9, 0]]


def picture(shade):
    return np.full((3, 40, 40), shade, np.uint8)


def run(root, arm, seed, logits, *, keep=(), value=0.5, paths=True, labels=LABELS, classes=CLASSES):
    """A run with its predictions, and pictures of the images in ``keep``, each of the shade 40 times its index."""
    folder = root / f"{arm}-s{seed}"
    folder.mkdir()
    save_file({"test_logits": np.array(logits, np.float32), "test_labels": labels}, folder / "predictions.safetensors")
    if len(keep):
        names = tuple(f"photos/{index}.png" for index in keep) if paths else ()
        images = np.stack([picture(40 * index) for index in keep])
        write_mistake_pictures(folder, MistakePictures(np.array(keep), names, images))
    recall = RecallByClass(classes, (9,) * len(classes), (2,) * len(classes), (0.5,) * len(classes))
    return ComparedRun(arm, seed, 0, "FINISHED", {PRIMARY: value + 0.01 * seed}, per_class=recall,
                       predictions=folder / "predictions.safetensors", run_id=folder.name)  # fmt: skip


@pytest.fixture
def comparison(tmp_path):
    other = [[3, 0, 0], [0, 4, 0], [0, 0, 3], [3, 0, 0], [7, 0, -9], [1, -9, 0]]
    return compare_runs(
        [
            run(tmp_path, "linear", 0, LINEAR, keep=[5, 1, 4]),
            run(tmp_path, "linear", 1, other, keep=[4, 5]),
            run(tmp_path, "etf", 0, ETF, keep=[3, 5], value=0.7),
            run(tmp_path, "etf", 1, ETF, keep=[3, 5], value=0.72),
        ],
        "linear",
    )


def test_they_are_the_wrong_predictions_in_the_order_of_their_probability():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(0, 4, (300, 5)).astype(np.float32), generator.integers(0, 5, 300)
    wrong = []
    for index, (row, label) in enumerate(zip(logits.tolist(), labels.tolist(), strict=True)):
        total = sum(math.exp(z) for z in row)
        if row.index(max(row)) != label:
            wrong.append((math.exp(max(row)) / total, index))
    expected = sorted(wrong, reverse=True)[:MOST_MISTAKES]
    found = surest_mistakes(logits, labels)
    assert found.index.tolist() == [index for _, index in expected]
    assert 1 / (1 + np.exp(-found.margin)) == pytest.approx([p for p, _ in expected], rel=1e-6)
    # Read in parts, as large files are.
    parts = surest_mistakes(logits[:120], labels[:120]).joined(surest_mistakes(logits[120:], labels[120:], 120))
    assert parts.index.tolist() == found.index.tolist()


def test_probabilities_that_round_to_one_still_differ():
    logits = np.array([[50.0, 0.0], [60.0, 0.0], [-3e38, 3e38], [2.0, 2.0]], np.float32)
    found = surest_mistakes(logits, np.array([1, 1, 0, 1]))
    assert found.index.tolist() == [2, 1, 0, 3]
    assert surest_mistakes(logits, np.array([0, 0, 1, 0])).index.tolist() == []


def test_of_several_seeds_each_image_is_named_once_with_what_all_of_them_say(comparison):
    linear = comparison.mistakes["linear"]
    assert [one.name for one in linear] == ["photos/4.png", "photos/5.png", "photos/1.png"]
    first, second, third = linear
    assert (first.true, first.predicted, first.seed, first.wrong, first.seeds) == ("dog", "cat", 1, 2, 2)
    assert first.confidence == pytest.approx(math.exp(7) / (math.exp(7) + 1 + math.exp(-9)))
    assert (second.seed, second.wrong, second.others) == (0, 2, {"etf": (0, 2)})
    assert (third.wrong, third.seeds, third.others) == (1, 2, {"etf": (2, 2)})
    assert [int(one.picture[0, 0, 0]) for one in linear] == [160, 200, 40]
    assert [one.name for one in comparison.mistakes["etf"]] == ["photos/3.png", "photos/5.png"]


def test_the_page_shows_them_with_escaped_names(comparison):
    page = comparison_html(comparison)
    part = page[page.index("The images most wrongly sure") :]
    part = part[: part.index("</section>")]
    cards = re.findall(r"<li>(.*?)</li>", part, re.DOTALL)
    assert len(cards) == 5
    assert "<b>dog</b> taken for <b>cat</b>, 99.9 %" in cards[0]
    assert "wrong at 2 of 2 seeds; etf right at 2 of 2" in cards[0]
    assert "<b>&lt;b&gt;bird&lt;/b&gt;</b> taken for <b>cat</b>" in cards[1]
    assert re.search(r'<img src="data:image/jpeg;base64,[^"]*" alt="photos/4.png" width="96" height="96">', cards[0])
    encoded = re.search(r"base64,([^\"]*)", cards[0])[1]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    assert shown.shape == (40, 40, 3)
    assert shown.mean() == pytest.approx(160, abs=2)


def test_runs_with_predictions_alone_show_places_and_say_that_there_are_no_pictures(tmp_path):
    runs = [run(tmp_path, arm, 0, logits) for arm, logits in {"linear": LINEAR, "etf": ETF}.items()]
    page = comparison_html(compare_runs(runs, "linear"))
    assert "The runs kept no pictures of them." in page
    assert "test image 5" in page
    assert "<img" not in page


def test_images_of_other_test_sets_are_not_the_same_images(tmp_path):
    """Every seed with its own test set, as with --resplit: place 5 is another image at each seed."""
    moved = np.array([0, 1, 1, 0, 1, 2])
    runs = [
        run(tmp_path, arm, seed, logits, keep=[5], labels=labels)
        for arm, logits in {"linear": LINEAR, "etf": ETF}.items()
        for seed, labels in enumerate((LABELS, moved))
    ]
    linear = compare_runs(runs, "linear").mistakes["linear"]
    assert sorted((one.seed, one.seeds) for one in linear if one.name == "photos/5.png") == [(0, 1), (1, 1)]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"no"), "cannot be read"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "cannot be read"),
        (lambda path: (path.unlink(), path.symlink_to(path.name)), "cannot be read"),
        (lambda path: os.truncate(path, 2**34), "cannot be read"),
        (lambda path: save_tensors({"index": torch.zeros(1).to(torch.float8_e5m2)}, path), "cannot be read"),
        (lambda path: save_file({"index": np.array([0.5])}, path), "index in mistakes.safetensors must be int64"),
        (lambda path: save_file({"images": picture(0)[None]}, path), "cannot be read"),
        (lambda path: save_file({"index": np.array([5]), "images": picture(0)}, path), "images in mistakes"),
        (lambda path: save_file({"index": np.array([5]), "images": np.ones((1, 3, 900, 9), np.uint8)}, path), "64 p"),
        (lambda path: save_file({"index": np.array([5])}, path, metadata={"paths": '{"a": 1}'}), "must be 1 texts"),
        (lambda path: save_file({"index": np.array([5])}, path, metadata={"paths": json.dumps(["a"] * 9)}), "1 texts"),
    ],
)  # fmt: skip
def test_a_damaged_file_of_pictures_is_named_and_costs_no_result(tmp_path, damage, message):
    runs = [run(tmp_path, arm, 0, logits, keep=[5]) for arm, logits in {"linear": LINEAR, "etf": ETF}.items()]
    damage(runs[0].predictions.parent / MISTAKES)
    comparison = compare_runs(runs, "linear")
    (caution,) = [one for one in comparison.cautions if one.kind == "record"]
    assert message in caution.text
    assert caution.text.endswith("in linear-s0")
    assert comparison.mistakes["linear"][0].name == "test image 5"
    comparison_html(comparison)


def test_a_written_file_is_whole(tmp_path):
    write_mistake_pictures(tmp_path, MistakePictures(np.array([2, 1]), ("a", "b"), np.stack([picture(1)] * 2)))
    assert load_file(tmp_path / MISTAKES)["index"].tolist() == [2, 1]
    assert [file.name for file in tmp_path.iterdir()] == [MISTAKES]
