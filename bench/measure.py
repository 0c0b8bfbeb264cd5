"""Measuring: what a program costs, and ratios out of measurements taken in turn."""

import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self, TypeVar

T = TypeVar("T")
MIB = 1024 * 1024
SAMPLE_SECONDS = 0.05

# Counts the same instructions as callgrind, in a quarter of the time: it keeps no call graph.
COUNTING = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")


class BenchmarkError(Exception):
    """Raised when something could not be measured; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured: all of it, or so little that it only shows that everything runs."""

    is_quick: bool

    def pick(self, *, quick: int, whole: int) -> int:
        """Return how often, or how much, at this size."""
        return quick if self.is_quick else whole


@dataclass(frozen=True, slots=True)
class Spread:
    """What repeated measurements showed."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Given the values of one or more rounds, return their spread."""
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True, slots=True)
class Usage:
    """What a piece of work took. ``written_bytes`` is what it caused to be written to the disk."""

    wall_seconds: float
    cpu_seconds: float
    written_bytes: int
    peak_resident_bytes: int = 0


def interleaved(rounds: int, variants: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Given variants, run them in turn, A B A B ...; return what each round showed.

    One round more is run first and not counted: it warms the caches.
    """
    results: dict[str, list[T]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, variant in variants.items():
            result = variant()
            if number:
                results[name].append(result)
    return results


def ratio(values: Sequence[float], anchors: Sequence[float]) -> Spread:
    """Given what two variants showed round by round, return the spread of the rounds' ratios."""
    return Spread.of([value / anchor for value, anchor in zip(values, anchors, strict=True)])


def difference(values: Sequence[float], anchors: Sequence[float]) -> Spread:
    """Given what two variants showed round by round, return the spread of the rounds' differences."""
    return Spread.of([value - anchor for value, anchor in zip(values, anchors, strict=True)])


# -- this process ------------------------------------------------------------------------------


def written_bytes(pid: int | str = "self") -> int:
    """Return what a process has caused to be written to the disk (proc(5), write_bytes of io)."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["write_bytes"])


def usage_of(work: Callable[[], object]) -> Usage:
    """Run ``work`` in this process; return what it took, of all threads together."""
    wall, cpu, written = time.perf_counter(), time.process_time(), written_bytes()
    work()
    return Usage(
        time.perf_counter() - wall,
        time.process_time() - cpu,
        written_bytes() - written,
    )


def require_disk(folder: Path) -> None:
    """Raise BenchmarkError unless what is written below ``folder`` reaches a disk and is counted."""
    before = written_bytes()
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(b"x" * MIB)
        file.flush()
        os.fsync(file.fileno())
    if written_bytes() - before < MIB:
        raise BenchmarkError(
            f"writing to {folder} is not counted as writing to a disk; name a folder on one with TMPDIR"
        )


# -- other programs ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Program:
    """A command with its environment, and the processors it is to keep to (None: those of ours)."""

    command: Sequence[str]
    environment: Mapping[str, str]
    processors: Collection[int] | None = None

    def run(self, watch: Callable[[int], None] = lambda _pid: None) -> Usage:
        """Run it to its end and return what it took; ``watch`` is called with its pid all the while.

        Raise BenchmarkError, with the end of what it said, if its exit status is not 0.
        """
        began = time.perf_counter()
        # Not a file on the disk: what is said there would count as written.
        with open(os.memfd_create("said"), "w+b") as said:
            process = subprocess.Popen(
                self.command, env=self.environment, stdout=subprocess.DEVNULL, stderr=said
            )
            try:
                if self.processors is not None:
                    os.sched_setaffinity(process.pid, self.processors)
                peak = _peak_until_end(process, watch)
                wall = time.perf_counter() - began
                # The process has ended and is not yet forgotten: the last moment its books can be read.
                written = written_bytes(process.pid)
                _pid, status, spent = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            finally:
                if process.returncode is None:
                    process.kill()
                    process.wait()
            if process.returncode:
                raise BenchmarkError(f"{' '.join(self.command)} failed:\n{_end_of(said)}")
        return Usage(wall, spent.ru_utime + spent.ru_stime, written, peak)

    def instructions(self) -> int:
        """Run it under valgrind; return how many instructions it took in user mode, all threads together."""
        with tempfile.NamedTemporaryFile() as log:
            command = [*COUNTING, f"--log-file={log.name}", *self.command]
            # The order of sets, and so the work of a run, depends on the seed of hashes.
            environment = {**self.environment, "PYTHONHASHSEED": "0"}
            Program(command, environment, range(os.cpu_count() or 1)).run()
            counted = re.search(r"I +refs: +([\d,]+)", Path(log.name).read_text())
        if counted is None:
            raise BenchmarkError("valgrind counted nothing; needed is its tool cachegrind")
        return int(counted[1].replace(",", ""))


def _peak_until_end(process: "subprocess.Popen[bytes]", watch: Callable[[int], None]) -> int:
    peak = 0
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        peak = max(peak, _peak_resident_bytes(process.pid))
        watch(process.pid)
        time.sleep(SAMPLE_SECONDS)
    return peak


def resident_bytes(pid: int) -> int:
    """Return how much of a running process is in RAM now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def _peak_resident_bytes(pid: int) -> int:
    # Not ru_maxrss: that of a child counts what its parent had in RAM when it made it.
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


def _end_of(said: IO[bytes]) -> str:
    said.seek(0)
    return said.read().decode(errors="replace")[-3000:]


def python_module(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a module with this Python."""
    return (sys.executable, "-m", module, *arguments)
