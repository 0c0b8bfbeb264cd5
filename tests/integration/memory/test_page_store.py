"""The file of remembered pages: what sqlitedict does with an end to every call, and with one owner."""

import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from crawler.exceptions import StoreDamaged, StoreFailed, StoreTaken
from crawler.memory.page_store import PageStore
from tests.integration.memory.conftest import in_a_small_world
from tests.support.crawls import REPOSITORY

pytestmark = pytest.mark.integration


@pytest.fixture
def store(store_path: Path) -> Iterator[PageStore]:
    with closing(PageStore(store_path)) as opened:
        opened.open()
        yield opened


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def fill(store: PageStore, pages: int) -> None:
    store.write({key(number): b"value %d" % number for number in range(pages)})


def reopened(path: Path) -> PageStore:
    store = PageStore(path)
    store.open()
    return store


def test_gives_back_what_was_written_also_to_the_next_process(store: PageStore, store_path: Path) -> None:
    fill(store, 3)
    store.write({key(1): b"new", key(2): None})
    assert [store.get(key(number)) for number in range(4)] == [
        {key(0): b"value 0"},
        {key(1): b"new"},
        {},
        {},
    ]
    store.close()
    with closing(reopened(store_path)) as again:
        assert again.get(key(1)) == {key(1): b"new"}


def test_reads_ahead_in_the_order_of_writing(store: PageStore) -> None:
    store.write({key(number): b"%d" % number for number in (5, 3, 9, 1)})
    store.write({key(5): b"again"})
    assert list(store.get(key(3), ahead=2).items()) == [(key(3), b"3"), (key(9), b"9"), (key(1), b"1")]
    assert store.get(key(1), ahead=9) == {key(1): b"1", key(5): b"again"}


def test_yields_the_start_of_every_key_in_ascending_order(store: PageStore) -> None:
    written = [os.urandom(16) for _ in range(1000)]
    store.write(dict.fromkeys(written, b""))
    for at_once in (1, 7, 1000, 5000):
        starts = b"".join(store.key_starts(at_once))
        assert starts == b"".join(each[:8] for each in sorted(written))


def test_an_empty_one_has_no_keys(store: PageStore) -> None:
    assert b"".join(store.key_starts()) == b""
    assert store.oldest(5) == []


def test_forgets_the_oldest(store: PageStore) -> None:
    fill(store, 10)
    store.write({key(0): b"written again"})
    oldest = store.oldest(3)
    assert [value for _place, value in oldest] == [b"value 1", b"value 2", b"value 3"]
    store.forget_through(oldest[-1][0])
    assert [number for number in range(10) if store.get(key(number))] == [0, 4, 5, 6, 7, 8, 9]


def test_a_reset_forgets_everything(store: PageStore, store_path: Path) -> None:
    fill(store, 3)
    store.close()
    with closing(PageStore(store_path)) as again:
        again.open(is_reset=True)
        assert not again.get(key(0))


def test_values_are_bytes_and_never_pickles(store: PageStore, store_path: Path) -> None:
    store.write({key(0): b"plain"})
    store.close()
    with closing(sqlite3.connect(store_path)) as connection:
        assert connection.execute("SELECT key, value FROM pages").fetchall() == [(key(0), b"plain")]


class TestOwner:
    def test_a_second_one_is_refused_and_touches_nothing(self, store: PageStore, store_path: Path) -> None:
        fill(store, 3)
        before = [(path.name, path.stat()) for path in sorted(store_path.parent.iterdir())]
        with closing(PageStore(store_path)) as other, pytest.raises(StoreTaken):
            other.open(is_reset=True)
        assert [(path.name, path.stat()) for path in sorted(store_path.parent.iterdir())] == before
        fill(store, 4)

    def test_so_is_another_process_until_the_owner_ends_in_any_way(self, store_path: Path) -> None:
        script = (
            "import sys, time\n"
            "from pathlib import Path\n"
            "from crawler.memory.page_store import PageStore\n"
            "store = PageStore(Path(sys.argv[1]))\n"
            "store.open()\n"
            "print('open', flush=True)\n"
            "time.sleep(60)\n"
        )
        command = [sys.executable, "-c", script, str(store_path)]
        with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as owner:
            try:
                assert owner.stdout is not None
                assert owner.stdout.readline() == b"open\n"
                with closing(PageStore(store_path)) as other, pytest.raises(StoreTaken):
                    other.open()
            finally:
                owner.kill()
        with closing(reopened(store_path)) as heir:
            fill(heir, 1)


