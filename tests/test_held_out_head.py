"""What a head fits on held-out samples: fitted in the hold-out run, used in the final run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from safetensors.torch import load_file
from support.experiment_runs import config_of, job_of, make

from nc_tools.experiment import load_run
from nc_tools.heads import LEARNED, BalancedCalibrationHead
from nc_tools.run_records import read_run
from nc_tools.specs import spec


def config(**options):
    return replace(config_of("linear"), head=spec(BalancedCalibrationHead, **options))


def mix_of(run):
    return float(load_file(run.run / "weights.safetensors")["head.raw_mix"])


@pytest.mark.slow
def test_a_run_balances_the_mix_on_the_holdout_and_its_final_run_uses_it(tmp_path):
    holdout, _ = make(job_of(tmp_path, "holdout", "balanced", config=config(mix=0.5)))
    final, _ = make(job_of(tmp_path, "final", "balanced", config=config(mix=0.5), holdout_run=holdout.run))
    assert mix_of(holdout) != 0.0  # the logit of .5
    assert mix_of(final) == mix_of(holdout)
    values = [read_run(result.run).final for result in (holdout, final)]
    assert values[0]["head/raw_mix"] == values[1]["head/raw_mix"] == pytest.approx(mix_of(final))
    # At the fitted share confidence equals accuracy on the hold-out, as far as the two parts allow.
    assert values[0]["holdout/cal/ece"] < 0.2
    assert float(load_run(final.run).model.head.raw_mix) == mix_of(final)


@pytest.mark.slow
def test_a_learned_mix_is_left_alone(tmp_path):
    holdout, _ = make(job_of(tmp_path, "holdout", "balanced", config=config(mix=LEARNED)))
    assert "head/raw_mix" not in read_run(holdout.run).final
