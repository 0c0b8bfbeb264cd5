"""Who writes to the spool and who drains it are killed at any moment, over and over, on one file."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

import pytest

from crawler.delivery.spool import Spool
from tests.faults.conftest import Form
from tests.support.deliveries import eventually
from tests.support.delivery import MIB, chosen_seed, seeded
from tests.support.fault_report import Control, FaultReport, Trial
from tests.support.spool_model import contents_of
from tests.support.spool_oracle import Judgement, Oracle
from tests.support.spool_worker import Operation, perform

pytestmark = pytest.mark.integration

PROJECT = Path(__file__).parents[2]
FAULT = "kill -9, spool alone"
CAP_BYTES = 8 * MIB
LONGEST_LIFE_SECONDS = 0.3
# What waits from one round to the next: enough to come back from the dead, little enough to compare.
MOST_WAITING = 20


class Worker:
    """A process that uses the spool, and says what it does in a file of its own."""

    def __init__(self, folder: Path, name: str, *options: object) -> None:
        self._said = folder / name
        arguments = (folder, "--witness", self._said, "--max-bytes", CAP_BYTES, *options)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.spool_worker", *map(str, arguments)], cwd=PROJECT
        )

    def has_opened(self) -> bool:
        return b"opened" in self.said()

    def said(self) -> bytes:
        return self._said.read_bytes() if self._said.exists() else b""

    def kill(self) -> bool:
        """Kill it; return False if it had ended before."""
        self._process.kill()
        return self._process.wait() == -9


class Host:
    """A spool, whoever uses it, and what has to be in it."""

    def __init__(self, folder: Path, chance: Random, *, says: str = "after") -> None:
        self.oracle = Oracle()
        self.judgement = Judgement()
        self.kills = 0
        self.rolled_back = 0
        self.problems: list[str] = []
        self._folder = folder
        self._path = folder / "spool.sqlite"
        self._chance = chance
        self._says = says
        self._rounds = 0

    def live_and_die(self) -> None:
        """Let a writer and a drainer work side by side, kill one, then the other, and look what is left."""
        self._rounds += 1
        with self._workers() as (writer, drainer):
            assert eventually(lambda: writer.has_opened() and drainer.has_opened())
            for worker in self._chance.sample((writer, drainer), 2):
                time.sleep(self._chance.uniform(0, LONGEST_LIFE_SECONDS / 2))
                self.kills += worker.kill()
        # The writer first: what it was writing when it died may have been drained.
        for worker in (writer, drainer):
            self.oracle.hear(worker.said().splitlines(keepends=True))
            self.oracle.end()
        self.rolled_back += self._has_hot_journal()
        self._look()

    # What one does is right whatever the other does meanwhile: only the writer makes numbers.
    @contextmanager
    def _workers(self) -> Iterator[tuple[Worker, Worker]]:
        common = ("--says", self._says, "--seed", self._chance.getrandbits(32))
        first = ("--first", self._rounds * 1_000_000)
        workers = (
            Worker(self._folder, f"writer-{self._rounds}", "--does", "append,append,bury", *first, *common),
            Worker(self._folder, f"drainer-{self._rounds}", "--does", "settle,settle,forget", *common),
        )
        try:
            yield workers
        finally:
            for worker in workers:
                worker.kill()

    def _has_hot_journal(self) -> bool:
        with self._path.with_name("spool.sqlite-journal").open("rb") as journal:
            return journal.read(8) != bytes(8)

    def _look(self) -> None:
        with closing(Spool(self._path, max_bytes=CAP_BYTES)) as spool:
            self.problems += [*spool.verify(), *map(str, self._folder.glob("*.damaged-*"))]
            found = contents_of(spool)
            self.judgement += self.oracle.judge(found)
            if self.judgement == Judgement():
                self.oracle.settle_on(found)
                self._drain(spool)

    def _drain(self, spool: Spool) -> None:
        surplus = [batch.id for batch in spool.batches()][:-MOST_WAITING]
        operation = Operation("settle", ids=tuple(surplus))
        perform(operation, spool)
        self.oracle.hear(
            json.dumps(words).encode() + b"\n" for words in (("begins", operation), ("done", None))
        )


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_kill_costs_nothing_that_was_acknowledged(
    tmp_path: Path, form: Form, fault_report: FaultReport
) -> None:
    """Every line is compared byte for byte. What was settled does not come back from the dead."""
    chance = seeded("kills")
    kills = form.pick(short=6, full=260)
    host = Host(tmp_path, chance)
    while host.kills < kills:
        host.live_and_die()
        assert host.judgement == Judgement()
        assert host.problems == []
    done = host.oracle.acknowledged
    assert min(done["append"], done["settle"]) > 0
    fault_report.trials.append(
        Trial(
            FAULT,
            form.name,
            chosen_seed(),
            {"kills": host.kills},
            items=host.oracle.acknowledged_items,
            lost=host.judgement.lost,
            twice=host.judgement.back,
            wrong=host.judgement.wrong,
            figures=f"{done['append']:,} batches appended, {done['settle']:,} times some settled, "
            f"{host.rolled_back} transactions rolled back",
        )
    )


def test_acknowledging_before_the_commit_loses_batches(tmp_path: Path, fault_report: FaultReport) -> None:
    """The control: the same harness finds what is lost, or comes back."""
    host = Host(tmp_path, seeded("kills"), says="before")
    while not host.judgement.items and host.kills < 100:
        host.live_and_die()
    assert host.judgement.lost + host.judgement.back > 0
    fault_report.controls.append(
        Control(
            FAULT,
            "acknowledges before its COMMIT",
            f"{host.judgement.lost} items lost and {host.judgement.back} back after {host.kills} kills",
        )
    )
