"""Transfer in runs: held-out classes, other data, coarse labels, fine-tuning, and what decides a comparison."""

import csv
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from rich.console import Console
from support.recipe_commands import RECIPES, recipe_module, run_in_process

from nc_tools._support.signals import StopSignal
from nc_tools.comparison import ComparedRun, Experiment
from nc_tools.comparison.metric_info import metric_info
from nc_tools.comparison.summary_table import summary_columns
from nc_tools.comparison.transfer_ranking import RANKING, report_ranking
from nc_tools.data import DataConfig, load_data
from nc_tools.experiment import Protocol
from nc_tools.experiment.evaluate.transfer_set import check_transfer
from nc_tools.experiment.job import Job
from nc_tools.experiment.run_data import facts_of
from nc_tools.experiment.run_identity import identify
from nc_tools.experiment.run_job import run_job
from nc_tools.experiment.serialize import encode
from nc_tools.run_records import read_run
from nc_tools.training import TrainConfig
from nc_tools.transfer import FineTuning, Full, ProbeThenFull, SkipConnection

pytestmark = pytest.mark.slow

RECIPE = {path.stem: path for path in RECIPES}
SHORT = FineTuning(rates=(0.01,), training=TrainConfig(epochs=1, batch_size=64))
PROTOCOL = Protocol(curve_points=1, transfer_samples=150, fine_tuning=SHORT, rank_layers=True)


def job_of(root, recipe="transfer", arm="linear", kind="final", protocol=PROTOCOL, **data):
    config = recipe_module(RECIPE[recipe]).ARMS[arm]
    config = replace(config, training=replace(config.training, epochs=1), data=replace(config.data, **data))
    facts = {"experiment": "test", "suite": "suite", "device": "cpu", "seed": 0, "draw": 0}
    return Job(kind=kind, arm=arm, config=config, root=root, protocol=protocol, **facts)


def final_of(job):
    result = run_job(job, lambda _: None, StopSignal())
    assert result.error is None, result.error
    return result.run, read_run(result.run).final


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


READERS = {"probe", "ridge", "knn", "ncc_1", "ncc_5", "imprint_1", "imprint_5"}
TUNED = {"finetune", "lpft", "scl"}


def accuracies(final):
    return {
        key.split("/")[1]: v for key, v in final.items() if key.startswith("transfer/") and key.endswith("/accuracy")
    }


def test_held_out_classes_are_read_and_fine_tuned_to(tmp_path):
    run, final = final_of(job_of(tmp_path))
    assert set(accuracies(final)) == READERS | TUNED
    assert all(0 <= value <= 1 for value in accuracies(final).values())
    assert final["transfer/lpft/lr"] == 0.01
    rows = table(run / "layers.csv")
    assert {row["layer"] for row in rows} == {"layers.0", "layers.3", "layers.6", "features"}
    nc1 = [float(row["nc1_pinv"]) for row in rows]
    assert nc1 == sorted(nc1)
    last = next(row for row in rows if row["layer"] == "features")
    assert float(last["nc1_pinv"]) == pytest.approx(final["transfer/nc1_pinv"], rel=1e-4)
    assert float(last["ridge_accuracy"]) == pytest.approx(final["transfer/ridge/accuracy"], abs=1e-6)
    assert final["transfer/layers/number"] == 4


def test_coarse_labels_are_trained_on_and_the_fine_ones_read(tmp_path):
    _, final = final_of(job_of(tmp_path, "coarse_to_fine", protocol=replace(PROTOCOL, fine_tuning=None)))
    assert set(accuracies(final)) == READERS
    record = json.loads(next(tmp_path.glob("runs/*/run.json")).read_text())
    assert record["data"]["classes"] == ["even", "odd"]
    assert record["config"]["data"]["coarse"] == "digits-parity"


def test_another_data_set_is_read_and_fine_tuned_to(tmp_path):
    for split, number in (("train", 12), ("test", 5)):
        for name, gray in (("dark", 30), ("light", 200)):
            (tmp_path / "pictures" / split / name).mkdir(parents=True)
            for i in range(number):
                image = Image.new("L", (8, 8), gray + i)
                image.putpixel((i % 8, 3), 120)
                image.save(tmp_path / "pictures" / split / name / f"{i}.png")
    where = f"imagefolder:{tmp_path / 'pictures'}"
    _, final = final_of(job_of(tmp_path, held_out_classes=0, transfer_data=where))
    assert set(accuracies(final)) == READERS | TUNED
    assert final["transfer/knn/accuracy"] == 1.0


