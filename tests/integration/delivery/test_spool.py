"""The spool: what it takes is on the card and stays there until PostgreSQL has it, whatever happens."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from crawler import sqlite
from crawler.delivery.courier import Drainer
from crawler.delivery.postgres import Outcome
from crawler.delivery.spool import Batch, DrainLock, Settlement, Spool
from crawler.durable import DurableDatabase, Layout
from crawler.exceptions import CardError, CardFull, SinkUnavailable
from crawler.records import DeadLetter, Stream
from tests.conftest import MakeSpool
from tests.support.clock import FakeClock
from tests.support.delivery import (
    COLUMNS,
    MIB,
    SHOP,
    ScriptedSink,
    observation,
    observations,
    seeded,
    small_spool,
)
from tests.support.spool_worker import lines_of

pytestmark = pytest.mark.integration

PROJECT = Path(__file__).parents[3]
NEWS = SHOP._replace(source="news")
ITEMS = 40
Damage = Callable[[Path, int], None]


def letter(key: str = "k", *, replayable: bool = True, stream: Stream = SHOP) -> DeadLetter:
    payload = observation(key, "bad", 0) if replayable else b"<what was left of it>"
    return DeadLetter(stream, key, "22P02", "no JSON", payload, replayable)


def contents(spool: Spool) -> list[list[bytes]]:
    return [batch.lines or [] for batch in spool.batches()]


def raw(path: Path) -> sqlite3.Connection:
    """A connection that knows nothing of our rules."""
    return sqlite3.connect(path, isolation_level=None)


# -- the file ----------------------------------------------------------------------------------


def test_every_pragma_is_read_back(tmp_path: Path, spool: Spool) -> None:
    with closing(sqlite.open_database(spool.path, busy_seconds=1)) as connection:
        found = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in sqlite.DURABLE_PRAGMAS}
    assert found == {
        "page_size": 4096,
        "auto_vacuum": 0,
        "journal_mode": "persist",
        "synchronous": 2,
        "secure_delete": 0,
        "cache_size": -512,
        "temp_store": 2,
    }


def test_a_pragma_that_does_not_take_is_refused(tmp_path: Path) -> None:
    with closing(raw(tmp_path / "other.sqlite")) as connection:
        connection.execute("PRAGMA page_size=1024")
        connection.execute("CREATE TABLE t (n)")
    with pytest.raises(CardError, match="page_size"):
        DurableDatabase(tmp_path / "other.sqlite", Layout(1, "", ()), max_bytes=MIB)


def journal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-journal")


@pytest.mark.parametrize("pages", [64, 65, 71, 72, 73, 100, 257, 512])
def test_the_file_is_as_large_as_it_may_get_from_the_start(make_spool: MakeSpool, pages: int) -> None:
    spool = make_spool(max_bytes=pages * sqlite.PAGE_BYTES)
    journal = journal_of(spool.path).stat().st_size
    assert spool.path.stat().st_size == pages * sqlite.PAGE_BYTES
    assert journal > 128 * sqlite.PAGE_BYTES
    assert fill(spool) > 0
    assert spool.path.stat().st_size == pages * sqlite.PAGE_BYTES
    assert journal_of(spool.path).stat().st_size == journal


@pytest.mark.parametrize("is_left_by", ["a smaller cap", "a kill while it was made"])
def test_a_file_full_of_free_pages_grows_in_a_few_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_left_by: str
) -> None:
    """SQLite takes free pages first: page by page, each with its commit, that took as good as for ever."""
    cap = 4 * MIB
    if is_left_by == "a smaller cap":
        small_spool(tmp_path, max_bytes=cap - 5 * sqlite.PAGE_BYTES).close()
    else:
        with closing(sqlite.open_database(tmp_path / "spool.sqlite", busy_seconds=1)) as connection:
            connection.execute("CREATE TABLE ballast (data BLOB)")
            connection.execute("INSERT INTO ballast VALUES (zeroblob(?))", (cap * 9 // 10,))
    statements: list[str] = []
    open_database = sqlite.open_database

    def watched(path: Path, *, busy_seconds: float) -> sqlite3.Connection:
        connection = open_database(path, busy_seconds=busy_seconds)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr(sqlite, "open_database", watched)
    with closing(small_spool(tmp_path, max_bytes=cap)) as spool:
        assert spool.path.stat().st_size == cap
    steps = [statement for statement in statements if statement.startswith("INSERT INTO ballast")]
    assert 1 <= len(steps) <= 12


def test_a_rollback_after_a_crash_leaves_the_journal_its_room(make_spool: MakeSpool, tmp_path: Path) -> None:
    """Without it a full card could not even be drained."""
    spool = make_spool()
    spool.append(SHOP, COLUMNS, observations(10))
    left = tmp_path / "left"

    def crash(connection: sqlite.Connection) -> None:
        # Without a cache what is changed is written at once.
        connection.execute("PRAGMA cache_size=1")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE batch SET payload = zeroblob(100000)")
        left.mkdir()
        for path in (spool.path, journal_of(spool.path)):
            shutil.copy(path, left)
        connection.execute("ROLLBACK")

    spool._file.read(crash)
    reserved = journal_of(spool.path).stat().st_size
    journal = journal_of(left / spool.path.name)
    assert journal.read_bytes()[:8] != bytes(8), "nothing is to be rolled back"
    inode = journal.stat().st_ino
    with closing(small_spool(left)) as after:
        assert contents(after) == [observations(10)]
    assert (journal.stat().st_ino, journal.stat().st_size) == (inode, reserved), "its room was given away"


def test_a_journal_that_somebody_removed_is_reserved_again(make_spool: MakeSpool) -> None:
    with closing(make_spool()) as spool:
        spool.append(SHOP, COLUMNS, observations(3))
    reserved = journal_of(spool.path).stat().st_size
    journal_of(spool.path).unlink()
    assert contents(make_spool()) == [observations(3)]
    assert journal_of(spool.path).stat().st_size == reserved


def test_opening_it_again_reserves_nothing_again(make_spool: MakeSpool) -> None:
    first = make_spool()
    first.append(SHOP, COLUMNS, observations(3))
    before = first.path.stat()
    again = make_spool()
    assert again.path.stat().st_size == before.st_size
    assert contents(again) == [observations(3)]


def test_a_reservation_that_was_killed_near_its_end_is_not_made_again_page_by_page(tmp_path: Path) -> None:
    """Each page would be a transaction of its own, synced, and there may be thousands."""
    path = tmp_path / "spool.sqlite"
    with closing(sqlite.open_database(path, busy_seconds=1.0)) as connection:
        connection.execute("CREATE TABLE ballast (data BLOB)")
        connection.execute("INSERT INTO ballast VALUES (zeroblob(?))", (2 * MIB - 12 * sqlite.PAGE_BYTES,))
    before = transactions(path)
    with closing(small_spool(tmp_path)) as spool:
        assert spool.path.stat().st_size == 2 * MIB
    assert transactions(path) - before < 50


def transactions(path: Path) -> int:
    """Return how many changes a file has seen: SQLite's file format, "file change counter"."""
    return int.from_bytes(path.read_bytes()[24:28], "big")


