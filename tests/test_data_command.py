"""The command nc-tools data: it says what a source is, trains nothing, and writes the plain form."""

import csv
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
from support.image_folders import add_damaged_files, make_tree, save
from support.shards import samples, shard
from support.tables import CLASSES, lines, names, pictures

from nc_tools.cli import main
from nc_tools.data.first_lines import counts_text
from nc_tools.data.list_source import list_source
from nc_tools.data.listing import check_classes
from nc_tools.data.source_names import parse_source


def said(capsys, *argv):
    main(["data", *map(str, argv)])
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out.splitlines()


def refused(capsys, *argv):
    with pytest.raises(SystemExit) as end:
        main(["data", *map(str, argv)])
    shown = capsys.readouterr()
    assert end.value.code == 2
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    return shown.err


@pytest.fixture
def photos(tmp_path):
    """A flat folder with a table of labels and patients."""
    pictures(tmp_path / "set" / "photos", [f"{n}.png" for n, _ in names(40)])
    rows = [f"{n},{c},p{i // 4}" for i, (n, c) in enumerate(names(40))]
    return lines(tmp_path / "set" / "t.csv", "id,kind,patient", *rows).parent


def test_a_folder_is_described_without_opening_an_image(tmp_path, capsys):
    tree = add_damaged_files(make_tree(tmp_path / "birds"))
    assert said(capsys, tree) == [
        f"data imagefolder:{tree}: 8 training and 5 test images of 2 classes",
        "split: train/ is for training, test/ for testing",
        "training images of each class: crow 4, owl 4; median 4",
        "the images were not opened: add --read to open all of them, which finds damaged files and copies",
    ]
    assert sorted(path.name for path in tree.iterdir()) == ["test", "train"]


def test_reading_finds_every_damaged_file(tmp_path, capsys):
    tree = add_damaged_files(make_tree(tmp_path / "birds"))
    error = refused(capsys, tree, "--read")
    for name in ("3 of 13 images", "train/crow/note.jpg", "train/owl/cut.png", "test/owl/empty.png"):
        assert name in error
    shown = said(capsys, tree, "--read", "--skip-unreadable")
    assert shown[0].endswith("6 training and 4 test images of 2 classes, 3 x 8 x 8")
    assert shown[-1].startswith("left out, because they cannot be read: 3 (train/crow/note.jpg")


def test_reading_names_even_many_damaged_files_in_lines(tmp_path, capsys):
    tree = make_tree(tmp_path / "birds")
    for i in range(60):
        (tree / "train" / "owl" / f"bad{i}.png").write_bytes(b"x")
    with pytest.raises(SystemExit):
        main(["data", str(tree), "--read"])
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        f"cannot be read: train/owl/bad{i}.png (no image)" for i in sorted(range(60), key=str)
    ]
    assert "60 of 70 images cannot be read: " in shown.err
    assert "and 40 more" in shown.err


def test_a_table_is_described_and_can_be_overruled(photos, capsys):
    shown = said(capsys, photos / "t.csv")
    assert "table t.csv (separated by comma, UTF-8): 40 rows; id names 40 of 40 images (names of files)" in shown
    assert "labels: column kind (names)" in shown
    assert "groups: column patient, 10 groups, which stay whole in each split" in shown
    shown = said(capsys, f"table:{photos / 't.csv'}:kind", "--set", "data.table.group_column=-")
    assert not [line for line in shown if line.startswith("groups")]
    assert "there is no field 'table.grup'" not in refused(capsys, photos / "t.csv", "--set", "table.grup=x")


