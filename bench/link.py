"""A network between delivery and PostgreSQL: a TCP proxy that takes its time.

What is sent leaves at the rate of the link and arrives half a round trip later; what waits on the way is
bounded, so that a sender feels a slow link as it would a real one.
"""

import argparse
import socket
import threading
import time
from queue import Queue

from bench.children import announce

MEGABIT_BYTES = 125_000
CHUNK_BYTES = 16 * 1024
# More than 100 Mbit/s fill in 23 ms.
CHUNKS_ON_THE_WAY = 64

Chunk = tuple[float, bytes]


def forward(
    source: socket.socket, sink: socket.socket, delay_seconds: float, bytes_per_second: float
) -> None:
    """Carry one direction of a connection until its source ends."""
    on_the_way: Queue[Chunk] = Queue(CHUNKS_ON_THE_WAY)
    threading.Thread(target=_arrive, args=(on_the_way, sink), daemon=True).start()
    free_at = 0.0
    try:
        while chunk := source.recv(CHUNK_BYTES):
            free_at = max(free_at, time.monotonic()) + len(chunk) / bytes_per_second
            on_the_way.put((free_at + delay_seconds, chunk))
    finally:
        on_the_way.put((time.monotonic() + delay_seconds, b""))


def _arrive(on_the_way: "Queue[Chunk]", sink: socket.socket) -> None:
    while True:
        due_at, chunk = on_the_way.get()
        time.sleep(max(0.0, due_at - time.monotonic()))
        if not chunk:
            sink.shutdown(socket.SHUT_WR)
            return
        sink.sendall(chunk)


def main() -> None:
    """Forward every connection to the target until killed."""
    parser = argparse.ArgumentParser(prog="python -m bench.link")
    parser.add_argument("target_port", type=int)
    parser.add_argument("round_trip_milliseconds", type=float)
    parser.add_argument("megabits_per_second", type=float)
    options = parser.parse_args()
    way = (options.round_trip_milliseconds / 2000, options.megabits_per_second * MEGABIT_BYTES)
    listener = socket.create_server(("127.0.0.1", 0))
    announce(listener.getsockname()[1])
    while True:
        client, _ = listener.accept()
        server = socket.create_connection(("127.0.0.1", options.target_port))
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=forward, args=(source, sink, *way), daemon=True).start()


if __name__ == "__main__":
    main()
