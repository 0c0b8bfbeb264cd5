"""What ours is compared with: the ways in which items usually reach PostgreSQL, or a file."""

import json
import os
import subprocess
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import orjson
import psycopg2
from psycopg2.extras import execute_values
from sqlitedict import SqliteDict

from bench.catalogue import Product
from bench.deliver import HOST, RUN_ID, SOURCE
from bench.measure import BenchmarkError
from crawler.delivery.tables import SCRAPED_DATA
from crawler.records import hash128
from demo.postgres import PostgresServer

# What a tutorial's pipeline stores, and a copy of our own table for who copies our own rows.
TABLES = """
    CREATE TABLE IF NOT EXISTS textbook (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, url text NOT NULL, data jsonb NOT NULL,
        scraped_at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE IF NOT EXISTS copied (LIKE scraped_data INCLUDING ALL);
"""
ROWS_PER_STATEMENT = 500
# The last column of a line is for the insert that compares versions; the table has none of it.
COPIED_COLUMNS = ", ".join(name for name, _type in SCRAPED_DATA.columns if name != "keep_every")


def make_tables(url: str) -> None:
    """Make the tables that the anchors fill."""
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(TABLES)


class TextbookPipeline:
    """What a tutorial shows: one INSERT and one commit per item, while the crawl waits."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg2.connect(url)
        self._cursor = self._connection.cursor()

    def process_item(self, item: Product) -> Product:
        """Store the item and return it."""
        self._cursor.execute(
            "INSERT INTO textbook (url, data) VALUES (%s, %s)", (item.url, json.dumps(asdict(item)))
        )
        self._connection.commit()
        return item

    def close_spider(self) -> None:
        """Close the connection."""
        self._connection.close()


class ValuesPipeline:
    """What is usually recommended instead: psycopg2's ``execute_values``, 500 rows per statement.

    The rows are ours, with key, hashes and time, encoded with the same orjson; a repeat is harmless.
    """

    def __init__(self, url: str) -> None:
        self._connection = psycopg2.connect(url)
        self._cursor = self._connection.cursor()
        self._rows: list[tuple[object, ...]] = []

    def process_item(self, item: Product) -> Product:
        """Keep the item's row until there are enough of them."""
        data = orjson.dumps(item, option=orjson.OPT_SORT_KEYS)
        key_hash = hash128(SOURCE.encode(), item.url.encode())
        self._rows.append(
            (
                SOURCE,
                item.url,
                item.url,
                data.decode(),
                key_hash.hex(),
                hash128(data).hex(),
                datetime.now(UTC),
                RUN_ID,
                HOST,
            )
        )
        if len(self._rows) == ROWS_PER_STATEMENT:
            self.flush()
        return item

    def flush(self) -> None:
        """Store what was kept."""
        execute_values(
            self._cursor,
            f"INSERT INTO copied ({COPIED_COLUMNS}) VALUES %s ON CONFLICT DO NOTHING",
            self._rows,
            page_size=ROWS_PER_STATEMENT,
        )
        self._connection.commit()
        self._rows.clear()

    def close_spider(self) -> None:
        """Close the connection."""
        self._connection.close()


def copy_with_psql(server: PostgresServer, url: str, rows: Path) -> None:
    """Send a prepared file of COPY lines with ``psql``: nothing is quicker."""
    command = rf"\copy copied ({COPIED_COLUMNS}) FROM '{rows}'"
    done = subprocess.run(
        [server.psql_path, "--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "-c", command, url],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.defpath},
    )
    if done.returncode:
        raise BenchmarkError(f"psql could not copy: {done.stderr}")


def write_rows(lines: Sequence[bytes], file: Path) -> None:
    """Write the file for ``copy_with_psql``, given lines as they go to our own COPY."""
    file.write_bytes(b"".join(line.rpartition(b"\t")[0] + b"\n" for line in lines))


def keep_in_sqlitedict(items: Sequence[Product], file: Path) -> None:
    """Keep items as pipelines with a local fallback do: one at a time, each committed."""
    with SqliteDict(str(file)) as kept:
        for item in items:
            kept[item.url] = asdict(item)
            kept.commit()
