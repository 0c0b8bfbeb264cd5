"""A dying card: writes and syncs fail, once or for good, or it can only be read any more."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from crawler.delivery.spool import Settlement, Spool
from crawler.exceptions import CardError
from demo.postgres import PostgresServer
from tests.conftest import MakeSink
from tests.faults.conftest import Form
from tests.support.card import Card, ext4_card, folder_in_ram
from tests.support.deliveries import Delivery, Reckoning, eventually
from tests.support.delivery import COLUMNS, MIB, SHOP, chosen_seed, observations, seeded, small_spool
from tests.support.fault_report import Control, FaultReport, Trial
from tests.support.preload import compiled, preloaded
from tests.support.spool_model import contents_of
from tests.support.spool_oracle import Judgement, Oracle
from tests.support.spool_worker import letter

pytestmark = pytest.mark.integration

PROJECT = Path(__file__).parents[2]
FAULT = "card errors (EIO)"
READ_ONLY = "read-only card"
FOLDER = "fsync of a folder"
EVERYTHING = "append,append,append,settle,refuse,bury,replay,forget"
KINDS = ("write", "fsync", FOLDER)
LAST_CALL = 60
# Each that finds something to do syncs the folder at least once.
OPERATIONS = 2 * LAST_CALL
ENDED = b'["ended", null]\n'


class Error(NamedTuple):
    """Which call fails, and whether all later ones do."""

    of: str
    at: int
    for_good: bool

    @property
    def is_ignored(self) -> bool:
        """SQLite does not tell that it could not sync a folder. Whoever made the file has done so before."""
        return self.of == FOLDER and not self.for_good

    def __str__(self) -> str:
        return f"{self.of} {self.at}{', and all later ones' if self.for_good else ''}"


class FailingCard:
    """A folder with a spool, in which a process of its own works while calls fail."""

    def __init__(self, ram: Path, library: Path, *, is_new: bool) -> None:
        """Given a folder in RAM, prepare a spool in it, unless it is to be made while calls fail."""
        self._folder = ram / "card"
        self._prepared = ram / "prepared"
        self._said = ram / "said"
        self._library = library
        self._beginning: list[bytes] = []
        self._prepared.mkdir()
        if not is_new:
            self._beginning = self._work(self._prepared, "--operations", 12)

    def meet(self, error: Error, *options: object) -> Oracle:
        """Let a process work on what was prepared and meet the error; return what it said."""
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.copytree(self._prepared, self._folder)
        oracle = Oracle()
        oracle.hear(self._beginning)
        variables = {
            "IO_ERROR_OF": error.of,
            "IO_ERROR_AT": error.at,
            "IO_ERROR_FOR_GOOD": int(error.for_good),
        }
        environment = preloaded(self._library, self._folder, **variables)
        oracle.hear(self._work(self._folder, "--operations", OPERATIONS, *options, environment=environment))
        return oracle

    def judge(self, oracle: Oracle) -> tuple[list[str], Judgement]:
        """Open the spool on a card that works again; return what is the matter with it."""
        with closing(Spool(self._folder / "spool.sqlite", max_bytes=MIB)) as spool:
            problems = spool.verify() + [f"set aside: {aside}" for aside in self._folder.glob("*.damaged-*")]
            judgement = oracle.judge(contents_of(spool))
            assert spool.append(SHOP, COLUMNS, observations(3)), "it must be usable again"
        return problems, judgement

    def _work(
        self, folder: Path, *options: object, environment: Mapping[str, str] | None = None
    ) -> list[bytes]:
        self._said.unlink(missing_ok=True)
        arguments = (folder, "--witness", self._said, "--seed", chosen_seed(), "--does", EVERYTHING, *options)
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.spool_worker", *map(str, arguments)],
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        said = self._said.read_bytes().splitlines(keepends=True)
        assert said[-1] == ENDED, "it must not stop before its end"
        return said


@pytest.fixture(scope="module")
def io_error(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that lets calls fail."""
    return compiled("io_error", tmp_path_factory.mktemp("io_error"))


@pytest.fixture
def ram() -> Iterator[Path]:
    """A folder where spools cost little."""
    with folder_in_ram() as folder:
        yield folder