class TestDamage:
    def damaged(self, path: Path, damage: str) -> None:
        content = bytearray(path.read_bytes())
        if damage == "no database":
            content[:] = b"this is no database " * 1000
        elif damage == "cut short":
            del content[len(content) // 2 :]
        elif damage == "pages overwritten":
            content[4096:] = os.urandom(len(content) - 4096)
        elif damage == "another schema":
            path.unlink()
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("CREATE TABLE pages (id INTEGER)")
            return
        path.write_bytes(content)

    def use(self, store: PageStore) -> None:
        store.open()
        for _starts in store.key_starts(100):
            pass
        store.oldest(1000)
        store.write({key(n): b"new" for n in range(0, 2000, 7)})

    @pytest.mark.parametrize("damage", ["no database", "cut short", "pages overwritten", "another schema"])
    def test_is_told_apart_and_a_new_file_takes_its_place(
        self, damage: str, store: PageStore, store_path: Path
    ) -> None:
        fill(store, 2000)
        store.close()
        self.damaged(store_path, damage)
        with closing(PageStore(store_path, call_seconds=5.0)) as again:
            began = time.monotonic()
            with pytest.raises(StoreDamaged):
                self.use(again)
            assert time.monotonic() - began < 5.0, "it hung until its time was up"
            again.replace()
            assert not again.get(key(1))
            fill(again, 3)
        with closing(reopened(store_path)) as later:
            assert later.get(key(2)) == {key(2): b"value 2"}

    def test_an_empty_file_is_a_memory_of_nothing(self, store_path: Path) -> None:
        store_path.parent.mkdir()
        store_path.touch()
        with closing(reopened(store_path)) as store:
            fill(store, 1)

    def test_what_is_no_file_is_a_failure_not_a_damage(self, store_path: Path) -> None:
        store_path.mkdir(parents=True)
        with closing(PageStore(store_path)) as store, pytest.raises(StoreFailed) as caught:
            store.open()
        assert not isinstance(caught.value, StoreDamaged)
        assert store_path.is_dir()


class TestHangs:
    def test_a_call_ends_when_its_time_is_up(self, store_path: Path) -> None:
        with closing(PageStore(store_path, call_seconds=0.5)) as store:
            store.open()
            # Some seconds of work for sqlitedict's thread, which nothing can interrupt.
            store._connection.execute(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000000)"
                " SELECT count(*) FROM n"
            )
            began = time.monotonic()
            with pytest.raises(StoreFailed, match=r"no answer within 0\.5 seconds"):
                store.get(key(0))
            assert time.monotonic() - began < 2.5
            with pytest.raises(StoreFailed, match="it hangs"):
                store.replace()

    def test_as_sqlitedict_comes_a_failing_commit_never_returns(self, tmp_path: Path) -> None:
        """The negative control of the next test: what the limits are for."""
        outcome = in_a_small_world(PLAIN_SQLITEDICT, tmp_path / "plain.sqlite", seconds=4.0)
        assert outcome is None, outcome

    def test_a_failing_commit_is_a_failure_and_costs_nothing_that_was_written(self, store_path: Path) -> None:
        said = in_a_small_world(FILLING_UP, store_path, seconds=20.0)
        assert said is not None, "it hung"
        safe, _, failure = said.partition(" ")
        assert failure.startswith("StoreFailed"), said
        assert "no answer" not in failure, "it only waited until its time was up"
        with closing(reopened(store_path)) as store:
            kept = sum(len(starts) // 8 for starts in store.key_starts())
            assert kept >= int(safe) > 0
            fill(store, 1)


FILLING_UP = """
from crawler.exceptions import StoreFailed
from crawler.memory.page_store import PageStore
store = PageStore(path)
store.open()
safe = 0
try:
    while True:
        store.write({n.to_bytes(16, "big"): b"x" * 100 for n in range(safe, safe + 100)})
        safe += 100
except StoreFailed as error:
    print(safe, type(error).__name__, error)
store.close()
"""
PLAIN_SQLITEDICT = """
from sqlitedict import SqliteDict
pages = SqliteDict(str(path))
for number in range(100_000):
    pages[str(number)] = b"x" * 100
    if number % 100 == 0:
        pages.commit()
print("it ended")
"""


def test_failures_are_raised_once_and_not_logged_line_by_line(
    store_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    store_path.parent.mkdir()
    store_path.write_bytes(b"this is no database " * 1000)
    store = PageStore(store_path)
    with caplog.at_level(logging.DEBUG), closing(store), pytest.raises(StoreDamaged):
        store.open()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert "Traceback" not in "".join(capfd.readouterr())


def test_no_thread_outlives_its_store(store: PageStore) -> None:
    fill(store, 10)
    store.close()
    assert not [thread for thread in threading.enumerate() if "Sqlite" in type(thread).__name__]
