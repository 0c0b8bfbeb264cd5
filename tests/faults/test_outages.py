"""Crawls through outages of PostgreSQL: the same rows as on a good day, also of two hosts; a spared card."""

from collections import Counter
from pathlib import Path

import pytest

from demo.postgres import PostgresServer
from tests.faults.conftest import Form
from tests.support.crawls import Host, make_tables, stream, with_components
from tests.support.deliveries import Reckoning
from tests.support.fault_report import Control, FaultReport, Trial
from tests.support.reckoning import reckon
from tests.support.watch import Watch

pytestmark = pytest.mark.e2e

OUTAGE = "outage of PostgreSQL while a crawl runs"
TWO_HOSTS = "two hosts crawl one source, PostgreSQL killed"
TWO_CRAWLS = "two crawls of one host, PostgreSQL down"
CARD = "bytes on the card, a whole crawl, PostgreSQL up"
PAGES, ITEMS = 60, 20
EVERYTHING = list(range(PAGES * ITEMS))


@pytest.mark.parametrize(
    "outage",
    [
        "killed in the middle",
        pytest.param("frozen in the middle", marks=pytest.mark.slow),
        pytest.param("away from the start", marks=pytest.mark.slow),
    ],
)
def test_an_outage_leaves_the_rows_of_a_good_day(
    outage: str, host: Host, postgres: PostgresServer, form: Form, fault_report: FaultReport
) -> None:
    host = Host(host.folder, host.database_url, settings={"CRAWLER_DELIVERY_CALL_DEADLINE_SECONDS": "2"})
    if outage == "away from the start":
        postgres.stop()
    with host.crawling(*host.stream(pages=PAGES, items=ITEMS, pause=0.04)) as crawl:
        if outage != "away from the start":
            crawl.wait_until(lambda: host.count("stream") > 200)
            (postgres.kill if outage.startswith("killed") else postgres.freeze)()
        crawl.wait_for_log("PostgreSQL does not take items; they go to the spool")
        crawl.wait_until(lambda: len(host.waiting("stream")) > 100)
        postgres.thaw()
        postgres.start()
        done = crawl.end()
    assert done.status == 0, done.err
    counts = host.run().counts
    assert (counts.scraped, counts.lost) == (len(EVERYTHING), 0)
    assert counts.spooled > 100
    found = reckon(host, EVERYTHING)
    assert found == Reckoning(len(EVERYTHING), lost=0, twice=0, wrong=0)
    assert host.report("spool", "status")["findings"] == []
    assert host.query("SELECT status, records_processed FROM crawler_jobs") == [("finished", len(EVERYTHING))]
    figures = f"{counts.stored:,} stored at once, {counts.spooled:,} by way of the spool"
    fault_report.trials.append(Trial(OUTAGE, form.name, None, {outage: 1}, *found, figures=figures))


@pytest.mark.slow
def test_control_without_a_spool_an_outage_costs_items(
    host: Host, postgres: PostgresServer, fault_report: FaultReport
) -> None:
    extension = with_components("EXTENSIONS", **{"saboteurs.ForgetsWhatIsRefused": 100})
    with host.crawling(*host.stream(*extension, pages=PAGES, items=ITEMS, pause=0.04)) as crawl:
        crawl.wait_until(lambda: host.count("stream") > 200)
        postgres.kill()
        crawl.wait_for_log("PostgreSQL does not take items; they go to the spool")
        postgres.start()
        crawl.end()
    found = reckon(host, EVERYTHING)
    assert found.lost
    outcome = f"{found.lost:,} of {found.items:,} items lost"
    fault_report.controls.append(Control(OUTAGE, "the spool: a batch PostgreSQL refuses is dropped", outcome))


@pytest.mark.slow
def test_a_crawl_goes_back_to_postgresql_by_itself_and_empties_the_spool(
    host: Host, postgres: PostgresServer
) -> None:
    postgres.kill()
    with host.crawling(*host.stream(pages=1000, items=ITEMS, pause=0.05)) as crawl:
        crawl.wait_until(lambda: len(host.waiting("stream")) > 100)
        postgres.start()
        crawl.wait_for_log("PostgreSQL takes items again")
        crawl.wait_until(lambda: host.count("stream") > 200)
        crawl.wait_until(lambda: not host.waiting("stream"))


@pytest.fixture
def two_hosts(tmp_path: Path, database_url: str) -> tuple[Host, Host]:
    """Two hosts, each with a card of its own, and one database."""
    make_tables(database_url)
    return (
        Host(tmp_path / "pi-1", database_url, name="pi-1"),
        Host(tmp_path / "pi-2", database_url, name="pi-2"),
    )


