"""Test predictions of single models: reliability bins, and McNemar's test image by image."""

import math

import numpy as np
import pytest
from safetensors.numpy import save_file

from nc_tools.comparison.image_predictions import BINS, confidences, read_predictions, reliability
from nc_tools.comparison.single_models import disagreement


def test_reliability_is_the_sum_of_a_loop_over_images():
    generator = np.random.default_rng(4)
    logits = generator.normal(0, 3, (200, 5)).astype(np.float32)
    correct = generator.uniform(size=200) < 0.5
    result = reliability(logits, correct, 1.7)
    count, confidence, right = ([0.0] * BINS for _ in range(3))
    for row, hit in zip(logits.tolist(), correct, strict=True):
        total = sum(math.exp(z / 1.7) for z in row)
        p = max(math.exp(z / 1.7) / total for z in row)
        index = next(b for b in range(BINS) if b / BINS < p <= (b + 1) / BINS)
        count[index] += 1
        confidence[index] += p
        right[index] += hit
    assert result.count.tolist() == count
    assert result.confidence == pytest.approx(confidence)
    assert result.correct.tolist() == right
    expected = sum(abs(c - r) for c, r in zip(confidence, right, strict=True)) / 200
    assert result.ece == pytest.approx(expected)


def test_saturated_logits_stay_finite():
    result = reliability(np.array([[1e4, -1e4], [3e38, 0]], np.float32), np.array([True, False]))
    assert result.confidence[-1] == 2.0
    assert result.ece == 0.5


def write(path, logits, labels, **more):
    save_file({"test_logits": np.asarray(logits, np.float32), "test_labels": np.asarray(labels), **more}, path)
    return read_predictions(path)


def test_disagreement_counts_each_side(tmp_path):
    labels = np.array([0, 0, 0, 1])
    arm = write(tmp_path / "a", [[1, 0], [1, 0], [1, 0], [1, 0]], labels)
    reference = write(tmp_path / "b", [[0, 1], [1, 0], [0, 1], [0, 1]], labels)
    test = disagreement("etf", 0, arm, reference)
    assert (test.only_arm, test.only_reference, test.images) == (2, 1, 4)
    other = write(tmp_path / "c", [[1, 0]] * 4, labels[::-1].copy())
    with pytest.raises(ValueError, match="other images"):
        disagreement("etf", 0, arm, other)


def test_a_temperature_lowers_confidence_and_can_be_missing(tmp_path):
    logits, labels = [[4.0, 0.0], [0.0, 4.0]], np.array([0, 0])
    assert write(tmp_path / "a", logits, labels).after is None
    result = write(tmp_path / "b", logits, labels, temperature=np.array([8.0], np.float32))
    assert result.after.confidence.sum() < result.before.confidence.sum()
    assert result.before.correct.sum() == 1


@pytest.mark.parametrize("content", [b"", b"\x00" * 40])
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read"):
        read_predictions(tmp_path / "x")


def test_a_file_without_its_tensors_is_refused(tmp_path):
    save_file({"test_labels": np.array([1])}, tmp_path / "x")
    with pytest.raises(ValueError, match="must hold test_logits"):
        read_predictions(tmp_path / "x")


def test_predictions_without_logits_give_the_same_accuracy_and_reliability(tmp_path):
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (300, 7)).astype(np.float32)
    labels, temperature = generator.integers(0, 7, 300), np.array([1.5], np.float32)
    whole = tmp_path / "whole.safetensors"
    save_file({"test_logits": logits, "test_labels": labels, "temperature": temperature}, whole)
    short = {
        "test_labels": labels.astype(np.int16),
        "test_guesses": logits.argmax(1).astype(np.int16),
        "num_classes": np.array([7], np.int32),
        "test_confidences": confidences(logits).astype(np.float32),
        "test_scaled_confidences": confidences(logits, 1.5).astype(np.float32),
    }
    save_file(short | {"temperature": temperature}, tmp_path / "short.safetensors")
    for metric in ("test/gen/balanced_accuracy", "test/gen/accuracy"):
        expected, read = read_predictions(whole, metric), read_predictions(tmp_path / "short.safetensors", metric)
        assert (read.labels, read.num_classes) == (expected.labels, 7)
        assert read.guesses.tolist() == expected.guesses.tolist()
        assert read.primary.metric == expected.primary.metric
        assert read.primary.by_class == expected.primary.by_class
        for name in ("before", "after"):
            assert getattr(read, name).count.tolist() == getattr(expected, name).count.tolist()
            assert getattr(read, name).ece == pytest.approx(getattr(expected, name).ece, abs=1e-6)
    # Other metrics by image need the logits: the interval then holds for these test images, and says so.
    assert read_predictions(tmp_path / "short.safetensors", "test/cal/nll").primary is None
    for damage, message in (
        ({"test_guesses": np.zeros(3, np.int16)}, "one of test_guesses for each of its 300 labels"),
        ({"test_guesses": np.full(300, 7, np.int16)}, "test_guesses in damaged.safetensors must be from 0 to 6"),
        ({"test_guesses": np.full(300, -1, np.int16)}, "must be from 0 to 6"),
        ({"test_confidences": np.full(300, np.nan, np.float16)}, "test_confidences in damaged.* must be from 0 to 1"),
        ({"num_classes": np.zeros(0, np.int32)}, "one number in num_classes"),
        ({"num_classes": np.array([7.5], np.float32)}, "num_classes in damaged.safetensors must have 1 dimensions"),
        ({name: values[:0] for name, values in short.items() if name != "num_classes"}, "at least one label"),
    ):
        save_file(short | damage, tmp_path / "damaged.safetensors")
        with pytest.raises(ValueError, match=message):
            read_predictions(tmp_path / "damaged.safetensors")
