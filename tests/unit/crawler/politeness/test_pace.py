"""The least pause is kept by delay and jitter together; a robots.txt is heard as far as it makes sense."""

from math import inf, nan

import pytest
from scrapy.core.downloader import Slot

from crawler.politeness.pace import LONGEST_CRAWL_DELAY_SECONDS, at_least, crawl_delay_seconds, is_here


@pytest.mark.parametrize(
    ("least", "delay", "jitter", "expected"),
    [
        (0.25, 0.0, 0.5, (0.25, 0.0)),
        (0.25, 0.25, 0.5, (0.25, 0.0)),
        (0.25, 0.5, 0.5, (0.5, 0.5)),
        (0.25, 1.0, 0.5, (1.0, 0.5)),
        (0.25, 0.4, 0.5, (0.4, 0.375)),
        (10.0, 1.0, 0.5, (10.0, 0.0)),
        (10.0, 12.5, 0.5, (12.5, 0.2)),
        (0.25, 0.0, 0.0, (0.25, 0.0)),
        (0.0, 0.0, 0.5, (0.0, 0.5)),
        (0.0, 1.0, 0.5, (1.0, 0.5)),
        (0.25, 0.3, 3.0, (0.3, 1 - 0.25 / 0.3)),
    ],
)
def test_no_pause_is_shorter(
    least: float, delay: float, jitter: float, expected: tuple[float, float]
) -> None:
    assert at_least(least, delay, jitter) == pytest.approx(expected)
    slot = Slot(1, *at_least(least, delay, jitter))
    assert min(slot.download_delay() for _ in range(500)) >= least * (1 - 1e-9)


def test_a_slot_left_alone_does_undercut_its_delay() -> None:
    slot = Slot(1, 0.25, 0.5)
    assert min(slot.download_delay() for _ in range(500)) < 0.2


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((), 0.0),
        ((None, None), 0.0),
        ((2.0, None), 2.0),
        ((2.0, 5.0), 5.0),
        ((-1.0, None), 0.0),
        ((nan, 3.0), 3.0),
        ((inf, None), LONGEST_CRAWL_DELAY_SECONDS),
        ((1e9, 2.0), LONGEST_CRAWL_DELAY_SECONDS),
    ],
)
def test_the_longest_wish_that_makes_sense_counts(asked: tuple[float | None, ...], expected: float) -> None:
    assert crawl_delay_seconds(*asked) == expected


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "shop.localhost", "::1", ""])
def test_this_machine_is_owed_nothing(host: str) -> None:
    assert is_here(host)


@pytest.mark.parametrize("host", ["example.org", "localhost.example.org", "128.0.0.1", "192.168.1.7"])
def test_any_other_is(host: str) -> None:
    assert not is_here(host)
