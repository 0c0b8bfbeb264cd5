"""The documentation spider over the real pages of Debian's python3-doc, on a good day and a bad one."""

import time
from pathlib import Path

import pytest

from demo.postgres import PostgresServer
from demo.sites.process import requests_served, running_sites
from tests.support.crawls import Host, addresses, make_tables
from tests.support.tools import require_path

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PLACES = (Path("/usr/share/doc/python3/html"), Path("/usr/share/doc/python3.11/html"))


def documentation() -> Path:
    found = next((place for place in PLACES if (place / "py-modindex.html").exists()), PLACES[0])
    return require_path(found / "py-modindex.html", install="apt-get install python3-doc").parent


def test_real_pages_become_the_same_rows_through_a_kill_of_postgresql(
    tmp_path: Path, database_url: str, postgres: PostgresServer
) -> None:
    make_tables(database_url)
    with running_sites(scale="small", python_docs_dir=documentation()) as sites:
        base_url = sites["python_docs"]
        undisturbed = Host(tmp_path / "good day", database_url)
        started_at = time.monotonic()
        done = undisturbed.crawl("python_docs", *addresses(base_url))
        seconds = time.monotonic() - started_at
        assert done.status == 0, done.err
        counts = undisturbed.run().counts
        rows = undisturbed.versions("python_docs")
        assert len(rows) == counts.scraped == counts.stored > 100
        bytes_served = requests_served(base_url)["bytes_sent"]
        print(f"{counts.pages} pages, {bytes_served} bytes, {len(rows)} rows, {seconds:.1f} s")

        undisturbed.query("TRUNCATE scraped_data")
        disturbed = Host(
            tmp_path / "bad day",
            database_url,
            settings={"CRAWLER_DELIVERY_BATCH_MAX_ITEMS": "20", "CRAWLER_DELIVERY_LINGER_SECONDS": "0.2"},
        )
        slowly = ("-s", "CONCURRENT_REQUESTS_PER_DOMAIN=2")
        started_at = time.monotonic()
        with disturbed.crawling("python_docs", *addresses(base_url, *slowly)) as crawl:
            crawl.wait_until(lambda: disturbed.count("python_docs") >= 40)
            postgres.kill()
            crawl.wait_for_log("PostgreSQL does not take items; they go to the spool")
            postgres.start()
            done = crawl.end(120)
        seconds = time.monotonic() - started_at
        assert done.status == 0, done.err
    assert disturbed.report("spool", "drain")["waiting"] == 0
    assert disturbed.versions("python_docs") == rows
    spooled = disturbed.run().counts.spooled
    assert spooled > 0
    print(f"PostgreSQL killed and started: {len(rows)} rows, {spooled} by way of the spool, {seconds:.1f} s")
