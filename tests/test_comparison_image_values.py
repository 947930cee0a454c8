"""Values by test image: they give the recorded metric, and the variance of the images that is theirs."""

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from support.compared_runs import LINEAR, PRIMARY, runs

from nc_tools.comparison import ComparedRun, Experiment, compare_runs
from nc_tools.comparison.headline import headline
from nc_tools.comparison.image_values import ImageValues, has_image_values, image_error, image_values
from nc_tools.metrics import calibration, classification

KEYS = [
    "test/gen/balanced_accuracy", "test/gen/accuracy", "test/cal/nll", "test/cal/brier", "test/cal/ece",
    "test/cal_ts/nll", "test/cal_ts/brier", "test/cal_ts/ece",
]  # fmt: skip


def sample(seed=0, count=600, classes=5):
    generator = np.random.default_rng(seed)
    labels = generator.choice(classes, count, p=np.asarray([8, 4, 2, 1, 1]) / 16)
    logits = generator.normal(size=(count, classes)).astype(np.float32)
    logits[np.arange(count), labels] += 1.0
    return logits, labels


@pytest.mark.parametrize("key", KEYS)
def test_the_mean_by_image_is_the_metric_that_a_run_records(key):
    logits, labels = sample()
    values = image_values(key, [logits[:250], logits[250:]], labels, 1.7)
    scaled = torch.tensor(logits) / (1.7 if "cal_ts" in key else 1.0)
    target = torch.tensor(labels)
    probabilities = scaled.double().softmax(1)
    one_hot = torch.nn.functional.one_hot(target, 5).double()
    expected = {
        "balanced_accuracy": lambda: classification(scaled, target, [1] * 5)["balanced_accuracy"],
        "accuracy": lambda: classification(scaled, target, [1] * 5)["accuracy"],
        "nll": lambda: torch.nn.functional.cross_entropy(scaled.double(), target),
        "brier": lambda: float((probabilities - one_hot).square().sum(1).mean()),
        "ece": lambda: calibration(scaled, target)["ece"],
    }[key.rpartition("/")[2]]()
    assert values.metric == pytest.approx(float(expected), abs=2e-6)


def test_a_metric_that_is_no_mean_over_images_has_none():
    assert not has_image_values("test/ood/far/knn/auroc")
    assert not has_image_values("test/gen/worst_class")
    with pytest.raises(ValueError, match="did not record"):
        image_values("test/cal_ts/nll", [], np.zeros(0), None)


@pytest.mark.parametrize("by_class", [False, True])
def test_the_images_variance_is_that_of_new_images(by_class):
    """Against the spread over many drawn test sets of the mean over the same five seeds."""
    generator = np.random.default_rng(1)
    classes = np.arange(4)
    counts = np.asarray([40, 20, 10, 5])
    labels = np.repeat(classes, counts)
    estimates, means = [], []
    for _ in range(3000):
        image = generator.normal(size=len(labels)) * (1 + labels)  # classes differ in spread
        table = image + generator.normal(0, 2, (5, len(labels)))
        total, _ = image_error(list(table), labels, by_class=by_class)
        estimates.append(total.variance)
        means.append(ImageValues(table.mean(0), labels, by_class).metric)
    # For the mean over all images the classes have one mean here, so both are the same variance.
    assert np.mean(estimates) == pytest.approx(np.var(means), rel=0.06)


def test_the_rest_is_told_from_the_images():
    generator = np.random.default_rng(2)
    labels = np.zeros(2000, dtype=np.int64)
    table = generator.normal(0, 3, 2000) + generator.normal(0, 1, (5, 2000))
    total, rest = image_error(list(table), labels, by_class=False)
    assert total.variance * 2000 == pytest.approx(9 + 1 / 5, rel=0.1)
    assert rest.variance * 2000 == pytest.approx(1 / 5, rel=0.1)


def test_a_class_with_one_image_is_no_nan():
    total, rest = image_error(
        [np.asarray([1.0, 0.0, 1.0]), np.asarray([0.0, 1.0, 1.0])], np.asarray([0, 0, 1]), by_class=True
    )
    assert np.isfinite([total.variance, rest.variance]).all()
    alone, _ = image_error([np.ones(2), np.zeros(2)], np.asarray([0, 1]), by_class=True)
    assert alone.variance == 0


def with_predictions(folder, shift):
    """Five seeds of two arms with files of predictions on the same images."""
    _, labels = sample(0, 300)
    made = []
    for arm, gain in (("linear", 0.0), ("etf", shift)):
        for seed in range(5):
            generator = np.random.default_rng([seed, len(arm)])
            logits = generator.normal(size=(300, 5)).astype(np.float32)
            logits[np.arange(300), labels] += 1.0 + gain
            path = folder / f"{arm}{seed}.safetensors"
            save_file({"test_logits": logits, "test_labels": labels.astype(np.int64)}, path)
            value = classification(torch.tensor(logits), torch.tensor(labels), [1] * 5)["balanced_accuracy"]
            made.append(ComparedRun(arm, seed, 0, "FINISHED", {PRIMARY: value}, predictions=path))
    return made


def test_recorded_predictions_widen_the_interval_and_the_headline_has_both_statements(tmp_path):
    comparison = compare_runs(with_predictions(tmp_path, 0.6), "linear")
    test = comparison.test("etf")
    assert comparison.family.covers_images
    assert test.paired.error > test.same_images.error
    assert test.paired.mean == test.same_images.mean == comparison.row("etf", PRIMARY).paired.mean
    text = headline(comparison)
    assert "The intervals cover training with another seed and other test images like these" in text
    assert "etf trained again and read on these same test images: +" in text


def test_without_predictions_the_headline_says_on_these_images():
    comparison = compare_runs(runs(linear=LINEAR, etf=[value + 0.05 for value in LINEAR]), "linear")
    assert not comparison.family.covers_images


def test_predictions_that_are_not_the_recorded_metric_are_not_used(tmp_path):
    from dataclasses import replace

    made = with_predictions(tmp_path, 0.6)
    made[0] = replace(made[0], final={PRIMARY: 0.99})
    comparison = compare_runs(made, "linear")
    assert not comparison.family.covers_images
    assert "on these test images" in headline(comparison)


def test_seeds_that_change_nothing_leave_the_images_as_the_only_source(tmp_path):
    """Closed-form heads on fixed features: all seeds give the same model."""
    from dataclasses import replace

    made = with_predictions(tmp_path, 0.6)
    same = [replace(one, predictions=made[0].predictions if one.arm == "linear" else made[5].predictions,
                    final=made[0].final if one.arm == "linear" else made[5].final) for one in made]  # fmt: skip
    test = compare_runs(same, "linear").test("etf")
    assert test.same_images.p is None
    assert test.paired.p is not None
    assert test.paired.df > 100


def test_a_calibration_error_can_be_primary(tmp_path):
    made = []
    for one in with_predictions(tmp_path, 0.6):
        from safetensors.numpy import load_file

        tensors = load_file(one.predictions)
        error = calibration(torch.tensor(tensors["test_logits"]), torch.tensor(tensors["test_labels"]))["ece"]
        made.append(ComparedRun(one.arm, one.seed, 0, "FINISHED", {"test/cal/ece": error}, predictions=one.predictions))
    comparison = compare_runs(made, "linear", experiment=Experiment(primary="test/cal/ece"))
    assert comparison.family.covers_images
