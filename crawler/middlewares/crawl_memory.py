"""The page memory in a crawl: opened before the first request, asked without blocking, closed at the end."""

import asyncio
from typing import Any, Self
from urllib.parse import quote

from scrapy import Spider, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import NotConfigured

from crawler.config import Configuration
from crawler.memory.page_memory import CALL_SECONDS, DAY_SECONDS, PageMemory, Remembered, Retention
from crawler.run import LiveRun
from crawler.source import Revisit, is_reset, revisit_of

# A card may be slow to give up a large memory; the crawl waits for it once.
_OPEN_SECONDS = 60.0
# A stop has an end, and marks are worth less than that.
_CLOSE_SECONDS = 2.0


class CrawlMemory:
    """What one crawl knows of its pages. Reactor thread."""

    def __init__(self, crawler: Crawler, configuration: Configuration) -> None:
        """Given a crawl that is to have one, return its memory, which opens and closes with it."""
        self._configuration = configuration
        self._memory: PageMemory | None = None
        crawler.signals.connect(self._spider_opened, signals.spider_opened)
        # The last pages settle while the spider closes.
        crawler.signals.connect(self._engine_stopped, signals.engine_stopped)

    @classmethod
    def for_revisit(cls, crawler: Crawler, revisit: Revisit) -> Self:
        """Return the memory of a crawl whose pages are revisited so. Raise NotConfigured for any other."""
        if revisit_of(crawler.spidercls) != revisit:
            raise NotConfigured
        configuration = LiveRun.of(crawler).configuration
        if not configuration.deltafetch_enabled:
            raise NotConfigured
        return cls(crawler, configuration)

    async def recall(self, key: bytes) -> Remembered | None:
        """Given a page's key, return what is known of it; None also if the card does not answer."""
        if self._memory is None or not self._memory.is_known(key):
            return None
        answer = self._memory.recall(key)
        if answer.done():
            return answer.result()
        try:
            return await asyncio.wait_for(asyncio.wrap_future(answer), CALL_SECONDS)
        except TimeoutError:
            self._memory.give_up(f"no answer within {CALL_SECONDS:g} seconds; check the card")
            return None

    def note(self, key: bytes, facts: list[Any], *, read_at: int | None = None) -> None:
        """Remember a page: only one that counts as seen."""
        if self._memory is not None:
            self._memory.note(key, facts, read_at=read_at)

    def forget(self, key: bytes) -> None:
        """Forget a page."""
        if self._memory is not None:
            self._memory.forget(key)

    async def _spider_opened(self, spider: Spider) -> None:
        conf = self._configuration
        self._memory = PageMemory(
            conf.pages_dir / f"{quote(spider.name, safe='')}.sqlite",
            Retention(expiry_seconds=conf.page_expiry_days * DAY_SECONDS, max_pages=conf.max_pages),
            is_reset=conf.deltafetch_reset or is_reset(spider),
        )
        try:
            await asyncio.wait_for(asyncio.wrap_future(self._memory.open()), _OPEN_SECONDS)
        except TimeoutError:
            self._memory.give_up(f"not open after {_OPEN_SECONDS:g} seconds; check the card")

    async def _engine_stopped(self) -> None:
        if self._memory is None:
            return
        try:
            await asyncio.wait_for(asyncio.wrap_future(self._memory.close()), _CLOSE_SECONDS)
        except TimeoutError:
            self._memory.give_up(f"not closed after {_CLOSE_SECONDS:g} seconds; its last pages are lost")
