"""The plot kit: axes, labels that do not cover each other, and files that stand alone."""

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nc_tools.plots import svg
from nc_tools.plots.axis import Axis, axis_over
from nc_tools.plots.html_page import render_page
from nc_tools.plots.label_placement import place_labels
from nc_tools.plots.panel_frame import Frame, curve_key
from nc_tools.plots.standalone import svg_document


@given(st.floats(-1e3, 1e3), st.floats(0.01, 1e3), st.floats(0, 1))
def test_an_axis_keeps_the_order_and_its_ends(low, width, share):
    axis = Axis(low, low + width)
    assert axis.place(low) == 0
    assert axis.place(low + width) == pytest.approx(1)
    assert axis.place(low + share * width) == pytest.approx(share, abs=1e-6)
    assert all(axis.low - 1e-6 * width <= tick <= axis.high + 1e-6 * width for tick in axis.ticks())
    assert 2 <= len(axis.ticks()) <= 7


def test_a_log_axis_is_even_in_ratios():
    axis = axis_over([0.01, 100.0], log=True, margin=0)
    assert axis.place(1.0) == pytest.approx(0.5)
    assert axis.place(-1.0) == 0.0
    assert Axis(5.0, 700.0, log=True).ticks() == [10, 30, 100, 300]
    assert Axis(0.11, 0.25, log=True).ticks() == pytest.approx([0.15, 0.2])


AREA = (0.0, 20.0, 360.0, 230.0)


def box(place, name):
    length = 6.0 * len(name)
    left = place.x - {"start": 0, "middle": length / 2, "end": length}[place.anchor]
    return left, place.y - 9, left + length, place.y + 2


def overlap(a, b):
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)


def test_names_of_near_points_do_not_cover_each_other():
    points = [(60.0 + 22 * i, 120.0 + 3 * i) for i in range(8)]
    names = [f"entropy_{i}" for i in range(8)]
    boxes = [box(p, n) for p, n in zip(place_labels(points, names, points, AREA), names, strict=True)]
    assert not any(overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    marks = [(x - 4, y - 4, x + 4, y + 4) for x, y in points]
    assert not any(overlap(a, b) for a in boxes for b in marks)


@given(st.tuples(st.floats(5, 355), st.floats(30, 220)))
def test_a_lone_name_stays_inside_and_beside_its_point(point):
    (place,) = place_labels([point], ["frozen"], [point], AREA)
    left, top, right, bottom = box(place, "frozen")
    assert AREA[0] <= left <= right <= AREA[2]
    assert AREA[1] <= top <= bottom <= AREA[3]
    assert abs(place.x - point[0]) <= 45
    assert abs(place.y - point[1]) <= 45


def test_a_document_is_whole_svg_with_colors_instead_of_variables():
    drawing = svg.picture(300, 200.5, 'a "quoted" <label>', [svg.text(1, 2, "<b>", "tick")])
    root = ET.fromstring(svg_document(drawing))
    assert (root.get("viewBox"), root.get("width"), root.get("height")) == ("0 0 300 200.5", "300", "200.5")
    assert root.get("aria-label") == 'a "quoted" <label>'
    style, background, words = list(root)
    assert "var(" not in style.text
    assert ".curve.one { stroke: #0068a8; }" in style.text
    assert background.get("fill") == "#fff"
    assert words.text == "<b>"


def test_every_color_of_the_figure_sheet_is_defined_on_the_page():
    document = svg_document(svg.picture(1, 1, "", []))
    assert not re.search(r"var\(", document)


def test_a_frame_puts_values_between_its_margins():
    frame = Frame(Axis(0, 10), Axis(0, 1))
    left, right, top, bottom = frame.margins
    assert frame.point(0, 0) == (left, frame.height - bottom)
    assert frame.point(10, 1) == (frame.width - right, top)
    ticks = re.findall(r">([\d.]+)</text>", svg.joined(frame.axes("x", "y", x_ticks=[0, 5, 10], y_scale=100)))
    assert ticks == ["0", "25", "50", "75", "100", "0", "5", "10"]


def test_a_key_names_each_curve_in_its_style():
    key = svg.joined(curve_key([("one", "train"), ("two", "<test>")]))
    assert re.findall(r'class="curve (one|two)"', key) == ["one", "two"]
    assert re.findall(r">([^<]+)</text>", key) == ["train", "&lt;test&gt;"]


def test_a_page_without_a_value_that_its_template_reads_is_an_error():
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        render_page("nc_tools.measuring", "collapse.html.j2", {})
