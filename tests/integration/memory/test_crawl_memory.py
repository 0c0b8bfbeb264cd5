"""The page memory in a crawl: whatever its card does, the reactor's loop goes on turning."""

import asyncio
import logging
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from scrapy import Spider

from crawler import options
from crawler.config import read_configuration
from crawler.memory.page_store import PageStore
from crawler.middlewares import crawl_memory
from crawler.middlewares.crawl_memory import CrawlMemory
from tests.support.remembering import idle_crawler

pytestmark = pytest.mark.integration

KEY = b"page"
LIMIT_SECONDS = 0.3


class Turning:
    """Counts the turns of the loop while something is awaited."""

    turns = 0

    async def during(self, work: Coroutine[Any, Any, Any]) -> Any:
        async def count() -> None:
            while True:
                self.turns += 1
                await asyncio.sleep(0.01)

        counting = asyncio.ensure_future(count())
        try:
            return await work
        finally:
            counting.cancel()


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CALL_SECONDS", "_OPEN_SECONDS", "_CLOSE_SECONDS"):
        monkeypatch.setattr(crawl_memory, name, LIMIT_SECONDS)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a hanging card waits for."""
    event = threading.Event()
    yield event
    event.set()


def hang(monkeypatch: pytest.MonkeyPatch, gate: threading.Event, *names: str) -> None:
    for name in names:
        monkeypatch.setattr(PageStore, name, lambda *_given, **_named: gate.wait(20.0))


def memory_of(tmp_path: Path, **settings: str) -> tuple[CrawlMemory, Spider]:
    given = options.defaults_and_environment({}) | {"STATE_DIR": str(tmp_path)} | settings
    spider = Spider("a shop")
    return CrawlMemory(idle_crawler(spider), read_configuration(given.get, {})), spider


def test_a_crawl_knows_what_the_one_before_it_noted(tmp_path: Path) -> None:
    async def story() -> None:
        memory, spider = memory_of(tmp_path)
        assert await memory.recall(KEY) is None
        memory.note(KEY, ["before it is open"])
        await memory._spider_opened(spider)
        memory.note(KEY, ["a fact"])
        await memory._engine_stopped()

        memory, spider = memory_of(tmp_path)
        await memory._spider_opened(spider)
        remembered = await memory.recall(KEY)
        assert remembered is not None
        assert remembered.facts == ["a fact"]
        memory.forget(KEY)
        await memory._engine_stopped()
        assert [path.name for path in sorted((tmp_path / "pages").iterdir())] == [
            "a%20shop.lock",
            "a%20shop.sqlite",
        ]

        memory, spider = memory_of(tmp_path)
        await memory._spider_opened(spider)
        assert await memory.recall(KEY) is None
        await memory._engine_stopped()

    asyncio.run(story())


@pytest.mark.parametrize("step", ["open", "recall", "close"])
def test_a_card_that_hangs_is_waited_for_not_long_and_never_by_the_reactor(
    step: str,
    tmp_path: Path,
    gate: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story() -> None:
        first, spider = memory_of(tmp_path)
        await first._spider_opened(spider)
        first.note(KEY, [])
        await first._engine_stopped()

        memory, spider = memory_of(tmp_path)
        if step == "open":
            hang(monkeypatch, gate, "open")
        began = time.monotonic()
        await turning.during(memory._spider_opened(spider))
        if step == "recall":
            hang(monkeypatch, gate, "get", "write")
            assert await turning.during(memory.recall(KEY)) is None
            # It does not try again.
            assert await memory.recall(KEY) is None
        if step == "close":
            hang(monkeypatch, gate, "write")
            memory.note(KEY, [])
        await turning.during(memory._engine_stopped())
        assert time.monotonic() - began < 10 * LIMIT_SECONDS

    turning = Turning()
    asyncio.run(story())
    assert turning.turns > 10
    [warning] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "is out of use, so this run fetches pages again" in warning
