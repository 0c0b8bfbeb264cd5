"""How measurements become ratios, verdicts and a page: no server, no clock."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bench.measure import Spread, interleaved, ratio
from bench.page import table, write_page
from bench.plot import decades, svg, ticks
from bench.report import Figure, Line, Part, Plot, Reading, Report, Target, at_least, at_most

CURVE = Plot(
    "curve", "A curve", "x", "y", [Line("ours", [(0.0, 1.0), (5.0, 40.0)]), Line("theirs", [(5, 900)])]
)


def report_of(*figures: Figure) -> Report:
    part = Part(
        list(figures), [Reading("a reading", "s", Spread.of([1.0, 3.0, 2.0]))], [CURVE], "2026-01-01", 2.0
    )
    return Report({"processor": "some"}, is_quick=False, parts={"part": part})


def test_variants_take_turns_and_the_first_round_is_not_counted() -> None:
    order: list[str] = []
    numbers = iter(range(100))

    def variant(name: str) -> int:
        order.append(name)
        return next(numbers)

    results = interleaved(2, {"a": lambda: variant("a"), "b": lambda: variant("b")})
    assert order == list("ababab")
    assert results == {"a": [2, 4], "b": [3, 5]}


def test_a_ratio_is_that_of_the_pairs_not_of_the_medians() -> None:
    assert ratio([1.0, 10.0, 30.0], [1.0, 20.0, 10.0]) == Spread(1.0, 0.5, 3.0, 3)


@pytest.mark.parametrize(
    ("target", "measured", "is_met"),
    [
        (at_most(0.97), 0.97, True),
        (at_most(0.97), 0.98, False),
        (at_least(10), 10.0, True),
        (at_least(10), 9.9, False),
        (None, 1e9, True),
    ],
)
def test_a_figure_is_judged_by_its_median(target: Target | None, measured: float, is_met: bool) -> None:
    assert Figure("one", Spread(measured, 0.0, 1e12, 3), target).is_met is is_met


def test_a_report_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    report = report_of(Figure("one", Spread.of([1.0]), at_most(2), "MB"), Figure("two", Spread.of([1.0])))
    report.write(tmp_path / "deep" / "report.json")
    again = Report.read(tmp_path / "deep" / "report.json")
    assert again.figures == report.figures
    assert table(again) == table(report)


def test_the_page_shows_every_figure_its_verdict_and_its_plots(tmp_path: Path) -> None:
    met = Figure("small enough", Spread.of([1.0, 3.0, 2.0]), at_most(2))
    missed = Figure("large enough", Spread.of([1234.5]), at_least(2000), "MB")
    write_page(report_of(met, missed), tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "| small enough | <= 2 | 2 [1 - 3] | yes |" in page
    assert "| large enough | >= 2000 MB | 1,234 MB | NO |" in page
    assert "![A curve](benchmarks/curve.svg)" in page
    assert (tmp_path / "benchmarks/curve.svg").read_text() == svg(CURVE)


def test_a_plot_is_well_formed_and_keeps_its_lines_inside() -> None:
    root = ET.fromstring(svg(CURVE))
    lines = [each.attrib["points"] for each in root.iter("{http://www.w3.org/2000/svg}polyline")]
    assert len(lines) == len(CURVE.lines)
    width, height = (float(text) for text in root.attrib["viewBox"].split()[2:])
    for x, y in (map(float, point.split(",")) for line in lines for point in line.split()):
        assert 0 <= x <= width
        assert 0 <= y <= height


@pytest.mark.parametrize(("high", "marks"), [(50_000, 6), (5.0, 6), (7, 8), (0.3, 7), (999, 11)], ids=str)
def test_ticks_are_round_and_reach_the_highest_value(high: float, marks: int) -> None:
    found = ticks(0.0, high)
    assert (found[0], len(found)) == (0.0, marks)
    assert found[-2] < high <= found[-1] + 1e-9


def test_decades_enclose_the_values() -> None:
    assert decades(15.0, 9000.0) == [10.0, 100.0, 1000.0, 10_000.0]
    assert decades(1.0, 1.0) == [1.0, 10.0]
