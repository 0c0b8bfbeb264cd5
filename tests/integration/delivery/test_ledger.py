"""The run ledger: what every crawl of this host did, folded when it is old, told truly when it was killed."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from crawler import ledger as ledger_module
from crawler.drift.comparison import Cause, Finding, Kind, Profile, Review
from crawler.exceptions import CardError
from crawler.ledger import Counts, Run, RunLedger
from tests.support.clock import FakeClock

pytestmark = pytest.mark.integration

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[RunLedger]:
    with closing(RunLedger(tmp_path / "runs.sqlite", FakeClock(5000.0))) as opened:
        yield opened


def run_of(number: int, source: str = "shop", process: str = "boot/1/1") -> Run:
    return Run(f"{source}-{number}", source, "pi", process, 100.0 + number)


def ended(run: Run, stored: int = 1, status: str = "finished") -> Run:
    return replace(
        run, ended_at=run.started_at + 1, status=status, counts=Counts(scraped=stored, stored=stored)
    )


def test_a_run_is_noted_when_it_starts_and_when_it_ends(ledger: RunLedger) -> None:
    ledger.start(run_of(1))
    assert ledger.runs() == [run_of(1)]
    assert ledger.books()["shop"].running == 1
    done = replace(ended(run_of(1), 7), error="한국어")
    ledger.end(done)
    assert ledger.runs() == [done]
    assert ledger.books()["shop"].counts == Counts(scraped=7, stored=7)


def test_old_runs_are_folded_into_a_sum_that_loses_nothing(
    ledger: RunLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "KEPT_RUNS_PER_SOURCE", 3)
    for number in range(10):
        ledger.start(run_of(number))
        ledger.end(ended(run_of(number), number, "killed" if number == 0 else "finished"))
        ledger.start(run_of(number, "news"))
    assert [run.run_id for run in ledger.runs() if run.source == "shop"] == ["shop-7", "shop-8", "shop-9"]
    book = ledger.books()["shop"]
    assert (book.runs, book.killed, book.running) == (10, 1, 0)
    assert book.counts == Counts(scraped=45, stored=45)
    # A run that has not ended is never folded: its counts are still to come.
    assert ledger.books()["news"].running == 10


def test_a_run_whose_process_is_gone_was_killed(ledger: RunLedger) -> None:
    alive, dead, done = run_of(1, process="boot/1/1"), run_of(2, process="boot/2/2"), run_of(3)
    for run in (alive, dead, done):
        ledger.start(run)
    ledger.end(ended(done))
    told: list[Run] = []
    (killed,) = ledger.close_orphans(lambda process: process == "boot/1/1", told.append)
    assert (killed.run_id, killed.status, killed.ended_at) == ("shop-2", "killed", 5000.0)
    assert ledger.close_orphans(lambda process: process == "boot/1/1", told.append) == []
    assert told == [killed]
    book = ledger.books()["shop"]
    assert (book.runs, book.running, book.killed) == (3, 1, 1)


def test_a_killed_run_that_nobody_could_be_told_of_is_left_to_the_next(ledger: RunLedger) -> None:
    ledger.start(run_of(1))

    def fail(run: Run) -> None:
        raise CardError(run.run_id)

    with pytest.raises(CardError):
        ledger.close_orphans(lambda process: False, fail)
    assert [run.run_id for run in ledger.close_orphans(lambda process: False, lambda run: None)] == ["shop-1"]


def test_counts_of_another_version_are_read(ledger: RunLedger) -> None:
    assert Counts.from_json('{"stored": 3, "of_a_later_version": 4}') == Counts(stored=3)


def saw(items: int, findings: tuple[Finding, ...] = ()) -> Review:
    profile = Profile(
        "https://shop.example/", item_pages=items, items=items, filled={"Book": (items, {"url": items})}
    )
    return Review(5.5, profile, 3, findings)


def test_what_a_run_saw_of_its_site_is_kept_with_its_source(ledger: RunLedger) -> None:
    odd = Finding(Kind.ZERO_ITEMS, Cause.DNS, "items", 0.0, 1.0, "No items; usually 1")
    for number, review in enumerate((None, saw(1), saw(0, (odd,)))):
        ledger.start(run_of(number))
        ledger.end(replace(ended(run_of(number)), review=review))
    ledger.start(run_of(1, "news"))
    ledger.end(replace(ended(run_of(1, "news")), review=saw(7)))
    assert ledger.reviews("shop") == [saw(1), saw(0, (odd,))]
    assert [run.review for run in ledger.runs() if run.source == "news"] == [saw(7)]
    assert ledger.books()["shop"].counts == Counts(scraped=3, stored=3)


def test_a_run_of_a_version_without_reviews_is_read(ledger: RunLedger, tmp_path: Path) -> None:
    """And one of a version whose reviews are not understood: its counts are."""
    books = ('{"stored": 3}', '{"stored": 4, "review": {"at": "of another version"}}')
    for number in range(len(books)):
        ledger.start(run_of(number))
        ledger.end(ended(run_of(number)))
    with closing(sqlite3.connect(tmp_path / "runs.sqlite")) as connection, connection:
        rows = [(text, f"shop-{number}") for number, text in enumerate(books)]
        connection.executemany("UPDATE run SET counts = ? WHERE run_id = ?", rows)
    assert [(run.counts.stored, run.review) for run in ledger.runs()] == [(3, None), (4, None)]
    assert ledger.reviews("shop") == []


def test_what_is_usual_outlives_many_runs_that_saw_nothing_new(
    ledger: RunLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "KEPT_RUNS_PER_SOURCE", 5)
    monkeypatch.setattr(ledger_module, "KEPT_TELLING_RUNS_PER_SOURCE", 2)
    odd = Finding(Kind.FEWER_ITEMS, Cause.FEWER_PAGES, "items", 9.0, 99.0, "text")
    seen = [saw(1), saw(2), saw(3), saw(4, (odd,)), *[saw(0)] * 10]
    for number, review in enumerate(seen):
        ledger.start(run_of(number))
        ledger.end(replace(ended(run_of(number)), review=review))
    assert ledger.reviews("shop") == [saw(2), saw(3), *[saw(0)] * 5]
    assert ledger.books()["shop"].counts == Counts(scraped=len(seen), stored=len(seen))
    assert ledger.books()["shop"].runs == len(seen)


PROCESS = """
import sys
from dataclasses import replace
from pathlib import Path
from crawler.ledger import Counts, Run, RunLedger
ledger = RunLedger(Path(sys.argv[1]))
for number in range(10):
    run = Run(f"{sys.argv[2]}-{number}", sys.argv[2], "pi", "p", float(number))
    ledger.start(run)
    ledger.end(replace(run, ended_at=99.0, status="finished", counts=Counts(stored=1)))
ledger.close()
"""


def test_several_processes_keep_one_ledger(tmp_path: Path) -> None:
    """They also make it together: none has been there before."""
    path = tmp_path / "runs.sqlite"
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(path), name], cwd=PROJECT)
        for name in ("one", "two", "three")
    ]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    with closing(RunLedger(path)) as ledger:
        assert {name: book.counts.stored for name, book in ledger.books().items()} == {
            "one": 10,
            "two": 10,
            "three": 10,
        }
