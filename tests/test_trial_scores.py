"""The kept scores of tuning trials: exact, of one metric, and never a reason to stop."""

import pytest

from nc_tools.experiment.on_features.trial_scores import TrialScores
from nc_tools.run_records.partial_files import remove_partial_files

METRIC = "holdout/gen/accuracy"
BAD = [
    "[1]",
    *(f'{{"a": {value}}}' for value in ('"1"', "true", "[1.0]", "{}", "NaN", "-Infinity", "1e400", "9" * 400)),
]


def test_scores_are_read_back_to_the_bit(tmp_path):
    scores = TrialScores(tmp_path, METRIC)
    scores.keep({"a": 0.1 + 0.2, "b": None})
    scores.keep({})
    scores.keep({"c": 1.0})
    assert len(list(tmp_path.iterdir())) == 2
    again = TrialScores(tmp_path, METRIC)
    assert (again["a"], again["b"], again["c"]) == (0.1 + 0.2, None, 1.0)
    assert "d" not in again


@pytest.mark.parametrize(
    "text",
    ["", '{"metric": "holdout/gen/accuracy", "scores": {"a": 0.', "[]", '{"scores": {"a": 1.0}}', '{"metric": 3}']
    + ['{"metric": "holdout/gen/balanced_accuracy", "scores": {"a": 1.0}}']
    + [f'{{"metric": "holdout/gen/accuracy", "scores": {bad}}}' for bad in BAD],
)
def test_files_that_hold_no_scores_of_the_metric_are_left_out(tmp_path, text):
    (tmp_path / "0.json").write_text(text)
    assert "a" not in TrialScores(tmp_path, METRIC)


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    for folder in ("seeds", "seeds/trials"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / ".0.json.999999999.7.part").write_text("{")
    remove_partial_files(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
