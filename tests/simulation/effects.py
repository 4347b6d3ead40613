"""What must hold of the order in history: sagas are undone in reverse, and what was cancelled answers no more."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from durably.core.events import (
    ActivityCancelRequested,
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    InboundEvent,
    OutboundEvent,
)
from durably.core.history import Turn
from durably.core.keys import ActivityKey, RunKey

if TYPE_CHECKING:
    from tests.simulation.world import World


def ordered(turns: Sequence[Turn]) -> Iterator[tuple[InboundEvent, list[OutboundEvent]]]:
    """Each event of a run that was applied, with what it caused."""
    caused: dict[int, list[OutboundEvent]] = {}
    for turn in turns:
        for request in turn.outbound:
            caused.setdefault(request.cause, []).append(request)
    inbound = [event for turn in turns for event in turn.inbound]
    for number, event in enumerate(inbound[: turns[-1].applied_through], start=1):
        yield event, caused.get(number, [])


def effects(world: World, run: RunKey, turns: Sequence[Turn]) -> Iterator[str]:
    """What is wrong with the order of a run."""
    yield from _late_answers(turns)
    steps: dict[int, tuple[str, str, int]] = {}
    done: dict[str, int] = {}
    undone: dict[str, list[int]] = {}
    open_: set[int] = set()
    prefix = len(turns[0].inbound)  # of another run, where this one began with a reset
    for number, (event, caused) in enumerate(ordered(turns), start=1):
        if isinstance(event, ActivityCompleted | ActivityFailed):
            open_.discard(event.seq)
            if number > prefix and event.seq in steps and ActivityKey(run, event.seq) not in world.began_ms:
                yield f"{steps[event.seq]} was answered, and nobody ran it"
        for request in caused:
            if not isinstance(request, ActivityScheduled) or request.name not in {"do", "undo"}:
                continue
            asked = json.loads(request.input)
            saga, step = str(asked["saga"]), int(asked["step"])
            steps[request.seq] = request.name, saga, step
            if request.name == "do":
                done[saga] = step
                continue
            before = undone.setdefault(saga, [])
            if step in before or step > done.get(saga, -1) + 1:
                yield f"{saga}: {step} is undone after {before}, done were {done.get(saga)}"
            overlap = any(steps[seq][:2] == ("undo", saga) for seq in open_)
            if before and not saga.endswith("parallel") and (step > before[-1] or overlap):
                yield f"{saga}: {step} is undone after {before}, of which {open_} go on"
            open_.add(request.seq)
            before.append(step)


def _late_answers(turns: Sequence[Turn]) -> Iterator[str]:
    """An activity that an earlier turn cancelled."""
    cancelled: set[int] = set()
    for turn in turns:
        for event in turn.inbound:
            if isinstance(event, ActivityCompleted | ActivityFailed) and event.seq in cancelled and turn.number > 1:
                yield f"turn {turn.number} hears of {event.seq}, which was cancelled: {event}"
        cancelled |= {event.seq for event in turn.outbound if isinstance(event, ActivityCancelRequested)}
