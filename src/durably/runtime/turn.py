"""Taking turns: load, apply new events, commit, dispatch. The algorithm of DESIGN section 7, for all backends.

A turn is planned without touching the world and then stored by one `commit`; whoever loses the race for its number
throws the plan away and plans again on what the winner stored.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from durably.core.errors import (
    DeadlyTurnError,
    Stall,
    StorageError,
)
from durably.core.events import (
    ExecutionReset,
    ExecutionTerminated,
    InboundEvent,
    OutboundEvent,
    SignalReceived,
    SignalRejected,
)
from durably.core.failures import failure_of
from durably.core.history import Turn
from durably.core.keys import ActivityKey
from durably.core.replay import RunState
from durably.ports.backend import TurnCommit
from durably.ports.messages import Delivery, EventMessage, Outgoing, Wake
from durably.ports.records import RecordChange, Reply
from durably.runtime.applying import apply_events, without_updates
from durably.runtime.closing import (
    cancels,
    errands,
    notice,
    outliving,
    prefix,
    record_change,
    successor,
    wakes,
)
from durably.runtime.dispatch import dispatches
from durably.runtime.live import Live, LiveExecutions
from durably.runtime.news import came_too_often, has_more_to_do, is_for, news, recorded, stamped, suspends, too_long
from durably.runtime.redone import Redone, replies_since
from durably.runtime.runtime import Runtime
from durably.runtime.saying import also_saying, change_to, correction, implied

T = TypeVar("T")
_logger = logging.getLogger("durably.turn")
_MAX_CONFLICTS = 50
_WAKE_MS = 1_000
_WAKE_MAX_MS = 300_000


@dataclass(slots=True)
class _Plan:
    """What is to be done for one execution's deliveries: at most one commit.

    Attributes:
        replies: to updates that leave nothing in the history.
        unfinished: the deliveries are for the next run, and to be planned again.
    """

    live: Live | None = None
    commit: TurnCommit | None = None
    acknowledge: list[str] = field(default_factory=list[str])
    resend: tuple[Outgoing, ...] = ()
    replies: tuple[Reply, ...] = ()
    broken: bool = False
    unfinished: bool = False


@dataclass(frozen=True, slots=True)
class TurnsTaken:
    """What became of the deliveries given to `TurnTaker.take`.

    Attributes:
        kept: messages due now that the turns sent, leased to the caller as if received (with `keep`).
        returned: execution ids whose turn could not be taken; their messages are not acknowledged.
        closed: whether an execution may have ended: only then somebody who waits for one has to look.
        cancelled: activities that nobody waits for any more; one that did not begin need not.
    """

    kept: list[Delivery]
    returned: list[str]
    closed: bool
    cancelled: list[ActivityKey] = field(default_factory=list[ActivityKey])


class TurnTaker:
    """Takes the turns of one process. Not thread-safe: one thread owns it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._live = LiveExecutions(runtime.limits.warm_executions)

    def take(self, deliveries: Mapping[str, Sequence[Delivery]], *, keep: bool = False) -> TurnsTaken:
        """Take one turn for each execution id with its deliveries, and acknowledge them.

        The commits are stored together. An execution whose planning raises (a bug of ours, a broken store) keeps its
        messages, unacknowledged, and does not hinder the others.

        Raises:
            StorageError: the store refused the commit; nothing is acknowledged.
        """
        kept: list[Delivery] = []
        cancelled: list[ActivityKey] = []
        broken: list[str] = []
        closed = False
        pending = dict(deliveries)
        for _ in range(_MAX_CONFLICTS):
            plans: dict[str, _Plan] = {}
            try:
                for execution_id, group in pending.items():
                    plans[execution_id] = self._planned(execution_id, group)
                lost = self._store(plans, kept, cancelled, keep=keep)
            except BaseException as error:
                for plan in plans.values():
                    _discard(plan)
                if kept and isinstance(error, StorageError):
                    return TurnsTaken(kept, [*broken, *pending], True, cancelled)
                raise
            broken.extend(id_ for id_, plan in plans.items() if plan.broken)
            closed = closed or any(plan.live is not None and plan.live.state.closed for plan in plans.values())
            pending = {id_: pending[id_] for id_ in lost}
            if not pending:
                return TurnsTaken(kept, broken, closed, cancelled)
        _logger.warning("gave up %d turns after %d lost races; their messages return", len(pending), _MAX_CONFLICTS)
        return TurnsTaken(kept, [*broken, *pending], closed, cancelled)

    def _store(
        self, plans: Mapping[str, _Plan], kept: list[Delivery], cancelled: list[ActivityKey], *, keep: bool
    ) -> list[str]:
        """Carry the plans out; the ids of those that lost the race for their turn."""
        backend = self._runtime.backend
        late = [id_ for id_, plan in plans.items() if plan.replies and self._overtaken(plan)]
        for execution_id in late:
            _discard(plans[execution_id])
        plans = {id_: plan for id_, plan in plans.items() if id_ not in late}
        resend = [outgoing for plan in plans.values() for outgoing in plan.resend]
        if resend:
            backend.send(resend)  # what they carry out is stored; after the commit, a refusal would lose `kept`
        replies = [reply for plan in plans.values() for reply in plan.replies]
        if replies:
            backend.reply(replies)
        self._finish_without_commit([plan for plan in plans.values() if plan.commit is None])
        commits = [(id_, plan, plan.commit) for id_, plan in plans.items() if plan.commit is not None]
        if not commits:
            return late
        lost = late
        outcomes = backend.commit([commit for _, _, commit in commits], keep=keep)
        for (execution_id, plan, commit), outcome in zip(commits, outcomes, strict=True):
            if outcome.status == "conflict":
                lost.append(execution_id)
                _discard(plan)
                continue
            if commit.change is not None and commit.change.closed_at_ms is not None:
                _logger.info("execution %s is %s", execution_id, commit.change.status)
            if any(isinstance(event, SignalRejected) for event in commit.turn.outbound):
                _logger.warning(
                    "a signal to %s does not fit its type: nobody gets it, its history says why", execution_id
                )
            kept.extend(outcome.kept)
            cancelled.extend(commit.cancel)
            if plan.unfinished:
                lost.append(execution_id)
            self._keep_live(plan)
        return lost

    def _overtaken(self, plan: _Plan) -> bool:
        """Whether a turn was stored since a plan was made that stores none itself."""
        live = plan.live
        assert live is not None
        return bool(self._runtime.backend.load_turns(live.run, after=live.state.turn))

    def clear(self) -> None:
        """Discard every live execution."""
        self._live.clear()

    # --- planning -----------------------------------------------------------------------------------------

    def _planned(self, execution_id: str, deliveries: Sequence[Delivery]) -> _Plan:
        live = self._live.take(execution_id)
        try:
            if live is not None and self._behind(live, deliveries):
                live.discard()
                live = None
            if live is None:
                live = self._load(execution_id, deliveries)
            if live is None:
                return _Plan(acknowledge=[delivery.receipt for delivery in deliveries])
            return self._plan(live, deliveries)
        except BaseException as error:
            if live is not None:
                live.discard()
            if not isinstance(error, Exception):
                raise
            _logger.exception("the turn of %s could not be planned; its messages return", execution_id)
            return _Plan(broken=True)

    def _behind(self, live: Live, deliveries: Sequence[Delivery]) -> bool:
        """Whether another process may have taken turns since: only stored history may say that a message is no news."""
        unknown = False
        for delivery in deliveries:
            message = delivery.message
            if not is_for(live, message) or (isinstance(message, Wake) and message.turn > live.state.turn):
                return True
            unknown = unknown or (isinstance(message, EventMessage) and recorded(live, message.event))
        return unknown and bool(self._runtime.backend.load_turns(live.run, after=live.state.turn))

    def _load(self, execution_id: str, deliveries: Sequence[Delivery]) -> Live | None:
        record = self._runtime.backend.read_record(execution_id)
        if record is None or (record.closed and not any(has_more_to_do(record, each) for each in deliveries)):
            _warn_of_signals(execution_id, deliveries)
            return None
        state = RunState()
        live = Live(record.key, record.orchestrator, record.status, state, self._runtime.budget)
        live.turns = self._runtime.backend.load_turns(record.key)
        for turn in live.turns:
            state.add(turn)
        live.resumed = record.status in ("stalled", "suspended") and live.turns[-1].kind == "applied"
        return live

    def _plan(self, live: Live, deliveries: Sequence[Delivery]) -> _Plan:
        runtime, state = self._runtime, live.state
        now_ms = runtime.clock.now_ms()
        if state.closed:
            return self._plan_close_again(live, deliveries)
        receipts = tuple(delivery.receipt for delivery in deliveries)
        deliveries = [delivery for delivery in deliveries if is_for(live, delivery.message)]
        if not deliveries:  # of an earlier life: a turn taken for them would be nobody's to repeat after a crash
            return _Plan(live, acknowledge=list(receipts))
        new, since = news(live, deliveries)
        wakes = (d.message.tries for d in deliveries if isinstance(d.message, Wake))
        wake = max(wakes, default=None if since is None else 0)
        before = [] if since is None else state.outstanding(since=since)
        redone = None if since is None else Redone.since(live, since)
        plan = self._plan_news(live, new, deliveries, wake=wake, receipts=receipts, now_ms=now_ms)
        if before:
            left = [request for request in before if request.seq in state.unresolved]
            again = dispatches(live.run, left, now_ms=now_ms, origin=state.origin, again=True)
            plan.resend = (*plan.resend, *again)
        if redone is not None:
            self._redo(plan, redone)
        if plan.commit is not None and plan.replies:  # said only if the turn is stored
            plan.commit = replace(plan.commit, replies=(*plan.replies, *plan.commit.replies))
            plan.replies = ()
        return plan

    def _redo(self, plan: _Plan, redone: Redone) -> None:
        """Add to a plan what the taker of a stored turn may have died before doing."""
        live = plan.live
        assert live is not None
        if plan.commit is None:
            if not redone:
                return
            turns = live.turns or self._runtime.backend.load_turns(live.run, after=live.state.turn - 1)
            plan.commit = TurnCommit(run=live.run, turn=turns[-1], acknowledge=tuple(plan.acknowledge))
            plan.acknowledge = []
        commit = plan.commit
        change = commit.change
        if redone.says and change is None:
            change = also_saying(live.state.custom_status, change_to(live.status, live, commit.turn))
        plan.commit = replace(
            commit,
            send=(*redone.send, *commit.send),
            cancel=(*redone.cancel, *commit.cancel),
            replies=(*redone.replies, *commit.replies),
            change=change,
        )

    def _plan_news(
        self,
        live: Live,
        new: list[InboundEvent],
        deliveries: Sequence[Delivery],
        *,
        wake: int | None,
        receipts: tuple[str, ...],
        now_ms: int,
    ) -> _Plan:
        runtime, state = self._runtime, live.state
        plan = _Plan(live)
        suspended = suspends(state, new)
        if not new and (not state.waiting or suspended):
            if live.turns and (live.resumed or (suspended and live.status != "suspended")):
                plan.commit = correction(live, live.turns[-1], receipts)
            else:
                plan.acknowledge = list(receipts)
            return plan
        new = stamped(state, new, now_ms)
        if state.received + len(new) > runtime.limits.history_events:
            new.append(too_long(runtime.limits.history_events, at_ms=now_ms))
        if suspended or any(isinstance(event, ExecutionTerminated) for event in new):
            return self._plan_deferred(plan, new, receipts)
        try:
            if any(came_too_often(delivery, runtime.limits.deliveries_before_stall) for delivery in deliveries):
                raise DeadlyTurnError
            outbound, new, plan.replies, plan.unfinished = apply_events(runtime, live, new)
        except Stall as stall:
            live.discard()
            return self._plan_stall(plan, new, stall, wake=wake, receipts=receipts)
        execution = live.execution
        assert execution is not None
        if not new and not outbound and execution.applied == state.applied:
            plan.acknowledge = list(receipts)  # only updates that were rejected
            return plan
        plan.commit = self._commit(
            live,
            new,
            tuple(outbound),
            applied=execution.applied,
            kind="applied",
            receipts=() if plan.unfinished else receipts,
        )
        return plan

    def _plan_deferred(self, plan: _Plan, new: list[InboundEvent], receipts: tuple[str, ...]) -> _Plan:
        """Store events that no code is asked about; updates, which only code can accept, are rejected."""
        live = plan.live
        assert live is not None
        new, plan.replies = without_updates(live.run, new)
        if new:
            plan.commit = self._commit(live, new, (), applied=live.state.applied, kind="deferred", receipts=receipts)
        else:
            plan.acknowledge = list(receipts)
        return plan

    def _plan_close_again(self, live: Live, deliveries: Sequence[Delivery]) -> _Plan:
        """The turns say closed and the record does not: whoever stored the last turn died before the rest of it."""
        state, run = live.state, live.run
        assert live.turns
        last = live.turns[-1]
        following = self._following(live, last)
        unfinished = following is not None
        _, since = news(live, deliveries)
        since = min(since or last.number, last.number)
        redone = Redone.since(live, since)
        again = dispatches(
            run, outliving(state, state.outstanding(since=since)), now_ms=last.at_ms, origin=state.origin, again=True
        )
        change = record_change(run, last)
        commit = TurnCommit(
            run=run,
            turn=last,
            successor=following,
            send=(*again, *redone.send, *notice(change, state), *wakes(run, following)),
            cancel=redone.cancel,
            replies=redone.replies,
            change=also_saying(state.custom_status, change),
            acknowledge=() if unfinished else tuple(delivery.receipt for delivery in deliveries),
        )
        return _Plan(live, commit, unfinished=unfinished)

    def _turns(self, live: Live) -> list[Turn]:
        return live.turns if live.turns is not None else self._runtime.backend.load_turns(live.run)

    def _following(self, live: Live, last: Turn) -> Turn | None:
        """The first turn of the next run, where `last` ends this one with one to follow."""
        reset = next((event for event in last.inbound if isinstance(event, ExecutionReset)), None)
        if reset is None:
            return successor(live.run, last, live.state)
        turns = self._turns(live)
        return prefix(turns[: last.number - 1], reset, nonce=last.nonce, code_version=last.code_version)

    def _plan_stall(
        self, plan: _Plan, new: list[InboundEvent], stall: Stall, *, wake: int | None, receipts: tuple[str, ...]
    ) -> _Plan:
        runtime, live = self._runtime, plan.live
        assert live is not None
        new, plan.replies = without_updates(live.run, new)
        if plan.replies and not new and not live.state.waiting:  # nothing is left that a wake could try again
            plan.acknowledge = list(receipts)
            return plan
        failure = failure_of(stall)
        first = live.status != "stalled" or live.resumed
        if first:
            _logger.error("execution %s is stalled: %s", live.run.execution_id, failure)
        tries = 1 if first else None if wake is None else wake + 1
        send: tuple[Outgoing, ...] = ()
        if tries is not None and tries <= runtime.limits.fruitless_wakes:
            pause_ms = float(_WAKE_MS)
            if isinstance(stall, DeadlyTurnError):  # apart from its neighbours, which the same death may have stalled
                pause_ms = runtime.limits.deadly_pause_ms * (0.5 + runtime.entropy.draw())
            due_ms = runtime.clock.now_ms() + min(round(pause_ms * 2 ** (tries - 1)), _WAKE_MAX_MS)
            turn = live.state.turn + (1 if first or new else 0)
            send = (Outgoing(Wake(run=live.run, turn=turn, tries=tries), due_ms),)
        if not first and not new:
            plan.acknowledge = list(receipts)
            plan.resend = (*plan.resend, *send)
            return plan
        commit = self._commit(live, new, (), applied=live.state.applied, kind="deferred", receipts=receipts)
        change = RecordChange(
            status="stalled",
            run=live.run.run,
            turn=commit.turn.number,
            code_version=runtime.registry.code_version,
            failure=failure,
        )
        live.status = "stalled"
        plan.commit = replace(commit, send=(*commit.send, *send), change=change if first else commit.change)
        return plan

    def _commit(
        self,
        live: Live,
        new: list[InboundEvent],
        outbound: tuple[OutboundEvent, ...],
        *,
        applied: int,
        kind: Literal["applied", "deferred"],
        receipts: tuple[str, ...],
    ) -> TurnCommit:
        runtime, state, run = self._runtime, live.state, live.run
        now_ms = new[-1].at_ms if new else max(state.last_ms, runtime.clock.now_ms())
        turn = Turn(
            number=state.turn + 1,
            kind=kind,
            inbound=tuple(new),
            outbound=outbound,
            applied_through=applied,
            nonce=runtime.entropy.nonce(),
            code_version=runtime.registry.code_version,
            at_ms=now_ms,
        )
        dispatched = dispatches(run, outliving(state, state.add(turn)), now_ms=now_ms, origin=state.origin)
        following = self._following(live, turn) if state.closed else None
        send = (
            *dispatched,
            *errands(run, state, since=turn.number),
            *wakes(live.run, following),
        )
        if state.received - len(new) < runtime.limits.history_warning <= state.received:
            _logger.warning(
                "execution %s has %d events; at %d it is terminated. Split its work into several executions",
                *(run.execution_id, state.received, runtime.limits.history_events),
            )
        change = record_change(run, turn)
        if state.closed and following is None:
            send = (*send, *notice(change, state))
        elif state.waiting and kind == "applied" and not state.closed:
            send = (*send, Outgoing(Wake(run=run, turn=turn.number)))
        change = also_saying(state.custom_status, change)
        status = implied(live, kind)
        if not state.closed and live.status != status:
            live.status, live.resumed = status, False
            change = replace(change or change_to(status, live, turn), status=status)
        return TurnCommit(
            run=run,
            turn=turn,
            successor=following,
            send=send,
            cancel=cancels(run, state, since=turn.number),
            replies=replies_since(live, since=turn.number),
            change=change,
            acknowledge=receipts,
        )

    # --- afterwards -----------------------------------------------------------------------------------------

    def _finish_without_commit(self, plans: Iterable[_Plan]) -> None:
        receipts: list[str] = []
        for plan in plans:
            receipts.extend(plan.acknowledge)
            self._keep_live(plan)
        if receipts:
            self._runtime.backend.acknowledge(receipts)

    def _keep_live(self, plan: _Plan) -> None:
        live = plan.live
        if live is None:
            return
        if live.state.closed or live.status in ("stalled", "suspended"):
            live.discard()
        else:
            self._live.put(live)


def _discard(plan: _Plan) -> None:
    if plan.live is not None:
        plan.live.discard()


def _warn_of_signals(execution_id: str, deliveries: Sequence[Delivery]) -> None:
    for message in (each.message for each in deliveries):
        if isinstance(message, EventMessage) and isinstance(message.event, SignalReceived):
            _logger.warning("the signal %r came after the end of %s: nobody gets it", message.event.name, execution_id)