def test_a_larger_cap_makes_room_and_a_smaller_one_loses_nothing(make_spool: MakeSpool) -> None:
    with closing(make_spool()) as spool:
        number = fill(spool)
    larger = make_spool(max_bytes=4 * MIB)
    assert larger.append(SHOP, COLUMNS, observations(10))
    smaller = make_spool(max_bytes=MIB)
    assert smaller.status().batches == number + 1
    with pytest.raises(CardFull):
        smaller.append(SHOP, COLUMNS, observations(10))


def fill(spool: Spool) -> int:
    """Append until it is full; return how many batches it took."""
    chance = seeded("fill")
    number = 0
    while True:
        noise = chance.randbytes(60_000).hex()
        try:
            spool.append(SHOP, COLUMNS, [observation(f"k{number}", noise, number)])
        except CardFull:
            return number
        number += 1


def test_a_full_spool_refuses_and_still_drains(make_spool: MakeSpool) -> None:
    spool = make_spool()
    number = fill(spool)
    assert number > 10
    assert spool.fill() > 0.9
    with pytest.raises(CardFull, match="is full"):
        spool.append(SHOP, COLUMNS, [observation("k", seeded("big").randbytes(3 * MIB).hex(), 0)])
    sink = ScriptedSink()
    drain_all(spool, sink)
    assert [write.lines[0].split(b"\t")[1] for write in sink.writes] == [b"k%d" % n for n in range(number)]
    assert spool.fill() < 0.1
    assert fill(spool) == number
    assert spool.verify() == []


