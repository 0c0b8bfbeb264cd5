"""Brings a database to the schema this version knows: numbered SQL files, each applied once."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol

from crawler.exceptions import SchemaError

# Any two programs that change the schema at once wait for each other on this number ("crawler" in ASCII).
LOCK_NUMBER = 0x637261776C6572
_REGISTER = """
CREATE TABLE IF NOT EXISTS crawler_schema (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
"""


class Database(Protocol):
    """What runs SQL: one call is one message, and returns the rows of its last statement."""

    def run(self, script: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run the script."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    version: int
    name: str
    script: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file, so that a file edited after it was applied is noticed."""
        return hashlib.sha256(self.script.encode()).hexdigest()


def known_migrations() -> list[Migration]:
    """Return the migrations shipped with this version, in order."""
    found = []
    for file in files("crawler.delivery").joinpath("schema").iterdir():
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name)
        if match:
            found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    return sorted(found, key=lambda migration: migration.version)


def pending_migrations(database: Database, known: Sequence[Migration]) -> list[Migration]:
    """Given a database and the known migrations, return those it lacks.

    Raise SchemaError if it has a version this program does not know, or a different file of one it does.
    """
    (exists,) = database.run("SELECT to_regclass('crawler_schema') IS NOT NULL")[0]
    rows = database.run("SELECT version, name, checksum FROM crawler_schema") if exists else []
    applied = {version: (name, checksum) for version, name, checksum in rows}
    by_version = {migration.version: migration for migration in known}
    if newer := sorted(applied.keys() - by_version.keys()):
        raise SchemaError(
            f"the database has schema version {newer[-1]}, this program knows up to "
            f"{max(by_version, default=0)}; install the newer program on this host"
        )
    for version, (name, checksum) in sorted(applied.items()):
        if by_version[version].checksum != checksum:
            raise SchemaError(
                f"schema version {version} ({name}) was applied from a different file than this program "
                "ships; a file that was applied must never be edited: restore it, or add a new one"
            )
    return [migration for migration in known if migration.version not in applied]


def migrate(database: Database, known: Sequence[Migration]) -> list[Migration]:
    """Given a database, apply what it lacks, each file in one transaction; return what was applied.

    Safe to repeat and to run from two hosts at once. Raise SchemaError or SinkError; what came before
    the failing file stays applied.
    """
    database.run(f"SELECT pg_advisory_lock({LOCK_NUMBER})")
    try:
        database.run(_REGISTER)
        pending = pending_migrations(database, known)
        for migration in pending:
            database.run(
                f"BEGIN; {migration.script}; INSERT INTO crawler_schema (version, name, checksum) "
                f"VALUES ({migration.version}, '{migration.name}', '{migration.checksum}'); COMMIT"
            )
        return pending
    finally:
        database.run(f"SELECT pg_advisory_unlock({LOCK_NUMBER})")
