"""Whole crawls on a good day: what becomes rows, what the books say, and what the next crawl adds."""

import hashlib
import json
import os
import socket
from collections import Counter
from pathlib import Path

import pytest

from demo.sites.process import control
from demo.sites.revision import changed_count
from demo.sites.server import SCALES
from tests.support.crawls import TEST_SPIDERS, Host, addresses

pytestmark = pytest.mark.e2e

SMALL = SCALES["small"]
COUNTS = {
    "books": SMALL.books,
    "python_docs": SMALL.python_docs,
    "earthquakes": SMALL.earthquakes,
    "pypi_releases": SMALL.pypi_releases,
}


def pipelines(**orders: int) -> tuple[str, str]:
    """Return the option that puts pipelines of the tests beside delivery."""
    given = {f"tests.e2e.components.{name}": order for name, order in orders.items()}
    return ("-s", f"ITEM_PIPELINES={json.dumps(given | {'pipelines.deliver.DeliverPipeline': 900})}")


def listening_ports(pid: int) -> list[int]:
    """Return the TCP ports a process listens on (proc(5): net/tcp, state 0A)."""
    sockets = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [
        int(fields[1].split(":")[1], 16)
        for fields in lines
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets
    ]


@pytest.mark.parametrize(
    "source",
    [
        "books",
        pytest.param("pypi_releases", marks=pytest.mark.slow),
        pytest.param("python_docs", marks=pytest.mark.slow),
        pytest.param("earthquakes", marks=pytest.mark.slow),
    ],
)
def test_stores_every_item_once_and_a_second_crawl_adds_nothing(
    source: str, host: Host, sites: dict[str, str]
) -> None:
    # The page memory would keep the second from seeing any of them.
    for option in ("DELTAFETCH_ENABLED=1", "DELTAFETCH_ENABLED=0"):
        done = host.crawl(source, *addresses(sites[source]), "-s", option)
        assert done.status == 0, done.err

    versions = host.versions(source)
    assert len(versions) == len({key for key, _content in versions}) == COUNTS[source]
    first, second = host.runs()
    # pypi_releases goes by way of the spool; its account has the rest.
    account = {row["source"]: row for row in host.report("spool", "status")["sources"]}[source]
    assert first.counts.scraped == second.counts.scraped == COUNTS[source]
    assert (account["stored"], account["unchanged"]) == (COUNTS[source], COUNTS[source])
    assert account["scraped"] == 2 * COUNTS[source]
    assert not account["findings"]
    assert [run.status for run in (first, second)] == ["finished", "finished"]


def test_a_thing_that_changes_and_changes_back_has_three_rows(host: Host, sites: dict[str, str]) -> None:
    for revision in (1, 2, 1):
        control(sites["books"], revision=revision)
        assert host.crawl("books", *addresses(sites["books"])).status == 0

    rows = Counter(key for key, _content in host.versions("books"))
    changed = changed_count(SMALL.books, share=0.1)
    assert Counter(rows.values()) == {3: changed, 1: SMALL.books - changed}
    versions = host.versions("books")
    for key in (key for key, number in rows.items() if number == 3):
        first, second, third = (content for name, content in versions if name == key)
        assert first == third != second


@pytest.mark.parametrize(
    ("source", "is_window"),
    [
        ("earthquakes", False),
        pytest.param("pypi_releases", True, marks=pytest.mark.slow),
        pytest.param("python_docs", False, marks=pytest.mark.slow),
    ],
)
def test_what_has_changed_since_the_last_crawl_is_added_and_nothing_else(
    source: str, is_window: bool, host: Host, sites: dict[str, str]
) -> None:
    """An event or a page that is revised gets a second row; a feed that has moved on, rows of new things."""
    for revision in (1, 2):
        control(sites[source], revision=revision)
        done = host.crawl(source, *addresses(sites[source]))
        assert done.status == 0, done.err

    changed = changed_count(COUNTS[source], share=0.1)
    assert changed > 0
    rows = Counter(key for key, _content in host.versions(source))
    wanted = {1: COUNTS[source] + changed} if is_window else {2: changed, 1: COUNTS[source] - changed}
    assert Counter(rows.values()) == wanted


def test_the_books_of_a_run_are_the_same_in_the_ledger_in_postgresql_and_in_the_report(host: Host) -> None:
    done = host.crawl("stream", *TEST_SPIDERS, "-a", "pages=7", "-a", "items=30")
    assert done.status == 0, done.err

    run = host.run()
    assert (run.status, run.error, run.host) == ("finished", None, "test-host")
    assert (run.counts.pages, run.counts.scraped, run.counts.stored, run.counts.lost) == (7, 210, 210, 0)
    [job] = host.query(
        "SELECT run_id, job_name, host, status, records_processed, error_message,"
        " extract(epoch FROM start_time)::float, extract(epoch FROM end_time)::float, stats FROM crawler_jobs"
    )
    assert job[:6] == (run.run_id, "stream", "test-host", "finished", 210, None)
    assert job[6] == pytest.approx(run.started_at, abs=0.001)
    assert run.started_at < job[7] <= (run.ended_at or 0.0) + 0.001
    assert job[8] == json.loads(run.counts.to_json())
    assert "210 scraped = 210 stored + 0 unchanged + 0 spooled" in done.err

    report = host.report("spool", "status")
    [source] = report["sources"]
    assert report["findings"] == []
    assert (source["pages"], source["scraped"], source["stored"], source["runs"]) == (7, 210, 210, 1)
    for_people = host.scrapy("spool", "status")
    assert for_people.status == 0
    assert "adds up" in for_people.out
    assert "DOES NOT" not in for_people.out


