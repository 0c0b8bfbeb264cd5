"""``scrapy crawl SOURCE``: Scrapy's own command, with a bounded stop and a truthful exit status."""

import argparse
import signal
import sys
from types import FrameType

from scrapy import Spider
from scrapy.commands import crawl
from scrapy.crawler import Crawler

from crawler.command import FINDINGS, MISUSE, start_up_problem
from crawler.reactor import running_reactor
from crawler.run import STOP_AFTER_SECONDS, LiveRun


class Command(crawl.Command):
    """Exit status 0: every item yielded is safe; 1: some are not, or the crawl failed; 2: misuse."""

    def long_desc(self) -> str:
        """Return the help text."""
        return (
            "Crawl one source and deliver its items. Example: scrapy crawl books. "
            "A copy of the site: scrapy crawl books -a base_url=http://127.0.0.1:8001/"
        )

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        """Crawl; see Scrapy's command. Wrong settings are reported, all at once, before it starts."""
        assert self.settings is not None
        problem = start_up_problem(self.settings)
        if problem is not None:
            sys.stderr.write(f"{problem}\n")
            self.exitcode = MISUSE
            return
        self._crawler_of_run: Crawler | None = None
        try:
            self._bound_the_stop()
            super().run(args, opts)
        finally:
            self._finish()

    def _create_crawler(self, spidercls: type[Spider] | str) -> Crawler:
        self._crawler_of_run = super()._create_crawler(spidercls)
        return self._crawler_of_run

    def _finish(self) -> None:
        """After the reactor: a second signal, or a component that failed at close, skipped the rest."""
        if self._crawler_of_run is not None:
            run = LiveRun.of(self._crawler_of_run)
            run.finish("shutdown")
            if not run.is_whole:
                self.exitcode = FINDINGS

    def _bound_the_stop(self) -> None:
        def install() -> None:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._extend_handler(number)

        # Scrapy installs its handlers after start-up, so ours come one turn of the loop later.
        reactor = running_reactor()
        reactor.callWhenRunning(reactor.callLater, 0, install)

    def _extend_handler(self, number: signal.Signals) -> None:
        """Before Scrapy's orderly stop, set the time by which the process will have ended."""
        scrapy_handler = signal.getsignal(number)

        def handler(signum: int, frame: FrameType | None) -> None:
            running_reactor().callFromThread(self._hurry)
            if callable(scrapy_handler):
                scrapy_handler(signum, frame)

        signal.signal(number, handler)

    def _hurry(self) -> None:
        if self._crawler_of_run is not None:
            LiveRun.of(self._crawler_of_run).hurry()
        # A page that loads for minutes, or a callback that never ends, must not hold the rest back.
        running_reactor().callLater(STOP_AFTER_SECONDS, _stop_reactor)


def _stop_reactor() -> None:
    reactor = running_reactor()
    if reactor.running:
        reactor.stop()
