"""What a redelivery repeats: all that was asked for since the turn that recorded its event, and nothing older."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from durably import Context, Signal, orchestrator
from durably.adapters.memory import MemoryBackend
from durably.core.events import ActivityCompleted
from durably.core.replay import MAX_OUTSTANDING
from durably.ports.messages import ActivityTask, Delivery, EventMessage
from tests.unit.runtime.harness import Process
from tests.unit.runtime.programs import fan_out, other, process_of, step

GO = Signal[int]("go")
WARM_OR_NOT = pytest.mark.parametrize("warm", [True, False], ids=["warm", "read again"])


def taken_from_the_queue(process: Process) -> list[Delivery]:
    """The tasks that are due, gone from the queue as if somebody ran them."""
    tasks = process.tasks()
    process.backend.acknowledge([task.receipt for task in tasks])
    return tasks


def completion(task: Delivery, *, attempt: int = 1) -> Delivery:
    assert isinstance(task.message, ActivityTask)
    event = ActivityCompleted(seq=task.message.key.seq, result="1", attempt=attempt)
    return Delivery(EventMessage(run=task.message.run, event=event), f"of {task.receipt}")


@orchestrator
async def two_at_a_time(ctx: Context) -> int:
    """Asks for `step` twice, and for `other` once each is done."""

    async def both(n: int) -> int:
        return await step(n) + await other(n)

    return sum(await asyncio.gather(both(1), both(2)))


@orchestrator
async def goes(ctx: Context) -> int:
    return await step(await ctx.receive(GO))


@orchestrator
async def gives_up(ctx: Context) -> None:
    try:
        async with asyncio.timeout(1):
            await step(1)
    except TimeoutError:
        await asyncio.sleep(600)


@WARM_OR_NOT
def test_a_copy_of_a_recorded_completion_sends_nothing_that_was_asked_for_before(warm: bool) -> None:
    process = process_of(fan_out)
    process.client.start("e", fan_out)
    process.take_due()
    first, *_ = taken_from_the_queue(process)
    process.take([completion(first)])

    copy = replace(completion(first, attempt=2), receives=2)
    (process if warm else process.beside()).take([copy])
    assert process.queued() == []


@WARM_OR_NOT
def test_a_redelivered_event_sends_again_what_its_turn_and_later_ones_asked_for(warm: bool) -> None:
    process = process_of(two_at_a_time)
    process.client.start("e", two_at_a_time)
    process.take_due()
    first, second = taken_from_the_queue(process)
    process.take([completion(first)])
    process.take([completion(second)])
    asked = taken_from_the_queue(process)
    assert len(asked) == 2

    taker = process if warm else process.beside()
    taker.take([completion(second)])
    assert process.queued() == [asked[1].message.id.split(".", 2)[2]]
    taker.take([completion(first)])
    assert len(process.queued()) == 2


def test_a_wake_that_is_handed_over_twice_sends_again_what_the_first_taker_may_have_died_before() -> None:
    process = process_of(fan_out)
    process.client.start("e", fan_out)
    wake = process.receive()
    process.take(wake)
    asked = taken_from_the_queue(process)
    assert asked

    process.beside().take(wake)
    assert len(process.queued(ActivityTask)) == len(asked)


@pytest.mark.parametrize("with_start", [True, False], ids=["with the start", "later"])
def test_a_signal_that_is_handed_over_twice_sends_again_what_the_first_taker_may_have_died_before(
    with_start: bool,
) -> None:
    process = process_of(goes)
    if with_start:  # whose starter died before the wake, and sends the signal again
        process.client.signal_with_start("e", GO, 1, goes.options(request_id="go"))
        taken_from_the_queue(process)
        process.backend.acknowledge([delivery.receipt for delivery in process.receive()])
    else:
        process.client.start("e", goes)
        process.take_due()
    process.client.signal("e", GO, 1, request_id="go")
    signal = process.receive()
    process.take(signal)
    [asked] = taken_from_the_queue(process)

    process.beside().take(signal)
    assert process.queued() == [asked.message.id.split(".", 2)[2]]


def test_a_signal_that_is_sent_again_later_sends_nothing() -> None:
    process = process_of(goes)
    process.client.start("e", goes)
    process.take_due()
    process.client.signal("e", GO, 1, request_id="go")
    signal = process.receive()
    process.take(signal)
    [asked] = taken_from_the_queue(process)
    for n in (2, 3):
        process.client.signal("e", GO, n)
        process.take_due()

    process.take(signal)
    assert asked.message.id.split(".", 2)[2] not in process.queued()


def test_an_activity_that_stood_in_line_belongs_to_the_turn_that_sent_it() -> None:
    @orchestrator
    async def crowd(ctx: Context) -> None:
        await asyncio.gather(*(step(n) for n in range(MAX_OUTSTANDING + 1)))

    process = process_of(crowd)
    process.client.start("e", crowd)
    process.take_due()
    first, *_ = taken_from_the_queue(process)
    process.take([completion(first)])
    (next_in_line,) = taken_from_the_queue(process)

    process.beside().take([completion(first)])
    assert process.queued() == [next_in_line.message.id.split(".", 2)[2]]


def test_answers_that_nobody_asked_for_send_nothing_again() -> None:
    process = process_of(fan_out)
    process.client.start("e", fan_out)
    process.take_due()
    task, *_ = taken_from_the_queue(process)
    assert isinstance(task.message, ActivityTask)
    stray = ActivityCompleted(seq=100_000, result="1")
    process.take([Delivery(EventMessage(run=task.message.run, event=stray), "stray")])
    assert process.queued() == []


@WARM_OR_NOT
def test_cancels_that_a_crash_left_out_are_made_up_for(warm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    process = process_of(gives_up)
    process.client.start("e", gives_up)
    process.take_due()
    (late,) = process.tasks()
    assert isinstance(late.message, ActivityTask)
    process.clock.advance(1_000)
    due = process.receive()

    commit = MemoryBackend.commit
    with monkeypatch.context() as patch:  # the turn is stored, and whoever stored it dies before it reaches the items
        patch.setattr(
            MemoryBackend,
            "commit",
            lambda backend, commits, **_: commit(
                backend, [replace(each, cancel=(), acknowledge=()) for each in commits]
            ),
        )
        process.take(due)
    assert process.backend.read_item(late.message.key) is None

    (process if warm else process.beside()).take([replace(delivery, receives=2) for delivery in due])
    item = process.backend.read_item(late.message.key)
    assert item is not None
    assert item.state == "cancelled"
    assert len(process.queued(EventMessage)) == 1  # the timer of 600 s; the message of the first is dealt with


def test_an_activity_that_was_never_sent_needs_no_cancelled_item() -> None:
    @orchestrator
    async def crowd(ctx: Context) -> None:
        tasks = [asyncio.create_task(step(n)) for n in range(MAX_OUTSTANDING + 5)]
        await tasks[0]

    process = process_of(crowd)
    process.client.start("e", crowd)
    process.take_due()
    first, *_ = process.tasks()
    process.take([completion(first)])
    assert process.record().status == "completed"
    assert len(process.backend.read_items(process.record().key)) == MAX_OUTSTANDING - 1
