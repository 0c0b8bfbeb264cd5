"""One crawl of one source: its identity, its courier and its books, shared by the crawl's components."""

import asyncio
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

import orjson
from scrapy.crawler import Crawler

from crawler import stats
from crawler.config import Configuration, read_configuration
from crawler.delivery.courier import Courier
from crawler.delivery.postgres import PostgresSink
from crawler.delivery.spool import DrainLock, Spool
from crawler.delivery.tables import CRAWLER_JOBS
from crawler.drift.comparison import Review
from crawler.drift.reviewer import Reviewer
from crawler.exceptions import CardError, ItemRefused
from crawler.failures import Failure
from crawler.host.processes import is_running, process_identity
from crawler.items import ItemEncoder
from crawler.ledger import FAILURES, Counts, Run, RunLedger
from crawler.pages import PageBook
from crawler.politeness.holds import SiteHolds
from crawler.reactor import call_soon
from crawler.records import DeadLetter, Record, Stream, copy_line
from crawler.tickets import Ticket

logger = logging.getLogger(__name__)

# After a stop signal, in seconds: the last call to PostgreSQL, all items safe, the books closed.
_LAST_CALL_SECONDS = 9.0
_FLUSHED_SECONDS = 11.5
_CLOSED_SECONDS = 12.5
_SPOOL_SECONDS = 3.0
_REFUSALS_LOGGED = 10

_runs: WeakKeyDictionary[Crawler, "LiveRun"] = WeakKeyDictionary()


