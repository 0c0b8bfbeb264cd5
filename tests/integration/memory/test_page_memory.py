"""The memory of a source's pages: what it keeps and for how long, and that nothing it suffers is felt."""

import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import pytest

from crawler.memory import page_memory
from crawler.memory.page_memory import BATCH_PAGES, DAY_SECONDS, PageMemory, Remembered, Retention
from crawler.memory.page_store import PageStore
from tests.integration.memory.conftest import PATIENCE_SECONDS, MakeMemory, in_a_small_world
from tests.support.clock import FakeClock
from tests.support.crawls import REPOSITORY
from tests.support.delivery import seeded

pytestmark = pytest.mark.integration


def key(number: int) -> bytes:
    return b"page %d" % number


def recalled(memory: PageMemory, number: int) -> Remembered | None:
    return memory.recall(key(number)).result(PATIENCE_SECONDS)


def known(memory: PageMemory, numbers: range) -> list[int]:
    """Return which pages are remembered, asking as a crawl does: only for those that may be."""
    return [number for number in numbers if memory.is_known(key(number)) and recalled(memory, number)]


def end(memory: PageMemory) -> None:
    memory.close().result(PATIENCE_SECONDS)


def rows(path: Path) -> int:
    """Return how many pages are on the card, whoever holds the file."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM pages").fetchone()[0])


def wait_until(is_so: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


class TestRemembering:
    def test_what_is_noted_is_known_at_once_and_by_the_next_run(self, make_memory: MakeMemory) -> None:
        first = make_memory(wall_clock=FakeClock(1000.0))
        first.note(key(1), ["a tag", None])
        first.note(key(2), [])
        assert recalled(first, 1) == Remembered(1000, ["a tag", None])
        end(first)

        second = make_memory(wall_clock=FakeClock(2000.0))
        assert known(second, range(10)) == [1, 2]
        assert recalled(second, 1) == Remembered(1000, ["a tag", None])
        assert recalled(second, 7) is None

    def test_a_page_noted_again_is_as_it_was_last(self, make_memory: MakeMemory) -> None:
        memory = make_memory(wall_clock=FakeClock(1000.0))
        memory.note(key(1), ["old"])
        end(memory)
        memory = make_memory(wall_clock=FakeClock(2000.0))
        assert recalled(memory, 1) == Remembered(1000, ["old"])
        memory.note(key(1), ["new"])
        assert recalled(memory, 1) == Remembered(2000, ["new"])
        memory.note(key(1), ["newer"], read_at=1500)
        end(memory)
        assert recalled(make_memory(wall_clock=FakeClock(3000.0)), 1) == Remembered(1500, ["newer"])

    def test_what_is_noted_is_not_hidden_by_what_was_read_ahead(self, make_memory: MakeMemory) -> None:
        memory = make_memory()
        for number in range(3):
            memory.note(key(number), ["old"])
        end(memory)
        memory = make_memory(linger_seconds=3600.0)
        memory.note(key(1), ["new"])
        for number, facts in ((0, ["old"]), (1, ["new"]), (2, ["old"])):
            remembered = recalled(memory, number)
            assert remembered is not None
            assert remembered.facts == facts

    def test_a_forgotten_page_is_not_known_whether_it_was_written_or_not(
        self, make_memory: MakeMemory
    ) -> None:
        memory = make_memory()
        memory.note(key(1), [])
        end(memory)
        memory = make_memory()
        # Read ahead with the first of them.
        memory.note(key(2), [])
        assert recalled(memory, 1)
        for number in (1, 2, 3):
            memory.forget(key(number))
            assert recalled(memory, number) is None
        end(memory)
        assert known(make_memory(), range(5)) == []

    def test_keys_of_any_length_and_content_are_kept_apart(self, make_memory: MakeMemory) -> None:
        memory = make_memory()
        odd = [b"", b"\x00", b"a" * 10_000, b"a" * 9_999, "naïve".encode()]
        for number, each in enumerate(odd):
            memory.note(each, [number])
        end(memory)
        memory = make_memory()
        found = [memory.recall(each).result(PATIENCE_SECONDS) for each in odd]
        assert [remembered.facts for remembered in found if remembered] == [[0], [1], [2], [3], [4]]

    def test_a_reset_forgets_everything_first(self, make_memory: MakeMemory) -> None:
        memory = make_memory()
        memory.note(key(1), [])
        end(memory)
        memory = make_memory(is_reset=True)
        memory.note(key(2), [])
        end(memory)
        assert known(make_memory(), range(5)) == [2]


class TestBatches:
    def test_pages_are_written_together(self, make_memory: MakeMemory, store_path: Path) -> None:
        memory = make_memory(linger_seconds=3600.0)
        for number in range(BATCH_PAGES - 1):
            memory.note(key(number), [])
        recalled(memory, 0)
        assert rows(store_path) == 0
        memory.note(key(BATCH_PAGES), [])
        wait_until(lambda: rows(store_path) == BATCH_PAGES)

    def test_or_when_they_have_waited_long_enough(self, make_memory: MakeMemory, store_path: Path) -> None:
        memory = make_memory(linger_seconds=0.2)
        memory.note(key(1), [])
        wait_until(lambda: rows(store_path) == 1)

    def test_also_while_other_pages_are_asked_for_all_the_time(
        self, make_memory: MakeMemory, store_path: Path
    ) -> None:
        memory = make_memory(linger_seconds=0.2)
        memory.note(key(1), [])
        deadline = time.monotonic() + PATIENCE_SECONDS
        while rows(store_path) == 0:
            memory.note(key(1), [])
            recalled(memory, 1)
            assert time.monotonic() < deadline


class TestRetention:
    def test_a_page_that_was_read_too_long_ago_is_not_known(self, make_memory: MakeMemory) -> None:
        clock = FakeClock(DAY_SECONDS)
        memory = make_memory(Retention(expiry_seconds=10.0), wall_clock=clock)
        memory.note(key(1), [])
        clock.advance(10.0)
        assert recalled(memory, 1)
        clock.advance(1.0)
        assert recalled(memory, 1) is None

    def test_and_makes_room_a_few_pages_at_a_time(
        self, make_memory: MakeMemory, store_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(page_memory, "_FORGOTTEN_AT_ONCE", 30)
        clock = FakeClock(DAY_SECONDS)
        retention = Retention(expiry_seconds=10.0)
        memory = make_memory(retention, wall_clock=clock)
        for number in range(100):
            memory.note(key(number), [])
        end(memory)
        clock.advance(11.0)
        memory = make_memory(retention, wall_clock=clock)
        assert rows(store_path) == 70
        for number in range(100, 100 + BATCH_PAGES):
            memory.note(key(number), [])
        wait_until(lambda: rows(store_path) == 40 + BATCH_PAGES)
        end(memory)
        assert known(make_memory(retention, wall_clock=clock), range(300)) == list(range(100, 200))

    def test_the_time_of_the_last_full_reading_counts_not_that_of_the_last_writing(
        self, make_memory: MakeMemory
    ) -> None:
        clock = FakeClock(DAY_SECONDS)
        memory = make_memory(Retention(expiry_seconds=10.0), wall_clock=clock)
        clock.advance(8.0)
        memory.note(key(1), ["new tag"], read_at=int(DAY_SECONDS))
        clock.advance(3.0)
        assert recalled(memory, 1) is None

    def test_a_clock_that_was_set_back_makes_no_page_too_old(self, make_memory: MakeMemory) -> None:
        memory = make_memory(wall_clock=FakeClock(1e9))
        memory.note(key(1), [])
        end(memory)
        assert recalled(make_memory(wall_clock=FakeClock(0.0)), 1) == Remembered(10**9, [])

    def test_of_too_many_pages_the_newest_are_kept(self, make_memory: MakeMemory, store_path: Path) -> None:
        retention = Retention(max_pages=250)
        memory = make_memory(retention)
        for number in range(1000):
            memory.note(key(number), [])
        end(memory)
        assert rows(store_path) == 250
        memory = make_memory(retention)
        assert known(memory, range(1000)) == list(range(750, 1000))
        # Written again, a page is new, and counts once.
        memory.note(key(750), [])
        for number in range(1000, 1000 + BATCH_PAGES - 1):
            memory.note(key(number), [])
        end(memory)
        memory = make_memory(retention)
        assert known(memory, range(2000)) == [750, *range(850, 1099)]

    def test_a_bound_that_was_lowered_is_reached_little_by_little(
        self, make_memory: MakeMemory, store_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(page_memory, "_FORGOTTEN_AT_ONCE", 30)
        memory = make_memory()
        for number in range(100):
            memory.note(key(number), [])
        end(memory)
        for left in (70, 50, 50):
            end(make_memory(Retention(max_pages=50)))
            assert rows(store_path) == left


class TestWhatItSuffers:
    def test_a_damaged_file_costs_a_warning_and_what_it_held(
        self, make_memory: MakeMemory, store_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        store_path.parent.mkdir()
        store_path.write_bytes(b"this is no database " * 1000)
        memory = make_memory()
        assert memory.is_in_use
        assert known(memory, range(5)) == []
        memory.note(key(1), [])
        end(memory)
        [warning] = warnings(caplog)
        assert f"The page memory {store_path} was damaged" in warning
        caplog.clear()
        assert known(make_memory(), range(5)) == [1]
        assert not warnings(caplog)

    def test_so_does_damage_that_is_met_later_and_what_was_not_written_yet_is_kept(
        self, make_memory: MakeMemory, store_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        memory = make_memory()
        for number in range(1000):
            memory.note(key(number), ["some facts of the page"])
        end(memory)
        memory = make_memory()
        memory.note(key(1001), [])
        # Under SQLite's feet: the pages of the table, not of the index that was read when it was opened.
        overwrite_values(store_path)
        assert recalled(memory, 500) is None
        memory.note(key(1002), [])
        assert memory.is_in_use
        end(memory)
        assert len(warnings(caplog)) == 1
        assert known(make_memory(), range(2000)) == [1001, 1002]

    def test_facts_that_are_none_are_damage_too(
        self, make_memory: MakeMemory, store_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        memory = make_memory()
        memory.note(key(1), [])
        memory.note(key(2), [])
        end(memory)
        with closing(sqlite3.connect(store_path)) as connection:
            connection.execute("UPDATE pages SET value = ?", (b"\x80\x04K\x01.",))
            connection.commit()
        memory = make_memory()
        assert recalled(memory, 1) is None
        assert recalled(memory, 2) is None
        assert "are not JSON" in warnings(caplog)[0]
        assert len(warnings(caplog)) == 1

    def test_a_second_owner_knows_nothing_and_changes_nothing(
        self, make_memory: MakeMemory, store_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        owner = make_memory()
        owner.note(key(1), [])
        second = make_memory(is_reset=True)
        assert not second.is_in_use
        assert not second.is_known(key(1))
        second.note(key(2), [])
        second.forget(key(1))
        end(second)
        end(owner)
        [warning] = warnings(caplog)
        assert f"The page memory {store_path} is out of use, so this run fetches pages again: " in warning
        assert warning.endswith("another process has it")
        assert known(make_memory(), range(5)) == [1]

    def test_a_file_that_someone_else_has_locked_is_left_alone_and_kept(
        self, make_memory: MakeMemory, store_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        memory = make_memory()
        memory.note(key(1), [])
        end(memory)
        memory = make_memory()
        with closing(sqlite3.connect(store_path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            memory.note(key(2), [])
            end(memory)
            other.execute("ROLLBACK")
        [warning] = warnings(caplog)
        assert warning.endswith("database is locked")
        assert known(make_memory(), range(5)) == [1]

    def test_a_full_card_costs_a_warning_and_what_was_written_is_kept(
        self, make_memory: MakeMemory, store_path: Path
    ) -> None:
        said = in_a_small_world(FILLING_UP, store_path, seconds=20.0)
        assert said is not None, "it hung"
        noted, _, rest = said.partition(" ")
        assert rest == "out of use, 1 warning"
        # What does not fit is given up in batches, and the file is as good as before.
        kept = known(make_memory(), range(int(noted)))
        assert kept == list(range(len(kept)))
        assert 0 < len(kept) < int(noted)

    def test_a_folder_that_cannot_be_made_costs_a_warning(
        self, make_memory: MakeMemory, store_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        store_path.parent.touch()
        memory = make_memory()
        assert not memory.is_in_use
        memory.note(key(1), [])
        assert recalled(memory, 1) is None
        assert len(warnings(caplog)) == 1

    def test_who_asks_after_the_end_gets_an_answer(self, make_memory: MakeMemory) -> None:
        memory = make_memory()
        memory.note(key(1), [])
        end(memory)
        assert not memory.is_known(key(1))
        assert recalled(memory, 1) is None
        end(memory)

    def test_when_it_does_not_keep_up_it_is_out_of_use(
        self, make_memory: MakeMemory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(page_memory, "_MAX_WAITING", 500)
        memory = make_memory()
        gate = hanging(memory, monkeypatch)
        for number in range(2000):
            memory.note(key(number), [])
        assert not memory.is_in_use
        assert memory._jobs.qsize() < 600
        gate.set()
        assert "does not keep up" in warnings(caplog)[0]
        assert len(warnings(caplog)) == 1

    def test_nobody_waits_for_a_hanging_card(
        self, make_memory: MakeMemory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        memory = make_memory()
        memory.note(key(1), [])
        end(memory)
        memory = make_memory()
        gate = hanging(memory, monkeypatch)
        began = time.monotonic()
        answers: list[Future[Remembered | None]] = []
        for _ in range(100):
            memory.note(key(2), [])
            memory.forget(key(1))
            answers.append(memory.recall(key(1)))
        closed = memory.close()
        assert time.monotonic() - began < 1.0
        assert not closed.done()
        # Whoever lost patience has said so; late answers hurt no one.
        memory.give_up("it hangs")
        answers[0].cancel()
        gate.set()
        assert [answer.result(PATIENCE_SECONDS) for answer in answers[1:]] == [None] * 99
        closed.result(PATIENCE_SECONDS)

    def test_who_did_not_wait_for_an_answer_disturbs_nobody(
        self, make_memory: MakeMemory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        memory = make_memory()
        memory.note(key(1), [])
        with monkeypatch.context() as patched:
            gate = hanging(memory, patched)
            memory.recall(key(1)).cancel()
            gate.set()
            memory._ask(lambda: None).result(PATIENCE_SECONDS)
        assert recalled(memory, 1)

    def test_a_hanging_memory_does_not_keep_the_process_from_ending(self, store_path: Path) -> None:
        script = (
            "import sys, time\n"
            "from pathlib import Path\n"
            "from crawler.memory.page_memory import PageMemory, Retention\n"
            "from crawler.memory.page_store import PageStore\n"
            "PageStore.write = lambda self, changes: time.sleep(60)\n"
            "memory = PageMemory(Path(sys.argv[1]), Retention(), linger_seconds=0.0)\n"
            "memory.open().result(20)\n"
            "memory.note(b'1', [])\n"
            "time.sleep(0.2)\n"
            "print('done')\n"
        )
        command = [sys.executable, "-c", script, str(store_path)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=20)
        assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


FILLING_UP = """
import logging, time
from crawler.memory.page_memory import PageMemory, Retention
warnings = []
handler = logging.Handler(logging.WARNING)
handler.emit = warnings.append
logging.getLogger("crawler").addHandler(handler)
memory = PageMemory(path, Retention())
memory.open().result(10)
noted = 0
while memory.is_in_use:
    memory.note(b"page %d" % noted, ["x" * 100])
    noted += 1
    while memory._jobs.qsize() > 100:
        time.sleep(0.001)
