"""Our delivery without a crawl around it: items in, rows or spooled batches out."""

import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from bench.catalogue import Product, products
from bench.measure import BenchmarkError
from crawler.delivery.courier import Courier, Tally
from crawler.delivery.postgres import PostgresSink
from crawler.delivery.spool import Spool
from crawler.items import ItemEncoder
from crawler.records import Record

MAX_BYTES = 64 * 1024 * 1024
FLUSH_SECONDS = 120.0
# What the rows of a run have in common.
SOURCE, RUN_ID, HOST = "bench", "20260101T000000-bench-00000000", "station"
_numbers = itertools.count()


def new_products(number: int) -> list[Product]:
    """Return products that were in no earlier list of this process."""
    first = next(_numbers) * 10_000_000
    return products(number, first=first)


def encoder() -> ItemEncoder:
    """Return an encoder as a crawl has one."""
    return ItemEncoder(
        source=SOURCE,
        key="url",
        keep_every=False,
        run_id=RUN_ID,
        host=HOST,
        max_bytes=8 * 1024 * 1024,
    )


class Delivery:
    """An encoder and a courier; what a crawl does with its items, a bench does with ``deliver``."""

    def __init__(self, courier: Courier, room: threading.Event) -> None:
        self._courier = courier
        self._room = room
        self._encoder = encoder()

    def deliver(self, items: Sequence[Product]) -> Tally:
        """Hand over the items and wait until all are safe; return what became of them."""
        before = self._courier.tally(self._encoder.stream)
        for item in items:
            record = self._encoder.encode(item)
            while not self._offered(record):
                self._room.wait()
        if not self._courier.flush(FLUSH_SECONDS):
            raise BenchmarkError(f"items were not safe within {FLUSH_SECONDS} s: {self._courier.last_error}")
        after = self._courier.tally(self._encoder.stream)
        return Tally(after.stored - before.stored, spooled=after.spooled - before.spooled)

    def _offered(self, record: Record) -> bool:
        self._room.clear()
        if self._courier.is_broken:
            raise BenchmarkError("the courier has stopped; its traceback says why")
        return self._courier.offer(record)


@contextmanager
def delivery(url: str | None, folder: Path) -> Iterator[Delivery]:
    """Open delivery to a database (None: to the spool), its connection made and its files in place."""
    room = threading.Event()
    sink = None if url is None else PostgresSink(url)
    with closing(Spool(folder / "spool.sqlite", max_bytes=MAX_BYTES)) as spool:
        courier = Courier(sink, spool, on_progress=lambda _tickets: room.set())
        courier.start()
        try:
            opened = Delivery(courier, room)
            opened.deliver(new_products(1))
            yield opened
        finally:
            courier.close(grace_seconds=FLUSH_SECONDS)


def store(opened: Delivery, items: Sequence[Product]) -> None:
    """Deliver the items to PostgreSQL; raise BenchmarkError if any went elsewhere."""
    tally = opened.deliver(items)
    if tally.stored != len(items):
        raise BenchmarkError(f"of {len(items)} items {tally.stored} were stored, {tally.spooled} spooled")
