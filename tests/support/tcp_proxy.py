"""A TCP proxy between a client and the real server that fails in the ways networks do."""

import contextlib
import socket
import struct
import threading
from types import TracebackType
from typing import Literal, Self

from demo.postgres import free_port

CHUNK_BYTES = 65536
CONNECT_SECONDS = 5.0
SETTLE_SECONDS = 5.0
GATE_POLL_SECONDS = 0.05

# "Ready for query": PostgreSQL has carried out all it was sent so far.
READY_FOR_QUERY = b"Z\x00\x00\x00\x05"

# Linger of zero seconds: close() sends RST, which the other side sees at once.
LINGER_ZERO = struct.pack("ii", 1, 0)

Side = Literal["client", "server"]
Trap = Literal["swallow", "cut"]


class TcpProxy:
    """Forwards ``127.0.0.1:port`` to ``127.0.0.1:target_port`` until told otherwise.

    Each mode is set by a method, from any thread, and ``forward`` goes back to normal. A context
    manager. The server is connected to when a client comes: a client that comes while the server is
    down is accepted and then reset; use ``refuse`` for a refused one.
    """

    def __init__(self, target_port: int) -> None:
        """Given the port of the real server on 127.0.0.1, return a proxy that is not started."""
        self.target_port = target_port
        self.port = free_port()
        self.accepted = 0
        self.swallowed = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self._lock = threading.RLock()
        self._deaf = False
        self._bytes_left: dict[Side, int | None] = {"client": None, "server": None}
        self._needle: bytes | None = None
        self._trap: Trap = "swallow"
        self._listener: socket.socket | None = None
        self._links: list[_Link] = []
        self._unanswered: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to listen. Does nothing if it listens."""
        with self._lock:
            if self._listener is None:
                self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
                self._spawn(self._accept, self._listener)

    def stop(self) -> None:
        """End every connection, stop listening, and wait for the proxy's threads to end."""
        self.refuse()
        for thread in self._threads:
            thread.join(SETTLE_SECONDS)

    def forward(self) -> None:
        """Work normally again: what was held up flows, what was left unanswered is reset."""
        with self._lock:
            self._deaf = False
            self._bytes_left = {"client": None, "server": None}
            self._needle = None
            self._reset_unanswered()
            self.gate.set()
        self.start()

    def refuse(self) -> None:
        """As when the server's program is gone: connections are reset, new ones refused."""
        with self._lock:
            listener, self._listener = self._listener, None
            if listener is not None:
                # shutdown() wakes the thread in accept(); close() alone would not.
                with contextlib.suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)
                listener.close()
        self.cut()

    def be_deaf(self) -> None:
        """Accept new connections and never answer them; existing ones still flow."""
        with self._lock:
            self._deaf = True
        self.start()

    def blackhole(self) -> None:
        """Forward nothing any more, in either direction; every connection stays open."""
        self.gate.clear()
        self.start()

    def cut(self) -> None:
        """Reset all present connections, at both ends. The mode for new ones stays."""
        with self._lock:
            links, self._links = self._links, []
            self._reset_unanswered()
        for link in links:
            link.cut()

    def cut_after(self, *, client_bytes: int | None = None, server_bytes: int | None = None) -> None:
        """Given how many bytes may still pass from each side, reset the connection that has more.

        The bytes up to the limit are forwarded. Happens once; then all is forwarded again.
        """
        with self._lock:
            self._bytes_left = {"client": client_bytes, "server": server_bytes}

    def swallow_answer(self, after: bytes = b"COMMIT") -> None:
        """Given a byte string, wait for it in what a client sends: the commit nobody hears of.

        The message reaches the server, which carries it out. Nothing the server answers reaches the
        client, and once the server is ready again the connection is reset and the event
        ``swallowed`` is set. Happens once; then all is forwarded again.
        """
        self._set_trap("swallow", after)

    def cut_before(self, awaited: bytes = b"COMMIT") -> None:
        """Given a byte string, wait for it in what a client sends, and reset the connection instead.

        The server gets what came before, but not the message that holds it. Happens once; then all is
        forwarded again.
        """
        self._set_trap("cut", awaited)

    @property
    def connections(self) -> int:
        """How many connections are open through it now."""
        with self._lock:
            return sum(not link.closed for link in self._links)

    @property
    def is_armed(self) -> bool:
        """True while a cut or a swallowed answer that was asked for has yet to begin."""
        with self._lock:
            return self._needle is not None or any(left is not None for left in self._bytes_left.values())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def allowance(self, side: Side, size: int) -> int | None:
        """Given bytes that came from a side, return how many may pass before a cut; None is all."""
        with self._lock:
            left = self._bytes_left[side]
            if left is None or left >= size:
                self._bytes_left[side] = None if left is None else left - size
                return None
            self._bytes_left = {"client": None, "server": None}
            return left

    def sprung(self, sent: bytes) -> Trap | None:
        """Given what a client sent lately, return what to do if it holds the awaited bytes; once."""
        with self._lock:
            if self._needle is None or self._needle not in sent:
                return None
            self._needle = None
            return self._trap

    def needle_bytes(self) -> int:
        """How much of a client's last message must be kept to find a needle that spans two."""
        with self._lock:
            return 0 if self._needle is None else len(self._needle) - 1

    def _set_trap(self, trap: Trap, needle: bytes) -> None:
        with self._lock:
            self._trap, self._needle = trap, needle
            self.swallowed.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self.accepted += 1
                if self._deaf:
                    self._unanswered.append(client)
                    continue
            self._link(client)

    def _link(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.target_port), CONNECT_SECONDS)
        except OSError:
            _reset(client)
            return
        server.settimeout(None)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = _Link(self, client, server)
        with self._lock:
            stopped = self._listener is None
            if not stopped:
                self._links = [*(known for known in self._links if not known.closed), link]
        if stopped:
            link.cut()
            return
        self._spawn(link.pump, "client")
        self._spawn(link.pump, "server")

    def _reset_unanswered(self) -> None:
        for client in self._unanswered:
            _reset(client)
        self._unanswered = []

    def _spawn(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads = [known for known in self._threads if known.is_alive()]
        self._threads.append(thread)
        thread.start()


class _Link:
    """One connection through the proxy: two sockets, and a thread for each direction."""

    def __init__(self, proxy: TcpProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._ends: dict[Side, socket.socket] = {"client": client, "server": server}
        self._lock = threading.Lock()
        self._closed = False
        self._ended: set[Side] = set()
        self._sent = b""
        self._answer: bytes | None = None

    @property
    def closed(self) -> bool:
        """True once both ends are."""
        return self._closed

    def pump(self, side: Side) -> None:
        """Given the side that talks, forward what it says until it ends or the link is cut."""
        source = self._ends[side]
        sink = self._ends["server" if side == "client" else "client"]
        try:
            while chunk := source.recv(CHUNK_BYTES):
                while not self._proxy.gate.wait(GATE_POLL_SECONDS) and not self._closed:
                    pass
                if not self._forward(side, sink, chunk):
                    return
            self._end(side, sink)
        except OSError:
            self.cut()

    def cut(self) -> None:
        """Reset both ends."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for end in self._ends.values():
            _reset(end)

    def _forward(self, side: Side, sink: socket.socket, chunk: bytes) -> bool:
        """Given a chunk, forward what may pass; return False once the link was cut."""
        allowed = self._proxy.allowance(side, len(chunk))
        if side == "client":
            trap = self._sprung(chunk)
            if trap == "cut":
                self.cut()
                return False
            if trap == "swallow":
                self._answer = b""
        elif self._answer is not None:
            return self._swallow(chunk)
        sink.sendall(chunk[:allowed])
        if allowed is not None:
            self.cut()
        return allowed is None

    def _sprung(self, chunk: bytes) -> Trap | None:
        keep = self._proxy.needle_bytes()
        recent = self._sent + chunk
        trap = self._proxy.sprung(recent)
        self._sent = recent[-keep:] if keep else b""
        return trap

    def _swallow(self, chunk: bytes) -> bool:
        self._answer = (self._answer or b"") + chunk
        if READY_FOR_QUERY not in self._answer:
            return True
        self.cut()
        self._proxy.swallowed.set()
        return False

    def _end(self, side: Side, sink: socket.socket) -> None:
        """Pass an orderly end on; close when both sides have ended."""
        if self._answer is not None:
            self.cut()
            return
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        with self._lock:
            self._ended.add(side)
            if len(self._ended) < len(self._ends) or self._closed:
                return
            self._closed = True
        for end in self._ends.values():
            end.close()


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
        # A thread blocked in recv() keeps the descriptor alive past close(); this wakes it.
        end.shutdown(socket.SHUT_RD)
    end.close()
