"""How long a site is left alone, and when a crawl no longer waits for it."""

import pytest

from crawler.politeness.holds import SiteHolds
from tests.support.clock import FakeClock

SHOP, OTHER = "shop.example", "other.example"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def holds(clock: FakeClock) -> SiteHolds:
    return SiteHolds(longest_wait_seconds=120.0, monotonic=clock)


def test_a_short_hold_is_waited_for_and_ends_by_itself(holds: SiteHolds, clock: FakeClock) -> None:
    holds.hold(SHOP, 30.0)
    assert (holds.seconds_left(SHOP), holds.is_closed(SHOP)) == (30.0, False)
    assert (holds.seconds_left(OTHER), holds.is_closed(OTHER)) == (0.0, False)
    clock.advance(30.0)
    assert holds.seconds_left(SHOP) == 0.0


def test_a_long_hold_closes_the_site_until_it_is_over(holds: SiteHolds, clock: FakeClock) -> None:
    holds.hold(SHOP, 121.0)
    assert holds.is_closed(SHOP)
    assert not holds.is_closed(OTHER)
    clock.advance(120.0)
    assert holds.is_closed(SHOP)
    clock.advance(1.0)
    assert not holds.is_closed(SHOP)
    holds.hold(SHOP, 30.0)
    assert not holds.is_closed(SHOP), "the next one is counted anew"


def test_of_several_wishes_the_longest_counts_once(holds: SiteHolds) -> None:
    """Sixteen requests on their way come back with sixteen wishes."""
    for _ in range(16):
        holds.hold(SHOP, 30.0)
    holds.hold(SHOP, 5.0)
    assert (holds.seconds_left(SHOP), holds.is_closed(SHOP)) == (30.0, False)


def test_a_site_that_always_says_in_a_minute_is_not_waited_for_for_ever(
    holds: SiteHolds, clock: FakeClock
) -> None:
    for _ in range(2):
        holds.hold(SHOP, 60.0)
        assert not holds.is_closed(SHOP)
        clock.advance(60.0)
    holds.hold(SHOP, 60.0)
    assert holds.is_closed(SHOP)


def test_a_good_answer_in_between_starts_the_count_anew(holds: SiteHolds, clock: FakeClock) -> None:
    for _ in range(10):
        holds.hold(SHOP, 60.0)
        holds.answered(SHOP)  # sent before the hold: it does not end it
        assert holds.seconds_left(SHOP) == 60.0
        clock.advance(60.0)
        holds.answered(SHOP)
        assert not holds.is_closed(SHOP)
