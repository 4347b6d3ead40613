"""Planted bugs, each of which some seed must notice: the proof that the simulation can fail.

Many of them were real. A bug is planted by replacing one function of the runtime, or one method of the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from durably.core.commands import RecordPatch
from durably.core.errors import TokenError
from durably.core.events import ChildCompleted, ChildFailed, ExecutionStarted, InboundEvent
from durably.core.execution import Execution
from durably.core.handlers import Handlers
from durably.core.history import Turn
from durably.core.keys import RunKey
from durably.core.replay import RunState
from durably.ports.backend import CommitOutcome, CreateOutcome, Creation, Settlement, SettleOutcome, TurnCommit
from durably.ports.messages import Delivery, Errand, EventMessage, Outgoing, Wake
from durably.ports.records import ActivityItem
from durably.ports.tokens import TokenClaims
from durably.runtime import attempt, callbacks, closing, errands, fence, news, resets, start, turn
from durably.runtime.live import Live
from tests.simulation import worker, world
from tests.simulation.planted import FEATURES, Bug
from tests.simulation.seeds import broken_by, mode_of
from tests.simulation.store import StepwiseBackend, Store
from tests.simulation.world import Parts, World

SEEDS = 6_000  # the rarest is noticed by one seed in about 640


# --- bugs of the runtime --------------------------------------------------------------------------------------


_news = news.news


def _redelivery_means_nothing(live: Live, deliveries: Sequence[Delivery]) -> tuple[list[InboundEvent], int | None]:
    return _news(live, deliveries)[0], None


def _both_ends(live: Live, deliveries: Sequence[Delivery]) -> tuple[list[InboundEvent], int | None]:
    """Looks at each delivery by itself, so that two copies in a batch are both news."""
    found = [_news(live, [delivery]) for delivery in deliveries]
    return [event for new, _ in found for event in new], min((k for _, k in found if k is not None), default=None)


def _only_the_last_turn(live: Live, deliveries: Sequence[Delivery]) -> tuple[list[InboundEvent], int | None]:
    """Redelivery repeats what the last turn asked for, whichever turn recorded the event."""
    new, since = _news(live, deliveries)
    return new, None if since is None else live.state.turn


def _own_clock(state: RunState, events: list[InboundEvent], now_ms: int) -> list[InboundEvent]:
    return [replace(event, at_ms=now_ms) for event in events]


def _still_again(task: Any, *, due_ms: int, failure: Any) -> Any:
    return replace(task, attempt=task.attempt + 1, queued_at_ms=due_ms, last_failure=failure)


def _unclaimed(runtime: Any, task: Any, *_: object) -> ActivityItem:
    return ActivityItem(key=task.key, state="claimed", attempt=task.attempt, version=1, owner="me")


def _always_superfluous(runtime: Any, delivery: Delivery, **kwargs: Any) -> Any:
    """A task that was sent again is taken for superfluous at each delivery, not only at its first."""
    return attempt.open_attempt(runtime, replace(delivery, receives=1), **kwargs)


def _dropped(runtime: Any, task: Any, item: Any, receipt: str) -> None:
    runtime.backend.acknowledge([receipt])


def _unsettled(runtime: Any, answer: attempt.Answer) -> None:
    runtime.backend.acknowledge([answer.receipt])
    runtime.backend.send([Outgoing(answer.event)])


def _left_open(taker: turn.TurnTaker, live: Live, deliveries: Sequence[Delivery]) -> Any:
    return turn._Plan(live, acknowledge=[delivery.receipt for delivery in deliveries])


def _any_token(runtime: Any, token: str) -> TokenClaims | callbacks.CallbackAnswer:
    try:
        return runtime.signer.verify(token)  # type: ignore[no-any-return]
    except TokenError:
        return runtime.signer.verify(token[:-1] + ("A" if token[-1] == "B" else "B"))  # type: ignore[no-any-return]


def _not_compared(runtime: Any, item: ActivityItem, digest: str) -> callbacks.CallbackAnswer:
    return callbacks._ACCEPTED


def _forgets_signals(run: RunKey, turn_: Turn, state: RunState) -> Turn | None:
    """Whoever goes on in the next run starts from nothing but the input."""
    first = closing.successor(run, turn_, state)
    return None if first is None else replace(first, inbound=first.inbound[:1])


def _forgets_ids(run: RunKey, turn_: Turn, state: RunState) -> Turn | None:
    first = closing.successor(run, turn_, state)
    if first is None:
        return None
    started = first.inbound[0]
    assert isinstance(started, ExecutionStarted)
    return replace(first, inbound=(replace(started, seen=()), *first.inbound[1:]))


def _nothing(*_: Any) -> tuple[Any, ...]:
    return ()


def _told_once(taker: turn.TurnTaker, live: Live, deliveries: Sequence[Delivery]) -> Any:
    """The close that is repeated does not tell the parent."""
    plan = _plan_close_again(taker, live, deliveries)
    commit = plan.commit
    assert commit is not None
    plan.commit = replace(commit, send=tuple(o for o in commit.send if not _is_notice(o)))
    return plan


def _is_notice(outgoing: Outgoing) -> bool:
    message = outgoing.message
    return isinstance(message, EventMessage) and isinstance(message.event, ChildCompleted | ChildFailed)


_plan_close_again = turn.TurnTaker._plan_close_again


def _wanted_at_first(runtime: Any, errand: Errand) -> bool:
    """Looks before the child is made, and not after."""
    if runtime.backend.read_record(errand.execution_id) is not None:
        return False
    return _unwanted(runtime, errand)


_unwanted = errands._unwanted


def _unfenced(*args: Any, **more: Any) -> bool:
    """Opens the next run and leaves the last one open."""
    backend = args[0]
    rest: Any = args[1:]
    unfenced: Any = _Unfenced(backend)
    return _store(unfenced, *rest, **more)


class _Unfenced:
    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def commit(self, commits: Sequence[TurnCommit]) -> list[CommitOutcome]:
        [commit] = commits
        assert commit.successor is not None
        begun = replace(commit, run=commit.run.next, turn=commit.successor, successor=None)
        return self._backend.commit([begun])  # type: ignore[no-any-return]


_store = resets._store


def _never_refused(handlers: Handlers, update: Any) -> Any:
    """The validator runs when the update is in the history."""
    return None


def _nothing_done_again(*_: Any) -> None:
    return None


def _pinned_to_its_starter(**fields: Any) -> ExecutionStarted:
    started = ExecutionStarted(**fields)
    return started if started.pinned is None else replace(started, pinned="of its starter")


def _patched_when_replayed(execution: Execution, patch_id: str) -> bool:
    """A run that passed before the deployment takes the new side as well."""
    if patch_id not in execution.patches:
        execution.patches.add(patch_id)
        execution.ask(("patch", patch_id), RecordPatch(patch_id))
    return True


def _kept(turns: Any, reset: Any, **more: Any) -> Turn:
    """A reset drops nothing of what came later."""
    return closing.prefix(turns, replace(reset, dropped=()), **more)


def _drops_signals(turns: Any, reset: Any, **more: Any) -> Turn:
    first = closing.prefix(turns, reset, **more)
    kept = first.inbound[: max(1, reset.applied)]
    return replace(first, inbound=kept)


# --- bugs of a store ------------------------------------------------------------------------------------------


class NoRetryFence(Store):
    """An item is written whatever its version is."""

    def settle(self, settlement: Settlement) -> SettleOutcome:
        item = settlement.item
        if item is not None:
            found = self.read_item(item.key)
            settlement = replace(settlement, item=replace(item, version=(found.version if found else 0) + 1))
        return super().settle(settlement)


class NoWriterCondition(Store):
    """A turn is stored over another writer's."""

    def _insert_turn(self, run: RunKey, turn: Turn) -> bool:
        self._turns.setdefault(run, {}).pop(turn.number, None)
        return super()._insert_turn(run, turn)