def test_without_being_asked_nothing_is_trained_further(tmp_path):
    run, final = final_of(job_of(tmp_path, protocol=Protocol(curve_points=1)))
    assert set(accuracies(final)) == READERS
    assert not (run / "layers.csv").exists()


def test_tuning_and_hold_out_runs_never_look_at_the_transfer_set(tmp_path, monkeypatch):
    def refuse(*_arguments, **_more):
        raise AssertionError("the transfer set was looked at")

    for kind in ("tuning", "holdout"):
        monkeypatch.setattr("nc_tools.experiment.evaluate.final_run.evaluate_transfer", refuse)
        protocol = replace(PROTOCOL, primary="transfer/probe/accuracy")
        result = run_job(job_of(tmp_path, kind=kind, protocol=protocol), lambda _: None, StopSignal())
        final = read_run(result.run).final
        assert result.score == final["holdout/gen/balanced_accuracy"]
        assert not [key for key in final if key.startswith(("transfer/", "test/"))]


def test_what_is_measured_besides_is_part_of_a_final_run_alone(tmp_path):
    job = job_of(tmp_path, protocol=Protocol())
    sources = load_data(job.config.data)
    facts = facts_of(sources, sources.train.labels)

    def name(kind, **rules):
        return identify(replace(job, kind=kind, protocol=Protocol(**rules)), facts).run_id

    for rules in ({"fine_tuning": SHORT}, {"rank_layers": True}):
        assert name("final", **rules) != name("final")
        assert name("tuning", **rules) == name("tuning")
        assert name("holdout", **rules) == name("holdout")
    assert name("final", primary="transfer/knn/accuracy") == name("final")
    other = FineTuning(rates=(0.02,), training=SHORT.training)
    assert name("final", fine_tuning=other) != name("final", fine_tuning=SHORT)


def test_methods_of_fine_tuning_are_written_with_their_class():
    encoded = encode(Protocol(fine_tuning=FineTuning(methods=(Full(), SkipConnection(("a",))))))
    assert [m["dataclass"].rpartition(".")[2] for m in encoded["fine_tuning"]["methods"]] == ["Full", "SkipConnection"]
    assert {m.key for m in (Full(), ProbeThenFull(), SkipConnection())} == TUNED


def test_a_primary_metric_must_be_a_final_value():
    with pytest.raises(
        ValueError,
        match="such as 'test/gen/balanced_accuracy', got 'holdout/gen/accuracy'",
    ):
        Protocol(primary="holdout/gen/accuracy")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"primary": "transfer/probe/accuracy"}, "protocol.primary=transfer/probe/accuracy needs a transfer set"),
        ({"fine_tuning": SHORT}, "protocol.fine_tuning needs a transfer set"),
        ({"rank_layers": True}, "protocol.rank_layers needs a transfer set"),
    ],
)
def test_a_comparison_by_transfer_without_a_transfer_set_is_refused(rules, message):
    with pytest.raises(ValueError, match=message):
        check_transfer(Protocol(**rules), load_data(DataConfig()))
    check_transfer(Protocol(**rules), load_data(DataConfig(coarse="digits-parity")))


def refused(recipe, argv, capsys):
    module = recipe_module(RECIPE[recipe])
    with pytest.raises(SystemExit) as end:
        run_in_process(module.ARMS, name=recipe, question=module.__doc__, protocol=module.PROTOCOL, argv=argv)
    assert end.value.code == 2
    return capsys.readouterr().err


def test_errors_of_wrong_command_lines_suggest_a_fix(tmp_path, capsys):
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (8, 8), (40 * i, 9, 0)).save(tmp_path / "images" / name / f"{i}.png")
    data = ["--data", f"imagefolder:{tmp_path / 'images'}", "--out", str(tmp_path / "out")]
    assert "--set data.held_out_classes=N" in refused("transfer", data, capsys)
    assert "which the data do not have" in refused("coarse_to_fine", data, capsys)
    error = refused("coarse_to_fine", ["--set", "data.coarse=digit-parity", *data[2:]], capsys)
    assert "did you mean 'digits-parity'?" in error
    error = refused("coarse_to_fine", ["--set", "data.coarse=groups.csv", *data[2:]], capsys)
    assert "groups.csv does not exist: check the path" in error


