"""Decoding by threads and by processes: the same pixels, the same damaged files, and what happens when one dies."""

import os
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.image_folders import add_damaged_files, config, make_tree

from nc_tools.data.augment import Augment
from nc_tools.data.batch_options import BatchOptions
from nc_tools.data.decode import decode_batch, decode_chunks
from nc_tools.data.load_data import _memory_sentence, load_data
from nc_tools.data.loader import make_loader
from nc_tools.data.stream_loader import PixelStream, StreamLoader
from nc_tools.decoding import pool as pool_module
from nc_tools.decoding.image_file import UnreadableImageError, decode_image
from nc_tools.decoding.pool import DecodingProcess, decode_rows, decoding_pool
from nc_tools.decoding.request import DecodingRequest
from nc_tools.features.image_content import ImageContent
from nc_tools.features.image_views import ImageViews
from nc_tools.heads import LinearHead
from nc_tools.losses import CrossEntropyLoss
from nc_tools.models.classifier import Classifier
from nc_tools.models.image_preprocessing import ImagePreprocessing
from nc_tools.training import OptimConfig, TrainConfig, fit

RESIZED = {"mean": (0.5,) * 3, "std": (0.2,) * 3, "size": 8, "resize_size": 10}


def noise_files(root: Path, count: int) -> list[str]:
    generator = np.random.default_rng(0)
    names = []
    for i in range(count):
        side = int(generator.integers(20, 60))
        pixels = generator.integers(0, 256, (side, 40, 1 if i % 7 == 3 else 3), dtype=np.uint8)
        name = f"{'train' if i % 3 else 'test'}/{'ab'[i % 2]}/{i:03d}.{'jpg' if i % 2 else 'png'}"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.squeeze(-1) if i % 7 == 3 else pixels).save(root / name)
        names.append(name)
    return names


@pytest.fixture
def fresh_pool(monkeypatch):
    """A pool of two threads with processes of their own, for sets of any size, that ends with the test."""
    pool = ThreadPoolExecutor(2)
    started = []
    monkeypatch.setattr(pool_module, "MANY", 1)
    monkeypatch.setattr(pool_module, "_started", started)
    monkeypatch.setattr("nc_tools.data.decode.decoding_pool", lambda: pool)
    monkeypatch.setattr("nc_tools.data.stream_loader.decoding_pool", lambda: pool)
    monkeypatch.setattr("nc_tools.features.image_content.decoding_pool", lambda: pool)
    yield started
    pool.shutdown()
    while started:
        started.pop().close()


def test_processes_decode_as_a_loop_does(tmp_path, fresh_pool):
    names = noise_files(tmp_path, 150)
    expected = torch.stack([torch.from_numpy(decode_image(tmp_path / name, 16, 3).copy()) for name in names])
    progress = []
    chunks = list(decode_chunks(tmp_path, names, 16, 3, lambda *done: progress.append(done)))
    assert len(fresh_pool) in (1, 2)  # really by processes
    assert torch.equal(torch.cat([chunk.images for chunk in chunks]), expected)
    assert [chunk.start for chunk in chunks] == [0, 64, 128]
    assert sum((chunk.converted for chunk in chunks), chunks[0].converted.__class__()) == {"gray": 21}
    assert progress == [(64, 150), (128, 150), (150, 150)]