class ForgetsMessages(Store):
    """Of several messages that a turn sends, the last is forgotten."""

    def commit(self, commits: Sequence[TurnCommit], *, keep: bool = False) -> list[CommitOutcome]:
        return super().commit([replace(c, send=c.send[:-1] if len(c.send) > 1 else c.send) for c in commits], keep=keep)


class NoNextSlice(Store):
    """Events that wait in deferred turns, or beyond the slice, are left there."""

    def commit(self, commits: Sequence[TurnCommit], *, keep: bool = False) -> list[CommitOutcome]:
        kept = [replace(c, send=tuple(o for o in c.send if not isinstance(o.message, Wake))) for c in commits]
        return super().commit(kept, keep=keep)


class OpenForEver(Store):
    """The record is not closed."""

    def commit(self, commits: Sequence[TurnCommit], *, keep: bool = False) -> list[CommitOutcome]:
        return super().commit([replace(c, change=None) for c in commits], keep=keep)


class ForgetsRequests(Store):
    """A start that is repeated after its execution closed starts it again."""

    def create(self, creation: Creation, *, keep: bool = False) -> CreateOutcome:
        found = self.read_record(creation.record.execution_id)
        if found is not None and found.closed and creation.replace_closed:
            del self._records[found.execution_id]
            self.graves.append(found)
        return super().create(creation, keep=keep)


