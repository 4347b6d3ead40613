"""The durable side of the demo: everything that routes packets, in one process on one SQLite file."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading

from activities.routing import get_route, transmit
from demo.console import SayingHandler, say
from demo.processes import end_with_parent
from durably import DurablyError
from durably.embedded import Embedded
from orchestrators.routing import route_packet


def main() -> None:
    """Run until told to end. The first line of standard output is the callback server's URL."""
    parser = argparse.ArgumentParser(description="The runtime of the demo.")
    parser.add_argument("--db", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="say errors only")
    options = parser.parse_args()
    level = logging.ERROR if options.quiet else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", handlers=[SayingHandler("runtime")])

    told_to_end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told_to_end.set())
    end_with_parent()
    try:
        with Embedded(
            options.db,
            orchestrators=[route_packet],
            activities=[get_route, transmit],
            http=("127.0.0.1", options.port),
        ) as runtime:
            print(runtime.url, flush=True)
            told_to_end.wait()
    except DurablyError as error:
        say("runtime", str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