def test_a_set_loaded_by_processes_is_that_of_threads_and_its_cache_too(tmp_path, fresh_pool, monkeypatch):
    noise_files(tmp_path / "birds", 60)
    source = config(tmp_path / "birds", image_size=16)
    by_processes = load_data(source, cache=tmp_path / "cache")
    assert fresh_pool
    monkeypatch.setattr(pool_module, "MANY", 10_000)
    by_threads = load_data(source, cache=tmp_path / "cache of threads")
    assert by_processes.fingerprint == by_threads.fingerprint
    assert torch.equal(by_processes.train.images, by_threads.train.images)
    files = [sorted((tmp_path / name).iterdir()) for name in ("cache", "cache of threads")]
    assert [file.name for file in files[0]] == [file.name for file in files[1]]
    for one, other in zip(*files, strict=True):
        ours, theirs = load_file(one), load_file(other)
        assert ours.keys() == theirs.keys() == {"images", "hashes"}
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_all_damaged_files_are_named_in_one_pass(tmp_path, fresh_pool):
    tree = add_damaged_files(make_tree(tmp_path / "birds"))
    with pytest.raises(UnreadableImageError) as caught:
        load_data(config(tree), cache=tmp_path / "cache")
    assert fresh_pool
    assert set(caught.value.reasons) == {"train/crow/note.jpg", "train/owl/cut.png", "test/owl/empty.png"}
    assert caught.value.reasons["train/crow/note.jpg"] == "no image"
    with pytest.raises(UnreadableImageError, match=r"note\.jpg: no image"):
        decode_batch(tree, ["train/crow/0.png", "train/crow/note.jpg"], 8, 3, in_process=True)


def test_the_batches_of_a_stream_by_processes_are_those_of_memory(tmp_path, fresh_pool):
    noise_files(tmp_path / "birds", 60)
    memory, files = (load_data(config(tmp_path / "birds", image_size=16, memory_gb=gb)).train for gb in (1, 0))
    options = BatchOptions(batch_size=7, mean=[0.5] * 3, std=[0.2] * 3, augment=Augment(padding=2, flip=True))
    ours, streamed = (make_loader(images, torch.arange(0, 40, 2), options) for images in (memory, files))
    assert isinstance(streamed, StreamLoader)
    for epoch, start in ((0, 0), (1, 1)):
        for left, right in zip(ours.epoch(epoch, start), streamed.epoch(epoch, start), strict=True):
            assert torch.equal(left.inputs, right.inputs)
            assert torch.equal(left.index, right.index)
    assert fresh_pool


def test_features_are_computed_from_the_same_pixels(tmp_path, fresh_pool):
    noise_files(tmp_path / "birds", 60)
    memory, files = (load_data(config(tmp_path / "birds", image_size=16, memory_gb=gb)).train for gb in (1, 0))
    chosen, preprocessing = torch.arange(39, 0, -1), ImagePreprocessing(**RESIZED)
    contents = [ImageContent(images, preprocessing, ImageViews()) for images in (memory, files)]
    chunks = [list(content.read_chunks(chosen, 16)) for content in contents]
    for (index, pixels), (other, others) in zip(*chunks, strict=True):
        assert torch.equal(index, other)
        assert torch.equal(pixels, others)
    assert fresh_pool


def test_training_from_a_stream_gives_the_weights_of_training_from_memory(tmp_path, fresh_pool):
    noise_files(tmp_path / "birds", 60)
    weights = []
    for gigabytes in (1, 0):
        train = load_data(config(tmp_path / "birds", image_size=16, memory_gb=gigabytes)).train
        options = BatchOptions(batch_size=8, mean=[0.5] * 3, std=[0.2] * 3, augment=Augment(padding=2, flip=True))
        torch.manual_seed(0)
        body = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2), torch.nn.BatchNorm2d(4), torch.nn.Flatten())
        model = Classifier(body, LinearHead(4 * 49, 2))
        batches = make_loader(train, torch.arange(len(train)), options)
        fit(model, CrossEntropyLoss(), batches, TrainConfig(epochs=2), OptimConfig(lr=0.1))
        weights.append(model.state_dict())
    assert isinstance(batches, StreamLoader)
    assert fresh_pool
    memory, files = weights
    assert all(torch.equal(memory[name], files[name]) for name in memory)


