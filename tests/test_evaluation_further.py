"""Measures that only a final model gets: calibration in detail, rare classes, scalings, and what their run records."""

import math

import pytest
import torch
from support.experiment_runs import job_of, make

from nc_tools._support.damaged_file import DamagedFileError
from nc_tools.comparison.metric_info import metric_info
from nc_tools.evaluation.further_measures import (
    class_vector_geometry,
    duality_with,
    further_calibration,
    further_collapse,
    mean_stable_rank,
    means_by_frequency,
)
from nc_tools.experiment.evaluate.holdout_record import copy_holdout_buffers
from nc_tools.experiment.evaluate.prediction_sets import fit_thresholds
from nc_tools.experiment.evaluate.scalings import SCALINGS, fit_scalings, scaled_measures
from nc_tools.experiment.weight_files import load_tensors, save_tensors
from nc_tools.metrics import (
    AffineScaling,
    calibration,
    class_coverage,
    conformal_sets,
    fit_vector_scaling,
    seli_geometry,
)
from nc_tools.records import Collected
from nc_tools.run_records import read_run


def predictions(samples=400, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (samples,), generator=generator)
    logits = torch.randn(samples, classes, generator=generator)
    logits[torch.arange(samples), labels] += 1.5
    logits[:, 0] += 1.0  # class 0 is predicted too often
    return logits, labels


def test_the_parts_of_calibration_agree_with_each_other():
    logits, labels = predictions()
    logits = 3 * logits  # overconfident
    values = further_calibration(logits, labels, torch.tensor([500, 50, 10, 5]))
    whole = calibration(logits, labels)
    parts = [values[f"cal/brier_{part}"] for part in ("reliability", "resolution", "uncertainty")]
    assert parts[0] - parts[1] + parts[2] == pytest.approx(whole["brier"])
    assert values["cal/ece_top_label"] >= whole["ece"] >= values["cal/ece_debiased"] > 0
    assert 0 <= values["cal/aurc_excess"] < values["cal/aurc"] < 1
    share = torch.bincount(labels) / len(labels)
    groups = [values[f"cal_groups/{name}/nll"] for name in ("many", "medium", "few")]
    weights = torch.stack([share[0], share[1], share[2:].sum()])
    assert float(weights @ torch.tensor(groups)) == pytest.approx(whole["nll"], rel=1e-5)


def test_one_image_and_one_class_leave_out_what_they_do_not_define():
    values = further_calibration(torch.tensor([[2.0, 0.0]]), torch.tensor([0]), torch.tensor([5, 5]))
    assert "cal/ece_debiased" not in values
    assert all(math.isfinite(value) for value in values.values())


def test_merged_rare_classes_have_cosine_one_and_a_simplex_none_of_it():
    counts = torch.tensor([100, 90, 80, 5, 4, 3])
    merged = torch.eye(6)
    merged[4] = merged[5] = merged[3]
    labels = torch.arange(6).repeat(5)
    values = means_by_frequency(merged[labels], labels, counts)
    assert values["cosine_rare"] == pytest.approx(1)
    even = means_by_frequency(torch.eye(6)[labels], labels, counts)
    assert [even[key] for key in ("cosine_rare", "cosine_frequent", "cosine_cross")] == pytest.approx([-1 / 5] * 3)
    assert even["etf_means"] == pytest.approx(0, abs=1e-6)
    assert means_by_frequency(torch.eye(6)[labels], labels, torch.full((6,), 7)) == {}
    assert means_by_frequency(torch.eye(6)[labels % 5], labels % 5, counts) == {}  # a class without a sample


def test_class_vectors_at_seli_are_at_no_distance_from_it():
    counts = torch.tensor([50, 10, 5, 5])
    weight = torch.linalg.cholesky(seli_geometry(counts).weight_gram + 1e-9 * torch.eye(4)).float()
    values = class_vector_geometry(weight, counts)
    assert values["seli_weight"] == pytest.approx(0, abs=1e-3)
    assert values["etf_weight"] > 0.05
    assert class_vector_geometry(weight, torch.full((4,), 9)).keys() == {"stable_rank"}
    assert class_vector_geometry(torch.zeros(4, 3), counts) == {}
    assert mean_stable_rank(torch.nn.Sequential(torch.nn.Identity())) == {}


def test_collapsed_features_are_collapsed_by_every_measure():
    labels = torch.arange(3).repeat(4)
    features = torch.eye(3)[labels]
    values = further_collapse(features, labels, 3) | duality_with(torch.eye(3), features, labels)
    assert [values[key] for key in ("gnc2", "nc3_uniform", "vci")] == pytest.approx([0, 0, 0], abs=1e-6)
    assert (values["cosine_within"], values["cosine_between"]) == pytest.approx((1, -0.5))


class StubbedOutputs:
    """What the scalings read of an evaluator."""

    def __init__(self, outputs):
        self.class_counts = torch.tensor([500, 50, 10, 5])
        self.outputs = lambda _: outputs


