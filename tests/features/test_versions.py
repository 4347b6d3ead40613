"""Code that changes while executions run: patches, pinned versions, and which code took which turn."""

from __future__ import annotations

from datetime import timedelta

from durably import Context, Signal, activity, orchestrator
from tests.features.places import Place

GO = Signal[int]("go")


@activity
def greet(how: str) -> str:
    return how


@orchestrator(name="greeting")
async def before(ctx: Context) -> str:
    said = await greet("Hi")
    await ctx.receive(GO)
    return said


@orchestrator(name="greeting")
async def patched(ctx: Context) -> str:
    said = await greet("Good morning") if ctx.patched("politely") else await greet("Hi")
    await ctx.receive(GO)
    return said


@orchestrator(name="greeting")
async def afterwards(ctx: Context) -> str:
    ctx.deprecate_patch("politely")
    said = await greet("Good morning")
    await ctx.receive(GO)
    return said


def test_a_patch_leaves_running_executions_on_the_old_side(place: Place) -> None:
    client = place.deploy(before, greet)
    client.start("old", before)
    place.settle()
    client = place.deploy(patched, greet, version="v2")
    client.start("new", patched)
    place.settle()
    for execution_id in ("old", "new"):
        client.signal(execution_id, GO, 1)
    assert (place.result("old"), place.result("new")) == ("Hi", "Good morning")
    assert ("PatchRecorded" in place.kinds("old"), "PatchRecorded" in place.kinds("new")) == (False, True)


def test_a_deprecated_patch_runs_what_holds_it_and_records_no_more(place: Place) -> None:
    client = place.deploy(patched, greet)
    client.start("old", patched)
    place.settle()
    client = place.deploy(afterwards, greet, version="v2")
    client.start("new", afterwards)
    place.settle()
    for execution_id in ("old", "new"):
        client.signal(execution_id, GO, 1)
        assert place.result(execution_id) == "Good morning"
    assert "PatchRecorded" not in place.kinds("new")


def test_the_code_version_of_each_turn_is_recorded_and_shown(place: Place) -> None:
    client = place.deploy(before, greet, version="v1")
    client.start("x", before)
    place.settle()
    client = place.deploy(before, greet, version="v2")
    client.signal("x", GO, 1)
    place.settle()
    assert client.describe("x").code_version == "v2"
    shown = [(entry.event.kind, entry.code_version) for entry in client.history("x")]
    assert [version for kind, version in shown if kind.startswith("Activity")] == ["v1", "v1"]
    assert shown[-2:] == [("SignalReceived", "v2"), ("ExecutionCompleted", "v2")]


def test_a_pinned_execution_waits_for_the_version_that_it_started_with(place: Place) -> None:
    client = place.deploy(before, greet, version="v1")
    client.start("x", before.options(pinned=True))
    place.settle()
    client = place.deploy(before, greet, version="v2")
    client.signal("x", GO, 1)
    assert place.status("x") == "stalled"
    assert "pinned to the code version v1; this process has v2" in str(client.describe("x").failure)
    place.deploy(before, greet, version="v1")
    place.advance(timedelta(hours=1))
    assert place.result("x") == "Hi"


def test_a_stalled_execution_resumes_by_itself_once_its_code_agrees_again(place: Place) -> None:
    @orchestrator(name="greeting")
    async def edited(ctx: Context) -> str:
        return await greet("Hello")

    client = place.deploy(before, greet, version="v1")
    client.start("x", before)
    place.settle()
    client = place.deploy(edited, greet, version="v2")
    client.signal("x", GO, 1)
    assert place.status("x") == "stalled"
    failure = str(client.describe("x").failure)
    assert "Hello" in failure
    assert "Hi" in failure
    place.deploy(before, greet, version="v3")
    place.advance(timedelta(hours=1))
    assert place.result("x") == "Hi"
