"""``nc_tools.evaluate``: the keys and numbers of a run, for any model and loader; one table with a recipe's arm."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.experiment_runs import config_of, job_of, make
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import nc_tools
from nc_tools.data import SymmetricNoise
from nc_tools.evaluation.collect import collect
from nc_tools.experiment import load_run
from nc_tools.experiment.run_data import RunData, open_data
from nc_tools.heads import CosineHead
from nc_tools.metrics import conformal_sets, fit_conformal, fit_vector_scaling
from nc_tools.models import Classifier
from nc_tools.records import Batch
from nc_tools.run_records import read_run

# What only the run itself knows: its cost, its best epoch, images outside a long-tailed subset.
OWN = ("perf/", "best/", "cal/temperature_oracle", "test/cal_oracle/", "test/cal_vs/", "test/gen_vs/", "test/cal_ds/")


class Batches:
    """The batches of a run's own pass over a set, which can be iterated again."""

    def __init__(self, data: RunData, images: Any, indices: Tensor | None = None) -> None:
        self.data, self.images, self.indices = data, images, indices

    def __iter__(self) -> Iterator[Batch]:
        return self.data.plain_batches(self.images, self.indices)


@pytest.mark.parametrize("arm", ["linear", "etf_la"])
@pytest.mark.slow
def test_values_are_those_of_a_run(arm: str, tmp_path: Path) -> None:
    config = config_of(arm)
    config = replace(config, data=replace(config.data, noise=SymmetricNoise(0.2), ood_near="scrambled"))
    holdout, _ = make(job_of(tmp_path, "holdout", config=config))
    final, _ = make(job_of(tmp_path, "final", config=config, holdout_run=holdout.run))
    assert final.run is not None
    expected = read_run(final.run).final
    data = open_data(config, seed=0, device=torch.device("cpu"), cache=Path("unused"))
    sources, subsets = data.sources, data.subsets
    clean = sources.train.clean_labels
    assert clean is not None
    values = nc_tools.evaluate(
        load_run(final.run).model,
        Batches(data, sources.train, subsets.train),
        Batches(data, sources.test),
        outliers={name: Batches(data, images) for name, images in sources.ood.items()},
        transfer=(Batches(data, sources.transfer_train), Batches(data, sources.transfer_test)),
        clean=clean[subsets.train],
    )
    held_out = {"cal/temperature", "noise/transition_error_confusion", "noise/transition_error_confident"}
    wanted = {
        key for key in expected
        if not key.startswith((*OWN, "test/cal_ts/", "test/conformal/")) and key not in held_out
    }  # fmt: skip
    assert set(values) == wanted
    for key in wanted:
        assert values[key] == pytest.approx(expected[key], rel=1e-3, abs=1e-4, nan_ok=True), key


def test_the_temperature_is_that_of_the_holdout() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    train, test, holdout = (rows(40, seed) for seed in (0, 1, 2))
    values = nc_tools.evaluate(model, train, test, holdout=holdout)
    logits = torch.cat([model(x) for x, _ in holdout]).detach().double()
    labels = torch.cat([y for _, y in holdout])
    losses = {t: float(nn.functional.cross_entropy(logits / t, labels)) for t in np.geomspace(0.05, 20, 4000)}
    found = float(nn.functional.cross_entropy(logits / values["cal/temperature"], labels))
    assert found <= min(losses.values()) + 1e-5
    tested = torch.cat([model(x) for x, _ in test]).detach().double() / values["cal/temperature"]
    nll = float(nn.functional.cross_entropy(tested, torch.cat([y for _, y in test])))
    assert values["test/cal_ts/nll"] == pytest.approx(nll, rel=1e-5)


