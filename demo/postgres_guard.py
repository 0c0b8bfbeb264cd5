"""Stops a PostgreSQL server whose owner is gone. Run as a script, by ``demo.postgres`` only.

Its standard input is a pipe from the owner, who first writes the server's process id. The pipe
ends when the owner ends, however it ends, and then the server is stopped. The kernel's parent-death
signal would not do: it fires when the THREAD that started the server ends, and a frozen server
never receives it.
"""

import contextlib
import signal
import sys

import psutil

STOP_SECONDS = 10.0


def stop_server(server: psutil.Process) -> None:
    """Given a postmaster, thaw it and stop it in order; after 10 s kill it and its backends."""
    family = [server, *server.children(recursive=True)]
    for process in family:
        _send(process, signal.SIGCONT)
    _send(server, signal.SIGINT)
    _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
    for process in alive:
        _send(process, signal.SIGKILL)


def _send(process: psutil.Process, number: signal.Signals) -> None:
    # It may have ended first, which is what was wanted.
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def main() -> None:
    line = sys.stdin.readline()
    if not line:
        return
    try:
        # psutil remembers the start time, so a recycled process id is never signalled.
        server = psutil.Process(int(line))
        sys.stdin.read()
        stop_server(server)
    except psutil.NoSuchProcess:
        return


if __name__ == "__main__":
    main()