def drain_all(spool: Spool, sink: ScriptedSink) -> None:
    drainer = Drainer(spool, DrainLock(spool.path))
    while drainer.step(sink):
        pass
    drainer.close()


def test_a_closed_spool_says_so(spool: Spool) -> None:
    spool.close()
    spool.close()
    with pytest.raises(CardError, match="is closed"):
        spool.append(SHOP, COLUMNS, observations(1))


# -- batches and books -------------------------------------------------------------------------


def test_a_batch_comes_back_as_it_went_in(make_spool: MakeSpool) -> None:
    clock = FakeClock(1234.5)
    spool = make_spool(wall_clock=clock)
    number = spool.append(SHOP, COLUMNS, observations(500))
    (batch,) = spool.batches()
    assert (batch.id, batch.stream, batch.columns, batch.items) == (number, SHOP, COLUMNS, 500)
    assert batch.spooled_at == 1234.5
    assert batch.lines == observations(500)
    clock.advance(10)
    status = spool.status()
    assert (status.batches, status.items, status.dead, status.oldest_age_seconds) == (1, 500, 0, 10)


def test_it_knows_which_streams_wait(spool: Spool) -> None:
    spool.append(SHOP, COLUMNS, observations(1))
    assert spool.has_waiting(SHOP)
    assert not spool.has_waiting(NEWS)
    assert not spool.has_waiting(Stream("crawler_jobs", "shop"))


