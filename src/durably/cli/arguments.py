"""What can be typed: commands, their options, and what those mean. Nothing is looked at or done here."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from durably import __version__

DATABASE = "DURABLY_DB"
DEFAULT_DATABASE = "durably.db"
DEFAULT_PORT = 8700
DEFAULT_GRACE_S = 30.0
DEFAULT_REPLAY_S = 60.0
DEFAULT_REPLY_S = 30.0
DEFAULT_SOURCES = ("orchestrators", "activities")

STATUSES = (
    "running",
    "stalled",
    "suspended",
    "completed",
    "failed",
    "cancelled",
    "terminated",
)  # a purged one is in no list
ENDED = STATUSES[3:]
_ID_REUSE = ("reject", "allow_if_closed", "use_existing")
_FORMATS = ("text", "json", "github")
_LEVELS = ("debug", "info", "warning", "error")
_A_TURN = "how long the orchestrator's function runs for a turn (default: %(default)s)"
_AN_ACTIVITY = "how long an activity's function runs for an attempt (default: %(default)s)"
_STEERING = {  # help and description
    "cancel": (
        "ask an execution to cancel itself",
        "Ask an execution to cancel itself: CancelledError where it waits, so that it can clean up.",
    ),
    "suspend": ("run nothing until it is resumed", "Keep what arrives for an execution, and run nothing of its code."),
    "resume": ("go on after suspend", "Go on where suspend stopped, with what has arrived since."),
    "terminate": (
        "end an execution without asking its code",
        "End an execution without asking its code. What it has done is not undone.",
    ),
    "retry": (
        "open one that failed again",
        "Open an execution that did not complete at its last good point: what failed runs again, nothing else does.",
    ),
}
_EXAMPLES = """\
example:
  durably dev                                          in one terminal; then, in another:
  durably start welcome welcome-1 --input '{"name": "Ada"}' --wait
  durably show welcome-1
  durably history welcome-1

exit codes: 0 done; 1 refused, or what was asked for failed; 2 wrong usage; 130 interrupted. Errors go to standard
error.
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
    _add_lint(commands.add_parser("lint", help="find what in orchestrators would not survive a replay"))
    _add_signal(commands.add_parser("signal", help="send a signal"))
    _add_query(commands.add_parser("query", help="ask an execution, open or closed"))
    _add_update(commands.add_parser("update", help="send a request and print the reply"))
    for name, (help_, description) in _STEERING.items():
        steering = commands.add_parser(name, help=help_)
        _add_steering(steering, description)
        if name not in ("cancel", "terminate"):  # repeated, those find it done
            _add_request_id(steering, name)
    _add_reset(commands.add_parser("reset", help="go back to an event, in a new run"))
    _add_answer(commands.add_parser("complete", help="complete a callback activity"), "result", "RESULT")
    _add_answer(commands.add_parser("fail", help="fail a callback activity"), "message", "MESSAGE")
    _add_heartbeat(commands.add_parser("heartbeat", help="say that a callback activity is being worked on"))
    _add_fork(commands.add_parser("fork", help="start another execution from an event of this one"))
    _add_purge(commands.add_parser("purge", help="delete what is stored of executions that have ended"))
    from durably.cli.schedule_arguments import add_schedules

    add_schedules(commands.add_parser("schedules", help="start executions at instants"), _add_common)
    _add_cost(commands.add_parser("cost", help="price an execution on AWS"))
    _add_export(commands.add_parser("export", help="write the history of an execution to a file"))
    _add_replay(commands.add_parser("replay", help="replay recorded histories against today's code"))
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
    _add_database(parser.add_argument)
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


def _add_lint(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Find what in the source of orchestrators would not survive a replay: clocks, randomness, I/O, threads, the "
        "order of sets, forgotten awaits. Nothing is imported. `# noqa: DUR001` lets a line through."
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="folder or file (default: orchestrators/)")
    parser.add_argument("--select", type=_codes, metavar="CODES", help="look for these only: DUR001,DUR002")
    parser.add_argument("--ignore", type=_codes, default=(), metavar="CODES", help="do not look for these")
    parser.add_argument(
        "--format", choices=_FORMATS, default="text", help="for people, programs or GitHub (default: %(default)s)"
    )