def test_scalings_and_prediction_sets_are_those_of_the_holdout() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    train, test, holdout = (rows(80, seed) for seed in (0, 1, 2))
    values = nc_tools.evaluate(model, train, test, holdout=holdout)
    (fit_logits, fit_labels), (logits, labels) = (
        (torch.cat([model(x) for x, _ in part]).detach(), torch.cat([y for _, y in part])) for part in (holdout, test)
    )
    scaled = fit_vector_scaling(fit_logits, fit_labels)(logits)
    assert values["test/cal_vs/nll"] == pytest.approx(float(nn.functional.cross_entropy(scaled, labels)), rel=1e-4)
    counts = torch.tensor([27, 27, 26])
    sets = conformal_sets(logits, "thr", fit_conformal(fit_logits, fit_labels, "thr", counts), counts)
    covered = float(sets[torch.arange(len(labels)), labels].double().mean())
    assert values["test/conformal/thr/coverage"] == pytest.approx(covered)
    assert "test/cal_vs/nll" not in nc_tools.evaluate(model, train, test)


def rows(count: int, seed: int, batch: int = 16) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    inputs = torch.randn(count, 4, generator=generator) + 2 * nn.functional.one_hot(labels, 4)
    return DataLoader(TensorDataset(inputs, labels), batch_size=batch)


def test_the_size_of_batches_and_the_mode_of_the_model_do_not_matter() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).train()
    model[1].requires_grad_(False)
    state = {n: v.clone() for n, v in model.state_dict().items()}
    small, large = (nc_tools.evaluate(model, rows(30, 0, n), rows(30, 1, n)) for n in (4, 30))
    assert model.training
    assert model[2].training
    assert all(torch.equal(v, state[n]) for n, v in model.state_dict().items())
    assert small.keys() == large.keys()
    assert all(small[key] == pytest.approx(large[key], rel=1e-4, abs=1e-6) for key in small)


def test_a_head_of_nc_tools_has_its_embedded_features() -> None:
    torch.manual_seed(0)
    model = Classifier(nn.Linear(4, 8), CosineHead(8, 3))
    values = nc_tools.evaluate(model, rows(30, 0), rows(30, 1))
    assert "train/nc_embedded/nc1_pinv" in values
    reference = collect(model, [Batch(x, y, torch.arange(len(y))) for x, y in rows(30, 1)])
    accuracy = float((reference.logits.argmax(1) == reference.labels).double().mean())
    assert values["test/gen/accuracy"] == pytest.approx(accuracy)


@pytest.mark.slow
def test_an_own_loop_and_a_recipe_stand_in_one_table(tmp_path: Path) -> None:
    config = config_of("linear")
    for seed in (0, 1):
        make(job_of(tmp_path, "final", seed=seed))
        data = open_data(config, seed=seed, device=torch.device("cpu"), cache=Path("unused"))
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 7))
        train, test = Batches(data, data.sources.train, data.subsets.train), Batches(data, data.sources.test)
        identity = {"arm": "mine", "seed": seed, "kind": "loop", "config": {"lr": 0.1}}
        from nc_tools.run_records import RunIdentity, RunRecord

        with RunRecord.create(tmp_path, RunIdentity(**identity)) as run:
            names = data.sources.train.classes
            run.finish(nc_tools.evaluate(model, train, test, classes=names, record=run.path))
    comparison = nc_tools.compare(tmp_path, baseline="linear", out=tmp_path / "report")
    assert comparison.test("mine").paired.n == 2
    shared = set(read_run(next((tmp_path / "runs").glob("mine*"))).final)
    recipe = set(read_run(next((tmp_path / "runs").glob("linear*"))).final)
    missing = {
        key for key in recipe - shared if not key.startswith((*OWN, "transfer/", "test/ood/", "test/conformal/"))
    }
    assert missing == set()
    assert (tmp_path / "report" / "comparison.html").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_counts": [1, 2]}, r"class_counts must hold 3 numbers, got \(2,\)"),
        ({"clean": torch.zeros(3).long()}, r"true label of each of the 30 training images, got \(3,\)"),
        ({"classes": ["a"], "record": "x"}, "a name for each of the 3 classes, got 1"),
        ({"test": []}, "empty data set"),
        ({"test": [3]}, "a loader must yield"),
        ({"head": "9"}, "has no module '9'"),
    ],
)
def test_input_that_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    arguments = {"train": rows(30, 0), "test": rows(30, 1)} | change
    train, test = arguments.pop("train"), arguments.pop("test")
    with pytest.raises((ValueError, TypeError), match=message):
        nc_tools.evaluate(model, train, test, **arguments)