def test_settings_reach_the_fine_tuning_and_smoke_shortens_it(capsys):
    module = recipe_module(RECIPE["transfer"])
    for argv, epochs, rates in (
        (["--set", "protocol.fine_tuning.training.epochs=3"], 3, 3),
        (["--smoke"], 2, 1),
    ):
        run_in_process(module.ARMS, name="x", question="y", protocol=module.PROTOCOL, argv=["--print-config", *argv])
        fine_tuning = json.loads(capsys.readouterr().out)["protocol"]["fine_tuning"]
        assert (fine_tuning["training"]["epochs"], len(fine_tuning["rates"])) == (epochs, rates)
    run_in_process(
        module.ARMS, name="x", question="y", protocol=module.PROTOCOL,
        argv=["--print-config", "--set", "protocol.fine_tuning=None"],
    )  # fmt: skip
    assert json.loads(capsys.readouterr().out)["protocol"]["fine_tuning"] is None


@pytest.mark.parametrize("name", ["transfer", "coarse_to_fine"])
def test_the_recipes_are_decided_by_transfer_and_add_what_is_contrastive_to_cross_entropy(name):
    module = recipe_module(RECIPE[name])
    assert list(module.ARMS) == ["linear", "etf", "supcon", "spread", "entropy"]
    assert module.PROTOCOL.primary == "transfer/probe/accuracy"
    assert len({config.data for config in module.ARMS.values()}) == 1
    check_transfer(module.PROTOCOL, load_data(module.BASE.data))
    for arm in ("supcon", "spread", "entropy"):
        names = [part.name for part in module.ARMS[arm].loss.arguments["terms"]]
        assert names[0] == "CrossEntropy"


# What the report says


def compared(primary="transfer/probe/accuracy"):
    from nc_tools.comparison import compare_runs

    runs = []
    for arm, level in (("linear", 0.8), ("etf", 0.7), ("spread", 0.9)):
        for seed in range(3):
            noise = 0.01 * seed
            final = {
                "test/gen/balanced_accuracy": 0.9 + noise,
                "transfer/probe/accuracy": level + noise,
                "transfer/nc1_pinv": 2 - level - noise,
                "transfer/cdnv": level + (seed == 1),
            }
            runs.append(ComparedRun(arm, seed, 0, "FINISHED", final, run_id=f"{arm}-{seed}"))
    return compare_runs(runs, experiment=Experiment(primary=primary))


def test_the_table_shows_source_accuracy_beside_what_decides():
    headings = [column.heading for column in summary_columns(compared())]
    assert headings[1] == "probe↑"
    assert "bal. acc.↑" in headings
    assert headings.count("probe↑") == 1
    headings = [column.heading for column in summary_columns(compared("test/gen/balanced_accuracy"))]
    assert headings[1] == "bal. acc.↑"
    assert headings.count("bal. acc.↑") == 1
    assert "probe↑" in headings


def test_the_ranking_is_printed_with_its_n_and_written(tmp_path):
    console = Console(record=True, width=200)
    report_ranking(compared(), tmp_path, console)
    shown = console.export_text()
    assert "Collapse on the transfer training images against transfer, linear probe" in shown
    assert (
        "NC1: runs Spearman -1.00, Kendall -1.00 (n = 9); means of arms Spearman -1.00, Kendall -1.00 (n = 3)" in shown
    )
    rows = table(tmp_path / RANKING)
    assert [row["run"] for row in rows[:3]] == ["spread-2", "spread-1", "spread-0"]
    assert rows[0]["transfer/probe/accuracy"] == "0.920000"
    assert rows[0]["nc1_trace"] == ""
    assert not list(tmp_path.glob("*.part"))


def test_keys_of_transfer_are_named_and_only_accuracies_are_judged():
    assert metric_info("transfer/scl/accuracy").label == "transfer, one layer and a skip connection"
    assert metric_info("transfer/probe/accuracy").direction == "higher"
    for key in ("transfer/nc1_pinv", "transfer/cdnv", "transfer/ncc_1/interval", "transfer/lpft/lr"):
        assert metric_info(key).direction == "neither"
    assert metric_info("transfer/cdnv").value(2.5) == "2.5"
    assert metric_info("transfer/layers/spearman").value(-0.4) == "-0.4"
    assert metric_info("transfer/ncc_5/interval").value(0.04) == "4.0"


def test_all_that_an_arm_of_two_views_leaves_is_finite(tmp_path):
    _, final = final_of(job_of(tmp_path, arm="spread"))
    assert torch.tensor(list(final.values())).isfinite().all()
