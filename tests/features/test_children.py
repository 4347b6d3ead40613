"""Children: executions of their own that their parent starts, hears of, talks to and ends."""

from __future__ import annotations

import asyncio

import pytest

from durably import ChildError, Context, ExecutionFailedError, Signal, activity, orchestrator
from durably.api.orchestrator import ParentClose
from tests.features.places import Place

GO = Signal[int]("go")


@activity
def tidy_up() -> None: ...


@orchestrator
async def double(ctx: Context, number: int) -> int:
    return 2 * number


@orchestrator
async def patient(ctx: Context) -> int:
    try:
        return await ctx.receive(GO)
    except asyncio.CancelledError:
        await tidy_up()
        raise


@orchestrator
async def broken(ctx: Context) -> None:
    raise ValueError("no luck")


def test_children_return_their_results_and_have_ids_of_their_own(place: Place) -> None:
    @orchestrator
    async def parent(ctx: Context) -> int:
        return sum(await asyncio.gather(*(double(number) for number in (1, 2, 3))))

    client = place.deploy(parent, double)
    client.start("p", parent)
    assert place.result("p") == 12
    assert {record.execution_id for record in client.list()} == {"p", "p/1.1", "p/1.2", "p/1.3"}
    assert place.result("p/1.2") == 4


def test_a_child_that_was_started_is_signalled_and_awaited(place: Place) -> None:
    @orchestrator
    async def parent(ctx: Context) -> tuple[str, int]:
        handle = await patient.options(execution_id="my-child").start()
        await handle.signal(GO, 4)
        return handle.execution_id, await handle

    client = place.deploy(parent, patient, tidy_up)
    client.start("p", parent)
    assert place.result("p") == ("my-child", 4)


def test_a_child_that_is_cancelled_cleans_up(place: Place) -> None:
    @orchestrator
    async def parent(ctx: Context) -> str:
        handle = await patient.start()
        handle.cancel()
        try:
            await handle
        except asyncio.CancelledError:
            return handle.execution_id
        return ""

    client = place.deploy(parent, patient, tidy_up)
    client.start("p", parent)
    child = place.result("p")
    assert place.status(child) == "cancelled"
    assert "ActivityCompleted" in place.kinds(child)


def test_a_failure_carries_the_chain_of_causes_through_the_generations(place: Place) -> None:
    @orchestrator
    async def middle(ctx: Context) -> None:
        await broken()

    @orchestrator
    async def top(ctx: Context) -> list[str]:
        try:
            await middle()
        except ChildError as error:
            cause = error.failure.cause
            assert cause is not None
            return [error.execution_id, error.failure.type.rpartition(".")[2], str(cause)]
        return []

    client = place.deploy(top, middle, broken)
    client.start("p", top)
    assert place.result("p") == ["p/1.1", "ChildError", "ValueError: no luck"]
    with pytest.raises(ExecutionFailedError) as caught:
        place.result("p/1.1")
    assert caught.value.failure.matches(ChildError)
    assert caught.value.failure.cause is not None
    assert caught.value.failure.cause.matches(ValueError)


@pytest.mark.parametrize(
    ("policy", "expected"), [("terminate", "terminated"), ("cancel", "cancelled"), ("abandon", "running")]
)
def test_children_end_with_their_parent_as_their_policy_says(place: Place, policy: ParentClose, expected: str) -> None:
    @orchestrator
    async def leaves(ctx: Context) -> None:
        await patient.options(parent_close=policy).start()

    client = place.deploy(leaves, patient, tidy_up)
    client.start("p", leaves)
    assert place.status("p") == "completed"
    assert place.status("p/1.1") == expected


def test_termination_cascades_by_policy_and_asks_no_code(place: Place) -> None:
    @orchestrator
    async def grandparent(ctx: Context) -> None:
        abandoned = await patient.options(parent_close="abandon").start()
        await asyncio.gather(parent(), abandoned)

    @orchestrator
    async def parent(ctx: Context) -> None:
        await patient()

    client = place.deploy(grandparent, parent, patient, tidy_up)
    client.start("p", grandparent)
    assert place.status("p/1.2/1.1") == "running"
    client.terminate("p", "enough")
    place.settle()
    statuses = {record.execution_id: record.status for record in client.list()}
    assert statuses == {"p": "terminated", "p/1.1": "running", "p/1.2": "terminated", "p/1.2/1.1": "terminated"}
    assert "ActivityScheduled" not in place.kinds("p/1.2/1.1")


def test_an_id_that_is_taken_fails_the_child_unless_it_may_live_again(place: Place) -> None:
    @orchestrator
    async def greedy(ctx: Context) -> list[int | str]:
        found: list[int | str] = []
        for reuse in (double, double.options(id_reuse="allow_if_closed")):
            try:
                found.append(await reuse.options(execution_id="taken")(5))
            except ChildError as error:
                found.append(error.failure.type.rpartition(".")[2])
        return found

    client = place.deploy(greedy, double)
    client.start("taken", double, 1)
    assert place.result("taken") == 2
    client.start("p", greedy)
    assert place.result("p") == ["ExecutionExistsError", 10]
