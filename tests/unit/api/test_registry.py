"""`@orchestrator` and the registry: names, aliases, versions, and histories under changed signatures."""

from __future__ import annotations

import dataclasses
import inspect
import runpy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from durably import Context, DefinitionError, Orchestrator, Registry, activity, orchestrator
from durably.api.names import check_execution_id
from durably.codec.payloads import PydanticCodec
from durably.core.commands import record_command
from durably.core.errors import InvalidIdError, NonDeterminismError, UnknownOrchestratorError
from durably.core.events import ExecutionStarted
from durably.core.execution import Execution
from durably.core.history import Turn
from durably.core.keys import RunKey
from durably.core.replay import replay

CODEC = PydanticCodec()


@activity
def step(number: int) -> int:
    return number


@orchestrator
async def flow(ctx: Context, number: int = 1) -> int:
    """One step."""
    return await step(number)


@orchestrator(name="flow-2", aliases=["old-flow"])
async def other_flow(ctx: Context) -> None: ...


# --- orchestrators --------------------------------------------------------------------------------------------


def test_a_declaration_knows_its_function() -> None:
    assert (flow.name, flow.aliases, flow.__doc__) == ("flow", (), "One step.")
    assert (other_flow.name, other_flow.aliases) == ("flow-2", ("old-flow",))
    assert inspect.iscoroutinefunction(flow.fn)
    assert repr(other_flow) == "<orchestrator flow-2>"


def test_start_options_are_the_copys_own() -> None:
    one = flow.options(id_reuse="use_existing")
    two = one.options(request_id="r")
    assert (flow.start_options.id_reuse, flow.start_options.request_id) == ("reject", None)
    assert (one.start_options.id_reuse, one.start_options.request_id) == ("use_existing", None)
    assert (two.start_options.id_reuse, two.start_options.request_id) == ("use_existing", "r")


def test_what_cannot_be_an_orchestrator_is_refused() -> None:
    def plain(ctx: Context) -> None: ...

    async def without_context() -> None: ...

    async def another_first(number: int) -> None: ...

    async def generator(ctx: Context) -> AsyncIterator[int]:
        yield 1

    class Service:
        async def method(self, ctx: Context) -> None: ...

    another_first.__annotations__["number"] = int  # as without `from __future__ import annotations`
    wrong: list[tuple[Any, str]] = [
        (plain, "must be an `async def`"),
        (generator, "must be an `async def` without `yield`"),
        (without_context, "must take the Context"),
        (another_first, r"must take the Context .*: async def another_first\(ctx: Context, ...\)"),
        (Service.method, "is a method"),
    ]
    for function, said in wrong:
        with pytest.raises(DefinitionError, match=said):
            orchestrator(function)


@pytest.mark.parametrize("execution_id", ["", "a b", "ä", "a" * 257, "a\n", "a\x00", "a?b", None, 7])
def test_an_id_that_no_backend_could_store_is_refused(execution_id: Any) -> None:
    with pytest.raises(InvalidIdError, match="cannot be an execution id"):
        check_execution_id(execution_id)


# --- the registry -----------------------------------------------------------------------------------------------


def test_definitions_are_found_by_name_and_alias() -> None:
    registry = Registry([flow, other_flow], [step], codec=CODEC)
    assert registry.orchestrator_names == ("flow", "flow-2", "old-flow")
    assert registry.activity_names == ("step",)
    assert registry.program("old-flow") is registry.program("flow-2")
    assert registry.program("nobody") is None
    assert registry.activity("nobody") is None
    assert registry.input_shape("flow").encode((), {"number": 2}) == '{"number":2}'


def test_an_unknown_orchestrator_is_told_with_those_that_are_known() -> None:
    with pytest.raises(UnknownOrchestratorError, match=r"'flw'.*knows: flow"):
        Registry([flow], codec=CODEC).input_shape("flw")
    with pytest.raises(UnknownOrchestratorError, match="knows: none"):
        Registry(codec=CODEC).input_shape("flow")


def test_what_is_no_definition_or_the_other_kind_is_refused() -> None:
    undecorated: Any = step.fn
    with pytest.raises(DefinitionError, match=r"given as an activity, and is none\. Decorate it with @activity"):
        Registry(activities=[undecorated], codec=CODEC)
    with pytest.raises(DefinitionError, match=r"<activity step> is given as an orchestrator, .* go apart"):
        Registry([cast(Any, step)], codec=CODEC)


