"""Components that take one safety of a crawl off: what negative controls are run with."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any, Self

from scrapy import Request, Spider, signals
from scrapy.crawler import Crawler
from scrapy.http import Response

from crawler import run
from crawler.delivery import courier
from crawler.delivery.courier import Courier
from crawler.delivery.postgres import PostgresSink, Sink
from crawler.delivery.spool import Batch, Settlement, Spool
from crawler.delivery.tables import SCRAPED_DATA, TABLES
from crawler.pages import SettledPage
from crawler.run import LiveRun
from tests.e2e.components import PageMemory

_ROW = "source, item_key, url, data, key_hash, content_hash, scraped_at, run_id, host"


class PlainInsert:
    """Extension: what arrives is inserted, whatever is there already. Wants the unique index gone."""

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        insert = (
            f"INSERT INTO scraped_data ({_ROW}) SELECT {_ROW} FROM pg_temp.incoming_scraped_data RETURNING 1"
        )
        TABLES[SCRAPED_DATA.name] = replace(SCRAPED_DATA, insert=insert)
        return cls()


class ForgetsFirst:
    """Extension: the drainer deletes a batch before PostgreSQL has committed it."""

    def __init__(self, run: LiveRun) -> None:
        self._run = run
        self._settled = courier.settled

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        extension = cls(LiveRun.of(crawler))
        courier.settled = extension.settled
        return extension

    def settled(self, sink: Sink, batch: Batch) -> Settlement:
        """In place of the drainer's."""
        assert self._run._spool is not None
        self._run._spool._file.change(lambda c: c.execute("DELETE FROM batch WHERE id = ?", (batch.id,)))
        return self._settled(sink, batch)


class HastyPageMemory(PageMemory):
    """Spider middleware: a page counts as seen once it has yielded an item, wherever that is by then."""

    def page_settled(self, request: Request, page: SettledPage) -> None:
        """Too late for this one: it has been noted."""

    async def process_spider_output(
        self, response: Response, result: AsyncIterator[Any]
    ) -> AsyncIterator[Any]:
        is_noted = False
        async for output in result:
            if not is_noted and not isinstance(output, Request):
                self.note(response.url)
                is_noted = True
            yield output


class FlushesOnlyAtClose:
    """Extension: what is held is brought to safety when the spider is closed, and at no other time."""

    def __init__(self, run: LiveRun) -> None:
        self._finish = run.finish

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        live = LiveRun.of(crawler)
        extension = cls(live)
        crawler.signals.connect(extension.spider_closed, signals.spider_closed)
        live.finish = lambda reason: None  # type: ignore[method-assign]
        live.hurry = lambda: None  # type: ignore[method-assign]
        return extension

    async def spider_closed(self, spider: Spider, reason: str) -> None:
        await asyncio.to_thread(self._finish, reason)


class ForgetsWhatIsRefused:
    """Extension: what PostgreSQL does not take is dropped, not spooled."""

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        Spool.append = lambda spool, stream, columns, lines: 0  # type: ignore[assignment, method-assign]
        return cls()


class WallClockDeadlines:
    """Extension: delivery measures how long things take by the clock that tells the date."""

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        run.Courier = partial(Courier, clock=time.time)  # type: ignore[assignment, attr-defined]
        run.PostgresSink = partial(PostgresSink, clock=time.time)  # type: ignore[assignment, attr-defined]
        return cls()
