"""Bugs to plant in sagas, maps, races, heartbeats and schedules."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from durably.api import scheduler
from durably.api.schedules import Overlap, Pause, Progress, Start
from durably.core import context, flow, saga
from durably.core.saga import Saga
from durably.ports.backend import Settlement
from durably.ports.messages import Delivery
from durably.ports.records import ActivityItem
from durably.runtime import fence, heart, heartbeats
from durably.runtime.heart import Heart
from tests.simulation import worker
from tests.simulation.seeds import Modes
from tests.simulation.world import Parts

Place = tuple[Any, str, Any]


@dataclass(frozen=True)
class Bug:
    """A bug, and where to plant it.

    Attributes:
        place: object and attribute to replace, with what.
        parts: of the world, where the bug is one of the store's.
        modes: in which it shows.
        since: a seed before the first that showed it, since few do; more are drawn if what seeds draw has changed.
    """

    place: Place | None = None
    parts: Parts | None = None
    modes: Modes = "both"
    since: int = 0


# --- sagas, maps, races ---------------------------------------------------------------------------------------------


_exit = Saga.__aexit__


async def _undone_after_errors_only(of: Saga, kind: Any, error: BaseException | None, trace: Any) -> None:
    if isinstance(error, Exception):
        await _exit(of, kind, error, trace)


async def _undone_anyway(of: Saga, kind: Any, error: BaseException | None, trace: Any) -> None:
    await _exit(of, kind, error or Exception(), trace)


def _noted_first(of: Saga, undo: Callable[..., Awaitable[object]], *args: Any, **kwargs: Any) -> None:
    of._noted.insert(0, saga._Compensation("undo", lambda: undo(*args, **kwargs)))


async def _first_failure_ends_it(compensation: Any, failed: list[tuple[str, Any]]) -> None:
    await compensation.undo()


async def _interruptible(tasks: Sequence[asyncio.Task[Any]]) -> None:
    await asyncio.wait(tasks)


_map_items = flow.map_items


async def _unbounded(fn: Any, items: Any, concurrency: int | None, tolerated: Any, call: Any) -> Any:
    return await _map_items(fn, items, None, tolerated, call)


async def _indulgent(fn: Any, items: Any, concurrency: int | None, tolerated: Any, call: Any) -> Any:
    return await _map_items(fn, items, concurrency, tolerated + 1 if isinstance(tolerated, int) else tolerated, call)


async def _unattended(contenders: Sequence[Awaitable[Any]]) -> Any:
    """The losers are cancelled, and left to themselves."""
    tasks = [asyncio.ensure_future(one) for one in contenders]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return next(task for task in tasks if task in done).result()


# --- heartbeats -----------------------------------------------------------------------------------------------------


def _forgetful(item: ActivityItem, before: ActivityItem | None) -> ActivityItem:
    return item if before is None else replace(item, answered=before.answered, digest=before.digest)


def _as_stored(of: Heart) -> ActivityItem | None:
    of._over = "over"
    return of._item


def _dropped(runtime: Any, delivery: Delivery) -> None:
    runtime.backend.acknowledge([delivery.receipt])


def _by_its_own_clock(runtime: Any, delivery: Delivery) -> None:
    """Sends a check again that comes before its clock says so, under the same id."""
    message: Any = delivery.message
    item = runtime.backend.read_item(message.task.key)
    if item is not None and fence.current(item, message.task) and item.beat_at_ms is not None:
        check = heartbeats.next_check(message.task, item.beat_at_ms)
        if check.due_ms > runtime.clock.now_ms():
            runtime.backend.settle(Settlement(send=(check,), acknowledge=(delivery.receipt,)))
            return
    heartbeats.check_heartbeat(runtime, delivery)


def _under_way(*_: Any) -> bool:
    return True


# --- schedules ------------------------------------------------------------------------------------------------------


_Scheduler: Any = scheduler._Scheduler
_obey = _Scheduler.obey


def _named_by_the_clock(of: Any, instant: datetime) -> Start:
    return Start(f"{of.id}/{of.ctx.now().isoformat()}", scheduled_for=instant)


def _never_busy(of: Any) -> None:
    if of.buffered:
        of.begin(of.buffered.pop(0))


def _in_time_only(of: Any, start: Start, overlap: Overlap) -> None:
    if start.scheduled_for is None or of.ctx.now() - start.scheduled_for < timedelta(seconds=20):
        _offer(of, start, overlap)


_offer = _Scheduler.offer


async def _never_paused(of: Any, command: Any) -> None:
    if not isinstance(command, Pause):
        await _obey(of, command)


def _buffer_left_behind(of: Any) -> Progress:
    return Progress(since=of.since, started=of.started, recent=of.recent)


def _from_now_on(of: Any) -> Progress:
    return Progress(since=of.ctx.now(), buffered=of.buffered, started=of.started, recent=of.recent)


def _not_announced(of: Any, start: Start, task: asyncio.Task[None]) -> None:
    """What was cancelled is waited for until the run ends."""
    if not task.cancelled():
        of.announce(start)


FEATURES: dict[str, Bug] = {
    "a cancelled saga is not undone": Bug((Saga, "__aexit__", _undone_after_errors_only)),
    "a saga is undone that reached its end": Bug((Saga, "__aexit__", _undone_anyway)),
    "a saga is undone first step first": Bug((Saga, "compensate", _noted_first)),
    "a compensation that fails ends the others": Bug((saga, "_undone", _first_failure_ends_it)),
    "a cancellation interrupts compensations": Bug((saga, "settle", _interruptible)),
    "a map has no bound": Bug((context, "map_items", _unbounded)),
    "a map tolerates one failure more": Bug((context, "map_items", _indulgent)),
    "the losers of a race go on": Bug((context, "race", _unattended)),
    "an attempt is not told of the one before": Bug((fence, "remembering", _forgetful)),
    "the last details go with a failure": Bug((Heart, "stop", _as_stored)),
    "silence is not noticed": Bug((worker, "check_heartbeat", _dropped)),
    "a check waits for a slow clock": Bug((worker, "check_heartbeat", _by_its_own_clock)),
    "a heartbeat is always welcome": Bug((heart, "current", _under_way)),
    "an occurrence is named by the clock": Bug((_Scheduler, "start_of", _named_by_the_clock)),
    "a schedule lets executions overlap": Bug((_Scheduler, "begin_buffered", _never_busy)),
    "a schedule makes up for nothing": Bug((_Scheduler, "offer", _in_time_only)),
    "a schedule is never paused": Bug((_Scheduler, "obey", _never_paused)),
    "a schedule's next run forgets what waits": Bug((_Scheduler, "progress", property(_buffer_left_behind))),
    "a schedule's next run begins from now on": Bug((_Scheduler, "progress", property(_from_now_on))),
    "a schedule waits for what it cancelled": Bug((_Scheduler, "ended", _not_announced), since=2_600),
    "a schedule's command waits for the clock": Bug((_Scheduler, "now", property(lambda of: of.ctx.now()))),
}