def _add_template(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Import all modules under PATH and show, as a diff, what the SAM template lacks for their activities and "
        "triggers: each module of activities gets a function, a queue and a dead-letter queue; all triggers together "
        "get a function, and each its source. What is there stays as it is."
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="(default: activities/ and orchestrators/)")
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
    _add_request_id(parser, "start")
    parser.add_argument("--pinned", action="store_true", help="only this version of the code runs it")
    _add_sources(parser)
    _add_wait(parser)
    _add_store(parser)
    _add_json(parser)


def _add_result(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print what an execution returned, as JSON. If it failed, say why and exit with 1."
    _add_one(parser)
    _add_wait(parser)


def _add_signal(parser: argparse.ArgumentParser) -> None:
    parser.description = "Send a signal. When this returns it is stored."
    _add_message(parser, "signal")


def _add_query(parser: argparse.ArgumentParser) -> None:
    parser.description = "Ask an execution, open or closed, and print the answer as JSON. Its code is replayed here."
    _add_one(parser)
    parser.add_argument("name", metavar="NAME", help="of the query")
    _add_sources(parser)


def _add_update(parser: argparse.ArgumentParser) -> None:
    parser.description = "Send a request and print the reply as JSON. If it is refused or fails, say why; exit with 1."
    _add_message(parser, "update")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=DEFAULT_REPLY_S,
        metavar="SECONDS",
        help="how long to wait for the reply (default: %(default)g)",
    )


def _add_message(parser: argparse.ArgumentParser, kind: str) -> None:
    parser.add_argument("execution_id", metavar="ID", help="of the execution")
    parser.add_argument("name", metavar="NAME", help=f"of the {kind}")
    parser.add_argument("payload", metavar="JSON", help="what it carries; null for nothing")
    _add_request_id(parser, kind)
    _add_store(parser)
    _add_json(parser)


def _add_steering(parser: argparse.ArgumentParser, description: str) -> None:
    parser.description = description
    _add_one(parser)
    parser.add_argument("--reason", default="asked for on the command line", metavar="TEXT", help="is recorded with it")


def _add_reset(parser: argparse.ArgumentParser) -> None:
    _add_steering(
        parser,
        "Go back to an event of the current run, in a new one. Signals that came later are kept, results are not.",
    )
    _add_to_event(parser, required=True)
    _add_input(parser)
    _add_request_id(parser, "reset")
    _add_sources(parser)


def _add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", metavar="JSON", help="another input, by parameter name; with event 1 only")


def _add_fork(parser: argparse.ArgumentParser) -> None:
    parser.description = "Start another execution with the history of this one up to an event."
    parser.add_argument("execution_id", metavar="ID", help="of the execution")
    parser.add_argument("new_id", metavar="NEW_ID", help="of the new one")
    _add_to_event(parser, required=False)
    _add_input(parser)
    _add_request_id(parser, "fork")
    _add_sources(parser)
    _add_store(parser)
    _add_json(parser)


def _add_answer(parser: argparse.ArgumentParser, name: str, metavar: str) -> None:
    parser.description = (
        "Answer for the outside world where a callback will not come by itself. `durably show` lists the "
        "numbers of those that are open."
    )
    _add_one(parser)
    parser.add_argument("activity", type=_count, metavar="N", help="number of the activity in the history")
    parser.add_argument(name, metavar=metavar, help="JSON" if name == "result" else "why; its policy may try again")


def _add_heartbeat(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Say that a callback activity is being worked on, and how far it got. The answer says whether anybody still "
        "waits for it. Name it by execution and number, as `durably show` does, or by its callback's URL or token."
    )
    named = parser.add_mutually_exclusive_group(required=True)
    named.add_argument("execution_id", nargs="?", metavar="ID", help="of the execution")
    named.add_argument("--token", metavar="TOKEN", help="the callback's URL or the token in it, instead of ID and N")
    parser.add_argument("activity", nargs="?", type=_count, metavar="N", help="number of the activity in the history")
    parser.add_argument("--details", metavar="JSON", help="for the next attempt; without them the last ones stay")
    _add_common(parser)


