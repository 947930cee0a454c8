"""What was compared, in words; accuracy and confusion by class; the table for a paper."""

import re

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.comparison_records import write_output

from nc_tools.comparison import ComparedRun, Experiment, RecallByClass, compare, compare_runs
from nc_tools.comparison.arms_compared import arms_in_words, common_facts
from nc_tools.comparison.class_accuracy import class_names, class_rows, confused_pairs, table_arms
from nc_tools.comparison.config_words import class_words, value_words
from nc_tools.comparison.html_report import comparison_html
from nc_tools.comparison.latex import latex_table
from nc_tools.data import DataConfig, Mixup, SymmetricNoise
from nc_tools.experiment import ModelConfig, RunConfig, TunedParameter
from nc_tools.experiment.serialize import settings
from nc_tools.heads import LEARNED, ETFHead, LinearHead
from nc_tools.losses import ClassSpreadLoss, CrossEntropyLoss, DotRegressionLoss, WeightedSumLoss, term
from nc_tools.specs import spec
from nc_tools.training import OptimConfig, RetrainClassifier, TrainConfig

PRIMARY = "test/gen/balanced_accuracy"
BASE = RunConfig(
    head=spec(LinearHead), loss=spec(CrossEntropyLoss), model=ModelConfig(name="resnet20"),
    data=DataConfig("digits", noise=SymmetricNoise(0.4)), training=TrainConfig(epochs=50, batch_size=32),
)  # fmt: skip


def run_of(arm, config, seed=0, value=0.5, **more):
    return ComparedRun(arm, seed, 0, "FINISHED", {PRIMARY: value + 0.01 * seed, **more.pop("final", {})}, config=config,
                       data={"name": "digits", "class_counts": [89, 8], "image_size": 8}, **more)  # fmt: skip


def replaced(**changes):
    return settings(RunConfig(**{**BASE.__dict__, **changes}))


def test_an_arm_is_described_by_what_its_record_holds():
    arms = {
        "linear": settings(BASE),
        "etf_dr": replaced(head=spec(ETFHead, projection=True, scale=LEARNED), loss=spec(DotRegressionLoss)),
        "spread": replaced(loss=spec(WeightedSumLoss, terms=(
            term(1.0, spec(CrossEntropyLoss)), term(0.1, spec(ClassSpreadLoss))))),
        "mixup": replaced(training=TrainConfig(epochs=50, batch_size=32, mixing=Mixup(0.2))),
        "crt": replaced(second_stage=RetrainClassifier(share=0.2),
                        tuned=TunedParameter(path="second_stage.lr_ratio", values=(0.3,))),
    }  # fmt: skip
    sizes = {"perf/parameters": 6169.0, "perf/head_parameters": 225.0}
    runs = [run_of(arm, config, seed, final=sizes, frame_seed=7 + seed if arm == "etf_dr" else None)
            for arm, config in arms.items() for seed in range(2)]  # fmt: skip
    comparison = compare_runs(runs, "linear", experiment=Experiment(tuning={"chosen": {"etf_dr": {"lr": 3.16}}}))
    words = {arm.arm: arm for arm in arms_in_words(comparison)}
    assert words["linear"].short == "linear head, cross entropy loss"
    assert words["etf_dr"].short == "ETF head (projection, learned scale), dot regression loss"
    assert words["etf_dr"].trains == "whole network and head; class vectors fixed"
    assert words["etf_dr"].parameters == "6,169, head 225"
    assert words["etf_dr"].settings.startswith("learning rate 3.16, weight decay 0.0005")
    assert words["spread"].loss == "cross entropy + 0.1 × class spread"
    assert words["mixup"].differs == "mixup (alpha 0.2, until 1)"
    assert words["crt"].differs.startswith("then retrain classifier (share 0.2")
    assert words["linear"].differs == ""
    facts = dict(common_facts(comparison))
    assert facts["Data"] == (
        "digits, 2 classes, 97 training images, 89 to 8 per class, "
        "labels with drawn noise: symmetric noise (rate 0.4), 8 × 8 pixels"
    )
    assert facts["Network"] == "resnet20, width 16, random initial weights"
    assert facts["Training"] == "50 epochs, batches of 32, SGD (momentum 0.9), cosine schedule"
    page = comparison_html(comparison)
    assert "ETF head (projection, learned scale), dot regression loss" in page


