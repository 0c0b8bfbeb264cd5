"""What a second run of a source costs against the first, and what remembering a million pages does.

``python -m bench.revisit`` prints both; ``--quick`` measures less, for a look.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from crawler.delivery.migration import known_migrations, migrate
from crawler.delivery.postgres import PostgresSink
from crawler.memory.page_memory import PageMemory, Retention
from crawler.memory.validators import Version, digest
from demo.postgres import temporary_server
from demo.sites.process import control, requests_served, running_sites

REPOSITORY = Path(__file__).resolve().parent.parent
AT_FULL_SPEED = ("-s", "DOWNLOAD_DELAY=0", "-s", "CONCURRENT_REQUESTS_PER_DOMAIN=8")
SOURCES = ("python_docs", "books")
REVISITS = ("if-changed", "never")
CHANGED_SHARE = 0.05
MOST_OF_BYTES, MOST_OF_CPU = 0.03, 0.20
MIB = 1024 * 1024
PATIENCE_SECONDS = 600.0
# The class with another `revisit`, in a process of its own.
CRAWL = """
import importlib, sys
from scrapy.cmdline import execute
source, revisit, *arguments = sys.argv[1:]
module = importlib.import_module(f"spiders.{source}")
for each in vars(module).values():
    if getattr(each, "name", None) == source:
        each.revisit = revisit
execute(["scrapy", "crawl", source, *arguments])
"""


@dataclass(frozen=True, slots=True)
class Crawl:
    """What one run took. ``wire_bytes`` are all it received, headers too."""

    cpu_seconds: float
    body_bytes: int
    wire_bytes: int
    not_modified: int
    stored: int
    written_bytes: int


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.revisit", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, and a hundred thousand pages")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        step, path, pages, facts = options.measure
        print(json.dumps(STEPS[step](Path(path), int(pages), json.loads(facts))))
        return
    quick = options.quick
    second_runs(rounds=1 if quick else 3)
    growth(pages=100_000 if quick else 1_000_000)


# -- a second run ------------------------------------------------------------------------------


def second_runs(rounds: int) -> None:
    """Print, for each source and way to revisit it, what runs 2 and 3 cost against run 1."""
    print(
        f"\nRun 2 of an unchanged site, run 3 after {CHANGED_SHARE:.0%} of its pages changed, against run 1"
    )
    print(f"(medians of {rounds} rounds; targets: bytes <= {MOST_OF_BYTES:.0%}, CPU <= {MOST_OF_CPU})\n")
    heading = ("source", "revisit", "run", "wire bytes", "of run 1", "CPU s", "of run 1", "without start-up")
    print("".join(f"{name:>17}" for name in heading) + "   304s  stored  written")
    with database() as url, running_sites(scale="full") as sites:
        start_up = statistics.median(start_up_seconds(sites["books"], url) for _ in range(3))
        for source in SOURCES:
            for revisit in REVISITS:
                histories = [history(source, revisit, sites[source], url) for _ in range(rounds)]
                for number in range(3):
                    print_run(source, revisit, number, histories, start_up)
    print(f"\nstart-up alone: {start_up:.2f} s of CPU")


def print_run(source: str, revisit: str, number: int, histories: list[list[Crawl]], start_up: float) -> None:
    """Print the median of one run over all histories, beside the first of them."""

    def median(of: Callable[[Crawl, Crawl], float]) -> float:
        return statistics.median(of(runs[number], runs[0]) for runs in histories)

    run = histories[-1][number]
    values = (
        f"{median(lambda this, _first: this.wire_bytes):,.0f}",
        f"{median(lambda this, first: this.wire_bytes / first.wire_bytes):.1%}",
        f"{median(lambda this, _first: this.cpu_seconds):.2f}",
        f"{median(lambda this, first: this.cpu_seconds / first.cpu_seconds):.2f}",
        f"{median(lambda this, first: (this.cpu_seconds - start_up) / (first.cpu_seconds - start_up)):.2f}",
    )
    texts = (source, revisit, str(number + 1), *values)
    print(
        "".join(f"{text:>17}" for text in texts)
        + f"{run.not_modified:7}{run.stored:8}{run.written_bytes / 1024:7.0f}k"
    )


def history(source: str, revisit: str, base_url: str, database_url: str) -> list[Crawl]:
    """Return three runs of a source on a card of its own: the third sees changed pages."""
    with tempfile.TemporaryDirectory(prefix="data-crawler-bench-") as folder:
        runs = []
        for revision in (1, 1, 2):
            control(base_url, revision=revision, share=CHANGED_SHARE)
            runs.append(crawl(source, revisit, base_url, database_url, Path(folder)))
        control(base_url, revision=1)
    return runs


def crawl(source: str, revisit: str, base_url: str, database_url: str, state_dir: Path) -> Crawl:
    """Crawl to the end and return what it took."""
    requests_served(base_url, reset=True)
    log = state_dir / "log"
    with log.open("wb") as output:
        command = [sys.executable, "-c", CRAWL, source, revisit, "-a", f"base_url={base_url}", *AT_FULL_SPEED]
        process = subprocess.Popen(
            command, env=environment(database_url, state_dir), cwd=REPOSITORY, stderr=output
        )
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        written = written_bytes(process.pid)
        _pid, status, spent = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    said = log.read_text()
    assert process.returncode == 0, said
    served = requests_served(base_url)
    return Crawl(
        spent.ru_utime + spent.ru_stime,
        served["bytes_sent"],
        stat(said, "downloader/response_bytes"),
        served["by_status"].get("304", 0),
        stat(said, "crawler/items/stored"),
        written - log.stat().st_size,
    )


def start_up_seconds(base_url: str, database_url: str) -> float:
    """Return the CPU time of a crawl that finds nothing."""
    with tempfile.TemporaryDirectory(prefix="data-crawler-bench-") as folder:
        return crawl("books", "always", f"{base_url}nowhere/", database_url, Path(folder)).cpu_seconds


def stat(log: str, name: str) -> int:
    """Return a number of the stats that Scrapy prints at the end."""
    found = re.search(rf"'{name}': (\d+)", log)
    return int(found[1]) if found else 0


def environment(database_url: str, state_dir: Path) -> dict[str, str]:
    """Return the environment of a crawl, with nothing of ours that comes from outside."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CRAWLER_")}
    return inherited | {
        "DATABASE_URL": database_url,
        "CRAWLER_STATE_DIR": str(state_dir),
        "CRAWLER_SPOOL_MAX_BYTES": "16M",
    }


