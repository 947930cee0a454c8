"""The cache of decoded folders: what it saves, and when it is not used."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.image_folders import add_damaged_files, config, make_tree, save

from nc_tools.data import decoded_cache as cache_module
from nc_tools.data import read_images
from nc_tools.data.load_data import load_data
from nc_tools.decoding.image_file import UnreadableImageError


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "birds")


@pytest.fixture
def damaged(tree):
    return add_damaged_files(tree)


@pytest.fixture
def decoded(monkeypatch):
    """Count how often files are really decoded."""
    calls = []
    original = read_images._decode

    def counted(*args, **options):
        calls.append(1)
        return original(*args, **options)

    monkeypatch.setattr(read_images, "_decode", counted)
    return calls


@pytest.mark.parametrize("memory_gb", [None, 0])
def test_the_cache_saves_decoding_and_changes_nothing(tree, tmp_path, decoded, memory_gb):
    first = load_data(config(tree, memory_gb=memory_gb), cache=tmp_path / "cache")
    assert len(decoded) == 2
    second = load_data(config(tree, memory_gb=memory_gb), cache=tmp_path / "cache")
    assert len(decoded) == 2
    assert first.fingerprint == second.fingerprint == load_data(config(tree)).fingerprint
    assert torch.equal(first.train.take(torch.arange(6)), second.train.take(torch.arange(6)))
    assert torch.equal(first.std, second.std)
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".safetensors"] * 2


def test_a_changed_folder_is_decoded_again_into_the_same_file(tree, tmp_path, decoded):
    before = load_data(config(tree), cache=tmp_path / "cache")
    save(tree / "train" / "owl" / "0.png", color=(1, 2, 3), size=(9, 9))
    after = load_data(config(tree, image_size=8), cache=tmp_path / "cache")
    assert len(decoded) == 3  # only the training part changed
    assert after.train.images[3, :, 0, 0].tolist() == [1, 2, 3]
    assert before.fingerprint != after.fingerprint
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_cache_file_is_not_used(tree, tmp_path, decoded, damage):
    first = load_data(config(tree), cache=tmp_path / "cache")
    for path in (tmp_path / "cache").iterdir():
        raw = bytearray(path.read_bytes())
        if damage == "flipped":
            raw[raw.rindex(bytes([100, 100, 100]))] = 99  # a pixel
        path.write_bytes({"cut": raw[:-40], "flipped": raw, "empty": b""}[damage])
    second = load_data(config(tree), cache=tmp_path / "cache")
    assert len(decoded) == 4
    assert torch.equal(first.train.images, second.train.images)
    load_data(config(tree), cache=tmp_path / "cache")
    assert len(decoded) == 4


@pytest.mark.parametrize(("memory_gb", "missing"), [(None, "images"), (0, "sums"), (0, "hashes")])
def test_a_cache_file_without_one_of_its_tensors_is_not_used(tree, tmp_path, decoded, memory_gb, missing):
    first = load_data(config(tree, memory_gb=memory_gb), cache=tmp_path / "cache")
    for path in (tmp_path / "cache").iterdir():
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
        kept = {name: tensor for name, tensor in load_file(path).items() if name != missing}
        save_file(kept, path, metadata=header)
    second = load_data(config(tree, memory_gb=memory_gb), cache=tmp_path / "cache")
    assert len(decoded) == 4
    assert first.fingerprint == second.fingerprint


def test_the_cache_remembers_damaged_images(damaged, tmp_path, decoded):
    with pytest.raises(UnreadableImageError):
        load_data(config(damaged), cache=tmp_path / "cache")
    first = load_data(config(damaged, skip_unreadable=True), cache=tmp_path / "cache")
    assert len(decoded) == 2
    assert len(first.skipped) == 3
    with pytest.raises(UnreadableImageError, match=r"note\.jpg"):
        load_data(config(damaged), cache=tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_a_warning(tree, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="cannot write decoded images to the cache folder"):
        sources = load_data(config(tree), cache=tmp_path / "file")
    assert len(sources.train) == 6


def test_the_key_depends_on_every_change(tree):
    def key(size=8, channels=3, paths=("train/owl/0.png", "train/owl/1.png"), interpolation="bilinear"):
        return cache_module.files_key(tree, paths, size, channels, interpolation)

    first = key()
    assert first == key()
    assert (
        len({first, key(size=9), key(channels=1), key(paths=("train/owl/0.png",)), key(interpolation="bicubic")}) == 5
    )
    save(tree / "train" / "owl" / "1.png", size=(30, 30))
    assert key() != first
