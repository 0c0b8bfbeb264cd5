"""Reads and writes one source's failed requests in a thread of its own: nobody waits for the card."""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

from crawler.exceptions import CardError
from crawler.memory.failed_requests import Change, Failed, FailedRequests, Handover, Outcome

logger = logging.getLogger(__name__)

T = TypeVar("T")
NOTHING = Handover(frozenset(), [], [])
_BATCH_CHANGES = 500


@dataclass(frozen=True, slots=True)
class _Asked:
    """Somebody waits until all before it is done."""

    is_last: bool
    answer: "Future[None]" = field(default_factory=Future)


class FailedRequestsKeeper:
    """What is put is on the card within moments, all that has come together in one transaction.

    A card that fails costs a warning, and later tries of what was to be kept; never the crawl.
    """

    def __init__(self, path: Path, source: str, on_outcome: Callable[[Outcome, int], None]) -> None:
        """Given the file, the source and whom to tell, in the thread, what was done and how much was lost."""
        self._path = path
        self._source = source
        self._on_outcome = on_outcome
        self._jobs: SimpleQueue[Change | _Asked] = SimpleQueue()
        self._is_open = False
        self._has_complained = False

    def open(self) -> "Future[Handover]":
        """Begin. The answer is what the run starts with: nothing if the card fails."""
        answer: Future[Handover] = Future()
        self._is_open = True
        Thread(target=self._work, args=(answer,), name="failed-requests", daemon=True).start()
        return answer

    def put(self, change: Change) -> None:
        """Note what became of a request. From any thread; returns at once."""
        self._jobs.put(change)

    def flush(self, *, is_last: bool = False) -> "Future[None]":
        """The answer comes when all that was put before is on the card, or is known to be lost.

        ``is_last`` then closes the file.
        """
        asked = _Asked(is_last)
        if self._is_open:
            self._jobs.put(asked)
        else:
            asked.answer.set_result(None)
        return asked.answer

    def _work(self, opened: "Future[Handover]") -> None:
        try:
            with closing(FailedRequests(self._path)) as ledger:
                _answer(opened, ledger.handover(self._source))
                while self._goes_on(ledger):
                    pass
        except CardError as error:
            self._complain(error)
            _answer(opened, NOTHING)
            while self._goes_on(None):
                pass

    def _goes_on(self, ledger: FailedRequests | None) -> bool:
        """Take what waits, note all of it, and answer who waits for that; return False for the last time."""
        jobs = [self._jobs.get()]
        with suppress(Empty):
            while len(jobs) < _BATCH_CHANGES:
                jobs.append(self._jobs.get_nowait())
        self._note(ledger, [job for job in jobs if not isinstance(job, _Asked)])
        asked = [job for job in jobs if isinstance(job, _Asked)]
        for each in asked:
            _answer(each.answer, None)
        return not any(each.is_last for each in asked)

    def _note(self, ledger: FailedRequests | None, changes: list[Change]) -> None:
        if not changes:
            return
        outcome, lost = Outcome(), 0
        try:
            if ledger is not None:
                outcome = ledger.apply(self._source, changes)
        except CardError as error:
            self._complain(error)
            ledger = None
        if ledger is None:
            lost = sum(isinstance(change, Failed) and change.request is not None for change in changes)
        self._on_outcome(outcome, lost)

    def _complain(self, error: CardError) -> None:
        if not self._has_complained:
            self._has_complained = True
            logger.warning("What failed is not kept for later runs: %s", error)


def _answer(future: "Future[T]", result: T) -> None:
    """Whoever asked may have stopped waiting."""
    if future.set_running_or_notify_cancel():
        future.set_result(result)
