"""Class maps: files that give names to the labels of a table."""

import pytest
from support.tables import CLASSES

from nc_tools.data.class_map import read_class_map

MAPS = {
    "json": ('{"0": "ape", "1": "bat", "2": "cow"}', "012"),
    "json, numbers by name": ('{"ape": 0, "bat": 1, "cow": 2}', "012"),
    "json list": ('["ape", "bat", "cow"]', "012"),
    "a name a line, from 1": ("ape\nbat\ncow\n", "123"),
    "a name a line, from 0": ("ape\nbat\ncow\n", "012"),
    "number and name": ("0 ape\n1 bat\n2 cow\n", "012"),
    "csv": ("id,name\n0,ape\n1,bat\n2,cow\n", "012"),
    "codes": ("code,name\na,ape\nb,bat\nc,cow\n", "abc"),
    "codes, name first": ("name,code\nape,a\nbat,b\ncow,c\n", "abc"),
}


@pytest.mark.parametrize(("text", "labels"), MAPS.values(), ids=MAPS)
def test_class_maps(tmp_path, text, labels):
    (tmp_path / "map.txt").write_text(text)
    names = read_class_map(tmp_path / "map.txt", set(labels))
    assert [names[label] for label in labels] == list(CLASSES)


def test_a_class_that_is_named_by_a_number_is_no_count_of_the_rows(tmp_path):
    (tmp_path / "map.txt").write_text("747\nA320\nA340\n")
    assert read_class_map(tmp_path / "map.txt", set("012")) == {"0": "747", "1": "A320", "2": "A340"}
    (tmp_path / "map.txt").write_text("3\nape\nbat\ncow\n")
    assert read_class_map(tmp_path / "map.txt", set("012")) == dict(zip("012", CLASSES, strict=True))


@pytest.mark.parametrize(
    ("text", "labels", "message"),
    [
        ("ape\nbat\ncow\n", "12", "the first name may belong to 0 or to 1: give a map with labels"),
        ("ape\nbat\n", "012", "has 2 names, but the labels are 0 to 2"),
        ("ape\nbat\n", "ab", "names without labels, which fit only labels that are whole numbers"),
        ("{", "01", r"must be a class map such as \{"),
        ('{"a": [1]}', "01", "must be a class map such as"),
    ],
)
def test_class_maps_that_do_not_fit(tmp_path, text, labels, message):
    (tmp_path / "map.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_class_map(tmp_path / "map.txt", set(labels))
    with pytest.raises(FileNotFoundError, match=r"the class map .*none\.txt does not exist"):
        read_class_map(tmp_path / "none.txt", set(labels))
