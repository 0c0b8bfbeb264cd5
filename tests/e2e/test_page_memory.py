"""Runs of one source after each other: what is fetched again, and that nothing is missed."""

from pathlib import Path

import pytest

from demo.sites.process import control
from demo.sites.revision import changed_count
from demo.sites.server import SCALES
from tests.support.crawls import TEST_SPIDERS, Host, addresses
from tests.support.shelf import Shelf

pytestmark = pytest.mark.e2e

BOOKS = SCALES["small"].books
LISTINGS = 3
# The front page is a listing too, and the shop has no robots.txt.
OTHER_REQUESTS = LISTINGS + 1


@pytest.fixture
def shelf(host: Host, sites: dict[str, str]) -> Shelf:
    return Shelf(host, sites["books"])


def file_of(shelf: Shelf) -> Path:
    return shelf.host.state_dir / "pages" / f"{shelf.source}.sqlite"


@pytest.mark.parametrize("source", ["shelf", pytest.param("shelf_never", marks=pytest.mark.slow)])
def test_what_has_not_changed_is_not_read_again_and_what_has_is(source: str, shelf: Shelf) -> None:
    shelf.source = source
    done, first = shelf.crawl()
    assert (done.status, first.books) == (0, BOOKS), done.err
    rows = shelf.rows()
    assert len(rows) == 2 * BOOKS

    done, second = shelf.crawl()
    assert done.status == 0, done.err
    assert "WARNING" not in done.err
    assert "ERROR" not in done.err
    run = shelf.host.run()
    assert (run.status, run.counts.scraped, run.counts.lost) == ("finished", 0, 0)
    assert shelf.rows() == rows
    if source == "shelf_never":
        assert (second.books, second.requests) == (0, OTHER_REQUESTS)
        assert f"'deltafetch/skipped': {BOOKS}" in done.err
    else:
        # Every listing in full, every book a question.
        assert (second.books, second.not_modified) == (BOOKS, BOOKS)
        assert second.by_status["200"] == LISTINGS
        assert f"'crawler/pages/not_modified': {BOOKS}" in done.err

    control(shelf.base_url, revision=2, share=0.1)
    done, third = shelf.crawl()
    assert done.status == 0, done.err
    changed = 0 if source == "shelf_never" else changed_count(BOOKS, 0.1)
    assert shelf.host.run().counts.stored == 2 * changed
    assert len(shelf.rows()) == 2 * (BOOKS + changed)
    assert third.not_modified == (0 if source == "shelf_never" else BOOKS - changed)
    assert shelf.host.report("spool", "status")["findings"] == []


@pytest.mark.slow
def test_always_reads_everything(shelf: Shelf) -> None:
    shelf.source = "shelf_always"
    for _ in range(2):
        _done, visits = shelf.crawl()
        assert (visits.books, visits.not_modified) == (BOOKS, 0)
    assert not file_of(shelf).parent.exists()
    assert shelf.host.run().counts.unchanged == 2 * BOOKS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("validators", "not_modified", "same_content"),
    [("tag", BOOKS, 0), ("date", BOOKS, 0), ("none", 0, BOOKS), ("unheeded", 0, BOOKS)],
)
def test_whatever_a_page_is_known_by(
    validators: str, not_modified: int, same_content: int, shelf: Shelf
) -> None:
    control(shelf.base_url, validators=validators)
    assert shelf.crawl()[0].status == 0
    rows = shelf.rows()
    done, visits = shelf.crawl()
    assert visits.not_modified == not_modified
    assert ("'crawler/pages/same_content'" in done.err) is bool(same_content)
    assert shelf.host.run().counts.scraped == 0
    control(shelf.base_url, revision=2, share=0.1)
    assert shelf.crawl()[0].status == 0
    assert len(shelf.rows()) == len(rows) + 2 * changed_count(BOOKS, 0.1)


