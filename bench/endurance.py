"""A crawl of 50,000 pages: the RAM it takes, page by page, beside Scrapy as it comes; what it writes."""

import time

from bench.measure import MIB, Size, Spread, Usage, resident_bytes
from bench.report import Figure, Line, Part, Plot, Reading, at_most
from bench.server import pages_served, payload_bytes
from bench.station import Station, Variant, station

Curve = list[tuple[float, float]]
SAMPLE_SECONDS = 1.0
# The crawl has warmed up: what grows after this is per page.
WARM_SHARE = 0.2


class Sampler:
    """Called all the time while a crawl runs; notes pages and megabytes about once a second."""

    def __init__(self, site_port: int) -> None:
        self.curve: Curve = []
        self._site_port = site_port
        self._pages = 0
        self._due_at = 0.0

    def __call__(self, pid: int) -> None:
        """Note how far the crawl is and how much it holds, if that is due."""
        if time.monotonic() < self._due_at:
            return
        self._due_at = time.monotonic() + SAMPLE_SECONDS
        self._pages += pages_served(self._site_port)
        held = resident_bytes(pid)
        # It may have ended just now.
        if held:
            self.curve.append((self._pages, held / MIB))


def measure(size: Size) -> Part:
    """Crawl so many pages both ways and compare where the curves end, and how they rise."""
    pages = size.pick(quick=200, whole=50_000)
    with station() as here:
        full, spent = _crawl(here, "full", pages)
        default, _spent = _crawl(here, "default", pages)
    part = Part()
    part.figures += [
        Figure(
            f"RSS of a spider - bare Scrapy spider, after {pages:,} pages",
            Spread.of([full[-1][1] - default[-1][1]]),
            at_most(15),
            "MB",
        ),
        Figure(
            f"growth of RSS from {pages * WARM_SHARE:,.0f} to {pages:,} pages - that of bare Scrapy",
            Spread.of([_growth(full, pages) - _growth(default, pages)]),
            at_most(5),
            "MB",
        ),
        Figure(
            f"local bytes written while PostgreSQL is up / payload, {pages:,} pages",
            Spread.of([spent.written_bytes / payload_bytes("listing", pages)]),
            at_most(0.01),
        ),
    ]
    part.readings += [
        Reading("local bytes written by the whole crawl", "kB", Spread.of([spent.written_bytes / 1000])),
        Reading("time of the whole crawl", "s", Spread.of([spent.wall_seconds])),
    ]
    lines = [Line("full pipeline, our settings", full), Line("bare Scrapy", default)]
    part.plots.append(Plot("memory", "RAM of a crawl", "pages", "RSS, MB", lines))
    return part


def _crawl(here: Station, variant: Variant, pages: int) -> tuple[Curve, Usage]:
    pages_served(here.site_port)
    sampler = Sampler(here.site_port)
    spent = here.crawl(variant, "listing", pages).run(watch=sampler)
    return sampler.curve, spent


def _growth(curve: Curve, pages: int) -> float:
    warm = next(megabytes for page, megabytes in curve if page >= pages * WARM_SHARE)
    return curve[-1][1] - warm