@pytest.mark.slow
def test_two_hosts_on_one_source_store_no_version_twice(
    two_hosts: tuple[Host, Host], postgres: PostgresServer, form: Form, fault_report: FaultReport
) -> None:
    first, second = two_hosts
    editions = (1, 2, 1)
    for edition in editions:
        arguments = {"pages": PAGES, "items": ITEMS, "pause": 0.02, "edition": edition}
        with (
            first.crawling(*first.stream(**arguments)) as one,
            second.crawling(*second.stream(**arguments)) as other,
        ):
            if edition == 2:
                one.wait_until(lambda: len(first.taken()) > len(EVERYTHING) + 300)
                postgres.kill()
                one.wait_until(lambda: len(first.taken()) > len(EVERYTHING) + 600)
                postgres.start()
            assert one.end().status == other.end().status == 0
        for host in (first, second):
            assert host.report("spool", "drain")["waiting"] == 0
    found = reckon(first, EVERYTHING, versions=len(editions))
    assert (found.lost, found.twice, found.wrong) == (0, 0, 0)
    check_neighbours_differ(first)
    hosts = Counter(name for (name,) in first.query("SELECT host FROM scraped_data"))
    # Which of them comes first is chance, and may be the same one throughout.
    assert set(hosts) <= {"pi-1", "pi-2"}
    assert sum(host.run().counts.scraped for host in two_hosts) == 2 * len(EVERYTHING)
    spooled = sum(run.counts.spooled for host in two_hosts for run in host.runs())
    figures = f"{hosts.total():,} rows for {6 * len(EVERYTHING):,} items, of which {spooled:,} were spooled"
    thrown = {"PostgreSQL kills": 1}
    fault_report.trials.append(Trial(TWO_HOSTS, form.name, None, thrown, *found, figures=figures))


@pytest.mark.slow
def test_control_two_hosts_with_a_plain_insert_store_items_twice(
    two_hosts: tuple[Host, Host], fault_report: FaultReport
) -> None:
    first, _second = two_hosts
    first.query("DROP INDEX scraped_data_versions")
    plain = with_components("EXTENSIONS", **{"saboteurs.PlainInsert": 100})
    for host in two_hosts:
        assert host.crawl(*host.stream(*plain, pages=PAGES, items=ITEMS)).status == 0
    found = reckon(first, EVERYTHING)
    assert found.twice
    outcome = f"{found.twice:,} of {found.items:,} items stored twice"
    fault_report.controls.append(
        Control(TWO_HOSTS, "the comparison with what is stored: plain INSERT", outcome)
    )


@pytest.mark.slow
def test_two_crawls_of_one_host_share_its_spool(
    host: Host, postgres: PostgresServer, form: Form, fault_report: FaultReport
) -> None:
    postgres.kill()
    arguments = {"pages": PAGES, "items": ITEMS, "pause": 0.02}
    with (
        host.crawling(*host.stream(**arguments)) as one,
        host.crawling(*host.stream(**arguments)) as other,
    ):
        assert one.end().status == other.end().status == 0
    assert [run.counts.spooled for run in host.runs()] == [len(EVERYTHING)] * 2
    assert Counter(Counter(host.waiting("stream")).values()) == {2: len(EVERYTHING)}
    postgres.start()
    found = reckon(host, EVERYTHING)
    assert (found.lost, found.twice, found.wrong) == (0, 0, 0)
    [source] = host.report("spool", "status")["sources"]
    assert (source["stored"], source["unchanged"]) == (len(EVERYTHING), len(EVERYTHING))
    assert sorted(job[0] for job in host.query("SELECT status FROM crawler_jobs")) == ["finished"] * 2
    fault_report.trials.append(Trial(TWO_CRAWLS, form.name, None, {"PostgreSQL kills": 1}, *found))


def check_neighbours_differ(host: Host) -> None:
    """No version of a thing is stored next to an equal one."""
    twice = host.query(
        "SELECT item_key FROM (SELECT item_key, content_hash = lag(content_hash) OVER"
        " (PARTITION BY key_hash ORDER BY scraped_at, content_hash) AS is_repeat"
        " FROM scraped_data) AS history WHERE is_repeat"
    )
    assert twice == []


@pytest.mark.slow
@pytest.mark.parametrize("with_postgres", [True, False])
def test_a_crawl_spares_the_card_while_postgresql_is_up(
    with_postgres: bool, host: Host, postgres: PostgresServer, form: Form, fault_report: FaultReport
) -> None:
    """Without PostgreSQL, the negative control, the payload does reach the card."""
    host = Host(host.folder, host.database_url, settings={"CRAWLER_SPOOL_MAX_BYTES": "64M"})
    # The files are made, and reserved to their cap, by the first crawl.
    assert host.crawl(*host.stream(pages=1)).status == 0
    if not with_postgres:
        postgres.kill()
    items, item_bytes = 2000, 10_000
    payload = items * item_bytes
    # The witness writes too, so this crawl does without one.
    command = stream(first_page=1, pages=items // ITEMS, items=ITEMS, text_bytes=item_bytes)
    with host.crawling(*command) as crawl, Watch(crawl.written_bytes) as card:
        assert crawl.end().status == 0
        log_bytes = crawl.log.stat().st_size
    written = max(0, card.last - log_bytes)
    figures = f"{written:,} bytes written for {payload:,} bytes of items: {written / payload:.2%}"
    postgres.start()
    found = reckon(host, list(range((items // ITEMS + 1) * ITEMS)))
    assert (found.lost, found.twice, found.wrong) == (0, 0, 0)
    if with_postgres:
        assert written < payload // 100
        fault_report.trials.append(Trial(CARD, form.name, None, {}, *found, figures=figures))
    else:
        assert written > payload // 4
        fault_report.controls.append(Control(CARD, "PostgreSQL: it is down", figures))