def test_where_the_pixels_of_a_large_set_are_is_said(tmp_path):
    tree = make_tree(tmp_path / "birds")
    (line,) = (text for text in load_data(config(tree, memory_gb=1e-6)).reading.sentences if "pixels" in text)
    assert line == (
        "the pixels take 0.0 MB, and 0.0 MB of memory are for them (data.memory_gb): image files are decoded during "
        "training, by as many processes as the steps need"
    )
    assert not any("pixels" in text for text in load_data(config(tree)).reading.sentences)
    assert _memory_sentence(12_345_678_900, 5e9)[0].startswith("the pixels take 12.3 GB, and 5.0 GB of memory are for")
    assert _memory_sentence(2_000_000_000, 5e9) == ["the pixels take 2.0 GB and are kept in memory"]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_a_cache_is_mapped_so_that_the_processes_of_a_grid_share_its_memory(tmp_path):
    noise_files(tmp_path / "birds", 60)
    for _ in range(2):
        images = load_data(config(tmp_path / "birds", image_size=64), cache=tmp_path / "cache").train
    start = images.images.data_ptr()
    areas = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    bounds = [[int(bound, 16) for bound in area[0].split("-")] for area in areas]
    (mapped,) = (area[-1] for area, (low, high) in zip(areas, bounds, strict=True) if low <= start < high)
    assert Path(mapped).parent == tmp_path / "cache"


@pytest.mark.slow
def test_a_stream_decodes_more_at_once_only_while_its_reader_waits(tmp_path, monkeypatch):
    noise_files(tmp_path / "birds", 60)
    monkeypatch.setattr("nc_tools.data.stream_loader.available_cores", lambda: 8)
    images = load_data(config(tmp_path / "birds", image_size=16, memory_gb=0)).train
    batches = [torch.tensor([i]) for i in range(33)]
    slow_reader, fast_reader = (PixelStream(images, torch.device("cpu"), None) for _ in range(2))
    for _ in slow_reader.read(batches):
        time.sleep(0.03)
    assert slow_reader.at_once == 2
    fast_reader._read = lambda index: (time.sleep(0.03), images.take(index))[1]
    list(fast_reader.read(batches))
    assert fast_reader.at_once == 16


def test_a_process_that_dies_is_replaced_by_the_thread_with_a_warning(tmp_path, fresh_pool):
    names = noise_files(tmp_path, 6)
    request, rows = DecodingRequest(str(tmp_path), names, 16, 3), np.zeros((6, 3, 16, 16), np.uint8)

    def decode():
        rows[:] = 0
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            decode_rows(request, rows, in_process=True)
        return [str(warning.message) for warning in caught], rows.copy()

    with ThreadPoolExecutor(1) as thread:
        said, expected = thread.submit(decode).result()
        assert said == []
        os.kill(fresh_pool[0].pid, signal.SIGKILL)
        said, pixels = thread.submit(decode).result()
        assert len(said) == 1
        assert "a process that decodes images has ended" in said[0]
        assert "main process" in said[0]
        assert np.array_equal(pixels, expected)
        said, pixels = thread.submit(decode).result()
        assert said == []
        assert np.array_equal(pixels, expected)


def test_a_process_that_cannot_be_started_is_a_warning(tmp_path, fresh_pool, monkeypatch):
    names = noise_files(tmp_path, 2)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    request, rows = DecodingRequest(str(tmp_path), names, 16, 3), np.zeros((2, 3, 16, 16), np.uint8)
    with ThreadPoolExecutor(1) as thread, pytest.warns(UserWarning, match="cannot be started .* a thread decodes"):
        thread.submit(decode_rows, request, rows, in_process=True).result()
    assert rows.any()
    assert not fresh_pool


def test_a_process_starts_without_torch_and_ends_with_its_standard_input(tmp_path):
    code = "import sys, nc_tools.decoding.serve; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
    process = DecodingProcess()
    process._streams[0].close()
    assert process._process.wait(20) == 0
    process.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork_the_child_starts_a_pool_of_its_own():
    ours = decoding_pool()
    child = os.fork()
    if child == 0:
        os._exit(7 if decoding_pool() is not ours and decoding_pool().submit(int).result() == 0 else 8)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert decoding_pool() is ours