def test_two_functions_cannot_share_a_name_or_an_alias() -> None:
    @activity(name="step")
    def other_step() -> None: ...

    @activity(aliases=["step"])
    def third_step() -> None: ...

    @orchestrator(name="step")
    async def step_flow(ctx: Context) -> None: ...

    clashes: list[tuple[list[Any], list[Any]]] = [
        ([], [step, other_step]),
        ([], [step, third_step]),
        ([step_flow], [step]),
    ]
    for orchestrators, activities in clashes:
        with pytest.raises(DefinitionError, match=r"share the persisted name 'step'"):
            Registry(orchestrators, activities, codec=CODEC)


def test_copies_with_other_options_are_the_same_function() -> None:
    registry = Registry([flow, flow.options(request_id="r")], [step, step.options(at_most_once=True)], codec=CODEC)
    assert registry.activity_names == ("step",)


def test_an_annotation_that_cannot_be_stored_is_refused_when_the_registry_is_built() -> None:
    @activity
    def opaque(thing: object, *rest: int) -> None: ...

    with pytest.raises(DefinitionError, match="opaque"):
        Registry([], [opaque], codec=CODEC)


def test_the_version_of_the_code_is_that_of_its_orchestrators_files(tmp_path: Path) -> None:
    def version(text: str) -> str:
        file = tmp_path / "flows.py"
        file.write_text(
            f"from durably import orchestrator\n@orchestrator\nasync def f(ctx): {text}\n", encoding="utf-8"
        )
        found: Orchestrator[..., Any] = runpy.run_path(str(file))["f"]
        return Registry([found], codec=CODEC).code_version

    assert version("pass") == version("pass")
    assert version("pass") != version("return")
    assert Registry([flow], [step], codec=CODEC).code_version == Registry([flow], codec=CODEC).code_version


def test_the_version_of_the_code_may_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURABLY_CODE_VERSION", "v6")
    assert Registry([flow], codec=CODEC).code_version == "v6"
    assert Registry([flow], codec=CODEC, code_version="v7").code_version == "v7"


# --- a signature changes while executions run -----------------------------------------------------------------------


def history_of(definition: Orchestrator[..., Any]) -> Turn:
    execution = run_of(definition)
    started = ExecutionStarted(orchestrator="flow", input="{}", seed=1, python="3.11")
    outbound = [record_command(command, cause=1, now_ms=0) for command in execution.apply(started)]
    execution.close()
    return Turn(
        number=1,
        kind="applied",
        inbound=(started,),
        outbound=tuple(outbound),
        applied_through=1,
        nonce="n",
        code_version="v",
        at_ms=0,
    )


def run_of(definition: Orchestrator[..., Any]) -> Execution:
    return Execution(RunKey("e", "g", 1), definition.program(CODEC), CODEC)


@dataclasses.dataclass
class Parcel:
    weight: int


@dataclasses.dataclass
class TrackedParcel:
    weight: int
    tracked: bool = False
    tags: frozenset[str] = frozenset()


def sending(kind: Any, **values: Any) -> Orchestrator[..., Any]:
    def send(parcel: Any) -> None: ...

    send.__annotations__["parcel"] = kind
    declared = activity(send)

    @orchestrator(name="flow")
    async def sends(ctx: Context) -> None:
        await declared(kind(weight=1, **values))

    return sends


def test_an_optional_field_that_was_added_is_no_divergence() -> None:
    execution = run_of(sending(TrackedParcel))
    replay(execution, [history_of(sending(Parcel))])
    execution.close()


def test_an_added_field_with_another_value_than_its_default_is_one() -> None:
    execution = run_of(sending(TrackedParcel, tracked=True))
    with pytest.raises(NonDeterminismError, match=r'history recorded send\(\{"parcel":\{"weight":1\}\}\)'):
        replay(execution, [history_of(sending(Parcel))])
    execution.close()


def test_an_optional_parameter_that_was_added_is_no_divergence() -> None:
    def flows(function: Any) -> Orchestrator[..., Any]:
        declared = activity(name="step")(function)

        @orchestrator(name="flow")
        async def stepping(ctx: Context) -> None:
            await declared(1)

        return stepping

    def before(number: int) -> None: ...
    def after(number: int, unit: str = "kg") -> None: ...

    execution = run_of(flows(after))
    replay(execution, [history_of(flows(before))])
    execution.close()
