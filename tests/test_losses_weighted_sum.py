"""Weighted sums and their schedules, from a user's loop to a run's record."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from nc_tools._support.signals import StopSignal
from nc_tools.data import DataConfig
from nc_tools.experiment import Protocol, RunConfig
from nc_tools.experiment.deserialize import decode
from nc_tools.experiment.job import Job
from nc_tools.experiment.run_job import run_job
from nc_tools.experiment.serialize import encode, run_hash
from nc_tools.heads import LinearHead
from nc_tools.losses import (
    ClassCompactnessLoss,
    ClassSpreadLoss,
    CrossEntropyLoss,
    FeatureDecayLoss,
    LogitAdjustedLoss,
    LossTerm,
    SupConLoss,
    WeightedSumLoss,
    WeightedTerm,
    term,
)
from nc_tools.models.classifier import Classifier
from nc_tools.records import Batch, Outputs
from nc_tools.run_records import read_run
from nc_tools.schedules import ConstantSchedule, CosineSchedule, LinearSchedule, StepSchedule
from nc_tools.specs import Spec, spec
from nc_tools.training import OptimConfig, TrainConfig, fit

K, D, COUNTS = 3, 4, [6, 3, 1]
FACTS = {"num_classes": K, "feature_dim": D, "class_counts": COUNTS, "num_samples": 10}
BATCH = Batch(torch.randn(6, D, generator=torch.Generator().manual_seed(0)), torch.arange(6) % K, torch.arange(6))
SUM = spec(
    WeightedSumLoss,
    terms=(
        term(1.0, spec(LogitAdjustedLoss, tau=0.5)),
        term(LinearSchedule(0.0, 0.1), spec(ClassCompactnessLoss, momentum=0.5)),
        term(StepSchedule(0.5, 0.0, 2.0), spec(FeatureDecayLoss), name="decay"),
    ),
)


def test_epochs_in_place_of_shares_and_negative_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"StepSchedule\.at must lie in \[0, 1\], a share of training, got 160"):
        StepSchedule(160, 0.0, 1.0)
    with pytest.raises(ValueError, match=r"LinearSchedule\.until must lie in \[0, 1\]"):
        LinearSchedule(0.0, 1.0, until=20)
    with pytest.raises(ValueError, match=r"LinearSchedule needs since < until, got 0\.5 and 0\.5"):
        LinearSchedule(0.0, 1.0, 0.5, 0.5)
    with pytest.raises(
        ValueError, match=r"weight of CrossEntropy must be finite and not negative, got -1.0 at progress"
    ):
        term(-1.0, CrossEntropyLoss())
    with pytest.raises(ValueError, match=r"weight of push must be finite and not negative, got -0.5 at progress 1.0"):
        term(LinearSchedule(0.0, -0.5), spec(ClassSpreadLoss), name="push")
    with pytest.raises(ValueError, match="got nan"):
        term(math.nan, CrossEntropyLoss())
    dips = WeightedSumLoss([term(lambda p: abs(p - 0.5) - 0.25, CrossEntropyLoss())])
    with pytest.raises(ValueError, match=r"got -0.25 at progress 0.5"):
        dips.set_progress(0.5)


def test_bad_terms_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one term"):
        WeightedSumLoss([])
    with pytest.raises(ValueError, match=r"different names, got .CrossEntropy. twice.* term\(weight, loss, name=...\)"):
        WeightedSumLoss([term(1.0, CrossEntropyLoss()), term(2.0, CrossEntropyLoss())])
    with pytest.raises(TypeError, match="takes losses such as"):
        WeightedSumLoss([term(1.0, spec(CrossEntropyLoss))])
    with pytest.raises(TypeError, match=r"a term takes a loss or its spec, .* term\(0.1, spec\(CrossEntropyLoss\)\)"):
        term(1.0, CrossEntropyLoss)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a term takes a loss or its spec"):
        term(1.0, spec(LinearHead))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="weight of CrossEntropy must be a number or a function of progress, got '1'"):
        term("1", CrossEntropyLoss())  # type: ignore[arg-type]


def outputs() -> Outputs:
    return LinearHead(D, K, generator=torch.Generator().manual_seed(0)).outputs(BATCH.inputs)


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.5, 1.0])
def test_the_sum_is_that_of_weighted_terms_built_from_the_runs_facts(progress: float) -> None:
    total: WeightedSumLoss = SUM.build(FACTS)  # type: ignore[assignment]
    total.set_progress(progress)
    result = total.terms(outputs(), BATCH)
    parts = [LogitAdjustedLoss(COUNTS, 0.5), ClassCompactnessLoss(D, K, 0.5), FeatureDecayLoss()]
    weights = [1.0, 0.1 * progress, 2.0 if progress >= 0.5 else 0.0]
    expected = [w * part(outputs(), BATCH).item() for w, part in zip(weights, parts, strict=True)]
    assert list(result) == ["LogitAdjusted", "ClassCompactness", "decay"]
    assert [value.item() for value in result.values()] == pytest.approx(expected)
    assert total.eval()(outputs(), BATCH).item() == pytest.approx(sum(expected))


def test_a_missing_fact_of_an_inner_loss_is_named() -> None:
    with pytest.raises(TypeError, match="LogitAdjustedLoss needs class_counts"):
        SUM.build({"num_classes": K, "feature_dim": D})


@dataclass(frozen=True)
class Box:
    inside: object
    other: int = 1


class Holder:
    def __init__(self, value: object, num_classes: int) -> None:
        self.value, self.num_classes = value, num_classes


def test_specs_are_built_wherever_they_stand_in_an_argument() -> None:
    inner = spec(LogitAdjustedLoss)
    plain_box = Box(("a", 1.0))
    nest = {"list": [inner, 2], "tuple": (plain_box, Box(inner, 3)), "spec": spec(Holder, value=inner)}
    holder = spec(Holder, value=nest).build(FACTS)
    assert isinstance(holder.value, dict)
    (listed, two), (plain, boxed) = holder.value["list"], holder.value["tuple"]
    assert two == 2
    assert plain is plain_box
    assert boxed.other == 3
    assert isinstance(holder.value["spec"], Holder)
    assert holder.value["spec"].num_classes == K
    for loss in (listed, boxed.inside, holder.value["spec"].value):
        assert isinstance(loss, LogitAdjustedLoss)
    assert isinstance(nest["list"][0], Spec)  # what was written down stays as it is


def test_a_record_holds_a_sum_and_its_hash_depends_on_every_weight() -> None:
    config = RunConfig(head=spec(LinearHead), loss=SUM, data=DataConfig())
    again = decode(json.loads(json.dumps(encode(config))))
    assert again == config
    assert run_hash(again) == run_hash(config)
    first, second, third = SUM.arguments["terms"]
    for changed in (
        (first, replace(second, weight=LinearSchedule(0.0, 0.2)), third),
        (first, second, replace(third, name="other")),
        (replace(first, loss=spec(LogitAdjustedLoss, tau=1.0)), second, third),
        (first, second),
    ):
        other = replace(config, loss=spec(WeightedSumLoss, terms=changed))
        assert run_hash(other) != run_hash(config)
    lost = spec(WeightedSumLoss, terms=(term(math.sqrt, spec(CrossEntropyLoss)),))
    with pytest.raises(TypeError, match="a configuration may hold numbers"):
        encode(replace(config, loss=lost))


def test_sums_in_sums_and_losses_of_two_views() -> None:
    inner = WeightedSumLoss([term(2.0, CrossEntropyLoss()), term(LinearSchedule(0.0, 1.0), FeatureDecayLoss())])
    total = WeightedSumLoss([term(0.5, inner, name="supervised"), term(1.0, SupConLoss(), name="contrast")])
    assert (inner.views, total.views, WeightedSumLoss([term(1.0, total)]).views) == (1, 2, 2)
    total.set_progress(0.5)
    two = outputs()
    two.second_view = outputs()
    result = total.terms(two, BATCH)
    assert list(result) == ["supervised_CrossEntropy", "supervised_FeatureDecay", "contrast"]
    assert result["supervised_FeatureDecay"].item() == pytest.approx(0.25 * FeatureDecayLoss()(two, BATCH).item())
    assert total(two, BATCH).item() == pytest.approx(sum(value.item() for value in result.values()))


def test_weights_change_in_place_and_compile_nothing_anew() -> None:
    total = WeightedSumLoss([term(1.0, CrossEntropyLoss()), term(LinearSchedule(0.0, 1.0), FeatureDecayLoss())])
    weights, place = total.weights, total.weights.data_ptr()
    counter = CompileCounter()  # type: ignore[no-untyped-call]
    torch._dynamo.reset()
    step = torch.compile(lambda h: total(LinearHead.outputs(linear, h), BATCH), backend=counter, fullgraph=True)
    linear = LinearHead(D, K)
    for progress in (0.0, 0.1, 0.7, 0.0):
        total.set_progress(progress)
        expected = CrossEntropyLoss()(linear.outputs(BATCH.inputs), BATCH) + progress * FeatureDecayLoss()(
            linear.outputs(BATCH.inputs), BATCH
        )
        torch.testing.assert_close(step(BATCH.inputs), expected)
    assert counter.frame_count == 1
    assert total.weights is weights
    assert total.weights.data_ptr() == place


def test_state_of_the_parts_is_state_of_the_sum_and_weights_are_not() -> None:
    total, again = SUM.build(FACTS), SUM.build(FACTS)
    total.set_progress(0.0)
    total(outputs(), BATCH)
    assert {name.rpartition(".")[2] for name in total.state_dict()} == {"means", "initialized"}
    again.load_state_dict(total.state_dict())
    for left, right in zip(again.state_dict().values(), total.state_dict().values(), strict=True):
        assert torch.equal(left, right)
    assert again.state_dict()["losses.1.centers.initialized"].all()


class ProgressLoss(LossTerm):
    """Records the progress that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[float] = []

    def set_progress(self, progress: float) -> None:
        self.calls.append(progress)

    def compute(self, outputs: Outputs, batch: Batch) -> torch.Tensor:  # noqa: ARG002
        return outputs.logits.square().mean()


