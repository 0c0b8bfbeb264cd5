"""A host of the test's own at the other end of a cable: a network namespace. Needs root and iproute2."""

import ctypes
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import psutil

from tests.support.tools import require_program, require_root

_CLONE_NEWNET = 0x40000000
_MAC = "02:00:00:00:00:02"
# States of a switch's port: the first lets nothing through, and no cable notices.
_DISABLED, _FORWARDING = 0, 3

T = TypeVar("T")


class FarHost:
    """A host with one address, reached through a switch that can be told to drop every packet.

    The cables stay plugged in and the address stays known (no "no route to host" ends a wait): what
    is sent just gets no answer, as when the far machine loses its power behind a switch or a router.
    A context manager; leaving it removes the host and its connections.
    """

    def __init__(self) -> None:
        """Return a host that does not exist yet. The test is skipped where it cannot."""
        self._ip, self._bridge = (
            require_program(name, install="apt install iproute2") for name in ("ip", "bridge")
        )
        require_root(to="make network namespaces")
        self._name = f"far-{secrets.token_hex(4)}"
        # 198.18.0.0/15 is set aside for test networks (RFC 2544).
        network = f"198.18.{secrets.randbelow(256)}.{4 * secrets.randbelow(64)}"
        first, last = network.rsplit(".", 1)
        self._here, self.address = (f"{first}.{int(last) + n}" for n in (1, 2))

    def __enter__(self) -> Self:
        self._call("netns", "add", self._name)
        try:
            self._lay_cable()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._remove()

    def drop_packets(self) -> None:
        """From now on nothing arrives, in either direction."""
        self._set_port(_DISABLED)

    def pass_packets(self) -> None:
        """Undo ``drop_packets``."""
        self._set_port(_FORWARDING)

    def run(self, function: Callable[[], T]) -> T:
        """Given a function, call it on the far host: sockets it opens and programs it starts stay there."""
        results: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                _enter_namespace(Path("/run/netns", self._name))
                results.append(function())
            except BaseException as error:  # noqa: BLE001  raised again in the caller's thread
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def hang_up(self) -> None:
        """End every connection of this process to the far host, also one that is still being made."""
        for connection in psutil.Process().net_connections("tcp"):
            if getattr(connection.raddr, "ip", None) == self.address:
                with socket.socket(fileno=os.dup(connection.fd)) as end, suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _lay_cable(self) -> None:
        here = self._name
        self._call("link", "add", here, "type", "veth", "peer", "name", "port", "netns", self._name)
        self._call("addr", "add", f"{self._here}/30", "dev", here)
        self._call("link", "set", here, "up")
        self._call_there("link", "add", "switch", "address", _MAC, "type", "bridge")
        self._call_there("link", "set", "port", "master", "switch")
        self._call_there("addr", "add", f"{self.address}/30", "dev", "switch")
        for device in ("lo", "port", "switch"):
            self._call_there("link", "set", device, "up")
        self._call("neigh", "replace", self.address, "lladdr", _MAC, "dev", here, "nud", "permanent")

    def _set_port(self, state: int) -> None:
        _run(self._bridge, "-netns", self._name, "link", "set", "dev", "port", "state", str(state))

    def _remove(self) -> None:
        # The cable first: an open socket keeps a namespace, and with it the cable, alive.
        subprocess.run([self._ip, "link", "delete", self._name], check=False, capture_output=True)
        self._call("netns", "delete", self._name)

    def _call_there(self, *arguments: str) -> None:
        self._call("-netns", self._name, *arguments)

    def _call(self, *arguments: str) -> None:
        _run(self._ip, *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _enter_namespace(path: Path) -> None:
    """Move the calling thread, and only it. ``os.setns`` came with Python 3.12."""
    with path.open() as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"the namespace {path} cannot be entered")
