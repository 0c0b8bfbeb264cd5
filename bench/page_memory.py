"""What remembering a million pages takes: on the card, in RAM, and per look-up."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from bench.measure import MIB, Size, Spread, resident_bytes, written_bytes
from bench.report import Figure, Part, Reading, at_most
from crawler.memory.page_memory import PageMemory, Retention
from crawler.memory.validators import Version, digest

PATIENCE_SECONDS = 600.0
# Eight bytes a page, and what opening a store takes.
RAM = "RAM of the page memory once open"
Readings = dict[str, float]


def measure(size: Size) -> Part:
    """Remember so many pages in either way, then ask for some of them."""
    pages = size.pick(quick=20_000, whole=1_000_000)
    part = Part()
    with tempfile.TemporaryDirectory(prefix="data-crawler-bench-") as folder:
        for kind, facts in (("never", []), ("if-changed", _example().as_facts())):
            for step in STEPS:
                # A process of its own, so that its memory and its writing are its own.
                given = (step, str(Path(folder) / f"{kind}.sqlite"), str(pages), json.dumps(facts))
                command = (sys.executable, "-m", "bench.page_memory", *given)
                taken: Readings = json.loads(subprocess.check_output(command))
                part.figures += [
                    Figure(f"{what}, {pages:,} pages, revisit {kind}", Spread.of([value]), at_most(16), "MiB")
                    for what, value in taken.items()
                    if what == RAM
                ]
                part.readings += [
                    Reading(f"{pages:,} pages, revisit {kind}: {what}", "", Spread.of([value]))
                    for what, value in taken.items()
                    if what != RAM
                ]
    return part


def _example() -> Version:
    return Version(
        content=digest(b"content"),
        context=digest(b"context"),
        etag='"5f3c-62a1b2c3d4e5f-gzip"',
        last_modified="Mon, 06 Jan 2025 08:00:00 GMT",
    )


def _fill(path: Path, pages: int, facts: list[object]) -> Readings:
    """Remember so many pages, as runs do; return what that took."""
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
        "bytes on the card, a page": path.stat().st_size / pages,
        "bytes written, a page": (written_bytes() - before) / pages,
        "CPU to remember a page, us": (time.process_time() - began) / pages * 1e6,
    }


def _look_up(path: Path, pages: int, _facts: list[object]) -> Readings:
    """Open a memory of so many pages and ask it; return what that took."""
    before = resident_bytes(os.getpid())
    memory = PageMemory(path, Retention(max_pages=pages))
    began = time.perf_counter()
    memory.open().result(PATIENCE_SECONDS)
    opened_seconds = time.perf_counter() - began
    grown = resident_bytes(os.getpid()) - before
    chance = Random(1)
    some = [b"page %d" % chance.randrange(pages) for _ in range(2000)]
    in_order = [b"page %d" % number for number in range(pages // 2, pages // 2 + 5000)]
    unknown = [b"none %d" % number for number in range(10_000)]

    def recalled(key: bytes) -> object:
        """Look up, and wait for the answer, which a crawl does not."""
        return memory.recall(key).result(PATIENCE_SECONDS)

    readings = {
        RAM: grown / MIB,
        "time to open, s": opened_seconds,
        "time to see that a page is not known, us": _microseconds(memory.is_known, unknown),
        "time to recall a page, in order, us": _microseconds(recalled, in_order),
        "time to recall a page, at random, us": _microseconds(recalled, some),
    }
    memory.close().result(PATIENCE_SECONDS)
    return readings


def _microseconds(call: Callable[[bytes], object], keys: list[bytes]) -> float:
    began = time.perf_counter()
    for key in keys:
        call(key)
    return (time.perf_counter() - began) / len(keys) * 1e6


STEPS = {"fill": _fill, "look up": _look_up}

if __name__ == "__main__":
    step, file, number, facts_json = sys.argv[1:]
    print(json.dumps(STEPS[step](Path(file), int(number), json.loads(facts_json))))
