"""What the spool costs the card, and how fast it empties."""

import tempfile
from contextlib import closing
from pathlib import Path

import orjson

from bench.anchors import keep_in_sqlitedict
from bench.catalogue import Product
from bench.deliver import MAX_BYTES, delivery, new_products, store
from bench.measure import (
    BenchmarkError,
    Size,
    Spread,
    Usage,
    interleaved,
    ratio,
    require_disk,
    usage_of,
)
from bench.report import Figure, Part, Reading, at_least, at_most
from bench.station import database
from crawler.delivery.courier import Drainer
from crawler.delivery.postgres import PostgresSink
from crawler.delivery.spool import DrainLock, Spool
from demo.postgres import PostgresServer


def measure(size: Size) -> Part:
    """Compare the bytes with the payload and with sqlitedict, the drain with live delivery."""
    part = Part()
    with tempfile.TemporaryDirectory(prefix="data-crawler-bench-") as name:
        folder = Path(name)
        require_disk(folder)
        _bytes(folder, size, part)
        with database() as server:
            _drain(server, folder, size, part)
    return part


def _bytes(folder: Path, size: Size, part: Part) -> None:
    many, few = size.pick(quick=2000, whole=20_000), size.pick(quick=100, whole=2000)
    with delivery(None, _made(folder / "bytes")) as opened:

        def spool() -> float:
            items = new_products(many)
            return usage_of(lambda: opened.deliver(items)).written_bytes / _payload_bytes(items)

        def sqlitedict() -> float:
            items = new_products(few)
            file = folder / "items.sqlitedict"
            return usage_of(lambda: keep_in_sqlitedict(items, file)).written_bytes / _payload_bytes(items)

        spent = interleaved(size.pick(quick=1, whole=3), {"spool": spool, "sqlitedict": sqlitedict})
    part.figures += [
        Figure("spool bytes written / JSON payload", Spread.of(spent["spool"]), at_most(0.65)),
        Figure(
            "spool bytes written / sqlitedict, one item per commit",
            ratio(spent["spool"], spent["sqlitedict"]),
            at_most(0.05),
        ),
    ]
    part.readings.append(
        Reading(
            "sqlitedict, one item per commit: bytes written / payload", "", Spread.of(spent["sqlitedict"])
        )
    )


def _drain(server: PostgresServer, folder: Path, size: Size, part: Part) -> None:
    number = size.pick(quick=1000, whole=20_000)
    with (
        delivery(server.url, _made(folder / "live")) as live,
        delivery(None, _made(folder / "drained")) as away,
    ):

        def deliver() -> Usage:
            items = new_products(number)
            return usage_of(lambda: store(live, items))

        def drain() -> Usage:
            away.deliver(new_products(number))
            return usage_of(lambda: drain_all(folder / "drained", server.url))

        spent = interleaved(size.pick(quick=1, whole=6), {"live": deliver, "drain": drain})
    rates = {way: [number / one.wall_seconds for one in usages] for way, usages in spent.items()}
    part.figures.append(
        Figure("drain / live delivery rate", ratio(rates["drain"], rates["live"]), at_least(0.6))
    )
    for way, values in rates.items():
        part.readings.append(Reading(way, "items/s", Spread.of(values)))


def drain_all(folder: Path, url: str) -> None:
    """Do what ``scrapy spool drain`` does. Raise BenchmarkError if anything waits afterwards."""
    with (
        closing(Spool(folder / "spool.sqlite", max_bytes=MAX_BYTES)) as spool,
        closing(PostgresSink(url)) as sink,
    ):
        drainer = Drainer(spool, DrainLock(spool.path))
        while drainer.step(sink):
            pass
        drainer.close()
        if spool.status().items:
            raise BenchmarkError(f"{spool.status().items} items still wait in the spool")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _payload_bytes(items: list[Product]) -> int:
    return sum(len(orjson.dumps(item)) for item in items)
