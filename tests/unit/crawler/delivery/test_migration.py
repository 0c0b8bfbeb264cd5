"""The numbered SQL files: applied once, in order, and never after an edit."""

from collections.abc import Sequence
from typing import Any

import pytest

from crawler.delivery.migration import Migration, known_migrations, migrate, pending_migrations
from crawler.exceptions import SchemaError, SinkMisconfigured

ONE = Migration(1, "one", "CREATE TABLE one ()")
TWO = Migration(2, "two", "CREATE TABLE two ()")


class Register:
    """A database that knows what was applied to it, and fails where it is told to."""

    def __init__(self, applied: Sequence[Migration] = (), fails_at: str = "never") -> None:
        self.rows = [(each.version, each.name, each.checksum) for each in applied]
        self.scripts: list[str] = []
        self._fails_at = fails_at

    def run(self, script: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        self.scripts.append(script)
        if self._fails_at in script:
            raise SinkMisconfigured("no permission", "42501")
        if "to_regclass" in script:
            return [(bool(self.rows),)]
        return list(self.rows) if script.startswith("SELECT version") else []


def test_the_shipped_files_are_numbered_without_a_gap() -> None:
    known = known_migrations()
    assert [each.version for each in known] == list(range(1, len(known) + 1))
    assert known[0].name == "tables"


def test_a_fresh_database_lacks_everything() -> None:
    assert pending_migrations(Register(), [ONE, TWO]) == [ONE, TWO]


def test_a_look_changes_nothing() -> None:
    database = Register([ONE])
    assert pending_migrations(database, [ONE, TWO]) == [TWO]
    assert all(script.startswith("SELECT") for script in database.scripts)


def test_a_newer_database_is_refused() -> None:
    with pytest.raises(SchemaError, match="schema version 2, this program knows up to 1"):
        pending_migrations(Register([ONE, TWO]), [ONE])


def test_a_file_edited_after_it_was_applied_is_refused() -> None:
    edited = Migration(1, "one", "CREATE TABLE another ()")
    with pytest.raises(SchemaError, match=r"version 1 \(one\) was applied from a different file"):
        pending_migrations(Register([ONE]), [edited])


def test_each_file_is_one_transaction_that_also_registers_it() -> None:
    database = Register([ONE])
    assert migrate(database, [ONE, TWO]) == [TWO]
    (script,) = (each for each in database.scripts if each.startswith("BEGIN"))
    assert script.endswith("COMMIT")
    assert f"VALUES (2, 'two', '{TWO.checksum}')" in script


def test_the_lock_is_given_back_also_after_a_failure() -> None:
    database = Register(fails_at="CREATE TABLE two")
    with pytest.raises(SinkMisconfigured):
        migrate(database, [ONE, TWO])
    assert "pg_advisory_lock" in database.scripts[0]
    assert "pg_advisory_unlock" in database.scripts[-1]
    assert any("VALUES (1, 'one'" in script for script in database.scripts)
