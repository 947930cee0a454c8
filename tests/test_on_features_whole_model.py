"""The whole model of a run on features: its record decides neither which code runs nor which weights are read."""

import json
import sys

import pytest
from support.experiment_runs import config_of, job_of, make

from nc_tools.experiment.on_features.head_records import HEAD_WEIGHTS
from nc_tools.experiment.on_features.whole_model import write_whole_model

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "model", [{"name": "ran_by_a_record:build"}, {"name": "timm:resnet18", "weights": "/etc/hostname"}]
)
def test_a_record_that_names_another_backbone_is_refused(tmp_path, model):
    (tmp_path / "ran_by_a_record.py").write_text("def build(**_):\n    raise SystemExit('ran')\n")
    result, _ = make(job_of(tmp_path / "runs", "final"))
    record = json.loads((result.run / "run.json").read_text())
    record["config"]["model"].update(model)
    (result.run / "run.json").write_text(json.dumps(record))
    (result.run / "weights.safetensors").rename(result.run / HEAD_WEIGHTS)
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(ValueError, match=r"run\.json is the record of another backbone"):
            write_whole_model(result.run, tmp_path / "model", config_of("etf_la").model)
    finally:
        sys.path.remove(str(tmp_path))
    assert "ran_by_a_record" not in sys.modules
    assert not (tmp_path / "model").exists()
