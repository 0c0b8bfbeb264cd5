"""Which process is which: numbers recur, a number with its start time since this boot does not."""

import os
from pathlib import Path

PROC = Path("/proc")


def process_identity(pid: int | None = None, proc: Path = PROC) -> str:
    """Given a process number (default: this process), return ``boot/pid/start ticks``.

    Raise OSError if there is no such process. Source of the field: proc(5), field 22 of stat.
    """
    pid = os.getpid() if pid is None else pid
    boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
    # The second field is the command in parentheses and may hold anything, so count from its end.
    after_name = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return f"{boot}/{pid}/{after_name[19]}"


def is_running(identity: str, proc: Path = PROC) -> bool:
    """Given what ``process_identity`` once returned, return True if that very process still runs."""
    pid = identity.split("/")[1]
    try:
        return process_identity(int(pid), proc) == identity
    except (OSError, IndexError):
        return False