def _add_purge(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Delete what is stored of executions that have ended: one by its id, or all that were closed before an "
        "instant. Without --yes nothing is deleted, and what would be is listed. For 15 days the ids are remembered. "
        "Interrupted, it is called again and goes on."
    )
    named = parser.add_mutually_exclusive_group(required=True)
    named.add_argument("execution_id", nargs="?", metavar="ID", help="of one execution")
    named.add_argument(
        "--closed-before", type=_instant, metavar="WHEN", help="90m, 12h, 7d ago, or 2030-01-31, 2030-01-31T12:00+01:00"
    )
    parser.add_argument("--status", choices=ENDED, help="only what ended so; with --closed-before")
    parser.add_argument("--orchestrator", metavar="NAME", help="only its executions; with --closed-before")
    parser.add_argument(
        "--limit", type=_count, default=1_000, metavar="N", help="how many at most (default: %(default)s)"
    )
    parser.add_argument("--yes", action="store_true", help="do it")
    _add_common(parser)


def _add_request_id(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--request-id", metavar="TEXT", help=f"the same {what} under the same request id happens once (default: new)"
    )


def _add_to_event(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--to-event",
        type=_count,
        required=required,
        default=None if required else 1,
        metavar="N",
        help="number in `durably history` of the last event to keep" + ("" if required else " (default: 1)"),
    )


def _add_cost(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Price an execution on AWS from its history: one in the SQLite file as if it had run there, or one of a "
        "deployed stack."
    )
    _add_one(parser)
    parser.add_argument("--turn-ms", type=_seconds, default=15, metavar="MS", help=_A_TURN)
    parser.add_argument("--turn-mb", type=_count, default=512, metavar="MB", help="its memory (default: %(default)s)")
    parser.add_argument("--activity-ms", type=_seconds, default=100, metavar="MS", help=_AN_ACTIVITY)
    parser.add_argument(
        "--activity-mb", type=_count, default=512, metavar="MB", help="its memory (default: %(default)s)"
    )


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write the history of an execution as a JSON document, one that `durably replay` and durably.testing.replay "
        "read."
    )
    parser.add_argument("execution_id", metavar="ID", help="of the execution")
    parser.add_argument("--output", metavar="FILE", help="(default: standard output)")
    _add_store(parser)


def _add_replay(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Replay histories against today's code, and say of each whether it still asks for what it asked for. Nothing "
        "runs and nothing is written. Without FILE the executions of a store are replayed, newest first. Exits with 1 "
        "if any of them is not as recorded."
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="as `durably export` writes them")
    parser.add_argument(
        "--since",
        type=_instant,
        metavar="WHEN",
        help="leave out what was started earlier: 90m, 12h, 7d ago, or 2030-01-31, 2030-01-31T12:00+01:00",
    )
    parser.add_argument("--status", choices=STATUSES)
    parser.add_argument("--orchestrator", metavar="NAME")
    parser.add_argument("--limit", type=_count, default=1_000, metavar="N", help="(default: %(default)s)")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=DEFAULT_REPLAY_S,
        metavar="SECONDS",
        help="how long one replay may take, so that code that never ends holds nobody else up (default: %(default)g)",
    )
    _add_sources(parser)
    _add_store(parser)
    _add_json(parser)


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.description = "List executions, newest first."
    parser.add_argument("--status", choices=STATUSES)
    parser.add_argument("--orchestrator", metavar="NAME")
    parser.add_argument("--limit", type=_count, default=50, metavar="N", help="(default: %(default)s)")
    _add_store(parser)
    _add_json(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
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


def _add_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        dest="sources",
        action="append",
        metavar="PATH",
        help="where orchestrators are defined; may be repeated (default: orchestrators/ and activities/)",
    )


def _add_database(add_argument: Callable[..., object]) -> None:
    add_argument(
        "--db",
        default=os.environ.get(DATABASE) or DEFAULT_DATABASE,
        metavar="FILE",
        help=f"the SQLite file (default: %(default)s; set {DATABASE} to change it)",
    )


def _add_store(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    _add_database(where.add_argument)
    where.add_argument("--stack", metavar="NAME", help="a deployed stack instead, in the account and region of AWS_*")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def _port(text: str) -> int:
    port = int(text) if _is_whole(text) else -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port: 0 to 65535")
    return port


def _codes(text: str) -> tuple[str, ...]:
    return tuple(code.strip().upper() for code in text.split(",") if code.strip())


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return seconds


def _instant(text: str) -> datetime:
    unit = {"m": "minutes", "h": "hours", "d": "days"}.get(text[-1:])
    try:
        if unit is not None:
            return datetime.now(UTC) - timedelta(**{unit: float(text[:-1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{text} is neither 90m, 12h, 7d nor a date: {error}") from error


def _count(text: str) -> int:
    count = int(text) if _is_whole(text) else 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number of at least 1")
    return count


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10
