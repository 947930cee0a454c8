"""Named layouts of several files, images inside Parquet files and Hugging Face datasets, and paths without a kind."""

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.tables import CLASSES, lines, names, pictures

from nc_tools.data import DataConfig, arrow_images
from nc_tools.data.guess_source import guess_source
from nc_tools.data.list_source import list_source
from nc_tools.data.load_data import load_data
from nc_tools.data.source_names import parse_source, same_images


def listed(source, **options):
    return list_source(parse_source(str(source)), **options)


def counts(images):
    return [dict(Counter(images.classes[k] for k in part.labels.tolist())) for part in (images.train, images.test)]


@pytest.fixture
def cub(tmp_path):
    """CUB's form: files joined by an id; the class numbers begin at 1, and names may have blanks."""
    top = tmp_path / "set" / "CUB"
    rows = [(i + 1, f"{c}/{n}.jpg", CLASSES.index(c) + 1, int(i % 3 > 0)) for i, (n, c) in enumerate(names())]
    pictures(top / "images", [path for _, path, _, _ in rows])
    lines(top / "images.txt", *(f"{i} {path}" for i, path, _, _ in rows))
    lines(top / "image_class_labels.txt", *(f"{i} {k}" for i, _, k, _ in rows))
    lines(top / "train_test_split.txt", *(f"{i} {part}" for i, _, _, part in rows))
    lines(top / "classes.txt", "1 Ape, great (wild)", "2 bat", "3 cow", "4 unused")
    return top


def test_cub_is_joined_and_keeps_its_split(cub):
    for root in (cub, cub.parent):
        images = listed(f"cub:{root}")
        assert images.classes == ("Ape, great (wild)", "bat", "cow")
        train, test = counts(images)
        assert sum(test.values()) == 10
        assert Counter(train) + Counter(test) == {"Ape, great (wild)": 15, "bat": 8, "cow": 7}
        assert all(path.startswith("images/") for path in images.train.paths)
    assert len(load_data(DataConfig(f"cub:{cub}")).test) == 10


def test_cub_that_is_not_complete_is_refused(cub):
    (cub / "images" / "bat" / "img_001.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 of 30 images that are listed .* images/bat/img_001\.jpg: add"):
        listed(f"cub:{cub}")
    assert sum(sum(part.values()) for part in counts(listed(f"cub:{cub}", skip_missing=True))) == 29
    lines(cub / "image_class_labels.txt", "1 1")
    with pytest.raises(ValueError, match=r"image_class_labels\.txt has no line for the image 2, which images\.txt has"):
        listed(f"cub:{cub}", skip_missing=True)
    with pytest.raises(FileNotFoundError, match=r"has no images\.txt; it holds .*: check the path"):
        listed(f"cub:{cub / 'images'}")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist: check the path"):
        listed(f"cub:{cub / 'nowhere'}")


@pytest.fixture
def pets(tmp_path):
    stems = [f"{breed}_{i}" for breed in ("Maine_Coon", "pug") for i in range(8)]
    pictures(tmp_path / "images", [f"{stem}.jpg" for stem in stems])
    pictures(tmp_path / "annotations" / "trimaps", [f"{stem}.png" for stem in stems])
    head = "# Image CLASS-ID SPECIES BREED ID"
    for name, rest in (("trainval.txt", (0, 1, 2, 3, 4)), ("test.txt", (5, 6, 7)), ("list.txt", range(8))):
        chosen = [stem for stem in stems if int(stem.rpartition("_")[2]) in rest]
        lines(tmp_path / "annotations" / name, head, *(f"{stem} 1 1 1" for stem in chosen))
    return tmp_path


def test_pets_take_the_class_from_the_name(pets):
    assert counts(listed(f"pets:{pets}")) == [{"Maine_Coon": 5, "pug": 5}, {"Maine_Coon": 3, "pug": 3}]
    (pets / "annotations" / "test.txt").unlink()
    assert counts(listed(f"pets:{pets}")) == [{"Maine_Coon": 6, "pug": 6}, {"Maine_Coon": 2, "pug": 2}]
    lines(pets / "annotations" / "list.txt", "Maine_Coon 1 1 1")
    with pytest.raises(ValueError, match="the name 'Maine_Coon' must read CLASS_NUMBER"):
        listed(f"pets:{pets}")


def test_tiny_imagenet_reads_its_validation_table(tmp_path):
    pictures(tmp_path, [f"train/n{k}/images/n{k}_{i}.JPEG" for k in range(3) for i in range(5)])
    pictures(tmp_path, [f"val/images/val_{i}.JPEG" for i in range(6)])
    pictures(tmp_path, ["test/images/test_0.JPEG"])
    lines(tmp_path / "val" / "val_annotations.txt", *(f"val_{i}.JPEG\tn{i % 3}\t0\t0\t62\t62" for i in range(6)))
    images = listed(f"tiny-imagenet:{tmp_path}")
    assert counts(images) == [{"n0": 5, "n1": 5, "n2": 5}, {"n0": 2, "n1": 2, "n2": 2}]
    assert images.test.paths[1] == "val/images/val_1.JPEG"
    lines(tmp_path / "val" / "val_annotations.txt", "val_0.JPEG\tn7\t0")
    with pytest.raises(ValueError, match="the class 'n7' is not in train/: add it"):
        listed(f"tiny-imagenet:{tmp_path}")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def records(count=30, form="struct"):
    """The columns of a data set as the Hugging Face hub stores it."""
    import io

    from PIL import Image

    rows = []
    for i, (name, label) in enumerate(names(count)):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (8 * i, 9, 9)).save(buffer, "PNG" if i % 2 else "JPEG")
        raw = buffer.getvalue()
        image = {"bytes": raw, "path": None} if form == "struct" else raw
        rows.append({"image": image, "label": CLASSES.index(label), "patient": f"p{i // 2}", "id": name})
    return pa.Table.from_pylist(rows)


