"""What all stories have in common: one clock, one database, and an end that is clear however it comes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from demo.console import CLOCK, say
from demo.processes import ChildFailedError
from durably import DurablyError

DATABASE_HELP = "SQLite file, kept; what it holds goes on. Default: temporary"


class StoryError(Exception):
    """A story cannot end as it should."""


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The command line of a story, with what every story takes."""
    made = argparse.ArgumentParser(prog=f"python -m demo.story {name}", description=(description or "").strip())
    made.add_argument("--db", type=Path, help=DATABASE_HELP)
    return made


def run(who: str, db: Path | None, tell: Callable[[Path], None]) -> int:
    """Tell a story on a database, and return the exit code: 0, or 1 if it did not end as it should."""
    os.environ[CLOCK] = str(time.time())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if db is not None:
            tell(db.resolve())
        else:
            with tempfile.TemporaryDirectory(prefix=f"durably-{who}-") as directory:
                tell(Path(directory) / f"{who}.db")
    except KeyboardInterrupt:
        say(who, "interrupted; its processes are ended")
        return 128 + signal.SIGINT
    except (StoryError, ChildFailedError, DurablyError) as error:
        say(who, f"failed: {error}")
        return 1
    return 0
