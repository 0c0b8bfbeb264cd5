"""Each fault test has a short form, which `make test` runs, and a full one, which `make test-faults` runs."""

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from crawler.delivery.postgres import Sink
from crawler.delivery.spool import Spool
from tests.support.deliveries import Delivery
from tests.support.fault_report import FaultReport

MakeDelivery = Callable[..., Delivery]

REPORT = pytest.StashKey[FaultReport]()
BEGAN = pytest.StashKey[float]()


class Form(NamedTuple):
    """How thoroughly to test."""

    is_full: bool

    @property
    def name(self) -> str:
        return "full" if self.is_full else "short"

    def pick(self, *, short: int, full: int) -> int:
        """Return how often, or how much, in this form."""
        return full if self.is_full else short


@pytest.fixture(scope="session")
def form(pytestconfig: pytest.Config) -> Form:
    """The form this run of the tests is to have."""
    return Form(is_full=bool(pytestconfig.getoption("--full")))


@pytest.fixture(scope="session")
def fault_report(pytestconfig: pytest.Config) -> FaultReport:
    """Where a fault test enters its trials and controls."""
    return pytestconfig.stash[REPORT]


@pytest.fixture
def make_delivery(closing_stack: ExitStack, spool: Spool) -> MakeDelivery:
    """Return couriers at work, over the test's spool unless told, closed when the test ends."""

    def make(sink: Sink, over: Spool = spool, **options: Any) -> Delivery:
        return closing_stack.enter_context(closing(Delivery(sink, over, **options)))

    return make


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORT] = FaultReport()
    config.stash[BEGAN] = time.monotonic()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    page = item.config.stash[REPORT]
    if report.failed:
        page.failed.append(item.nodeid)
    elif report.skipped:
        reason: Any = report.longrepr
        page.left_out.append((item.nodeid, str(reason[2] if isinstance(reason, tuple) else reason)))
    return report


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items:
        item.config.stash[REPORT].left_out.append((item.nodeid, "deselected"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    target = session.config.getoption("--fault-report")
    if target:
        page = session.config.stash[REPORT].as_markdown(
            ended_at=datetime.now(UTC), took_seconds=time.monotonic() - session.config.stash[BEGAN]
        )
        Path(target).write_text(page, encoding="utf-8")
