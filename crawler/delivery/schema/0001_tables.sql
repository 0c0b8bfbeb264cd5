-- The four tables. Every time is timestamptz: a Pi, a NAS and a PC need not agree on a time zone.

CREATE TABLE scraped_data (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source       text        NOT NULL,
    item_key     text        NOT NULL,
    url          text,
    data         jsonb       NOT NULL,
    key_hash     uuid        NOT NULL,
    content_hash uuid        NOT NULL,
    scraped_at   timestamptz NOT NULL,
    processed    boolean     NOT NULL DEFAULT false,
    run_id       text        NOT NULL,
    host         text        NOT NULL,
    stored_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE scraped_data IS 'One row per version of a thing: stored when it differs from the version before it.';
COMMENT ON COLUMN scraped_data.key_hash IS '128-bit hash of source and item_key: a raw URL can be longer than an index row may be.';
COMMENT ON COLUMN scraped_data.content_hash IS '128-bit hash of the item''s canonical JSON.';
COMMENT ON COLUMN scraped_data.scraped_at IS 'When the spider yielded the item (UTC clock of host).';
COMMENT ON COLUMN scraped_data.stored_at IS 'When the row was inserted (clock of this server): later than scraped_at if the item was spooled.';
COMMENT ON COLUMN scraped_data.processed IS 'For the reader of the data: set it when a row has been dealt with.';

-- Makes a repeat harmless and answers "which version is next to this one" from the index alone.
CREATE UNIQUE INDEX scraped_data_versions ON scraped_data (key_hash, scraped_at, content_hash);
CREATE INDEX idx_scraped_data_timestamp ON scraped_data (scraped_at);
CREATE INDEX scraped_data_unprocessed ON scraped_data (id) WHERE NOT processed;

CREATE VIEW latest_scraped_data AS
SELECT DISTINCT ON (key_hash) *
  FROM scraped_data
 ORDER BY key_hash, scraped_at DESC, content_hash DESC;
COMMENT ON VIEW latest_scraped_data IS 'The newest version of each thing.';

CREATE TABLE crawler_jobs (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id            text        NOT NULL UNIQUE,
    job_name          text        NOT NULL,
    host              text        NOT NULL,
    status            text        NOT NULL,
    start_time        timestamptz NOT NULL,
    end_time          timestamptz,
    records_processed bigint,
    error_message     text,
    stats             jsonb
);
COMMENT ON COLUMN crawler_jobs.status IS 'running, finished, failed, interrupted or killed.';
CREATE INDEX crawler_jobs_by_source ON crawler_jobs (job_name, start_time);

CREATE TABLE system_metrics (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    host              text        NOT NULL,
    "timestamp"       timestamptz NOT NULL DEFAULT now(),
    cpu_usage         numeric(5, 2),
    memory_usage      numeric(5, 2),
    disk_usage        numeric(5, 2),
    temperature       numeric(4, 1),
    network_status    boolean,
    UNIQUE (host, "timestamp")
);
COMMENT ON COLUMN system_metrics.cpu_usage IS 'Per cent, like memory_usage and disk_usage; temperature in degrees Celsius.';
CREATE INDEX idx_system_metrics_timestamp ON system_metrics ("timestamp");

CREATE TABLE alerts (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fingerprint text        NOT NULL,
    name        text        NOT NULL,
    severity    text,
    status      text        NOT NULL,
    host        text,
    starts_at   timestamptz NOT NULL,
    ends_at     timestamptz,
    labels      jsonb       NOT NULL DEFAULT '{}',
    annotations jsonb       NOT NULL DEFAULT '{}',
    received_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (fingerprint, starts_at)
);
COMMENT ON COLUMN alerts.status IS 'firing or resolved.';
CREATE INDEX alerts_by_start ON alerts (starts_at);
