"""Tables as sources of images: the forms in which public data sets come, and the traps in them."""

import json
from collections import Counter

import pytest
from support.tables import CLASSES, as_json, lines, names, pictures

from nc_tools.data import DataConfig
from nc_tools.data.list_source import list_source
from nc_tools.data.load_data import load_data
from nc_tools.data.source_names import parse_source
from nc_tools.data.subsets import make_subsets
from nc_tools.data.table_config import TableConfig
from nc_tools.data.table_name import parse_table_name
from nc_tools.data.table_paths import ImageIndex

TRUE = Counter({"ape": 15, "bat": 8, "cow": 7})


def listed(source, *, skip_missing=False, **table):
    return list_source(parse_source(str(source)), table=TableConfig(**table), skip_missing=skip_missing)


def counts(images, part=None):
    rows = images.all_images if part is None else getattr(images, part)
    return Counter(images.classes[k] for k in rows.labels.tolist())


def right(images, truth, *, stem=True):
    """Every image has the label that its row gives it."""
    rows = images.all_images
    found = {}
    for path, k in zip(rows.paths, rows.labels.tolist(), strict=True):
        name = path.rpartition("/")[2]
        found[name.rpartition(".")[0] if stem else name] = images.classes[k]
    assert found == dict(truth)


def said(images):
    return " | ".join(images.reading.sentences)


@pytest.fixture
def flat(tmp_path):
    """30 pictures in one folder, as on Kaggle."""
    pictures(tmp_path / "train_images", [f"{name}.png" for name, _ in names()])
    return tmp_path


