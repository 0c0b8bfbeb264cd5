"""What a second run over an unchanged site costs against the first, and that a third sees what changed."""

import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.measure import BenchmarkError, Program, Size, Spread, ratio
from bench.report import Figure, Part, Reading, at_most
from bench.station import AT_FULL_SPEED, database, environment_of
from demo.sites.process import control, requests_served, running_sites

SOURCES = ("python_docs", "books")
REVISITS = ("if-changed", "never")
CHANGED_SHARE = 0.05
# A site that is not ours would be owed politeness.
UNHURRIED = (*AT_FULL_SPEED, "-s", "AUTOTHROTTLE_ENABLED=0")
# The source's own class with another ``revisit``.
CRAWL = """
import importlib, sys
from scrapy.cmdline import execute
source, revisit, *arguments = sys.argv[1:]
module = importlib.import_module(f"spiders.{source}")
for each in vars(module).values():
    if getattr(each, "name", None) == source:
        each.revisit = revisit
execute(["scrapy", "crawl", source, *arguments])
"""


@dataclass(frozen=True, slots=True)
class Visit:
    """What one run took. ``received_bytes`` are all that came over the wire, headers too."""

    cpu_seconds: float
    received_bytes: int
    stored: int


def measure(size: Size) -> Part:
    """Crawl two sources three times each, in either way, and compare the later runs with the first."""
    part = Part()
    rounds = size.pick(quick=1, whole=3)
    with database() as server, running_sites(scale="small" if size.is_quick else "full") as sites:
        for source in SOURCES:
            for revisit in REVISITS:
                histories = [_history(source, revisit, sites[source], server.url) for _ in range(rounds)]
                _compare(f"{source}, revisit {revisit}", histories, part)
    return part


def _compare(what: str, histories: list[tuple[Visit, Visit, Visit]], part: Part) -> None:
    firsts, seconds, thirds = zip(*histories, strict=True)
    part.figures += [
        Figure(
            f"second run over an unchanged site, bytes / first run: {what}",
            ratio([run.received_bytes for run in seconds], [run.received_bytes for run in firsts]),
            at_most(0.03),
        ),
        Figure(
            f"second run over an unchanged site, CPU / first run: {what}",
            ratio([run.cpu_seconds for run in seconds], [run.cpu_seconds for run in firsts]),
            at_most(0.20),
        ),
    ]
    for name, runs in (("first", firsts), ("second", seconds), (f"third, {CHANGED_SHARE:.0%} new", thirds)):
        part.readings += [
            Reading(f"{what}: {name} run", "CPU s", Spread.of([run.cpu_seconds for run in runs])),
            Reading(f"{what}: {name} run", "rows stored", Spread.of([run.stored for run in runs])),
        ]
    if any(run.stored for run in seconds):
        raise BenchmarkError(f"{what}: a second run over an unchanged site stored rows")


def _history(source: str, revisit: str, base_url: str, database_url: str) -> tuple[Visit, Visit, Visit]:
    """Return three runs with a card of their own: the third finds that pages have changed."""
    with tempfile.TemporaryDirectory(prefix="data-crawler-bench-") as folder:
        card = Path(folder)
        visits = []
        for revision in (1, 1, 2):
            control(base_url, revision=revision, share=CHANGED_SHARE)
            visits.append(_visit(source, revisit, base_url, database_url, card))
        control(base_url, revision=1)
        return visits[0], visits[1], visits[2]


def _visit(source: str, revisit: str, base_url: str, database_url: str, card: Path) -> Visit:
    requests_served(base_url, reset=True)
    log = card / "log"
    log.unlink(missing_ok=True)
    options = ("-a", f"base_url={base_url}", *UNHURRIED, "-s", f"LOG_FILE={log}")
    command = (sys.executable, "-c", CRAWL, source, revisit, *options)
    environment = environment_of(database_url, card) | {"CRAWLER_SPOOL_MAX_BYTES": "16M"}
    spent = Program(command, environment).run()
    said = log.read_text(encoding="utf-8")
    return Visit(
        spent.cpu_seconds,
        _number(said, "downloader/response_bytes"),
        _number(said, "crawler/items/stored"),
    )


def _number(log: str, stat: str) -> int:
    found = re.search(rf"'{stat}': (\d+)", log)
    return int(found[1]) if found else 0