def test_the_plain_form_is_the_same_data(photos, tmp_path, capsys):
    out = tmp_path / "plain"
    shown = said(capsys, photos / "t.csv", "--write", out)
    assert shown[-1] == f"40 images and labels.csv are in {out}: use them with --data table:{out / 'labels.csv'}"
    source = list_source(parse_source(f"table:{photos / 't.csv'}"))
    plain = list_source(parse_source(f"table:{out / 'labels.csv'}"))
    folder = list_source(parse_source(f"imagefolder:{out}"))
    assert plain.classes == folder.classes == source.classes == CLASSES

    def rows(listed, part):
        listing = getattr(listed, part)
        groups = listing.groups or [None] * len(listing.paths)
        stems = [path.rpartition("/")[2] for path in listing.paths]
        return Counter(zip(stems, [listed.classes[k] for k in listing.labels.tolist()], groups, strict=True))

    for part in ("train", "test"):
        assert rows(source, part) == rows(plain, part)
        assert {row[:2] for row in rows(source, part)} == {row[:2] for row in rows(folder, part)}
    with (out / "labels.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [*table[0]] == ["path", "label", "split", "group"]
    for row in table:
        original = photos / "photos" / row["path"].rpartition("/")[2]
        assert (out / row["path"]).read_bytes() == original.read_bytes()


def test_names_that_cannot_be_folders_and_equal_file_names(tmp_path, capsys):
    rows = [
        (f"{folder}/{i}.png", label) for folder, label in (("a", "x/y"), ("b", "x/y"), ("c", "X_y")) for i in range(8)
    ]
    pictures(tmp_path / "set", [path for path, _ in rows])
    lines(tmp_path / "t.csv", "path,label", *(f"set/{path},{label}" for path, label in rows))
    shown = said(capsys, tmp_path / "t.csv", "--write", tmp_path / "plain")
    assert "imagefolder" not in shown[-1]
    listed = list_source(parse_source(f"table:{tmp_path / 'plain' / 'labels.csv'}"))
    assert Counter(listed.classes[k] for k in listed.all_images.labels.tolist()) == {"x/y": 16, "X_y": 8}
    assert len(list((tmp_path / "plain").rglob("*.png"))) == 24
    assert "exists and is not an empty folder" in refused(capsys, tmp_path / "t.csv", "--write", tmp_path / "plain")


def test_benchmarks_are_described_and_have_no_files(tmp_path, capsys):
    assert said(capsys, "digits")[0] == "data digits: 899 training and 898 test images of 10 classes, 1 x 8 x 8"
    assert "has no files to copy" in refused(capsys, "digits", "--write", tmp_path / "x")


def test_what_is_no_source_is_one_sentence(tmp_path, capsys):
    assert "must be an existing folder or table, or 'imagefolder:PATH', 'table:FILE' or another of" in refused(
        capsys, tmp_path / "none"
    )
    assert "there is no table" in refused(capsys, "table:none.csv")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--drop-duplicates"], "data.drop_duplicates has an effect only if the images are opened: add --read"),
        (["--skip-unreadable"], "data.skip_unreadable has an effect only"),
        (["--set", "data.imbalance=4", "--set", "data.labels=t.csv:kind"], "data.labels, data.imbalance has an effect"),
        (["--write", "x", "--skip-unreadable"], "data.skip_unreadable has an effect only"),
        (["--write", "x", "--read", "--set", "data.imbalance=4"], "where data.imbalance would change nothing"),
        (["--read", "--set", "data.flip=false"], "data.flip is about training"),
        (["--test-table", "t.csv"], "table.test_table says how a table is read, and the source imagefolder:"),
        (["--set", "data.table.group_column=id"], "table.group_column says how a table is read"),
    ],
)
def test_what_would_change_nothing_is_refused(tmp_path, capsys, words, message):
    assert message in refused(capsys, make_tree(tmp_path / "birds"), *words)


def test_other_things_that_would_change_nothing(photos, tmp_path, capsys):
    words = ("--set", "data.class_folder=last")
    assert "no source here is a folder" in refused(capsys, f"{photos / 't.csv'}@{photos / 'photos'}", *words)
    (tmp_path / "e.npz").write_bytes(b"")
    assert "a file of features, not of images: nc-tools choose" in refused(capsys, tmp_path / "e.npz")


def test_given_labels_and_corrections_are_read_as_a_recipe_reads_them(tmp_path, capsys):
    tree = make_tree(tmp_path / "birds")
    file = lines(tmp_path / "decisions.csv", "path,decision,label", "train/crow/0.png,relabel,owl")
    shown = said(capsys, tree, "--read", "--set", f"data.corrections={file}")
    assert "training images of each class: owl 4, crow 2; median 3" in shown