class AcknowledgesFirst(StepwiseBackend):
    """Messages are acknowledged before what they caused is stored."""

    def _commit(self, commit: TurnCommit) -> CommitOutcome:
        self._store.acknowledge(commit.acknowledge)
        self._step("commit, before the turn")
        return super()._commit(replace(commit, acknowledge=()))


class SendsFirst(StepwiseBackend):
    """A turn's messages are sent before it is known whether it can be stored."""

    def _commit(self, commit: TurnCommit) -> CommitOutcome:
        self._store.send(commit.send)
        self._step("commit, before the turn")
        return super()._commit(replace(commit, send=()))


def _never(*_: Any) -> bool:
    return False


def _always(*_: Any) -> bool:
    return True


_BUGS = {
    "a warm execution believes itself up to date": Bug((turn.TurnTaker, "_behind", _never)),
    "redelivery dispatches nothing again": Bug((turn, "news", _redelivery_means_nothing)),
    "redelivery dispatches the last turn only": Bug((turn, "news", _only_the_last_turn)),
    "copies within a batch are news": Bug((turn, "news", _both_ends)),
    "a seq is resolved twice": Bug((RunState, "accepts", _always)),
    "time goes back": Bug((turn, "stamped", _own_clock)),
    "a closed execution is not closed again": Bug((turn.TurnTaker, "_plan_close_again", _left_open)),
    "the retries of a re-sent task are dropped": Bug((fence, "following", _still_again)),
    "a re-sent task is always superfluous": Bug((worker, "open_attempt", _always_superfluous)),
    "a superseded attempt runs": Bug((attempt, "current", _always)),
    "an overtaken attempt re-sends nothing": Bug((attempt, "overtaken", _dropped)),
    "an at-most-once attempt is not claimed": Bug((attempt, "_claim", _unclaimed)),
    "a forged token is taken": Bug((callbacks, "_claims", _any_token)),
    "a repeated callback is not compared": Bug((callbacks, "_repeat", _not_compared)),
    "signals are dropped at continue-as-new": Bug((turn, "successor", _forgets_signals), since=14),
    "the ids of earlier runs are not carried": Bug((turn, "successor", _forgets_ids)),
    "a child is not looked at again after it was made": Bug((errands, "_unwanted", _wanted_at_first)),
    "a close that is repeated does not tell the parent": Bug((turn.TurnTaker, "_plan_close_again", _told_once)),
    "children outlive their parents": Bug((closing, "_orphans", _nothing)),
    "a reset fences nothing": Bug((resets, "_store", _unfenced)),
    "a reset loses signals": Bug((resets, "prefix", _drops_signals)),
    "a reset keeps what came later": Bug((resets, "prefix", _kept)),
    "an update is validated after it was recorded": Bug((Handlers, "refusal", _never_refused)),
    "replies and cancellations are not repeated": Bug((turn.TurnTaker, "_redo", _nothing_done_again), since=2_180),
    "an execution is pinned to the version of its starter": Bug((start, "ExecutionStarted", _pinned_to_its_starter)),
    "a patch applies to the past": Bug((Execution, "patched", _patched_when_replayed)),
    "the retry fence is missing": Bug(parts=Parts(store=NoRetryFence)),
    "the writer's condition is missing": Bug(parts=Parts(store=NoWriterCondition)),
    "a message of a turn is forgotten": Bug(parts=Parts(store=ForgetsMessages)),
    "deferred events are not applied": Bug(parts=Parts(store=NoNextSlice)),
    "the record is not closed": Bug(parts=Parts(store=OpenForEver)),
    "a repeated start starts again": Bug(parts=Parts(store=ForgetsRequests)),
    "a turn is acknowledged before it is stored": Bug(
        parts=Parts(stepwise=AcknowledgesFirst), modes="stepwise", since=12
    ),
    "messages are sent before their turn": Bug(parts=Parts(stepwise=SendsFirst), modes="stepwise"),
    **FEATURES,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", _BUGS)
def test_the_simulation_notices_that(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug = _BUGS[name]
    if bug.place is not None:
        monkeypatch.setattr(*bug.place)
    monkeypatch.setattr(world, "MAX_STEPS", 6_000)  # five times what a world takes that comes to rest
    for seed in range(bug.since, bug.since + SEEDS):
        broken = broken_by(World(seed, mode_of(seed, bug.modes), parts=bug.parts))
        if broken:
            print(f"seed {seed}: {broken[0]}")
            return
    pytest.fail(f"{SEEDS} seeds did not notice that {name}")