@pytest.mark.slow
def test_a_site_that_sends_the_old_tag_for_a_new_page_is_found_out(shelf: Shelf) -> None:
    control(shelf.base_url, validators="stuck")
    assert shelf.crawl()[0].status == 0
    changed = changed_count(BOOKS, 0.1)
    control(shelf.base_url, revision=2, share=0.1)
    done, _visits = shelf.crawl()
    assert done.status == 0
    assert done.err.count("but its site sent the ETag") == 1
    assert f"'crawler/pages/under_old_tag': {changed}" in done.err
    assert len(shelf.rows()) == 2 * (BOOKS + changed)
    # An honest site would have its answer believed: the pages it lied about are read all the same.
    control(shelf.base_url, validators="both")
    _done, visits = shelf.crawl()
    assert visits.not_modified <= BOOKS - changed
    assert shelf.host.run().counts.scraped == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "option"),
    [
        ("shelf", ("-s", "DELTAFETCH_ENABLED=0")),
        ("shelf", ("-s", "DELTAFETCH_RESET=1")),
        ("shelf", ("-a", "deltafetch_reset=1")),
        ("shelf_never", ("-a", "deltafetch_reset=1")),
    ],
)
def test_a_run_can_be_told_to_read_everything(source: str, option: tuple[str, str], shelf: Shelf) -> None:
    shelf.source = source
    shelf.crawl()
    _done, again = shelf.crawl(*option)
    assert (again.books, again.not_modified) == (BOOKS, 0)
    assert shelf.host.run().counts.unchanged == 2 * BOOKS
    _done, later = shelf.crawl()
    assert later.by_status["200"] == LISTINGS


@pytest.mark.slow
@pytest.mark.parametrize("source", ["shelf", "shelf_never"])
def test_a_page_that_was_read_too_long_ago_is_read_in_full(source: str, shelf: Shelf) -> None:
    shelf.source = source
    shelf.crawl()
    _done, again = shelf.crawl("-s", "DELTAFETCH_EXPIRY_DAYS=0")
    assert (again.books, again.not_modified) == (BOOKS, 0)
    assert shelf.host.run().counts.unchanged == 2 * BOOKS


@pytest.mark.slow
def test_the_memory_can_be_elsewhere(shelf: Shelf, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    for expected in (0, BOOKS):
        done, visits = shelf.crawl("-s", f"DELTAFETCH_DIR={elsewhere}")
        assert (done.status, visits.not_modified) == (0, expected)
    assert [path.name for path in sorted(elsewhere.iterdir())] == ["shelf.lock", "shelf.sqlite"]
    assert not file_of(shelf).parent.exists()


@pytest.mark.slow
def test_a_damaged_memory_costs_a_warning_and_a_fetch_of_everything(shelf: Shelf) -> None:
    shelf.crawl()
    rows = shelf.rows()
    file_of(shelf).write_bytes(b"this is no database " * 1000)
    done, visits = shelf.crawl()
    assert (done.status, visits.books, visits.not_modified) == (0, BOOKS, 0)
    assert done.err.count("was damaged") == 1
    assert shelf.rows() == rows
    _done, visits = shelf.crawl()
    assert visits.not_modified == BOOKS


@pytest.mark.slow
def test_a_second_crawl_of_the_source_at_the_same_time_goes_without(shelf: Shelf) -> None:
    shelf.crawl()
    control(shelf.base_url, faults=[{"kind": "delay", "delay_seconds": 3.0, "paths": r"page-3\.html$"}])
    with shelf.host.crawling(*shelf.command()) as owner:
        owner.wait_until(lambda: file_of(shelf).with_suffix(".lock").exists())
        owner.wait_for_log("Spider opened")
        done = shelf.host.crawl(*shelf.command())
        assert done.status == 0
        assert "is out of use, so this run fetches pages again: another process has it" in done.err
        assert shelf.host.run().counts.unchanged == 2 * BOOKS
        assert owner.end().status == 0
    _done, visits = shelf.crawl()
    assert visits.not_modified == BOOKS


def test_a_word_that_is_none_of_the_three_is_refused(lonely_host: Host, sites: dict[str, str]) -> None:
    done = lonely_host.crawl("shelf_sometimes", *TEST_SPIDERS, *addresses(sites["books"]))
    assert done.status == 2
    assert (
        "revisit='sometimes' of the spider 'shelf_sometimes'; allowed: never, if-changed, always" in done.err
    )
    assert not lonely_host.state_dir.exists()