def with_names(table):
    features = {"image": {"_type": "Image"}, "label": {"names": list(CLASSES), "_type": "ClassLabel"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


@pytest.mark.parametrize("form", ["struct", "bytes"])
def test_a_parquet_file(home, form):
    pq.write_table(with_names(records(form=form)), home / "birds.parquet")
    images = listed(f"parquet:{home / 'birds.parquet'}:label")
    assert images.classes == CLASSES
    train, test = counts(images)
    assert Counter(train) + Counter(test) == {"ape": 15, "bat": 8, "cow": 7}
    assert not {*images.train.groups} & {*images.test.groups}
    assert images.reading.sentences[0].startswith("parquet birds.parquet: unpacked into ")
    assert images.reading.choices["table"] == "birds.parquet"
    sources = load_data(DataConfig(f"parquet:{home / 'birds.parquet'}"))
    assert len(sources.train) + len(sources.test) == 30
    assert sources.reading.choices["table labels"] == "label"


def test_parquet_is_unpacked_once_and_again_when_it_changed(home, monkeypatch):
    calls = []
    real = arrow_images._write
    monkeypatch.setattr(arrow_images, "_write", lambda *args: calls.append(1) or real(*args))
    pq.write_table(with_names(records()), home / "b.parquet")
    first = listed(f"parquet:{home / 'b.parquet'}")
    assert listed(f"parquet:{home / 'b.parquet'}").train.paths == first.train.paths
    assert len(calls) == 1
    pq.write_table(with_names(records(20)), home / "b.parquet")
    assert len(listed(f"parquet:{home / 'b.parquet'}").all_images.paths) == 20
    assert len(calls) == 2


def test_the_parts_of_a_hub_folder(home):
    for name, count in (("train-00000-of-00002", 20), ("train-00001-of-00002", 10), ("test-00000-of-00001", 8)):
        (home / "set" / "data").mkdir(parents=True, exist_ok=True)
        pq.write_table(with_names(records(count)), home / "set" / "data" / f"{name}.parquet")
    images = listed(f"parquet:{home / 'set'}")
    assert (len(images.train.paths), len(images.test.paths)) == (30, 8)
    assert images.classes == CLASSES


def test_a_hugging_face_dataset_on_disk(home):
    root = home / "saved"
    for part, count in (("train", 20), ("validation", 8)):
        (root / part).mkdir(parents=True)
        table = records(count)
        arrow = str(root / part / "data-00000-of-00001.arrow")
        with pa.OSFile(arrow, "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
        features = {"image": {"_type": "Image"}, "label": {"names": list(CLASSES), "_type": "ClassLabel"}}
        (root / part / "dataset_info.json").write_text(json.dumps({"features": features}))
        (root / part / "state.json").write_text("{}")
    (root / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation"]}))
    images = listed(f"hf-dataset:{root}")
    assert (len(images.train.paths), len(images.test.paths)) == (20, 8)
    assert images.classes == CLASSES
    assert guess_source(str(root)) == f"hf-dataset:{root}"
    assert len(listed(f"hf-dataset:{root / 'train'}").all_images.paths) == 20
    (root / "train" / "dataset_info.json").write_text("{")
    with pytest.raises(ValueError, match=r"dataset_info\.json is damaged: it is not a JSON object"):
        listed(f"hf-dataset:{root}")
    (root / "train" / "dataset_info.json").unlink()
    with pytest.raises(FileNotFoundError, match="holds no dataset that save_to_disk wrote"):
        listed(f"hf-dataset:{root}")


def test_what_is_no_set_of_images_is_refused(home):
    pq.write_table(pa.table({"a": [1, 2], "label": [0, 1]}), home / "n.parquet")
    with pytest.raises(ValueError, match=r"must have one column with the bytes of images, but has 0: .* a \(int\)"):
        listed(f"parquet:{home / 'n.parquet'}")
    (home / "bad.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"bad\.parquet cannot be read as Parquet"):
        listed(f"parquet:{home / 'bad.parquet'}")
    with pytest.raises(FileNotFoundError, match=r"there is no Parquet file at .*none: check the path"):
        listed(f"parquet:{home / 'none'}")


def test_a_path_alone_is_a_folder_or_a_table(tmp_path):
    (tmp_path / "birds").mkdir()
    lines(tmp_path / "t.csv", "a,b")
    (tmp_path / "x.parquet").write_bytes(b"")
    (tmp_path / "x.bin").write_bytes(b"")
    for text, kind in (
        ("birds", "imagefolder:"),
        ("t.csv", "table:"),
        ("t.csv:b", "table:"),
        ("x.parquet", "parquet:"),
    ):
        assert guess_source(f"{tmp_path}/{text}") == f"{kind}{tmp_path}/{text}"
    for text in ("imagefolder:x", "cifar10", f"{tmp_path}/x.bin", f"{tmp_path}/none", "embeddings:e.npz"):
        assert guess_source(text) == text


def test_a_folder_with_the_name_of_a_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert guess_source("digits") == "digits"
    (tmp_path / "digits").mkdir()
    (tmp_path / "pets").mkdir()
    assert guess_source("pets") == "imagefolder:pets"
    with pytest.raises(
        ValueError, match="'digits' is the name of a built-in data set, and of a folder here: write image"
    ):
        guess_source("digits")


def test_the_same_files_are_the_same_source():
    assert same_images(parse_source("table:a/b.csv"), parse_source("table:a/../a/b.csv"))
    assert not same_images(parse_source("table:a.csv"), parse_source("parquet:a.csv"))
    assert same_images(parse_source("cifar10"), parse_source("cifar10:x"))
