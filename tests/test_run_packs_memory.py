"""Runs that do not fit into the memory side by side. The limit is simulated: no more than two backbones in a pass."""

import itertools

import pytest
import torch
from support.experiment_runs import job_of, make
from support.run_packs import ARMS, assert_same_run, jobs_of, pack_of

from nc_tools.experiment.job import Note
from nc_tools.models.conv_net import ConvNet
from nc_tools.training.backbone_stack import BackboneStack

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("first_at", [1, 9])
def test_a_pack_that_is_too_large_goes_on_as_smaller_ones(tmp_path, monkeypatch, first_at):
    """The memory is too small for the trial on copies before the first step, or only later, in an epoch."""
    plain, calls, sizes = BackboneStack._together, itertools.count(1), []

    def limited(self, inputs, *more):
        if next(calls) >= first_at and len(inputs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        sizes.append(len(inputs))
        return plain(self, inputs, *more)

    monkeypatch.setattr(BackboneStack, "_together", limited)
    progress = []
    results = pack_of(jobs_of(tmp_path / "packed", "tuning"), progress.append).of_runs
    assert [p.text for p in progress if isinstance(p, Note)] == [
        "5 runs side by side need too much memory: going on with half as many",
        "3 runs side by side need too much memory: going on with half as many",
    ]
    assert set(sizes) == ({2} if first_at == 1 else {5, 2})
    for mine, job in zip(results, jobs_of(tmp_path / "alone", "tuning"), strict=True):
        assert_same_run(mine, make(job)[0])
    assert len(results) == len(ARMS)


def test_a_run_that_is_too_large_says_which_setting_to_change(tmp_path, monkeypatch, capsys):
    plain = ConvNet.forward

    def too_large(self, images):
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return plain(self, images)

    monkeypatch.setattr(ConvNet, "forward", too_large)
    result = pack_of([job_of(tmp_path, "tuning"), job_of(tmp_path, "tuning", seed=1)])
    for one in result.of_runs:
        size = job_of(tmp_path, "tuning").config.training.batch_size
        assert one.error == (
            f"cpu has too little memory for batches of {size} images: use --set training.batch_size={size // 2}, which "
            f"all arms then have"
        )
    assert "Traceback" not in capsys.readouterr().err
