"""The policy of delivery: PostgreSQL first, the spool when that fails, dead letters for what never can.

One thread owns the connection and the spool. What the crawl hands over is counted as held until it is
committed in PostgreSQL or synced to the card; only then is its ticket redeemed.
"""

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from crawler.delivery.backoff import Breaker
from crawler.delivery.batch import Entry, Limits, Queue
from crawler.delivery.postgres import Sink
from crawler.delivery.spool import Batch, DrainLock, Settlement, Spool
from crawler.delivery.tables import SCRAPED_DATA, TABLES
from crawler.exceptions import CardError, RowRefused, SinkError, SinkMisconfigured, SinkTimeout
from crawler.records import DeadLetter, Record, Stream
from crawler.tickets import Ticket

logger = logging.getLogger(__name__)

PAUSE_FILL = 0.95
RESUME_FILL = 0.90
ALERT_FILL = 0.80
# Measured: deleting once per ten batches writes a tenth of the bytes; a crash re-sends at most ten.
_LAZY_DELETES = 10
_IDLE_SECONDS = 0.5
_DRAIN_TICK_SECONDS = 0.01
_CARD_RETRY_SECONDS = 0.2
_COMPLAIN_EVERY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Tally:
    """What has become of a stream's items in this process."""

    stored: int = 0
    unchanged: int = 0
    spooled: int = 0
    dead: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.stored + other.stored,
            self.unchanged + other.unchanged,
            self.spooled + other.spooled,
            self.dead + other.dead,
        )


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of some lines: counts, and the letters of those PostgreSQL will never take."""

    stored: int = 0
    unchanged: int = 0
    dead: tuple[DeadLetter, ...] = ()

    def __add__(self, other: "Fate") -> "Fate":
        return Fate(self.stored + other.stored, self.unchanged + other.unchanged, self.dead + other.dead)


class Courier:
    """Delivers the records of one process. ``offer`` from one thread; the rest happens in its own."""

    def __init__(
        self,
        sink: Sink | None,
        spool: Spool,
        *,
        limits: Limits | None = None,
        spool_first: Collection[Stream] = (),
        drain_lock: DrainLock | None = None,
        drain_batches_per_second: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        on_progress: Callable[[Counter[Ticket]], None] = lambda _tickets: None,
    ) -> None:
        """Given where to deliver (None: nowhere yet) and the spool, return a courier; ``start`` it.

        Batches of the ``spool_first`` streams reach the card before PostgreSQL. ``on_progress`` is
        called in the courier's thread after each batch that left RAM, with how many items of each
        ticket it held.
        """
        self._sink = sink
        self._spool = spool
        self._spool_first = spool_first
        self._clock = clock
        self._chance = chance
        self._on_progress = on_progress
        self._queue = Queue(limits or Limits(), clock)
        self._drainer = Drainer(spool, drain_lock, drain_batches_per_second, clock)
        self._breaker = Breaker()
        self._tallies: dict[Stream, Tally] = {}
        self._give_up_at: float | None = None
        self._drain_until = 0.0
        self._complained_at: dict[str, float] = {}
        self._last_error = ""
        self._broken = False
        self._paused = False
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)

    # -- the crawl's side ----------------------------------------------------------------------

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def offer(self, entry: Entry) -> bool:
        """Given a record or dead letter, take charge of it; return False if there is no room now.

        While the spool is nearly full items are refused; the few rows about runs are still taken.
        """
        if self._broken or (self._paused and entry.stream.table == SCRAPED_DATA.name):
            return False
        return self._queue.offer(entry)

    def tally(self, stream: Stream) -> Tally:
        """Return what has become of the stream's items so far."""
        return self._tallies.get(stream, Tally())

    @property
    def held(self) -> int:
        """How many records and dead letters are in RAM only."""
        return self._queue.held

    @property
    def is_broken(self) -> bool:
        """True if the courier met an error it does not know: it takes nothing any more."""
        return self._broken

    @property
    def last_error(self) -> str:
        """Why PostgreSQL or the card last refused, or an empty text."""
        return self._last_error

    def flush(self, timeout_seconds: float) -> bool:
        """Wait, blocking, until everything offered so far has left RAM; False after the timeout."""
        self._queue.hasten()
        return self._queue.wait_until_empty(timeout_seconds)

    def hurry(self, *, call_seconds: float, seconds: float) -> None:
        """From any thread: PostgreSQL gets ``call_seconds`` a call and ``seconds`` in all.

        What it has not taken by then is spooled.
        """
        if self._sink is not None:
            self._sink.hurry(call_seconds, self._clock() + seconds)
        self._queue.hasten()

    def close(self, *, grace_seconds: float, drain_seconds: float = 0.0) -> int:
        """Deliver what is held, blocking for ``grace_seconds`` at most; return how much could not be.

        Before that, if PostgreSQL answers, send waiting batches for up to ``drain_seconds``.
        """
        now = self._clock()
        self._drain_until = now + drain_seconds
        self._give_up_at = now + drain_seconds + grace_seconds
        # Half the grace for a server that does not answer leaves the other half for the card.
        self.hurry(call_seconds=grace_seconds / 2, seconds=drain_seconds + grace_seconds / 2)
        self._queue.hasten(closing=True)
        if self._thread.is_alive():
            self._thread.join(drain_seconds + grace_seconds + 1.0)
        return self._queue.held

    # -- the courier's thread ------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._is_done():
                batch = self._queue.take(self._drainer.wait_seconds() if self._may_send() else _IDLE_SECONDS)
                if batch:
                    self._settle(batch)
                elif self._queue.closed:
                    time.sleep(_DRAIN_TICK_SECONDS)
                self._drain()
        except Exception:
            logger.exception("The courier stopped: what is held in RAM is not delivered")
            self._broken = True
            self._on_progress(Counter())
        finally:
            self._drainer.close()
            if self._sink is not None:
                self._sink.close()

    def _is_done(self) -> bool:
        if not self._queue.closed or self._queue.held:
            return self._is_too_late()
        may_drain = self._clock() < self._drain_until and self._may_send()
        return not (may_drain and self._drainer.has_work())

    def _is_too_late(self) -> bool:
        return self._give_up_at is not None and self._clock() >= self._give_up_at

    def _settle(self, batch: list[Entry]) -> None:
        """Bring the batch to safety, however often that takes."""
        while not self._is_too_late():
            try:
                tally = self._secured(batch)
            except CardError as error:
                self._complain("Items wait in RAM and the crawl waits for them: %s", error)
                # Only draining makes room on a full card, so now it is what live items need first.
                if not self._drain(at_once=True):
                    time.sleep(_CARD_RETRY_SECONDS)
                continue
            stream = batch[0].stream
            self._tallies[stream] = self.tally(stream) + tally
            self._queue.release(batch)
            self._update_pause()
            tickets = Counter(entry.ticket for entry in batch if entry.ticket is not None)
            self._on_progress(tickets)
            return

    def _secured(self, batch: list[Entry]) -> Tally:
        stream = batch[0].stream
        columns = TABLES[stream.table].column_names
        letters = [entry for entry in batch if isinstance(entry, DeadLetter)]
        if letters:
            self._spool.bury(columns, letters)
            return Tally(dead=len(letters))
        records = [entry for entry in batch if isinstance(entry, Record)]
        lines = [record.line for record in records]
        if self._goes_to_postgres(stream):
            try:
                fate = send(self._reachable_sink, stream, columns, lines)
            except SinkError as error:
                self._failed(error)
            else:
                self._succeeded()
                if fate.dead:
                    self._complain(
                        "PostgreSQL refuses a row; it is a dead letter: SQLSTATE %s", fate.dead[0].code
                    )
                    self._spool.bury(columns, fate.dead)
                return Tally(fate.stored, fate.unchanged, dead=len(fate.dead))
        self._spool.append(stream, columns, lines)
        return Tally(spooled=len(lines))

    def _goes_to_postgres(self, stream: Stream) -> bool:
        """A stream's order is kept: while older batches of it wait, newer ones queue behind them."""
        return self._may_send() and stream not in self._spool_first and not self._has_older(stream)

    def _has_older(self, stream: Stream) -> bool:
        try:
            return self._spool.has_waiting(stream)
        except CardError as error:
            # A dead card must not hold up items that PostgreSQL can take.
            self._complain("The spool cannot be read; items go to PostgreSQL, maybe out of order: %s", error)
            return False

    def _may_send(self) -> bool:
        return self._sink is not None and self._breaker.allows(self._clock())

    @property
    def _reachable_sink(self) -> Sink:
        assert self._sink is not None, "asked for without _may_send()"
        return self._sink

    def _drain(self, *, at_once: bool = False) -> bool:
        """Send a waiting batch if one is due, or ``at_once``; return True if one was sent.

        A bounded number is due each second, so that live items come first.
        """
        sent = False
        try:
            is_due = self._may_send() and (at_once or self._drainer.is_due()) and not self._is_too_late()
            sent = is_due and self._drainer.step(self._reachable_sink)
            if sent:
                self._succeeded()
        except SinkError as error:
            self._failed(error)
        except CardError as error:
            self._complain("The spool could not be drained: %s", error)
        self._update_pause()
        return sent

    def _failed(self, error: SinkError) -> None:
        self._breaker = self._breaker.failed(self._clock(), self._chance())
        self._last_error = str(error)
        if isinstance(error, SinkMisconfigured):
            self._complain("PostgreSQL refuses; items wait in the spool until you act: %s", error)
        elif self._breaker.failures == 1:
            logger.warning("PostgreSQL does not take items; they go to the spool: %s", error)

    def _succeeded(self) -> None:
        if self._breaker.failures:
            logger.info("PostgreSQL takes items again after %d failures", self._breaker.failures)
        self._breaker = self._breaker.succeeded()
        self._last_error = ""

    def _update_pause(self) -> None:
        try:
            fill = self._spool.fill()
        except CardError:
            return
        if fill >= ALERT_FILL:
            self._complain("The spool is %.0f %% full; at 95 %% the crawl pauses", fill * 100)
        was_paused = self._paused
        self._paused = fill >= (RESUME_FILL if was_paused else PAUSE_FILL)
        if was_paused and not self._paused:
            logger.info("The spool has room again: the crawl goes on")
            self._on_progress(Counter())

    def _complain(self, template: str, detail: object) -> None:
        """Say it, but the same thing at most once a minute."""
        now = self._clock()
        if now - self._complained_at.get(template, -_COMPLAIN_EVERY_SECONDS) >= _COMPLAIN_EVERY_SECONDS:
            self._complained_at[template] = now
            logger.error(template, detail)