def test_scalings_of_a_holdout_run_are_applied_as_they_were_fitted(tmp_path):
    class Part:
        name = "test"

    held_out, test = (Collected(l, l, l, y) for l, y in (predictions(), predictions(seed=1)))  # noqa: E741
    assert scaled_measures(StubbedOutputs(test), Part, {}) == {}
    save_tensors(fit_scalings(held_out), tmp_path / SCALINGS)
    values = scaled_measures(StubbedOutputs(test), Part, load_tensors(tmp_path / SCALINGS))
    expected = calibration(fit_vector_scaling(held_out.logits, held_out.labels)(test.logits), test.labels)
    assert values["test/cal_vs/nll"] == pytest.approx(expected["nll"], rel=1e-6)
    assert values["test/cal_vs/nll"] < calibration(test.logits, test.labels)["nll"]
    assert values["test/cal_ds/nll"] < calibration(test.logits, test.labels)["nll"]
    assert "test/gen_vs/balanced_accuracy" in values
    assert (tmp_path / SCALINGS).stat().st_size < 2000


@pytest.mark.parametrize(("classes", "enough"), [(4, 80), (30, 930)])
def test_dirichlet_scaling_needs_as_many_samples_as_it_has_parameters_and_twenty_for_each_class(classes, enough):
    logits = torch.randn(enough, classes, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(enough) % classes
    assert "cal_ds.weight" in fit_scalings(Collected(logits, logits, logits, labels))
    few = Collected(logits[1:], logits[1:], logits[1:], labels[1:])
    assert set(fit_scalings(few)) == {"cal_vs.weight", "cal_vs.bias"}


def test_fits_on_part_of_a_hold_out_that_lists_one_class_after_the_other_see_every_class():
    """At most 5,000 and 20,000 samples are fitted; the first ones of this hold-out would be of half of the classes."""
    labels = torch.arange(4).repeat_interleave(10_000)
    noise = torch.randn(40_000, 4, generator=torch.Generator().manual_seed(0))
    logits = 2 * torch.nn.functional.one_hot(labels, 4) + noise
    held_out = Collected(logits, logits, logits, labels)
    before = calibration(logits, labels)["nll"]
    tensors = fit_scalings(held_out)
    for group in ("cal_vs", "cal_ds"):
        weight, bias = tensors[f"{group}.weight"], tensors[f"{group}.bias"]
        scaling = AffineScaling(torch.diag(weight) if weight.ndim == 1 else weight, bias)
        assert calibration(scaling(logits), labels)["nll"] < before + 0.01, group
    counts = torch.full((4,), 10_000)
    for method, threshold in fit_thresholds(held_out, counts).items():
        covered = class_coverage(conformal_sets(logits, method, threshold, counts), labels)
        assert 0.87 < covered.min() <= covered.max() < 0.93, method


@pytest.mark.slow
def test_a_final_run_records_them_with_a_name_for_each(tmp_path):
    holdout = make(job_of(tmp_path, "holdout"))[0].run
    run = read_run(make(job_of(tmp_path, "final", holdout_run=holdout))[0].run)
    for key in (
        "test/cal/ece_debiased", "test/cal_groups/few/ece", "test/cal_vs/nll", "test/gen_vs/tail",
        "test/gen/uniform_accuracy", "train/nc/vci", "train/nc/gnc2", "train/nc/nc3_uniform", "train/nc/cosine_rare",
        "head/minority_cosine", "head/seli_weight", "head/stable_rank", "backbone/stable_rank",
        "test/ood/held_out/nc5", "test/ood/mean/msp/auroc", "perf/trained_parameters", "perf/evaluation_seconds",
    ):  # fmt: skip
        assert math.isfinite(run.final[key]), key
    curves = run.curves()
    assert {"train/nc/seli_means", "train/nc/cosine_rare", "head/minority_norm_ratio", "head/seli_weight"} <= set(
        curves
    )
    unnamed = [key for key in (*run.final, *curves) if metric_info(key).label == key]
    assert unnamed == []
    assert run.identity.about["LinearHead"].startswith("The standard linear head")


@pytest.mark.parametrize(("stored", "fits"), [((), True), ((1,), True), ((5,), False), ((2, 1), False), (None, False)])
def test_a_number_of_a_hold_out_run_is_taken_over_only_as_one_number(tmp_path, stored, fits):
    module = torch.nn.Module()
    module.register_buffer("size", torch.zeros(1))
    save_tensors({} if stored is None else {"head.size": torch.ones(stored)}, tmp_path / "weights.safetensors")
    if fits:
        copy_holdout_buffers(tmp_path, module, "head", ["size"])
        assert module.size.tolist() == [1.0]
    else:
        with pytest.raises(DamagedFileError, match=r"holds no 'head.size' of shape \(1,\)"):
            copy_holdout_buffers(tmp_path, module, "head", ["size"])
