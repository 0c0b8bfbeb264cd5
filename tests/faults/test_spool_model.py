"""Whatever may be done to a spool, in any order, against a model of it."""

import itertools
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from crawler import sqlite
from crawler.delivery.spool import Settlement, Spool
from crawler.delivery.tables import SCRAPED_DATA
from crawler.records import Stream
from tests.faults.conftest import Form
from tests.support.card import folder_in_ram
from tests.support.delivery import MIB, chosen_seed
from tests.support.fault_report import Control, FaultReport, Trial
from tests.support.spool_model import SpoolModel, contents_of
from tests.support.spool_worker import Operation, perform

pytestmark = pytest.mark.integration

FAULT = "any order of operations, killed in a transaction"
SOURCES = ("shop", "news", "\N{SNOWMAN}")
STREAMS = [Stream(SCRAPED_DATA.name, source) for source in SOURCES]
NAMES = st.sampled_from(SOURCES)
STEPS = 40
# So that changes reach the file while the transaction still runs.
NO_CACHE = "PRAGMA cache_size=1"


class SpoolMachine(RuleBasedStateMachine):
    """A spool and its model, to which the same is done; after each step they have to hold the same."""

    spool_class: ClassVar[type[Spool]] = Spool
    done: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self._root = self._stack.enter_context(folder_in_ram())
        self._lives = 0
        self._model = SpoolModel()
        self._first = 0
        self._open()
        self.done["examples"] += 1

    def teardown(self) -> None:
        self._spool.close()
        self._stack.close()

    # -- what may be done ----------------------------------------------------------------------

    @rule(name=NAMES, items=st.integers(1, 30))
    def append(self, name: str, items: int) -> None:
        self._do(self._new("append", name, items))

    @rule(name=NAMES, items=st.integers(1, 3))
    def bury(self, name: str, items: int) -> None:
        self._do(self._new("bury", name, items))

    @precondition(lambda self: self._model.batches())
    @rule(data=st.data(), refused=st.integers(0, 2))
    def settle(self, data: st.DataObject, refused: int) -> None:
        waiting = [batch.id for batch in self._model.batches()]
        chosen = data.draw(st.lists(st.sampled_from(waiting), unique=True, min_size=1, max_size=6))
        self._do(Operation("settle", ids=tuple(chosen), refused=refused))

    @rule(kind=st.sampled_from(("replay", "forget")), data=st.data())
    def take_dead_letters(self, kind: str, data: st.DataObject) -> None:
        """All, some, or such as are not there."""
        dead = [number for number, _, _, _ in self._model.dead_letters()]
        some = st.lists(st.sampled_from([*dead, 999]), unique=True, max_size=4).map(tuple)
        self._do(Operation(kind, ids=data.draw(st.none() | some)))

    @rule()
    def reopen(self) -> None:
        self._spool.close()
        self._open()

    @rule(instructions=st.integers(1, 300), settles=st.booleans())
    def be_killed(self, instructions: int, settles: bool) -> None:
        """Die so many of SQLite's instructions into a transaction, if it has as many."""
        waiting = tuple(batch.id for batch in self._model.batches())
        operation = Operation("settle", ids=waiting) if settles else self._new("append", "shop", 30)
        if not self._photograph(operation, instructions):
            perform(operation, self._model)
            return
        self._spool.close()
        self._lives += 1
        journal = self._root / str(self._lives) / "spool.sqlite-journal"
        self.done["rolled back"] += journal.read_bytes()[:8] != bytes(8)
        self._open()
        self.done["kills"] += 1

    @invariant()
    def holds_the_same(self) -> None:
        found, right = contents_of(self._spool), contents_of(self._model)
        self.done["lost"] += (right.items - found.items).total()
        self.done["twice"] += (found.items - right.items).total()
        self.done["wrong"] += found != right
        assert found == right
        assert self._spool.status().batches == len(right.batches)
        assert {stream for _, stream, _ in right.batches} == set(filter(self._spool.has_waiting, STREAMS))
        assert self._spool.verify() == []
        self.done["steps"] += 1

    # -- how -----------------------------------------------------------------------------------

    def _open(self) -> None:
        self._spool = self.spool_class(self._root / str(self._lives) / "spool.sqlite", max_bytes=MIB)

    def _new(self, kind: str, name: str, items: int) -> Operation:
        self._first += items
        self.done["items"] += items
        return Operation(kind, name, self._first - items, items)

    def _do(self, operation: Operation) -> None:
        assert perform(operation, self._spool) == perform(operation, self._model)

    def _photograph(self, operation: Operation, instructions: int) -> bool:
        """Do it, but copy the files so far into it: a kill now would leave them like that."""
        before, after = self._root / str(self._lives), self._root / str(self._lives + 1)
        countdown = itertools.count(instructions, -1)

        def look(connection: sqlite.Connection) -> None:
            def step() -> int:
                if connection.in_transaction and next(countdown) == 0:
                    shutil.copytree(before, after)
                return 0

            connection.execute(NO_CACHE)
            connection.set_progress_handler(step, 1)

        self._spool._file.read(look)
        perform(operation, self._spool)
        self._spool._file.read(lambda connection: connection.set_progress_handler(None, 1))
        return after.exists()


class Greedy(Spool):
    """The mutant: it forgets one batch too many."""

    def settle(self, settlements: Sequence[Settlement]) -> None:
        super().settle(settlements)
        newest = max((done.batch.id for done in settlements), default=0)
        self._file.change(lambda c: c.execute("DELETE FROM batch WHERE id = ?", (newest + 1,)))


def explore(kind: type[Spool], examples: int) -> Counter[str]:
    """Do so many random things to spools of a kind; return how much was done. Raise AssertionError."""

    class Machine(SpoolMachine):
        spool_class = kind
        done: ClassVar[Counter[str]] = Counter()

    chosen = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seed(chosen_seed())(Machine), settings=chosen)
    return Machine.done


@pytest.mark.timeout(600)
def test_a_spool_is_what_its_model_is(form: Form, fault_report: FaultReport) -> None:
    """Its contents, its books, and what its methods return."""
    print(f"spool model: TEST_SEED={chosen_seed()}")
    examples = form.pick(short=8, full=100)
    done = explore(Spool, examples)
    assert done["examples"] >= examples
    assert done["steps"] >= form.pick(short=100, full=60 * STEPS)
    assert done["rolled back"] > 0
    fault_report.trials.append(
        Trial(
            FAULT,
            form.name,
            chosen_seed(),
            {"steps": done["steps"], "kills": done["kills"]},
            items=done["items"],
            lost=done["lost"],
            twice=done["twice"],
            wrong=done["wrong"],
            figures=f"{done['examples']} spools; {done['rolled back']} transactions rolled back",
        )
    )


def test_a_spool_that_forgets_one_batch_too_many_is_found_out(fault_report: FaultReport) -> None:
    """The control."""
    with pytest.raises(AssertionError):
        explore(Greedy, 20)
    fault_report.controls.append(Control(FAULT, "settling deletes one row too many", "found"))
