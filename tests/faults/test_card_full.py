"""Another program fills the card to the last block. What was reserved is there all the same."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from crawler.delivery.spool import Settlement, Spool
from crawler.exceptions import CardFull
from tests.faults.conftest import Form
from tests.support.card import Card, ext4_card, folder_in_ram
from tests.support.delivery import COLUMNS, MIB, SHOP, observations, small_spool
from tests.support.fault_report import Control, FaultReport, Trial
from tests.support.spool_model import contents_of
from tests.support.spool_oracle import Judgement, Oracle

pytestmark = pytest.mark.integration

PROJECT = Path(__file__).parents[2]
FAULT = "card filled by another program"
WAL = {"journal_mode": "wal"}
ITEMS = 40
# More than fit.
ALL = 100_000
KILLED = """
import os, signal, sys
from pathlib import Path
from crawler.delivery.spool import Settlement, Spool
from crawler.exceptions import CardFull

def change(connection):
    # Without a cache what is changed is written at once.
    connection.execute("PRAGMA cache_size=1")
    connection.execute("UPDATE batch SET payload = zeroblob(length(payload)) WHERE id < 20")
    os.kill(os.getpid(), signal.SIGKILL)

Spool(Path(sys.argv[1]), max_bytes=int(sys.argv[2]))._file.change(change)
"""


class CrawlingHost:
    """Processes that use one spool, one after the other, and what it has to hold."""

    def __init__(self, folder: Path, cap_bytes: int, pragmas: Mapping[str, object] | None = None) -> None:
        self.oracle = Oracle()
        self.statuses: list[int] = []
        self._path = folder / "state" / "spool.sqlite"
        self._said = folder.parent / "said"
        self._options = ("--max-bytes", cap_bytes, "--items", ITEMS, "--pragmas", json.dumps(pragmas or {}))
        self._cap_bytes = cap_bytes

    def append(self, batches: int = ALL) -> int:
        """Append so many batches, or until the spool takes no more; return how many it took."""
        before = self.oracle.acknowledged["append"]
        self._work("--does", "append", "--operations", batches)
        return self.oracle.acknowledged["append"] - before

    def drain(self, settlements: int = ALL) -> None:
        """Settle a few batches so many times, or until none waits."""
        self._work("--does", "settle", "--operations", min(settlements, self.oracle.acknowledged["append"]))

    def judge(self) -> tuple[list[str], Judgement, int]:
        """Look: return what is the matter with the file and its contents, and how many batches wait."""
        with closing(Spool(self._path, max_bytes=self._cap_bytes)) as spool:
            return spool.verify(), self.oracle.judge(contents_of(spool)), spool.status().batches

    def be_killed_in_a_transaction(self) -> None:
        """Let a process change rows, write them, and die before it can commit."""
        killed = subprocess.run([sys.executable, "-c", KILLED, self._path, str(self._cap_bytes)], cwd=PROJECT)
        assert killed.returncode == -signal.SIGKILL
        assert any(self._path.with_name("spool.sqlite-journal").read_bytes()[:8]), (
            "nothing is to be rolled back"
        )

    def _work(self, *options: object) -> None:
        first = len(self.statuses) * 1_000_000
        arguments = (self._path.parent, "--witness", self._said, "--first", first, *self._options, *options)
        self._said.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.spool_worker", *map(str, arguments)], cwd=PROJECT
        )
        self.statuses.append(done.returncode)
        self.oracle.hear(self._said.read_bytes().splitlines(keepends=True))
        self.oracle.end()


Scenario = Callable[[Card, CrawlingHost, int], None]


def before_it_is_made(card: Card, host: CrawlingHost, capacity: int) -> None:
    """Without its room a spool is not made; with it, it is."""
    card.fill()
    assert host.append() == 0
    assert all(failure.startswith("CardFull") for failure in host.oracle.failed)
    card.free()
    assert host.append() == capacity


def while_it_is_empty(card: Card, host: CrawlingHost, capacity: int) -> None:
    host.append(0)
    card.fill()
    assert host.append() == capacity


def while_it_is_half_full(card: Card, host: CrawlingHost, capacity: int) -> None:
    already = host.append(capacity // 2)
    card.fill()
    assert already + host.append() == capacity


def while_it_is_drained(card: Card, host: CrawlingHost, capacity: int) -> None:
    assert host.append() == capacity
    host.drain(capacity // 10)
    card.fill()


def after_a_kill_in_a_transaction(card: Card, host: CrawlingHost, capacity: int) -> None:
    """Rolling it back must not cost the journal its reserved room."""
    already = host.append(capacity // 2)
    host.be_killed_in_a_transaction()
    card.fill()
    assert already + host.append() == capacity


@pytest.fixture(scope="module")
def cap_bytes(form: Form) -> int:
    """How large the spool may get."""
    return form.pick(short=1, full=16) * MIB


@pytest.fixture(scope="module")
def capacity(cap_bytes: int) -> int:
    """How many batches a spool takes on a card with room to spare."""
    with folder_in_ram() as folder:
        return CrawlingHost(folder / "card", cap_bytes).append()


@pytest.fixture
def card(cap_bytes: int) -> Iterator[Card]:
    """A card with room for the spool, and not much more."""
    with ext4_card(2 * cap_bytes + 8 * MIB) as card:
        yield card


@pytest.mark.long
@pytest.mark.parametrize(
    "scenario",
    [
        before_it_is_made,
        while_it_is_empty,
        while_it_is_half_full,
        while_it_is_drained,
        after_a_kill_in_a_transaction,
    ],
    ids=lambda scenario: scenario.__name__,
)
def test_a_spool_goes_on_up_to_its_own_cap(
    card: Card, cap_bytes: int, capacity: int, form: Form, fault_report: FaultReport, scenario: Scenario
) -> None:
    """It takes as many batches as on an empty card, gives all of them back, and takes as many again."""
    host = CrawlingHost(card.folder, cap_bytes)
    scenario(card, host, capacity)
    card.fill()
    host.drain()
    assert host.judge() == ([], Judgement(), 0)
    assert host.append() == capacity
    problems, judgement, waiting = host.judge()
    assert (problems, judgement, waiting) == ([], Judgement(), capacity)
    assert set(host.statuses) == {0}
    assert host.oracle.failed
    assert all(failure.startswith("CardFull") for failure in host.oracle.failed)
    fault_report.trials.append(
        Trial(
            FAULT,
            form.name,
            None,
            {"full cards": 1},
            items=host.oracle.acknowledged_items,
            lost=judgement.lost,
            twice=judgement.back,
            wrong=judgement.wrong,
            figures=f"{scenario.__name__.replace('_', ' ')}: {len(host.statuses)} processes, none died",
        )
    )


def test_a_wal_dies_or_refuses(card: Card, cap_bytes: int, capacity: int, fault_report: FaultReport) -> None:
    """The control: what is usually advised."""
    host = CrawlingHost(card.folder, cap_bytes, WAL)
    already = host.append(capacity // 2)
    card.fill()
    more = host.append()
    assert already + more < capacity
    end = (
        f"died with status {host.statuses[-1]}"
        if any(host.statuses)
        else f"refused: {host.oracle.failed[-1]}"
    )
    outcome = f"with room for {capacity - already} more batches it took {more} and {end}"
    fault_report.controls.append(Control(FAULT, "journal WAL", outcome.replace(f"{card.folder}/", "")))


def test_a_larger_cap_that_does_not_fit_is_said_and_lived_with(
    card: Card, caplog: pytest.LogCaptureFixture
) -> None:
    """What waits must get out, whatever somebody has set."""
    with closing(small_spool(card.folder, max_bytes=MIB)) as spool:
        spool.append(SHOP, COLUMNS, observations(50))
    card.fill()
    with closing(small_spool(card.folder, max_bytes=4 * MIB)) as spool:
        assert "has not all the room it may need" in caplog.text
        (batch,) = spool.batches()
        assert batch.lines == observations(50)
        spool.settle([Settlement(batch, stored=50)])
        assert spool.append(SHOP, COLUMNS, observations(50))
        assert spool.verify() == []


def test_a_damaged_file_keeps_its_place_until_there_is_room_to_mend_it(card: Card) -> None:
    """A new one without its rows would be worse than none. Who has it open goes on with the new one."""
    with closing(small_spool(card.folder, max_bytes=MIB)) as spool:
        for number in range(20):
            spool.append(SHOP, COLUMNS, observations(200, first=number))
        os.truncate(spool.path, MIB * 98 // 100)
        damaged = spool.path.read_bytes()
        card.fill()
        for _ in range(2):
            with pytest.raises(CardFull, match="free space on its file system"):
                spool.verify()
            with pytest.raises(CardFull, match="free space on its file system"):
                small_spool(card.folder, max_bytes=MIB)
        assert spool.path.read_bytes() == damaged
        card.free()
        assert sum(batch.lines is not None for batch in spool.batches()) >= 10
        assert spool.append(SHOP, COLUMNS, observations(1))
    (aside,) = (path for path in card.folder.glob("*.damaged-*") if not path.name.endswith("-journal"))
    assert aside.read_bytes() == damaged
