"""Arms that differ in their training labels: the same images, the same test, facts of their own."""

import json
from dataclasses import replace

import pytest
from rich.console import Console
from support.image_folders import save
from support.tables import lines

from nc_tools.data import DataConfig, SymmetricNoise
from nc_tools.experiment import ModelConfig, Protocol, RunConfig
from nc_tools.experiment.check_plan import check_same_images
from nc_tools.experiment.plan import Plan, RunOptions
from nc_tools.experiment.run_plan import run_plan
from nc_tools.heads import LinearHead
from nc_tools.losses import CrossEntropyLoss
from nc_tools.run_records import scan
from nc_tools.specs import spec
from nc_tools.training import TrainConfig

pytestmark = pytest.mark.slow


@pytest.fixture
def birds(tmp_path):
    for part, number in (("train", 10), ("test", 4)):
        for k, name in enumerate(("crow", "owl")):
            for i in range(number):
                save(
                    tmp_path / "birds" / part / name / f"{part}{i}.png",
                    color=(9 * i, 150 * k, 9 + 90 * (part == "test")),
                )
    rows = [f"birds/train/crow/train{i}.png,relabel,owl" for i in range(2)]
    return lines(tmp_path / "c.csv", "path,decision,label", *rows, "birds/train/owl/train3.png,exclude,").parent


def test_a_comparison_of_given_and_corrected_labels(birds, capsys):
    given = RunConfig(
        data=DataConfig(f"imagefolder:{birds / 'birds'}", flip=False),
        head=spec(LinearHead),
        loss=spec(CrossEntropyLoss),
        model=ModelConfig(width=4),
        training=TrainConfig(epochs=1, batch_size=8),
    )
    fixed = replace(given, data=replace(given.data, corrections=str(birds / "c.csv")))
    protocol = Protocol(seeds=(0, 1), draws=1, rates=(0.1,), max_extensions=0, curve_points=1)
    plan = Plan(name="gain", question="q", arms={"given": given, "fixed": fixed}, protocol=protocol)
    options = RunOptions(out=birds / "out", device="cpu", workers=1, threads=1)
    run_plan(plan, options, Console(width=200))
    shown = capsys.readouterr().out
    assert "arm fixed: corrections of c.csv: 2 training labels changed, 1 images left out" in shown
    assert "arm fixed: training images of each class: owl 11, crow 8" in shown
    runs = {
        (run.identity.arm, run.identity.seed): run for run in scan(birds / "out").runs if run.identity.kind == "final"
    }
    assert len(runs) == 4
    assert {run.status for run in runs.values()} == {"FINISHED"}
    listed = json.loads((birds / "out" / "experiment.json").read_text())["runs"]
    assert {row["run_id"] for row in listed} == {run.path.name for run in runs.values()}
    one, two = (runs[arm, 0].identity.data for arm in ("given", "fixed"))
    assert one["images_fingerprint"] == two["images_fingerprint"]
    assert one["fingerprint"] != two["fingerprint"]
    assert (one["class_counts"], two["class_counts"]) == ([10, 10], [8, 11])


def test_arms_may_differ_in_training_labels_and_nothing_else():
    plain = DataConfig("imagefolder:x")
    check_same_images([plain, replace(plain, labels="l.csv:a"), replace(plain, corrections="c.csv")])
    for other in (
        replace(plain, image_size=8),
        replace(plain, noise=SymmetricNoise(0.1)),
        replace(plain, clean="data"),
    ):
        with pytest.raises(ValueError, match=r"must have the same data settings .* but for labels and corrections"):
            check_same_images([plain, other])
    cut = replace(plain, imbalance=10)
    check_same_images([cut, replace(cut, corrections="c.csv")])
    with pytest.raises(ValueError, match="other images of a long tail, which is cut by the labels, got imbalance 10"):
        check_same_images([cut, replace(cut, labels="l.csv:a")])
