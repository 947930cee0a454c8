import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from nc_tools._support import free_memory
from nc_tools.data.cifar import default_root
from nc_tools.data.data_config import DataConfig
from nc_tools.data.imbalance import class_counts
from nc_tools.data.load_data import load_data
from nc_tools.data.subsets import make_subsets


@pytest.fixture(scope="module")
def digits():
    return load_data(DataConfig())


def test_digits_are_scikit_learns_and_split_in_halves(digits):
    from sklearn.datasets import load_digits

    raw = load_digits()
    ours = torch.cat([digits.train.images, digits.test.images]).flatten(1)
    labels = torch.cat([digits.train.labels, digits.test.labels])
    theirs = np.rint(raw.data * 255 / 16).astype(np.uint8)
    assert ours.dtype == torch.uint8
    assert sorted(zip(labels.tolist(), ours.tolist(), strict=True)) == sorted(
        zip(raw.target.tolist(), theirs.tolist(), strict=True)
    )
    train, test = (class_counts(part.labels, 10) for part in (digits.train, digits.test))
    assert int((train - test).abs().max()) <= 1
    assert digits.train.classes == tuple("0123456789")
    assert digits.train.shape == (1, 8, 8)


def test_mean_and_std_are_those_of_the_training_pixels(digits):
    pixels = digits.train.images.numpy() / 255
    assert digits.mean.tolist() == pytest.approx([pixels.mean()], abs=1e-12)
    assert digits.std.tolist() == pytest.approx([pixels.std()], abs=1e-12)


def test_the_fingerprint_depends_on_pixels_and_labels_only(digits):
    assert load_data(DataConfig(imbalance=10, holdout=0.3)).fingerprint == digits.fingerprint
    assert load_data(DataConfig(image_size=9)).fingerprint != digits.fingerprint
    assert load_data(DataConfig(held_out_classes=2)).fingerprint != digits.fingerprint
    assert len(digits.fingerprint) == 32


def test_held_out_classes_leave_and_become_the_transfer_set(digits):
    sources = load_data(DataConfig(held_out_classes=3))
    assert sources.train.classes == tuple("0123456")
    assert sources.transfer_train.classes == tuple("789")
    for images, kept, away in (
        (digits.train, sources.train, sources.transfer_train),
        (digits.test, sources.test, sources.transfer_test),
    ):
        assert torch.equal(kept.images, images.images[images.labels < 7])
        assert torch.equal(away.images, images.images[images.labels >= 7])
        assert torch.equal(away.labels, images.labels[images.labels >= 7] - 7)
    with pytest.raises(ValueError, match="hold out at most 8"):
        load_data(DataConfig(held_out_classes=9))


def test_another_size_is_resized(digits):
    larger = load_data(DataConfig(image_size=16))
    assert larger.test.shape == (1, 16, 16)
    assert float(larger.mean) == pytest.approx(float(digits.mean), abs=0.01)


@pytest.fixture
def birds(tmp_path):
    root = tmp_path / "birds"
    for split, count in (("train", 3), ("test", 2)):
        for name in ("crow", "owl"):
            for i in range(count):
                path = root / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (10, 10), (90, 30 * i, 200)).save(path)
    return root


