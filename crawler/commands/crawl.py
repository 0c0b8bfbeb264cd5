"""``scrapy crawl SOURCE``: Scrapy's own command, with a bounded stop and a truthful exit status."""

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from types import FrameType
from typing import TYPE_CHECKING, Any

from scrapy.commands import crawl
from scrapy.crawler import Crawler
from scrapy.exceptions import UsageError

from crawler.command import FINDINGS, MISUSE, installation_problem
from crawler.exceptions import ConfigurationError, CrawlerError
from crawler.reactor import call_soon, running_reactor
from crawler.source import revisit_of

if TYPE_CHECKING:
    from crawler.run import LiveRun

logger = logging.getLogger(__name__)

# After a stop signal, in seconds. Systemd's TimeoutStopSec and a person's patience come after 15.
STOP_REACTOR_AFTER_SECONDS = 9.0
_FINISH_AFTER_SECONDS = 10.5
_EXIT_AFTER_SECONDS = 14.0

# Each is looked up in the named setting: a spider's custom_settings can lose it by accident.
NEEDED_COMPONENTS = (
    ("ITEM_PIPELINES", "pipelines.deliver.DeliverPipeline", 900),
    ("EXTENSIONS", "extensions.run_ledger.RunLedger", 0),
    ("SPIDER_MIDDLEWARES", "crawler.middlewares.tickets.TicketMiddleware", 950),
    ("SPIDER_MIDDLEWARES", "crawler.middlewares.failed_requests.FailedRequestMiddleware", 50),
    ("DOWNLOADER_MIDDLEWARES", "crawler.middlewares.retry_after.RetryAfterMiddleware", 950),
    ("EXTENSIONS", "extensions.politeness.Politeness", 0),
)
# What a crawl owes to a site is the operator's to decide, in the environment or with -s.
OPERATORS_SETTINGS = ("POLITENESS_FLOOR_SECONDS", "RETRY_AFTER_MAX_SECONDS")


class Command(crawl.Command):
    """Exit status 0: every item yielded is safe; 1: some are not, or the crawl failed; 2: misuse."""

    def long_desc(self) -> str:
        """Return the help text."""
        return (
            "Crawl one source and deliver its items. Example: scrapy crawl books. "
            "A copy of the site: scrapy crawl books -a base_url=http://127.0.0.1:8001/"
        )

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        """Crawl. Wrong settings are reported, all at once, before anything starts."""
        assert self.settings is not None
        assert self.crawler_process is not None
        if len(args) != 1:
            raise UsageError("name one spider; `scrapy list` shows them", print_help=False)
        problem = installation_problem()
        if problem is not None:
            self._refuse(problem)
            return
        try:
            crawler = self._create_crawler(args[0])
            run = _prepared(crawler)
        except KeyError:
            known = ", ".join(self.crawler_process.spider_loader.list())
            self._refuse(f"there is no spider {args[0]!r}; allowed: {known}")
            return
        except ConfigurationError as error:
            self._refuse(str(error))
            return
        stop = BoundedStop(run, lambda: self.exitcode)
        try:
            stop.arm()
            crawling: Any = self.crawler_process.crawl(crawler, **opts.spargs)
            self.crawler_process.start()
            self._explain(crawler, crawling)
        finally:
            stop.ignore_further_signals()
            # A second signal, or a component that failed at close, skipped the rest.
            run.finish("shutdown")
            if not run.is_whole:
                self.exitcode = FINDINGS

    def _explain(self, crawler: Crawler, crawling: Any) -> None:
        """If the crawl could not start, say why in a line, and with a traceback only if it is a bug."""
        if self.crawler_process is not None and self.crawler_process.bootstrap_failed:
            self.exitcode = FINDINGS
        is_over = isinstance(crawling, asyncio.Task) and crawling.done() and not crawling.cancelled()
        error = crawling.exception() if is_over else None
        if error is None:
            return
        if crawler.spider is None and isinstance(error, TypeError | ValueError):
            self._refuse(f"the spider {crawler.spidercls.name!r} does not start: {error}")
        else:
            is_bug = not isinstance(error, CrawlerError)
            logger.critical("The crawl ended: %s", error, exc_info=error if is_bug else None)

    def _refuse(self, problem: str) -> None:
        sys.stderr.write(f"{problem}\n")
        self.exitcode = MISUSE


