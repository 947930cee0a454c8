"""The choice: the arm that is best on the hold-outs, if the test set confirms that it beats the default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from nc_tools.comparison import Comparison
from nc_tools.comparison.result import ALPHA, ArmTest
from nc_tools.comparison.statistics import PairedDifference
from nc_tools.run_records.json_files import read_json_or_problem


@dataclass(frozen=True)
class Choice:
    """Which arm to use, and why.

    Attributes:
        arm: The arm to use.
        default: The default arm.
        candidate: The arm that is best on the hold-outs; it may be the default.
        holdout: Mean over seeds of each arm's score on the hold-out, by arm.
        confirmed: Whether the test set confirms that the candidate is better than the default.
        difference: Candidate minus default on the test set; None if the candidate is the default.
        reason: Why the candidate is not used, or "".
    """

    arm: str
    default: str
    candidate: str
    holdout: Mapping[str, float]
    confirmed: bool
    difference: PairedDifference | None
    reason: str = ""


def make_choice(comparison: Comparison, holdout: Mapping[str, float]) -> Choice:
    """Choose an arm on hold-out results, and confirm it on the test set.

    The candidate is the arm with the best mean score on the hold-outs. To choose it by its test result would
    overestimate it: the best of many arms is partly the luckiest. Hold-outs contain no test image, and their trials had
    other initial weights, orders and frames than the final runs. So the test set answers one question that was fixed
    before: is the candidate better than the default? The p value of this one test needs no adjustment for the other
    arms. If the answer is not yes, the default is used.

    Args:
        comparison: The comparison of all arms, with the default as its baseline.
        holdout: Mean score of each arm on the hold-outs.

    Raises:
        ValueError: If the default has no score on the hold-outs.
    """
    default = comparison.baseline
    if default not in holdout:
        raise ValueError(f"the default arm {default!r} has no hold-out run, so no arm can be chosen: see the log above")
    candidate = max(holdout, key=lambda arm: (holdout[arm], arm == default))
    if candidate == default:
        return Choice(default, default, default, holdout, confirmed=False, difference=None)
    test = comparison.test(candidate)
    reason = _why_not(comparison, candidate, test)
    difference = None if test is None else test.paired
    return Choice(default if reason else candidate, default, candidate, holdout, not reason, difference, reason)


def _why_not(comparison: Comparison, candidate: str, test: ArmTest | None) -> str:
    """Return why the test set does not confirm that a candidate beats the default, or ""."""
    if comparison.family.withheld:
        return comparison.family.withheld
    if test is None or test.paired is None or test.paired.p is None:
        return f"{candidate} has too few finished runs for a test"
    if test.lost:
        return f"{candidate} lost {len(test.lost)} of its runs ({test.lost[0].reason})"
    if test.paired.p >= ALPHA or test.paired.mean <= 0:
        return "the test set does not confirm it"
    return ""


def holdout_scores(seeds: Iterable[Path]) -> dict[str, float]:
    """Return by arm the mean over seeds of its best trial's score on the hold-out, for arms with a score at every seed.

    Args:
        seeds: The file of each seed's results.
    """
    stored = [read_json_or_problem(path)[0].get("scores") or {} for path in seeds]
    # In the order of the file: that of a set differs between processes, and the first of arms with equal scores wins.
    arms = stored[0] if stored else ()
    columns = {arm: [scores[arm] for scores in stored if isinstance(scores.get(arm), float)] for arm in arms}
    return {arm: fmean(own) for arm, own in columns.items() if len(own) == len(stored)}