def test_transfer_data_is_brought_to_size_and_channels_of_the_training_set(birds):
    to_gray = load_data(DataConfig(transfer_data=f"imagefolder:{birds}"))
    assert to_gray.transfer_train.shape == to_gray.train.shape == (1, 8, 8)
    assert int(to_gray.transfer_train.images[0, 0, 0, 0]) == round(0.299 * 90 + 0.114 * 200)
    to_color = load_data(DataConfig(source=f"imagefolder:{birds}", transfer_data="digits"))
    assert to_color.transfer_test.shape == to_color.train.shape == (3, 10, 10)
    assert to_color.transfer_test.num_classes == 10
    assert torch.equal(to_color.transfer_test.images[:, 0], to_color.transfer_test.images[:, 2])


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """A CIFAR-10 of 50 + 10 images in torchvision's own files."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, _ in CIFAR10.train_list + CIFAR10.test_list:
        labels = rng.permutation(10).tolist()
        raw = {"data": rng.integers(0, 256, (10, 3072), dtype=np.uint8), "labels": labels}
        (folder / name).write_bytes(pickle.dumps(raw))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda _: True)
    monkeypatch.setitem(CIFAR10.meta, "md5", None)
    return tmp_path


def test_cifar_is_read_from_its_folder(cifar):
    sources = load_data(DataConfig(source=f"cifar10:{cifar}"))
    assert sources.train.images.shape == (50, 3, 32, 32)
    assert len(sources.test) == 10
    with (cifar / "cifar-10-batches-py" / "test_batch").open("rb") as handle:
        raw = pickle.load(handle)
    assert sources.test.images.flatten(1).tolist() == raw["data"].tolist()
    assert sources.test.labels.tolist() == raw["labels"]
    assert sources.train.classes == tuple("abcdefghij")


def test_cifar_offline_says_what_to_do(tmp_path, monkeypatch):
    import urllib.request
    from urllib.error import URLError

    def offline(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    with pytest.raises(
        FileNotFoundError, match=r"cifar100 is not in .* and cannot be downloaded \(.*no route.*imagefolder:PATH"
    ):
        load_data(DataConfig(source=f"cifar100:{tmp_path}"))


def test_the_default_folder_of_cifar_is_not_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "nc_tools"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_root().is_absolute()


def test_subsets_are_the_same_for_a_seed_and_split_the_training_set(digits):
    config = DataConfig(imbalance=10, tail_order="class")
    one, same, other = (make_subsets(digits, config, seed) for seed in (4, 4, 5))
    for name in ("train", "fit", "holdout", "outside"):
        assert getattr(one, name).tolist() == getattr(same, name).tolist()
        assert getattr(one, name).tolist() != getattr(other, name).tolist()
    assert sorted(one.fit.tolist() + one.holdout.tolist()) == sorted(one.train.tolist())
    assert sorted(one.train.tolist() + one.outside.tolist()) == list(range(len(digits.train)))
    assert one.counts.tolist() == class_counts(digits.train.labels[one.train], 10).tolist()
    assert one.counts[0] == 89
    assert one.counts[-1] == 8
    held = class_counts(digits.train.labels[one.holdout], 10)
    assert [abs(h - 0.2 * n) <= 0.5 for h, n in zip(held.tolist(), one.counts.tolist(), strict=True)] == [True] * 10


def test_without_imbalance_nothing_is_outside(digits):
    subsets = make_subsets(digits, DataConfig(), 0)
    assert subsets.train.tolist() == list(range(len(digits.train)))
    assert len(subsets.outside) == 0


def test_an_imbalance_that_empties_a_class_names_it(digits):
    with pytest.raises(ValueError, match="none is left of 8, because 1 has only 91 images: lower the imbalance to 91"):
        make_subsets(digits, DataConfig(imbalance=100), 0)


def test_ldam_is_the_same_for_all_seeds_but_the_holdout_is_not(digits):
    config = DataConfig(imbalance=10, protocol="ldam")
    one, other = (make_subsets(digits, config, seed) for seed in (0, 1))
    assert one.train.tolist() == other.train.tolist()
    assert one.holdout.tolist() != other.holdout.tolist()


def test_free_memory_is_the_systems_or_the_containers_if_less(monkeypatch):
    import psutil

    assert 0 < free_memory.available_memory() <= psutil.virtual_memory().total
    monkeypatch.setattr(free_memory, "_free_in_container", lambda: 12345.0)
    assert free_memory.available_memory() == 12345.0
    monkeypatch.setattr(free_memory, "_free_in_container", lambda: -1.0)  # more than the limit is in use
    assert free_memory.available_memory() == 0.0


@pytest.mark.parametrize(("limit", "free"), [("5000\n", 3000.0), ("max\n", math.inf), (None, math.inf)])
def test_the_limit_of_a_container_is_read_from_its_control_group(tmp_path, monkeypatch, limit, free):
    (tmp_path / "memory.current").write_text("2000\n")
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit)
    monkeypatch.setattr(free_memory, "Path", lambda _: tmp_path)
    assert free_memory._free_in_container() == free


@pytest.mark.slow
def test_importing_the_package_imports_neither_torchvision_nor_scikit_learn():
    heavy = ("torchvision", "sklearn", "pandas", "mlflow")
    code = f"import sys, nc_tools.data; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