def _prepared(crawler: Crawler) -> "LiveRun":
    """Given the crawler, return its run. Raise ConfigurationError for all that is wrong with it."""
    from crawler.config import read_configuration
    from crawler.drift.reviewer import problems_of_drift
    from crawler.run import LiveRun

    problems = problems_of_drift(crawler.spidercls)
    try:
        revisit_of(crawler.spidercls)
    except ValueError as error:
        problems.append(str(error))
    problems += [
        f"{setting} of the spider {crawler.spidercls.name!r} lacks {path!r}, without which its items "
        "are not delivered, what fails is forgotten, or its site is not spared; "
        f"allowed: {setting} with {path!r}: {order}"
        for setting, path, order in NEEDED_COMPONENTS
        if crawler.settings.getwithbase(setting).get(path) is None
    ]
    problems += [
        f"{name} is in the custom_settings of the spider {crawler.spidercls.name!r}; allowed: in the "
        f"environment as CRAWLER_{name}, or with -s"
        for name in OPERATORS_SETTINGS
        if name in (crawler.spidercls.custom_settings or {})
    ]
    try:
        read_configuration(crawler.settings.get, os.environ)
    except ConfigurationError as error:
        problems = [*error.problems, *problems]
    if problems:
        raise ConfigurationError(problems)
    return LiveRun.of(crawler)


class BoundedStop:
    """Ends the process within 15 s of the first stop signal, whatever hangs, and nothing held is lost.

    Scrapy's own stop waits for every page, callback and component, however long they take.
    """

    def __init__(self, run: "LiveRun", exit_status: Any) -> None:
        """Given the run to bring to safety and how to ask for the exit status, return a stop, unarmed."""
        self._run = run
        self._exit_status = exit_status
        # The one queue that a signal handler may put into while its own thread uses it.
        self._is_told = False
        self._signals: SimpleQueue[float] = SimpleQueue()

    def arm(self) -> None:
        """Listen to SIGTERM and SIGINT once the reactor runs; Scrapy's handlers still do their part."""
        Thread(target=self._watch, name="bounded-stop", daemon=True).start()
        # Scrapy installs its handlers after start-up, so ours come one turn of the loop later.
        running_reactor().callWhenRunning(call_soon, self._extend_handlers)

    def ignore_further_signals(self) -> None:
        """Once told to stop: being told again must not kill the process while it closes its books."""
        if self._is_told:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)

    def _extend_handlers(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._extend_handler(number)

    def _extend_handler(self, number: signal.Signals) -> None:
        scrapy_handler = signal.getsignal(number)

        def handler(signum: int, frame: FrameType | None) -> None:
            self._is_told = True
            self._signals.put(time.monotonic())
            if callable(scrapy_handler):
                scrapy_handler(signum, frame)

        signal.signal(number, handler)

    def _watch(self) -> None:
        """In a thread of its own: a callback that never ends blocks the reactor's."""
        told_at = self._signals.get()
        self._run.hurry()
        # Slept here, by the monotonic clock.
        _sleep_until(told_at + STOP_REACTOR_AFTER_SECONDS)
        # A page that loads for minutes must not hold the rest back. A reactor that has ended needs no stop.
        with suppress(RuntimeError):
            call_soon(_stop_reactor)
        _sleep_until(told_at + _FINISH_AFTER_SECONDS)
        # Still here: the reactor, a callback or another component hangs.
        finishing = Thread(target=self._run.finish, args=("shutdown",), daemon=True)
        finishing.start()
        finishing.join(max(0.0, told_at + _EXIT_AFTER_SECONDS - time.monotonic()))
        logger.error("Something of this crawl did not stop; the process ends without it")
        is_safe = self._run.is_finished and self._run.is_whole
        os._exit(self._exit_status() if is_safe else FINDINGS)


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def _stop_reactor() -> None:
    reactor = running_reactor()
    if reactor.running:
        reactor.stop()
