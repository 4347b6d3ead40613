"""Child executions: results, failures, cancellation, and what becomes of them when their parent ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from durably import ChildError, Context, DefinitionError, Signal, orchestrator
from durably.api.orchestrator import ParentClose
from durably.core.errors import ExecutionFailedError
from durably.core.events import ChildStarted
from durably.ports.messages import Errand, EventMessage, Outgoing, Wake
from tests.unit.runtime.harness import LEASE_MS
from tests.unit.runtime.programs import process_of, step

GO = Signal[int]("go")
END = Signal[int]("end")


@orchestrator
async def child(ctx: Context, number: int) -> int:
    return 10 * await step(number)


@orchestrator
async def failing(ctx: Context) -> None:
    raise ValueError("no luck")


@orchestrator
async def waiting(ctx: Context) -> int:
    try:
        return await ctx.receive(GO)
    except asyncio.CancelledError:
        await step(99)
        raise


@orchestrator
async def parent(ctx: Context) -> int:
    return sum(await asyncio.gather(*(child(number) for number in (1, 2, 3))))


def test_children_return_their_results() -> None:
    process = process_of(parent, child)
    handle = process.client.start("p", parent)
    process.work()
    assert handle.result(0) == 60
    assert {record.execution_id for record in process.client.list()} == {"p", "p/1.1", "p/1.2", "p/1.3"}
    assert process.queued() == []


def test_a_child_that_fails_raises_in_its_parent_with_its_causes() -> None:
    @orchestrator
    async def careful(ctx: Context) -> str:
        try:
            await failing()
        except ChildError as error:
            return f"{error.execution_id}: {error.failure.message}, {error.matches(ValueError)}"
        return ""

    process = process_of(careful, failing)
    process.client.start("p", careful)
    process.work()
    assert process.record("p").result == '"p/1.1: no luck, True"'


def test_an_id_that_is_taken_fails_the_child() -> None:
    @orchestrator
    async def greedy(ctx: Context) -> int:
        return await child.options(execution_id="taken")(1)

    process = process_of(greedy, child, waiting)
    process.client.start("taken", waiting)
    process.client.start("p", greedy)
    process.work()
    failure = process.record("p").failure
    assert failure is not None
    assert "belongs to an open execution of waiting" in failure.message
    assert process.record("taken").status == "running"


def test_a_handle_is_there_as_soon_as_the_child_is() -> None:
    @orchestrator
    async def talks(ctx: Context) -> int:
        handle = await waiting.start()
        await handle.signal(GO, 4)
        return await handle

    process = process_of(talks, waiting)
    process.client.start("p", talks)
    process.work()
    assert process.record("p").result == "4"


@pytest.mark.parametrize(
    ("policy", "expected"), [("terminate", "terminated"), ("cancel", "cancelled"), ("abandon", "running")]
)
def test_children_end_with_their_parent_as_their_policy_says(policy: ParentClose, expected: str) -> None:
    @orchestrator
    async def leaves(ctx: Context) -> None:
        await waiting.options(parent_close=policy).start()

    process = process_of(leaves, waiting)
    process.client.start("p", leaves)
    process.work()
    assert process.record("p").status == "completed"
    assert process.record("p/1.1").status == expected


def test_a_terminated_parent_takes_its_children_along() -> None:
    @orchestrator
    async def waits(ctx: Context) -> int:
        return await waiting()

    process = process_of(waits, waiting)
    handle = process.client.start("p", waits)
    process.work()
    assert process.record("p/1.1").status == "running"
    handle.terminate()
    process.work()
    assert process.record("p/1.1").status == "terminated"


def test_cancelling_who_awaits_a_child_cancels_the_child() -> None:
    @orchestrator
    async def impatient(ctx: Context) -> str:
        try:
            await asyncio.wait_for(waiting(), 5)
        except TimeoutError:
            return "late"
        return "in time"

    process = process_of(impatient, waiting)
    process.client.start("p", impatient)
    process.work()
    process.clock.advance(5_000)
    process.work()
    assert process.record("p").result == '"late"'
    assert process.record("p/1.2").status == "cancelled"
    assert "step" in str(process.client.history("p/1.2"))


def test_a_child_that_nobody_wants_any_more_is_not_started() -> None:
    @orchestrator
    async def hasty(ctx: Context) -> str:
        task = asyncio.create_task(waiting())
        await step(1)
        task.cancel()
        return "done"

    process = process_of(hasty, waiting)
    process.client.start("p", hasty)
    process.take_due()
    for task in process.tasks():
        process.run(task)
    process.take_due()
    assert process.record("p").status == "completed"
    process.work()
    assert process.backend.read_record("p/1.1") is None


def test_an_errand_that_is_carried_out_twice_starts_one_child() -> None:
    process = process_of(parent, child)
    handle = process.client.start("p", parent)
    process.take_due()
    for delivery in process.receive():
        process.run_errand(delivery)
        process.run_errand(delivery)
    process.clock.advance(LEASE_MS)
    process.work()
    assert handle.result(0) == 60
    assert sum(record.orchestrator == "child" for record in process.client.list()) == 3


@orchestrator
async def quick(ctx: Context) -> int:
    return 7


@orchestrator
async def starts(ctx: Context) -> int:
    return await (await quick.start())


def test_a_child_may_end_before_its_parent_hears_of_its_start() -> None:
    process = process_of(starts, quick)
    handle = process.client.start("p", starts)
    process.take_due()
    [errand] = process.receive()
    process.run_errand(errand)
    begun, wake = sorted(process.receive(), key=lambda delivery: isinstance(delivery.message, Wake))
    process.take([wake])
    process.take(process.receive())
    process.take([begun])
    assert handle.result(0) == 7


def test_a_second_copy_of_the_news_that_a_child_exists_starts_nothing() -> None:
    @orchestrator
    async def watches(ctx: Context) -> int:
        return await (await waiting.start())

    process = process_of(watches, waiting)
    process.client.start("p", watches)
    process.work()
    process.backend.send([Outgoing(EventMessage(run=process.record("p").key, event=ChildStarted(seq=1)))])
    process.take_due()
    assert process.queued() == []


def test_a_child_is_called_inside_an_orchestrator_only() -> None:
    with pytest.raises(DefinitionError, match=r"outside another one, start it with client\.start"):
        child(1).close()


def test_a_parent_in_another_life_has_children_of_its_own() -> None:
    process = process_of(parent, child)
    for _ in range(2):
        handle = process.client.start("p", parent.options(id_reuse="allow_if_closed"))
        process.work()
        assert handle.result(0) == 60


def test_a_child_waits_until_the_one_of_its_parents_earlier_life_is_ended() -> None:
    process = process_of(parent, child)
    process.client.start("p", parent.options(id_reuse="allow_if_closed"))
    process.take_due()
    for delivery in process.receive():
        process.run_errand(delivery)
    process.client.terminate("p")
    [end] = [each for each in process.receive() if each.message.run.execution_id == "p"]
    process.take([end])
    handle = process.client.start("p", parent.options(id_reuse="allow_if_closed"))
    process.take([each for each in process.receive() if each.message.run.execution_id == "p"])
    process.clock.advance(LEASE_MS)
    for _ in range(5):
        process.work()
        process.clock.advance(2_000)
    assert handle.result(0) == 60


def test_a_failure_passes_through_generations() -> None:
    @orchestrator
    async def middle(ctx: Context) -> None:
        await failing()

    @orchestrator
    async def top(ctx: Context) -> None:
        await middle()

    process = process_of(top, middle, failing)
    handle = process.client.start("p", top)
    process.work()
    with pytest.raises(ExecutionFailedError) as caught:
        handle.result(0)
    first = caught.value.failure
    assert first.cause is not None
    assert first.cause.cause is not None
    causes = [failure.type.rpartition(".")[2] for failure in (first, first.cause, first.cause.cause)]
    assert causes == ["ChildError", "ChildError", "ValueError"]


def test_a_child_that_is_asked_for_and_cancelled_in_one_turn_is_not_started() -> None:
    @orchestrator
    async def waits(ctx: Context) -> int:
        try:
            return await waiting()
        except asyncio.CancelledError:
            await step(1)
            raise

    process = process_of(waits, waiting)
    process.client.start("p", waits).cancel()
    process.take_due()
    assert "ChildCancelRequested" in process.kinds("p")
    assert process.queued(Errand) == []
    process.work()
    assert process.record("p").status == "cancelled"
    assert [record.execution_id for record in process.client.list()] == ["p"]


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("continues", [True, False])
def test_what_outlives_the_run_is_carried_out_though_the_run_ends_in_the_same_turn(
    at_once: bool, continues: bool
) -> None:
    @orchestrator
    async def hasty(ctx: Context, run: int) -> int:
        async def ask() -> None:
            await ctx.receive(GO)
            await asyncio.gather(
                child.options(parent_close="abandon", execution_id="left").start(4),
                child.options(parent_close="terminate", execution_id="ended").start(5),
                ctx.signal("there", GO, 6),
            )

        asking = asyncio.create_task(ask())
        await ctx.receive(END)
        assert not asking.done()
        return await ctx.continue_as_new(2) if continues and run == 1 else 7

    process = process_of(hasty, child, waiting)
    process.client.start("there", waiting)
    process.client.start("p", hasty, 1)
    process.work()
    for signal in (GO, END):
        process.client.signal("p", signal, 1)
        if not at_once:
            process.take_due()
    process.take_due()
    process.work()
    assert process.record("there").result == "6"
    assert process.record("left").result == "40"
    assert process.backend.read_record("ended") is None


def test_what_outlives_the_run_is_sent_again_by_whoever_gets_its_last_message_again() -> None:
    @orchestrator
    async def hasty(ctx: Context) -> None:
        asyncio.create_task(ctx.signal("there", GO, 6))
        asyncio.create_task(child.options(execution_id="ended").start(5))
        await ctx.receive(END)

    process = process_of(hasty, child, waiting)
    process.client.start("p", hasty)
    process.client.signal("p", END, 1)
    due = process.receive()
    process.take(due)
    process.work()
    assert process.record("p").status == "completed"
    [last] = [delivery for delivery in due if isinstance(delivery.message, EventMessage)]
    process.take([replace(last, receives=2)])
    assert process.queued(Errand) == ["signal.1", "terminate.2"]
