"""The figure of a comparison on noisy labels: wrong labels fitted against images recovered, over training."""

from dataclasses import replace

from support.compared_runs import BETTER, LINEAR, runs
from support.saved_figures import saved_rows

from nc_tools.comparison import compare_runs
from nc_tools.comparison.figures.memorization_paths import memorization_panels
from nc_tools.comparison.html_report import comparison_html
from nc_tools.comparison.metric_table import FITTED, RECOVERED
from nc_tools.comparison.summary_table import summary_columns


def noisy(made):
    return [
        replace(
            one,
            curves={
                FITTED: ((1, 0.1 + 0.01 * one.seed), (5, 0.2), (9, 0.8)),
                RECOVERED: ((1, 0.5), (5, 0.7), (9, 0.2 + 0.01 * one.seed)),
            },
            final=one.final | {FITTED: 0.8},
        )
        for one in made
    ]


def test_every_arm_has_a_path_that_ends_at_the_last_epoch():
    comparison = compare_runs(noisy(runs(linear=LINEAR, etf=BETTER)), "linear")
    panels = memorization_panels(comparison)
    assert [panel.title for panel in panels] == ["linear", "etf"]
    assert panels[1].caption == "at the end 80 % fitted, 22 % correct; balanced accuracy 75.4"
    assert "curve reference" in panels[1].drawing
    assert "curve reference" not in panels[0].drawing
    header, *rows = saved_rows(panels[1])
    assert header == ["arm", "step", "wrong labels fitted", "classified correctly"]
    assert [row[1] for row in rows] == ["1", "5", "9"]
    assert rows[-1] == ["etf", "9", "0.8", "0.22"]


def test_it_is_the_first_figure_of_the_page_and_its_number_is_in_the_table():
    comparison = compare_runs(noisy(runs(linear=LINEAR, etf=BETTER)), "linear")
    page = comparison_html(comparison)
    assert page.index("Wrong labels during training") < page.index("Difference to linear")
    assert "wrong fitted" in " ".join(column.heading for column in summary_columns(comparison))


def test_runs_without_known_wrong_labels_have_no_figure():
    comparison = compare_runs(runs(linear=LINEAR, etf=BETTER), "linear")
    assert memorization_panels(comparison) == []
    assert "Wrong labels during training" not in comparison_html(comparison)


def test_runs_measured_at_other_epochs_are_joined_where_all_were():
    made = noisy(runs(linear=LINEAR, etf=BETTER))
    made[6] = replace(made[6], curves={key: points[1:] for key, points in made[6].curves.items()})
    panel = memorization_panels(compare_runs(made, "linear"))[1]
    assert "80 % fitted" in panel.caption
