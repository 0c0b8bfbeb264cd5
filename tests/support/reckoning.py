"""What became of the things the test spider ``stream`` yielded."""

from collections import Counter
from collections.abc import Collection

from tests.e2e.spiders.stream import value_of
from tests.support.crawls import Host
from tests.support.deliveries import Reckoning

EDITIONS = (1, 2)


def reckon(host: Host, numbers: Collection[int], *, versions: int = 1) -> Reckoning:
    """Given the numbers of things, each of which has so many versions, empty the spool and count the rows.

    ``lost`` and ``twice`` are versions too few and too many, of any thing; fail if the spool does not empty.
    """
    assert host.report("spool", "drain")["waiting"] == 0
    rows = host.query("SELECT item_key, data->>'value' FROM scraped_data WHERE source = 'stream'")
    times_stored = Counter(int(key) for key, _value in rows)
    return Reckoning(
        items=len(numbers) * versions,
        lost=sum(max(0, versions - times_stored[number]) for number in numbers),
        twice=sum(max(0, times - versions) for times in times_stored.values()),
        wrong=sum(value not in {value_of(int(key), edition) for edition in EDITIONS} for key, value in rows),
    )