memory.close().result(10)
print(noted, "out of use,", len(warnings), "warning")
"""


def hanging(memory: PageMemory, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let every call of the memory's store hang until the event is set."""
    gate = threading.Event()

    def hang(*_arguments: object, **_options: object) -> dict[bytes, bytes]:
        gate.wait(PATIENCE_SECONDS)
        return {}

    for name in ("get", "write"):
        monkeypatch.setattr(PageStore, name, hang)
    # It is in a call from now on.
    memory._ask(hang)
    return gate


def overwrite_values(path: Path) -> None:
    """Put noise in the place of every page of the table, as a failing card would."""
    with closing(sqlite3.connect(path)) as connection:
        pages = connection.execute(
            "SELECT pageno FROM dbstat WHERE name = 'pages' AND pagetype = 'leaf'"
        ).fetchall()
    with path.open("r+b") as file:
        for (number,) in pages:
            file.seek((number - 1) * 4096)
            file.write(os.urandom(4096))


KILLS = 5
WRITER = """
import os, sys, time
from pathlib import Path
from crawler.memory.page_memory import PageMemory, Retention
memory = PageMemory(Path(sys.argv[1]), Retention(), linger_seconds=0.05)
memory.open().result(20)
witness = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
number = int(sys.argv[3])
while True:
    os.write(witness, b"%d\\n" % number)
    memory.note(b"page %d" % number, [number, "x" * 100])
    number += 1
    while memory._jobs.qsize() > 100:
        time.sleep(0.001)
"""


