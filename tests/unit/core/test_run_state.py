"""What a history leaves open, told without running code; and how people read it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from durably.core.events import (
    ActivityCancelRequested,
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionStarted,
    ExecutionTerminated,
    InboundEvent,
    OutboundEvent,
    TimerFired,
    TimerStarted,
)
from durably.core.failures import Failure
from durably.core.history import Turn, read_history
from durably.core.replay import MAX_OUTSTANDING, RunState

FAILURE = Failure(type="app.Error", message="no")
STARTED = ExecutionStarted(orchestrator="o", input="[]", seed=1, python="3.11", at_ms=1_000)


def activity(seq: int, cause: int = 1) -> ActivityScheduled:
    return ActivityScheduled(seq=seq, name="a", input="{}", call_site="o.py:1", cause=cause)


def timer(seq: int, cause: int = 1) -> TimerStarted:
    return TimerStarted(seq=seq, delay_ms=5, due_ms=1_005, call_site="o.py:2", cause=cause)


def cancelled(seq: int, cause: int) -> ActivityCancelRequested:
    return ActivityCancelRequested(seq=seq, cause=cause)


def completed(seq: int, at_ms: int = 2_000) -> ActivityCompleted:
    return ActivityCompleted(seq=seq, result="1", at_ms=at_ms)


class History:
    """Turns as they are added to a state."""

    def __init__(self) -> None:
        self.state = RunState()
        self.turns: list[Turn] = []

    def add(self, *inbound: InboundEvent, asks: Iterable[OutboundEvent] = (), applied: int | None = None) -> list[int]:
        """Add a turn that applies everything, or up to `applied`; the seqs to be dispatched now."""
        received = self.state.received + len(inbound)
        turn = Turn(
            number=len(self.turns) + 1,
            kind="applied",
            inbound=inbound,
            outbound=tuple(asks),
            applied_through=received if applied is None else applied,
            nonce="n",
            code_version="v",
            at_ms=0,
        )
        self.turns.append(turn)
        return [event.seq for event in self.state.add(turn)]

    def outstanding(self) -> list[int]:
        return [event.seq for event in self.state.outstanding()]


# --- RunState ------------------------------------------------------------------------------------------------


def test_the_first_turn_says_what_was_started_and_when() -> None:
    history = History()
    history.add(STARTED)
    assert history.state.started == STARTED
    assert (history.state.started_ms, history.state.turn) == (1_000, 1)


def test_what_was_asked_for_is_due_once_and_open_until_its_answer() -> None:
    history = History()
    assert history.add(STARTED, asks=[activity(1), timer(2), activity(3)]) == [2, 1, 3]
    assert history.add(completed(3)) == []
    assert history.outstanding() == [1, 2]
    assert history.add(ActivityFailed(seq=1, failure=FAILURE, at_ms=3_000)) == []
    assert history.add(TimerFired(seq=2, at_ms=4_000)) == []
    assert history.outstanding() == []
    assert history.state.last_ms == 4_000
    assert history.state.received == history.state.applied == 4


def test_a_cancelled_activity_is_no_longer_open() -> None:
    history = History()
    history.add(STARTED, asks=[activity(1), activity(2)])
    history.add(completed(2), asks=[cancelled(1, 2)])
    assert history.outstanding() == []
    assert not history.state.accepts(completed(1))


def test_each_turn_is_known_by_what_it_recorded_sent_and_cancelled() -> None:
    history = History()
    history.add(STARTED, asks=[activity(1), activity(2), activity(3), timer(4)])
    history.add(completed(1), asks=[activity(5), cancelled(2, 2)])
    history.add(TimerFired(seq=4), asks=[timer(6)])
    state = history.state
    assert state.recorded == {1: 2, 4: 3}
    assert state.cancelled == {2: 2}
    sent = [[event.seq for event in state.outstanding(since=number)] for number in (1, 2, 3, 4)]
    assert sent == [[3, 5, 6], [5, 6], [6], []]


def test_an_activity_that_was_cancelled_before_it_was_sent_is_not_called_cancelled() -> None:
    history = History()
    history.add(STARTED, asks=[activity(1), cancelled(1, 1)])
    assert (history.state.cancelled, history.outstanding()) == ({}, [])


def test_a_turn_cannot_be_left_out() -> None:
    history = History()
    history.add(STARTED)
    with pytest.raises(AssertionError, match="turn 3 after 1"):
        history.state.add(replace(history.turns[0], number=3))


def test_deferred_events_wait_in_order() -> None:
    history = History()
    history.add(STARTED, applied=0)
    assert (history.state.applied, list(history.state.waiting)) == (0, [STARTED])
    history.add(asks=[activity(1), activity(2)], applied=1)
    history.add(completed(2), applied=1)
    history.add(completed(1), applied=2)
    assert list(history.state.waiting) == [completed(1)]
    assert history.outstanding() == []


@pytest.mark.parametrize(
    ("event", "news"),
    [
        (completed(1), True),
        (ActivityFailed(seq=1, failure=FAILURE), True),
        (TimerFired(seq=2), True),
        (completed(2), False),
        (TimerFired(seq=1), False),
        (completed(3), False),
        (ActivityFailed(seq=3, failure=FAILURE), False),
        (completed(99), False),
        (TimerFired(seq=99), False),
        (STARTED, False),
        (ExecutionTerminated(reason="enough"), True),
    ],
    ids=str,
)
def test_only_news_is_accepted(event: InboundEvent, news: bool) -> None:
    history = History()
    history.add(STARTED, asks=[activity(1), timer(2), activity(3)])
    history.add(completed(3))
    assert history.state.accepts(event) is news


def test_the_start_is_news_to_an_empty_run() -> None:
    assert RunState().accepts(STARTED)


@pytest.mark.parametrize("end", [ExecutionCompleted(result="1", cause=1), ExecutionFailed(failure=FAILURE, cause=1)])
def test_a_run_is_closed_by_its_return_or_its_failure(end: OutboundEvent) -> None:
    history = History()
    history.add(STARTED, asks=[end])
    assert history.state.closed
    assert not history.state.accepts(ExecutionTerminated(reason="enough"))


def test_a_run_is_closed_by_a_termination_that_no_code_applied() -> None:
    history = History()
    history.add(STARTED, asks=[activity(1)])
    history.add(ExecutionTerminated(reason="enough"), applied=1)
    assert history.state.closed
    assert not history.state.accepts(ExecutionTerminated(reason="again"))


# --- how many are out at a time --------------------------------------------------------------------------------


def fan_out(count: int) -> History:
    history = History()
    assert history.add(STARTED, asks=[activity(seq) for seq in range(1, count + 1)]) == list(
        range(1, min(count, MAX_OUTSTANDING) + 1)
    )
    return history


def test_a_slot_that_becomes_free_takes_the_next_activity() -> None:
    history = fan_out(MAX_OUTSTANDING + 2)
    assert history.add(completed(5)) == [MAX_OUTSTANDING + 1]
    assert history.add(completed(6), completed(7)) == [MAX_OUTSTANDING + 2]
    assert len(history.outstanding()) == MAX_OUTSTANDING - 1


def test_a_cancelled_activity_frees_its_slot_and_one_still_in_line_frees_none() -> None:
    history = fan_out(MAX_OUTSTANDING + 3)
    in_line, out = MAX_OUTSTANDING + 1, 4
    assert history.add(completed(1), asks=[cancelled(in_line, 2), cancelled(out, 2)]) == [
        MAX_OUTSTANDING + 2,
        MAX_OUTSTANDING + 3,
    ]
    assert in_line not in history.outstanding()
    assert len(history.outstanding()) == MAX_OUTSTANDING


def test_timers_do_not_stand_in_line() -> None:
    history = History()
    asks: list[OutboundEvent] = [activity(seq) for seq in range(1, MAX_OUTSTANDING + 2)]
    due = history.add(STARTED, asks=[*asks, timer(5_000)])
    assert 5_000 in due
    assert MAX_OUTSTANDING + 1 not in due
    assert 5_000 in history.outstanding()


# --- read_history ------------------------------------------------------------------------------------------------


def read(history: History) -> list[tuple[int, int, Any, bool]]:
    return [(entry.number, entry.turn, entry.event, entry.applied) for entry in read_history(history.turns)]


def test_a_history_is_read_as_causes_each_followed_by_its_effects() -> None:
    history = History()
    history.add(STARTED, asks=[activity(1), activity(2)])
    history.add(completed(2), completed(1), asks=[timer(3, cause=2), ExecutionCompleted(result="1", cause=3)])
    assert read(history) == [
        (1, 1, STARTED, True),
        (2, 1, activity(1), True),
        (3, 1, activity(2), True),
        (4, 2, completed(2), True),
        (5, 2, timer(3, cause=2), True),
        (6, 2, completed(1), True),
        (7, 2, ExecutionCompleted(result="1", cause=3), True),
    ]


def test_an_event_that_waits_says_so_and_its_effects_name_the_turn_that_applied_it() -> None:
    history = History()
    history.add(STARTED, applied=0)
    assert read(history) == [(1, 1, STARTED, False)]
    history.add(asks=[activity(1)], applied=1)
    history.add(completed(1), applied=1)
    assert read(history) == [(1, 1, STARTED, True), (2, 2, activity(1), True), (3, 3, completed(1), False)]


def test_an_empty_history_reads_as_nothing() -> None:
    assert list(read_history([])) == []
