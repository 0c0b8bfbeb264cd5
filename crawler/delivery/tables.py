"""How the lines of each table become rows: column order of the COPY, and one set-based insert."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """``columns`` are (name, type) in the order of a line; ``insert`` moves the staged lines.

    ``insert`` reads ``pg_temp.<staging>`` and returns one row per stored row. It must be
    harmless when the same lines come twice: any batch may be sent again after a crash.
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    insert: str

    @property
    def staging(self) -> str:
        """The temporary table the lines are copied into."""
        return f"incoming_{self.name}"

    @property
    def column_names(self) -> str:
        """The columns, comma separated, as a spooled batch remembers them."""
        return ",".join(name for name, _ in self.columns)


# An observation is stored only if it differs from its neighbours in the history of its key, where
# history is what is stored and what the batch brings, by time. So a run of equal observations has
# one row, whichever arrives first: a re-crawl, a redelivery, a second host, a late spooled batch.
SCRAPED_DATA = Table(
    name="scraped_data",
    columns=(
        ("source", "text"),
        ("item_key", "text"),
        ("url", "text"),
        ("data", "jsonb"),
        ("key_hash", "uuid"),
        ("content_hash", "uuid"),
        ("scraped_at", "timestamptz"),
        ("run_id", "text"),
        ("host", "text"),
        ("keep_every", "boolean"),
    ),
    insert="""
    WITH batch AS MATERIALIZED (
        SELECT DISTINCT ON (key_hash, scraped_at, content_hash)
               key_hash, scraped_at, content_hash, keep_every, ctid AS line
          FROM pg_temp.incoming_scraped_data
         ORDER BY key_hash, scraped_at, content_hash
    ), history AS (
        SELECT key_hash, scraped_at, content_hash, line, false AS is_stored
          FROM batch WHERE NOT keep_every
        UNION ALL
        SELECT key_hash, near.scraped_at, near.content_hash, NULL, true
          FROM batch CROSS JOIN LATERAL (
            (SELECT scraped_at, content_hash FROM scraped_data AS stored
              WHERE stored.key_hash = batch.key_hash
                AND (stored.scraped_at, stored.content_hash) <= (batch.scraped_at, batch.content_hash)
              ORDER BY stored.scraped_at DESC, stored.content_hash DESC LIMIT 1)
            UNION ALL
            (SELECT scraped_at, content_hash FROM scraped_data AS stored
              WHERE stored.key_hash = batch.key_hash
                AND (stored.scraped_at, stored.content_hash) > (batch.scraped_at, batch.content_hash)
              ORDER BY stored.scraped_at, stored.content_hash LIMIT 1)
          ) AS near
         WHERE NOT keep_every
    ), changes AS (
        SELECT *, content_hash IS DISTINCT FROM lag(content_hash) OVER by_time AS is_change
          FROM history
        WINDOW by_time AS (PARTITION BY key_hash ORDER BY scraped_at, content_hash, is_stored)
    ), versions AS (
        SELECT *, count(*) FILTER (WHERE is_change) OVER by_time AS version
          FROM changes
        WINDOW by_time AS (PARTITION BY key_hash ORDER BY scraped_at, content_hash, is_stored)
    ), new_versions AS (
        SELECT (array_agg(line ORDER BY scraped_at))[1] AS line
          FROM versions GROUP BY key_hash, version HAVING NOT bool_or(is_stored)
        UNION ALL
        SELECT line FROM batch WHERE keep_every
    )
    INSERT INTO scraped_data
           (source, item_key, url, data, key_hash, content_hash, scraped_at, run_id, host)
    SELECT source, item_key, url, data, key_hash, content_hash, scraped_at, run_id, host
      FROM new_versions JOIN pg_temp.incoming_scraped_data AS incoming ON incoming.ctid = line
     ORDER BY incoming.ctid
        ON CONFLICT DO NOTHING
    RETURNING 1""",
)

# A run is announced when it starts and again when it ends; either may arrive late or twice.
CRAWLER_JOBS = Table(
    name="crawler_jobs",
    columns=(
        ("run_id", "text"),
        ("job_name", "text"),
        ("host", "text"),
        ("status", "text"),
        ("start_time", "timestamptz"),
        ("end_time", "timestamptz"),
        ("records_processed", "bigint"),
        ("error_message", "text"),
        ("stats", "jsonb"),
    ),
    insert="""
    INSERT INTO crawler_jobs
           (run_id, job_name, host, status, start_time, end_time,
            records_processed, error_message, stats)
    SELECT DISTINCT ON (run_id)
           run_id, job_name, host, status, start_time, end_time,
           records_processed, error_message, stats
      FROM pg_temp.incoming_crawler_jobs
     ORDER BY run_id, end_time NULLS LAST
        ON CONFLICT (run_id) DO UPDATE
       SET status = excluded.status, end_time = excluded.end_time,
           records_processed = excluded.records_processed,
           error_message = excluded.error_message, stats = excluded.stats
     WHERE crawler_jobs.end_time IS NULL AND excluded.end_time IS NOT NULL
    RETURNING 1""",
)

TABLES: dict[str, Table] = {table.name: table for table in (SCRAPED_DATA, CRAWLER_JOBS)}