class Ready:
    def __len__(self) -> int:
        return 2

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:  # noqa: ARG002
        yield from [BATCH, BATCH][start:]


def test_the_loop_sets_progress_and_each_term_has_a_curve() -> None:
    part = ProgressLoss()
    loss = WeightedSumLoss([term(1.0, part), term(StepSchedule(0.5, 0.0, 3.0), FeatureDecayLoss(), name="decay")])
    curves: list[dict[str, float]] = []
    model = Classifier(torch.nn.Linear(D, D), LinearHead(D, K))
    fit(model, loss, Ready(), TrainConfig(epochs=2), OptimConfig(lr=1e-3), epoch_end=lambda _, v, __: curves.append(v))
    assert part.calls == [0.0, 0.25, 0.5, 0.75]
    assert curves[0]["train/loss_decay"] == 0.0 < curves[1]["train/loss_decay"]
    for values in curves:
        assert values["train/loss"] == pytest.approx(values["train/loss_Progress"] + values["train/loss_decay"])


def test_a_run_draws_two_views_because_a_term_needs_them_and_writes_each_terms_curve(tmp_path: Path) -> None:
    loss = spec(
        WeightedSumLoss, terms=(term(1.0, spec(LogitAdjustedLoss)), term(CosineSchedule(0.5, 0.0), spec(SupConLoss)))
    )
    training = TrainConfig(epochs=2, batch_size=64)
    config = RunConfig(head=spec(LinearHead), loss=loss, training=training, optim=OptimConfig(lr=0.01))
    job = Job(
        kind="tuning", arm="sum", config=config, seed=1000, draw=0, root=tmp_path, experiment="test", suite="suite",
        protocol=Protocol(), device="cpu",
    )  # fmt: skip
    result = run_job(job, lambda _: None, StopSignal())
    assert result.error is None
    curves = read_run(result.run).curves()
    assert [len(curves[f"train/loss_{name}"]) for name in ("LogitAdjusted", "SupCon")] == [2, 2]
    recorded = json.loads((result.run / "run.json").read_text())["config"]["loss"]
    assert decode(recorded, Spec[LossTerm]) == loss


def test_a_term_is_a_value() -> None:
    assert term(1, spec(CrossEntropyLoss)) == WeightedTerm(
        ConstantSchedule(1.0), spec(CrossEntropyLoss), "CrossEntropy"
    )
    assert "decay: StepSchedule(at=0.5, before=0.0, after=2.0)" in repr(SUM.build(FACTS))
