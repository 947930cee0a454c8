"""The review page: decisions by the keyboard in a real browser, kept, undone, counted and saved."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.browser import CHROMIUM, NEEDS_CHROMIUM

from nc_tools.cli import main

CLASSES = ["cat", "cow", "<b>dog</b>", 'x"ray', "unicorn"]


@pytest.fixture
def page(tmp_path, monkeypatch, capsys):
    """A review page of 80 images of five classes."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    true = np.arange(80) % 5
    features = 4 * np.eye(5)[true] + generator.normal(size=(80, 5))
    labels = np.where(generator.random(80) < 0.2, (true + 1) % 5, true)
    (tmp_path / "images").mkdir()
    ids = [f"images/{i},'é.png" for i in range(80)]
    for i, name in enumerate(ids):
        Image.new("RGB", (40, 30), (3 * i, 50 * int(true[i]), 9)).save(tmp_path / name)
    np.savez("pets.npz", features=features, labels=labels, ids=ids, classes=CLASSES)
    main(["suspects", "pets.npz", "--images", ".", "--review", "30", "--out", "out"])
    assert "decide about 33 of them with the keyboard" in capsys.readouterr().out
    return tmp_path / "out" / "review.html"


def data_of(page: Path) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL).group(1))


def test_the_page_holds_pictures_and_escapes_names(page):
    text, data = page.read_text(encoding="utf-8"), data_of(page)
    assert "<b>dog" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert data["classes"] == CLASSES
    assert len(data["samples"]) == 33
    assert sum(sample["suspect"] for sample in data["samples"]) == 30
    for sample in data["samples"]:
        assert data["pictures"][str(sample["picture"])].startswith("data:image/jpeg;base64,")
        assert len(sample["near_suggested"]) == 3
        assert sample["given"] != sample["suggested"]


def test_what_a_page_cannot_be_made_from(page, capsys):
    np.savez("plain.npz", features=np.random.default_rng(0).normal(size=(10, 2)), labels=[0, 1] * 5)
    for argv, message in (
        (["pets.npz", "--images", "elsewhere"], "there is no image"),
        (["plain.npz", "--images", "."], "the file has no ids"),
        (
            ["pets.npz", "--images", ".", "--review", "0"],
            "--review is a number of labels and must be at least 1",
        ),
    ):
        with pytest.raises(SystemExit):
            main(["suspects", *argv])
        assert message in capsys.readouterr().err


def press(page: Path, *keys: str) -> tuple[str, list[list[str]]]:
    """Open the page in a browser, press keys, and return its text and the rows of decisions.csv."""
    script = f"""<script>
      for (const name of {json.dumps(keys)}) {{
        const target = document.activeElement === at("other") ? at("other") : document.body;
        if (name.length > 1 && name.startsWith("type:")) {{ at("other").value = name.slice(5); continue; }}
        target.dispatchEvent(new KeyboardEvent("keydown", {{key: name, bubbles: true, cancelable: true}}));
      }}
      document.title = JSON.stringify([document.body.innerText, csv()]);
    </script>"""
    copy = page.parent.parent / "elsewhere" / "pressed.html"  # the page needs nothing beside it
    copy.parent.mkdir(exist_ok=True)
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{script}</body>"), encoding="utf-8")
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         f"--user-data-dir={page.parent / 'profile'}", "--dump-dom", copy.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    import html

    title = html.unescape(re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL).group(1))
    text, table = json.loads(title)
    import csv
    import io

    return text, list(csv.reader(io.StringIO(table)))


@pytest.mark.slow
@pytest.mark.browser
@NEEDS_CHROMIUM
def test_decisions_by_keys_in_a_browser(page):
    samples = data_of(page)["samples"]
    text, rows = press(page, "Enter", " ", "x", "u", "x", "/", "type:unic", "Enter")
    assert rows[0] == ["path", "given", "decision", "label"]
    paths = [sample["path"] for sample in samples[:4]]
    given = [CLASSES[sample["given"]] for sample in samples[:4]]
    assert rows[1] == [paths[0], given[0], "keep", given[0]]
    assert rows[2] == [paths[1], given[1], "relabel", CLASSES[samples[1]["suggested"]]]
    assert rows[3] == [paths[2], given[2], "exclude", ""]
    assert rows[4] in ([paths[3], given[3], "relabel", "unicorn"], [paths[3], "unicorn", "keep", "unicorn"])
    assert "5 of 33; 4 decided" in text
    assert "95 % interval" in text
    # The state is kept, and an ambiguous or unknown name decides nothing.
    text, rows = press(page, "c", "type:c", "Enter", "Escape", "q", "type:zebra", "Enter")
    assert len(rows) == 5
    assert "no such class" in text


@pytest.mark.slow
@pytest.mark.browser
@NEEDS_CHROMIUM
def test_decisions_are_read_as_corrections(page):
    from nc_tools.data.corrections import read_corrections
    from nc_tools.data.label_files import LabeledPaths

    samples = data_of(page)["samples"]
    _, rows = press(page, "Enter", " ", "x", " ")
    import csv

    file = page.with_name("decisions.csv")
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows(rows)
    with np.load(page.parent.parent / "pets.npz") as saved:
        ids, labels = tuple(saved["ids"].tolist()), torch.from_numpy(saved["labels"])
    images = LabeledPaths(page.parent.parent, ids)
    corrections = read_corrections(file, images, CLASSES, labels)
    place = {name: i for i, name in enumerate(ids)}
    assert int(corrections.labels[place[samples[1]["path"]]]) == samples[1]["suggested"]
    assert bool(corrections.excluded[place[samples[2]["path"]]])
    assert int(corrections.excluded.sum()) == 1


@pytest.mark.slow
@pytest.mark.browser
@NEEDS_CHROMIUM
def test_a_thousand_classes_are_decided_about_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    classes = [f"species {k:03d}" for k in range(1000)]
    true = np.arange(3000) % 1000
    features = 4 * generator.normal(size=(1000, 32))[true] + generator.normal(size=(3000, 32))
    labels = np.where(generator.random(3000) < 0.1, generator.integers(0, 1000, 3000), true)
    (tmp_path / "images").mkdir()
    ids = [f"images/{i}.png" for i in range(3000)]
    for i, name in enumerate(ids):
        Image.new("RGB", (16, 16), (i % 256, i // 256, 9)).save(tmp_path / name)
    np.savez("species.npz", features=features, labels=labels, ids=ids, classes=classes)
    main(["suspects", "species.npz", "--images", ".", "--review", "1000", "--folds", "2", "--out", "out"])
    page = tmp_path / "out" / "review.html"
    assert page.stat().st_size < 2**22, "a thousand images with six neighbors each"
    samples = data_of(page)["samples"]
    text, rows = press(page, "/", "type:species 99", "Enter", "Escape", "/", "type:species 997", "Enter", " ")
    assert "no such class" not in text
    assert rows[1][0] == samples[0]["path"]
    assert rows[1][3] == "species 997"
    assert rows[2][3] == classes[samples[1]["suggested"]]
    assert len(rows) == 3
