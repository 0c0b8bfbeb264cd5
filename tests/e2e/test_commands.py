"""What an operator types, from a host without a database to one whose spool is empty again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.crawls import REPOSITORY, TEST_SPIDERS, Host, make_tables

pytestmark = pytest.mark.e2e

WRONG_SETTINGS = {
    "CRAWLER_STATE_DIR": "relative/path",
    "CRAWLER_HOST_NAME": "a host",
    "CRAWLER_CONTACT": "nobody",
    "CRAWLER_DELIVERY_BATCH_MAX_ITEMS": "0",
    "CRAWLER_DELIVERY_BATCH_MAX_BYTES": "many",
    "CRAWLER_DELIVERY_LINGER_SECONDS": "soon",
    "CRAWLER_DELIVERY_QUEUE_MAX_ITEMS": "-5",
    "CRAWLER_DELIVERY_CALL_DEADLINE_SECONDS": "1e9",
    "CRAWLER_SPOOL_MAX_BYTES": "12 parsecs",
    "CRAWLER_DELIVERY_LINGER_SECOND": "1",
    "DATABASE_URL": "postgresql://crawler:s3cr3t@[nas/crawler",
}


def test_without_a_database_everything_waits_until_it_is_drained(
    lonely_host: Host, database_url: str
) -> None:
    done = lonely_host.crawl("stream", *TEST_SPIDERS)
    assert done.status == 0, done.err
    assert "DATABASE_URL is not set: every item waits in the spool" in done.err
    assert lonely_host.run().counts.spooled == 200
    status = lonely_host.report("spool", "status")
    assert (status["database"], status["findings"]) == ("none", [])
    assert status["sources"][0]["spooled"] == 200
    exported = [json.loads(line) for line in lonely_host.scrapy("spool", "export").out.splitlines()]
    assert len([row for row in exported if row["table"] == "scraped_data"]) == 200
    refused = lonely_host.scrapy("spool", "drain")
    assert refused.status == 1
    assert "DATABASE_URL is not set; allowed: postgresql://" in refused.err

    host = Host(lonely_host.folder, database_url)
    too_soon = host.scrapy("spool", "drain")
    assert too_soon.status == 1
    assert "run `scrapy initdb`" in too_soon.out
    assert len(host.waiting("stream")) == 200
    assert host.scrapy("initdb").status == 0
    report = host.report("spool", "drain")
    assert (report["sent"], report["waiting"], report["error"]) == (202, 0, None)
    assert host.count("stream") == 200
    assert host.query("SELECT status, records_processed FROM crawler_jobs") == [("finished", 200)]
    status = host.report("spool", "status")
    assert (status["sources"][0]["stored"], status["findings"]) == (200, [])


def test_initdb_shows_applies_repeats_and_refuses_a_newer_schema(tmp_path: Path, database_url: str) -> None:
    host = Host(tmp_path, database_url)
    shown = host.scrapy("initdb", "--dry-run")
    assert shown.status == 0
    assert "CREATE TABLE scraped_data" in shown.out
    assert host.query("SELECT to_regclass('scraped_data')") == [(None,)]

    first, again = host.report("initdb"), host.report("initdb")
    assert first["migrations"] != []
    assert again == first | {"migrations": []}

    host.query("INSERT INTO crawler_schema (version, name, checksum) VALUES (999, 'later', 'x')")
    newer = host.scrapy("initdb")
    assert newer.status == 1
    assert "schema version 999" in newer.err
    assert "install the newer program" in newer.err
    # A crawl goes on: what it stores is checked by the tables themselves.
    assert host.crawl("stream", *TEST_SPIDERS, "-a", "pages=1").status == 0
    assert host.count("stream") == 20


def test_reports_ten_wrong_settings_at_once_and_starts_nothing(tmp_path: Path) -> None:
    host = Host(tmp_path, settings=WRONG_SETTINGS)
    for arguments in (("crawl", "books"), ("spool", "status"), ("initdb",)):
        done = host.scrapy(*arguments)
        assert done.status == 2
        assert "11 wrong setting(s); nothing was started" in done.err
        for name, value in WRONG_SETTINGS.items():
            assert name in done.err
            assert value in done.err or name in ("DATABASE_URL", "CRAWLER_DELIVERY_LINGER_SECOND")
        assert "did you mean CRAWLER_DELIVERY_LINGER_SECONDS?" in done.err
        assert "s3cr3t" not in done.said
        assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("crawl",), 2, "name one spider"),
        (("crawl", "nonesuch"), 2, "no spider 'nonesuch'; allowed: "),
        (("crawl", "books", "-a", "colour=blue"), 2, "unknown argument of BooksSpider: colour; allowed"),
        (("crawl", "books", "-a", "base_url=ftp://x"), 2, "base_url='ftp://x' of spider 'books' is not"),
        (("crawl", "books", "-s", "DATABASE_URL=postgresql://a:b@c/d"), 2, "DATABASE_URL is given with -s"),
        (("crawl", "books", "-s", "SPOOL_MAX_BYTES=1"), 2, "CRAWLER_SPOOL_MAX_BYTES='1'"),
        (("spool", "frobnicate"), 2, "invalid choice: 'frobnicate'"),
        (("spool", "status", "3"), 2, "status takes no ID"),
        (("spool", "dead", "--forget"), 2, "--forget deletes for good"),
        (("initdb", "now"), 2, "not understood: now"),
    ],
)
def test_says_what_was_wrong_with_a_command(
    arguments: tuple[str, ...], status: int, message: str, lonely_host: Host
) -> None:
    done = lonely_host.scrapy(*arguments)
    assert (done.status, message in done.err, "Traceback" in done.err) == (status, True, False), done.said
    assert not (lonely_host.state_dir / "runs.sqlite").exists()


def test_a_spider_that_cannot_keep_its_own_books_says_why(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.state_dir.mkdir()
    (host.state_dir / "spool.sqlite").mkdir()
    done = host.crawl("stream", *TEST_SPIDERS)
    assert done.status == 1
    # Scrapy's own extension stumbles over a crawl that never began; the last word is ours.
    assert f"The crawl ended: {host.state_dir}/spool.sqlite failed" in done.err.splitlines()[-1]


def test_a_state_folder_that_cannot_be_one_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = Host(tmp_path / "file").scrapy("crawl", "books")
    assert done.status == 2
    assert f"CRAWLER_STATE_DIR='{tmp_path}/file/state'" in done.err
    assert "Traceback" not in done.err


def test_a_state_folder_that_cannot_be_made_ends_the_crawl_with_its_reason(tmp_path: Path) -> None:
    # Root, too, may make nothing there.
    done = Host(tmp_path, settings={"CRAWLER_STATE_DIR": "/proc/data-crawler"}).scrapy("crawl", "books")
    assert done.status in (1, 2)
    assert "/proc/data-crawler" in done.err.splitlines()[-1]


@pytest.mark.slow
def test_a_damaged_ledger_is_set_aside_and_the_crawl_goes_on(tmp_path: Path, database_url: str) -> None:
    make_tables(database_url)
    host = Host(tmp_path, database_url)
    assert host.crawl("stream", *TEST_SPIDERS).status == 0
    ledger = host.state_dir / "runs.sqlite"
    with ledger.open("r+b") as file:
        file.write(b"\xff" * 8192)

    done = host.crawl("stream", *TEST_SPIDERS)
    assert done.status == 0, done.err
    assert "runs.sqlite was damaged" in done.err
    assert list(host.state_dir.glob("runs.sqlite.damaged-*"))
    assert host.run().counts.unchanged == 200
    assert host.scrapy("spool", "status").status == 0


def test_listing_the_spiders_loads_no_driver() -> None:
    read = (
        "import sys; from scrapy.cmdline import execute\n"
        "try: execute(['scrapy', 'list'])\n"
        "except SystemExit: print(sorted({'psycopg2', 'sqlite3', 'orjson', 'psutil'} & sys.modules.keys()))"
    )
    done = Host(Path("/nonexistent"))
    environment = done.environment | {"CRAWLER_STATE_DIR": "/tmp"}
    printed = run_python(read, environment)
    assert printed.split("\n")[:-1] == [
        *sorted(file.stem for file in REPOSITORY.glob("spiders/[a-z]*.py")),
        "[]",
    ]


def run_python(script: str, environment: dict[str, str]) -> str:
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout


def test_a_foreign_package_of_the_same_name_is_reported_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "extensions").mkdir()
    (tmp_path / "extensions" / "__init__.py").touch()
    host = Host(tmp_path / "host", settings={"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"})
    done = host.scrapy("crawl", "books")
    assert done.status == 2
    assert done.err.splitlines()[-1].startswith(f"CR-E001: package 'extensions' is {tmp_path}/extensions/")
    assert "uninstall the distribution" in done.err
    assert not host.folder.exists()
