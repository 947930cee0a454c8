"""The pages of MLflow that show a comparison, as addresses relative to the server's address."""

import json

# MLflow's view for training runs, and not the one for language models.
_MODE = "workflowType=machine_learning"
_VIEW = "nc_tools"


def pages(experiment: str, comparison: str | None) -> list[tuple[str, str]]:
    """Return the pages of the report of a comparison and of the charts of its runs, each with what it shows.

    Args:
        experiment: Id of the experiment.
        comparison: Id of the comparison's run; None if there is none.

    Example:
        >>> pages("1", None)
        [('MLflow, curves', '#/experiments/1/runs?viewStateShareKey=nc_tools&compareRunsMode=CHART\
&workflowType=machine_learning')]
    """
    runs = f"#/experiments/{experiment}/runs"
    charts = ("MLflow, curves", f"{runs}?viewStateShareKey={_VIEW}&compareRunsMode=CHART&{_MODE}")
    report = ("MLflow, report", f"{runs}/{comparison}/artifacts/report/comparison.html?{_MODE}")
    return [charts] if comparison is None else [report, charts]


def chart_view() -> dict[str, str]:
    """Return the experiment's tag that the chart page reads: it draws one curve for each arm, the mean of its runs.

    The run of the comparison is left out: it has single values only, which MLflow would show first.
    """
    group = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "nc.arm"}]}
    view = {"searchFilter": "tags.`nc.kind` != 'comparison'", "groupBy": group}
    return {f"mlflow.sharedViewState.{_VIEW}": json.dumps(view)}
