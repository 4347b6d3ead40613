"""What the demo says while it runs: one line at a time on standard error, on one clock for all its processes."""

from __future__ import annotations

import logging
import os
import sys
import time

CLOCK = "DEMO_STARTED_AT"


def say(who: str, text: str) -> None:
    """A line of progress; one write, so that the lines of several processes do not mix."""
    started_at = float(os.environ.setdefault(CLOCK, str(time.time())))
    sys.stderr.write(f"{time.time() - started_at:6.2f} s  {who:<8}  {text}\n")
    sys.stderr.flush()


class SayingHandler(logging.Handler):
    """Log records as lines of progress."""

    def __init__(self, who: str) -> None:
        super().__init__()
        self._who = who

    def emit(self, record: logging.LogRecord) -> None:
        """Say the record's message, and the traceback if it has one."""
        say(self._who, self.format(record))
