"""How fast items reach PostgreSQL, and for how much CPU, against the usual ways; on loopback and afar."""

import statistics
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg2

from bench.anchors import TextbookPipeline, ValuesPipeline, copy_with_psql, make_tables, write_rows
from bench.children import running
from bench.deliver import Delivery, delivery, encoder, new_products, store
from bench.measure import Size, Spread, Usage, interleaved, ratio, usage_of
from bench.report import Figure, Line, Part, Plot, Reading, at_least, at_most
from bench.station import database
from demo.postgres import PostgresServer

# The network of a Pi 3, and two ways to a NAS: the same house, another one.
MEGABITS_PER_SECOND = 100
ROUND_TRIPS_MILLISECONDS = (7, 23)
LEAST_TEXTBOOK_RATIO = {7: 80.0, 23: None}
PINGS = 20


class Bench:
    """The ways to deliver, each over a connection that stands, to one database."""

    def __init__(self, server: PostgresServer, url: str, folder: Path, opened: ExitStack) -> None:
        self._server = server
        self._url = url
        self._folder = folder
        self._ours: Delivery = opened.enter_context(delivery(url, folder))
        self._textbook = TextbookPipeline(url)
        opened.callback(self._textbook.close_spider)
        self._values = ValuesPipeline(url)
        opened.callback(self._values.close_spider)

    def ours(self, number: int) -> Usage:
        """Deliver as a crawl does, from the item to its commit."""
        items = new_products(number)
        return usage_of(lambda: store(self._ours, items))

    def textbook(self, number: int) -> Usage:
        """One INSERT and commit an item."""
        items = new_products(number)
        return usage_of(lambda: [self._textbook.process_item(item) for item in items])

    def values(self, number: int) -> Usage:
        """``execute_values``, 500 items at once."""
        items = new_products(number)

        def work() -> None:
            for item in items:
                self._values.process_item(item)
            self._values.flush()

        return usage_of(work)

    def encoding(self, number: int) -> Usage:
        """The first step of ours alone: from the item to the line."""
        items, encode = new_products(number), encoder().encode
        return usage_of(lambda: [encode(item) for item in items])

    def psql(self, number: int) -> Usage:
        """``psql`` with the same rows, written to a file beforehand."""
        encode = encoder().encode
        rows = self._folder / "rows"
        write_rows([encode(item).line for item in new_products(number)], rows)
        return usage_of(lambda: copy_with_psql(self._server, self._url, rows))


def measure(size: Size) -> Part:
    """Compare on loopback, then over slower and slower links."""
    part = Part()
    with database() as server, tempfile.TemporaryDirectory(prefix="data-crawler-bench-") as name:
        make_tables(server.url)
        folder = Path(name)
        rates = {0.0: _on_loopback(server, folder, size, part)}
        for milliseconds in ROUND_TRIPS_MILLISECONDS:
            measured, of_each = _over_link(server, folder, milliseconds, size, part)
            rates[measured] = of_each
    part.plots.append(_plot(rates))
    return part


def _on_loopback(server: PostgresServer, folder: Path, size: Size, part: Part) -> dict[str, float]:
    many, few = size.pick(quick=1000, whole=20_000), size.pick(quick=200, whole=3000)
    numbers = {"ours": many, "textbook": few, "values": many, "psql": many, "encoding": many}
    with ExitStack() as opened:
        bench = Bench(server, server.url, folder, opened)
        spent = interleaved(
            size.pick(quick=1, whole=6),
            {
                "ours": lambda: bench.ours(many),
                "textbook": lambda: bench.textbook(few),
                "values": lambda: bench.values(many),
                "psql": lambda: bench.psql(many),
                "encoding": lambda: bench.encoding(many),
            },
        )
    rates = {way: [numbers[way] / one.wall_seconds for one in usages] for way, usages in spent.items()}
    cpu = {way: [one.cpu_seconds / numbers[way] * 100_000 for one in usages] for way, usages in spent.items()}
    part.figures += [
        Figure(
            "delivered items/s / textbook INSERT + commit, loopback",
            ratio(rates["ours"], rates["textbook"]),
            at_least(10),
        ),
        Figure(
            r"delivered items/s / psql \copy of the same rows",
            ratio(rates["ours"], rates["psql"]),
            at_least(0.5),
        ),
        Figure(
            "client CPU per 100k items / psycopg2 execute_values of the same rows",
            ratio(cpu["ours"], cpu["values"]),
            at_most(0.55),
        ),
    ]
    for way, values in rates.items():
        part.readings.append(Reading(f"{way}, loopback", "items/s", Spread.of(values)))
    for way in ("ours", "encoding", "textbook", "values"):
        part.readings.append(Reading(f"client CPU, {way}", "s per 100k items", Spread.of(cpu[way])))
    return {way: statistics.median(values) for way, values in rates.items()}


def _over_link(
    server: PostgresServer, folder: Path, milliseconds: int, size: Size, part: Part
) -> tuple[float, dict[str, float]]:
    many, few = size.pick(quick=1000, whole=10_000), size.pick(quick=20, whole=100)
    numbers = {"ours": many, "textbook": few, "psql": many}
    with ExitStack() as opened:
        port = opened.enter_context(running("bench.link", server.port, milliseconds, MEGABITS_PER_SECOND))
        url = server.url.replace(f":{server.port}/", f":{port}/")
        ping = _round_trip_milliseconds(url)
        bench = Bench(server, url, folder, opened)
        spent = interleaved(
            size.pick(quick=1, whole=3),
            {
                "ours": lambda: bench.ours(many),
                "textbook": lambda: bench.textbook(few),
                "psql": lambda: bench.psql(many),
            },
        )
    rates = {way: [numbers[way] / one.wall_seconds for one in usages] for way, usages in spent.items()}
    least = LEAST_TEXTBOOK_RATIO[milliseconds]
    where = f"{milliseconds} ms round trip"
    part.figures.append(
        Figure(
            f"delivered items/s / textbook INSERT + commit, {where}",
            ratio(rates["ours"], rates["textbook"]),
            None if least is None else at_least(least),
        )
    )
    part.readings.append(Reading(f"round trip of the {milliseconds} ms link", "ms", ping))
    for way, values in rates.items():
        part.readings.append(
            Reading(f"{way}, {where}, {MEGABITS_PER_SECOND} Mbit/s", "items/s", Spread.of(values))
        )
    return ping.median, {way: statistics.median(values) for way, values in rates.items()}


def _round_trip_milliseconds(url: str) -> Spread:
    """Return how long the smallest exchange with PostgreSQL takes."""
    taken = []
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        for _ in range(PINGS):
            began = time.perf_counter()
            cursor.execute("SELECT 1")
            taken.append((time.perf_counter() - began) * 1000)
    return Spread.of(taken[1:])


def _plot(rates: dict[float, dict[str, float]]) -> Plot:
    names = {"psql": r"psql \copy", "ours": "ours", "textbook": "textbook"}
    lines = [
        Line(name, [(milliseconds, of_each[way]) for milliseconds, of_each in rates.items()])
        for way, name in names.items()
    ]
    return Plot(
        "round-trip",
        "Delivered items per second by round trip",
        "round trip, ms",
        "items/s",
        lines,
        logarithmic=True,
    )
