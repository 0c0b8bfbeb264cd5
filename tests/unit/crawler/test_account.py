"""scraped = stored + unchanged + spooled + dead-letter + dropped, and every way in which it may not be so."""

from dataclasses import replace

import pytest

from crawler.account import SourceAccount, accounts
from crawler.delivery.spool import Account
from crawler.ledger import Book, Counts
from crawler.records import Stream

SHOP = Stream("scraped_data", "shop")
# 100 scraped: 60 straight into PostgreSQL, 30 spooled, 4 dead, 6 dropped.
COUNTS = Counts(pages=10, scraped=100, stored=50, unchanged=10, spooled=30, dead=4, dropped=6)
# Of the 30: 12 stored, 3 unchanged, 1 refused since, 14 wait. Of 5 dead letters 1 was forgotten.
SPOOL = Account(
    SHOP,
    spooled=30,
    stored=12,
    unchanged=3,
    refused=1,
    buried=4,
    replayed=0,
    forgotten=1,
    waiting=14,
    dead=4,
)


def book(counts: Counts, *, running: int = 0, killed: int = 0) -> Book:
    return Book("shop", 3, running, killed, counts)


def account(book_of_shop: Book | None, spool: Account | None) -> SourceAccount:
    (only,) = accounts({} if book_of_shop is None else {"shop": book_of_shop}, [spool] if spool else [])
    return only


def total(of: SourceAccount) -> int:
    return of.stored + of.unchanged + of.spooled + of.dead + of.dropped


def test_adds_up_over_the_ledger_and_the_spool() -> None:
    found = account(book(COUNTS), SPOOL)
    assert found.adds_up
    assert found.findings == ()
    assert (found.scraped, found.stored, found.unchanged) == (100, 62, 13)
    assert (found.spooled, found.dead, found.dropped) == (14, 5, 6)
    assert total(found) == found.scraped


def test_adds_up_without_a_spool() -> None:
    counts = Counts(scraped=10, stored=7, unchanged=2, dropped=1)
    assert account(book(counts), None).adds_up


def test_a_replayed_dead_letter_waits_again_and_is_counted_once() -> None:
    spool = SPOOL._replace(replayed=2, dead=2, waiting=16)
    found = account(book(COUNTS), spool)
    assert found.adds_up
    assert total(found) == 100


@pytest.mark.parametrize("how", [{"running": 1}, {"killed": 1}])
def test_what_an_unfinished_run_spooled_counts_as_scraped(how: dict[str, int]) -> None:
    spool = SPOOL._replace(spooled=37, waiting=21, buried=5, dead=5)
    found = account(book(COUNTS, **how), spool)
    assert found.adds_up
    assert found.scraped == 108
    assert total(found) == 108


def test_rows_about_runs_are_not_items() -> None:
    jobs = SPOOL._replace(stream=Stream("crawler_jobs", "shop"))
    assert accounts({}, [jobs]) == []


def test_sources_are_listed_by_name_from_both_books() -> None:
    news = SPOOL._replace(stream=Stream("scraped_data", "news"))
    found = accounts({"shop": book(Counts()), "art": replace(book(Counts()), source="art")}, [news])
    assert [each.source for each in found] == ["art", "news", "shop"]


@pytest.mark.parametrize(
    ("counts", "spool", "finding"),
    [
        (replace(COUNTS, stored=49), SPOOL, "1 of 100 items are in none of the places"),
        (replace(COUNTS, stored=51), SPOOL, "-1 of 100 items are in none of the places"),
        (replace(COUNTS, scraped=103, lost=3), SPOOL, "3 of them were in RAM when a run ended"),
        (COUNTS, None, "34 items went to a spool that is not here"),
        (COUNTS, SPOOL._replace(waiting=13), "the spool's own books do not add up"),
        (COUNTS, SPOOL._replace(dead=3), "the spool's own books do not add up"),
        (COUNTS, SPOOL._replace(spooled=29, waiting=13), "the spool knows of 1 items fewer than the crawls"),
        (COUNTS, SPOOL._replace(spooled=31, waiting=15), "the spool holds 1 items that no run of the ledger"),
        (COUNTS, SPOOL._replace(buried=5, dead=5), "the spool holds 1 items that no run of the ledger"),
        (None, SPOOL, "the spool holds 34 items that no run of the ledger gave it"),
    ],
)
def test_every_kind_of_mismatch_is_found(counts: Counts | None, spool: Account | None, finding: str) -> None:
    found = account(None if counts is None else book(counts), spool)
    assert not found.adds_up
    assert any(finding in text for text in found.findings), found.findings
