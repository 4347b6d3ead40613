"""The orchestrator behind every schedule. Each registry knows it; it is loaded when the first schedule is met."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, cast

from durably.api.activity import activity
from durably.api.names import SCHEDULER
from durably.api.orchestrator import orchestrator
from durably.api.schedules import (
    COMMAND,
    STATE,
    Action,
    Backfill,
    Change,
    Command,
    Once,
    Overlap,
    Pause,
    Progress,
    Resume,
    Schedule,
    ScheduleState,
    Start,
    Trigger,
    When,
    due_at,
    instants,
)
from durably.core.commands import NOWHERE
from durably.core.context import Context
from durably.core.errors import ChildError
from durably.core.execution import Execution
from durably.core.loop import OrchestratorLoop
from durably.core.options import ChildOptions
from durably.core.others import PreparedChild
from durably.core.retry import LONGEST, RetryPolicy

PREFIX = "schedule:"
_MOST_BUFFERED = 1_000
_MOST_AT_ONCE = 1_000
_RECENT = 10
_SHOWN = 5
_LONG = 500  # events of a run
_UNTIL_IT_WORKS = RetryPolicy(max_attempts=0, maximum_interval=timedelta(minutes=10))


@dataclass(frozen=True)
class Instants:
    """Instants of a schedule.

    Attributes:
        passed: those that have passed.
        next: the one after them; None if there is none, or if too many have passed for one answer.
        all: whether there are no more that have passed.
    """

    passed: list[datetime]
    next: datetime | None
    all: bool


@activity(name="durably.schedule.instants", local=True, retry=_UNTIL_IT_WORKS)
def find_instants(when: When, after: datetime, until: datetime) -> Instants:
    """The instants in (after, until]. An activity, because time zones change while schedules run."""
    found = instants(when, after)
    passed: list[datetime] = []
    for instant in islice(found, _MOST_AT_ONCE):
        if instant > until:
            return Instants(passed, instant, all=True)
        passed.append(instant)
    return Instants(passed, None, all=len(passed) < _MOST_AT_ONCE)


@orchestrator(name=SCHEDULER)
async def run_schedule(ctx: Context, schedule: Schedule, action: Action, progress: Progress | None = None) -> None:
    """Start executions at the instants of a schedule until it has no more of them, or is terminated."""
    await _Scheduler(ctx, schedule, action, progress).run()


class _Scheduler:
    def __init__(self, ctx: Context, schedule: Schedule, action: Action, progress: Progress | None) -> None:
        self.ctx = ctx
        self.id = ctx.execution_id.removeprefix(PREFIX)
        self.schedule = schedule
        self.action = action
        began = ctx.info.started_at
        if isinstance(schedule.when, Once):
            began = min(began, schedule.when.at - timedelta(milliseconds=1))
        known = progress or Progress(since=began)
        self.since = known.since
        self.started = known.started
        self.recent = known.recent
        self.buffered = known.buffered
        self.held = known.held
        self.deaf_until = known.since  # what is due by then was skipped
        self.next: datetime | None = None
        self.sure = False  # whether `next` is the next instant
        self.running: dict[asyncio.Task[None], Start] = {}
        self.unannounced: set[str] = set()
        self.announced = asyncio.Event()
        self.alarm: tuple[datetime, asyncio.Task[None]] | None = None
        self.heard: list[tuple[datetime, Command]] = []  # commands that are not obeyed yet, and when they came
        self.rang = asyncio.Event()

    async def run(self) -> None:
        ctx = self.ctx
        ctx.on_query(STATE, self.state)
        listening = asyncio.create_task(self.listen())
        ringing = asyncio.create_task(self.rang.wait())
        while True:
            self.begin_buffered()
            await self.pass_time()
            if self.is_long and (not self.running or self.schedule.overlap == "allow_all"):
                await self.all_announced()
                if not self.heard:  # what is received does not go along
                    self.forget_running()
                    await ctx.continue_as_new(self.schedule, self.action, self.progress)
            elif self.has_ended and not self.heard:
                listening.cancel()
                return
            await asyncio.wait({ringing, *self.running, *self.alarms()}, return_when=asyncio.FIRST_COMPLETED)
            self.bury_the_ended()
            while self.heard:
                await self.pass_time()  # what was due before the command
                await self.obey(self.heard[0][1])
                del self.heard[0]
            if ringing.done():
                self.rang.clear()
                ringing = asyncio.create_task(self.rang.wait())

    async def listen(self) -> None:
        async for command in self.ctx.signals(COMMAND):
            self.heard.append((self.ctx.now(), command))
            self.rang.set()

    @property
    def has_ended(self) -> bool:
        return self.sure and self.next is None and not self.running and not self.schedule.paused

    # --- time --------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The time, which stands still between a command and obeying it: what is due later is due after it."""
        return self.heard[0][0] if self.heard else self.ctx.now()

    async def pass_time(self) -> None:
        """Deal with the instants that have passed."""
        while self.heeds_time and not (self.sure and (self.next is None or self.due(self.next) > self.now)):
            if self.is_long and self.schedule.overlap == "allow_all":
                return  # the next run goes on with it
            schedule, now = self.schedule, self.now
            oldest = now - schedule.catch_up - schedule.jitter
            found = await find_instants(schedule.when, max(self.since, oldest), now)
            self.sure, self.next = found.all, found.next
            for instant in found.passed:
                if self.due(instant) > now:
                    self.sure, self.next = True, instant
                    break
                self.since = instant
                if self.due(instant) > self.deaf_until:
                    self.offer(self.start_of(instant), schedule.overlap)

    @property
    def heeds_time(self) -> bool:
        """Whether an instant that passes now can make a difference. If not, there is no timer, and no history."""
        if self.schedule.paused:
            return False
        match self.schedule.overlap:
            case "skip":
                return not self.running and not self.buffered
            case "buffer_one":
                return not self.buffered
            case "buffer_all":
                return len(self.buffered) < _MOST_BUFFERED
            case "cancel_other" | "allow_all":
                return True

    def skip_to_now(self) -> None:
        """What is due by now was skipped."""
        self.deaf_until = self.now
        self.since = max(self.since, self.now - self.schedule.jitter)
        self.sure = False

    def due(self, instant: datetime) -> datetime:
        return due_at(self.id, self.schedule, instant)

    def alarms(self) -> list[asyncio.Task[None]]:
        """A task that ends when the next instant is due."""
        due = self.due(self.next) if self.next is not None and self.heeds_time else None
        at = None if due is None else min(due, self.ctx.now() + LONGEST)
        if self.alarm is not None and self.alarm[0] != at:
            self.alarm[1].cancel()
            self.alarm = None
        if at is not None and self.alarm is None:
            wait_s = (at - self.ctx.now()).total_seconds()
            self.alarm = at, asyncio.create_task(asyncio.sleep(wait_s))
        return [] if self.alarm is None else [self.alarm[1]]

    # --- starting ----------------------------------------------------------------------------------------------

    def start_of(self, instant: datetime) -> Start:
        text = instant.isoformat(timespec="milliseconds" if instant.microsecond else "seconds")
        return Start(f"{self.id}/{text.replace('+00:00', 'Z')}", scheduled_for=instant)

    def offer(self, start: Start, overlap: Overlap) -> None:
        """Start something, now or later or not at all, as the policy says."""
        self.bury_the_ended()
        if overlap == "allow_all":
            self.begin(start)
            return
        if overlap == "cancel_other":
            for task in self.running:
                task.cancel()
            self.buffered.clear()
        room = {"skip": 0 if self.running or self.buffered else 1, "buffer_one": 1}.get(overlap, _MOST_BUFFERED)
        if len(self.buffered) < room:
            self.buffered.append(start)
            self.begin_buffered()
        else:
            self.ctx.logger.info("%s is skipped: an earlier execution still runs", start.execution_id)

    def begin_buffered(self) -> None:
        busy = any(not task.cancelling() for task in self.running)
        if self.buffered and not busy and not self.is_long:
            self.begin(self.buffered.pop(0))

    def begin(self, start: Start) -> None:
        start.started_at = self.ctx.now()
        self.started += 1
        self.recent = [*self.recent[1 - _RECENT :], start]
        self.unannounced.add(start.execution_id)
        task = asyncio.create_task(self.follow(start))
        task.add_done_callback(partial(self.ended, start))
        self.running[task] = start

    async def follow(self, start: Start) -> None:
        """Start an execution as a child that is left alone when the schedule ends, and wait for its end."""
        execution = cast(Execution, cast(OrchestratorLoop, asyncio.get_running_loop()).owner)
        child = PreparedChild(
            self.action.orchestrator,
            execution.codec.value(Any).same,
            str,
            start.execution_id,
            ChildOptions(parent_close="abandon"),
        )
        try:
            handle = await execution.others.start(child, self.action.input, NOWHERE)
            self.announce(start)
            await handle
            start.status = "completed"
        except ChildError as error:
            self.ctx.logger.warning("%s: %s", start.execution_id, error)
            start.status = "not started" if start.execution_id in self.unannounced else "failed"

    def ended(self, start: Start, task: asyncio.Task[None]) -> None:
        """Nobody follows it any more; it may have been cancelled before it began."""
        if task.cancelled():
            start.status = "cancelled"
        self.announce(start)

    def announce(self, start: Start) -> None:
        self.unannounced.discard(start.execution_id)
        self.announced.set()

    async def all_announced(self) -> None:
        """Until each child exists: one that is only asked for ends with the run."""
        while self.unannounced:
            self.announced.clear()
            await self.announced.wait()

    def bury_the_ended(self) -> None:
        ended = [task for task in self.running if task.done()]
        if ended and not self.heeds_time:
            self.skip_to_now()
        for task in ended:
            del self.running[task]
            if not task.cancelled():
                task.result()

    def forget_running(self) -> None:
        for start in self.running.values():
            start.status = "not followed"

    # --- commands and state ----------------------------------------------------------------------------------

    async def obey(self, command: Command) -> None:
        match command:
            case Pause(note):
                self.schedule = replace(self.schedule, paused=True, note=note)
                self.held, self.buffered = [*self.held, *self.buffered], []
            case Resume(note):
                if self.schedule.paused:
                    self.skip_to_now()
                self.buffered, self.held = [*self.held, *self.buffered], []
                self.schedule = replace(self.schedule, paused=False, note=note)
            case Trigger(execution_id, overlap):
                self.offer(Start(execution_id), overlap or self.schedule.overlap)
            case Backfill(since, until, overlap):
                found = await find_instants(self.schedule.when, since - timedelta(milliseconds=1), until)
                for instant in found.passed:
                    self.offer(self.start_of(instant), overlap)
            case Change(schedule, action):
                self.schedule = replace(schedule, paused=self.schedule.paused, note=self.schedule.note)
                self.action = action or self.action
                self.since = max(self.since, self.now)
                self.sure = False

    @property
    def is_long(self) -> bool:
        return self.ctx.info.history_length >= _LONG

    @property
    def progress(self) -> Progress:
        return Progress(
            since=self.since, buffered=self.buffered, held=self.held, started=self.started, recent=self.recent
        )

    def state(self) -> ScheduleState:
        after = max(self.since, self.ctx.now() - self.schedule.jitter)
        coming = [] if self.schedule.paused else list(islice(instants(self.schedule.when, after), _SHOWN))
        return ScheduleState(self.schedule, self.action, coming, self.progress)
