"""Page memories on real files, closed when the test ends."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from crawler.memory.page_memory import PageMemory, Retention

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
