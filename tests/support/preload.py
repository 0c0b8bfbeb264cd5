"""A library in C that stands between a process and the system: made here, and named in LD_PRELOAD."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.tools import require_program

_SOURCES = Path(__file__).parent


def compiled(name: str, folder: Path) -> Path:
    """Given the name of a source beside this module, compile it into a folder; return the library."""
    compiler = require_program("cc", install="apt install gcc libc6-dev")
    library = folder / f"{name}.so"
    source = _SOURCES / f"{name}.c"
    options = ("-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror")
    subprocess.run([compiler, *options, "-o", library, source, "-ldl", "-lpthread"], check=True)
    return library


def preloaded(library: Path, folder: Path, **variables: object) -> Mapping[str, str]:
    """Return the environment of a process whose files below a folder the library is to watch."""
    return {
        **os.environ,
        "LD_PRELOAD": str(library),
        "WATCHED_FOLDER": str(folder),
        **{name: str(value) for name, value in variables.items()},
    }