def test_values_that_each_seed_tuned_for_itself_are_a_range_and_not_those_of_one_seed():
    def tuned(lr, scale):
        return replaced(head=spec(ETFHead, projection=True, scale=scale), optim=OptimConfig(lr=lr))

    etf = [run_of("etf", tuned(*values), seed) for seed, values in enumerate([(0.01, 4.0), (0.1, 1.0), (0.03, 1.0)])]
    runs = [*(run_of("linear", settings(BASE), seed) for seed in range(3)), *etf]
    words = {arm.arm: arm for arm in arms_in_words(compare_runs(runs, "linear"))}
    assert words["etf"].short == "ETF head (projection), cross entropy loss"
    assert words["etf"].settings == "weight decay 0.0005, learning rate 0.01 to 0.1 by seed, head scale 1 to 4 by seed"
    assert "by seed" not in words["linear"].settings


@pytest.mark.parametrize("config", [{}, {"head": "mine", "model": 3, "loss": [1, None]}, {"optim": {"lr": None}}])
def test_records_of_other_programs_are_described_as_far_as_they_go(config):
    runs = [run_of(arm, config if arm == "b" else {}, value=value) for arm, value in (("a", 0.5), ("b", 0.6))]
    comparison = compare_runs(runs, "a")
    assert len(arms_in_words(comparison)) == 2
    assert comparison_html(comparison)


def test_words_of_names_and_values():
    assert class_words("Head") == "head"
    assert value_words({"class": "m.SAMLoss", "arguments": {"rho": 0.05, "flags": [1, 2], "off": False}}) == (
        "SAM (rho 0.05, flags 1, 2)"
    )
    assert value_words({}) == "none"


def test_classes_keep_their_names_and_the_best_arms_fit_a_table():
    names = tuple(f"class {k}" for k in range(600))
    runs = []
    for arm in range(12):
        recall = RecallByClass(names, tuple(600 - k for k in range(600)), (5,) * 600, (arm / 12,) * 600)
        runs += [run_of(f"arm_{arm}", {}, seed, arm / 12, per_class=recall) for seed in range(2)]
    comparison = compare_runs(runs, "arm_3")
    rows = class_rows(comparison)
    assert [row.name for row in rows] == list(names)
    assert rows[0].by_arm["arm_6"] == pytest.approx(0.5)
    assert table_arms(comparison, rows) == ["arm_3", "arm_11", "arm_10", "arm_9", "arm_8"]
    assert class_names(comparison, 600)[599] == "class 599"
    assert class_names(comparison, 3) == ["0", "1", "2"]


def test_confusion_counts_test_images_of_the_baseline_and_the_best_arm(tmp_path):
    truth = np.array([0, 0, 0, 1, 1, 2], dtype=np.int64)
    guesses = {"base": [0, 1, 1, 1, 1, 2], "good": [0, 0, 1, 1, 1, 2], "bad": [2, 2, 2, 2, 2, 2]}
    runs = []
    for arm, guess in guesses.items():
        for seed in range(2):
            file = tmp_path / f"{arm}{seed}.safetensors"
            save_file({"test_logits": np.eye(3, dtype=np.float32)[guess], "test_labels": truth}, file)
            right = float((np.array(guess) == truth).mean())
            runs.append(run_of(arm, {}, seed, right, predictions=file))
    comparison = compare_runs(runs, "base")
    assert list(comparison.confusion) == ["base", "good"]
    assert comparison.confusion["base"].tolist() == [[2, 4, 0], [0, 4, 0], [0, 0, 2]]
    (pair,) = confused_pairs(comparison)
    assert (pair.true, pair.predicted, pair.baseline, pair.arm) == (
        "0",
        "1",
        pytest.approx(2 / 3),
        pytest.approx(1 / 3),
    )
    assert "0 taken for 1: 66.7 %" in comparison_html(comparison)


def test_runs_for_tuning_and_with_a_holdout_are_listed(tmp_path):
    comparison = compare(write_output(tmp_path, images=200, epochs=3, seeds=2, broken=False))
    kinds = [run.kind for run in comparison.runs]
    assert kinds.count("holdout") == 14
    page = comparison_html(comparison)
    listed = re.search(r'<section id="runs">.*?</section>', page, re.DOTALL)[0]
    assert "Runs for tuning and with a hold-out are listed too" in listed
    assert listed.count("<tr>") + listed.count('<tr class="none">') == len(kinds) + 1
    alone = compare_runs([run for run in comparison.runs if run.kind == "final"], "linear")
    assert "are listed too" not in comparison_html(alone)


def test_the_table_for_a_paper_escapes_names_and_has_equal_columns():
    runs = [run_of(arm, {}, seed, value) for arm, value in (("a_b", 0.7), (r"50 % & \x{}", 0.6)) for seed in range(3)]
    text = latex_table(compare_runs(runs, "a_b"))
    assert r"a\_b" in text
    assert r"50 \% \& \textbackslash{}x\{\}" in text
    assert "$-$10.0" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1
    assert len(rows) == 3
