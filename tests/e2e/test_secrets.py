"""The password of the database is in no place where somebody else, or a backup, could read it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.postgres import PostgresServer
from tests.support.crawls import Host, make_tables, query

pytestmark = pytest.mark.e2e

PASSWORD = "tr0ub4dor&3-äöü/x"
IN_A_URL = "tr0ub4dor%263-%C3%A4%C3%B6%C3%BC%2Fx"
WRONG = "wr0ng-4dor"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    folder = tmp_path_factory.mktemp("guarded")
    with PostgresServer(folder / "server", password=PASSWORD) as server:
        yield server


def assert_secret(*texts: str, secrets: tuple[str, ...] = (PASSWORD, IN_A_URL)) -> None:
    for text in texts:
        for secret in secrets:
            assert secret not in text


def everything_in(folder: Path) -> str:
    """Return all that every file below the folder holds, as Latin-1, and as the UTF-8 it may be."""
    contents = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert contents
    return "".join(content.decode("latin-1") + content.decode(errors="replace") for content in contents)


@pytest.mark.parametrize("form", ["variable", pytest.param("file", marks=pytest.mark.slow)])
def test_the_password_is_nowhere_to_be_read(form: str, guarded: PostgresServer, tmp_path: Path) -> None:
    assert IN_A_URL in guarded.url
    make_tables(guarded.url)
    secret_file = tmp_path / "secret"
    secret_file.write_text(f"{guarded.url}\n")
    host = (
        Host(tmp_path / "host", guarded.url)
        if form == "variable"
        else Host(tmp_path / "host", settings={"DATABASE_URL_FILE": str(secret_file)})
    )
    with host.crawling(*host.stream("-L", "DEBUG", pages=30, pause=0.05)) as crawl:
        crawl.wait_until(lambda: bool(host.taken()))
        assert_secret(Path(f"/proc/{crawl.process.pid}/cmdline").read_text())
        done = crawl.end()
    assert done.status == 0, done.err
    assert "DEBUG" in done.err
    assert_secret(done.err)
    assert query(guarded.url, "SELECT count(*) FROM scraped_data") == [(600,)]
    for arguments in (("spool", "status", "--json"), ("initdb", "--json"), ("spool", "status"), ("initdb",)):
        reported = host.scrapy(*arguments)
        assert reported.status == 0, reported.said
        assert f"127.0.0.1:{guarded.port}/crawler" in reported.out
        assert_secret(reported.said)
    assert_secret(everything_in(host.folder))
    assert_secret(str(query(guarded.url, "SELECT * FROM crawler_jobs")))


@pytest.mark.slow
def test_a_wrong_password_is_reported_with_its_remedy_and_not_with_its_value(
    guarded: PostgresServer, tmp_path: Path
) -> None:
    host = Host(tmp_path, guarded.url.replace(IN_A_URL, WRONG))
    done = host.crawl(*host.stream("-L", "DEBUG", pages=2))
    assert done.status == 0, done.err
    assert "the password is wrong: correct DATABASE_URL or DATABASE_URL_FILE" in done.err
    assert host.run().counts.spooled == 40
    refused = host.scrapy("initdb")
    assert refused.status == 1
    assert "the password is wrong" in refused.err
    assert "Traceback" not in refused.err
    assert_secret(done.err, refused.said, everything_in(tmp_path), secrets=(WRONG,))


def test_the_search_for_the_secret_would_find_it(tmp_path: Path) -> None:
    (tmp_path / "leak").write_bytes(b"\x00\xff" + PASSWORD.encode())
    with pytest.raises(AssertionError):
        assert_secret(everything_in(tmp_path))
