"""What delivery costs a crawl: instructions, CPU time, memory."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from bench.measure import MIB, Size, Spread, Usage, difference, interleaved, ratio
from bench.report import Figure, Part, Reading, at_most
from bench.server import ITEMS_PER_PAGE
from bench.station import Station, Variant, station

# How much delivery may add to a page's instructions: the more items, the more there is to do.
MOST_INSTRUCTIONS = {"listing": 1.05, "api": 1.12}


class Job(NamedTuple):
    """One kind of crawl, of which instructions per page are counted."""

    variant: Variant
    kind: str
    form: str


def measure(size: Size) -> Part:
    """Compare crawls with delivery, without it, and with Scrapy as it comes."""
    part = Part()
    with station() as here:
        counts = _instructions_per_page(here, size)
        part.readings += [
            Reading(f"instructions per page: {' '.join(job)}", "million", Spread.of([count / 1e6]))
            for job, count in counts.items()
        ]
        part.figures += _instruction_figures(counts)
        for kind in ITEMS_PER_PAGE:
            _compare_usage(here, kind, size, part)
    return part


def _instructions_per_page(here: Station, size: Size) -> dict[Job, float]:
    """The difference of two lengths, so that start-up is not in it."""
    jobs = [Job(variant, kind, "charset-gzip") for kind in ITEMS_PER_PAGE for variant in ("full", "bare")]
    jobs += [Job(variant, kind, "gzip") for kind in ITEMS_PER_PAGE for variant in ("full", "default")]
    short, long = size.pick(quick=5, whole=40), size.pick(quick=15, whole=160)

    def count(job: Job, pages: int) -> int:
        return here.crawl(job.variant, job.kind, pages, job.form).instructions()

    # Counts, unlike times, do not mind company.
    threads = ThreadPoolExecutor(os.cpu_count())
    try:
        counting = {job: [threads.submit(count, job, pages) for pages in (short, long)] for job in jobs}
        return {
            job: (of_long.result() - of_short.result()) / (long - short)
            for job, (of_short, of_long) in counting.items()
        }
    finally:
        threads.shutdown(cancel_futures=True)


def _instruction_figures(counts: dict[Job, float]) -> list[Figure]:
    figures = []
    for kind, items in ITEMS_PER_PAGE.items():
        share = counts[Job("full", kind, "charset-gzip")] / counts[Job("bare", kind, "charset-gzip")]
        what = f"user instructions per page, full pipeline / bare Scrapy, same settings, {items} items a page"
        figures.append(Figure(what, Spread.of([share]), at_most(MOST_INSTRUCTIONS[kind])))
    for kind, items in ITEMS_PER_PAGE.items():
        share = counts[Job("full", kind, "gzip")] / counts[Job("default", kind, "gzip")]
        what = f"the same / default Scrapy, packed pages that name no charset, {items} items a page"
        figures.append(Figure(what, Spread.of([share])))
    return figures


def _compare_usage(here: Station, kind: str, size: Size, part: Part) -> None:
    pages = size.pick(quick=40, whole=400)
    spent = interleaved(
        size.pick(quick=1, whole=6),
        {
            "full": lambda: here.crawl("full", kind, pages).run(),
            "default": lambda: here.crawl("default", kind, pages).run(),
        },
    )
    full, default = spent["full"], spent["default"]
    items = ITEMS_PER_PAGE[kind]
    part.figures += [
        Figure(
            f"CPU, full pipeline with our settings / default Scrapy with no pipeline, {items} items a page",
            ratio(*([one.cpu_seconds for one in each] for each in (full, default))),
            at_most(0.97),
        ),
        Figure(
            f"RSS of a spider - bare Scrapy spider, {items} items a page",
            difference(*([one.peak_resident_bytes / MIB for one in each] for each in (full, default))),
            at_most(15),
            "MB",
        ),
    ]
    for variant, usages in spent.items():
        part.readings += _readings(f"{variant} {kind}, {pages} pages", usages)


def _readings(what: str, usages: list[Usage]) -> list[Reading]:
    return [
        Reading(f"CPU with start-up: {what}", "s", Spread.of([one.cpu_seconds for one in usages])),
        Reading(f"RSS, peak: {what}", "MB", Spread.of([one.peak_resident_bytes / MIB for one in usages])),
        Reading(f"written: {what}", "kB", Spread.of([one.written_bytes / 1000 for one in usages])),
    ]
