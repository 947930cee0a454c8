"""Packs of runs: the records are those of runs made one by one, and each run ends on its own."""

from dataclasses import replace

import pytest
import torch
from support.experiment_runs import EPOCHS, Reads, config_of, job_of, make, recipe
from support.run_packs import ARMS, assert_same_run, jobs_of, pack_of

from nc_tools._support.signals import StopSignal
from nc_tools.data.shared_batches import SharedBatches
from nc_tools.experiment import ModelConfig
from nc_tools.experiment.job import JobResult, Note, RunProgress
from nc_tools.experiment.packing import CPU_LIMIT, CPU_PACK, Packing, batch_cost, make_packs, packing_of
from nc_tools.experiment.plan import Plan, RunOptions
from nc_tools.experiment.recipe_cli import parse_pack
from nc_tools.experiment.run_config import Protocol
from nc_tools.experiment.run_data import facts_of, open_data
from nc_tools.experiment.run_pack import PackJob, RunPackResult, results_of
from nc_tools.losses import SupConLoss
from nc_tools.records import Batch
from nc_tools.run_records import read_run
from nc_tools.specs import spec
from nc_tools.training import SharpnessAware
from nc_tools.training.backbone_stack import BackboneStack

pytestmark = pytest.mark.slow


def test_tuning_hold_out_and_final_runs_of_a_pack_are_those_made_one_by_one(tmp_path, monkeypatch):
    counts, plain = [], BackboneStack.compute
    monkeypatch.setattr(BackboneStack, "compute", lambda self, group: (counts.append(len(group)), plain(self, group)))
    progress = []
    packed = pack_of(jobs_of(tmp_path / "packed", "holdout"), progress.append).of_runs
    assert max(counts) == len(ARMS)
    assert not any(isinstance(p, Note) for p in progress)
    labels = {p.label for p in progress if isinstance(p, RunProgress)}
    assert len(labels) == len(ARMS)
    alone = [make(job)[0] for job in jobs_of(tmp_path / "alone", "holdout")]
    for mine, other in zip(packed, alone, strict=True):
        assert_same_run(mine, other)
        assert mine.score == pytest.approx(other.score, abs=0.05)
    chosen = {"linear": packed[0].run, "etf_dr": packed[2].run}
    first = [job_of(tmp_path / "packed", "final", arm, holdout_run=run) for arm, run in chosen.items()]
    mixed = pack_of([*first, job_of(tmp_path / "packed", "tuning", "cosine_la", seed=1000)]).of_runs
    assert [result.status for result in mixed] == ["FINISHED"] * 3
    lone = [replace(job, root=tmp_path / "alone") for job in first]
    for mine, job in zip(mixed, lone, strict=False):
        assert_same_run(mine, make(job)[0])


def test_runs_of_one_seed_share_their_batches(tmp_path, monkeypatch):
    reads = Reads(monkeypatch)
    jobs = [job_of(tmp_path, "tuning", arm, seed=seed) for arm in ("linear", "etf_la") for seed in (4, 5)]
    contrastive = replace(config_of("linear"), loss=spec(SupConLoss))
    pack_of([*jobs, job_of(tmp_path, "tuning", config=contrastive, seed=4)])
    assert len(reads.of("train", how="train")) == 3  # two seeds, and two views of one of them


def test_trainings_out_of_step_get_batches_of_their_own():
    class Numbers:
        def __len__(self):
            return 4

        def epoch(self, epoch, start=0):
            made.append((epoch, start))
            return (Batch(torch.tensor([epoch, step]), None, None) for step in range(start, 4))

    made = []
    shared = SharedBatches(Numbers())
    one, other = shared.epoch(0), shared.epoch(0)
    for step in range(4):
        first, second = next(one), next(other)
        assert first is second
        assert first.inputs.tolist() == [0, step]
    ahead = shared.epoch(1)
    assert [next(ahead).inputs.tolist() for _ in range(2)] == [[1, 0], [1, 1]]
    late, resumed = shared.epoch(1), shared.epoch(0, start=2)
    for step in range(4):
        assert next(late).inputs.tolist() == [1, step]
    assert [batch.inputs.tolist() for batch in resumed] == [[0, 2], [0, 3]]
    assert [batch.inputs.tolist() for batch in ahead] == [[1, 2], [1, 3]]
    assert made == [(0, 0), (1, 0), (1, 0), (0, 2)]
    assert len(shared) == 4


def test_a_run_that_diverges_or_fails_does_not_hurt_the_others(tmp_path, capsys):
    steep = config_of("linear")
    steep = replace(steep, optim=replace(steep.optim, lr=1e20, warmup=0.0))
    jobs = jobs_of(tmp_path, "tuning")[:2]
    broken = job_of(tmp_path, "final", holdout_run=tmp_path / "nothing")
    result = pack_of([job_of(tmp_path, "tuning", config=steep, seed=5), *jobs, broken])
    assert [r.status for r in result.of_runs] == ["FAILED", "FINISHED", "FINISHED", "FAILED"]
    assert result.of_runs[0].diverged
    assert "not finite at step" in result.of_runs[0].error
    assert result.of_runs[3].unexpected
    assert "Traceback" in capsys.readouterr().err
    again = pack_of(jobs)
    assert all(r.earlier for r in again.of_runs)


