"""One row per version: an observation is stored only if it differs from the version before it in time.

What holds for any order of arrival, and for any number of writers: no two neighbouring rows of a key have
the same content, every content that was ever seen has a row, and no observation has two. A batch sent again
makes no row; sent again after a late batch has changed the history around it, it may add the row that is now
missing from it.
If observations arrive in the order of their times, as they do from one host, the rows are exactly the
run-length encoding of the history.
"""

import random
import threading
from collections.abc import Sequence
from itertools import pairwise

import pytest

from crawler.delivery.postgres import Outcome, PostgresSink
from tests.conftest import MakeSink
from tests.support.delivery import (
    COLUMNS,
    SHOP,
    Seen,
    after_batch,
    at,
    observation,
    rows,
    run_length_encoded,
    seeded,
    stored,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def sink(make_sink: MakeSink, schema_url: str) -> PostgresSink:
    return make_sink(schema_url)


def write(sink: PostgresSink, *seen: tuple[str, float], keep_every: bool = False) -> Outcome:
    """Send one batch of observations of one thing."""
    lines = [observation("k", content, minute, keep_every=keep_every) for content, minute in seen]
    return sink.write(SHOP, COLUMNS, lines)


def history(url: str) -> list[tuple[str, float]]:
    return [(content, minute) for _, content, minute in stored(url)]


@pytest.mark.parametrize("batches", [[[0], [1], [2]], [[0, 1, 2]], [[2, 0, 1]], [[0], [1, 2]]])
def test_there_and_back_makes_three_rows(
    sink: PostgresSink, schema_url: str, batches: list[list[int]]
) -> None:
    seen = [("A", 0.0), ("B", 1.0), ("A", 2.0)]
    for batch in batches:
        assert write(sink, *[seen[number] for number in batch]) == Outcome(len(batch), 0)
    assert history(schema_url) == seen


def test_a_re_crawl_makes_no_row(sink: PostgresSink, schema_url: str) -> None:
    assert write(sink, ("A", 0)) == Outcome(1, 0)
    assert write(sink, ("A", 1)) == Outcome(0, 1)
    assert write(sink, ("A", 2), ("A", 3)) == Outcome(0, 2)
    assert history(schema_url) == [("A", 0)]


def test_a_batch_delivered_again_makes_no_row(sink: PostgresSink, schema_url: str) -> None:
    batch = [("A", 0.0), ("B", 1.0), ("A", 2.0), ("A", 3.0)]
    assert write(sink, *batch) == Outcome(3, 1)
    assert write(sink, *batch) == Outcome(0, 4)
    assert history(schema_url) == [("A", 0), ("B", 1), ("A", 2)]


def test_a_late_older_version_lands_in_its_place(sink: PostgresSink, schema_url: str) -> None:
    write(sink, ("A", 0), ("B", 10))
    assert write(sink, ("C", 5)) == Outcome(1, 0)
    assert history(schema_url) == [("A", 0), ("C", 5), ("B", 10)]


@pytest.mark.parametrize("content", ["A", "B"])
def test_a_late_one_equal_to_a_neighbour_makes_no_row(
    sink: PostgresSink, schema_url: str, content: str
) -> None:
    write(sink, ("A", 0), ("B", 10))
    assert write(sink, (content, 5)) == Outcome(0, 1)
    assert history(schema_url) == [("A", 0), ("B", 10)]


def test_one_before_all_others_is_compared_with_the_one_after_it(sink: PostgresSink, schema_url: str) -> None:
    write(sink, ("A", 10))
    assert write(sink, ("A", 5)) == Outcome(0, 1)
    assert write(sink, ("B", 4)) == Outcome(1, 0)
    assert history(schema_url) == [("B", 4), ("A", 10)]


def test_the_same_observation_twice_in_a_batch_is_one_row(sink: PostgresSink, schema_url: str) -> None:
    assert write(sink, ("A", 0), ("A", 0)) == Outcome(1, 1)
    assert history(schema_url) == [("A", 0)]


def test_two_contents_of_one_moment_are_two_rows(sink: PostgresSink, schema_url: str) -> None:
    assert write(sink, ("A", 0), ("B", 0)) == Outcome(2, 0)
    assert write(sink, ("B", 0), ("A", 0)) == Outcome(0, 2)
    assert sorted(history(schema_url)) == [("A", 0), ("B", 0)]


def test_things_and_sources_do_not_touch_each_other(sink: PostgresSink, schema_url: str) -> None:
    news = SHOP._replace(source="news")
    assert sink.write(SHOP, COLUMNS, [observation("a", 1, 0), observation("b", 1, 0)]) == Outcome(2, 0)
    assert sink.write(news, COLUMNS, [observation("a", 1, 1, source="news")]) == Outcome(1, 0)
    assert stored(schema_url) == [("a", 1, 0), ("b", 1, 0)]
    assert stored(schema_url, "news") == [("a", 1, 1)]


def test_keep_every_stores_each_observation_once(sink: PostgresSink, schema_url: str) -> None:
    assert write(sink, ("A", 0), ("A", 1), ("A", 2), keep_every=True) == Outcome(3, 0)
    assert write(sink, ("A", 2), ("A", 3), keep_every=True) == Outcome(1, 1)
    assert history(schema_url) == [("A", 0), ("A", 1), ("A", 2), ("A", 3)]


@pytest.mark.parametrize("size", [3_000, 100_000])
def test_a_key_longer_than_an_index_row_is_stored(sink: PostgresSink, schema_url: str, size: int) -> None:
    """A raw URL can exceed a btree row: keys are indexed by a 16-byte hash."""
    chance = seeded("long key")
    key = "https://shop.example/" + "".join(chance.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=size))
    line = observation(key, "A", 0)
    assert sink.write(SHOP, COLUMNS, [line]) == Outcome(1, 0)
    assert sink.write(SHOP, COLUMNS, [line]) == Outcome(0, 1)
    assert [found for found, _, _ in stored(schema_url)] == [key]


