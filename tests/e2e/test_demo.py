"""The demonstration, as a newcomer runs it: twice."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from demo.sites.server import SCALES
from tests.support.crawls import REPOSITORY

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ITEMS = sum(getattr(SCALES["small"], source) for source in SCALES["small"].__slots__)


def run_demo(folder: Path, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "demo", "--scale", "small", "--folder", str(folder), *options],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def figures(printed: str) -> dict[str, int]:
    """Return the terms of the accounting line of this run."""
    found = re.search(r"^(\d+) scraped = (.*): adds up$", printed, re.MULTILINE)
    assert found, printed
    terms = {name: int(number) for number, name in re.findall(r"(\d+) (\w+)", found[2])}
    return terms | {"scraped": int(found[1])}


def test_a_second_demonstration_shows_that_nothing_has_changed(open_folder: Path) -> None:
    folder = open_folder / "demo"
    first, second, revisit = run_demo(folder), run_demo(folder), run_demo(folder, "--revisit")
    print(first, second, revisit)
    terms = figures(first)
    assert terms["scraped"] == ITEMS
    # The feed that is spooled first reaches PostgreSQL at the end of its run.
    assert terms["stored"] + terms["spooled"] == ITEMS
    assert terms["spooled"] <= SCALES["small"].pypi_releases
    assert terms["dead"] == terms["dropped"] == 0
    again = figures(second)
    assert again["scraped"] == ITEMS
    assert again["unchanged"] + again["spooled"] == ITEMS
    # Each page was only asked whether it had changed, and had not.
    assert set(figures(revisit).values()) == {0}
    for printed in (first, second, revisit):
        assert f"\n{ITEMS} rows are in the demonstration's PostgreSQL (kept in " in printed
        assert "DOES NOT ADD UP" not in printed
