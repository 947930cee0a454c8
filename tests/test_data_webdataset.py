"""Webdataset shards as a source: what they are taken for, and shards that cannot be used."""

import gzip
import json

import pytest
from support.shards import CLASSES, image, samples, shard

from nc_tools.data import DataConfig, load_data
from nc_tools.data.list_source import list_source
from nc_tools.data.source_names import parse_source
from nc_tools.data.table_config import TableConfig
from nc_tools.data.webdataset import expand_braces


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def listed(text, **options):
    return list_source(parse_source(f"webdataset:{text}"), **options)


def test_shards_with_classes_and_parts(home):
    for part, counts in (("train", (9, 6)), ("val", (3, 3))):
        for i, count in enumerate(counts):
            shard(home / "set" / f"birds-{part}-{i:03d}.tar", samples(count, start=100 * i))
    for text in ("set", "set/birds-{train,val}-{000..001}.tar", "set/*.tar"):
        images = listed(home / text)
        assert images.classes == CLASSES
        assert (len(images.train.paths), len(images.test.paths)) == (15, 6)
    assert images.divided
    assert "labels: column cls (names)" in images.reading.sentences
    sources = load_data(DataConfig(f"webdataset:{home / 'set'}"))
    for path, label, pixels in zip(sources.train.paths, sources.train.labels, sources.train.images, strict=True):
        number = int(path.rpartition("_")[2].partition(".")[0])
        assert int(label) == number % 3
        assert abs(int(pixels[0, 0, 0]) - 8 * number % 256) < 6


def test_a_label_in_json_with_groups(home):
    files = []
    for i in range(40):
        record = {"species": CLASSES[i % 3], "patient": f"p{i // 2}", "width": 8, "boxes": [1, 2]}
        files += [(f"{i:04d}.png", image(i, "PNG")), (f"{i:04d}.json", json.dumps(record).encode())]
    shard(home / "one.tar", files)
    images = listed(f"{home / 'one.tar'}:species")
    assert images.classes == CLASSES
    assert len(images.all_images.paths) == 40
    assert not {*images.train.groups} & {*images.test.groups}
    assert listed(home / "one.tar").classes == CLASSES  # the name of the column says what it is


def test_shards_are_unpacked_once_and_again_when_one_changes(home):
    shard(home / "set" / "0.tar", samples(12))
    first = listed(home / "set")
    made = (first.root / "key").stat().st_mtime_ns
    assert (listed(home / "set").root / "key").stat().st_mtime_ns == made
    shard(home / "set" / "0.tar", samples(15))
    assert len(listed(home / "set").all_images.paths) == 15


def test_names_in_a_shard_cannot_leave_the_folder(home):
    names = ("../../up", "/root/x", "a/b", "a_b", "a\x1b[2Jb")
    files = [
        file
        for i, name in enumerate(names * 4)
        for file in ((f"{name}{i // 5}.jpg", image(i)), (f"{name}{i // 5}.cls", CLASSES[i % 2].encode()))
    ]
    before = {path for path in home.rglob("*") if path.is_file()}
    shard(home / "odd.tar", files)
    images = listed(home / "odd.tar")
    assert len({*images.all_images.paths}) == 20
    new = {path for path in home.rglob("*") if path.is_file()} - before - {home / "odd.tar"}
    assert all(images.root in path.parents for path in new)
    assert len(new) == 20 + 2  # with the table and the key


def test_all_shards_that_are_cut_short_are_named(home):
    whole = shard(home / "set" / "0.tar", samples(30)).read_bytes()
    member = whole.index(b"s/0010.jpg")
    cuts = {"1": whole[: member + 700], "2": whole[:member], "3": whole[: member + 100], "4": b"", "5": b"x" * 9000}
    cuts["6"] = whole[:member] + b"y" * 512 + whole[member + 512 :]
    for name, content in cuts.items():
        (home / "set" / f"{name}.tar").write_bytes(content)
    (home / "set" / "7.tar.gz").write_bytes(gzip.compress(whole)[:-2000])
    with pytest.raises(ValueError, match=r"7 of 8 shards are damaged or cut short: .*") as caught:
        listed(home / "set")
    assert all(f"{name}.tar" in str(caught.value) for name in "123456")
    assert str(caught.value).endswith("Copy them again, or leave them out of the pattern")
    assert not (home / "cache" / "nc_tools" / "unpacked").exists() or not [
        *(home / "cache" / "nc_tools" / "unpacked").iterdir()
    ]
    (home / "set" / "whole").mkdir()
    (home / "set" / "whole" / "7.tar.gz").write_bytes(gzip.compress(whole))
    assert len(listed(home / "set" / "whole" / "7.tar.gz").all_images.paths) == 30


def test_samples_that_cannot_be_used_are_named(home):
    def refused(files, match, **options):
        shard(home / "x.tar", files)
        with pytest.raises(ValueError, match=match):
            listed(home / "x.tar", **options)

    refused([("0.jpg", image(0)), ("1.jpg", image(1))], r"x\.tar have images and no labels: each needs a file KEY\.cls")
    refused([*samples(6), ("t.cls", b"ape")], r"1 of 7 samples of .*x\.tar have no image: t\. Images are files such as")
    refused([*samples(6), ("s/0001.png", image(1, "PNG"))], r"the sample s/0001 of .*x\.tar has two images")
    refused([*samples(6), ("s/0001.json", b"{")], r"s/0001\.json of .*x\.tar cannot be read as JSON, got b'\{': write")
    refused([*samples(6), ("s/0001.cls", b"\xff")], r"s/0001\.cls of .*x\.tar cannot be read as text")
    refused(
        [*samples(6), ("s/0001.cls", bytes(2 << 20))], r"s/0001\.cls of .* has 2,097,152 bytes, too many for a label"
    )
    refused([*samples(12), ("no.jpg", image(3))], r"1 of 13 rows of .* have no label in column 'cls', such as line 14")
    assert len(listed(home / "x.tar", table=TableConfig(unclear_labels="skip")).all_images.paths) == 12


def test_missing_shards_are_named(home):
    shard(home / "a-0.tar", samples(12))
    with pytest.raises(FileNotFoundError, match=r"1 of 2 shards do not exist: .*a-1\.tar"):
        listed(home / "a-{0..1}.tar")
    for name in ("b*.tar", "none"):
        with pytest.raises(FileNotFoundError, match=r"no shard|do not exist"):
            listed(home / name)
    (home / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"there is no shard \(\*\.tar\) at .*empty: check the path"):
        listed(home / "empty")


def test_patterns():
    assert expand_braces("a") == ["a"]
    assert expand_braces("{a}") == ["{a}"]
    assert expand_braces("x{9..11}y{0..1}") == ["x9y0", "x9y1", "x10y0", "x10y1", "x11y0", "x11y1"]