class LiveRun:
    """The run of one Scrapy crawler. Reactor thread, except ``open`` and ``finish``, which block."""

    def __init__(self, crawler: Crawler, configuration: Configuration) -> None:
        spider = crawler.spidercls
        self.source = spider.name
        self.run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{self.source}-{uuid4().hex[:8]}"
        self.configuration = configuration
        self.encoder = ItemEncoder(
            source=self.source,
            key=getattr(spider, "key", "url"),
            keep_every=getattr(spider, "keep", "changes") == "every",
            run_id=self.run_id,
            host=configuration.host_name,
            max_bytes=configuration.item_max_bytes,
        )
        self.holds = SiteHolds(configuration.retry_after_max_seconds, time.monotonic)
        self.pages = PageBook(max_items=configuration.limits.queue_max_items + 10_000)
        self.reviewer = Reviewer(crawler)
        self.is_whole = True
        self._started = Run(
            self.run_id, self.source, configuration.host_name, process_identity(), time.time()
        )
        self._crawler = crawler
        self._spool_first = bool(getattr(spider, "spool_first", False))
        self._room = asyncio.Event()
        self._told_to_stop = asyncio.Event()
        self._opening_or_finishing = threading.Lock()
        self._finished = False
        self._closed = False
        self._hurried_at: float | None = None
        self._taken = 0
        self._refused = 0
        self._stopping: asyncio.Future[None] | None = None
        self._ledger: RunLedger | None = None
        self._spool: Spool | None = None
        self._courier: Courier | None = None

    @classmethod
    def of(cls, crawler: Crawler) -> "LiveRun":
        """Return the one run of this crawler. Raise ConfigurationError for wrong settings."""
        run = _runs.get(crawler)
        if run is None:
            configuration = read_configuration(crawler.settings.get, os.environ)
            run = _runs[crawler] = cls(crawler, configuration)
        return run

    @property
    def is_finished(self) -> bool:
        """True once ``finish`` has closed the books, or if there was nothing to close."""
        return self._closed or self._courier is None

    @property
    def courier(self) -> Courier:
        """The run's courier. Only between ``open`` and the end of the process."""
        assert self._courier is not None, "the run is not open"
        return self._courier

    # -- blocking: called in a thread ----------------------------------------------------------

    def open(self) -> None:
        """Open the spool and the ledger, start the courier, announce the run. Raise CardError."""
        with self._opening_or_finishing:
            # A stop signal may come before the crawl has begun.
            if not self._finished:
                self._open()

    def _open(self) -> None:
        conf = self.configuration
        stream = self.encoder.stream
        self._spool = Spool(conf.spool_path, max_bytes=conf.spool_max_bytes)
        sink = None
        if conf.database_url is None:
            logger.warning(
                "DATABASE_URL is not set: every item waits in the spool %s. Set it, run `scrapy initdb`, "
                "then `scrapy spool drain`",
                conf.spool_path,
            )
        else:
            sink = PostgresSink(conf.database_url, deadline_seconds=conf.call_deadline_seconds)
        self._courier = Courier(
            sink,
            self._spool,
            limits=conf.limits,
            spool_first={stream} if self._spool_first else (),
            drain_lock=DrainLock(conf.spool_path),
            drain_batches_per_second=conf.drain_batches_per_second,
            on_progress=self._on_progress,
        )
        self._courier.start()
        if self._hurried_at is not None:
            self.hurry()
        self._announce()

    def finish(self, reason: str) -> None:
        """Bring what is held to safety, close the books, stop the courier. Safe to call twice.

        ``reason`` is Scrapy's reason for closing the spider.
        """
        with self._opening_or_finishing:
            if self._finished:
                return
            self._finished = True
            if self._courier is None:
                return
            if not self._courier.is_broken:
                self._courier.flush(self._grace_seconds(_FLUSHED_SECONDS))
            self._courier.offer(job_record(self._ended(reason)))
            drain = 0.0
            if reason == "finished" and self._hurried_at is None:
                drain = self.configuration.drain_at_close_seconds
            self._courier.close(grace_seconds=self._grace_seconds(_CLOSED_SECONDS), drain_seconds=drain)
            ended = self._ended(reason)
            self.is_whole = ended.status != "failed"
            _say_how_it_ended(ended)
            if self._ledger is not None:
                self._noted(self._ledger.end, ended)
                self._ledger.close()
            if self._spool is not None:
                self._spool.close()
            self._closed = True
            self.reviewer.say_and_keep(ended, self.configuration.samples_dir)

    def _grace_seconds(self, after_signal: float) -> float:
        """Return how long to wait for the courier: after a stop signal, until that long after it."""
        if self._hurried_at is None:
            return self.configuration.call_deadline_seconds + _SPOOL_SECONDS
        return max(0.1, self._hurried_at + after_signal - time.monotonic())

    def _announce(self) -> None:
        """Write the run's beginning to the ledger and PostgreSQL, and the end of runs that could not."""
        past: list[Review] = []
        try:
            self._ledger = RunLedger(self.configuration.ledger_path)
            past = self._ledger.reviews(self.source)
        except CardError as error:
            logger.error("The crawl goes on without its run ledger: %s", error)
        else:
            self._noted(self._ledger.start, self._started)
            self._close_orphans(self._ledger)
        self.reviewer.recall(past)
        self.courier.offer(job_record(self._started))

    def _close_orphans(self, ledger: RunLedger) -> None:
        try:
            ledger.close_orphans(is_running, self._tell_of_killed)
        except CardError as error:
            logger.error("The next run will note which runs were killed: %s", error)

    def _tell_of_killed(self, run: Run) -> None:
        """By way of the card: what only RAM holds is gone if this process is killed too."""
        assert self._spool is not None
        logger.warning("The run %s was killed; what it had in RAM is fetched again", run.run_id)
        spool_job(self._spool, run)

    def _noted(self, note: Callable[[Run], None], run: Run) -> None:
        """The ledger counts; it must never be what stops a crawl."""
        try:
            note(run)
        except CardError as error:
            logger.error("The run ledger lacks an entry, so the account will not add up: %s", error)

    # -- reactor thread ------------------------------------------------------------------------

    async def deliver(self, item: Any) -> None:
        """Take charge of an item; wait while RAM has no room for it."""
        page = self.pages.take(item)
        entry: Record | DeadLetter
        ticket = page.ticket if page else None
        try:
            self.reviewer.survey.item(item, page)
            entry = self.encoder.encode(item, page.url if page else None, ticket)
        except ItemRefused as refused:
            self._say_refused(refused)
            entry = self.encoder.dead_letter(item, refused, ticket)
        while not self.courier.offer(entry):
            if self.courier.is_broken:
                raise RuntimeError("the courier has stopped; the log says why")
            self._room.clear()
            await self._room.wait()
        self._taken += 1

    def _say_refused(self, refused: ItemRefused) -> None:
        """A site that changed may have every item refused: the card must not fill with log lines."""
        self._refused += 1
        if self._refused <= _REFUSALS_LOGGED:
            logger.error("An item became a dead letter (`scrapy spool dead`): %s", refused)
        if self._refused == _REFUSALS_LOGGED:
            logger.error("Further refused items of this run are only counted")

    def abandon(self, item: Any) -> None:
        """An item was dropped or failed before delivery: its page does not count as seen."""
        page = self.pages.take(item)
        if page is not None:
            page.ticket.void()

    def hurry(self) -> None:
        """From any thread: the process was told to stop, so bound every call to end in time."""
        if self._hurried_at is None:
            self._hurried_at = time.monotonic()
            # After the reactor has stopped nobody sleeps in it.
            with suppress(RuntimeError):
                call_soon(self._told_to_stop.set)
        if self._courier is not None:
            self._courier.hurry(call_seconds=self.configuration.shutdown_seconds, seconds=_LAST_CALL_SECONDS)

    async def sleep(self, seconds: float) -> None:
        """Wait, but not longer than until the process is told to stop. Reactor thread."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._told_to_stop.wait(), seconds)

    def counts(self) -> Counts:
        """Return what the run has done so far, by two books: Scrapy's stats and the courier's."""
        tally = self.courier.tally(self.encoder.stream)
        get = self._crawler.stats.get_value
        dropped = get("item_dropped_count", 0)
        failed = get(stats.ITEMS_FAILED, 0)
        settled = tally.stored + tally.unchanged + tally.spooled + tally.dead
        held = self._taken - settled if self._finished else 0
        return Counts(
            pages=get("response_received_count", 0),
            # After a hard stop Scrapy has not counted the last items that were taken.
            scraped=max(get("item_scraped_count", 0), self._taken) + dropped + failed,
            stored=tally.stored,
            unchanged=tally.unchanged,
            spooled=tally.spooled,
            dead=tally.dead,
            dropped=dropped,
            lost=failed + held,
            **self._failures(),
        )

    def _failures(self) -> dict[str, int]:
        """Return how many requests failed for good, by kind."""
        kinds: Counter[str] = Counter()
        for failure in Failure:
            kinds[failure.kind] += self._crawler.stats.get_value(
                stats.failure(failure.kind, failure.reason), 0
            )
        return {kind: kinds[kind] for kind in FAILURES}

    def report(self) -> None:
        """Write the delivery's counters to the crawl's stats. Nothing to write before ``open``."""
        if self._courier is None:
            return
        counts = self.counts()
        for name, value in (
            (stats.ITEMS_STORED, counts.stored),
            (stats.ITEMS_UNCHANGED, counts.unchanged),
            (stats.ITEMS_SPOOLED, counts.spooled),
            (stats.ITEMS_DEAD, counts.dead),
            (stats.ITEMS_LOST, counts.lost),
            (stats.ITEMS_MENDED, self.encoder.mended),
        ):
            self._crawler.stats.set_value(name, value)
        self.reviewer.report()

    def _on_progress(self, tickets: Counter[Ticket]) -> None:
        """In the courier's thread: pass the news on to the reactor's."""
        # After the reactor has stopped nobody waits for the news.
        with suppress(RuntimeError):
            call_soon(self._progressed, tickets)

    def _progressed(self, tickets: Counter[Ticket]) -> None:
        for ticket, items in tickets.items():
            ticket.redeem(items)
        self._room.set()
        self.report()
        if self.courier.is_broken and self._crawler.crawling:
            logger.error("The crawl is stopped, because nothing of it can be delivered")
            self._stopping = asyncio.ensure_future(self._crawler.stop_async())

    # -- verdict -------------------------------------------------------------------------------

    def _verdict(self, reason: str, counts: Counts) -> tuple[str, str | None]:
        """Return the run's status and, if it failed, why."""
        missing = counts.scraped - counts.accounted
        if counts.lost or missing:
            return "failed", (
                f"{max(counts.lost, missing)} of {counts.scraped} items are not safe; "
                "their pages are fetched again by the next run"
            )
        if reason == "shutdown":
            return "interrupted", None
        if reason == "finished" or reason.startswith("closespider_"):
            return "finished", None
        return "failed", f"Scrapy closed the spider: {reason}"

    def _ended(self, reason: str) -> Run:
        counts = self.counts()
        status, error = self._verdict(reason, counts)
        ended = replace(self._started, ended_at=time.time(), status=status, error=error, counts=counts)
        if (reason, status) == ("finished", "finished") and self._hurried_at is None:
            return replace(ended, review=self.reviewer.review(ended))
        return ended


