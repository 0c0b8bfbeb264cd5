"""The operator makes a mistake: nothing dies of it, the log says what to do, and afterwards all arrives."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from crawler.delivery.courier import Tally
from demo.postgres import DATABASE, ROLE, PostgresServer, temporary_server
from tests.conftest import MakeSink, run_as_superuser
from tests.faults.conftest import Form, MakeDelivery
from tests.support.deliveries import eventually
from tests.support.delivery import COLUMNS, SHOP, make_schema, observations, rows
from tests.support.fault_report import Control, FaultReport

pytestmark = pytest.mark.integration

FAULT = "schema, permission or login error"
PASSWORD = "right"
BATCH = 20

Act = Callable[[PostgresServer], None]


@dataclass(frozen=True)
class Mistake:
    """What an operator does, how it is undone, and what the log must say in between."""

    make: Act
    mend: Act
    remedy: str


def as_owner(statements: str) -> Act:
    """Return an act of the database's owner."""

    def act(server: PostgresServer) -> None:
        rows(server.url, statements)

    return act


def as_superuser(*statements: str) -> Act:
    """Return an act of the server's operator."""

    def act(server: PostgresServer) -> None:
        for statement in statements:
            run_as_superuser(server, statement)

    return act


def recreate_schema(server: PostgresServer) -> None:
    """Do what `scrapy initdb` does with a database that has nothing of ours."""
    rows(server.url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    make_schema(server.url)


def recreate_database(server: PostgresServer) -> None:
    """Do what the remedy says."""
    run_as_superuser(server, f"CREATE DATABASE {DATABASE} OWNER {ROLE}")
    make_schema(server.url)


END_SESSIONS = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'"
MISTAKES = {
    "dropped column": Mistake(
        as_owner("DROP VIEW latest_scraped_data; ALTER TABLE scraped_data DROP COLUMN host"),
        as_owner("ALTER TABLE scraped_data ADD COLUMN host text"),
        "a column is missing: run `scrapy initdb`",
    ),
    "renamed table": Mistake(
        as_owner("ALTER TABLE scraped_data RENAME TO other"),
        as_owner("ALTER TABLE other RENAME TO scraped_data"),
        "a table is missing: run `scrapy initdb`",
    ),
    "revoked permission": Mistake(
        as_owner("REVOKE INSERT ON scraped_data FROM CURRENT_USER"),
        as_owner("GRANT INSERT ON scraped_data TO CURRENT_USER"),
        "a permission is missing: as the database's owner run GRANT",
    ),
    "changed password": Mistake(
        as_superuser(f"ALTER ROLE {ROLE} PASSWORD 'other'", END_SESSIONS),
        as_superuser(f"ALTER ROLE {ROLE} PASSWORD '{PASSWORD}'"),
        "the password is wrong: correct DATABASE_URL",
    ),
    "dropped database": Mistake(
        as_superuser(f"DROP DATABASE {DATABASE} WITH (FORCE)"),
        recreate_database,
        "the database does not exist: create it with createdb, then run `scrapy initdb`",
    ),
}
RARER_MISTAKES = {
    "dropped table": Mistake(
        as_owner("DROP TABLE scraped_data CASCADE"),
        recreate_schema,
        "a table is missing: run `scrapy initdb`",
    ),
    "renamed column": Mistake(
        as_owner("ALTER TABLE scraped_data RENAME host TO machine"),
        as_owner("ALTER TABLE scraped_data RENAME machine TO host"),
        "a column is missing: run `scrapy initdb`",
    ),
    "forbidden login": Mistake(
        as_superuser(f"ALTER ROLE {ROLE} NOLOGIN", END_SESSIONS),
        as_superuser(f"ALTER ROLE {ROLE} LOGIN"),
        "the login is refused: check DATABASE_URL and pg_hba.conf",
    ),
}


@pytest.fixture(scope="module")
def server_of_module() -> Iterator[PostgresServer]:
    """A server that asks for a password."""
    with temporary_server(password=PASSWORD, durable=False) as server:
        yield server


@pytest.fixture
def server(server_of_module: PostgresServer) -> PostgresServer:
    """The same, as it was before anybody made a mistake: this version's schema, and no rows."""
    run_as_superuser(server_of_module, f"ALTER ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
    run_as_superuser(server_of_module, f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
    recreate_database(server_of_module)
    return server_of_module


@pytest.mark.parametrize(
    "name", [*MISTAKES, *(pytest.param(name, marks=pytest.mark.slow) for name in RARER_MISTAKES)]
)
def test_everything_waits_until_the_operator_acts(
    make_delivery: MakeDelivery,
    make_sink: MakeSink,
    server: PostgresServer,
    form: Form,
    fault_report: FaultReport,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    mistake = (MISTAKES | RARER_MISTAKES)[name]
    sink = make_sink(server.url)
    # Connected, and of a source of its own: what is stored may go with the database.
    sink.write(SHOP._replace(source="before"), COLUMNS, observations(1, source="before"))
    mistake.make(server)
    delivery = make_delivery(sink)
    batches = form.pick(short=3, full=50)
    for number in range(batches):
        delivery.secure(observations(BATCH, first=number * BATCH))
    assert eventually(lambda: mistake.remedy in caplog.text)
    said = [entry.levelno for entry in caplog.records if mistake.remedy in entry.getMessage()]
    assert set(said) == {logging.ERROR}
    assert delivery.courier.tally(SHOP) == Tally(spooled=batches * BATCH)
    assert delivery.waiting == batches * BATCH
    assert delivery.dead == []

    mistake.mend(server)
    delivery.drain(seconds=60)
    reckoning = delivery.reckon(server.url)
    assert reckoning == (batches * BATCH, 0, 0, 0)
    assert delivery.dead == []
    assert delivery.courier.last_error == ""
    fault_report.trials.append(
        delivery.trial(reckoning, fault=FAULT, form=form.name, thrown={name: 1}, figures="0 dead letters")
    )


def test_to_take_a_missing_table_for_a_bad_row_buries_good_ones(
    make_delivery: MakeDelivery,
    make_sink: MakeSink,
    server: PostgresServer,
    fault_report: FaultReport,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: class 42 counted among those that a row can cause."""
    monkeypatch.setattr("crawler.delivery.sqlstate._ROW_CLASSES", ("22", "23", "54", "42"))
    MISTAKES["renamed table"].make(server)
    delivery = make_delivery(make_sink(server.url))
    delivery.secure(observations(BATCH))
    assert [letter.code for letter in delivery.dead] == ["42P01"] * BATCH
    assert delivery.waiting == 0
    MISTAKES["renamed table"].mend(server)
    assert delivery.reckon(server.url).lost == BATCH
    fault_report.controls.append(
        Control(
            fault=FAULT,
            safety_taken_off="class 42 means a bad row",
            outcome=f"{len(delivery.dead)} of {BATCH} good rows became dead letters",
        )
    )
