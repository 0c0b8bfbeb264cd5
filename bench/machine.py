"""What the figures were measured on."""

import os
import platform
import re
import shutil
import sqlite3
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil
import psycopg2

from demo.postgres import temporary_server

PACKAGES = ("Scrapy", "Twisted", "lxml", "parsel", "orjson", "psycopg2-binary", "sqlitedict")


def facts() -> dict[str, str]:
    """Return the processor, the kernel and the version of everything that takes part."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 1024**3:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "libpq": str(psycopg2.__libpq_version__),
        "PostgreSQL": _postgres(),
        "SQLite": sqlite3.sqlite_version,
        "valgrind": _valgrind(),
    }


def _processor() -> str:
    found = re.search(r"^(?:model name|Model)\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.processor() or "unknown"


def _postgres() -> str:
    with temporary_server() as server:
        said = subprocess.run(
            [server.bin_dir / "postgres", "--version"], capture_output=True, text=True, check=True
        )
    return said.stdout.split()[-1]


def _valgrind() -> str:
    if shutil.which("valgrind") is None:
        return "not installed"
    said = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True)
    return said.stdout.strip().removeprefix("valgrind-")
