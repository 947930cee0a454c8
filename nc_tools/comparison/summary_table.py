"""The summary table: which figures it shows, as text, for the terminal, Markdown and the report alike."""

from __future__ import annotations

from dataclasses import dataclass

from nc_tools.comparison.metric_info import PRIMARY, metric_info, p_text
from nc_tools.comparison.result import Comparison
from nc_tools.comparison.wording import difference_text

NLL = "test/cal/nll"
ECE = "test/cal/ece"
ECE_SCALED = "test/cal_ts/ece"
NC1 = "train/nc/nc1_pinv"
PROBE = "transfer/probe/accuracy"


@dataclass(frozen=True)
class Column:
    """One column: its short heading for narrow places, and what it means."""

    heading: str
    meaning: str


@dataclass(frozen=True)
class TableRow:
    """One arm of the summary: a cell per column, or why there is none.

    Attributes:
        arm: The arm.
        cells: Texts in the order of the columns, without the arm's name.
        verdict: ``"baseline"``, ``"better"``, ``"worse"``, ``"open"``, or ``"none"`` without a result.
        why: Why there is no result, or what is missing.
    """

    arm: str
    cells: tuple[str, ...]
    verdict: str
    why: str = ""


def rare_metric(comparison: Comparison) -> str:
    """Return the metric that shows the rare classes: few-shot where it is defined, else the tail third."""
    few = "test/gen/few"
    return few if few in comparison.metrics else "test/gen/tail"


def columns(comparison: Comparison) -> tuple[Column, ...]:
    """Return the columns after the arm's name; the first four carry the test, the others describe."""
    primary = comparison.primary
    shown = "bal. acc." if primary.key.endswith("/balanced_accuracy") else primary.label
    return (
        Column("n", "seeds × draws"),
        Column(f"{shown}{primary.arrow}", f"{primary.label}, mean ± sd over seeds; {primary.reading}"),
        Column("diff. [95 %]", f"paired difference to {comparison.baseline}, 95 % t interval over seeds"),
        Column("Holm p", "p of the paired t test, Holm-corrected over the family"),
        *(column for column, _ in _described(comparison)),
    )


def _described(comparison: Comparison) -> list[tuple[Column, tuple[str, ...]]]:
    """The descriptive columns whose metrics any run has; several metrics share a cell, joined by an arrow."""
    rare, usual = metric_info(rare_metric(comparison)), metric_info(PRIMARY)
    ece: tuple[Column, tuple[str, ...]]
    ece = (Column("ECE↓", "expected calibration error in points; lower is better"), (ECE,))
    if ECE_SCALED in comparison.metrics:
        both = "expected calibration error in points, before → after temperature scaling; lower is better"
        ece = (Column("ECE→TS↓", both), (ECE, ECE_SCALED))
    wanted = [
        (Column(f"bal. acc.{usual.arrow}", f"{usual.label} on the test set; higher is better"), (PRIMARY,)),
        (
            Column(f"{rare.key.rsplit('/', 1)[-1]}{rare.arrow}", f"{rare.label}; higher is better"),
            (rare.key,),
        ),
        (Column("NLL↓", "negative log-likelihood on the test set; lower is better"), (NLL,)),
        ece,
        (Column("NC1", "within-class variation of the training features; describes, does not judge"), (NC1,)),
        (Column("probe↑", "transfer: accuracy of a linear probe; higher is better"), (PROBE,)),
    ]
    return [(c, keys) for c, keys in wanted if keys[0] in comparison.metrics and keys[0] != comparison.primary.key]


def lines(comparison: Comparison) -> tuple[TableRow, ...]:
    """Return one line per arm, in order; arms without a result are there with the reason."""
    return tuple(_line(comparison, arm) for arm in comparison.arms)


def _line(comparison: Comparison, arm: str) -> TableRow:
    state, primary = comparison.state(arm), comparison.primary
    row = comparison.row(arm, primary.key)
    why = "; ".join(state.unfinished)
    if row is None or row.mean is None:
        return TableRow(arm, (state.label, *["–"] * (len(columns(comparison)) - 1)), "none", why)
    test = comparison.test(arm)
    return TableRow(
        arm,
        (
            state.label,
            primary.mean_and_sd(row.mean, row.sd).replace(" ", ""),
            "baseline" if arm == comparison.baseline else difference_text(row.paired, primary),
            "" if arm == comparison.baseline else p_text(row.p_holm),
            *("→".join(mean_text(comparison, arm, key) for key in keys) for _, keys in _described(comparison)),
        ),
        "baseline" if test is None else comparison.family.verdict(test),
        why,
    )


def mean_text(comparison: Comparison, arm: str, metric: str) -> str:
    """Write an arm's mean of one metric."""
    row = comparison.row(arm, metric)
    return metric_info(metric).value(row.mean if row else None)