def _say_how_it_ended(run: Run) -> None:
    counts = run.counts
    missing = counts.scraped - counts.accounted
    logger.log(
        logging.ERROR if run.error else logging.INFO,
        "The run %s %s: %d scraped = %d stored + %d unchanged + %d spooled + %d dead + %d dropped%s%s",
        run.run_id,
        run.status,
        counts.scraped,
        counts.stored,
        counts.unchanged,
        counts.spooled,
        counts.dead,
        counts.dropped,
        f" + {missing} LOST" if missing else "",
        f" -- {run.error}" if run.error else "",
    )
    failed = {kind: number for kind in FAILURES if (number := getattr(counts, kind))}
    if failed:
        logger.log(
            logging.WARNING if counts.blocked or counts.broken else logging.INFO,
            "The run %s failed to fetch %d pages: %s",
            run.run_id,
            sum(failed.values()),
            ", ".join(f"{number} {kind}" for kind, number in failed.items()),
        )


def job_record(run: Run) -> Record:
    """Given a run of the ledger, return its row of ``crawler_jobs``."""
    ended = run.ended_at is not None
    line = copy_line(
        (
            run.run_id,
            run.source,
            run.host,
            run.status,
            _timestamp(run.started_at),
            _timestamp(run.ended_at),
            run.counts.scraped if ended else None,
            run.error,
            orjson.dumps(_job_stats(run)) if ended else None,
        )
    )
    return Record(Stream(CRAWLER_JOBS.name, run.source), run.run_id, line)


def spool_job(spool: Spool, run: Run) -> None:
    """Given a run of the ledger, have its row of ``crawler_jobs`` wait on the card. Raise CardError."""
    record = job_record(run)
    spool.append(record.stream, CRAWLER_JOBS.column_names, [record.line])


def _job_stats(run: Run) -> dict[str, Any]:
    """Return the counts and, of a run that was compared with earlier ones, what is odd about it."""
    counts: dict[str, Any] = orjson.loads(run.counts.to_json())
    if run.review is None or not run.review.compared_with:
        return counts
    return counts | {"drift": [finding.as_json() for finding in run.review.findings]}


def _timestamp(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
