"""What can be typed: commands, their options, and what those mean. Nothing is looked at or done here."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from typing import TypeAlias

from durably import __version__

DATABASE = "DURABLY_DB"
DEFAULT_DATABASE = "durably.db"
DEFAULT_PORT = 8700
DEFAULT_GRACE_S = 30.0
DEFAULT_SOURCES = ("orchestrators", "activities")

_STATUSES = ("running", "stalled", "completed", "failed", "terminated")
_ID_REUSE = ("reject", "allow_if_closed", "use_existing")
_LEVELS = ("debug", "info", "warning", "error")
_A_TURN = "how long the orchestrator's function runs for a turn (default: %(default)s)"
_AN_ACTIVITY = "how long an activity's function runs for an attempt (default: %(default)s)"
_EXAMPLES = """\
example:
  durably dev                                          in one terminal; then, in another:
  durably start welcome welcome-1 --input '{"name": "Ada"}' --wait
  durably show welcome-1
  durably history welcome-1

exit codes: 0 done; 1 refused, or what was asked for failed; 2 wrong usage. Errors go to standard error.
"""

Options: TypeAlias = argparse.Namespace  # which attributes there are depends on `command`


def parse(arguments: Sequence[str] | None) -> Options:
    """The options typed; wrong usage ends the process with exit code 2 and says why."""
    return _parser().parse_args(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="durably",
        description="Durable functions on one SQLite file: run them, start them, look at them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    versions = f"durably {__version__}, Python {sys.version.split()[0]}"
    parser.add_argument("-V", "--version", action="version", version=versions, help="print durably's and Python's")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    _add_dev(commands.add_parser("dev", help="run orchestrators and activities; reload them when they change"))
    _add_start(commands.add_parser("start", help="start an execution"))
    _add_list(commands.add_parser("list", help="list executions, newest first"))
    show = commands.add_parser("show", help="say how an execution stands, and what it waits for")
    show.description = "Say how an execution stands: its status, its result or failure, and what it waits for."
    _add_one(show)
    history = commands.add_parser("history", help="list what happened in an execution")
    history.description = "List what happened in an execution, in order, each event followed by what it caused."
    _add_one(history)
    _add_result(commands.add_parser("result", help="print what an execution returned"))
    _add_terminate(commands.add_parser("terminate", help="end an execution without asking its code"))
    from durably.cli.schedule_arguments import add_schedules

    add_schedules(commands.add_parser("schedules", help="start executions at instants"), _add_common)
    _add_cost(commands.add_parser("cost", help="price an execution on AWS"))
    _add_template(commands.add_parser("template", help="what the SAM template must say about the activities in code"))
    return parser


def _add_dev(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Import all modules under PATH, run what they define on one SQLite file, serve callbacks, and start afresh "
        "whenever one of their files changes. Ctrl-C ends it; everything unfinished resumes at the next start."
    )
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="folder or file (default: orchestrators/ and activities/)"
    )
    _add_database(parser)
    parser.add_argument("--host", default="127.0.0.1", help="where to serve callbacks (default: %(default)s)")
    parser.add_argument(
        "--port",
        type=_port,
        default=DEFAULT_PORT,
        help="the same across reloads; 0 for a free one (default: %(default)s)",
    )
    parser.add_argument("--callback-url", metavar="URL", help="how others reach that port, if not by its own address")
    parser.add_argument("--no-reload", dest="reload", action="store_false", help="do not watch for changes")
    parser.add_argument(
        "--grace",
        type=_seconds,
        default=DEFAULT_GRACE_S,
        metavar="SECONDS",
        help="how long to wait, at the end and at a reload, for activities that run; those that take longer run "
        "again (default: %(default)g)",
    )
    parser.add_argument("--log-level", choices=_LEVELS, default="info", help="(default: %(default)s)")


def _add_template(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Import all modules under PATH and show, as a diff, what the SAM template lacks for their activities: each "
        "module gets a function, a queue and a dead-letter queue. What is there stays as it is."
    )
    parser.add_argument("paths", nargs="*", default=["activities"], metavar="PATH", help="(default: activities/)")
    parser.add_argument("--template", default="template.yaml", metavar="FILE", help="(default: %(default)s)")
    parser.add_argument(
        "--functions",
        default="infra/functions",
        metavar="FOLDER",
        help="of the functions' files (default: %(default)s)",
    )
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--update", action="store_true", help="write it")
    given.add_argument("--check", action="store_true", help="exit with 1 if anything is missing")


def _add_start(parser: argparse.ArgumentParser) -> None:
    parser.description = "Start an execution. When this returns, the start is stored; `durably dev` runs it."
    parser.add_argument("orchestrator", metavar="ORCHESTRATOR", help="its name")
    parser.add_argument("execution_id", metavar="ID", help="the execution's id, chosen by you")
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--input", metavar="JSON", help='arguments by parameter name: \'{"name": "World"}\'')
    given.add_argument("--input-file", metavar="FILE", help="the same from a file; - for standard input")
    parser.add_argument("--id-reuse", choices=_ID_REUSE, default="reject", help="if the id is taken (default: reject)")
    parser.add_argument("--request-id", metavar="TEXT", help="the same start under the same request id happens once")
    parser.add_argument(
        "--from",
        dest="sources",
        action="append",
        metavar="PATH",
        help="where orchestrators are defined; may be repeated (default: orchestrators/ and activities/)",
    )
    _add_wait(parser)
    _add_database(parser)
    _add_json(parser)


def _add_result(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print what an execution returned, as JSON. If it failed, say why and exit with 1."
    _add_one(parser)
    _add_wait(parser)


def _add_terminate(parser: argparse.ArgumentParser) -> None:
    parser.description = "End an execution without asking its code. What it has done is not undone."
    _add_one(parser)
    parser.add_argument(
        "--reason", default="terminated from the command line", metavar="TEXT", help="is recorded with its end"
    )


def _add_cost(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Price an execution on AWS from its history: one in the SQLite file as if it had run there, or with --aws one "
        "of the deployment that DURABLY_TABLE and DURABLY_BUCKET name."
    )
    _add_one(parser)
    parser.add_argument("--aws", action="store_true", help="read it from AWS instead of the file")
    parser.add_argument("--turn-ms", type=_seconds, default=15, metavar="MS", help=_A_TURN)
    parser.add_argument("--turn-mb", type=_count, default=512, metavar="MB", help="its memory (default: %(default)s)")
    parser.add_argument("--activity-ms", type=_seconds, default=100, metavar="MS", help=_AN_ACTIVITY)
    parser.add_argument(
        "--activity-mb", type=_count, default=512, metavar="MB", help="its memory (default: %(default)s)"
    )


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.description = "List executions, newest first."
    parser.add_argument("--status", choices=_STATUSES)
    parser.add_argument("--orchestrator", metavar="NAME")
    parser.add_argument("--limit", type=_count, default=50, metavar="N", help="(default: %(default)s)")
    _add_database(parser)
    _add_json(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    _add_database(parser)
    _add_json(parser)


def _add_one(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("execution_id", metavar="ID", help="of the execution")
    _add_common(parser)


def _add_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait",
        nargs="?",
        type=_seconds,
        const=math.inf,
        metavar="SECONDS",
        help="wait until it ends, at most so long, and print its result as JSON",
    )


def _add_database(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--db",
        default=os.environ.get(DATABASE) or DEFAULT_DATABASE,
        metavar="FILE",
        help=f"the SQLite file (default: %(default)s; set {DATABASE} to change it)",
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port: 0 to 65535")
    return port


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return count