FORMS = {
    "aptos": lambda rows: ["id_code,diagnosis", *(f"{n},{c}" for n, c in rows)],
    "with extension": lambda rows: ["image_id,label", *(f"{n}.png,{c}" for n, c in rows)],
    "semicolon, quotes and blanks": lambda rows: ['"Image" ; "Class"', *(f'"{n}.png" ; "{c}" ' for n, c in rows)],
    "tab": lambda rows: ["filename\tspecies", *(f"{n}.png\t{c}" for n, c in rows)],
    "says its separator": lambda rows: ["sep=;", "Image;y", *(f"{n}.png;{c}" for n, c in rows)],
    "list without header": lambda rows: [f"train_images/{n}.png {c}" for n, c in rows],
    "csv without header": lambda rows: [f"train_images/{n}.png,{c}" for n, c in rows],
    "comment and count": lambda rows: ["# made by hand", str(len(rows)), "path,label", *(f"{n},{c}" for n, c in rows)],
    "absolute paths": lambda rows: ["path,label", *(f"/home/me/set/train_images/{n}.png,{c}" for n, c in rows)],
    "windows paths": lambda rows: ["path,label", *(f"D:\\set\\train_images\\{n}.PNG,{c}" for n, c in rows)],
    "addresses": lambda rows: ["url,label", *(f"https://x.org/d/{n}.png?size=3,{c}" for n, c in rows)],
    "split first": lambda rows: [f"TRAIN,gs://b/{n}.png,{c}" for n, c in rows],
    "more columns": lambda rows: [
        "id,width,height,age,score,label", *(f"{n},8,8,{i},{i / 7:.3f},{c}" for i, (n, c) in enumerate(rows))
    ],
    "unnamed index": lambda rows: [",image,dx", *(f"{i},{n},{c}" for i, (n, c) in enumerate(rows))],
    "trailing comma": lambda rows: ["image,label,", *(f"{n},{c}" for n, c in rows)],
    "one hot": lambda rows: [
        "image,ape,bat,cow,UNK,score_weight,validation_weight",
        *(f"{n},{c == 'ape':d}.0,{c == 'bat':d}.0,{c == 'cow':d}.0,0.0,1.0,{n[-1]}" for n, c in rows),
    ],
    "id and name": lambda rows: ["file,class_id,class_name", *(f"{n},{CLASSES.index(c)},{c}" for n, c in rows)],
    "the only column with few values": lambda rows: [
        "image,note,kind", *(f"{n},seen {n},{c}" for n, c in rows)
    ],
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(("end", "encoding"), [("\n", "utf-8"), ("\r\n", "utf-8-sig"), ("\n", "utf-16")])
def test_a_flat_folder_with_a_table(flat, form, end, encoding):
    lines(flat / "train.csv", *form(names()), end=end, encoding=encoding)
    images = listed(f"table:{flat / 'train.csv'}")
    assert images.classes == CLASSES
    assert counts(images) == TRUE
    right(images, names())
    assert counts(images, "test") == {"ape": 3, "bat": 2, "cow": 1}
    assert "30 rows" in said(images)
    assert "names 30 of 30 images" in said(images)


JSON_FORMS = {
    "records": lambda rows: [{"file_name": f"{n}.png", "label": c} for n, c in rows],
    "nested records": lambda rows: [
        {"data": {"image": f"/data/upload/3/ab12cd34-{n}.png"}, "choice": c} for n, c in rows
    ],
    "paths by class": lambda rows: {k: [f"train_images/{n}" for n, c in rows if c == k] for k in CLASSES},
    "labels by path": lambda rows: {f"{n}.png": c for n, c in rows},
    "classes and labels": lambda rows: {"classes": list(CLASSES), "labels": {n: CLASSES.index(c) for n, c in rows}},
    "coco": lambda rows: {
        "images": [{"id": i, "file_name": f"{n}.png", "width": 8} for i, (n, _) in enumerate(rows)],
        "categories": [{"id": 7 + k, "name": c} for k, c in enumerate(CLASSES)],
        "annotations": [
            {"id": j, "image_id": i, "category_id": 7 + CLASSES.index(c)}
            for j, (i, c) in enumerate((i, c) for i, (_, c) in enumerate(rows) for _ in range(2))
        ],
    },
}


@pytest.mark.parametrize("form", JSON_FORMS.values(), ids=JSON_FORMS)
def test_json(flat, form):
    as_json(flat / "all.json", form(names()))
    images = listed(f"table:{flat / 'all.json'}")
    right(images, names())
    assert images.classes == CLASSES


def test_json_lines(flat):
    rows = [json.dumps({"file_name": f"train_images/{n}.png", "label": c}) for n, c in names()]
    lines(flat / "metadata.jsonl", *rows)
    right(listed(f"table:{flat / 'metadata.jsonl'}"), names())


def test_windows_text_is_read_and_told(flat):
    rows = [(n, "chèvre" if c == "ape" else c) for n, c in names()]
    lines(flat / "t.csv", "image,label", *(f"{n},{c}" for n, c in rows), encoding="cp1252")
    images = listed(f"table:{flat / 't.csv'}")
    right(images, rows)
    assert "Windows-1252, because it is not UTF-8" in said(images)


def test_numbers_are_sorted_as_numbers_and_named_by_a_class_map(flat):
    codes = {"ape": 10, "bat": 2, "cow": 1}
    lines(flat / "t.csv", "image,label", *(f"{n},{codes[c]}.0" for n, c in names()))
    images = listed(f"table:{flat / 't.csv'}")
    assert images.classes == ("1", "2", "10")
    right(images, [(n, str(codes[c])) for n, c in names()])
    assert "labels: column label (whole numbers, 1 to 10)" in said(images)
    as_json(flat / "map.json", {"1": "cow", "2": "bat", "10": "ape", "11": "dog"})
    images = listed(f"table:{flat / 't.csv'}", class_map=str(flat / "map.json"))
    assert images.classes == ("cow", "bat", "ape")
    right(images, names())
    assert "labels: column label (named by the class map: 1 is cow, 2 is bat, 10 is ape)" in said(images)
    as_json(flat / "map.json", {"1": "cow", "2": "bat"})
    with pytest.raises(ValueError, match=r"t\.csv holds the label '10\.0', which the class map does not have"):
        listed(f"table:{flat / 't.csv'}", class_map=str(flat / "map.json"))


def test_two_folders_of_parts_and_groups_that_stay_whole(tmp_path):
    rows = names(120, "HAM_{:04d}")
    pictures(tmp_path, [f"HAM_images_part_{1 + (i > 60)}/{n}.jpg" for i, (n, _) in enumerate(rows)])
    lines(
        tmp_path / "HAM_metadata.csv", "lesion_id,image_id,dx,dx_type,age,sex,localization",
        *(f"L{i // 3},{n},{c},histo,{30 + i % 7},{'fm'[i % 2]},back" for i, (n, c) in enumerate(rows)), end="\r\n",
    )  # fmt: skip
    images = listed(f"table:{tmp_path / 'HAM_metadata.csv'}")
    right(images, rows)
    assert "groups: column lesion_id, 40 groups" in said(images)
    assert not {*images.train.groups} & {*images.test.groups}
    assert 15 <= len(images.test.paths) <= 35
    config = DataConfig(f"table:{tmp_path / 'HAM_metadata.csv'}")
    sources = load_data(config)
    subsets = make_subsets(sources, config, seed=0)
    groups = sources.train.groups
    assert not {*groups[subsets.fit].tolist()} & {*groups[subsets.holdout].tolist()}
    alone = listed(f"table:{tmp_path / 'HAM_metadata.csv'}", group_column="-")
    assert alone.train.groups is None
    named = listed(f"table:{tmp_path / 'HAM_metadata.csv'}", group_column="age")
    assert len({*named.train.groups, *named.test.groups}) == 7


def test_blank_groups_are_groups_of_their_own_and_coarse_ones_are_only_told(flat):
    rows = names()
    lines(
        flat / "t.csv", "image,label,patient", *(f"{n},{c},{'' if i < 6 else i // 2}" for i, (n, c) in enumerate(rows))
    )
    images = listed(f"table:{flat / 't.csv'}")
    assert "groups: column patient, 18 groups" in said(images)
    assert "6 rows without one are groups of their own" in said(images)
    lines(flat / "t.csv", "image,label,site", *(f"{n},{c},{i % 3}" for i, (n, c) in enumerate(rows)))
    images = listed(f"table:{flat / 't.csv'}:label")
    assert images.train.groups is None
    assert "not used as groups: column site (its 3 values are too few: the largest has 10 of 30 rows)" in said(images)


SPLITS = {
    "words": ("split", ["train", "test"]),
    "capitals": ("Subset", ["TRAIN", "TEST"]),
    "validation": ("set", ["training", "valid"]),
    "is_train": ("is_train", ["1", "0"]),
    "is_valid": ("is_valid", ["False", "True"]),
}


@pytest.mark.parametrize(("column", "values"), SPLITS.values(), ids=SPLITS)
def test_the_column_of_the_split(flat, column, values):
    rows = names()
    lines(flat / "t.csv", f"image,label,{column},fold",
          *(f"{n},{c},{values[i >= 20]},{i % 5}" for i, (n, c) in enumerate(rows)))  # fmt: skip
    images = listed(f"table:{flat / 't.csv'}")
    right(images, rows)
    assert [path.rpartition("/")[2] for path in images.test.paths] == [f"{n}.png" for n, _ in rows[20:]]
    assert f"split: column {column}, 20 for training and 10 for testing" in said(images)
    assert "not used: column fold (numbers of folds)" in said(images)
    anew = listed(f"table:{flat / 't.csv'}:label", split_column="-")
    assert "80 / 20 by class" in said(anew)


def test_three_parts_use_the_test_part_and_say_so(flat):
    parts = ("train", "train", "val", "test")
    rows = [(n, c, parts[i // 2 % 4]) for i, (n, c) in enumerate(names())]
    lines(flat / "t.csv", "image,label,split", *(",".join(row) for row in rows))
    images = listed(f"table:{flat / 't.csv'}")
    sizes = Counter(part for *_, part in rows)
    assert (len(images.train.paths), len(images.test.paths)) == (sizes["train"], sizes["test"])
    text = f"split: column split, {sizes['train']} for training and {sizes['test']} for testing"
    assert f"{text}; {sizes['val']} for validation are not used" in said(images)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ("train", "test", ""),
            "10 of 30 rows of .* have no value in column 'split', which is the split: fill",
        ),
        (
            ("test", "val", "val"),
            "has 0 rows for training and 10 for testing, and both are needed: correct it",
        ),
        (("train", "test", "x"), "column 'split' of .* is no split: it holds 'x', which is no word for training"),
    ],
)
def test_a_split_that_is_not_complete(flat, values, message):
    lines(flat / "t.csv", "image,label,split", *(f"{n},{c},{values[i % 3]}" for i, (n, c) in enumerate(names())))
    with pytest.raises(ValueError, match=message):
        listed(f"table:{flat / 't.csv'}", split_column="split")
    assert "80 / 20" in said(listed(f"table:{flat / 't.csv'}:label", split_column="-"))


def test_one_table_for_each_part(tmp_path):
    """Roboflow's form: the same names in both folders, each beside its table."""
    for part, count in (("train", 20), ("test", 8)):
        rows = names(count, "{}.jpg")
        pictures(tmp_path / part, [n for n, _ in rows])
        lines(tmp_path / part / "_classes.csv", "filename, ape, bat, cow",
              *(f"{n}, {c == 'ape':d}, {c == 'bat':d}, {c == 'cow':d}" for n, c in rows))  # fmt: skip
    source = f"table:{tmp_path / 'train' / '_classes.csv'}@{tmp_path}"
    images = listed(source, test_table=str(tmp_path / "test" / "_classes.csv"))
    assert (len(images.train.paths), len(images.test.paths)) == (20, 8)
    assert {path.partition("/")[0] for path in images.train.paths} == {"train"}
    assert counts(images, "test") == Counter(c for _, c in names(8))
    assert "split: _classes.csv is for training, _classes.csv for testing" in said(images)
    with pytest.raises(ValueError, match=r"20 images are in both tables, such as train/0\.jpg"):
        listed(source, test_table=str(tmp_path / "train" / "_classes.csv"))


def test_a_list_is_a_choice_of_images(tmp_path):
    """ImageNet-LT's form: blank-separated lists over class folders; the label of the list counts."""
    rows = [(f"train/n{k}/{i}.JPEG", k) for k in range(3) for i in range(10)]
    pictures(tmp_path, [path for path, _ in rows] + [f"val/n{k}/{i}.JPEG" for k in range(3) for i in range(3)])
    lines(tmp_path / "train.txt", *(f"{path} {k}" for path, k in rows if int(path[9]) < 10 - 3 * k))
    lines(tmp_path / "test.txt", *(f"val/n{k}/{i}.JPEG {k}" for k in range(3) for i in range(3)))
    images = listed(f"table:{tmp_path / 'train.txt'}", test_table=str(tmp_path / "test.txt"))
    assert counts(images, "train") == {"0": 10, "1": 7, "2": 4}
    assert counts(images, "test") == {"0": 3, "1": 3, "2": 3}
    assert "9 of 39 images there have no row and are left out" in said(images)


def test_a_list_of_paths_takes_the_folders_as_labels(tmp_path):
    pictures(tmp_path, [f"{c}/image_{i:04d}.jpg" for c in CLASSES for i in range(9)])
    lines(tmp_path / "list.txt", *(f"{c}/image_{i:04d}.jpg" for c in CLASSES for i in range(6)))
    images = listed(f"table:{tmp_path / 'list.txt'}")
    assert counts(images) == {"ape": 6, "bat": 6, "cow": 6}
    assert "labels: the folder of each image" in said(images)


def test_names_with_blanks_and_commas(tmp_path):
    rows = [(f"images ({i}).jpg", c) for i, (_, c) in enumerate(names())]
    pictures(tmp_path, [n for n, _ in rows])
    lines(tmp_path / "list.txt", *(f"{n} {c}" for n, c in rows))
    right(listed(f"table:{tmp_path / 'list.txt'}"), rows, stem=False)
    lines(tmp_path / "list.csv", "file,label", *(f'{n},"{c}, wild"' for n, c in rows))
    right(listed(f"table:{tmp_path / 'list.csv'}"), [(n, f"{c}, wild") for n, c in rows], stem=False)
    lines(
        tmp_path / "bad.csv", "file,label", *(f"{n},{c}{', wild' if i == 7 else ''}" for i, (n, c) in enumerate(rows))
    )
    with pytest.raises(ValueError, match=r"no column of .*line 9 has 3 values where most lines have 2: .*in quotes"):
        listed(f"table:{tmp_path / 'bad.csv'}")


def test_numbered_names_are_not_numbers(tmp_path):
    rows = [(n, c) for n, c in zip(["0007", "1e003", "007", "7.0", *map(str, range(10, 36))], "ab" * 15, strict=True)]
    pictures(tmp_path, [f"{n}.png" for n, _ in rows])
    lines(tmp_path / "t.csv", "id,label", *(f"{n},{c}" for n, c in rows))
    right(listed(f"table:{tmp_path / 't.csv'}"), rows)


def test_na_and_none_are_names(flat):
    rows = [(n, {"ape": "NA", "bat": "None", "cow": "null"}[c]) for n, c in names()]
    lines(flat / "t.csv", "id,label", *(f"{n},{c}" for n, c in rows))
    assert listed(f"table:{flat / 't.csv'}").classes == ("NA", "None", "null")


UNCLEAR = {
    "empty": (lambda i, c: "" if i == 4 else c, "1 of 30 rows .* no label in .*, such as line 6", "1 without label"),
    "pandas' nan": (lambda i, c: "nan" if i < 3 else c, "3 of 30 rows of .* no label .* line 2", "3 without label"),
    "bar": (lambda i, c: "ape|bat" if i == 4 else c, "1 of 30 rows .* several .* 'ape.bat' in", "1 with several"),
    "blank": (lambda i, c: "ape bat" if i in (4, 8) else c, "2 of 30 rows .* 'ape bat' in line", "2 with several"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message", "counted"), UNCLEAR.values(), ids=UNCLEAR)
def test_rows_without_one_label_are_refused_or_left_out(flat, change, message, counted):
    rows = names()
    lines(flat / "t.csv", "image,label", *(f"{n},{change(i, c)}" for i, (n, c) in enumerate(rows)))
    with pytest.raises(ValueError, match=f"{message}.*--set data.table.unclear_labels=skip"):
        listed(f"table:{flat / 't.csv'}")
    images = listed(f"table:{flat / 't.csv'}", unclear_labels="skip")
    right(images, [(n, c) for i, (n, c) in enumerate(rows) if change(i, c) == c])
    assert f"rows left out: {counted}" in said(images)


def test_one_label_against_the_others_where_rows_have_several(flat):
    rows = [(n, c if c == "ape" else f"{c} ape" if i % 3 else c) for i, (n, c) in enumerate(names())]
    lines(flat / "t.csv", "image,label", *(f"{n},{c}" for n, c in rows))
    with pytest.raises(ValueError, match=r"or train on one label against all others with .*positive=bat"):
        listed(f"table:{flat / 't.csv'}")
    images = listed(f"table:{flat / 't.csv'}", positive="bat")
    assert images.classes == ("bat", "not bat")
    right(images, [(n, "bat" if "bat" in c else "not bat") for n, c in rows])
    with pytest.raises(ValueError, match=r"no row of .* has the label 'bee' in column 'label'"):
        listed(f"table:{flat / 't.csv'}", positive="bee")


def test_columns_of_classes_need_exactly_one_1(flat):
    ones = [{c, "ape"} if i == 1 else set() if i == 2 else {c} for i, (_, c) in enumerate(names())]
    cells = [",".join(str(int(k in has)) for k in CLASSES) for has in ones]
    lines(flat / "t.csv", "image,ape,bat,cow", *(f"{n},{row}" for (n, _), row in zip(names(), cells, strict=True)))
    with pytest.raises(ValueError, match=r"2 of 30 rows of .* exactly one 1 in the columns ape, bat, cow, .*line 3"):
        listed(f"table:{flat / 't.csv'}")
    assert len(listed(f"table:{flat / 't.csv'}", unclear_labels="skip").all_images.paths) == 28
    images = listed(f"table:{flat / 't.csv'}", positive="cow")
    assert counts(images) == {"cow": 7, "not cow": 23}
    images = listed(f"table:{flat / 't.csv'}:bat")
    assert counts(images) == {"0": 22, "1": 8}


def test_annotators_who_disagree(flat):
    rows = names()
    given = [
        [c, c, "bat"] if i < 5 else [c, "cow" if c == "ape" else "ape"] if i == 6 else [c]
        for i, (_, c) in enumerate(rows)
    ]
    text = [f"{n},{label},{k}" for (n, _), labels in zip(rows, given, strict=True) for k, label in enumerate(labels)]
    lines(flat / "t.csv", "image,choice,annotator", *text)
    odd = [i for i, labels in enumerate(given) if len(set(labels)) > 1]
    with pytest.raises(
        ValueError, match=rf"{len(odd)} images have rows that disagree .* 'ape' in line 2 and 'bat' in line 4"
    ):
        listed(f"table:{flat / 't.csv'}")
    images = listed(f"table:{flat / 't.csv'}", unclear_labels="skip")
    right(images, [row for i, row in enumerate(rows) if i not in odd])
    images = listed(f"table:{flat / 't.csv'}", unclear_labels="majority")
    right(images, [row for i, row in enumerate(rows) if i != 6])
    assert (
        f"rows disagree about {len(odd)} images: {len(odd) - 1} take the most frequent label, 1 are left out"
        in said(images)
    )


def test_rows_without_an_image_stop_or_are_counted(flat):
    lines(flat / "t.csv", "image,label", *(f"{n},{c}" for n, c in names(40)))
    with pytest.raises(
        ValueError, match=r"10 of 40 rows .* no image below .*, such as 'img_030' in line 32: .*--skip-m"
    ):
        listed(f"table:{flat / 't.csv'}")
    images = listed(f"table:{flat / 't.csv'}", skip_missing=True)
    right(images, names())
    assert "10 rows of t.csv name no image and are left out" in said(images)


def test_a_table_of_a_much_larger_set(flat):
    lines(flat / "t.csv", "path,worse", *(f"train_images/{n}.png,{c}" for n, c in names(3000)))
    right(listed(f"table:{flat / 't.csv'}", skip_missing=True), names())
    few = names(3000)[1000:] + names(3)
    lines(flat / "t.csv", "path,worse", *(f"train_images/{n}.png,{c}" for n, c in few))
    images = listed(f"table:{flat / 't.csv'}:worse", skip_missing=True)
    assert len(images.all_images.paths) == 3


def test_two_images_for_one_name_are_refused(tmp_path):
    pictures(tmp_path, [f"{folder}/{n}.png" for folder in ("images", "masks") for n, _ in names()])
    lines(tmp_path / "t.csv", "image,label", *(f"{n},{c}" for n, c in names()))
    with pytest.raises(
        ValueError, match=r"30 rows .* more than one image, such as 'img_000': images/img_0.* and masks/"
    ):
        listed(f"table:{tmp_path / 't.csv'}")
    right(listed(f"table:{tmp_path / 't.csv'}@{tmp_path / 'images'}"), names())


def test_a_row_never_names_the_image_of_another_part(tmp_path):
    """The table lists 40 training images, of which 3 are here; the test folder has all the names."""
    rows = names(40, "{}.png")
    pictures(tmp_path, [f"train/{n}" for n, _ in rows[:3]] + [f"test/{n}" for n, _ in rows])
    lines(tmp_path / "t.csv", "path,label", *(f"train/{n},{c}" for n, c in rows))
    index = ImageIndex(sorted([f"train/{n}" for n, _ in rows[:3]] + [f"test/{n}" for n, _ in rows]))
    found = index.match([f"train/{n}" for n, _ in rows]).images
    assert [None if i is None else index.files[i] for i in found] == [f"train/{n}" for n, _ in rows[:3]] + [None] * 37


@pytest.mark.parametrize(
    ("files", "values", "found"),
    [
        (["a/1.jpg", "b/1.jpg"], ["a/1", "b/1"], [0, 1]),
        (["a/1.jpg", "a/1.png"], ["1.png", "1.jpg"], [1, 0]),
        (["a/A.JPG"], ["a/a.jpg", "A", "nothing"], [0, 0, None]),
        (["x.y/z.v.png"], ["z.v", "z"], [0, None]),
        (["1.jpg"], ["12345678-1.jpg", "1234567-1.jpg"], [0, None]),
        (["set/a/1.jpg"], ["/other/root/set/a/1.jpg", "a/1.jpg"], [0, 0]),
    ],
)
def test_ways_to_name_an_image(files, values, found):
    assert [ImageIndex(files).match([value]).images[0] for value in values] == found


NOT_CLEAR = {
    "many columns": ("image,a,b,c", lambda i: f"{i % 3},{i % 4},{i % 5}", "not clear which column .* a .3 values., b"),
    "two labels": ("image,label,species", lambda i: f"{i % 3},{i % 2}", "'label' and 'species' .* could both be"),
    "an id": ("image,label", lambda i: f"x{i}", "30 different values in 30 rows, which is too many"),
    "numbers and text": ("image,label", lambda i: str(i % 7) if i else "x", r"labels of .*t\.csv holds .* and also x"),
    "attributes": ("image,Hat,Male", lambda i: f"{(-1) ** i},{(-1) ** (i // 2)}", "it is not clear which column"),
}  # fmt: skip


@pytest.mark.parametrize(("header", "row", "message"), NOT_CLEAR.values(), ids=NOT_CLEAR)
def test_what_is_not_clear_is_asked(flat, header, row, message):
    lines(flat / "t.csv", header, *(f"{n},{row(i)}" for i, (n, _) in enumerate(names())))
    with pytest.raises(ValueError, match=message):
        listed(f"table:{flat / 't.csv'}")


def test_a_blank_separated_table_with_a_count_and_a_short_header(flat):
    """CelebA's form: a number, a header without the column of names, rows with 1 and -1."""
    rows = names()
    lines(flat / "a.txt", "30", "Smiling Hat", *(f"{n}.png  {1 if c == 'ape' else -1}  1" for n, c in rows))
    images = listed(f"table:{flat / 'a.txt'}:Smiling")
    assert images.classes == ("-1", "1")
    right(images, [(n, "1" if c == "ape" else "-1") for n, c in rows])


BAD_FILES = {
    "binary": (bytes(range(256)) * 20, "is not text"),
    "matlab": (b"MATLAB 5.0 MAT-file" + b"\0" * 200, "is not text: save the table as CSV in UTF-8"),
    "excel": (b"PK\x03\x04" + b"x" * 99, "is not text: save the table as CSV in UTF-8"),
    "empty": (b"\n\n", "is empty: it must hold a row for each image"),
    "endless field": (b'image,label\n"' + b"x" * 200_000, "is not a readable table"),
    "json of something else": (b'{"a": {"b": 1}, "c": [2]}', "an object that is no table: it must be a list of"),
    "broken json": (b'[{"a": 1},', "is not valid JSON"),
    "deep json": (b"[" * 100_000, "is not valid JSON|nests too deep"),
    "coco": (b'{"images": [{"id": 1}], "annotations": [], "categories": []}', "looks like COCO, .* no 'file_name'"),
    "a header alone": (b"a,b\n", "has one line only, 'a', 'b', which names no image: it must hold a row"),
    "other images": (b"a,b\nnot_here,1\nnor_here,2\n", "names an image: line 2 holds 'not_here', '1', and images"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_is_no_table_gives_one_short_sentence(flat, content, message):
    (flat / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        listed(f"table:{flat / 't.csv'}")
    assert len(str(caught.value)) < 500


def test_a_large_json_is_not_quoted(flat):
    as_json(flat / "t.json", {"info": {"x": 1}, "values": [{"text": "y" * 60} for _ in range(60_000)]})
    assert (flat / "t.json").stat().st_size > 4_000_000
    with pytest.raises(ValueError, match=r"t\.json") as caught:
        listed(f"table:{flat / 't.json'}")
    assert len(str(caught.value)) < 500


def test_the_name_of_a_table(tmp_path):
    lines(tmp_path / "a@b.csv", "x")
    lines(tmp_path / "c:d.csv", "x")
    (tmp_path / "root").mkdir()
    base = str(tmp_path)
    assert parse_table_name(f"{base}/a@b.csv") == (tmp_path / "a@b.csv", None, None)
    assert parse_table_name(f"{base}/c:d.csv:kind") == (tmp_path / "c:d.csv", "kind", None)
    assert parse_table_name(f"{base}/a@b.csv:my column@{base}/root") == (
        tmp_path / "a@b.csv",
        "my column",
        tmp_path / "root",
    )
    with pytest.raises(FileNotFoundError, match=r"there is no table .*z\.csv: write table:FILE"):
        parse_table_name(f"{base}/z.csv:kind")
    with pytest.raises(FileNotFoundError, match=r"the folder of images .*nowhere does not exist: check the path"):
        parse_table_name(f"{base}/a@b.csv@{base}/nowhere")


def test_the_choice_is_in_the_reading_and_decides_the_fingerprint(flat):
    rows = names()
    lines(flat / "t.csv", "image,label,other", *(f"{n},{c},{'xy'[i % 2]}" for i, (n, c) in enumerate(rows)))
    sources = load_data(DataConfig(f"table:{flat / 't.csv'}"))
    assert sources.reading.choices["table labels"] == "label"
    assert sources.reading.choices["table images"] == "image"
    other = load_data(DataConfig(f"table:{flat / 't.csv'}:other"))
    assert other.fingerprint != sources.fingerprint


def test_bad_settings():
    with pytest.raises(ValueError, match=r"table\.unclear_labels must be one of refuse, skip, majority, got 'no'"):
        TableConfig(unclear_labels="no")


def test_shares_of_votes_are_refused_by_their_name(flat):
    shares = [f"{0.5 + i / 100:.2f},{0.5 - i / 100:.2f}" for i in range(30)]
    lines(flat / "t.csv", "image,ape,bat", *(f"{n},{s}" for (n, _), s in zip(names(), shares, strict=True)))
    with pytest.raises(ValueError, match=r"columns ape, bat of .* hold shares of votes, which sum to 1 in each row"):
        listed(f"table:{flat / 't.csv'}")


def test_the_age_of_a_patient_is_no_group(flat):
    rows = [f"{n},{c},{20 + i % 15},p{i // 2}" for i, (n, c) in enumerate(names())]
    lines(flat / "t.csv", "image,label,patient_age,PatientID", *rows)
    assert "groups: column PatientID, 15 groups" in said(listed(f"table:{flat / 't.csv'}"))


def test_classes_that_differ_in_case_only_are_told(flat):
    rows = [(n, "Ape" if i < 4 and c == "ape" else c) for i, (n, c) in enumerate(names())]
    lines(flat / "t.csv", "image,label", *(f"{n},{c}" for n, c in rows))
    assert "classes that differ only in case or blanks: 'Ape' and 'ape'" in said(listed(f"table:{flat / 't.csv'}"))


def test_decimal_commas_are_whole_numbers(flat):
    lines(flat / "t.csv", "image;label", *(f"{n};{CLASSES.index(c)},0" for n, c in names()))
    assert listed(f"table:{flat / 't.csv'}").classes == ("0", "1", "2")


def test_several_folders_of_images_and_labels_with_bars(tmp_path):
    """The form of the NIH chest X-rays: 12 folders, findings joined by bars, a header with commas in brackets."""
    found = [("Mass", "Nodule", "Mass|Nodule", "No Finding")[i % 4] for i in range(80)]
    pictures(tmp_path, [f"images_{1 + i // 20:03d}/images/{i:08d}_000.png" for i in range(80)])
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,OriginalImage[Width,Height],"
    lines(
        tmp_path / "Data.csv",
        header,
        *(f"{i:08d}_000.png,{f},0,{i // 2},{30 + i % 40},8,8," for i, f in enumerate(found)),
    )
    with pytest.raises(ValueError, match=r"20 of 80 rows of .* have several labels .* 'Mass\|Nodule' in line 4"):
        listed(f"table:{tmp_path / 'Data.csv'}")
    images = listed(f"table:{tmp_path / 'Data.csv'}", positive="Mass")
    assert counts(images) == {"Mass": 40, "not Mass": 40}
    assert "groups: column Patient ID, 40 groups" in said(images)
    assert counts(listed(f"table:{tmp_path / 'Data.csv'}", unclear_labels="skip"))["Nodule"] == 20


def test_one_image_a_class_and_one_class_are_refused(flat):
    pictures(flat / "few", [f"{c}.png" for c in CLASSES])
    lines(flat / "few" / "t.csv", "image,label", *(f"{c}.png,{c}" for c in CLASSES))
    with pytest.raises(ValueError, match=r"none can be taken from .*, because every class has only one image"):
        listed(f"table:{flat / 'few' / 't.csv'}:label")
    lines(flat / "t.csv", "image,label", *(f"{n},ape" for n, _ in names()))
    with pytest.raises(ValueError, match=r"at least two classes, but .* has only ape"):
        listed(f"table:{flat / 't.csv'}:label")


def test_long_values_are_cut_in_messages(flat):
    lines(flat / "t.csv", "image,label", *(f"{n},{c}" for n, c in names()), f"{'x' * 5000},ape")
    with pytest.raises(ValueError, match="name no image") as caught:
        listed(f"table:{flat / 't.csv'}")
    assert len(str(caught.value)) < 700