def test_a_look_at_what_has_not_changed_reads_nothing(
    make_spool: MakeSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three looks a batch would each write an inode, when root runs the crawl. No change is overlooked."""
    spool, other = make_spool(), make_spool()

    def look() -> tuple[bool, bool, float]:
        return spool.has_waiting(SHOP), spool.oldest() is not None, spool.fill()

    assert look() == (False, False, before := spool.fill())
    time.sleep(0.2)
    look()
    with monkeypatch.context() as broken:
        broken.setattr(spool._file, "read", explode)
        assert look() == (False, False, before)
    for number in range(20):
        other.append(SHOP, COLUMNS, observations(50))
        assert look()[:2] == (True, True)
        other.settle([Settlement(batch) for batch in other.batches()])
        assert look()[:2] == (False, False), number


def test_a_change_in_the_same_tick_of_the_clock_is_not_overlooked(
    make_spool: MakeSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older kernels give two writes of one tick the same time."""
    monkeypatch.setattr("crawler.durable._CLOCK_TICK_SECONDS", 60.0)
    spool, other = make_spool(), make_spool()
    for has_waiting in (True, False, True):
        if has_waiting:
            other.append(SHOP, COLUMNS, observations(1))
        else:
            other.settle([Settlement(batch) for batch in other.batches()])
        os.utime(spool.path, ns=(0, 0))
        assert spool.has_waiting(SHOP) == has_waiting


def test_settling_is_all_or_nothing(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    for first in (0, 10):
        spool.append(SHOP, COLUMNS, observations(10, first=first))
    one, other = spool.batches()
    before = spool.accounts()
    settlements = [Settlement(one, stored=10), Settlement(other, stored=9, dead=[letter()])]
    with monkeypatch.context() as broken:
        broken.setattr(spool, "_insert_dead", explode)
        with pytest.raises(RuntimeError, match="in the middle"):
            spool.settle(settlements)
    assert list(spool.batches()) == [one, other]
    assert spool.accounts() == before
    spool.settle(settlements)
    assert list(spool.batches()) == []
    (account,) = spool.accounts()
    assert (account.stored, account.refused, account.waiting, account.dead) == (19, 1, 0, 1)
    assert account.adds_up


def explode(*_: object, **__: object) -> None:
    raise RuntimeError("in the middle")


def test_an_append_that_fails_leaves_nothing(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(spool, "_insert_batch", explode)
        with pytest.raises(RuntimeError):
            spool.append(SHOP, COLUMNS, observations(1))
    assert spool.accounts() == []
    spool.append(SHOP, COLUMNS, observations(1))


def test_the_books_follow_every_movement(spool: Spool) -> None:
    spool.append(SHOP, COLUMNS, observations(10))
    spool.append(NEWS, COLUMNS, observations(5))
    spool.bury(COLUMNS, [letter("a"), letter("b", replayable=False)])
    first = next(spool.batches())
    spool.settle([Settlement(first, stored=6, unchanged=3, dead=[letter("c")])])
    assert spool.replay() == 2
    assert spool.forget() == 1
    books = {account.stream.source: account for account in spool.accounts()}
    shop = books["shop"]
    assert (shop.spooled, shop.stored, shop.unchanged, shop.refused) == (10, 6, 3, 1)
    assert (shop.buried, shop.replayed, shop.forgotten, shop.waiting, shop.dead) == (2, 2, 1, 2, 0)
    assert shop.adds_up
    assert books["news"].waiting == 5
    assert spool.verify() == []


def test_books_that_do_not_add_up_are_found(spool: Spool) -> None:
    spool.append(SHOP, COLUMNS, observations(10))
    with closing(raw(spool.path)) as connection:
        connection.execute("UPDATE account SET spooled = 11")
    (finding,) = spool.verify()
    assert finding.startswith("account of shop in scraped_data does not add up")


def test_dead_letters_are_kept_whole_and_replayed_by_number(spool: Spool) -> None:
    spool.bury(COLUMNS, [letter("a"), letter("b"), letter("c", replayable=False)])
    kept = {key: (number, found) for number, _, _, found in spool.dead_letters() for key in [found.key]}
    assert kept["a"][1] == letter("a")
    assert kept["c"][1] == letter("c", replayable=False)
    assert spool.replay([kept["b"][0], kept["c"][0], 999]) == 1
    assert contents(spool) == [[letter("b").payload]]
    assert spool.forget([kept["c"][0]]) == 1
    assert [found.key for _, _, _, found in spool.dead_letters()] == ["a"]


def test_a_replayed_letter_is_delivered_like_any_batch(spool: Spool) -> None:
    spool.bury(COLUMNS, [letter("a")])
    spool.replay()
    sink = ScriptedSink()
    drain_all(spool, sink)
    assert [write.lines for write in sink.writes] == [[letter("a").payload]]
    assert spool.verify() == []


# -- several processes -------------------------------------------------------------------------


def writer(folder: Path, name: str, batches: int) -> subprocess.Popen[bytes]:
    arguments = ("--name", name, "--operations", batches, "--items", ITEMS, "--max-bytes", 4 * MIB)
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.spool_worker", folder, *map(str, arguments)],
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
    )


def test_several_processes_append_while_one_drains(tmp_path: Path) -> None:
    """Nothing is lost or comes twice, and each source keeps its order. They also make the file at once."""
    names, batches = ("one", "two", "three"), 25
    processes = [writer(tmp_path, name, batches) for name in names]
    sink = ScriptedSink()
    with closing(small_spool(tmp_path, max_bytes=4 * MIB)) as spool:
        while any(process.poll() is None for process in processes):
            drain_all(spool, sink)
        drain_all(spool, sink)
        assert spool.verify() == []
        assert {account.stored for account in spool.accounts()} == {batches * ITEMS}
    assert [process.wait() for process in processes] == [0, 0, 0]
    for name in names:
        sent = [write.lines for write in sink.writes if write.stream.source == name]
        assert sent == [lines_of(name, first, ITEMS) for first in range(0, batches * ITEMS, ITEMS)]


def test_the_file_to_be_locked_is_there_before_anybody_drains(spool: Spool) -> None:
    """Making it writes to the card, and that may not happen while PostgreSQL is up."""
    lock = DrainLock(spool.path)
    before = sorted(path.name for path in spool.path.parent.iterdir())
    assert lock.acquire()
    assert sorted(path.name for path in spool.path.parent.iterdir()) == before
    lock.release()


def test_one_drains_at_a_time_also_within_a_process(spool: Spool) -> None:
    one, other = DrainLock(spool.path), DrainLock(spool.path)
    assert one.acquire()
    assert one.acquire()
    assert not other.acquire()
    one.release()
    one.release()
    assert other.acquire()
    other.release()


HOLDER = """
import sys, time
from pathlib import Path
from crawler.delivery.spool import DrainLock
print(DrainLock(Path(sys.argv[1])).acquire(), flush=True)
time.sleep(60)
"""


def test_the_right_to_drain_dies_with_its_holder(spool: Spool) -> None:
    lock = DrainLock(spool.path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(spool.path)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert not lock.acquire()
        assert not Drainer(spool, lock).step(ScriptedSink())
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert lock.acquire()
    lock.release()


# -- damage ------------------------------------------------------------------------------------


@pytest.fixture
def damaged_soon(make_spool: MakeSpool) -> Spool:
    """A spool with 60 batches of random content, about to be damaged."""
    chance = seeded("batches")
    spool = make_spool(max_bytes=4 * MIB)
    for number in range(60):
        noise = chance.randbytes(8000).hex()
        spool.append(SHOP, COLUMNS, [observation(f"k{number}", noise, number)])
    return spool


def set_aside(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("spool.sqlite.damaged-*") if "journal" not in path.name)


def scribble(path: Path, seed: int) -> None:
    chance = seeded("scribble", seed)
    with path.open("r+b") as file:
        for _ in range(4):
            file.seek(chance.randrange(8, 150) * 4096)
            file.write(chance.randbytes(4096))


def truncate(path: Path, _seed: int) -> None:
    os.truncate(path, 300_000)


def cut_the_end(path: Path, _seed: int) -> None:
    os.truncate(path, path.stat().st_size * 98 // 100)


def garbage_header(path: Path, seed: int) -> None:
    with path.open("r+b") as file:
        file.write(seeded("header", seed).randbytes(200))


def zeros(path: Path, _seed: int) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize(
    ("damage", "seed"),
    [
        *((scribble, seed) for seed in range(1, 7)),
        (truncate, 0),
        (cut_the_end, 0),
        (garbage_header, 1),
        (zeros, 0),
    ],
)
def test_a_damaged_file_is_never_deleted_and_what_can_be_read_goes_on(
    damaged_soon: Spool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path, int], None],
    seed: int,
) -> None:
    path = damaged_soon.path
    before = {batch.id: batch for batch in damaged_soon.batches()}
    damaged_soon.close()
    damage(path, seed)
    bytes_before = path.read_bytes()
    sink = ScriptedSink()
    with closing(small_spool(tmp_path, max_bytes=4 * MIB)) as spool:
        intact = [batch for batch in spool.batches() if batch.lines is not None]
        assert all(before[batch.id] == batch for batch in intact)
        aside = set_aside(tmp_path)
        if aside:
            assert aside[0].stat().st_size == len(bytes_before)
            assert "was set aside as" in caplog.text
            assert str(aside[0]) in caplog.text
        if damage in (scribble, cut_the_end):
            assert len(intact) >= 20
        spool.append(SHOP, COLUMNS, observations(1))
        drain_all(spool, sink)
        assert spool.status().batches == 0
        assert [finding for finding in spool.verify() if not finding.startswith("account")] == []
    assert len(sink.writes) == len(intact) + 1


def test_a_second_process_follows_to_the_new_file(damaged_soon: Spool, tmp_path: Path) -> None:
    """It has the old one open, and would go on writing to what nobody reads any more."""
    truncate(damaged_soon.path, 0)
    with closing(small_spool(tmp_path, max_bytes=4 * MIB)) as repairer:
        assert set_aside(tmp_path)
        damaged_soon.append(NEWS, COLUMNS, observations(2))
        assert repairer.has_waiting(NEWS)
        assert damaged_soon.status()[:-1] == repairer.status()[:-1]


def test_damage_found_in_use_is_mended_in_use(damaged_soon: Spool, tmp_path: Path) -> None:
    cut_the_end(damaged_soon.path, 0)
    sizes = [len(batch.lines or ()) for batch in damaged_soon.batches()]
    assert len(sizes) >= 20
    assert damaged_soon.append(NEWS, COLUMNS, observations(2))
    assert set_aside(tmp_path)


def test_two_processes_that_find_the_damage_set_one_file_aside(tmp_path: Path) -> None:
    for _ in range(3):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        with closing(small_spool(tmp_path, max_bytes=4 * MIB)) as spool:
            spool.append(SHOP, COLUMNS, observations(100))
        garbage_header(tmp_path / "spool.sqlite", 1)
        processes = [writer(tmp_path, name, 3) for name in ("one", "two")]
        assert [process.wait(30) for process in processes] == [0, 0]
        assert len(set_aside(tmp_path)) == 1
        with closing(small_spool(tmp_path, max_bytes=4 * MIB)) as spool:
            assert spool.status().batches == 6
            assert spool.verify() == []


def test_a_number_given_again_after_damage_does_not_cost_the_new_batch(spool: Spool, tmp_path: Path) -> None:
    """A drainer has sent batch 1 and not yet forgotten it when the file is set aside."""
    spool.append(SHOP, COLUMNS, observations(1))
    drainer = Drainer(spool, DrainLock(spool.path))
    sink = ScriptedSink()
    drainer.step(sink)
    garbage_header(spool.path, 1)
    assert spool.append(SHOP, COLUMNS, observations(1, first=1)) == 1
    for _ in range(4):
        drainer.step(sink)
    drainer.close()
    assert [write.lines for write in sink.writes] == [observations(1), observations(1, first=1)]


@pytest.mark.parametrize(
    "change",
    [
        "payload = zeroblob(100)",
        "payload = substr(payload, 1, 50)",
        "checksum = checksum + 1",
        "columns = 'source,' || columns",
        "table_name = 'nowhere'",
        "source = CAST(x'ff80' AS TEXT)",
        "items = items + 1",
        "items = 'many'",
        "payload = 'a text'",
        "spooled_at = 'once', payload = 7",
    ],
)
def test_a_batch_that_does_not_match_its_checksum_becomes_a_dead_letter(spool: Spool, change: str) -> None:
    """The queue is not stuck behind it, and its bytes are kept as they are."""
    for first in (0, 10, 20):
        spool.append(SHOP, COLUMNS, observations(10, first=first))
    with closing(raw(spool.path)) as connection:
        connection.execute(f"UPDATE batch SET {change} WHERE id = 2")
        ((payload,),) = connection.execute("SELECT payload FROM batch WHERE id = 2").fetchall()
    assert any("checksum" in finding for finding in spool.verify())
    sink = ScriptedSink()
    drain_all(spool, sink)
    assert [write.lines for write in sink.writes] == [observations(10), observations(10, first=20)]
    ((_, _, _, found),) = spool.dead_letters()
    assert (found.code, found.replayable) == ("checksum", False)
    assert spool.status().batches == 0
    as_bytes = payload if isinstance(payload, bytes) else str(payload).encode()
    try:
        assert found.payload == zlib.decompress(as_bytes)
    except zlib.error:
        assert found.payload == as_bytes


def test_the_file_of_a_newer_version_is_refused_and_left_alone(spool: Spool, tmp_path: Path) -> None:
    spool.append(SHOP, COLUMNS, observations(1))
    spool.close()
    with closing(raw(spool.path)) as connection:
        connection.execute("PRAGMA user_version=2")
    before = spool.path.read_bytes()
    with pytest.raises(CardError, match=r"has version 2, this program knows 1; install the newer"):
        small_spool(tmp_path)
    assert spool.path.read_bytes() == before
    assert set_aside(tmp_path) == []


# -- a card that fails -------------------------------------------------------------------------


def test_a_folder_that_cannot_be_made_is_an_error_of_the_card(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CardError, match="check the card"):
        small_spool(tmp_path / "file")


def test_a_lock_held_too_long_is_an_error_not_damage(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crawler.durable._BUSY_SECONDS", 0.1)
    with closing(small_spool(tmp_path)) as waiting, closing(raw(spool.path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(CardError, match="locked"):
            waiting.append(SHOP, COLUMNS, observations(1))
        other.execute("ROLLBACK")
        assert waiting.append(SHOP, COLUMNS, observations(1))
    assert set_aside(tmp_path) == []


LOOK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0)
try:
    connection.execute("BEGIN IMMEDIATE")
    print("free")
except sqlite3.OperationalError as error:
    print(error)
connection.close()
"""


def test_opening_it_again_in_the_same_process_does_not_drop_a_lock(make_spool: MakeSpool) -> None:
    """A process that closes any descriptor of a file loses all its POSIX locks on it: fcntl(2)."""
    spool = make_spool()
    said = []

    def look(connection: sqlite.Connection) -> None:
        connection.execute("UPDATE account SET spooled = spooled")
        again = threading.Thread(target=lambda: sqlite.open_database(spool.path, busy_seconds=1).close())
        again.start()
        again.join(10)
        done = subprocess.run([sys.executable, "-c", LOOK, spool.path], capture_output=True, text=True)
        said.append(done.stdout.strip())

    spool._file.change(look)
    assert said == ["database is locked"]


def test_threads_of_one_process_may_share_it(spool: Spool) -> None:
    def work(name: str) -> None:
        for number in range(20):
            spool.append(Stream("scraped_data", name), COLUMNS, observations(1, first=number))
            spool.status()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert Counter(batch.stream.source for batch in spool.batches()) == {"a": 20, "b": 20, "c": 20}


# -- the drainer -------------------------------------------------------------------------------


def test_it_sends_the_oldest_first_and_forgets_ten_at_a_time(spool: Spool) -> None:
    """A delete of its own for each batch would write ten times the bytes."""
    for number in range(25):
        spool.append(SHOP, COLUMNS, observations(2, first=number))
    drainer = Drainer(spool, DrainLock(spool.path))
    sink = ScriptedSink()
    left = []
    while drainer.step(sink):
        left.append(spool.status().batches)
    assert left == [25] * 9 + [15] * 10 + [5] * 6
    assert spool.status().batches == 0
    assert [write.lines for write in sink.writes] == [observations(2, first=n) for n in range(25)]
    drainer.close()


def test_nothing_is_forgotten_that_was_not_committed(spool: Spool) -> None:
    for number in range(3):
        spool.append(SHOP, COLUMNS, observations(2, first=number))
    answers: Iterator[Outcome | Exception] = iter([Outcome(2, 0), SinkUnavailable("away")])
    drainer = Drainer(spool, DrainLock(spool.path))
    sink = ScriptedSink(lambda _: next(answers))
    assert drainer.step(sink)
    with pytest.raises(SinkUnavailable):
        drainer.step(sink)
    drainer.close()
    assert contents(spool) == [observations(2, first=1), observations(2, first=2)]
    (account,) = spool.accounts()
    assert (account.stored, account.waiting) == (2, 4)


def test_a_crash_before_it_forgets_sends_again_and_loses_nothing(spool: Spool) -> None:
    spool.append(SHOP, COLUMNS, observations(2))
    drainer = Drainer(spool, lock := DrainLock(spool.path))
    sink = ScriptedSink()
    drainer.step(sink)
    lock.release()
    drain_all(spool, sink)
    assert [write.lines for write in sink.writes] == [observations(2)] * 2


def test_a_batch_is_what_it_says(spool: Spool) -> None:
    spool.append(SHOP, COLUMNS, observations(2))
    (batch,) = spool.batches()
    assert isinstance(batch, Batch)
    assert zlib.decompress(batch.compressed) == b"".join(observations(2))
