"""The bounded queue in RAM: batches of 500 items, 512 KB or 1 s, each of one stream."""

import threading

import pytest

from crawler.delivery.batch import Entry, Limits, Queue
from crawler.records import DeadLetter, Record, Stream
from tests.support.clock import FakeClock

SHOP = Stream("scraped_data", "shop")
NEWS = Stream("scraped_data", "news")
LIMITS = Limits(
    batch_max_items=3, batch_max_bytes=100, linger_seconds=1.0, queue_max_items=6, queue_max_bytes=200
)


def entry(name: str, *, stream: Stream = SHOP, size: int = 10) -> Record:
    return Record(stream, name, b"x" * size)


def letter(name: str, *, size: int = 10) -> DeadLetter:
    return DeadLetter(SHOP, name, "refused", "", b"x" * size, replayable=False)


def queue_of(*entries: Entry, limits: Limits = LIMITS) -> tuple[Queue, FakeClock]:
    clock = FakeClock()
    queue = Queue(limits, clock)
    for each in entries:
        assert queue.offer(each)
    return queue, clock


def keys(batch: list[Entry]) -> str:
    return "".join(each.key for each in batch)


def test_an_empty_queue_gives_no_batch() -> None:
    queue, _ = queue_of()
    assert queue.take(0.0) == []


def test_a_batch_is_cut_when_it_has_its_number_of_items() -> None:
    queue, _ = queue_of(*map(entry, "ab"))
    assert queue.take(0.0) == []
    queue.offer(entry("c"))
    queue.offer(entry("d"))
    assert keys(queue.take(0.0)) == "abc"
    assert queue.take(0.0) == []


def test_a_batch_is_cut_when_it_has_its_bytes() -> None:
    queue, _ = queue_of(entry("a", size=60), entry("b", size=60))
    assert keys(queue.take(0.0)) == "a"


def test_a_batch_is_cut_when_its_first_item_has_lingered() -> None:
    queue, clock = queue_of(entry("a"))
    clock.advance(0.6)
    queue.offer(entry("b"))
    clock.advance(0.39)
    assert queue.take(0.0) == []
    clock.advance(0.01)
    assert keys(queue.take(0.0)) == "ab"


def test_a_batch_has_one_stream() -> None:
    queue, clock = queue_of(entry("a"), entry("b", stream=NEWS), entry("c"))
    clock.advance(1.0)
    assert [keys(queue.take(0.0)) for _ in range(4)] == ["a", "b", "c", ""]


def test_a_batch_has_one_kind_of_entry() -> None:
    queue, clock = queue_of(entry("a"), letter("b"), letter("c"), entry("d"))
    clock.advance(1.0)
    assert [keys(queue.take(0.0)) for _ in range(4)] == ["a", "bc", "d", ""]


def test_an_item_of_another_stream_does_not_linger_again_for_the_one_before_it() -> None:
    """Refused items among good ones must not cost a second each."""
    queue, clock = queue_of(entry("a"), letter("b"), entry("c"))
    clock.advance(0.5)
    queue.offer(entry("d"))
    clock.advance(0.5)
    assert [keys(queue.take(0.0)) for _ in range(3)] == ["a", "b", "cd"]


def test_what_is_left_of_a_full_batch_lingers_from_its_own_arrival() -> None:
    queue, clock = queue_of(entry("a"), entry("b"))
    clock.advance(0.9)
    queue.offer(entry("c"))
    queue.offer(entry("d"))
    assert keys(queue.take(0.0)) == "abc"
    clock.advance(0.9)
    assert queue.take(0.0) == []
    clock.advance(0.1)
    assert keys(queue.take(0.0)) == "d"


def test_a_full_queue_refuses_and_does_not_change() -> None:
    queue, _ = queue_of(*map(entry, "abcdef"))
    assert not queue.offer(entry("g"))
    assert queue.held == 6
    assert keys(queue.take(0.0) + queue.take(0.0)) == "abcdef"


def test_a_queue_full_of_bytes_refuses() -> None:
    queue, _ = queue_of(entry("a", size=90), entry("b", size=90))
    assert not queue.offer(entry("c", size=21))
    assert queue.offer(entry("d", size=20))


def test_what_was_taken_is_held_until_it_is_released() -> None:
    """Bounded memory: a batch on its way to a slow server still counts."""
    queue, _ = queue_of(*map(entry, "abcdef"))
    batch = queue.take(0.0)
    assert queue.held == 6
    assert not queue.offer(entry("g"))
    queue.release(batch)
    assert queue.held == 3
    assert queue.offer(entry("g"))


def test_an_entry_larger_than_the_whole_queue_is_taken_when_it_is_alone() -> None:
    queue, _ = queue_of(entry("a"))
    huge = entry("h", size=1000)
    assert not queue.offer(huge)
    queue.hasten()
    queue.release(queue.take(0.0))
    assert queue.offer(huge)
    assert not queue.offer(entry("b"))
    assert queue.take(0.0) == [huge]


def test_an_entry_larger_than_a_batch_is_a_batch_of_its_own() -> None:
    queue, _ = queue_of(entry("a"), entry("h", size=120), entry("b"))
    assert [keys(queue.take(0.0)) for _ in range(2)] == ["a", "h"]


def test_haste_cuts_what_is_there_once() -> None:
    queue, _ = queue_of(entry("a"))
    queue.hasten()
    assert keys(queue.take(0.0)) == "a"
    queue.offer(entry("b"))
    assert queue.take(0.0) == []
    assert not queue.closed


def test_closing_cuts_everything_from_then_on() -> None:
    queue, _ = queue_of(entry("a"))
    queue.hasten(closing=True)
    assert queue.closed
    assert keys(queue.take(0.0)) == "a"
    queue.offer(entry("b"))
    assert keys(queue.take(0.0)) == "b"
    assert queue.take(1000.0) == []


def test_is_empty_only_when_everything_was_released() -> None:
    queue, _ = queue_of(entry("a"))
    queue.hasten()
    batch = queue.take(0.0)
    assert not queue.wait_until_empty(0.0)
    queue.release(batch)
    assert queue.wait_until_empty(0.0)


@pytest.mark.parametrize("linger_seconds", [0.0, 0.001])
def test_two_threads_lose_nothing_and_keep_the_order(linger_seconds: float) -> None:
    limits = Limits(batch_max_items=7, batch_max_bytes=200, linger_seconds=linger_seconds, queue_max_items=20)
    queue = Queue(limits)
    taken: list[Entry] = []

    def consume() -> None:
        while len(taken) < 2000:
            batch = queue.take(1.0)
            taken.extend(batch)
            queue.release(batch)

    consumer = threading.Thread(target=consume)
    consumer.start()
    expected = [entry(str(n), stream=NEWS if n % 9 == 0 else SHOP) for n in range(2000)]
    for each in expected:
        while not queue.offer(each):
            pass
    consumer.join(30)
    assert taken == expected
    assert queue.held == 0
