"""What whole crawls need: local sites, and a host with tables in a database of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.sites.process import control, running_sites
from tests.support.crawls import Host, make_tables


@pytest.fixture(scope="session")
def sites_of_session() -> Iterator[dict[str, str]]:
    with running_sites(scale="small") as addresses:
        yield addresses


@pytest.fixture
def sites(sites_of_session: dict[str, str]) -> dict[str, str]:
    """The base URL of each site, all in their first revision and without faults."""
    for base_url in sites_of_session.values():
        control(base_url, revision=1, share=0.1, faults=[])
    return sites_of_session


@pytest.fixture
def host(tmp_path: Path, database_url: str) -> Host:
    """A host whose database has its tables and no rows."""
    make_tables(database_url)
    return Host(tmp_path, database_url)


@pytest.fixture
def lonely_host(tmp_path: Path) -> Host:
    """A host without a database."""
    return Host(tmp_path)
