"""An orchestrator driven by hand: what it asks for, given what its activities answer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any, TypeVar

from durably import Activity, Orchestrator
from durably.codec.payloads import PydanticCodec
from durably.core.commands import CompleteExecution, ScheduleActivity
from durably.core.events import ActivityCompleted, ExecutionStarted, InboundEvent
from durably.core.execution import Execution
from durably.core.keys import RunKey
from durably.core.options import ActivityOptions

CODEC = PydanticCodec("always")
R = TypeVar("R")


def drive(
    orchestrator: Orchestrator[..., R], argument: Any, answers: Mapping[Activity[..., Any], Any]
) -> tuple[R, list[tuple[str, list[Any]]], list[ActivityOptions]]:
    """Run an orchestrator that asks for one activity at a time.

    Returns:
        Its result; names and arguments of what it asked for, in order; and with which options.
    """
    activities = {activity.name: activity for activity in answers}
    asked: list[tuple[str, list[Any]]] = []
    options: list[ActivityOptions] = []
    text = orchestrator.arguments_shape(CODEC).encode((argument,), {})
    event: InboundEvent = ExecutionStarted(orchestrator=orchestrator.name, input=text, seed=7, python="3.11", at_ms=1)
    with closing(Execution(RunKey("story-1", "01HF", 1), orchestrator.program(CODEC), CODEC)) as execution:
        while True:
            (command,) = execution.apply(event)
            match command:
                case ScheduleActivity():
                    activity = activities[command.name]
                    args, kwargs = activity.arguments_shape(CODEC).decode(command.input)
                    asked.append((command.name, [*args, *kwargs.values()]))
                    options.append(command.options or ActivityOptions())
                    answer = activity.result_shape(CODEC).encode(answers[activity])
                    event = ActivityCompleted(seq=command.seq, result=answer, at_ms=1)
                case CompleteExecution():
                    return CODEC.result(orchestrator.fn).decode(command.result), asked, options
                case _:
                    raise AssertionError(f"the orchestrator asked for {command}")
