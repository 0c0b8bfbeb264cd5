"""The benchmarks run: every part, in small. What they find then means nothing and is not looked at."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import PARTS, RESULTS
from bench.delivery import ROUND_TRIPS_MILLISECONDS
from bench.page import write_page
from bench.report import Report
from tests.support.tools import require_program

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1200)]

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def kept() -> dict[Path, bytes]:
    """What a run in small must leave alone: the results of the last whole one, and their page."""
    files = [RESULTS, *REPOSITORY.glob("docs/benchmarks*"), *REPOSITORY.glob("docs/benchmarks/*")]
    return {file: file.read_bytes() for file in files if file.is_file()}


@pytest.fixture(scope="module")
def report(kept: dict[Path, bytes], tmp_path_factory: pytest.TempPathFactory) -> Report:
    require_program("valgrind", install="apt-get install valgrind")
    file = tmp_path_factory.mktemp("bench") / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--json", file],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Quick" in done.stdout
    return Report.read(file)


def test_every_part_has_figures_and_each_is_a_number(report: Report) -> None:
    assert report.is_quick
    assert list(report.parts) == list(PARTS)
    for name, part in report.parts.items():
        assert any(figure.target for figure in part.figures), f"nothing is asked of the part {name}"
        spreads = [figure.measured for figure in part.figures]
        spreads += [reading.measured for reading in part.readings]
        for spread in spreads:
            assert math.isfinite(spread.median), name
            assert spread.low <= spread.median <= spread.high, name
    assert all(figure.measured.median > 0 for figure in report.figures if not figure.unit)


def test_a_link_takes_the_time_it_is_named_for(report: Report) -> None:
    took = {reading.what: reading.measured for reading in report.parts["delivery"].readings}
    for milliseconds in ROUND_TRIPS_MILLISECONDS:
        assert took[f"round trip of the {milliseconds} ms link"].low >= milliseconds


def test_a_run_in_small_changes_no_results(report: Report, kept: dict[Path, bytes]) -> None:
    assert RESULTS.exists() == (RESULTS in kept)
    assert {file: file.read_bytes() for file in kept} == kept


def test_its_page_can_be_written(report: Report, tmp_path: Path) -> None:
    write_page(report, tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert all(figure.what in page for figure in report.figures)
    plots = [plot.name for part in report.parts.values() for plot in part.plots]
    assert sorted(file.stem for file in (tmp_path / "benchmarks").iterdir()) == sorted(plots)
