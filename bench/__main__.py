"""``make bench``: measure, print the table, and keep what was found where docs/benchmarks.md shows it."""

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench import crawl, delivery, endurance, growth, page_memory, revisit, spool
from bench.machine import facts
from bench.measure import BenchmarkError, Size
from bench.page import table, write_page
from bench.report import Part, Report

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "bench/results/latest.json"

# In the order of the table. What is new to measure is a module with a ``measure``, and a line here.
PARTS: dict[str, Callable[[Size], Part]] = {
    "crawl": crawl.measure,
    "delivery": delivery.measure,
    "spool": spool.measure,
    "revisit": revisit.measure,
    "page_memory": page_memory.measure,
    "growth": growth.measure,
    "endurance": endurance.measure,
}


def main() -> int:
    """Return 0 if every target is met, 1 if one is not, 2 if something could not be measured."""
    options = _arguments()
    # A kill of this program must pass through the clean-up of what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    size = Size(options.quick)
    report = Report(facts(), size.is_quick)
    try:
        if shutil.which("valgrind") is None:
            raise BenchmarkError("valgrind is not on PATH; on Debian and its kin: apt install valgrind")
        for name in options.only or PARTS:
            _say(f"measuring: {name}")
            began = time.monotonic()
            part = PARTS[name](size)
            report.parts[name] = part.ended(time.monotonic() - began)
    except BenchmarkError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    _keep(report, options.json)
    print(table(report))
    if size.is_quick:
        print("\nQuick: far too little was measured for the figures to mean anything.")
    return 0 if size.is_quick or all(figure.is_met for figure in report.figures) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure what this project costs, each figure as a ratio to something real.",
        epilog="example: python -m bench --only spool --quick",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=PARTS,
        metavar="NAME",
        help=f"one part: {', '.join(PARTS)}; may be repeated",
    )
    parser.add_argument(
        "--quick", action="store_true", help="try everything in small; the figures mean nothing"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results here")
    return parser.parse_args()


def _keep(report: Report, also: Path | None) -> None:
    """Write the results; with those of parts that were not measured now, if from the same machine."""
    if also is not None:
        report.write(also)
    if report.is_quick:
        return
    kept = Report(report.machine, is_quick=False)
    if RESULTS.exists() and (before := Report.read(RESULTS)).machine == report.machine:
        kept.parts = before.parts
    known = kept.parts | report.parts
    kept.parts = {name: known[name] for name in PARTS if name in known}
    kept.write(RESULTS)
    write_page(kept, REPOSITORY / "docs")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
