"""``make run``: four spiders, a PostgreSQL and four local sites, all on this machine, in a minute.

What it makes is kept in a folder, ``.demo/`` if not told otherwise, so that a second run shows how
little of an unchanged site is fetched again.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from crawler.delivery.postgres import PostgresSink
from crawler.exceptions import SinkError
from crawler.ledger import Run, RunLedger
from demo.postgres import PostgresServer
from demo.sites.process import running_sites

REPOSITORY = Path(__file__).resolve().parent.parent
DEFAULT_FOLDER = REPOSITORY / ".demo"
PROGRESS_SECONDS = 1.0
# The local sites are ours: no politeness is owed to them.
AT_FULL_SPEED = (
    *("-s", "DOWNLOAD_DELAY=0", "-s", "CONCURRENT_REQUESTS_PER_DOMAIN=16"),
    *("-s", "AUTOTHROTTLE_ENABLED=0", "-s", "RETRY_DELAY_SECONDS=0"),
)
FIGURES = ("pages", "scraped", "stored", "unchanged", "spooled", "dead", "dropped")


@dataclass(slots=True)
class Crawl:
    """One ``scrapy crawl`` on its way."""

    source: str
    process: subprocess.Popen[bytes]
    log: Path


def main() -> int:
    """Crawl the local sites, or open psql on what was crawled; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--psql", action="store_true", help="look into the demonstration's database")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other pages (default: 1)")
    parser.add_argument("--scale", choices=("full", "small"), default="full")
    parser.add_argument(
        "--folder", type=Path, default=DEFAULT_FOLDER, help="where data is kept (default: .demo)"
    )
    parser.add_argument(
        "--revisit", action="store_true", help="ask each page only whether it has changed since the last run"
    )
    options = parser.parse_args()
    folder = options.folder.absolute()
    # A kill of this program must pass through the clean-up of what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with suppress(KeyboardInterrupt):
        if options.psql:
            return look_inside(folder)
        return crawl_everything(folder, options.seed, options.scale, revisit=options.revisit)
    return 130


def crawl_everything(folder: Path, seed: int, scale: str, *, revisit: bool) -> int:
    """Run every spider at once and print what became of its items; return the exit status."""
    say("Starting a PostgreSQL and four local sites on 127.0.0.1")
    ports = stable_ports(folder / "first_port")
    with (
        PostgresServer(folder / "postgres") as server,
        running_sites(seed=seed, scale=scale, first_port=ports) as sites,
    ):
        environment = environment_of(server.url, folder / "state")
        scrapy(environment, "initdb")
        logs = folder / "logs"
        say(f"Crawling {', '.join(sites)}; logs in {os.path.relpath(logs)}/")
        started_at = time.time()
        with crawling(sites, environment, logs, revisit=revisit) as crawls:
            wait_for(crawls, server.url, started_at)
        took_seconds = time.time() - started_at
        failed = [crawl for crawl in crawls if crawl.process.returncode != 0]
        with closing(RunLedger(folder / "state" / "runs.sqlite")) as ledger:
            runs = [run for run in ledger.runs() if run.started_at >= started_at]
        print_runs(runs, took_seconds)
        say("\nThe account of all runs so far, as `scrapy spool status` shows it:")
        status = scrapy(environment, "spool", "status")
        rows = count_rows(server.url)
    for crawl in failed:
        say(f"{crawl.source} ended with status {crawl.process.returncode}: see {crawl.log}")
    print_next_steps(rows, folder)
    return 1 if failed or status else 0


def stable_ports(remembered: Path) -> int:
    """Return the first of four free ports, the same as last time if it can be.

    A page's address is part of most items: on other ports every one of them would have changed.
    """
    with suppress(OSError, ValueError):
        first = int(remembered.read_text())
        if are_free(range(first, first + 4)):
            return first
    first = next(first for first in range(21000, 28000, 4) if are_free(range(first, first + 4)))
    remembered.parent.mkdir(parents=True, exist_ok=True)
    remembered.write_text(str(first))
    return first


def are_free(ports: Iterable[int]) -> bool:
    """Return True if nothing listens on any of these ports of 127.0.0.1."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def look_inside(folder: Path) -> int:
    """Open psql on the demonstration's database for as long as the user likes."""
    with PostgresServer(folder / "postgres") as server:
        return subprocess.call([server.psql_path, server.url])


