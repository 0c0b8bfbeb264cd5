"""The ledger of failed requests on a real file: what is due when, what goes, and what a bad card costs."""

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from crawler.exceptions import CardError
from crawler.memory import failed_requests
from crawler.memory.failed_requests import (
    EXPIRY_SECONDS,
    KEPT_PER_SOURCE,
    LONGEST_WAIT_SECONDS,
    Failed,
    FailedRequests,
    Held,
    Outcome,
    Settled,
    wait_seconds,
)
from crawler.memory.failed_requests_keeper import FailedRequestsKeeper
from tests.support.clock import FakeClock

pytestmark = pytest.mark.integration

HOUR, DAY = 3600.0, 86400.0
NOW = 1_800_000_000.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


def opened(folder: Path, clock: FakeClock, **options: Any) -> FailedRequests:
    return FailedRequests(folder / "failed.sqlite", wall_clock=clock, chance=lambda: 0.0, **options)


@pytest.fixture
def ledger(tmp_path: Path, clock: FakeClock) -> Iterator[FailedRequests]:
    with closing(opened(tmp_path, clock)) as ledger:
        yield ledger


def failed(key: str, **changes: Any) -> Failed:
    given = {"url": f"https://shop.example/{key}", "request": f'{{"key": "{key}"}}'}
    return Failed(**{"key": key, "kind": "broken", "reason": "timeout"} | given | changes)


def due(ledger: FailedRequests, source: str = "shop") -> list[str]:
    return [each.key for each in ledger.handover(source).due]


class TestIntervals:
    def test_double_from_an_hour_to_a_day(self) -> None:
        waits = [wait_seconds(attempts, 0.0) / HOUR for attempts in range(1, 8)]
        assert waits == [1, 2, 4, 8, 16, 24, 24]
        assert wait_seconds(10_000, 0.0) == LONGEST_WAIT_SECONDS

    def test_chance_takes_off_up_to_half(self) -> None:
        assert wait_seconds(1, 0.5) == 0.75 * HOUR
        assert wait_seconds(1, 0.9999) == pytest.approx(HOUR / 2, rel=0.001)


class TestWhatIsDue:
    def test_nothing_before_its_time_and_then_it_again_and_again(
        self, ledger: FailedRequests, clock: FakeClock
    ) -> None:
        ledger.apply("shop", [failed("a")])
        assert due(ledger) == []
        clock.advance(HOUR)
        assert due(ledger) == due(ledger) == ["a"], "handing out takes nothing out"
        assert due(ledger, "other") == []

    def test_each_failure_makes_the_wait_longer(self, ledger: FailedRequests, clock: FakeClock) -> None:
        waits = []
        for attempt in range(1, 6):
            ledger.apply("shop", [failed("a", kind="blocked", reason="refused")])
            [row] = ledger.requests()
            assert (row.attempts, row.kind, row.reason) == (attempt, "blocked", "refused")
            assert (row.first_failed_at, row.last_failed_at) == (NOW, clock())
            waits.append(row.next_try_at - clock())
            clock.advance(waits[-1])
        assert [wait / HOUR for wait in waits] == [1, 2, 4, 8, 16]

    def test_later_if_the_site_says_so_and_not_sooner(self, ledger: FailedRequests, clock: FakeClock) -> None:
        ledger.apply("shop", [failed("a", not_before=NOW + 5 * HOUR), failed("b", not_before=NOW + 60)])
        assert {row.key: row.next_try_at - NOW for row in ledger.requests()} == {"a": 5 * HOUR, "b": HOUR}

    def test_what_was_held_back_was_not_tried(self, ledger: FailedRequests, clock: FakeClock) -> None:
        held_back = failed("a", not_before=NOW + 60, was_tried=False)
        ledger.apply("shop", [held_back])
        [row] = ledger.requests()
        assert (row.attempts, row.next_try_at) == (0, NOW + 60)

    def test_a_clock_that_was_ahead_does_not_put_it_off_for_ever(
        self, ledger: FailedRequests, clock: FakeClock
    ) -> None:
        clock.advance(400 * DAY)
        ledger.apply("shop", [failed("a"), Held("shop.example", clock() + HOUR)])
        clock.now = NOW
        assert due(ledger) == ["a"]
        assert ledger.handover("shop").holds == ledger.holds() == []

    def test_a_page_that_came_but_was_not_safe_is_put_off_only_if_it_was_there(
        self, ledger: FailedRequests
    ) -> None:
        unfinished = failed("a", request=None, kind="unfinished", reason="page")
        ledger.apply("shop", [unfinished])
        assert ledger.requests() == []
        ledger.apply("shop", [failed("a"), unfinished])
        [row] = ledger.requests()
        assert (row.attempts, row.kind, row.request) == (2, "unfinished", '{"key": "a"}')


