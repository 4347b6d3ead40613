"""What can be typed after `durably schedules`. Nothing is looked at or done here."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import datetime, timedelta

_OVERLAPS = ("skip", "buffer_one", "buffer_all", "cancel_other", "allow_all")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LENGTH = "such as 30s, 15m, 2h or 1d"


def add_schedules(parser: argparse.ArgumentParser, add_common: Callable[[argparse.ArgumentParser], None]) -> None:
    """The commands of schedules, each with the options that `add_common` adds."""
    parser.description = "Start executions at instants: create schedules, look at them, steer them."
    commands = parser.add_subparsers(title="commands", dest="action", required=True, metavar="COMMAND")

    def command(name: str, what: str, *, one: bool = True) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        if one:
            added.add_argument("schedule_id", metavar="ID", help="of the schedule")
        add_common(added)
        return added

    command("list", "list schedules, newest first", one=False)
    command("show", "say how a schedule stands: its next instants and what it started last")
    _add_create(command("create", "start executions of an orchestrator at instants"))
    for name, what in (
        ("pause", "start nothing until it is resumed"),
        ("resume", "go on with the next instant; what passed meanwhile is not made up for"),
    ):
        command(name, what).add_argument("--note", default="", metavar="TEXT", help="why, for those who look at it")
    trigger = command("trigger", "start an execution now, also while the schedule is paused")
    trigger.add_argument("--overlap", choices=_OVERLAPS, help="instead of the schedule's own policy")
    backfill = command("backfill", "start what was not started in a time span")
    backfill.add_argument("since", type=_instant, metavar="FROM", help="such as 2026-03-01T00:00Z")
    backfill.add_argument("until", type=_instant, metavar="UNTIL")
    backfill.add_argument("--overlap", choices=_OVERLAPS, default="buffer_all", help="(default: %(default)s)")
    command("delete", "end a schedule; what it started goes on")


def _add_create(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("orchestrator", metavar="ORCHESTRATOR", help="its name")
    when = parser.add_mutually_exclusive_group(required=True)
    when.add_argument("--cron", metavar="EXPRESSION", help="such as '30 2 * * 1-5'")
    when.add_argument("--every", type=_length, metavar="LENGTH", help=_LENGTH)
    when.add_argument("--at", type=_instant, metavar="INSTANT", help="once, such as 2026-03-01T09:00+01:00")
    parser.add_argument("--zone", default="UTC", metavar="NAME", help="of --cron, such as Europe/Berlin (default: UTC)")
    parser.add_argument("--input", default="{}", metavar="JSON", help="arguments by parameter name")
    parser.add_argument("--overlap", choices=_OVERLAPS, default="skip", help="if one still runs (default: %(default)s)")
    parser.add_argument(
        "--jitter", type=_length, default=timedelta(0), metavar="LENGTH", help=f"put each off by up to this, {_LENGTH}"
    )
    parser.add_argument(
        "--catch-up", type=_length, default=timedelta(days=1), metavar="LENGTH", help="make up for what nobody started"
    )
    parser.add_argument("--paused", action="store_true", help="start nothing until it is resumed")
    parser.add_argument("--note", default="", metavar="TEXT", help="why")
    parser.add_argument(
        "--from",
        dest="sources",
        action="append",
        metavar="PATH",
        help="where orchestrators are defined; may be repeated (default: orchestrators/ and activities/)",
    )


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is no instant, such as 2026-03-01T09:00Z") from error
    if instant.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text} has no time zone; write {text}Z for UTC")
    return instant


def _length(text: str) -> timedelta:
    number, unit = text[:-1], text[-1:]
    if not number.isdecimal() or unit not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text} is no length of time, {_LENGTH}")
    return timedelta(seconds=int(number) * _UNITS[unit])
