"""Whether a batch takes longer the more rows there are: from an empty table to five million."""

import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

from bench.catalogue import products
from bench.deliver import encoder
from bench.measure import BenchmarkError, Size, Spread
from bench.report import Figure, Line, Part, Plot, Reading, at_most
from bench.station import database
from crawler.delivery.postgres import PostgresSink
from crawler.delivery.tables import SCRAPED_DATA

BATCH_ITEMS = 500
WINDOWS = 50
# So many windows at either end are compared: one alone may have had a checkpoint in it.
ENDS = 3


def measure(size: Size) -> Part:
    """Fill the table batch by batch; compare the batches by how full it was."""
    rows = size.pick(quick=20_000, whole=5_000_000)
    per_window = rows // BATCH_ITEMS // WINDOWS or 1
    seconds: list[float] = []
    with database() as server, closing(PostgresSink(server.url, deadline_seconds=60.0)) as sink:
        stream = encoder().stream
        for lines in _batches(rows // BATCH_ITEMS):
            began = time.perf_counter()
            outcome = sink.write(stream, SCRAPED_DATA.column_names, lines)
            seconds.append(time.perf_counter() - began)
            if outcome.stored != BATCH_ITEMS:
                raise BenchmarkError(f"of {BATCH_ITEMS} new rows {outcome.stored} were stored")
        ((found,),) = sink.run("SELECT count(*) FROM scraped_data")
        if found != len(seconds) * BATCH_ITEMS:
            raise BenchmarkError(f"the table has {found} rows, not {len(seconds) * BATCH_ITEMS}")
    medians = [
        statistics.median(seconds[begin : begin + per_window]) for begin in range(0, len(seconds), per_window)
    ]
    return _part(rows, per_window, medians, seconds)


def _batches(number: int) -> Iterator[list[bytes]]:
    """Yield batches of new things; their texts recur, their keys never do."""
    encode = encoder().encode
    models = products(BATCH_ITEMS)
    for batch in range(number):
        yield [
            encode(replace(model, url=f"https://shop.example/{batch}/{model.sku}")).line for model in models
        ]


def _part(rows: int, per_window: int, medians: list[float], seconds: list[float]) -> Part:
    first, last = statistics.median(medians[:ENDS]), statistics.median(medians[-ENDS:])
    ratios = [median / first for median in medians]
    part = Part()
    part.figures.append(
        Figure(
            f"time per batch of {BATCH_ITEMS}, table of {rows:,} rows / empty table",
            Spread(last / first, min(ratios), max(ratios), len(ratios)),
            at_most(1.3),
        )
    )
    part.readings += [
        Reading("time per batch, all", "ms", Spread.of([1000 * each for each in seconds])),
        Reading("rate over all batches, without making them", "items/s", Spread.of([rows / sum(seconds)])),
    ]
    points = [
        ((number + 1) * per_window * BATCH_ITEMS / 1e6, 1000 * median)
        for number, median in enumerate(medians)
    ]
    line = Line(f"median of {per_window} batches", points)
    part.plots.append(Plot("growth", "Time per batch as the table grows", "million rows", "ms", [line]))
    return part
