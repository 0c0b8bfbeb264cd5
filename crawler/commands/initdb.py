"""``scrapy initdb``: make, or bring up to date, the tables on the NAS."""

import argparse
from typing import TYPE_CHECKING

from crawler.command import FINE, OperatorCommand, print_json, required_database

if TYPE_CHECKING:
    from crawler.config import Configuration

# A migration may rewrite a large table: no batch's deadline fits it.
_DEADLINE_SECONDS = 3600.0


class Command(OperatorCommand):
    """Applies the numbered SQL files that the database lacks."""

    def short_desc(self) -> str:
        """Return one line for the list of commands."""
        return "Make the tables in PostgreSQL, or bring them up to date"

    def long_desc(self) -> str:
        """Return the help text."""
        return (
            "Make the tables in the database of DATABASE_URL, or bring them up to date. Safe to repeat. "
            "Example: DATABASE_URL=postgresql://crawler@nas/crawler scrapy initdb --dry-run"
        )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's options."""
        super().add_options(parser)
        parser.add_argument("--dry-run", action="store_true", help="show what would be applied")

    def act(self, configuration: "Configuration", opts: argparse.Namespace) -> int:
        """Apply, or show, what the database lacks."""
        from crawler.delivery.migration import known_migrations, migrate, pending_migrations
        from crawler.delivery.postgres import PostgresSink

        known = known_migrations()
        database = PostgresSink(required_database(configuration), deadline_seconds=_DEADLINE_SECONDS)
        try:
            changes = pending_migrations(database, known) if opts.dry_run else migrate(database, known)
        finally:
            database.close()
        names = [f"{migration.version:04d}_{migration.name}" for migration in changes]
        if opts.json:
            print_json(
                {
                    "database": configuration.database,
                    "version": known[-1].version,
                    "dry_run": opts.dry_run,
                    "migrations": names,
                }
            )
            return FINE
        verb = "would apply" if opts.dry_run else "applied"
        print(f"{configuration.database}: {verb} {', '.join(names) or 'nothing: up to date'}")
        if opts.dry_run:
            for migration in changes:
                print(f"\n-- {migration.version:04d}_{migration.name}\n{migration.script}")
        return FINE
