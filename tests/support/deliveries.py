"""A courier at work between a test and a real server: what a fault breaks, and how it is counted."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import orjson

from crawler.delivery.batch import Limits
from crawler.delivery.courier import Courier
from crawler.delivery.postgres import Outcome, Sink
from crawler.delivery.spool import DrainLock, Spool
from crawler.exceptions import SinkError
from crawler.records import DeadLetter, Stream, line_fields
from tests.support.delivery import SHOP, record, rows
from tests.support.fault_report import Trial

# A batch is what one call of `secure` hands over: it lingers only until that has arrived,
LIMITS = Limits(batch_max_items=500, batch_max_bytes=64 * 1024**2, linger_seconds=0.05)
# or, where a batch cut in two would change what is counted, until it has arrived on a busy machine too.
TOGETHER = replace(LIMITS, linger_seconds=5.0)


class Call(NamedTuple):
    """One call of a sink: how long it took, and the error it ended with."""

    seconds: float
    error: SinkError | None


class WatchedSink:
    """A sink that remembers its calls."""

    def __init__(self, sink: Sink) -> None:
        """Given the sink that does the work."""
        self.calls: list[Call] = []
        self._sink = sink

    def write(self, stream: Stream, columns: str, lines: Sequence[bytes]) -> Outcome:
        """Have it done, and remember how it went."""
        began = time.monotonic()
        error: SinkError | None = None
        try:
            return self._sink.write(stream, columns, lines)
        except SinkError as caught:
            error = caught
            raise
        finally:
            self.calls.append(Call(time.monotonic() - began, error))

    def hurry(self, call_seconds: float, at: float) -> None:
        """Pass it on."""
        self._sink.hurry(call_seconds, at)

    def close(self) -> None:
        """Pass it on."""
        self._sink.close()

    @property
    def failures(self) -> list[SinkError]:
        """The errors of the calls that failed."""
        return [call.error for call in self.calls if call.error is not None]

    @property
    def longest_call_seconds(self) -> float:
        """How long the longest call took; 0 if there was none."""
        return max((call.seconds for call in self.calls), default=0.0)


class Reckoning(NamedTuple):
    """Of the things handed over: how many have no row, how many rows are surplus, how many are wrong."""

    items: int
    lost: int
    twice: int
    wrong: int


class Delivery:
    """A courier over one sink and one spool, and everything it was given. Each line is of another thing."""

    def __init__(self, sink: Sink, spool: Spool, *, stream: Stream = SHOP, **given: Any) -> None:
        """Given where to deliver and the spool, start a courier that comes back to a server soon."""
        options: dict[str, Any] = {"limits": LIMITS, "chance": lambda: 0.99} | given
        self.sink = WatchedSink(sink)
        self.spool = spool
        self.stream = stream
        self.lines: list[bytes] = []
        self.courier = Courier(self.sink, spool, drain_lock=DrainLock(spool.path), **options)
        self.courier.start()

    def hand_over(self, lines: Iterable[bytes]) -> None:
        """Give the courier lines, waiting where it has no room."""
        for line in lines:
            while not self.courier.offer(record(line, self.stream)):
                assert not self.courier.is_broken
                time.sleep(0.01)
            self.lines.append(line)

    def secure(self, lines: Iterable[bytes], *, seconds: float = 20.0) -> None:
        """Give the courier lines and wait until none is in RAM only."""
        self.hand_over(lines)
        assert self.courier.flush(seconds), f"{self.courier.held} items are in RAM after {seconds} s"

    def drain(self, *, seconds: float = 20.0) -> float:
        """Wait until the spool is empty; return how long that took."""
        began = time.monotonic()
        assert eventually(lambda: self.waiting == 0, seconds), (
            f"{self.waiting} items wait in the spool after {seconds} s: {self.courier.last_error}"
        )
        return time.monotonic() - began

    @property
    def waiting(self) -> int:
        """How many items wait in the spool."""
        return self.spool.status().items

    @property
    def dead(self) -> list[DeadLetter]:
        """The dead letters, oldest first."""
        return [letter for _, _, _, letter in self.spool.dead_letters()]

    def reckon(self, url: str, *, but: Collection[bytes] = ()) -> Reckoning:
        """Given the database, return how what was handed over, but some lines, is stored in it."""
        expected = dict(_key_and_data(line) for line in self.lines if line not in but)
        query = "SELECT item_key, data FROM scraped_data WHERE source = %s"
        found = rows(url, query, (self.stream.source,))
        counted = Counter(key for key, _ in found)
        return Reckoning(
            items=len(expected),
            lost=len(expected.keys() - counted.keys()),
            twice=counted.total() - len(counted),
            wrong=sum(key not in expected or expected[key] != data for key, data in found),
        )

    def trial(
        self,
        reckoning: Reckoning,
        *,
        fault: str,
        form: str,
        thrown: Mapping[str, int],
        seed: int | None = None,
        figures: str = "",
    ) -> Trial:
        """Return what the report says of it."""
        return Trial(
            fault=fault,
            form=form,
            seed=seed,
            faults=thrown,
            longest_call_seconds=self.sink.longest_call_seconds,
            figures=figures,
            **reckoning._asdict(),
        )

    def close(self) -> None:
        """End the courier."""
        self.courier.close(grace_seconds=0.2)


def _key_and_data(line: bytes) -> tuple[str, Any]:
    fields = line_fields(line)
    return str(fields[1]), orjson.loads(str(fields[3]))


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Wait until the condition holds; return False if it does not within the seconds."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()
