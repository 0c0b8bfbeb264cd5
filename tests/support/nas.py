"""PostgreSQL on a NAS of a test, and the network in front of it, failing at random."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection

from crawler.delivery.courier import PAUSE_FILL
from crawler.delivery.spool import Spool
from crawler.delivery.tables import SCRAPED_DATA
from crawler.records import Stream
from demo.postgres import PostgresServer
from tests.support.tcp_proxy import TcpProxy

STREAM = Stream(SCRAPED_DATA.name, "stream")
# Every so many kills it is away until the spool is full.
FILLS_THE_SPOOL = 8
FILLED_SECONDS = 25.0
LONGEST_WAIT_SECONDS = 10.0
POLL_SECONDS = 0.005


class Nas:
    """PostgreSQL as the crawls know it: now and then it dies, or the way to it breaks."""

    def __init__(
        self, server: PostgresServer, proxy: TcpProxy, chance: random.Random, kinds: Collection[str] = ()
    ) -> None:
        """Given the server, the way to it, chance and what may break (default: all), return it at peace."""
        self.server_kills = 0
        self.tcp_faults: Counter[str] = Counter()
        self.disturbed_seconds = 0.0
        self._server = server
        self._proxy = proxy
        self._chance = chance
        self._over = threading.Event()
        # Each returns whether it hit a live connection.
        self._throws: dict[str, Callable[[], bool]] = {
            "acknowledgements swallowed": self._swallow_answer,
            "cut in the middle": self._cut_in_the_middle,
            "reset": self._reset,
            "stalled": lambda: self._hold(proxy.blackhole),
            "refused": lambda: self._hold(proxy.refuse),
            "deaf": lambda: self._hold(proxy.be_deaf, proxy.cut),
        }
        self._kinds = list(kinds or self._throws)

    def rage(self, server_kills: int, tcp_faults: int, over: threading.Event, spool: Spool) -> None:
        """Throw a few faults, then let items be delivered live for as long as those kept them from it.

        In this proportion, until it is over. ``spool`` is the one that fills up meanwhile.
        """
        self._over = over
        try:
            while not over.wait(POLL_SECONDS):
                began = time.monotonic()
                for _ in range(self._chance.randint(3, 10)):
                    self._throw(server_kills, tcp_faults, spool)
                self._comes(lambda: not spool.has_waiting(STREAM))
                over.wait(self._chance.uniform(0.7, 1.7) * (time.monotonic() - began))
        finally:
            self._proxy.forward()
            self._server.start()

    def _throw(self, server_kills: int, tcp_faults: int, spool: Spool) -> None:
        # At nobody it would be none.
        if not self._comes(lambda: self._proxy.connections > 0):
            return
        began = time.monotonic()
        # What is missing most comes first.
        missing_kills = max(0, server_kills - self.server_kills)
        missing_faults = max(1, tcp_faults - self.tcp_faults.total())
        if self._chance.randrange(missing_kills + missing_faults) < missing_kills:
            self._kill_server(spool)
        else:
            kind = self._chance.choice(self._kinds)
            self.tcp_faults[kind] += self._throws[kind]()
        self.disturbed_seconds += time.monotonic() - began

    def _kill_server(self, spool: Spool) -> None:
        self._server.kill()
        self.server_kills += 1
        if self.server_kills % FILLS_THE_SPOOL == 0:
            self._comes(lambda: spool.fill() >= PAUSE_FILL, FILLED_SECONDS)
        self._over.wait(self._chance.uniform(0.0, 0.8))
        self._server.start()

    def _swallow_answer(self) -> bool:
        # Not of a run's own row, which every crawl sends first.
        self._proxy.swallow_answer(b"INSERT INTO scraped_data")
        return self._happens()

    def _cut_in_the_middle(self) -> bool:
        if self._chance.random() < 0.5:
            self._proxy.cut_after(client_bytes=self._chance.randrange(60_000))
        else:
            self._proxy.cut_after(server_bytes=self._chance.randrange(300))
        return self._happens()

    def _reset(self) -> bool:
        hit = self._proxy.connections > 0
        self._proxy.cut()
        return hit

    def _hold(self, *orders: Callable[[], None]) -> bool:
        hit = self._proxy.connections > 0
        for order in orders:
            order()
        self._over.wait(self._chance.uniform(0.1, 0.8))
        self._proxy.forward()
        return hit

    def _happens(self) -> bool:
        """Wait for what the proxy is armed for."""
        happened = self._comes(lambda: not self._proxy.is_armed)
        self._proxy.forward()
        return happened

    def _comes(self, is_so: Callable[[], bool], seconds: float = LONGEST_WAIT_SECONDS) -> bool:
        """Wait until something is true; return False if it never is, or the storm is over."""
        deadline = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > deadline or self._over.wait(POLL_SECONDS):
                return False
        return True
