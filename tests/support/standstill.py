"""Calls to PostgreSQL that are caught in flight when everything at its end falls silent."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from psycopg2.extensions import connection as Connection

from crawler.delivery.postgres import lock_number
from crawler.records import Stream
from tests.support.deliveries import Delivery, eventually
from tests.support.delivery import observations

BATCH = 50
LARGE_LINES = 30
LARGE_LINE_BYTES = 1_000_000

Silence = Callable[[], None]


class Watcher:
    """A session of its own that sees how far the others are, and can hold one up. A context manager."""

    def __init__(self, connection: Connection) -> None:
        """Given a connection that the silence does not reach until it is used again."""
        self._connection = connection
        connection.autocommit = True

    def copies(self) -> bool:
        """Return True while a batch is being received and its first rows have arrived."""
        return bool(self._answer("SELECT coalesce(max(bytes_processed), 0) > 0 FROM pg_stat_progress_copy"))

    def hold_up(self, stream: Stream) -> None:
        """Let every batch of the stream wait for us."""
        self._answer(f"SELECT pg_advisory_lock({lock_number(stream)})")

    def holds_up_one(self) -> bool:
        """Return True once a batch waits for us: all of it has arrived."""
        return bool(self._answer("SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted)"))

    def close(self) -> None:
        """Leave, and let the others go on. Waits for no answer."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _answer(self, query: str) -> Any:
        with self._connection.cursor() as cursor:
            cursor.execute(query)
            row = cursor.fetchone()
            return None if row is None else row[0]


def connecting(delivery: Delivery, _watcher: Watcher, fall_silent: Silence) -> None:
    """The first call of all finds nobody."""
    fall_silent()
    delivery.hand_over(observations(BATCH))


def sending_a_batch(delivery: Delivery, _watcher: Watcher, fall_silent: Silence) -> None:
    """The connection has worked and is idle; what is sent now fits into the kernel's buffers."""
    delivery.secure(observations(BATCH))
    fall_silent()
    delivery.hand_over(observations(BATCH, first=BATCH))


def sending_30_mb(delivery: Delivery, watcher: Watcher, fall_silent: Silence) -> None:
    """The buffers are full and the program waits for room in them."""
    delivery.hand_over(observations(LARGE_LINES, padding=LARGE_LINE_BYTES))
    assert eventually(watcher.copies), "the batch was not seen on its way"
    fall_silent()


def waiting_for_the_answer(delivery: Delivery, watcher: Watcher, fall_silent: Silence) -> None:
    """The server has everything, commits, and cannot say so."""
    watcher.hold_up(delivery.stream)
    delivery.hand_over(observations(BATCH))
    assert eventually(watcher.holds_up_one), "the batch was not seen to wait"
    fall_silent()
    watcher.close()


Call = Callable[[Delivery, Watcher, Silence], None]
CALLS: tuple[Call, ...] = (connecting, sending_a_batch, sending_30_mb, waiting_for_the_answer)


def words(call: Call) -> str:
    """Return the name of a kind of call as the report has it."""
    return call.__name__.replace("_", " ").replace("mb", "MB")