def test_a_kill_at_any_moment_costs_the_last_pages_and_nothing_else(
    make_memory: MakeMemory, store_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chance = seeded("page memory kills")
    witness = tmp_path / "witness"
    noted, kept, lost = 0, list[int](), 0
    for _ in range(KILLS):
        command = [sys.executable, "-c", WRITER, str(store_path), str(witness), str(noted)]
        with subprocess.Popen(command, cwd=REPOSITORY) as writer:
            wait_until(lambda: noted_in(witness) > noted)  # noqa: B023
            time.sleep(chance.uniform(0.0, 0.3))
            writer.kill()
        first, noted = noted, noted_in(witness)
        memory = make_memory()
        found = [number for number in range(noted + 2000) if memory.is_known(key(number))]
        end(memory)
        assert found[: len(kept)] == kept, "what was on the card before is gone"
        new = found[len(kept) :]
        assert new == list(range(first, first + len(new))), "not the first of what this life noted"
        assert len(new) <= noted - first, "a page is remembered that was never noted"
        kept, lost = found, lost + noted - first - len(new)
    assert kept
    assert not warnings(caplog)
    print(f"{KILLS} kills, {noted} pages noted, {lost} of them lost with the process")


def noted_in(witness: Path) -> int:
    return witness.read_bytes().count(b"\n") if witness.exists() else 0
