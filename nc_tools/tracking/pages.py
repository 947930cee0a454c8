"""The pages of MLflow that show a comparison, as addresses relative to that of its server."""

# MLflow's view for training runs, and not the one for language models.
MODE = "workflowType=machine_learning"


def pages(experiment: str, comparison: str | None) -> list[str]:
    """Return the page of the charts of an experiment, and that of the comparison in it.

    Args:
        experiment: Id of the experiment.
        comparison: Id of the comparison's run; None if there is none.

    Example:
        >>> pages("1", None)
        ['#/experiments/1/runs?compareRunsMode=CHART&workflowType=machine_learning']
    """
    charts = f"#/experiments/{experiment}/runs?compareRunsMode=CHART&{MODE}"
    return [charts] if comparison is None else [charts, f"#/experiments/{experiment}/runs/{comparison}?{MODE}"]


def chart_view() -> dict[str, str]:
    """Return the tag of an experiment."""
    return {}