def test_the_plain_form_leaves_out_what_the_flags_leave_out(tmp_path, capsys):
    tree = add_damaged_files(make_tree(tmp_path / "birds"))  # images 0 and 1 of each class are in both parts
    said(capsys, tree, "--read", "--write", tmp_path / "p", "--skip-unreadable", "--drop-duplicates")
    written = sorted(path.relative_to(tmp_path / "p").as_posix() for path in (tmp_path / "p").rglob("*.*g"))
    test = [f"test/{name}/{i}.png" for name in ("crow", "owl") for i in range(2)]
    assert written == [*test, "train/crow/2.png", "train/owl/2.png"]


def test_copies_of_one_picture_stay_together(tmp_path):
    """Roboflow's names: what stands before .rf. is the picture that copies were made of."""
    for name in ("crow", "owl"):
        for i in range(12):
            for copy in ("1a2b", "3c4d"):
                save(tmp_path / "set" / name / f"{name}{i}_jpg.rf.{copy}.jpg", color=(9 * i, 90, len(copy)))
    listed = list_source(parse_source(f"imagefolder:{tmp_path / 'set'}"))
    assert "groups: 24 pictures, by the names before .rf. (copies that Roboflow made of one picture)" in " ".join(
        listed.reading.sentences
    )
    assert not {*listed.train.groups} & {*listed.test.groups}
    assert 4 <= len(listed.test.paths) <= 16
    check_classes(listed)
    for part in ("train", "test"):
        for name in ("crow", "owl"):
            save(tmp_path / "own" / part / name / f"{name}_jpg.rf.{part}.jpg", color=(9, 90, len(part)))
    said = list_source(parse_source(f"imagefolder:{tmp_path / 'own'}")).reading.sentences
    assert any(text.startswith("CAUTION: 2 groups have training and test images, such as crow_jpg") for text in said)


def test_the_commands_of_the_page_about_data_run(tmp_path, monkeypatch, capsys):
    """What docs/data.md says about its example is what the command says."""
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    kinds = [("nevus", "nevus", "keratosis", "melanoma")[i % 4] for i in range(160)]
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "images", [f"img_{i}.jpg" for i in range(160)])
    lines(tmp_path / "lesions.csv", "image,diagnosis,patient", *(f"img_{i},{k},p{i // 3}" for i, k in enumerate(kinds)))
    for part, count in (("train", 9), ("test", 3)):
        pictures(tmp_path / "photos" / part, [f"{c}/{c}{i}.png" for c in CLASSES for i in range(count)])
    for name, first, last in (("list.txt", 0, 120), ("test.txt", 120, 160)):
        lines(tmp_path / name, *(f"img_{i}.jpg {kinds[i]}" for i in range(first, last)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for i, part in enumerate(("train-000", "train-001", "val-000", "val-001")):
        shard(tmp_path / "shards" / f"{part}.tar", samples(12, start=12 * i))
    commands = [
        shlex.split(line, comments=True)
        for block in re.findall(r"^```bash\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
    ]
    assert len(commands) >= 7
    printed = {}
    for program, *words in commands:
        assert program == "nc-tools"
        if words[0] != "data":  # suspects and gain on images: tests/test_suspects_images.py runs them
            continue
        printed[" ".join(words)] = said(capsys, *words[1:])
    (example,) = re.findall(r"^```text\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert printed["data lesions.csv@images"] == example.splitlines()
    of_shards = printed["data webdataset:shards/{train,val}-{000..001}.tar"]
    assert of_shards[0].endswith("24 training and 24 test images of 3 classes")
    assert of_shards[1].startswith("webdataset {train,val}-{000..001}.tar: unpacked into ")
    assert "training images of each class: ape 8, bat 8, cow 8; median 8" in of_shards


def test_many_classes_are_told_by_their_ends():
    import torch

    text = counts_text([f"c{k}" for k in range(200)], torch.arange(200) + 3)
    assert text == "most c199 202, c198 201, c197 200, c196 199; median 102.5; fewest c3 6, c2 5, c1 4, c0 3"
