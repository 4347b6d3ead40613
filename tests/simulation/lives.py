"""What must hold of a life's runs together, of parents and children, and of what others sent to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from durably.core.events import (
    ENDINGS,
    ActivityCompleted,
    ActivityFailed,
    ChildCancelRequested,
    ChildCompleted,
    ChildFailed,
    ChildScheduled,
    ExecutionContinuedAsNew,
    ExecutionReset,
    ExecutionStarted,
    ExecutionTerminated,
    InboundEvent,
    OutboundEvent,
    SignalReceived,
    StatusSet,
    UpdateAccepted,
    UpdateCompleted,
    UpdateFailed,
)
from durably.core.history import Turn
from durably.core.keys import ActivityKey, RunKey
from durably.ports.records import Record

if TYPE_CHECKING:
    from tests.simulation.world import World

_SKEW_MS, _HOUR_MS, _DAY_MS = 10_000, 3_600_000, 86_400_000
_ENDS = (*ENDINGS, ExecutionTerminated, ExecutionReset)


class Life(NamedTuple):
    """A record and the turns of each of its runs, the first first."""

    record: Record
    runs: list[list[Turn]]

    def key(self, number: int) -> RunKey:
        return replace(self.record, run=number).key

    def line(self) -> list[int]:
        """The runs that count: where a reset ended one, the next begins with what is left of it."""
        return [number for number, turns in enumerate(self.runs, start=1) if reset_of(turns) is None]

    @property
    def parent(self) -> ActivityKey | None:
        started = self.runs[0][0].inbound[0]
        assert isinstance(started, ExecutionStarted)
        return started.parent


def runs_of(world: World, record: Record) -> list[list[Turn]]:
    """The turns of each run; without a reset that came when another life had the id already."""
    runs = [world.store.load_turns(replace(record, run=number).key) for number in range(1, record.run + 1)]
    if record.closed and runs[-1] and reset_of(runs[-1]) is not None:
        current = world.store.read_record(record.execution_id)
        if current is not None and current.gen != record.gen:
            runs[-1] = runs[-1][:-1]
    return runs


def reset_of(turns: Sequence[Turn]) -> ExecutionReset | None:
    return next((event for turn in turns[-1:] for event in turn.inbound if isinstance(event, ExecutionReset)), None)


def inbound_of(turns: Sequence[Turn]) -> list[InboundEvent]:
    return [event for turn in turns for event in turn.inbound]


def outbound_of(turns: Sequence[Turn]) -> list[OutboundEvent]:
    return [event for turn in turns for event in turn.outbound]


def life_promises(world: World, life: Life) -> Iterator[str]:
    """What is wrong with a life, whatever its programs."""
    if not all(life.runs):
        yield "a run has no turns"
        return
    yield from _requests(life)
    yield from _updates(world, life)
    yield from _rewound(world, life)
    if not world.outside.operators.rewound[life.record.gen]:
        said = [e.status for turns in life.runs for e in outbound_of(turns) if isinstance(e, StatusSet)]
        if life.record.custom_status != (said[-1] if said else None):
            yield f"the custom status is {life.record.custom_status}, {said[-1:]} was said last"


def _requests(life: Life) -> Iterator[str]:
    """Each signal and update is in the history once, unless the next run inherits it; what is inherited gets there."""
    seen: set[str] = set()
    inherited: set[str] = set()
    signals: set[str] = set()
    for number in life.line():
        turns = life.runs[number - 1]
        inbound = inbound_of(turns)
        ids = Counter(event.request_id for event in inbound if isinstance(event, SignalReceived | UpdateAccepted))
        for id_, count in ids.items():
            if count > 1 or (id_ in seen and id_ not in inherited):
                yield f"run {number} got {id_} {count} times, earlier runs: {id_ in seen}"
        for id_ in signals - set(ids):
            yield f"run {number} did not inherit {id_}"
        seen |= set(ids)
        ending = outbound_of(turns)[-1:]
        carried = ending[0].carried if ending and isinstance(ending[0], ExecutionContinuedAsNew) else ()
        left = (*carried, *inbound[turns[-1].applied_through :])
        inherited = {event.request_id for event in left if isinstance(event, SignalReceived | UpdateAccepted)}
        signals = {event.request_id for event in left if isinstance(event, SignalReceived)}
        if not carried and not (ending and isinstance(ending[0], ExecutionContinuedAsNew)):
            inherited, signals = set(), set()


def _updates(world: World, life: Life) -> Iterator[str]:  # noqa: C901, PLR0912  # one promise
    """An accepted update has one outcome, which is its reply; a rejected one left nothing."""
    accepted: set[str] = set()
    applied: set[str] = set()
    outcomes: dict[str, list[UpdateCompleted | UpdateFailed]] = {}
    for turns in life.runs:
        inbound = inbound_of(turns)
        if reset_of(turns) is not None:  # it may drop what an earlier run handed on
            accepted -= {event.request_id for event in inbound if isinstance(event, UpdateAccepted)}
            continue
        accepted |= {event.request_id for event in inbound if isinstance(event, UpdateAccepted)}
        applied = {e.request_id for e in inbound[: turns[-1].applied_through] if isinstance(e, UpdateAccepted)}
        for event in outbound_of(turns):
            if isinstance(event, UpdateCompleted | UpdateFailed):
                outcomes.setdefault(event.request_id, []).append(event)
    for id_, ended in outcomes.items():
        if not id_.startswith(life.record.gen):  # a fork inherited it; its sender waits for the original's reply
            continue
        if len(ended) > 1 or id_ not in accepted:
            yield f"update {id_} ended {len(ended)} times: {ended}"
        reply = world.store.read_reply(life.record.key, id_)
        said = (reply.accepted, reply.result, reply.failure) if reply else None
        if isinstance(ended[-1], UpdateCompleted):
            if said != (True, ended[-1].result, None):
                yield f"update {id_} ended as {ended[-1]}, the reply is {reply}"
        elif said != (True, None, ended[-1].failure):
            yield f"update {id_} ended as {ended[-1]}, the reply is {reply}"
    if life.record.status != "terminated":
        yield from (f"update {id_} has no outcome" for id_ in applied - set(outcomes))
    for asked in world.outside.senders.updates.values():
        if (
            asked.gen == life.record.gen
            and "rejected" in asked.told
            and (asked.id in accepted or len(set(asked.told)) > 1)
        ):
            yield f"{asked} was told so, accepted: {asked.id in accepted}"


def _rewound(world: World, life: Life) -> Iterator[str]:
    """A run that a reset began does not run what its prefix has results of; the fenced one begins nothing more."""
    for number, turns in enumerate(life.runs, start=1):
        reset = reset_of(turns)
        if reset is None:
            continue
        late = [
            key
            for key, began_ms in world.began_ms.items()
            if key.run == life.key(number) and began_ms > reset.at_ms + _HOUR_MS
        ]
        if late:
            yield f"run {number} was fenced at {reset.at_ms}, and began {late} after that"
        if number < len(life.runs):
            for event in life.runs[number][0].inbound:
                key = ActivityKey(life.key(number + 1), getattr(event, "seq", 0))
                if isinstance(event, ActivityCompleted | ActivityFailed) and key in world.began_ms:
                    yield f"run {number + 1} ran activity {key.seq} again"


def family_promises(world: World, lives: Sequence[Life]) -> Iterator[str]:
    """What is wrong between parents and children."""
    parents = {(life.record.gen, life.record.execution_id): life for life in lives}
    born: set[ActivityKey] = set()
    for child in lives:
        key = child.parent
        if key is None or not child.runs[0]:
            continue
        name = child.record.execution_id
        if key in born and "/" in name:  # an id that others may have had meanwhile remembers the last request only
            yield f"child {key} was started twice, the second time as {name}"
        born.add(key)
        parent = parents[key.run.gen, key.run.execution_id]
        turns = parent.runs[key.run.run - 1]
        asked = next(e for e in outbound_of(turns) if isinstance(e, ChildScheduled) and e.seq == key.seq)
        abandoned = asked.options is not None and asked.options.parent_close == "abandon"
        unwanted = any(isinstance(e, ChildCancelRequested) and e.seq == key.seq for e in outbound_of(turns))
        closed_ms = child.record.closed_at_ms or 0
        ends = (turn.at_ms for turn in turns if any(isinstance(e, _ENDS) for e in (*turn.inbound, *turn.outbound)))
        ended_ms = next(ends, turns[-1].at_ms)
        if (unwanted or not abandoned) and closed_ms > ended_ms + _DAY_MS:
            yield f"child {name} outlived its parent's run: {closed_ms} after {ended_ms}"
        ended_early = child.record.status in {"terminated", "cancelled"} and closed_ms < ended_ms - _SKEW_MS
        disturbed = key.run.execution_id.partition("/")[0] in world.outside.operators.disturbed
        if ended_early and not unwanted and not disturbed:
            yield f"child {name} is {child.record.status}, and its parent was open and did not ask for it"
        for event in inbound_of(turns):
            if isinstance(event, ChildCompleted) and event.seq == key.seq and event.result != child.record.result:
                yield f"the parent of {name} was told {event}, its record says {child.record}"
            if isinstance(event, ChildFailed) and event.seq == key.seq and event.failure != child.record.failure:
                yield f"the parent of {name} was told {event}, its record says {child.record}"
