"""The review of one live run: what it saw of its site, against what its source's runs saw before it."""

import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from urllib.parse import quote

from scrapy import Spider
from scrapy.crawler import Crawler

from crawler import stats
from crawler.drift.comparison import (
    Profile,
    Review,
    Thresholds,
    comparable,
    problems_of_thresholds,
    reviewed,
    usual_coverage,
)
from crawler.drift.samples import write_sample
from crawler.drift.survey import Survey
from crawler.exceptions import ConfigurationError
from crawler.failures import Failure, Kind
from crawler.ledger import Run

logger = logging.getLogger(__name__)

_SPARED_PAGES = ("deltafetch/skipped", stats.PAGES_NOT_MODIFIED, stats.PAGES_SAME_CONTENT)


class Reviewer:
    """Counts while the run goes on, judges it at its end, where its books are closed."""

    def __init__(self, crawler: Crawler) -> None:
        """Given a crawler, return its reviewer. Raise ConfigurationError for wrong thresholds."""
        self.survey = Survey()
        self._crawler = crawler
        self._thresholds = thresholds_of(crawler.spidercls)
        self._past: Sequence[Review] = ()
        self._review: Review | None = None

    def recall(self, past: Sequence[Review]) -> None:
        """Given the reviews of the source's last runs, oldest first, know what is usual."""
        self._past = past
        history = comparable(past, self._site, self._thresholds)
        self.survey.expect(usual_coverage(history, self._thresholds))
        self.survey.announce(_declared_beside(self._crawler.spidercls))

    def review(self, run: Run) -> Review:
        """Given a run that went to its end, return what it saw and what is odd about it."""
        profile = self._profile(run.counts.dead)
        self._review = reviewed(profile, self._past, self._thresholds, run.ended_at or run.started_at)
        return self._review

    def report(self) -> None:
        """Write what was counted here, and the findings once there are some, to the crawl's stats."""
        self._crawler.stats.set_value(stats.ITEMS_INVALID, self.survey.invalid)
        findings = self._review.findings if self._review else ()
        for kind, number in Counter(finding.kind for finding in findings).items():
            self._crawler.stats.set_value(stats.drift(kind), number)

    def say_and_keep(self, run: Run, folder: Path) -> None:
        """Write the findings of a run that has ended to the log, and a page that shows them to the card."""
        findings = run.review.findings if run.review else ()
        for finding in findings:
            logger.warning("The run %s is unlike those before it: %s", run.run_id, finding.sentence)
        sample = self.survey.samples.best_for(findings)
        if sample is None:
            return
        path = folder / f"{quote(run.source, safe='')}.json"
        try:
            write_sample(path, sample, source=run.source, run_id=run.run_id, findings=findings)
        except OSError as error:
            logger.warning("The sample %s of an odd page was not kept: %s", path, error)
        else:
            logger.warning("A page that shows it was kept: %s", path)

    def _profile(self, dead: int) -> Profile:
        get = self._crawler.stats.get_value
        return self.survey.profile(
            self._site,
            failed=dict(self._failed()),
            spared_pages=sum(get(name, 0) for name in _SPARED_PAGES),
            dead=dead,
            received_bytes=get("downloader/response_bytes", 0),
        )

    def _failed(self) -> Iterator[tuple[str, int]]:
        for failure in Failure:
            number = self._crawler.stats.get_value(stats.failure(failure.kind, failure.reason), 0)
            # A page whose callback raised was seen here.
            if number and failure.kind is not Kind.UNFINISHED:
                yield f"{failure.kind}/{failure.reason}", number

    @property
    def _site(self) -> str:
        """What is compared with its like only: a copy of the site is another site."""
        return str(getattr(self._crawler.spider or self._crawler.spidercls, "base_url", ""))


def thresholds_of(spidercls: type[Spider]) -> Thresholds:
    """Given a spider's class, return its thresholds. Raise ConfigurationError."""
    problems = problems_of_drift(spidercls)
    if problems:
        raise ConfigurationError(problems)
    return Thresholds.of(getattr(spidercls, "drift", {}))


def problems_of_drift(spidercls: type[Spider]) -> list[str]:
    """Given a spider's class, return what is wrong with its thresholds."""
    problems = problems_of_thresholds(getattr(spidercls, "drift", {}))
    return [f"{problem} (in the spider {spidercls.name!r})" for problem in problems]


def _declared_beside(spidercls: type[Spider]) -> Iterator[type]:
    module = sys.modules.get(spidercls.__module__)
    for value in vars(module).values() if module else ():
        if isinstance(value, type) and is_dataclass(value):
            yield value