@pytest.mark.slow
def test_a_run_is_announced_in_postgresql_while_it_runs(host: Host) -> None:
    with host.crawling(*host.stream(pages=200, pause=0.1)) as crawl:
        crawl.wait_until(
            lambda: host.query("SELECT status, end_time FROM crawler_jobs") == [("running", None)]
        )


def test_what_a_row_says_is_what_the_spider_yielded(host: Host) -> None:
    assert host.crawl("stream", *TEST_SPIDERS, "-a", "pages=1", "-a", "items=3").status == 0
    rows = host.query("SELECT item_key, url, data, run_id, host, processed FROM scraped_data ORDER BY id")
    run_id = host.run().run_id
    assert [row[:2] for row in rows] == [("0", "data:,0"), ("1", "data:,0"), ("2", "data:,0")]
    assert all(row[3:] == (run_id, "test-host", False) for row in rows)
    assert rows[2][2]["number"] == 2
    assert rows[2][2]["value"] == hashlib.md5(b"1:2").hexdigest()


def test_a_dropped_item_is_counted_and_costs_nothing_else(host: Host) -> None:
    done = host.crawl("stream", *TEST_SPIDERS, *pipelines(Dropping=100))
    assert done.status == 0, done.err
    counts = host.run().counts
    assert (counts.scraped, counts.stored, counts.dropped, counts.lost) == (200, 180, 20, 0)
    assert host.run().status == "finished"
    assert host.report("spool", "status")["findings"] == []
    # The pages that had one are fetched again by the next run.
    assert "'crawler/pages/unfinished': 10" in done.err


def test_an_item_lost_to_a_failing_pipeline_is_said_out_loud_everywhere(host: Host) -> None:
    done = host.crawl("stream", *TEST_SPIDERS, *pipelines(Failing=100))
    assert done.status == 1
    run = host.run()
    lost = len(range(0, 200, 7))
    assert (run.counts.scraped, run.counts.stored, run.counts.lost) == (200, 200 - lost, lost)
    assert run.status == "failed"
    assert f"{lost} of 200 items are not safe" in (run.error or "")
    assert host.query("SELECT status, error_message FROM crawler_jobs") == [("failed", run.error)]
    status = host.scrapy("spool", "status")
    assert status.status == 1
    assert "DOES NOT ADD UP" in status.out
    assert f"{lost} of them" in status.out
    assert host.count("stream") == 200 - lost


def test_what_a_callback_yielded_before_it_raised_is_safe_and_its_page_is_unfinished(host: Host) -> None:
    done = host.crawl("stream", *TEST_SPIDERS, "-a", "fails_at=110")
    assert done.status == 0, done.err
    keys = {int(key) for key, _content in host.versions("stream")}
    # Page 5 holds 100 to 119.
    assert keys == set(range(200)) - set(range(110, 120))
    assert "'crawler/pages/unfinished': 1" in done.err
    assert "'crawler/pages/settled': 9" in done.err
    assert host.run().status == "finished"


def test_a_spider_whose_own_pipelines_push_delivery_out_is_refused(host: Host) -> None:
    done = host.crawl("stream", *TEST_SPIDERS, "-s", 'ITEM_PIPELINES={"tests.e2e.components.Dropping": 100}')
    assert done.status == 2
    assert "lacks 'pipelines.deliver.DeliverPipeline'" in done.err
    assert not host.state_dir.exists()


def test_the_names_that_scrapyd_gives_a_spider_are_no_misuse(
    lonely_host: Host, sites: dict[str, str]
) -> None:
    given = ("-a", "_job=0a1b", "-a", "_version=1")
    done = lonely_host.crawl("earthquakes", *addresses(sites["earthquakes"], *given))
    assert done.status == 0, done.err
    assert lonely_host.run().counts.scraped == SMALL.earthquakes


def test_nothing_listens_nothing_is_exported_and_no_item_is_in_the_log(host: Host) -> None:
    with host.crawling(*host.stream("-L", "DEBUG", pages=100, pause=0.1)) as crawl:
        crawl.wait_until(lambda: host.count("stream") > 20)
        assert listening_ports(crawl.process.pid) == []
        log = crawl.log.read_text()
    with socket.create_server(("127.0.0.1", 0)) as control_sample:
        assert control_sample.getsockname()[1] in listening_ports(os.getpid())
    for absent in ("telnet", "remote_control", "feedexport", "memdebug"):
        assert absent not in log.lower().replace("telnetconsole_enabled", "").replace(
            "remote_control_enabled", ""
        )
    assert hashlib.md5(b"1:0").hexdigest() not in log