class Drainer:
    """Sends spooled batches, oldest first, and forgets each only after its commit."""

    def __init__(
        self,
        spool: Spool,
        lock: DrainLock | None,
        batches_per_second: float = 1000.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool = spool
        self._lock = lock
        self._interval_seconds = 1.0 / batches_per_second
        self._clock = clock
        self._due_at = 0.0
        self._done: list[Settlement] = []
        self._last_id = 0
        self._more = False

    def is_due(self) -> bool:
        """Return True if the rate allows one more batch now."""
        return self._clock() >= self._due_at

    def wait_seconds(self) -> float:
        """Return how long a courier with nothing to do should wait before it looks again."""
        if not self._more:
            return _IDLE_SECONDS
        return min(_IDLE_SECONDS, max(0.0, self._due_at - self._clock()))

    def has_work(self) -> bool:
        """Return True if batches wait and this process may send them."""
        return (
            self._spool.oldest(after_id=self._last_id) is not None
            and self._lock is not None
            and self._lock.acquire()
        )

    def step(self, sink: Sink) -> bool:
        """Send the oldest waiting batch; return False if there is none, or another process drains.

        Raise SinkError if PostgreSQL does not take it, CardError if the card fails; then it waits.
        """
        if self._lock is None or not self._lock.acquire():
            return False
        self._due_at = self._clock() + self._interval_seconds
        batch = self._spool.oldest(after_id=self._last_id)
        self._more = batch is not None
        if batch is None:
            self._forget()
            self._lock.release()
            return False
        settlement = settled(sink, batch)
        self._last_id = batch.id
        self._done.append(settlement)
        if settlement.dead or len(self._done) >= _LAZY_DELETES:
            self._forget()
        return True

    def close(self) -> None:
        """Forget what was sent and let another process drain."""
        try:
            self._forget()
        except CardError as error:
            logger.warning("Sent batches stay in the spool and will be sent again: %s", error)
        if self._lock is not None:
            self._lock.release()

    def _forget(self) -> None:
        self._spool.settle(self._done)
        self._done.clear()
        self._last_id = 0


def settled(sink: Sink, batch: Batch) -> Settlement:
    """Given a spooled batch, send it and return what became of it. Raise SinkError."""
    if batch.lines is None:
        logger.error("Batch %d of the spool does not match its checksum: set aside", batch.id)
        return Settlement(batch)
    if batch.stream.table not in TABLES:
        raise SinkMisconfigured(
            f"batch {batch.id} is for the table {batch.stream.table}, which this version does not know: "
            "it was spooled by a newer one, so install that again"
        )
    fate = send(sink, batch.stream, batch.columns, batch.lines, halve_on_timeout=True)
    return Settlement(batch, fate.stored, fate.unchanged, fate.dead)


def send(
    sink: Sink,
    stream: Stream,
    columns: str,
    lines: Sequence[bytes],
    *,
    halve_on_timeout: bool = False,
) -> Fate:
    """Given lines of one stream, store the good ones and return letters for those refused for ever.

    A batch with a bad row is halved until each bad row stands alone: 2 log2(n) transactions at most for a
    row. Raise any other SinkError; lines already stored by then are unchanged when sent again.
    """
    try:
        outcome = sink.write(stream, columns, lines)
    except RowRefused as error:
        if len(lines) == 1:
            return Fate(dead=(_dead_letter(stream, lines[0], error),))
        refused = True
    except SinkTimeout:
        if not halve_on_timeout or len(lines) == 1:
            raise
        refused = False
    else:
        return Fate(outcome.stored, outcome.unchanged)
    send_part = partial(send, sink, stream, columns, halve_on_timeout=halve_on_timeout)
    return _in_halves(send_part, lines, refused=refused)


def _in_halves(
    send_part: Callable[[Sequence[bytes]], Fate], lines: Sequence[bytes], *, refused: bool
) -> Fate:
    """Given lines that were refused, or took too long, as a whole, send their halves."""
    middle = len(lines) // 2
    fate, rest = send_part(lines[:middle]), lines[middle:]
    if refused and not fate.dead and len(rest) > 1:
        # The bad row is among the rest, then: sending all of it would only say so once more.
        return fate + _in_halves(send_part, rest, refused=True)
    return fate + send_part(rest)


def _dead_letter(stream: Stream, line: bytes, error: RowRefused) -> DeadLetter:
    key = line.split(b"\t", 2)[1].decode(errors="replace")
    return DeadLetter(stream, key, error.sqlstate or "", str(error), line, replayable=True)