@contextmanager
def database() -> Iterator[str]:
    """Start a PostgreSQL with the project's tables."""
    with temporary_server() as server:
        sink = PostgresSink(server.url)
        migrate(sink, known_migrations())
        sink.close()
        yield server.url


# -- a million pages ---------------------------------------------------------------------------


def growth(pages: int) -> None:
    """Print what so many remembered pages take: on the card, in RAM, and per look-up."""
    print(f"\n{pages:,} pages remembered")
    with tempfile.TemporaryDirectory(prefix="data-crawler-bench-") as folder:
        for kind, facts in (("never: a mark", []), ("if-changed: validators", example().as_facts())):
            print(f"\n{kind}")
            for step in STEPS:
                # Each step in a process of its own, so that its memory and its writing are its own.
                given = (step, str(Path(folder) / f"{kind[:5]}.sqlite"), str(pages), json.dumps(facts))
                command = (sys.executable, "-m", "bench.revisit", "--measure", *given)
                for name, value in json.loads(subprocess.check_output(command, cwd=REPOSITORY)).items():
                    print(f"    {name:45} {value}")


def example() -> Version:
    """Return what is remembered of a page with a tag and a date."""
    return Version(
        content=digest(b"content"),
        context=digest(b"context"),
        etag='"5f3c-62a1b2c3d4e5f-gzip"',
        last_modified="Mon, 06 Jan 2025 08:00:00 GMT",
    )


def written_bytes(pid: int | str = "self") -> int:
    """Return what a process has caused to be written to the disk, and has not deleted before (proc(5))."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    counted = {name: int(value) for name, value in (line.split(": ") for line in lines)}
    return counted["write_bytes"] - counted["cancelled_write_bytes"]


def resident_bytes() -> int:
    """Return how much of this process is in RAM now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def fill(path: Path, pages: int, facts: list[object]) -> dict[str, str]:
    """Remember so many pages, as runs do, and return what that took."""
    memory = PageMemory(path, Retention(max_pages=pages))
    memory.open().result(PATIENCE_SECONDS)
    before, began = written_bytes(), time.process_time()
    for number in range(pages):
        memory.note(b"page %d" % number, facts)
        if number % 1000 == 0:
            memory.recall(b"page %d" % number).result(PATIENCE_SECONDS)
    memory.close().result(PATIENCE_SECONDS)
    os.sync()
    return {
        "bytes on the card, per page": f"{path.stat().st_size / pages:.0f}",
        "bytes written while remembering, per page": f"{(written_bytes() - before) / pages:.0f}",
        "CPU to remember, us per page": f"{(time.process_time() - began) / pages * 1e6:.0f}",
    }


def look_up(path: Path, pages: int, _facts: list[object]) -> dict[str, str]:
    """Open a memory of so many pages and ask it; return what that took."""
    before = resident_bytes()
    memory = PageMemory(path, Retention(max_pages=pages))
    began = time.perf_counter()
    memory.open().result(PATIENCE_SECONDS)
    opened_seconds = time.perf_counter() - began
    grown = resident_bytes() - before
    chance = Random(1)
    some = [b"page %d" % chance.randrange(pages) for _ in range(2000)]
    in_order = [b"page %d" % number for number in range(pages // 2, pages // 2 + 10_000)]
    unknown = [b"none %d" % number for number in range(10_000)]
    figures = {
        "RAM once open, MiB": f"{grown / MIB:.1f}",
        "time to open, s": f"{opened_seconds:.2f}",
        "time to see that a page is not known, us": microseconds(memory.is_known, unknown),
        "time to recall a page, in order, us": microseconds(recalled(memory), in_order),
        "time to recall a page, at random, us": microseconds(recalled(memory), some),
        "RAM after that, MiB": f"{(resident_bytes() - before) / MIB:.1f}",
    }
    memory.close().result(PATIENCE_SECONDS)
    return figures


def recalled(memory: PageMemory) -> Callable[[bytes], object]:
    """Return a look-up that waits for its answer, which a crawl does not."""
    return lambda key: memory.recall(key).result(PATIENCE_SECONDS)


def microseconds(call: Callable[[bytes], object], keys: list[bytes]) -> str:
    """Return how long a call takes, on average over the keys."""
    began = time.perf_counter()
    for key in keys:
        call(key)
    return f"{(time.perf_counter() - began) / len(keys) * 1e6:.1f}"


STEPS = {"fill": fill, "look up": look_up}

if __name__ == "__main__":
    main()