def environment_of(database_url: str, state_dir: Path) -> dict[str, str]:
    """Return the environment of the demonstration's commands: this one's, without its own settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CRAWLER_")}
    inherited.pop("DATABASE_URL_FILE", None)
    return inherited | {"DATABASE_URL": database_url, "CRAWLER_STATE_DIR": str(state_dir)}


def scrapy(environment: Mapping[str, str], *arguments: str) -> int:
    """Run a Scrapy command of the project, showing what it prints; return its exit status."""
    command = [sys.executable, "-m", "scrapy", *arguments]
    return subprocess.call(command, env=environment, cwd=REPOSITORY)


@contextmanager
def crawling(
    sites: Mapping[str, str], environment: Mapping[str, str], logs: Path, *, revisit: bool
) -> Iterator[list[Crawl]]:
    """Start a spider per site; stop those still running when the block ends."""
    # Read whole, every page shows that what has not changed is not stored again.
    memory = () if revisit else ("-a", "deltafetch_reset=1")
    logs.mkdir(parents=True, exist_ok=True)
    crawls: list[Crawl] = []
    try:
        for source, base_url in sites.items():
            log = logs / f"{source}.log"
            log.unlink(missing_ok=True)
            command = [sys.executable, "-m", "scrapy", "crawl", source, "-a", f"base_url={base_url}"]
            command += [*memory, *AT_FULL_SPEED, "-s", f"LOG_FILE={log}"]
            process = subprocess.Popen(command, env=environment, cwd=REPOSITORY)
            crawls.append(Crawl(source, process, log))
        yield crawls
    finally:
        for crawl in crawls:
            if crawl.process.poll() is None:
                crawl.process.terminate()
        for crawl in crawls:
            crawl.process.wait()


def wait_for(crawls: list[Crawl], database_url: str, started_at: float) -> None:
    """Wait until every spider has ended, showing how far they are."""
    while any(crawl.process.poll() is None for crawl in crawls):
        time.sleep(PROGRESS_SECONDS)
        at_work = [crawl.source for crawl in crawls if crawl.process.poll() is None]
        elapsed = time.time() - started_at
        doing = f"at work: {', '.join(at_work)}" if at_work else "all done"
        say(f"{elapsed:4.0f} s  {count_rows(database_url):5} rows stored   {doing}")


def count_rows(database_url: str) -> int:
    """Return how many rows the demonstration has stored so far."""
    database = PostgresSink(database_url)
    try:
        ((rows,),) = database.run("SELECT count(*) FROM scraped_data")
        return int(rows)
    except SinkError:
        return 0
    finally:
        database.close()


def print_runs(runs: list[Run], took_seconds: float) -> None:
    """Print what each run did and the sum, and whether the sum adds up."""
    say(f"\n{'source':15}" + "".join(f"{name:>10}" for name in (*FIGURES, "seconds")))
    for run in sorted(runs, key=lambda run: run.source):
        figures = "".join(f"{getattr(run.counts, name):>10}" for name in FIGURES)
        seconds = (run.ended_at or run.started_at) - run.started_at
        say(f"{run.source:15}{figures}{seconds:>10.1f}")
    totals = {name: sum(getattr(run.counts, name) for run in runs) for name in FIGURES}
    say(f"{'all':15}" + "".join(f"{totals[name]:>10}" for name in FIGURES) + f"{took_seconds:>10.1f}")
    places = FIGURES[2:]
    accounted = sum(totals[place] for place in places)
    terms = " + ".join(f"{totals[place]} {place}" for place in places)
    verdict = "adds up" if accounted == totals["scraped"] else "DOES NOT ADD UP"
    say(f"\n{totals['scraped']} scraped = {terms}: {verdict}")
    if totals["spooled"]:
        say("Spooled items were sent from the card at the end of their run: the account below has them.")


def print_next_steps(rows: int, folder: Path) -> None:
    """Print what a newcomer does next."""
    place = os.path.relpath(folder)
    say(f"\n{rows} rows are in the demonstration's PostgreSQL (kept in {place}/, stopped now).")
    say(
        """Next:
  make run                               again: every page is read, and almost everything is unchanged
  make revisit                           again: each page is only asked whether it has changed
  make psql                              look inside: SELECT source, count(*) FROM scraped_data GROUP BY 1;
  . .venv/bin/activate                   then, from this folder:
  scrapy crawl earthquakes               the live site; with no DATABASE_URL set, its items wait
  scrapy spool status                    where every item is"""
    )


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