def test_a_stopped_pack_goes_on_as_a_pack_or_one_by_one(tmp_path):
    whole = pack_of(jobs_of(tmp_path / "whole", "tuning")[:3]).of_runs
    jobs, stop = jobs_of(tmp_path / "again", "tuning")[:3], StopSignal()

    def ask(progress):
        stop.requested = stop.requested or progress.done == 2

    assert [r.status for r in pack_of(jobs, ask, stop).of_runs] == ["KILLED"] * 3
    jobs = [replace(job, resume=True) for job in jobs]
    one = make(jobs[0])[0]
    two = pack_of(jobs[1:]).of_runs
    for mine, other in zip((one, *two), whole, strict=True):
        ours, theirs = (dict(read_run(r.run).curves()["train/loss"]) for r in (mine, other))
        assert sorted(ours) == list(range(1, EPOCHS + 1))
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_the_reason_to_train_alone_is_a_note(tmp_path):
    config = config_of("linear")
    sam = replace(config, optim=replace(config.optim, sam=SharpnessAware(0.05)))
    notes = []
    pack_of([job_of(tmp_path, "tuning", config=sam, seed=seed) for seed in (1, 2)], notes.append)
    texts = [note.text for note in notes if isinstance(note, Note)]
    assert texts == ["some runs of a pack train alone, because sharpness-aware steps (optim.sam) go through the "
                     "backbone twice"]  # fmt: skip
    notes.clear()
    pack_of([job_of(tmp_path, "tuning", config=sam, seed=3)], notes.append)
    assert not any(isinstance(note, Note) for note in notes)  # a run that has no neighbor is no exception


def test_a_pack_whose_process_died_lost_all_its_runs(tmp_path):
    pack, died = PackJob(tuple(jobs_of(tmp_path, "tuning"))), JobResult(None, "KILLED", error="its process died")
    assert results_of(pack, died) == [died] * len(ARMS)
    full = RunPackResult(None, "FAILED", error="no space", disk_full=True, of_runs=(died,) * len(ARMS))
    assert list(results_of(pack, full)) == [died] * len(ARMS)
    assert (pack.kind, pack.label) == ("tuning", "linear s0 d0 and 4 more")
    assert PackJob(pack.jobs[:1]).label == "linear s0 d0"


@pytest.fixture(scope="module")
def facts():
    data = open_data(recipe.BASE, seed=0, device=torch.device("cpu"), cache=None)
    return facts_of(data.sources, data.sources.train.labels[data.subsets.train])


def plan_of(arms):
    return Plan(name="test", question="Why?", arms=arms, protocol=Protocol())


def sizes(arms, facts, device="cpu", pack=None):
    options = RunOptions(out=None, device=device, workers=2, threads=1, pack=pack)
    return packing_of(plan_of(arms), options, dict.fromkeys(arms, facts))


def test_small_networks_are_packed_on_a_cpu_and_others_are_not(facts):
    base = recipe.BASE
    wide = replace(base, model=ModelConfig(name="conv", width=64))
    deep = replace(base, model=ModelConfig(name="resnet20"))
    many = replace(base, training=replace(base.training, batch_size=256))
    weights = replace(base, model=ModelConfig(name="torchvision:resnet18", weights="w.safetensors"))
    sam = replace(base, optim=replace(base.optim, sam=SharpnessAware(0.05)))
    arms = {"small": base, "wide": wide, "deep": deep, "many": many, "pretrained": weights, "sam": sam}
    expected = {"small": CPU_PACK, "wide": 1, "deep": 1, "many": 1, "pretrained": 1, "sam": 1}
    assert sizes(arms, facts).sizes == expected
    assert sizes(arms, facts).notes == ()
    assert set(sizes(arms, facts, device="cuda").sizes.values()) == {1}
    asked = sizes(arms, facts, pack=6)
    assert asked.sizes == {**dict.fromkeys(arms, 6), "sam": 1}
    assert asked.notes == (
        "sam: runs train one by one, because sharpness-aware steps (optim.sam) go through the backbone twice",
    )
    assert sizes(arms, facts, pack=1).notes == ()


def test_the_cost_of_a_batch_is_counted(facts):
    """Of 8 x 8 images the three convolutions see 4 x 4 places: 9 (1 x 8 + 8 x 16 + 16 x 32) products at each."""
    assert batch_cost(recipe.BASE, facts) == 32 * 16 * 9 * (8 + 128 + 512) < CPU_LIMIT


def test_runs_are_divided_evenly_and_each_once(tmp_path):
    jobs = [job_of(tmp_path, "tuning", arm, seed=seed) for seed in range(7) for arm in ("linear", "etf_la", "etf_dr")]
    packing = Packing({"linear": 8, "etf_la": 8, "etf_dr": 1})
    packs = make_packs(jobs, packing, workers=2)
    lengths = [len(pack.jobs) for pack in packs]
    assert sorted(lengths) == [1] * 7 + [7, 7]
    assert {id(job) for pack in packs for job in pack.jobs} == {id(job) for job in jobs}
    assert sum(lengths) == len(jobs)
    assert [len(p.jobs) for p in make_packs(jobs[:2], packing, workers=2)] == [1, 1]  # every worker has one
    assert [len(p.jobs) for p in make_packs(jobs[:2], packing, workers=1)] == [2]
    assert make_packs([], packing, workers=2) == []
    longer = replace(jobs[0].config, training=replace(jobs[0].config.training, epochs=9))
    assert len(make_packs([replace(jobs[0], config=longer), jobs[1]], packing, workers=1)) == 2


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", ""])
def test_a_pack_is_a_number_or_auto(text):
    with pytest.raises(ValueError, match="--pack must be auto or a number of runs of at least 1, got"):
        parse_pack(text)
