"""A process of its own that appends to a spool until it is told to stop, or killed. Run with ``python -m``.

Arguments: the file, a name, how many batches (0: for ever), and ``after`` or ``before``: whether a batch
is acknowledged, by a line on standard output, after its commit, as it must be, or before.
"""

import sys
from contextlib import closing
from pathlib import Path

from tests.support.delivery import COLUMNS, MIB, SHOP, observations, small_spool

LINES = 40


def lines_of(name: str, number: int) -> list[bytes]:
    """Return the lines of one batch: nobody else's, and different each time."""
    return observations(LINES, first=number * LINES, source=name, padding=50)


def main() -> None:
    """Append."""
    path, name, batches, acknowledges = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    with closing(small_spool(path.parent, max_bytes=32 * MIB)) as spool:
        number = 0
        while number < batches or not batches:
            if acknowledges == "before":
                print(number, flush=True)
            spool.append(SHOP._replace(source=name), COLUMNS, lines_of(name, number))
            if acknowledges == "after":
                print(number, flush=True)
            number += 1


if __name__ == "__main__":
    main()