def test_what_a_row_says(sink: PostgresSink, schema_url: str) -> None:
    sink.write(SHOP, COLUMNS, [observation("tab\\t", "\\ \t\n\r한 \\N", 0)])
    (row,) = rows(
        schema_url,
        "SELECT source, item_key, url, data, scraped_at, run_id, host, processed, stored_at IS NOT NULL"
        " FROM scraped_data",
    )
    data = {"key": "tab\\t", "value": "\\ \t\n\r한 \\N"}
    assert row == ("shop", "tab\\t", "https://shop.example/tab\\t", data, at(0), "run-1", "pi", False, True)


def test_the_cost_of_a_batch_does_not_grow_with_the_table(sink: PostgresSink, schema_url: str) -> None:
    """Every look at the stored rows goes through an index, also just after the table has grown."""
    sink.write(SHOP, COLUMNS, [observation(f"k{n}", 1, 0) for n in range(500)])
    before = scans(schema_url)
    sink.write(SHOP, COLUMNS, [observation(f"k{n}", 2, 1) for n in range(500)])
    sink.close()
    after = scans(schema_url)
    assert after["seq_scan"] == before["seq_scan"]


def scans(url: str) -> dict[str, int]:
    query = "SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname = 'scraped_data'"
    (row,) = rows(url, f"SELECT pg_stat_force_next_flush(); {query}")
    return dict(zip(("seq_scan", "idx_scan"), row, strict=True))


KEYS = "abcd"
CONTENTS = "ABC"