class TestWhatGoes:
    def test_what_is_settled_and_nothing_else(self, ledger: FailedRequests) -> None:
        ledger.apply("shop", [failed("a"), failed("b")])
        ledger.apply("other", [failed("a")])
        ledger.apply("shop", [Settled("a"), Settled("never there")])
        assert [(row.source, row.key) for row in ledger.requests()] == [("shop", "b"), ("other", "a")]
        assert ledger.handover("shop").keys == {"b"}

    def test_what_fails_again_after_two_weeks(self, ledger: FailedRequests, clock: FakeClock) -> None:
        ledger.apply("shop", [failed("a")])
        clock.advance(EXPIRY_SECONDS + 1)
        assert due(ledger) == ["a"], "a source that runs once a month has its second try"
        assert ledger.apply("shop", [failed("a", was_tried=False)]) == Outcome()
        assert ledger.apply("shop", [failed("a")]) == Outcome(expired=1)
        assert ledger.requests() == []

    def test_of_too_many_those_that_failed_first(
        self, ledger: FailedRequests, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert KEPT_PER_SOURCE == 2000
        monkeypatch.setattr(failed_requests, "KEPT_PER_SOURCE", 10)
        ledger.apply("other", [failed("a")])
        for number in range(15):
            clock.advance(1.0)
            outcome = ledger.apply("shop", [failed(f"{number:02}")])
            assert outcome == Outcome(kept=1, pushed_out=int(number >= 10))
        assert ledger.handover("shop").keys == {f"{number:02}" for number in range(5, 15)}
        assert ledger.handover("other").keys == {"a"}

    def test_of_too_much_for_the_file_those_that_failed_longest_ago(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        with closing(opened(tmp_path, clock, max_bytes=512 * 1024)) as ledger:
            outcomes = Outcome()
            for number in range(40):
                clock.advance(1.0)
                outcome = ledger.apply(f"s{number % 3}", [failed(f"{number:02}", request="x" * 30_000)])
                outcomes.kept += outcome.kept
                outcomes.pushed_out += outcome.pushed_out
            left = sorted(row.key for row in ledger.requests())
            assert outcomes.kept == 40
            assert left == [f"{number:02}" for number in range(outcomes.pushed_out, 40)]
            assert 5 < len(left) < 20
        assert (tmp_path / "failed.sqlite").stat().st_size <= 512 * 1024


class TestHolds:
    def test_last_until_their_time_and_belong_to_one_source(
        self, ledger: FailedRequests, clock: FakeClock
    ) -> None:
        ledger.apply("shop", [Held("shop.example", NOW + 60), Held("shop.example", NOW + 90)])
        assert [hold.until for hold in ledger.handover("shop").holds] == [NOW + 90]
        assert ledger.handover("other").holds == ledger.holds("other") == []
        clock.advance(90)
        assert ledger.handover("shop").holds == ledger.holds() == []


class TestTheOperator:
    @pytest.fixture
    def full(self, ledger: FailedRequests) -> FailedRequests:
        ledger.apply("shop", [failed("a"), failed("b"), Held("shop.example", NOW + HOUR)])
        ledger.apply("other", [failed("c"), Held("other.example", NOW + HOUR)])
        return ledger

    def test_sees_a_source_or_some(self, full: FailedRequests) -> None:
        keys = {row.key: row.id for row in full.requests()}
        assert list(keys) == ["a", "b", "c"]
        assert [row.key for row in full.requests("shop")] == ["a", "b"]
        assert [row.key for row in full.requests(ids=[keys["c"]])] == ["c"]
        assert full.requests("shop", [keys["c"]]) == []

    def test_makes_them_due_and_lifts_the_holds_of_their_sources(self, full: FailedRequests) -> None:
        [b] = [row.id for row in full.requests() if row.key == "b"]
        assert full.retry(ids=[b]) == 1
        assert (due(full), due(full, "other")) == (["b"], [])
        assert [hold.source for hold in full.holds()] == ["other"]
        assert full.retry() == 3
        assert (due(full), due(full, "other")) == (["a", "b"], ["c"])

    def test_forgets(self, full: FailedRequests) -> None:
        assert full.forget("shop") == 2
        assert full.forget("shop") == 0
        assert [row.key for row in full.requests()] == ["c"]


def test_several_processes_write_one_file(tmp_path: Path, clock: FakeClock) -> None:
    def work(source: str) -> None:
        with closing(opened(tmp_path, clock)) as ledger:
            for number in range(20):
                ledger.apply(source, [failed(str(number))])

    threads = [threading.Thread(target=work, args=(f"s{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with closing(opened(tmp_path, clock)) as ledger:
        assert len(ledger.requests()) == 80


def test_a_damaged_file_is_set_aside_and_what_can_be_read_is_taken_over(
    tmp_path: Path, clock: FakeClock
) -> None:
    with closing(opened(tmp_path, clock)) as ledger:
        ledger.apply("shop", [failed(f"{number:03}", request="x" * 2000) for number in range(100)])
    file = tmp_path / "failed.sqlite"
    content = bytearray(file.read_bytes())
    place = content.index(b"https://shop.example/050") // 4096 * 4096
    content[place : place + 4096] = b"\xff" * 4096
    file.write_bytes(content)
    with closing(opened(tmp_path, clock)) as ledger:
        assert 90 <= len(ledger.requests()) < 100
    assert list(tmp_path.glob("failed.sqlite.damaged-*"))


class Told:
    """What a keeper has said of its work."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Outcome, int]] = []

    def __call__(self, outcome: Outcome, lost: int) -> None:
        self.outcomes.append((outcome, lost))

    @property
    def kept(self) -> int:
        return sum(outcome.kept for outcome, _lost in self.outcomes)

    @property
    def lost(self) -> int:
        return sum(lost for _outcome, lost in self.outcomes)


def ended(answer: "Future[Any]") -> Any:
    return answer.result(20.0)


class TestKeeper:
    def test_writes_what_comes_together_in_one_transaction(self, tmp_path: Path) -> None:
        told = Told()
        keeper = FailedRequestsKeeper(tmp_path / "failed.sqlite", "shop", told)
        for number in range(300):
            keeper.put(failed(str(number)))
        assert ended(keeper.open()).keys == frozenset()
        ended(keeper.flush())
        assert (told.kept, told.lost) == (300, 0)
        assert len(told.outcomes) == 1
        keeper.put(Settled("7"))
        ended(keeper.flush(is_last=True))
        with closing(FailedRequests(tmp_path / "failed.sqlite")) as ledger:
            assert len(ledger.handover("shop").keys) == 299

    def test_a_file_that_cannot_be_opened_costs_a_warning(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "failed.sqlite").mkdir()
        told = Told()
        keeper = FailedRequestsKeeper(tmp_path / "failed.sqlite", "shop", told)
        assert ended(keeper.open()).due == []
        keeper.put(failed("a"))
        keeper.put(failed("b"))
        ended(keeper.flush())
        keeper.put(Settled("a"))
        ended(keeper.flush(is_last=True))
        assert (told.kept, told.lost) == (0, 2)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "What failed is not kept for later runs" in caplog.text

    def test_a_card_that_fails_for_a_while_costs_what_came_meanwhile(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told = Told()
        keeper = FailedRequestsKeeper(tmp_path / "failed.sqlite", "shop", told)
        ended(keeper.open())
        with monkeypatch.context() as patch:
            patch.setattr(FailedRequests, "apply", fail)
            for number in range(3):
                keeper.put(failed(str(number)))
                ended(keeper.flush())
        keeper.put(failed("a"))
        ended(keeper.flush(is_last=True))
        assert (told.kept, told.lost) == (1, 3)
        assert caplog.text.count("What failed is not kept for later runs: the card says no") == 1

    def test_nobody_waits_for_a_file_that_another_process_holds(self, tmp_path: Path) -> None:
        path = tmp_path / "failed.sqlite"
        keeper = FailedRequestsKeeper(path, "shop", Told())
        ended(keeper.open())
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            keeper.put(failed("a"))
            answer = keeper.flush()
            with pytest.raises(TimeoutError):
                answer.result(0.5)
            assert answer.cancel()
            other.execute("ROLLBACK")
        ended(keeper.flush(is_last=True))
        with closing(FailedRequests(path)) as ledger:
            assert ledger.handover("shop").keys == {"a"}

    def test_a_keeper_that_was_never_opened_keeps_nobody_waiting(self, tmp_path: Path) -> None:
        keeper = FailedRequestsKeeper(tmp_path / "failed.sqlite", "shop", Told())
        assert keeper.flush(is_last=True).result(0) is None
        assert list(tmp_path.iterdir()) == []


def fail(*_arguments: object) -> Outcome:
    raise CardError("the card says no")
