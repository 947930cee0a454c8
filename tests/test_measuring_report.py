"""The collapse report: readings of each measure, HTML and JSON of absent classes, and figures."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch
from markupsafe import Markup
from torch import nn

from nc_tools.measuring import collapse_figures, measure_in_detail
from nc_tools.measuring.collapse_report import collapse_html, collapse_json
from nc_tools.measuring.collapse_tables import CollapseReport
from nc_tools.measuring.interpretation import FEATURE_READINGS, collapse_headline, reading


class TestReadings:
    def test_every_row_reads_every_value(self):
        for row in FEATURE_READINGS:
            for value in (0.0, 0.2, 50.0):
                assert reading(row, value, 2 * value)
            assert reading(row, None, None) == ""

    def test_the_test_set_is_compared(self):
        row = FEATURE_READINGS[0]
        assert reading(row, 0.05, 0.5).endswith("10.0 times as much on test")
        assert reading(row, 1.0, 1.1).endswith("similar on test")
        assert reading(row, 1.0, 0.3).endswith("less on test")

    def test_headlines(self):
        assert collapse_headline({"nc/nc1_pinv": 0.05}, {"nc/nc1_pinv": 0.5}).startswith(
            "On training images classes are nearly"
        )
        assert collapse_headline(None, {"nc/nc1_pinv": 2.0}).startswith("On these images")
        assert "not defined" in collapse_headline({}, None)


def test_equal_features_leave_a_page_without_angles():
    x, y = torch.ones(6, 4), torch.arange(6) % 3
    measurement = measure_in_detail(nn.Sequential(nn.Linear(4, 3)), [(x, y)])
    report = CollapseReport("net", "data", "fc", 4, ("a", "b", "c"), {"train": measurement}, (), "0", "2", "cpu")
    page = collapse_html(report)
    assert page.startswith("<!doctype html>")
    assert "angles-train" not in page


def test_absent_classes_and_odd_names_leave_page_and_json_valid():
    torch.manual_seed(0)
    x, y = torch.randn(12, 4), torch.arange(12) % 3
    measurement = measure_in_detail(nn.Sequential(nn.Linear(4, 5)), [(x, y)])  # two classes without a sample
    classes = ("a", "b", "c", "<d>", "e")
    report = CollapseReport(
        "<u>net", "data & more", "fc", 4, classes, {"train": measurement}, ("<s>",), "0", "2", "cpu"
    )

    def never(constant):
        raise AssertionError(constant)

    content = json.loads(collapse_json(report), parse_constant=never)["sets"]["train"]
    assert content["spread"][3:] == [None, None]
    assert content["cosines"][4] == [None] * 5
    page = collapse_html(report)
    assert "&lt;u&gt;net" in page
    assert "data &amp; more" in page
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL).lower()
    assert not any(tag in page for tag in ("<u>", "<s>", "<d>"))


class TestFigures:
    def cosines(self, k):
        frame = torch.eye(k) - 1 / k
        return nn.functional.cosine_similarity(frame[:, None], frame[None], dim=-1)

    def test_a_simplex_is_blank_and_a_near_pair_is_blue(self):
        plain = collapse_figures.heat_map(self.cosines(4), list("abcd"), range(4), "x")
        cells = re.findall(r'class="(pos|neg)" fill-opacity="([\d.]+)"><title>[a-d],', plain)
        assert len(cells) == 12
        assert all(float(opacity) < 0.01 for _, opacity in cells)
        cosines = self.cosines(4)
        cosines[0, 1] = cosines[1, 0] = 0.6
        drawn = collapse_figures.heat_map(cosines, list("abcd"), range(4), "x")
        assert re.search(r'class="pos" fill-opacity="1.000"><title>a, b: cosine 0.600', drawn)

    @pytest.mark.parametrize(("k", "near", "ends"), [(2, None, ["-1", "-0.8"]), (4, 0.9, ["-1", "0.9"]),
                                                     (4, 0.2, ["-0.87", "0.2"])])  # fmt: skip
    def test_the_key_shows_possible_cosines_only(self, k, near, ends):
        cosines = self.cosines(k)
        if near is not None:
            cosines[0, 1] = cosines[1, 0] = near
        key = collapse_figures.heat_map(cosines, list("abcd"), range(k), "x").split('class="frame"')[1]
        assert re.findall(r">(-?[\d.]+)</text>", key) == ends

    def test_many_classes_show_the_closest(self):
        cosines = self.cosines(60)
        cosines[58, 59] = cosines[59, 58] = 0.9
        chosen = collapse_figures.closest_classes(cosines, 10)
        assert len(chosen) == 10
        assert {58, 59} <= set(chosen)
        spread = {"train": torch.arange(60.0), "test": torch.ones(60)}
        assert collapse_figures.widest_classes(spread, 3) == [59, 58, 57]

    def test_absent_classes_are_blank(self):
        cosines = self.cosines(4)
        cosines[3], cosines[:, 3] = math.nan, math.nan
        assert collapse_figures.closest_classes(cosines) == [0, 1, 2]
        drawn = collapse_figures.heat_map(cosines, list("abcd"), range(4), "x")
        assert "nan" not in drawn
        spread = {"train": torch.tensor([1.0, math.nan])}
        bars = collapse_figures.spread_bars(spread, {"train": torch.tensor([4, 0])}, ["a", "b"], [0, 1], "x")
        assert "nan" not in bars

    def test_names_are_escaped_in_every_figure(self):
        drawn = collapse_figures.heat_map(self.cosines(2), ["<i>", "b"], range(2), "<u>")
        assert isinstance(drawn, Markup)
        assert "<i>" not in drawn
        assert "<u>" not in drawn