def random_batches(chance: random.Random, *, ties: bool) -> list[list[Seen]]:
    """Some batches of observations of few things with few contents, at few moments, some of them twice."""
    seen = [
        Seen(chance.choice(KEYS), float(minute // 2 if ties else minute), chance.choice(CONTENTS))
        for minute in range(chance.randint(4, 40))
    ]
    seen += chance.sample(seen, len(seen) // 4)
    batches: list[list[Seen]] = [[] for _ in range(chance.randint(1, 6))]
    for each in seen:
        chance.choice(batches).append(each)
    return [batch for batch in batches if batch]


def deliver(sink: PostgresSink, batch: Sequence[Seen]) -> Outcome:
    return sink.write(SHOP, COLUMNS, [each.line for each in batch])


def found(url: str) -> list[Seen]:
    return [Seen(key, minute, content) for key, content, minute in stored(url)]


def test_in_order_of_time_the_rows_are_the_run_length_encoding(sink: PostgresSink, schema_url: str) -> None:
    chance = seeded("in order")
    for _ in range(25):
        rows(schema_url, "TRUNCATE scraped_data")
        seen = sorted(each for batch in random_batches(chance, ties=False) for each in batch)
        seen.sort(key=lambda each: each.minute)
        while seen:
            size = chance.randint(1, 12)
            batch, seen = seen[:size], seen[size:]
            chance.shuffle(batch)
            deliver(sink, batch)
            if chance.random() < 0.3:
                deliver(sink, batch)
        everything = found(schema_url)
        assert everything == run_length_encoded(everything)


def test_in_order_of_time_nothing_else_is_stored(sink: PostgresSink, schema_url: str) -> None:
    chance = seeded("in order, against the history")
    for _ in range(25):
        rows(schema_url, "TRUNCATE scraped_data")
        seen = [each for batch in random_batches(chance, ties=False) for each in batch]
        for each_minute in sorted({each.minute for each in seen}):
            deliver(sink, [each for each in seen if each.minute == each_minute])
        assert found(schema_url) == run_length_encoded(seen)


@pytest.mark.parametrize("ties", [False, True], ids=["different moments", "equal moments"])
def test_in_any_order_the_rows_are_what_the_oracle_says(
    sink: PostgresSink, schema_url: str, ties: bool
) -> None:
    chance = seeded("any order")
    for _ in range(20):
        rows(schema_url, "TRUNCATE scraped_data")
        expected: list[Seen] = []
        batches = random_batches(chance, ties=ties)
        for batch in [*batches, *chance.sample(batches, len(batches))]:
            before = len(expected)
            expected = after_batch(expected, batch)
            assert deliver(sink, batch).stored == len(expected) - before
            assert deliver(sink, batch).stored == 0
        assert found(schema_url) == sorted(expected, key=lambda each: each.place)
        hold(found(schema_url), [each for batch in batches for each in batch])


def hold(kept: list[Seen], seen: list[Seen]) -> None:
    """What is promised for any order of arrival."""
    for one, other in pairwise(kept):
        assert one.key != other.key or one.content != other.content, "two equal neighbours"
    assert {(each.key, each.content) for each in kept} == {(each.key, each.content) for each in seen}
    assert set(kept) <= set(seen)


def test_two_hosts_at_once_keep_what_is_promised(make_sink: MakeSink, schema_url: str) -> None:
    """Each writes its own shuffled batches of overlapping observations of one source."""
    chance = seeded("two hosts")
    sinks = [make_sink(schema_url) for _ in range(3)]
    for _ in range(15):
        rows(schema_url, "TRUNCATE scraped_data")
        batches = random_batches(chance, ties=True)
        shares = [chance.sample(batches, len(batches)) for _ in sinks]
        write_at_once(sinks, shares)
        hold(found(schema_url), [each for batch in batches for each in batch])


def test_two_hosts_that_see_the_same_at_once_make_one_history(make_sink: MakeSink, schema_url: str) -> None:
    """Both deliver everything in order: whoever is first, the rows are the run-length encoding."""
    chance = seeded("two hosts in order")
    sinks = [make_sink(schema_url) for _ in range(2)]
    for _ in range(15):
        rows(schema_url, "TRUNCATE scraped_data")
        seen = [Seen(chance.choice(KEYS), float(minute), chance.choice(CONTENTS)) for minute in range(40)]
        shares = []
        for _ in sinks:
            cuts = sorted(chance.sample(range(41), 5))
            shares.append([seen[a:b] for a, b in zip([0, *cuts], [*cuts, 40], strict=True) if seen[a:b]])
        write_at_once(sinks, shares)
        assert found(schema_url) == run_length_encoded(seen)


def write_at_once(sinks: Sequence[PostgresSink], shares: Sequence[Sequence[Sequence[Seen]]]) -> None:
    start = threading.Barrier(len(sinks))
    errors: list[Exception] = []

    def work(sink: PostgresSink, batches: Sequence[Sequence[Seen]]) -> None:
        try:
            start.wait(10)
            for batch in batches:
                deliver(sink, batch)
        except Exception as error:  # noqa: BLE001  it is raised again below
            errors.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(sinks, shares, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors


def test_a_plain_insert_would_make_rows_of_repeats(schema_url: str, make_sink: MakeSink) -> None:
    """The control: without the compare the same harness finds the duplicates."""
    seen = [Seen("a", 0.0, "A"), Seen("a", 1.0, "A")]
    sink = make_sink(schema_url)
    for _ in range(2):
        for each in seen:
            sink.run(
                "INSERT INTO scraped_data (source, item_key, data, key_hash, content_hash, scraped_at,"
                " run_id, host) SELECT 'shop', 'a', '{\"value\": \"A\"}', md5('a')::uuid,"
                " gen_random_uuid(), %s, '', ''",
                (at(each.minute),),
            )
    with pytest.raises(AssertionError, match="two equal neighbours"):
        hold(found(schema_url), seen)