def errors(form: Form) -> list[Error]:
    """Return which errors to try: in the full form one at each call."""
    calls = range(1, LAST_CALL + 1)
    chosen = calls if form.is_full else seeded("calls").sample(calls, 1)
    return [Error(of, at, for_good) for at in chosen for of in KINDS for for_good in (False, True)]


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("is_new", [False, True], ids=["in use", "being made"])
def test_an_error_surfaces_and_costs_nothing(
    io_error: Path, ram: Path, form: Form, fault_report: FaultReport, is_new: bool
) -> None:
    """The process goes on, and says what failed; what failed is there or not, but never a part of it."""
    card = FailingCard(ram, io_error, is_new=is_new)
    found, items = Judgement(), 0
    for error in errors(form):
        oracle = card.meet(error)
        assert oracle.failed or error.is_ignored, f"{error}: nobody was told"
        assert all(text.startswith("Card") for text in oracle.failed)
        assert len(oracle.failed) <= 1 or error.for_good
        problems, judgement = card.judge(oracle)
        assert problems == [], error
        assert judgement == Judgement(), error
        found += judgement
        items += oracle.acknowledged_items
    fault_report.trials.append(
        Trial(
            FAULT,
            form.name,
            chosen_seed(),
            {"errors": len(errors(form))},
            items=items,
            lost=found.lost,
            twice=found.back,
            wrong=found.wrong,
            figures="a spool being made" if is_new else "a spool in use",
        )
    )


def test_swallowing_the_error_loses_what_was_acknowledged(
    io_error: Path, ram: Path, fault_report: FaultReport
) -> None:
    """The control: a process that takes every error for a success."""
    card = FailingCard(ram, io_error, is_new=False)
    error = Error("write", 1, for_good=True)
    oracle = card.meet(error, "--swallows")
    assert oracle.failed == []
    _, judgement = card.judge(oracle)
    assert judgement.lost > 0
    fault_report.controls.append(
        Control(FAULT, "swallows the exception", f"{judgement.lost} acknowledged items lost by one error")
    )


# -- a card that can only be read --------------------------------------------------------------


@pytest.fixture
def card() -> Iterator[Card]:
    """A card with a real file system."""
    with ext4_card(16 * MIB) as card:
        yield card


def test_a_read_only_card_refuses_and_keeps_what_it_had(
    card: Card, form: Form, fault_report: FaultReport
) -> None:
    """ext4 turns read-only when the card's answers make no sense. Only a write shows it."""
    with closing(small_spool(card.folder)) as spool:
        for number in range(20):
            spool.append(SHOP, COLUMNS, observations(50, first=50 * number))
        before = contents_of(spool)
        card.break_off()
        refusals = count_refusals(spool)
        assert contents_of(spool) == before, "what waits can still be read, and sent"
    with pytest.raises(CardError, match="Read-only file system"):
        small_spool(card.folder)
    card.repair()
    with closing(small_spool(card.folder)) as spool:
        assert spool.verify() == []
        after = contents_of(spool)
        assert spool.append(SHOP, COLUMNS, observations(50))
    assert after == before
    fault_report.trials.append(
        Trial(
            READ_ONLY,
            form.name,
            None,
            {"refused changes": refusals},
            items=before.items.total(),
            lost=(before.items - after.items).total(),
            twice=(after.items - before.items).total(),
            wrong=sum(batch not in before.batches for batch in after.batches),
        )
    )


def count_refusals(spool: Spool) -> int:
    """Try to change a spool in every way, again and again; return how often it said that the card failed."""
    first = next(spool.batches())
    changes: tuple[Callable[[], object], ...] = (
        lambda: spool.append(SHOP, COLUMNS, observations(50, first=5000)),
        lambda: spool.settle([Settlement(first, stored=first.items)]),
        lambda: spool.bury(COLUMNS, [letter(SHOP, first.compressed)]),
    )
    for change in changes * 3:
        with pytest.raises(CardError, match="disk I/O error"):
            change()
    return len(changes) * 3


def test_swallowing_a_refusal_loses_what_was_acknowledged(card: Card, fault_report: FaultReport) -> None:
    """The control."""
    with closing(small_spool(card.folder)) as spool:
        card.break_off()
        with suppress(CardError):
            spool.append(SHOP, COLUMNS, observations(50))
    card.repair()
    with closing(small_spool(card.folder)) as spool:
        lost = 50 - spool.status().items
    assert lost > 0
    fault_report.controls.append(Control(READ_ONLY, "swallows the exception", f"{lost} of 50 items lost"))


def test_a_courier_with_a_read_only_card_goes_on_and_says_so(
    card: Card,
    make_sink: MakeSink,
    schema_url: str,
    postgres: PostgresServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """PostgreSQL gets its items all the same; while it is away too they wait in RAM, and nobody stops."""
    with (
        closing(small_spool(card.folder)) as spool,
        closing(Delivery(make_sink(schema_url), spool)) as delivery,
    ):
        delivery.secure(observations(100))
        card.break_off()
        delivery.secure(observations(100, first=100))
        postgres.stop()
        delivery.hand_over(observations(50, first=200))
        assert eventually(lambda: "Items wait in RAM and the crawl waits for them" in caplog.text)
        assert (delivery.courier.held, delivery.courier.is_broken) == (50, False)
        postgres.start()
        assert delivery.courier.flush(20)
        assert delivery.reckon(schema_url) == Reckoning(items=250, lost=0, twice=0, wrong=0)
