"""The only user of psycopg2: one batch, one transaction, and no call without an end."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Any, NamedTuple, Protocol

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import make_dsn, parse_dsn

from crawler.delivery.sqlstate import Meaning, login_sqlstate, meaning_of, remedy_for
from crawler.delivery.tables import TABLES
from crawler.exceptions import (
    RowRefused,
    SinkError,
    SinkMisconfigured,
    SinkTimeout,
    SinkUnavailable,
)
from crawler.records import Stream, hash128

# Each of these closes a hole the others leave (vanished peer while sending, while waiting, slow
# statement); the deadline of `Watchdog` closes the last one, a frozen server on a live kernel.
CONNECTION_DEFAULTS = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 8000,
    "application_name": "data-crawler",
}
# Comes on top of a call's own deadline, and both must fit into 12 s.
_ROLLBACK_SECONDS = 2.0
# psycopg2's own 8 kB make sixty chunks of a batch; after each it waits for the interpreter, of which a busy
# crawl lets go once in 5 ms.
_COPY_CHUNK_BYTES = 64 * 1024
# How soon a connection attempt notices that it has been hurried.
_ATTEMPT_TICK_SECONDS = 0.1
# synchronous_commit: with it off a server crash loses rows it had acknowledged.
# jit and seqscan off: the batch insert is a few hundred index look-ups, whatever the statistics of a
# table that has just grown from nothing say.
SESSION = (
    "SET client_encoding = 'UTF8'; SET synchronous_commit = on; SET statement_timeout = {statement}; "
    "SET lock_timeout = {lock}; SET idle_in_transaction_session_timeout = 30000; "
    "SET jit = off; SET enable_seqscan = off; SET default_transaction_isolation = 'read committed'; "
    "SET default_transaction_read_only = off"
)


class Outcome(NamedTuple):
    """What became of a committed batch, in items."""

    stored: int
    unchanged: int


class Sink(Protocol):
    """Where batches go. Used from one thread, except ``hurry``."""

    def write(self, stream: Stream, columns: str, lines: Sequence[bytes]) -> Outcome:
        """Commit the lines or raise a SinkError; return within the call deadline."""

    def hurry(self, call_seconds: float, at: float) -> None:
        """From any thread: let calls, running or coming, last ``call_seconds``, and none beyond ``at``."""

    def close(self) -> None:
        """Give the connection back."""


class PostgresSink:
    """A lazy connection to PostgreSQL that stores batches of COPY lines."""

    def __init__(
        self,
        database_url: str,
        *,
        deadline_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Given a libpq URL or DSN, return a sink that connects at its first ``write``.

        A call lasts ``deadline_seconds`` at most; the server cancels a statement a little before that,
        while the connection can still be used.
        """
        self._dsn = with_defaults(database_url)
        self._secrets = secrets_of(self._dsn)
        self._deadline_seconds = deadline_seconds
        self._session = SESSION.format(
            statement=round(900 * deadline_seconds), lock=round(600 * deadline_seconds)
        )
        self._watchdog = Watchdog(clock)
        self._connection: Connection | None = None
        self._staged: set[tuple[str, str]] = set()

    def write(self, stream: Stream, columns: str, lines: Sequence[bytes]) -> Outcome:
        """Given lines of one stream and the names of their columns, commit them as one transaction.

        Return how many became rows and how many were already there. Raise RowRefused,
        SinkMisconfigured, SinkTimeout or SinkUnavailable; except for RowRefused the batch may have
        been committed all the same, and sending it again is harmless.
        """
        with self._limited():
            connection = self._connected()
            with connection.cursor() as cursor:
                self._stage(cursor, stream.table, columns)
                table = TABLES[stream.table]
                cursor.copy_expert(
                    f"BEGIN; {self._in_time()}; COPY pg_temp.{table.staging} ({columns}) FROM STDIN",
                    BytesIO(b"".join(lines)),
                    _COPY_CHUNK_BYTES,
                )
                # READ COMMITTED gives the insert a snapshot taken after the lock is held, so two
                # writers of one source see each other's rows. One message, one round trip.
                cursor.execute(
                    f"{self._in_time()}; SELECT pg_advisory_xact_lock({lock_number(stream)});"
                    f"WITH stored AS ({table.insert}) "
                    "SELECT set_config('crawler.stored', count(*)::text, false) FROM stored;"
                    "COMMIT;"
                    "SELECT current_setting('crawler.stored')"
                )
                row = cursor.fetchone()
            stored = int(row[0]) if row else 0
            return Outcome(stored, len(lines) - stored)

    def run(self, script: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Given SQL, return the rows of its last statement. For `scrapy initdb` and status pages."""
        with self._limited(), self._connected().cursor() as cursor:
            cursor.execute(script, parameters or None)
            return list(cursor.fetchall()) if cursor.description else []

    def hurry(self, call_seconds: float, at: float) -> None:
        """From any thread: let calls, running or coming, last ``call_seconds``, and none beyond ``at``."""
        self._deadline_seconds = min(self._deadline_seconds, call_seconds)
        self._watchdog.hurry(call_seconds, at)

    def close(self) -> None:
        """Close the connection; safe to call twice."""
        connection, self._connection = self._connection, None
        self._staged.clear()
        self._watchdog.stop()
        if connection is not None:
            with suppress(psycopg2.Error):
                connection.close()

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """Put the whole call under the deadline and turn psycopg2's errors into ours."""
        try:
            with self._watchdog.limit(self._deadline_seconds):
                yield
        except psycopg2.Error as error:
            raise self._translated(error) from None
        except OSError as error:
            self.close()
            raise SinkUnavailable(f"no connection: {error}") from error
        except SinkError:
            self.close()
            raise

    def _in_time(self) -> str:
        """Have the server give up a little before we do, whatever the call has spent already.

        Its word for that tells a batch that is too large for it from a server that is silent.
        """
        return f"SET LOCAL statement_timeout = {max(1, round(900 * self._watchdog.seconds_left()))}"

    def _translated(self, error: psycopg2.Error) -> SinkError:
        sqlstate = getattr(error, "pgcode", None)
        # Not str(error): the server's DETAIL and CONTEXT quote the row, and this text is logged.
        said = error.diag.message_primary or str(error).strip() or type(error).__name__
        message = self._without_secrets(said)
        if self._watchdog.expired:
            sqlstate, message = None, f"no answer within {self._deadline_seconds:g} s"
        elif sqlstate is None and self._connection is None:
            sqlstate = login_sqlstate(message)
        meaning = meaning_of(sqlstate)
        if meaning is Meaning.ROW_REFUSED:
            if self._rolled_back():
                return RowRefused(message, sqlstate)
            sqlstate, message = None, "no connection any more after it refused a row; the batch is sent again"
        self.close()
        if meaning is Meaning.OPERATOR_NEEDED:
            return SinkMisconfigured(f"{message} -- {remedy_for(sqlstate)}", sqlstate)
        if meaning is Meaning.TIMED_OUT:
            return SinkTimeout(message, sqlstate)
        return SinkUnavailable(message, sqlstate)

    def _rolled_back(self) -> bool:
        """Return True if the session can be used for the next piece of the batch."""
        if self._connection is None or self._connection.closed:
            return False
        try:
            seconds = min(self._deadline_seconds, _ROLLBACK_SECONDS)
            with self._watchdog.limit(seconds), self._connection.cursor() as cursor:
                cursor.execute("ROLLBACK")
        except psycopg2.Error:
            return False
        return True

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._staged.clear()
            self._connection = self._connect()
            self._connection.autocommit = True
            self._watchdog.watch(self._connection)
            with self._connection.cursor() as cursor:
                cursor.execute(self._session)
        return self._connection

    def _connect(self) -> Connection:
        """Connect in a thread of its own: a hanging name server is bounded by nothing else."""
        attempt = ConnectionAttempt(self._dsn)
        connection = attempt.result(self._watchdog.seconds_left)
        if connection is None:
            raise SinkUnavailable("no connection: the server or the name server does not answer")
        return connection

    def _stage(self, cursor: Any, table: str, columns: str) -> None:
        """Have a temporary table that takes lines of these columns, as an older version wrote them."""
        if (table, columns) in self._staged:
            return
        types = dict(TABLES[table].columns)
        if unknown := set(columns.split(",")) - types.keys():
            raise SinkMisconfigured(
                f"a batch of {table} has the column(s) {', '.join(sorted(unknown))}, which this "
                "version does not know: it was spooled by a newer one, so install that again"
            )
        fields = ", ".join(f"{name} {type_}" for name, type_ in types.items())
        cursor.execute(
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {TABLES[table].staging} ({fields}) ON COMMIT DELETE ROWS"
        )
        self._staged.add((table, columns))

    def _without_secrets(self, message: str) -> str:
        for secret in self._secrets:
            message = message.replace(secret, "***")
        return message


class Watchdog:
    """Shuts a connection's socket down when a call outlasts its limit.

    ``cancel()``, ``close()`` and every timeout of the protocol wait for the server; a shut socket
    ends the call at once, from another thread, also when the server is frozen.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._socket: socket.socket | None = None
        self._deadline: float | None = None
        self._latest: float | None = None
        self._thread: threading.Thread | None = None
        self.expired = False

    def watch(self, connection: Connection | None) -> None:
        """Guard this connection (a duplicate of its socket, so that a closed number is never hit)."""
        with self._changed:
            if self._socket is not None:
                self._socket.close()
            self._socket = None if connection is None else socket.socket(fileno=os.dup(connection.fileno()))
            if self.expired:
                # The limit ran out while there was no socket to shut: between connecting and this.
                self._shut()

    @contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """End what runs inside after ``seconds``, or at the time ``hurry`` named."""
        with self._changed:
            self.expired = False
            self._deadline = self._bounded(self._clock() + seconds)
            self._start()
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._deadline = None

    def hurry(self, seconds: float, at: float) -> None:
        """End the running call within ``seconds``, and it and every later one at ``at`` at the latest."""
        with self._changed:
            self._latest = at if self._latest is None else min(self._latest, at)
            if self._deadline is not None:
                self._deadline = self._bounded(min(self._deadline, self._clock() + seconds))
                self._changed.notify()

    def seconds_left(self) -> float:
        """Return the seconds until the running limit, 0 once it has run out."""
        with self._changed:
            return max(0.0, (self._deadline or 0.0) - self._clock()) if not self.expired else 0.0

    def stop(self) -> None:
        """Guard nothing any more and end the thread; the next ``limit`` starts it again."""
        self.watch(None)
        with self._changed:
            self._deadline = None
            self._thread = None
            self._changed.notify()

    def _bounded(self, deadline: float) -> float:
        return deadline if self._latest is None else min(deadline, self._latest)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="postgres-deadline", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        with self._changed:
            while self._thread is threading.current_thread():
                if self._deadline is None:
                    self._changed.wait()
                elif (left := self._deadline - self._clock()) > 0:
                    self._changed.wait(left)
                else:
                    self.expired = True
                    self._deadline = None
                    self._shut()

    def _shut(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


class ConnectionAttempt:
    """One try to connect, abandoned by its caller when it takes too long."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._abandoned = False
        self._connection: Connection | None = None
        self._error: psycopg2.Error | None = None

    def result(self, seconds_left: Callable[[], float]) -> Connection | None:
        """Return the connection, or None if there was none while seconds were left. Raise its error."""
        threading.Thread(target=self._run, name="postgres-connect", daemon=True).start()
        while (seconds := seconds_left()) and not self._done.wait(min(seconds, _ATTEMPT_TICK_SECONDS)):
            pass
        with self._lock:
            self._abandoned = not self._done.is_set()
        if self._error is not None:
            raise self._error
        return self._connection

    def _run(self) -> None:
        try:
            connection = psycopg2.connect(self._dsn)
        except psycopg2.Error as error:
            self._error = error
            self._done.set()
            return
        with self._lock:
            if self._abandoned:
                connection.close()
            else:
                self._connection = connection
                self._done.set()


def with_defaults(database_url: str) -> str:
    """Given a libpq URL or DSN, return a DSN with our timeouts where it names none.

    Raise ValueError, without quoting the value, if libpq cannot read it.
    """
    try:
        given: dict[str, Any] = parse_dsn(database_url)
    except psycopg2.Error:
        raise ValueError("not a libpq URL or DSN") from None
    return str(make_dsn(None, **(CONNECTION_DEFAULTS | given)))


def secrets_of(dsn: str) -> tuple[str, ...]:
    """Return the values of a DSN that must never be shown."""
    parsed = parse_dsn(dsn)
    return tuple(parsed[name] for name in ("password", "sslpassword") if parsed.get(name))


def public_address(database_url: str) -> str:
    """Given a libpq URL or DSN, return host, port and database for people, without the password."""
    parsed = parse_dsn(with_defaults(database_url))
    host = parsed.get("host") or parsed.get("hostaddr") or "local socket"
    return f"{host}:{parsed.get('port', '5432')}/{parsed.get('dbname', parsed.get('user', ''))}"


def lock_number(stream: Stream) -> int:
    """Return the advisory lock that serialises the writers of one stream, as a signed 64-bit number."""
    digest = hash128(b"data-crawler", stream.table.encode(), stream.source.encode())
    return int.from_bytes(digest[:8], "big", signed=True)
