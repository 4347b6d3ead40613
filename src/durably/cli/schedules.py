"""`durably schedules`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from durably.cli.arguments import Options
from durably.cli.opening import opened, registry_of, sources_of
from durably.cli.output import moment, print_json, print_table
from durably.core.context import instant
from durably.core.errors import DefinitionError
from durably.schedules import Action, Cron, Every, Once, Schedule, Schedules, ScheduleState


def schedules(options: Options) -> int:
    """`durably schedules ACTION`."""
    creates = options.action == "create"
    registry = registry_of(sources_of(options)) if creates else None
    with opened(options, registry, create=creates) as store:
        _ACTIONS[options.action](options, Schedules(store.client))
    return 0


def _create(options: Options, known: Schedules) -> None:
    when = (
        Cron(options.cron, options.zone)
        if options.cron is not None
        else Once(options.at)
        if options.at is not None
        else Every(options.every)
    )
    schedule = Schedule(
        when,
        overlap=options.overlap,
        jitter=options.jitter,
        catch_up=options.catch_up,
        paused=options.paused,
        note=options.note,
    )
    if isinstance(when, Once) and when.at < datetime.now(UTC) - schedule.catch_up:
        raise DefinitionError(
            f"{moment(when.at)} is past, by more than is made up for (--catch-up): nothing would ever start."
        )
    known.create_action(options.schedule_id, schedule, Action(options.orchestrator, options.input))
    _say(options, "created")


def _list(options: Options, known: Schedules) -> None:
    found = list(known.list())
    if options.json:
        print_json([asdict(summary) for summary in found])
        return
    rows = ((each.schedule_id, each.status, moment(instant(each.created_at_ms))) for each in found)
    print_table(("ID", "STATUS", "CREATED"), rows)


def _show(options: Options, known: Schedules) -> None:
    state = known.describe(options.schedule_id)
    if options.json:
        print_json(_plain({"schedule_id": options.schedule_id, **asdict(state)}))
        return
    for name, value in _facts(state):
        if value:
            print(f"  {name:<10} {value}")
    started = state.progress.recent
    print_table(
        ("STARTED", "EXECUTION", "STATUS"),
        ((moment(each.started_at) if each.started_at else "", each.execution_id, each.status) for each in started),
    )


def _facts(state: ScheduleState) -> Iterator[tuple[str, str]]:
    schedule, progress = state.schedule, state.progress
    match schedule.when:
        case Cron(expression, zone):
            yield "cron", f"{expression} ({zone})"
        case Every(interval):
            yield "every", str(interval)
        case Once(at):
            yield "once", moment(at)
    yield "starts", f"{state.action.orchestrator} {state.action.input}"
    yield "overlap", schedule.overlap
    yield "jitter", str(schedule.jitter) if schedule.jitter else ""
    yield "catch-up", str(schedule.catch_up)
    yield "paused", "yes" if schedule.paused else ""
    yield "note", schedule.note
    yield "next", ", ".join(moment(each) for each in state.next)
    yield "buffered", ", ".join(each.execution_id for each in (*progress.held, *progress.buffered))
    yield "started", str(progress.started)


def _pause(options: Options, known: Schedules) -> None:
    known.pause(options.schedule_id, options.note)
    _say(options, "paused")


def _resume(options: Options, known: Schedules) -> None:
    known.resume(options.schedule_id, options.note)
    _say(options, "resumed")


def _trigger(options: Options, known: Schedules) -> None:
    execution_id = known.trigger(options.schedule_id, overlap=options.overlap)
    if options.json:
        print_json({"schedule_id": options.schedule_id, "execution_id": execution_id})
    else:
        print(execution_id)


def _backfill(options: Options, known: Schedules) -> None:
    known.backfill(options.schedule_id, options.since, options.until, overlap=options.overlap)
    _say(options, "backfilled")


def _delete(options: Options, known: Schedules) -> None:
    known.delete(options.schedule_id)
    _say(options, "deleted")


def _say(options: Options, done: str) -> None:
    if options.json:
        print_json({"schedule_id": options.schedule_id, "done": done})
    else:
        print(f"{done} {options.schedule_id}")


def _plain(value: Any) -> Any:
    """The same as JSON."""
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
        case list():
            return [_plain(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        case datetime():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case _:
            return value


_ACTIONS: dict[str, Callable[[Options, Schedules], None]] = {
    "backfill": _backfill,
    "create": _create,
    "delete": _delete,
    "list": _list,
    "pause": _pause,
    "resume": _resume,
    "show": _show,
    "trigger": _trigger,
}
