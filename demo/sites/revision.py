"""Which items of a site differ between its first revision and a later one."""

import random
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Revision:
    """A state of a site. From one number to the next exactly ``share`` of the items change."""

    number: int = 1
    share: float = 0.05


FIRST = Revision()


def changed_count(count: int, share: float) -> int:
    """Given how many items a site has, return how many of them each revision changes."""
    return round(count * share)


@lru_cache(maxsize=256)
def last_changes(site: str, seed: int, count: int, revision: Revision) -> tuple[int, ...]:
    """Return, for each of the ``count`` items, the number of the revision it last changed in."""
    changes = [1] * count
    for number in range(2, revision.number + 1):
        order = list(range(count))
        random.Random(f"{seed}:{site}:{number}").shuffle(order)
        for item in order[: changed_count(count, revision.share)]:
            changes[item] = number
    return tuple(changes)
