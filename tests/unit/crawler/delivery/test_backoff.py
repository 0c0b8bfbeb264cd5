"""A breaker opens, with exponential backoff and jitter up to 30 s."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.delivery.backoff import Breaker, wait_seconds

CHANCES = st.floats(0, 1, exclude_max=True)


@given(failures=st.integers(1, 10_000), chance=CHANCES)
def test_waits_between_half_a_second_and_thirty(failures: int, chance: float) -> None:
    assert 0.5 <= wait_seconds(failures, chance) <= 30.0


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 30), (99, 30)]
)
def test_doubles_up_to_thirty_seconds(failures: int, seconds: float) -> None:
    assert wait_seconds(failures, 0.0) == seconds


@given(failures=st.integers(1, 100), chance=CHANCES)
def test_never_waits_less_after_one_more_failure(failures: int, chance: float) -> None:
    assert wait_seconds(failures + 1, chance) >= wait_seconds(failures, chance)


@given(failures=st.integers(1, 100), chance=CHANCES)
def test_jitter_takes_off_up_to_half(failures: int, chance: float) -> None:
    longest = wait_seconds(failures, 0.0)
    assert longest / 2 <= wait_seconds(failures, chance) <= longest


def test_two_crawlers_with_different_luck_do_not_come_back_in_step() -> None:
    assert wait_seconds(5, 0.1) != wait_seconds(5, 0.9)


def test_breaker_is_closed_at_first_and_opens_with_each_failure() -> None:
    breaker = Breaker()
    assert breaker.allows(0.0)
    breaker = breaker.failed(100.0, 0.0)
    assert not breaker.allows(100.999)
    assert breaker.allows(101.0)
    breaker = breaker.failed(101.0, 0.0)
    assert not breaker.allows(102.999)
    assert breaker.allows(103.0)


def test_breaker_closes_with_the_first_success() -> None:
    breaker = Breaker().failed(0.0, 0.0).failed(1.0, 0.0).succeeded()
    assert breaker.allows(1.0)
    assert breaker.failed(5.0, 0.0).retry_at == 6.0
