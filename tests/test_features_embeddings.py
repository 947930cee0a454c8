"""Embedding files: every format gives the same sets, and what cannot be right is refused in one sentence."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from safetensors.numpy import save_file
from support.embedding_files import WRITERS, columns, write_npz, write_parquet

from nc_tools.features import FeatureSet, read_embeddings


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_every_format_gives_the_same_sets(tmp_path, write):
    values = columns()
    read = read_embeddings(write(tmp_path, values))
    assert (len(read.train), len(read.test)) == (30, 10)
    assert read.train.classes == ("class 0", "class 1", "class 2", "class 3")
    assert np.array_equal(read.train.features.numpy(), values["features"][:30])
    assert read.test.labels.tolist() == [i % 4 for i in range(30, 40)]
    assert read.test.paths == tuple(f"row{i}" for i in range(30, 40))
    assert read.notes == ()


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_half_precision_stays_and_is_given_out_as_float32(tmp_path, write):
    values = columns()
    values["features"] = values["features"].astype(np.float16)
    train = read_embeddings(write(tmp_path, values)).train
    assert train.features.dtype == torch.float16
    taken = train.take(torch.tensor([3, 1]))
    assert taken.dtype == torch.float32
    assert np.array_equal(taken.numpy(), values["features"][[3, 1]].astype(np.float32))


def test_whole_numbers_are_sorted_as_numbers_also_when_written_as_text(tmp_path):
    numbers = np.asarray([10, 9, 2] * 8)
    split = np.asarray(["train"] * 18 + ["test"] * 6)
    for labels in (numbers, numbers.astype(str), numbers.astype(np.float64)):
        values = {"features": np.random.default_rng(0).normal(size=(24, 3)), "labels": labels, "split": split}
        read = read_embeddings(write_npz(tmp_path, values))
        assert read.train.classes == ("2", "9", "10")
        assert read.train.labels[:3].tolist() == [2, 1, 0]


@pytest.mark.parametrize("labels", [np.arange(40) % 3, np.asarray(["cat", "dog", "ape"] * 13 + ["cat"])])
def test_class_names_keep_their_order_whether_labels_are_numbers_or_names(tmp_path, labels):
    read = read_embeddings(write_npz(tmp_path, columns(labels=labels, classes=np.asarray(["cat", "dog", "ape"]))))
    assert read.train.classes == ("cat", "dog", "ape")
    assert read.train.labels[:3].tolist() == [0, 1, 2]


def test_without_a_split_a_fifth_of_each_class_is_the_test_set(tmp_path):
    read = read_embeddings(write_npz(tmp_path, columns(split=None)))
    assert read.test.labels.bincount().tolist() == [2, 2, 2, 2]
    assert sorted((*read.train.paths, *read.test.paths)) == sorted(f"row{i}" for i in range(40))
    assert "no split" in read.notes[0]
    assert read_embeddings(write_npz(tmp_path, columns(split=None))).test.paths == read.test.paths


def test_a_class_of_one_row_stays_in_training(tmp_path):
    labels = np.asarray(["common"] * 39 + ["single"])
    read = read_embeddings(write_npz(tmp_path, columns(labels=labels, split=None)))
    assert read.train.labels.bincount().tolist()[1] == 1
    assert read.test.labels.bincount(minlength=2).tolist()[1] == 0


@pytest.mark.parametrize(
    ("split", "sizes", "said"),
    [
        (["train"] * 20 + ["val"] * 10 + ["test"] * 10, (30, 10), "join the training rows"),
        (["Training"] * 30 + ["validation"] * 10, (30, 10), "the val rows are the test set"),
    ],
)
def test_val_rows_join_training_or_are_the_test_set(tmp_path, split, sizes, said):
    read = read_embeddings(write_npz(tmp_path, columns(split=np.asarray(split))))
    assert (len(read.train), len(read.test)) == sizes
    assert said in read.notes[0]


def test_outlier_rows_are_sets_of_their_own_and_need_no_label(tmp_path):
    split = np.asarray(["train"] * 20 + ["test"] * 10 + ["ood_near"] * 4 + ["ood_far"] * 6)
    labels = np.where(np.arange(40) < 30, np.arange(40) % 2, -7).astype(np.float64)
    labels[-1] = np.nan
    read = read_embeddings(write_npz(tmp_path, columns(split=split, labels=labels)))
    assert read.train.classes == ("0", "1")
    assert {name: len(part) for name, part in read.ood.items()} == {"near": 4, "far": 6}


def test_equal_rows_in_both_parts_are_counted(tmp_path):
    values = columns()
    values["features"][35] = values["features"][2]
    assert (
        "1 of 10 test rows have exactly the features of a training row"
        in read_embeddings(write_npz(tmp_path, values)).notes[0]
    )


def broken(**change):
    return lambda values: values | {name: make(values) for name, make in change.items()}


def with_nan(values):
    features = values["features"].copy()
    features[7, 2], features[9, 0] = np.nan, np.inf
    return features


REFUSED = {
    "nan": (broken(features=with_nan), "2 of 40 rows of embeddings.npz hold NaN or infinity, first row 7"),
    "wrong n": (broken(labels=lambda v: v["labels"][:-1]), "one of labels for each of its 40 feature rows"),
    "wrong n ids": (broken(ids=lambda v: v["ids"][:5]), "one of ids for each"),
    "one vector": (broken(features=lambda v: v["features"][:, 0]), "numbers of shape (N, D)"),
    "texts": (broken(features=lambda v: v["features"].astype(str)), "numbers of shape (N, D)"),
    "no rows": (broken(features=lambda v: v["features"][:0]), "numbers of shape (N, D)"),
    "unseen": (broken(labels=lambda v: np.asarray([*v["labels"][:-1], "whale"])), "test rows of whale and no training"),
    "unused": (
        broken(classes=lambda _: np.asarray(["class 0", "class 1", "class 2", "class 3", "yak"])),
        "names yak in classes",
    ),
    "leak": (
        broken(ids=lambda v: np.asarray([*v["ids"][:-2], "row3", "row4"])),
        "2 ids of embeddings.npz are in the training and in the test rows (row3, row4)",
    ),
    "fractions": (broken(labels=lambda _: np.linspace(0, 3, 40)), "must be whole numbers or texts"),
    "missing labels": (broken(labels=lambda _: np.asarray([1.0] * 39 + [np.nan])), "must be whole numbers or texts"),
    "infinite": (broken(labels=lambda _: np.asarray([1.0] * 39 + [np.inf])), "must be whole numbers or texts"),
    "empty label": (broken(labels=lambda _: np.asarray(["a", " "] * 20)), "20 rows of embeddings.npz have no label"),
    "one class": (broken(labels=lambda _: np.zeros(40, int)), "at least 2 classes"),
    "outside classes": (
        broken(labels=lambda _: np.arange(40) % 5, classes=lambda _: np.asarray(["a", "b", "c", "d"])),
        "got 4: correct these labels",
    ),
    "a name twice": (broken(classes=lambda _: np.asarray(["a", "a"])), "different names, got a more than once"),
    "split": (broken(split=lambda _: np.asarray(["train", "dev"] * 20)), "got dev"),
    "no test": (broken(split=lambda _: np.asarray(["train"] * 40)), "0 test"),
    "objects": (
        broken(labels=lambda v: v["labels"].astype(object)),
        "the array labels of embeddings.npz holds Python objects",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused_in_one_sentence(tmp_path, name):
    change, message = REFUSED[name]
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read_embeddings(write_npz(tmp_path, change(columns())))
    assert "\n" not in str(error.value)


def test_an_id_twice_without_a_split_is_refused_because_it_could_fall_into_both_parts(tmp_path):
    ids = np.asarray([f"patient{i // 4}" for i in range(40)])
    with pytest.raises(ValueError, match="give the column split"):
        read_embeddings(write_npz(tmp_path, columns(ids=ids, split=None)))


def test_groups_stay_on_one_side_of_a_drawn_split(tmp_path):
    groups = np.asarray([f"patient{i // 4}" for i in range(40)])
    read = read_embeddings(write_npz(tmp_path, columns(groups=groups, split=None)))
    assert set(read.train.groups.tolist()) & set(read.test.groups.tolist()) == set()
    assert len(read.test) == 8
    pairs = zip(read.train.groups.tolist(), read.train.paths, strict=True)
    named = {(number, groups[int(path[3:])]) for number, path in pairs}
    assert len(named) == len({number for number, _ in named}) == 8
    chosen = torch.tensor([5, 0])
    assert torch.equal(read.train.subset(chosen).groups, read.train.groups[chosen])


def test_a_group_in_both_parts_is_refused(tmp_path):
    groups = np.asarray([i % 7 for i in range(40)])
    with pytest.raises(ValueError, match=r"7 groups of embeddings.npz are in the training and in the test rows"):
        read_embeddings(write_npz(tmp_path, columns(groups=groups)))


def test_single_rows_of_every_class_cannot_be_split(tmp_path):
    with pytest.raises(ValueError, match="no class has two rows"):
        read_embeddings(write_npz(tmp_path, columns(rows=4, split=None)))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing.npz does not exist"):
        read_embeddings(tmp_path / "missing.npz")
    for name in ("torn.npz", "torn.safetensors", "torn.parquet"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 nothing useful")
        with pytest.raises(ValueError, match=f"{name} cannot be read"):
            read_embeddings(tmp_path / name)
    (tmp_path / "table.csv").write_text("a,b")
    with pytest.raises(ValueError, match=r"must end in .npz, .safetensors, .parquet, got table.csv"):
        read_embeddings(tmp_path / "table.csv")
    path = write_npz(tmp_path, {"x": np.zeros((2, 2))})
    with pytest.raises(ValueError, match=r"no features and no labels \(it holds x\)"):
        read_embeddings(path)
    torn = write_npz(tmp_path, columns()).read_bytes()
    (tmp_path / "half.npz").write_bytes(torn[: len(torn) // 2])
    with pytest.raises(ValueError, match=r"half.npz cannot be read"):
        read_embeddings(tmp_path / "half.npz")


def test_a_pickle_in_an_npz_never_runs(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    with pytest.raises(ValueError, match="holds Python objects"):
        read_embeddings(write_npz(tmp_path, columns(labels=np.asarray([Trap()] * 40, dtype=object))))
    assert not (tmp_path / "ran").exists()


def test_parquet_lists_of_different_length_and_empty_entries_are_refused(tmp_path):
    path = tmp_path / "ragged.parquet"
    pq.write_table(pa.table({"features": [[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]], "labels": ["a", "b", "a"]}), path)
    with pytest.raises(ValueError, match="lengths from 1 to 3"):
        read_embeddings(path)
    pq.write_table(pa.table({"features": [[1.0], [2.0]], "labels": ["a", None]}), path)
    with pytest.raises(ValueError, match=r"column labels of ragged.parquet is empty in 1 rows"):
        read_embeddings(path)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float8_e5m2], ids=["BF16", "F8_E5M2"])
def test_numbers_of_a_type_that_numpy_lacks_are_named(tmp_path, kind, request):
    path = tmp_path / "embeddings.safetensors"
    safetensors.torch.save_file({"features": torch.ones(4, 3).to(kind), "labels": torch.arange(4) % 2}, path)
    expected = f"numbers of the type {request.node.callspec.id}, which numpy does not have: save it as float32"
    with pytest.raises(ValueError, match=expected):
        read_embeddings(path)


def test_a_type_that_a_package_has_added_to_numpy_is_named_too(tmp_path):
    pytest.importorskip("ml_dtypes")
    path = tmp_path / "embeddings.safetensors"
    safetensors.torch.save_file({"features": torch.ones(4, 3).bfloat16(), "labels": torch.arange(4) % 2}, path)
    with pytest.raises(ValueError, match="numbers of the type BF16, which numpy does not have: save it as float32"):
        read_embeddings(path)


def test_safetensors_metadata_must_be_lists(tmp_path):
    path = tmp_path / "odd.safetensors"
    save_file({"features": np.zeros((2, 2), np.float32)}, path, metadata={"labels": json.dumps("ab")})
    with pytest.raises(ValueError, match=r"entry labels of odd.safetensors must be a JSON list"):
        read_embeddings(path)


def test_a_column_of_fixed_size_lists_is_read(tmp_path):
    values = columns()
    flat = pa.FixedSizeListArray.from_arrays(pa.array(values["features"].ravel()), 6)
    path = tmp_path / "fixed.parquet"
    pq.write_table(pa.table({**{k: v for k, v in values.items() if k != "features"}, "features": flat}), path)
    assert np.array_equal(read_embeddings(path).train.features.numpy(), values["features"][:30])
    assert read_embeddings(write_parquet(tmp_path, values)).train.features.shape == (30, 6)


def test_a_feature_set_checks_its_parts():
    features, labels = torch.zeros(3, 2), torch.tensor([0, 1, 1])
    part = FeatureSet(features, labels, ("a", "b"), "x", clean_labels=labels, paths=("p", "q", "r"))
    half = part.subset(torch.tensor([2, 0]))
    assert (half.labels.tolist(), half.clean_labels.tolist(), half.paths) == ([1, 0], [1, 0], ("r", "p"))
    assert (len(half), half.num_classes, half.digests().shape) == (2, 2, (2, 32))
    with pytest.raises(ValueError, match="float16 or float32"):
        FeatureSet(features.double(), labels, ("a", "b"), "x")
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.0"):
        FeatureSet(features, labels, ("a",), "x")
    with pytest.raises(ValueError, match="labels must be int64"):
        FeatureSet(features, labels[:2], ("a", "b"), "x")
    with pytest.raises(ValueError, match="one id for each"):
        FeatureSet(features, labels, ("a", "b"), "x", paths=("p",))
