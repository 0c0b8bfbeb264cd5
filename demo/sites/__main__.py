"""``python -m demo.sites``: serve the local copies until SIGTERM or SIGINT.

The base URLs are printed as one line of JSON as soon as every site answers.
"""

import argparse
import json
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.error import CannotListenError

from demo.sites.server import SCALES, listen, local_sites

MISUSE = 2


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m demo.sites",
        description="Serve local copies of the four sites on 127.0.0.1, one port each.",
        epilog="example: python -m demo.sites --first-port 8801 --scale small",
    )
    parser.add_argument("--seed", type=int, default=1, help="same seed, same pages (default: 1)")
    parser.add_argument("--scale", choices=sorted(SCALES), default="full", help="default: full")
    parser.add_argument(
        "--first-port", type=int, default=0, help="the first of four ports (default: free ones)"
    )
    parser.add_argument(
        "--port-file", type=Path, metavar="FILE", help="also write the line of base URLs here"
    )
    parser.add_argument(
        "--python-docs-dir",
        type=Path,
        metavar="DIR",
        help="serve these real pages as python_docs, e.g. /usr/share/doc/python3/html",
    )
    parser.add_argument(
        "--until-input-ends",
        action="store_true",
        help="also stop when standard input closes, i.e. when the parent process ends",
    )
    return parser.parse_args(arguments)


def announce(addresses: dict[str, str], port_file: Path | None) -> None:
    line = json.dumps(addresses)
    if port_file is not None:
        unfinished = port_file.with_name(port_file.name + ".new")
        unfinished.write_text(line + "\n")
        unfinished.replace(port_file)
    print(line, flush=True)


def default_reactor() -> Any:
    # Importing it installs it, which is for this program to do and not for who imports the module.
    from twisted.internet import reactor

    return reactor


def stop_when_input_ends(reactor: Any) -> None:
    # Not sys.stdin: its lock, held by this thread, would stop the interpreter from ending.
    while os.read(0, 4096):
        pass
    reactor.callFromThread(reactor.stop)


def main() -> int:
    """Serve until told to stop. Return 0, or 2 if the arguments cannot be served."""
    options = parse_arguments()
    reactor = default_reactor()
    try:
        sites = local_sites(options.seed, SCALES[options.scale], options.python_docs_dir)
        addresses = listen(sites, options.seed, reactor, options.first_port)
    except (ValueError, CannotListenError) as error:
        print(f"demo.sites: {error}", file=sys.stderr)
        return MISUSE
    reactor.callWhenRunning(announce, addresses, options.port_file)
    if options.until_input_ends:
        watcher = threading.Thread(target=stop_when_input_ends, args=(reactor,), daemon=True)
        reactor.callWhenRunning(watcher.start)
    reactor.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
