"""Page memories on real files, closed when the test ends."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from crawler.memory.page_memory import PageMemory, Retention
from tests.support.crawls import REPOSITORY

# No file may grow beyond this size: the next write fails, as on a full card.
FILE_BYTES = 400_000
SMALL_WORLD = """
import resource, sys
from pathlib import Path
path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
"""

MakeMemory = Callable[..., PageMemory]
PATIENCE_SECONDS = 20.0


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    """Where the memory of a source is; the folder is not made yet."""
    return tmp_path / "pages" / "shop.sqlite"


@pytest.fixture
def make_memory(store_path: Path) -> Iterator[MakeMemory]:
    """Return opened memories; ``retention`` and others as for ``PageMemory``."""
    with ExitStack() as stack:

        def make(retention: Retention | None = None, **options: Any) -> PageMemory:
            memory = PageMemory(store_path, retention or Retention(), **options)
            stack.callback(lambda: memory.close().result(PATIENCE_SECONDS))
            memory.open().result(PATIENCE_SECONDS)
            return memory

        yield make


def in_a_small_world(script: str, path: Path, *, seconds: float) -> str | None:
    """Run a script where no file can grow beyond a size; return what it printed, None if it hung."""
    command = [sys.executable, "-c", SMALL_WORLD + script, str(path), str(FILE_BYTES)]
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
