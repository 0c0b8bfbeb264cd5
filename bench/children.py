"""Servers of the benchmarks' own, each in its own process so that its work is not counted as ours."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STOP_SECONDS = 5.0


@contextmanager
def running(module: str, *arguments: object) -> Iterator[int]:
    """Run a module of ours that calls ``announce``; yield its port, and stop it whatever happens.

    It inherits the processors this process may use.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        line = child.stdout.readline()
        if not line:
            raise RuntimeError(f"{module} did not start: it ended with status {child.wait(STOP_SECONDS)}")
        yield int(json.loads(line))
    finally:
        child.terminate()
        child.wait(STOP_SECONDS)
        child.stdin.close()
        child.stdout.close()


def announce(port: int) -> None:
    """In the child: tell the port, and end when the parent has ended, however that came about."""
    print(json.dumps(port), flush=True)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)
